//! What a child says of a plugin: how long it is kept, and what it hangs on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use ds_core::{Host, probe::ProbeFailure};
use ds_tests::{
    example,
    hostile::{ENTRY, plugin, status},
};

fn host(folder: &Path) -> Host {
    example::host(folder).with_helper(env!("CARGO_BIN_EXE_probe_helper").into())
}

#[test]
fn an_answer_is_kept_until_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    example::build_null_rust(folder.path()).unwrap();
    assert_eq!(status(&host(folder.path()), "null"), Ok(1));
    // With a helper that can answer nothing, only what is kept is known.
    let mute = || example::host(folder.path()).with_helper("/bin/true".into());
    assert_eq!(status(&mute(), "null"), Ok(1));
    let library = folder.path().join("null-rust/libexample_null.so");
    let content = fs::read(&library).unwrap();
    fs::remove_file(&library).unwrap();
    fs::write(&library, content).unwrap();
    let host = mute();
    assert_eq!(
        status(&host, "null"),
        Err("it ended the process with code 0".to_owned())
    );
    let candidate = host.discovery().accelerators().into_iter().find(|c| {
        c.manifest
            .as_ref()
            .is_some_and(|m| m.accelerator.as_str() == "null")
    });
    let record = host.probe(candidate.unwrap()).unwrap();
    assert!(
        matches!(
            record.devices,
            Err(ProbeFailure {
                quarantined: true,
                ..
            })
        ),
        "{record:?}"
    );
}

#[test]
fn what_is_missing_is_looked_for_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let driver = folder.path().join("driver");
    let source = format!(
        "static DsStatus n(uint32_t *d, DsErrorSink *e) {{ FILE *f = \
         fopen(\"{}\", \"r\"); *d = 0; return f ? (fclose(f), DS_NO_DEVICE) : DS_UNAVAILABLE; }} \
         static DsStatus i(uint32_t x, DsDeviceInfo *d, DsErrorSink *e) {{ return 1; }} \
         static DsStatus o(uint32_t x, DsDevice *d, DsErrorSink *e) {{ return 1; }} \
         static void c(DsDevice d) {{ }} \
         static const DsDeviceTable t = {{ sizeof t, .count = n, .describe = i, .open = o, \
         .close = c }}; {ENTRY} {{ p->device = &t; return DS_OK; }}",
        driver.display()
    );
    if !plugin(folder.path(), "late", &source).unwrap() {
        return;
    }
    let reason = || status(&host(folder.path()), "late").unwrap_err();
    assert!(reason().contains("status 4"), "{}", reason());
    // Nothing of the plugin or the machine has changed but this file.
    fs::write(&driver, "").unwrap();
    assert!(reason().contains("status 5"), "{}", reason());
}

#[test]
fn a_schema_is_a_small_file_of_the_plugins_own() {
    let folder = tempfile::tempdir().unwrap();
    if !plugin(folder.path(), "liar", &format!("{ENTRY} {{ exit(3); }}")).unwrap() {
        return;
    }
    let plugin = folder.path().join("liar");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(plugin.join("plugin.json")).unwrap()).unwrap();
    manifest["schemas"] = serde_json::json!(["own.ops"]);
    fs::write(plugin.join("plugin.json"), manifest.to_string()).unwrap();
    let schema = plugin.join("own.ops");
    let elsewhere = folder.path().join(".elsewhere.ops");
    fs::write(&elsewhere, "op liar_op(x: f32[N]) -> y: f32[N]").unwrap();
    // Its library is not opened for any of these: it would end the test.
    let refused = |said: &str| {
        let error = example::host(folder.path())
            .accelerator("liar")
            .unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        fs::remove_file(&schema)
            .or_else(|_| fs::remove_dir(&schema))
            .unwrap();
    };
    std::os::unix::fs::symlink(&elsewhere, &schema).unwrap();
    refused("is a link that leaves its folder");
    let made = Command::new("mkfifo").arg(&schema).status();
    if made.is_ok_and(|status| status.success()) {
        refused("own.ops");
    }
    fs::create_dir(&schema).unwrap();
    refused("is not a regular file");
    fs::write(&schema, b"op \xff").unwrap();
    refused("UTF-8");
    fs::File::create(&schema).unwrap().set_len(1 << 40).unwrap();
    refused("the limit is 262144");
}
