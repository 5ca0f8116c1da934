//! Discovery on folders made for the test, and the manifests that ship with the project.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use common::{PLUGIN_C, chmod, file, folder, library};
use ds_core::{
    Host,
    discovery::{
        Candidate, Discovery, LinkedManifest, Origin, Search, Verdict, discover, verify_files,
    },
    manifest::Manifest,
    selection::{Selection, State},
    trust::FileIdentity,
};
use serde_json::{Value, json};

/// The manifest of a plugin `org.example.NAME`, with keys replaced.
fn manifest(name: &str, changes: &Value) -> String {
    let mut object = json!({
        "format": 1, "id": format!("org.example.{name}"), "version": "0.1.0", "vendor": "Example",
        "license": "MIT", "accelerator": name, "priority": 5, "description": "For tests.",
        "library": { "linux-x86_64": [{ "path": "libplugin.so" }],
                     "linux-aarch64": [{ "path": "libplugin.so" }] },
        "abi": { "major": 1, "min_minor": 0, "max_minor": 0 }, "dlpack_type": 12,
        "match": [{ "always": true }], "seen_on": { "on": "nothing", "note": "" }
    });
    for (key, value) in changes.as_object().unwrap() {
        object[key] = value.clone();
    }
    object.to_string()
}

/// A plugin's folder in `parent`, with a library if there is a C compiler; nothing without one.
fn plugin(parent: &Path, name: &str, changes: &Value) -> Option<PathBuf> {
    let home = folder(parent, name);
    file(&home.join("plugin.json"), manifest(name, changes));
    library(&home, PLUGIN_C, &[])?;
    Some(home)
}

fn search_path(paths: &[&Path]) -> Search {
    let joined = std::env::join_paths(paths).unwrap();
    Search {
        plugin_path: Some(joined),
        ..Search::empty()
    }
}

fn discover_in(path: &Path) -> Discovery {
    discover(&search_path(&[path]))
}

/// The one candidate of a search.
fn only(found: Discovery) -> Candidate {
    assert_eq!(found.candidates.len(), 1, "{:?}", found.candidates);
    found.candidates.into_iter().next().unwrap()
}

fn reason(candidate: &Candidate) -> &str {
    &candidate.verdict.refusal().unwrap().reason
}

fn verdicts(found: &Discovery) -> Vec<&'static str> {
    found
        .candidates
        .iter()
        .map(|candidate| candidate.verdict.name())
        .collect()
}

#[test]
fn finds_a_plugin_and_says_what_to_open() {
    let home = tempfile::tempdir().unwrap();
    let Some(folder) = plugin(home.path(), "sim", &json!({})) else {
        return;
    };
    let candidate = only(discover_in(home.path()));
    assert_eq!(candidate.verdict, Verdict::Found);
    assert_eq!(candidate.origin, Origin::PluginPath);
    let library = candidate.library.unwrap();
    assert_eq!(
        library.path,
        folder.join("libplugin.so").canonicalize().unwrap()
    );
    assert_eq!(
        library.identity,
        FileIdentity::of(&library.path.metadata().unwrap())
    );
    // The folder of the plugin itself may be named as well.
    assert_eq!(only(discover_in(&folder)).verdict, Verdict::Found);
}

#[test]
fn the_first_wins_and_the_others_are_shadowed() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (folder(home.path(), "a"), folder(home.path(), "b"));
    let Some(first) = plugin(&a, "sim", &json!({})) else {
        return;
    };
    plugin(&b, "sim", &json!({}));
    plugin(&b, "other", &json!({ "accelerator": "sim" }));
    let found = discover(&search_path(&[&a, &b]));
    assert_eq!(verdicts(&found), ["found", "shadowed", "shadowed"]);
    let Verdict::Shadowed { by, .. } = &found.candidates[2].verdict else {
        panic!()
    };
    assert_eq!(*by, first.display().to_string());
    assert_eq!(
        verdicts(&discover(&search_path(&[&b, &a]))),
        ["found", "shadowed", "shadowed"]
    );
    // Programs come before variables.
    let search = Search {
        programmatic: vec![b],
        ..search_path(&[&a])
    };
    let found = discover(&search);
    assert_eq!(found.candidates[0].origin, Origin::Programmatic);
    assert_eq!(found.candidates[2].verdict.name(), "shadowed");
}

#[test]
fn a_refused_one_holds_its_place_and_an_unbuilt_one_does_not() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (folder(home.path(), "a"), folder(home.path(), "b"));
    let Some(first) = plugin(&a, "sim", &json!({})) else {
        return;
    };
    plugin(&b, "sim", &json!({}));
    chmod(&first, 0o777);
    let found = discover(&search_path(&[&a, &b]));
    assert_eq!(verdicts(&found), ["untrusted", "shadowed"]);
    assert!(reason(&found.candidates[1]).contains("which is not usable: "));
    chmod(&first, 0o755);
    for changes in [
        json!({ "library": null, "not_built": "no time yet" }),
        json!({ "library": { "plan9-mips": [{ "path": "libplugin.so" }] } }),
    ] {
        file(&first.join("plugin.json"), manifest("sim", &changes));
        let found = discover(&search_path(&[&a, &b]));
        assert_eq!(found.candidates[1].verdict, Verdict::Found);
        let chosen = found.accelerators();
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].verdict, Verdict::Found);
    }
}

#[test]
fn a_linked_plugin_comes_after_the_programs_own_folders() {
    let home = tempfile::tempdir().unwrap();
    if plugin(home.path(), "sim", &json!({})).is_none() {
        return;
    }
    let linked = vec![LinkedManifest {
        text: manifest("sim", &json!({})),
    }];
    let found = discover(&Search {
        linked: linked.clone(),
        ..search_path(&[home.path()])
    });
    assert_eq!(verdicts(&found), ["found", "shadowed"]);
    assert_eq!(found.candidates[0].origin, Origin::Linked);
    assert!(found.candidates[0].path.is_none());
    let Verdict::Shadowed { by, .. } = &found.candidates[1].verdict else {
        panic!()
    };
    assert_eq!(by, "org.example.sim in the program");
    let search = Search {
        linked,
        programmatic: vec![home.path().to_owned()],
        ..Search::empty()
    };
    let found = discover(&search);
    assert_eq!(found.candidates[0].origin, Origin::Programmatic);
    assert_eq!(verdicts(&found), ["found", "shadowed"]);
    let search = Search {
        linked: vec![LinkedManifest {
            text: "{".to_owned(),
        }],
        ..Search::empty()
    };
    assert_eq!(only(discover(&search)).verdict.name(), "bad-manifest");
}

#[test]
fn each_fault_has_its_verdict() {
    let home = tempfile::tempdir().unwrap();
    if plugin(home.path(), "sim", &json!({})).is_none() {
        return;
    }
    let size = home
        .path()
        .join("sim/libplugin.so")
        .metadata()
        .unwrap()
        .len();
    let hash = "0".repeat(64);
    for (changes, verdict, expected) in [
        (
            json!({ "format": 9 }),
            "bad-manifest",
            "this host reads format 1",
        ),
        (
            json!({ "library": null, "not_built": "no time" }),
            "not-built",
            "no time",
        ),
        (
            json!({ "library": { "plan9-mips": [{ "path": "libplugin.so" }] } }),
            "wrong-platform",
            "built for plan9-mips, and this machine is linux-",
        ),
        (
            json!({ "library": {
                "linux-x86_64": [{ "path": "libplugin.so", "cpu": ["no_such_feature"] }],
                "linux-aarch64": [{ "path": "libplugin.so", "cpu": ["no_such_feature"] }] } }),
            "wrong-platform",
            "this processor lacks no_such_feature",
        ),
        (
            json!({ "abi": { "major": 2, "min_minor": 0, "max_minor": 0 } }),
            "wrong-abi",
            "it needs version 2.0 of the plugin boundary, and this host has 1.0",
        ),
        (
            json!({ "abi": { "major": 1, "min_minor": 7, "max_minor": 7 } }),
            "wrong-abi",
            "it needs version 1.7",
        ),
        (
            json!({ "library": { "linux-x86_64": [{ "path": "libgone.so" }],
                                 "linux-aarch64": [{ "path": "libgone.so" }] } }),
            "bad-library",
            "libgone.so: No such file",
        ),
        (
            json!({ "library": { "linux-x86_64": [{ "path": "plugin.json" }],
                                 "linux-aarch64": [{ "path": "plugin.json" }] } }),
            "bad-library",
            "plugin.json: it is no ELF file",
        ),
        (
            json!({ "files": [{ "path": "libplugin.so", "size": size + 1, "blake3": hash }] }),
            "bad-library",
            "and the manifest says",
        ),
        (
            json!({ "match": [{ "device": "/dev/no such node*" }, { "file": "/nowhere" }] }),
            "no-hardware",
            "looked for /dev/no such node*, /nowhere",
        ),
    ] {
        file(
            &home.path().join("sim/plugin.json"),
            manifest("sim", &changes),
        );
        let candidate = only(discover_in(home.path()));
        assert_eq!(candidate.verdict.name(), verdict, "{:?}", candidate.verdict);
        assert!(
            reason(&candidate).contains(expected),
            "{}",
            reason(&candidate)
        );
        assert_eq!(candidate.library.is_some(), verdict == "no-hardware");
    }
    let good = json!({ "files": [{ "path": "libplugin.so", "size": size, "blake3": hash }] });
    file(&home.path().join("sim/plugin.json"), manifest("sim", &good));
    assert_eq!(only(discover_in(home.path())).verdict, Verdict::Found);
}

#[test]
fn takes_the_best_build_that_the_processor_can_run() {
    let home = tempfile::tempdir().unwrap();
    let builds = json!([
        { "path": "libfast.so", "cpu": ["no_such_feature"] },
        { "path": "libplugin.so" },
        { "path": "libslow.so" },
    ]);
    let changes = json!({ "library": { "linux-x86_64": builds, "linux-aarch64": builds } });
    if plugin(home.path(), "sim", &changes).is_none() {
        return;
    }
    let library = only(discover_in(home.path())).library.unwrap();
    assert!(library.path.ends_with("libplugin.so"));
}

#[test]
fn runs_nothing_that_others_could_have_written() {
    let home = tempfile::tempdir().unwrap();
    let Some(folder) = plugin(home.path(), "sim", &json!({})) else {
        return;
    };
    let library = folder.join("libplugin.so");
    for (path, mode) in [(&library, 0o666), (&folder.join("plugin.json"), 0o664)] {
        let before = path.metadata().unwrap().permissions();
        chmod(path, mode);
        let candidate = only(discover_in(home.path()));
        assert_eq!(candidate.verdict.name(), "untrusted");
        assert!(
            candidate
                .verdict
                .refusal()
                .unwrap()
                .hint
                .as_ref()
                .unwrap()
                .contains("chmod go-w")
        );
        fs::set_permissions(path, before).unwrap();
    }
    let elsewhere = home.path().join("elsewhere.so");
    fs::rename(&library, &elsewhere).unwrap();
    symlink(&elsewhere, &library).unwrap();
    let found = discover(&search_path(&[&folder]));
    assert!(reason(&only(found)).contains("leaves its folder"));
}

#[test]
fn paths_that_are_relative_or_missing_are_refused_and_empty_ones_are_none() {
    let home = tempfile::tempdir().unwrap();
    let path = format!(":plugins::{}/gone:", home.path().display());
    let found = discover(&Search {
        plugin_path: Some(path.into()),
        ..Search::empty()
    });
    assert_eq!(verdicts(&found), ["bad-path"; 2]);
    let reasons: Vec<_> = found.candidates.iter().map(reason).collect();
    assert!(reasons[0].contains("never taken from the current folder"));
    assert!(reasons[1].contains("cannot be read: No such file"));
    for empty in ["", ":", "::"] {
        let search = Search {
            plugin_path: Some(empty.into()),
            ..Search::empty()
        };
        assert!(discover(&search).candidates.is_empty());
    }
    // What nobody asked for may be missing.
    let search = Search {
        system: vec![home.path().join("gone")],
        ..Search::empty()
    };
    assert!(discover(&search).candidates.is_empty());
}

#[test]
fn everything_in_a_place_has_a_verdict() {
    let home = tempfile::tempdir().unwrap();
    file(&home.path().join("libalone.so"), "");
    folder(home.path(), "empty");
    folder(home.path(), ".being-installed");
    let strange = folder(home.path(), "strange");
    fs::create_dir(strange.join("plugin.json")).unwrap();
    let text = folder(home.path(), "text");
    file(&text.join("plugin.json"), "not json");
    let found = discover_in(home.path());
    assert_eq!(verdicts(&found), ["bad-manifest"; 4]);
    let reasons: Vec<_> = found.candidates.iter().map(reason).collect();
    assert!(reasons[0].contains("the folder has no plugin.json"));
    assert!(reasons[1].contains("a lone file"));
    assert!(reasons[2].contains("not a regular file"));
    assert!(reasons[3].contains("line 1 column"));
    for index in 0..300 {
        file(&home.path().join(format!("{index}")), "");
    }
    assert!(reason(&only(discover_in(home.path()))).contains("more than 256 entries"));
}

#[test]
fn a_fifo_does_not_stop_the_search() {
    let home = tempfile::tempdir().unwrap();
    let trap = folder(home.path(), "trap");
    let made = std::process::Command::new("mkfifo")
        .arg(trap.join("plugin.json"))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no mkfifo");
        return;
    }
    assert!(reason(&only(discover_in(home.path()))).contains("not a regular file"));
}

#[test]
fn a_path_that_is_not_utf_8_is_found_opened_and_told() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join(OsStr::from_bytes(b"pl\xffgins"));
    fs::create_dir(&place).unwrap();
    chmod(&place, 0o755);
    if plugin(&place, "sim", &json!({})).is_none() {
        return;
    }
    file(&place.join(OsStr::from_bytes(b"\xfe")), "");
    let found = discover_in(&place);
    assert_eq!(verdicts(&found), ["found", "bad-manifest"]);
    let library = found.candidates[0].library.as_ref().unwrap();
    assert!(library.path.to_str().is_none() && library.path.exists());
    let told = serde_json::to_value(&found).unwrap();
    assert!(
        told["places"][0]["path"]
            .as_str()
            .unwrap()
            .ends_with("pl\u{fffd}gins")
    );
    assert!(
        told["candidates"][0]["library"]["path"]
            .as_str()
            .unwrap()
            .ends_with("pl\u{fffd}gins/sim/libplugin.so")
    );
}

#[test]
fn links_that_lead_in_circles_are_told_and_not_followed() {
    let home = tempfile::tempdir().unwrap();
    symlink("circle", home.path().join("circle")).unwrap();
    let manifests = folder(home.path(), "manifest");
    symlink("plugin.json", manifests.join("plugin.json")).unwrap();
    let libraries = folder(home.path(), "library");
    file(
        &libraries.join("plugin.json"),
        manifest("library", &json!({})),
    );
    symlink("libplugin.so", libraries.join("libplugin.so")).unwrap();
    // A folder that holds itself.
    let itself = folder(home.path(), "zzz");
    symlink(".", itself.join("zzz")).unwrap();
    let found = discover_in(home.path());
    assert_eq!(
        verdicts(&found),
        [
            "bad-manifest",
            "bad-library",
            "bad-manifest",
            "bad-manifest"
        ]
    );
    for index in [1, 2] {
        let reason = reason(&found.candidates[index]);
        assert!(
            reason.contains("Too many levels of symbolic links"),
            "{reason}"
        );
    }
    assert!(reason(&found.candidates[3]).contains("the folder has no plugin.json"));
}

#[test]
fn feeds_the_selection() {
    let home = tempfile::tempdir().unwrap();
    if plugin(
        home.path(),
        "fast",
        &json!({ "priority": 9, "aliases": ["quick"] }),
    )
    .is_none()
    {
        return;
    }
    plugin(home.path(), "slow", &json!({}));
    plugin(
        home.path(),
        "gone",
        &json!({ "match": [{ "file": "/nowhere" }] }),
    );
    let inventory = discover_in(home.path()).inventory(|_| State::Usable { device_count: 2 });
    assert_eq!(inventory.len(), 3);
    assert_eq!(
        Selection::Auto
            .resolve(&inventory)
            .unwrap()
            .primary
            .accelerator
            .as_str(),
        "fast"
    );
    let chosen = Selection::parse("gone>slow:1", |_| None)
        .unwrap()
        .resolve(&inventory)
        .unwrap();
    assert_eq!(chosen.primary.devices, [1]);
    assert!(
        chosen
            .why
            .contains("skipped gone: this machine shows no sign of it")
    );
}

#[test]
fn verdicts_are_data() {
    let home = tempfile::tempdir().unwrap();
    let place = folder(home.path(), "sim");
    let changes = json!({ "library": null, "not_built": "no time" });
    file(&place.join("plugin.json"), manifest("sim", &changes));
    let found = serde_json::to_value(discover_in(home.path())).unwrap();
    let candidate = &found["candidates"][0];
    assert_eq!(candidate["origin"], "plugin-path");
    assert_eq!(
        candidate["verdict"],
        json!({ "verdict": "not-built", "reason": "no time", "hint": null })
    );
    let shadowed: Verdict = serde_json::from_value(
        json!({ "verdict": "shadowed", "by": "a", "reason": "b", "hint": null }),
    )
    .unwrap();
    assert_eq!(shadowed.name(), "shadowed");
}

/// The manifests that ship with the project.
fn shipped() -> Vec<Manifest> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let mut manifests = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path().join("plugin.json");
        if path.exists() {
            let manifest = Manifest::parse(&fs::read(&path).unwrap());
            manifests.push(manifest.unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        }
    }
    manifests.sort_by(|a, b| a.accelerator.cmp(&b.accelerator));
    manifests
}

#[test]
fn a_host_gives_the_manifest_by_name_and_alias_even_of_one_that_is_not_built() {
    let home = tempfile::tempdir().unwrap();
    let sim = folder(home.path(), "sim");
    let changes = json!({
        "library": null, "not_built": "no time yet", "aliases": ["simulator"],
        "communication_backend": "simccl",
        "environment": { "visible": ["SIM_VISIBLE_DEVICES"], "export": ["SIM"] }
    });
    file(&sim.join("plugin.json"), manifest("sim", &changes));
    let host = Host::with_search(search_path(&[home.path()]));
    let found = host.manifest("simulator").unwrap();
    assert_eq!(host.manifest("sim"), Some(found));
    assert_eq!(found.communication_backend.as_deref(), Some("simccl"));
    assert_eq!(found.environment.visible, ["SIM_VISIBLE_DEVICES"]);
    assert_eq!(found.environment.export, ["SIM"]);
    assert_eq!(host.manifest("si"), None);
}

#[test]
fn the_shipped_manifests_agree_with_each_other() {
    let manifests = shipped();
    let names: Vec<_> = manifests.iter().map(|m| m.accelerator.as_str()).collect();
    // DeepSpeed's nine names, and `rocm`, which it calls cuda.
    let known = [
        "cpu", "cuda", "hpu", "mlu", "mps", "npu", "rocm", "sdaa", "supa", "xpu",
    ];
    assert!(known.iter().all(|name| names.contains(name)), "{names:?}");
    let mut all: Vec<_> = manifests
        .iter()
        .flat_map(|m| std::iter::once(&m.accelerator).chain(&m.aliases))
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "a name or alias is taken twice");
    let last = manifests.iter().min_by_key(|m| m.priority).unwrap();
    assert_eq!(last.accelerator.as_str(), "cpu");
    assert!(
        manifests
            .iter()
            .filter(|m| m.priority == last.priority)
            .count()
            == 1
    );
}

#[test]
fn the_shipped_manifests_say_what_deepspeed_says() {
    // accelerator/*_accelerator.py: communication_backend_name, visible_devices_envs, export_envs;
    // dlpack.h: DLDeviceType.
    for (name, backend, visible, export, dlpack) in [
        (
            "cuda",
            Some("nccl"),
            Some("CUDA_VISIBLE_DEVICES"),
            Some("NCCL"),
            2,
        ),
        (
            "rocm",
            Some("nccl"),
            Some("ROCR_VISIBLE_DEVICES"),
            Some("NCCL"),
            10,
        ),
        ("xpu", Some("ccl"), Some("ZE_AFFINITY_MASK"), None, 14),
        (
            "hpu",
            Some("hccl"),
            Some("HABANA_VISIBLE_MODULES"),
            None,
            12,
        ),
        (
            "npu",
            Some("hccl"),
            Some("ASCEND_RT_VISIBLE_DEVICES"),
            Some("ASCEND"),
            12,
        ),
        (
            "sdaa",
            Some("tccl"),
            Some("SDAA_VISIBLE_DEVICES"),
            Some("NCCL"),
            12,
        ),
        (
            "mlu",
            Some("cncl"),
            Some("MLU_VISIBLE_DEVICES"),
            Some("NEUWARE_HOME"),
            12,
        ),
        (
            "supa",
            Some("bccl"),
            Some("SUPA_VISIBLE_DEVICES"),
            Some("BCCL"),
            12,
        ),
        ("mps", None, None, None, 8),
        ("cpu", Some("gloo"), None, None, 1),
    ] {
        let manifests = shipped();
        let manifest = manifests
            .iter()
            .find(|m| m.accelerator.as_str() == name)
            .unwrap();
        let first = |list: &[String]| list.first().cloned();
        assert_eq!(manifest.communication_backend.as_deref(), backend, "{name}");
        assert_eq!(
            first(&manifest.environment.visible).as_deref(),
            visible,
            "{name}"
        );
        assert_eq!(
            first(&manifest.environment.export).as_deref(),
            export,
            "{name}"
        );
        assert_eq!(manifest.dlpack_type, dlpack, "{name}");
    }
}

#[test]
fn hashes_are_checked_on_demand() {
    let home = tempfile::tempdir().unwrap();
    file(&home.path().join("data"), "abc");
    // BLAKE3 of "abc", from the reference implementation's b3sum.
    let hash = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    let files = json!({ "files": [{ "path": "data", "size": 3, "blake3": hash }] });
    let manifest = Manifest::parse(manifest("sim", &files).as_bytes()).unwrap();
    verify_files(&manifest, home.path()).unwrap();
    file(&home.path().join("data"), "abd");
    let error = verify_files(&manifest, home.path()).unwrap_err();
    assert!(
        error
            .context()
            .contains("data is not the file that the manifest describes")
    );
    fs::remove_file(home.path().join("data")).unwrap();
    assert!(verify_files(&manifest, home.path()).is_err());
}
