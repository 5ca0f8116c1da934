//! The suite on the plugins that are here: the CPU's in its three forms, the example in C, the
//! smallest that load.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

use ds_tests::{drill, example, sim};

/// What of the CPU's suite the gate has time for: the kernels of every op take minutes, and run in
/// the long drills.
const CPU_IN_THE_GATE: [&[&str]; 2] = [&["--level", "L2"], &["--only", "cpu_cast"]];

/// Runs the suite on the CPU.
fn cpu_passes(what: &str, plugin: &Path, variables: &[(&str, &str)]) -> Vec<serde_json::Value> {
    if drill::times(0, 1) == 1 {
        return vec![passes(what, plugin, &[], variables)];
    }
    CPU_IN_THE_GATE
        .map(|part| passes(what, plugin, part, variables))
        .into()
}

/// Runs the suite, which has to pass, and gives its JSON.
fn passes(
    what: &str,
    plugin: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> serde_json::Value {
    let cache = tempfile::tempdir().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_ds_conformance"))
        .arg(plugin)
        .arg("--json")
        .args(arguments)
        .env("DS_CACHE_DIR", cache.path())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let told = String::from_utf8(done.stdout).unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{what}: {told}{errors}");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    let count = |outcome: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().filter(|c| c["outcome"] == outcome).count()
    };
    let found = format!("{} passed, {} skipped", count("passed"), count("skipped"));
    drill::tell("conformance", what, &found);
    report
}

/// How the check of that name ended.
fn outcome<'a>(report: &'a serde_json::Value, name: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|c| c["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name}"))["outcome"]
        .as_str()
        .unwrap()
}

#[test]
fn the_cpu_that_is_linked_in() {
    let reports = cpu_passes("the CPU, linked in", Path::new("cpu"), &[]);
    let ends = [reports.first().unwrap(), reports.last().unwrap()];
    let names = [
        "what is given up is done all the same",
        "cpu_cast: one memory for two",
    ];
    for (report, name) in ends.into_iter().zip(names) {
        assert_eq!(outcome(report, name), "passed", "{name}");
    }
}

#[test]
fn the_cpu_with_its_streams_asynchronous() {
    let variables = [("DS_CPU_STREAMS", "async")];
    cpu_passes(
        "the CPU, streams asynchronous",
        Path::new("cpu"),
        &variables,
    );
}

#[test]
fn the_cpu_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    example::build_cpu(folder.path()).unwrap();
    let reports = cpu_passes("the CPU, as a file", &folder.path().join("cpu"), &[]);
    assert_eq!(
        outcome(&reports[0], "the library exports its entry alone"),
        "passed"
    );
}

#[test]
fn the_example_in_c() {
    let folder = tempfile::tempdir().unwrap();
    if sim::build(folder.path()).unwrap() {
        let variables = [("SIM_MAX_DELAY_US", "300"), ("SIM_COMPILE_MS", "1")];
        let report = passes(
            "the example in C",
            &folder.path().join("sim-c"),
            &[],
            &variables,
        );
        for name in [
            "another device's memory",
            "sim_rms_norm: just outside its bounds",
        ] {
            assert_eq!(outcome(&report, name), "passed", "{name}");
        }
    }
}

#[test]
fn the_smallest_that_load() {
    let folder = tempfile::tempdir().unwrap();
    example::build_null_rust(folder.path()).unwrap();
    passes(
        "the smallest, in Rust",
        &folder.path().join("null-rust"),
        &[],
        &[],
    );
    if example::build_c("null-c", "libds_example_null.so", folder.path()).unwrap() {
        passes(
            "the smallest, in C",
            &folder.path().join("null-c"),
            &[],
            &[],
        );
    }
}

#[test]
fn what_is_no_plugin_is_told() {
    let run = |plugin: &Path| {
        let done = Command::new(env!("CARGO_BIN_EXE_ds_conformance"))
            .arg(plugin)
            .output()
            .unwrap();
        let all = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(all).unwrap())
    };
    let (code, told) = run(Path::new("/nonexistent"));
    assert_eq!(code, Some(2));
    let words = "is no folder, and no accelerator that is linked in (these are cpu)";
    assert!(told.contains(words), "{told}");
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (code, told) = run(&empty);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("bad-manifest: the folder has no plugin.json"),
        "{told}"
    );
}
