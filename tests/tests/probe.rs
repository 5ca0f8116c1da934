//! Plugins that nobody should open: each breaks the child that asks it, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, io::Write, path::Path, process::Command};

use ds_core::{Host, probe::ProbeFailure, selection::State};
use ds_tests::example;

/// A plugin `name` made of C source, in a folder of its own.
fn hostile(folder: &Path, name: &str, source: &str) -> bool {
    let plugin = folder.join(name);
    fs::create_dir_all(&plugin).unwrap();
    let c = plugin.join("plugin.c");
    fs::write(
        &c,
        format!("#include \"ds_plugin.h\"\n#include <stdlib.h>\n{source}"),
    )
    .unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/abi/include");
    let Ok(built) = Command::new("cc")
        .args(["-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-I"])
        .arg(include)
        .arg(&c)
        .arg("-o")
        .arg(plugin.join("lib.so"))
        .output()
    else {
        // Past the test runner, which keeps what is printed, so that nobody takes it for a pass.
        let mut terminal = std::io::stderr();
        writeln!(terminal, "skipped: no C compiler (tried cc)").unwrap();
        return false;
    };
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    fs::remove_file(c).unwrap();
    let manifest = format!(
        r#"{{"format": 1, "id": "org.example.{name}", "version": "1.0.0", "vendor": "Example",
            "license": "Apache-2.0", "accelerator": "{name}", "priority": 0, "description": "Bad.",
            "library": {{"linux-x86_64": [{{"path": "lib.so"}}],
                         "linux-aarch64": [{{"path": "lib.so"}}]}},
            "abi": {{"major": 1, "min_minor": 0, "max_minor": 0}}, "tables": ["device"],
            "dlpack_type": 12, "match": [{{"always": true}}], "behaviour": {{"panic": "none"}},
            "seen_on": {{"on": "simulator", "note": "bad on purpose"}}}}"#
    );
    fs::write(plugin.join("plugin.json"), manifest).unwrap();
    true
}

fn host(folder: &Path) -> Host {
    example::host(folder).with_helper(env!("CARGO_BIN_EXE_probe_helper").into())
}

/// How `name` stands: its devices, or the reason why it has none.
fn status(host: &Host, name: &str) -> Result<u32, String> {
    let status = host
        .statuses()
        .into_iter()
        .find(|s| s.name.as_str() == name)
        .unwrap();
    match status.state {
        State::Usable { device_count } => Ok(device_count),
        State::Unusable { reason, .. } => Err(reason),
    }
}

const ENTRY: &str = "DsStatus ds_plugin_v1(const DsHost *h, DsPlugin *p, DsErrorSink *e)";

#[test]
fn a_crash_a_lie_and_an_exit_are_told_apart_and_never_opened_here() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "crash",
            format!(
                "__attribute__((constructor)) static void c(void) {{ abort(); }} {ENTRY} {{ return 1; }}"
            ),
        ),
        ("leave", format!("{ENTRY} {{ exit(3); }}")),
        (
            "refuse",
            format!("{ENTRY} {{ return DS_INCOMPATIBLE_ABI; }}"),
        ),
        ("empty", format!("{ENTRY} {{ return DS_OK; }}")),
    ];
    for (name, source) in &cases {
        if !hostile(folder.path(), name, source) {
            return;
        }
    }
    let host = host(folder.path());
    let reason = |name| status(&host, name).unwrap_err();
    assert_eq!(
        reason("crash"),
        "it crashed with signal 6; its last words: in opening the library or `ds_plugin_v1`"
    );
    assert_eq!(
        reason("leave"),
        "it ended the process with code 3; its last words: in opening the library or `ds_plugin_v1`"
    );
    assert!(
        reason("refuse").contains("ds_plugin_v1 failed with status 12"),
        "{}",
        reason("refuse")
    );
    assert!(
        reason("empty").contains("no device table"),
        "{}",
        reason("empty")
    );
    // Naming one does not open it either, and the others are served.
    let error = host.accelerator("crash").unwrap_err();
    assert!(
        error.to_string().contains("it crashed with signal 6"),
        "{error}"
    );
    assert_eq!(status(&host, "cpu"), Ok(1));
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
        "#include <stdio.h>\nstatic DsStatus n(uint32_t *d, DsErrorSink *e) {{ FILE *f = \
         fopen(\"{}\", \"r\"); *d = 0; return f ? (fclose(f), DS_NO_DEVICE) : DS_UNAVAILABLE; }} \
         static DsStatus i(uint32_t x, DsDeviceInfo *d, DsErrorSink *e) {{ return 1; }} \
         static DsStatus o(uint32_t x, DsDevice *d, DsErrorSink *e) {{ return 1; }} \
         static void c(DsDevice d) {{ }} \
         static const DsDeviceTable t = {{ sizeof t, .count = n, .describe = i, .open = o, \
         .close = c }}; {ENTRY} {{ p->device = &t; return DS_OK; }}",
        driver.display()
    );
    if !hostile(folder.path(), "late", &source) {
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
    if !hostile(folder.path(), "liar", &format!("{ENTRY} {{ exit(3); }}")) {
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
