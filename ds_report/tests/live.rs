//! `--live`: an answer of a plugin is kept, and asked for again on demand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, io::Write, path::Path, process::Command};

/// Tells no devices, says in a file that it was asked, and breaks the child when it is told to.
const SOURCE: &str = r#"
#include "ds_plugin.h"
#include <stdio.h>
#include <stdlib.h>
DsStatus ds_plugin_v1(const DsHost *host, DsPlugin *plugin, DsErrorSink *sink) {
  (void)host, (void)plugin, (void)sink;
  FILE *asked = fopen(getenv("MOODY_ASKED"), "a");
  if (asked) { fputc('.', asked); fclose(asked); }
  if (getenv("MOODY_BROKEN")) exit(3);
  if (getenv("MOODY_PRINTS")) puts("moody was here");
  return DS_INCOMPATIBLE_ABI;
}
"#;

const MANIFEST: &str = r#"{
  "format": 1, "id": "org.example.moody", "version": "1.0.0", "vendor": "Example",
  "license": "Apache-2.0", "accelerator": "moody", "priority": 0, "description": "Moody.",
  "library": {"linux-x86_64": [{"path": "lib.so"}], "linux-aarch64": [{"path": "lib.so"}]},
  "abi": {"major": 1, "min_minor": 0, "max_minor": 0}, "tables": ["device"], "dlpack_type": 12,
  "match": [{"always": true}], "behaviour": {"panic": "none"},
  "seen_on": {"on": "simulator", "note": "changes its mind"}
}"#;

/// Whether there is a compiler to make the plugin in `folder`.
fn made(folder: &Path) -> bool {
    fs::create_dir_all(folder).unwrap();
    let source = folder.join("plugin.c");
    fs::write(&source, SOURCE).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/abi/include");
    let Ok(built) = Command::new("cc")
        .args(["-std=c11", "-fPIC", "-shared", "-I"])
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(folder.join("lib.so"))
        .output()
    else {
        // Past the test runner, which keeps what is printed, so that nobody takes it for a pass.
        let mut terminal = std::io::stderr();
        writeln!(terminal, "skipped: no C compiler (tried cc)").unwrap();
        return false;
    };
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    fs::remove_file(source).unwrap();
    fs::write(folder.join("plugin.json"), MANIFEST).unwrap();
    true
}

#[test]
fn an_answer_is_kept_and_asked_for_again_once_when_live() {
    let home = tempfile::tempdir().unwrap();
    let plugins = home.path().join("plugins");
    if !made(&plugins.join("moody")) {
        return;
    }
    let asked = home.path().join("asked");
    // With the mask of a system whose users have groups of their own, where a careless cache would
    // be open to others and be refused from its second use on.
    let report = |arguments: &str, broken: bool| {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask 002; exec \"$0\" {arguments}")])
            .arg(env!("CARGO_BIN_EXE_ds_report"))
            .env_remove("DS_ACCELERATOR")
            .env("HOME", home.path())
            .env("DS_CACHE_DIR", home.path().join("cache"))
            .env("DS_PLUGIN_PATH", &plugins)
            .env("MOODY_ASKED", &asked);
        if broken {
            command.env("MOODY_BROKEN", "1");
        }
        let done = command.output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{text}");
        let line = text.lines().find(|line| line.trim().starts_with("moody"));
        (
            line.unwrap().to_owned(),
            fs::read(&asked).map_or(0, |marks| marks.len()),
        )
    };
    let (refusal, crash) = ("failed with status 12", "ended the process with code 3");
    for (arguments, broken, says, times) in [
        ("", false, refusal, 1),
        ("", true, refusal, 1),
        // Asked once, although several parts of the report need the answer.
        ("--live", true, crash, 2),
        ("", false, crash, 2),
        ("--live", false, refusal, 3),
        ("", true, refusal, 3),
    ] {
        let (line, asked) = report(arguments, broken);
        assert!(line.contains(says), "{arguments} {broken}: {line}");
        assert_eq!(asked, times, "{arguments} {broken}");
    }
}

#[test]
fn what_a_plugin_prints_is_noted_below_it() {
    let home = tempfile::tempdir().unwrap();
    let plugins = home.path().join("plugins");
    if !made(&plugins.join("moody")) {
        return;
    }
    let report = |arguments: &[&str], variables: &[(&str, &str)]| {
        let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
            .args(arguments)
            .env_remove("DS_ACCELERATOR")
            .env("HOME", home.path())
            .env("DS_CACHE_DIR", home.path().join("cache"))
            .env("DS_PLUGIN_PATH", &plugins)
            .env("MOODY_ASKED", home.path().join("asked"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(0));
        String::from_utf8(done.stdout).unwrap()
    };
    let clean = report(&[], &[]);
    assert!(!clean.contains("note: "), "{clean}");
    let prints = [("MOODY_PRINTS", "1")];
    let noted = report(&["--live"], &prints);
    let mut lines = noted
        .lines()
        .skip_while(|line| !line.starts_with("  moody"));
    assert!(lines.next().unwrap().starts_with("  moody no: "));
    assert_eq!(
        lines.next().map(str::trim),
        Some("note: it prints: moody was here")
    );
    // It is kept with the answer.
    let kept: serde_json::Value = serde_json::from_str(&report(&["--json"], &[])).unwrap();
    let all = kept["accelerators"].as_array().unwrap();
    let moody = all.iter().find(|a| a["name"] == "moody").unwrap();
    assert_eq!(moody["remarks"][0], "it prints: moody was here");
    let cpu = all.iter().find(|a| a["name"] == "cpu").unwrap();
    assert_eq!(cpu["remarks"].as_array().unwrap().len(), 0);
}
