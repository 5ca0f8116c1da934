//! The command as an operator runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{io::Write, process::Command};

/// Exit code, standard output, standard error.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let home = tempfile::tempdir().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
        .args(arguments)
        .env_remove("DS_PLUGIN_PATH")
        .env_remove("DS_ACCELERATOR")
        .env("HOME", home.path())
        .env("DS_CACHE_DIR", home.path().join("cache"))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// The line of an op set.
fn line<'a>(text: &'a str, set: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(&format!("{set} .")))
        .unwrap()
}

#[test]
fn it_tells_the_selection_the_devices_and_every_upstream_set() {
    let (code, text, errors) = run(&[], &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(text.contains("selected  cpu:0 (1 device)"), "{text}");
    assert!(line(&text, "dc").ends_with("[NO]   ..... [NO]     not in this version"));
    assert!(
        line(&text, "fused_adam").contains("[OKAY]   built at first use: adam_rollback, adam_step"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "escape codes in a pipe");
}

#[test]
fn services_stand_as_the_host_and_the_device_do() {
    let engine = |name| [("DS_IO_ENGINE", name)];
    let (_, text, _) = run(&[], &engine("threads"));
    let ready = "[YES]  ..... [OKAY]   ready: threads, which DS_IO_ENGINE names";
    assert!(line(&text, "async_io").ends_with(ready), "{text}");
    let missing = "[NO]   ..... [NO]     missing: the device's memory is the host's own";
    assert!(line(&text, "gds").contains(missing), "{text}");
    let (_, text, _) = run(&[], &engine(""));
    assert!(
        line(&text, "async_io").contains("[OKAY]   ready: "),
        "{text}"
    );
    assert_eq!(run(&["--require", "async_io@cpu"], &engine("")).0, Some(0));

    let (code, _, errors) = run(&["--require", "async_io"], &engine("uring"));
    let why =
        "async_io: DS_IO_ENGINE: there is no engine 'uring'; there are io_uring, aio, threads";
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.starts_with(why), "{errors}");
}

#[test]
fn what_may_be_locked_is_told_of_the_limit() {
    // Nobody's process has no capability that lifts the limit.
    let own = env!("CARGO_BIN_EXE_ds_report");
    let limited = |limit: &str| {
        let script = format!("ulimit -l {limit} && exec setpriv --bounding-set=-all {own}");
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let text = limited("64");
    if text.is_empty() {
        let mut terminal = std::io::stderr();
        let _ = writeln!(terminal, "skipped: setpriv gives no capability away here");
        return;
    }
    let some = "[YES]  ..... [OKAY]   ready: locks up to 64.0 KiB (`ulimit -l`)";
    assert!(line(&text, "pin_memory").ends_with(some), "{text}");
    let text = limited("0");
    let none = "[NO]   ..... [NO]     locks nothing (`ulimit -l` is 0); raise it there, ";
    assert!(line(&text, "pin_memory").contains(none), "{text}");
}

#[test]
fn without_a_compiler_nothing_is_called_okay() {
    let (code, text, _) = run(&[], &[("PATH", "/nonexistent"), ("CC", "")]);
    assert_eq!(code, Some(0));
    let adam = line(&text, "cpu_adam");
    assert!(
        adam.contains("[NO]     host reference only: ") && !adam.contains("OKAY"),
        "{adam}"
    );
    let (code, _, errors) = run(
        &["--require", "fused_adam"],
        &[("PATH", "/nonexistent"), ("CC", "")],
    );
    assert_eq!(code, Some(3), "{errors}");
}

#[test]
fn a_name_that_nobody_knows_is_told_and_the_rest_still_shown() {
    let (code, text, _) = run(&[], &[("DS_ACCELERATOR", "bogus")]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains("selected  nothing: ") && text.contains("`bogus`"),
        "{text}"
    );
    assert!(text.contains("cpu:0"));
}

#[test]
fn a_device_that_cannot_be_opened_is_not_called_usable() {
    for (variable, value) in [
        ("DS_CPU_THREADS", "0"),
        ("DS_CPU_CAPABILITY", "sse"),
        ("DS_CPU_STREAMS", "many"),
    ] {
        let wrong = format!("{variable} is '{value}'; it must be ");
        let (code, text, _) = run(&[], &[(variable, value)]);
        assert_eq!(code, Some(0));
        let told = |start: &str| {
            text.lines()
                .any(|l| l.starts_with(start) && l.contains(&wrong))
        };
        assert!(told("selected  nothing: ") && told("  cpu no: "), "{text}");
        assert!(!text.contains("load an accelerator"), "{text}");
        let (_, text, _) = run(&[], &[(variable, "")]);
        assert!(text.contains("selected  cpu:0 (1 device)"), "{text}");
    }
}

#[test]
fn a_view_that_cannot_be_written_is_a_failure() {
    for arguments in [&[][..], &["--json"], &["plugins"]] {
        let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
            .args(arguments)
            .stdout(std::fs::File::create("/dev/full").unwrap())
            .output()
            .unwrap();
        let errors = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains("error: write to standard output: "),
            "{errors}"
        );
    }
}

#[test]
fn without_builds_no_set_is_called_okay() {
    let (_, text, _) = run(&[], &[("DS_JIT", "off")]);
    let adam = line(&text, "fused_adam");
    assert!(
        adam.contains("[NO]     host reference only: DS_JIT=off: "),
        "{adam}"
    );
    // Services need no build.
    let mut okay = text.lines().filter(|line| line.contains("[OKAY]"));
    assert!(
        okay.all(|line| line.starts_with("async_io .") || line.starts_with("pin_memory .")),
        "{text}"
    );
}

#[test]
fn what_points_below_a_hint_points_at_the_right_place() {
    let (code, _, errors) = run(&["build"], &[("DS_ACCELERATOR", "cpu:x")]);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("\nhint: cpu:x\n          ^ write an index"),
        "{errors}"
    );
    let (_, text, _) = run(&[], &[("DS_ACCELERATOR", "cpu:x")]);
    assert!(
        text.contains("\n          hint: cpu:x\n                    ^ write an index"),
        "{text}"
    );
}

#[test]
fn the_flags_of_upstream_work() {
    let (code, text, _) = run(
        &["--hide_operator_status", "--hide_errors_and_warnings"],
        &[],
    );
    assert_eq!(code, Some(0));
    assert!(
        text.contains("cpu:0") && !text.contains("fused_adam"),
        "{text}"
    );
}

#[test]
fn json_is_json_and_requirements_are_exit_codes() {
    let (code, text, _) = run(&["--json", "--require", "fused_adam@cpu"], &[]);
    assert_eq!(code, Some(0));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["devices"][0]["name"], "cpu:0");
    assert_eq!(run(&["--require", "gds"], &[]).0, Some(3));
    assert_eq!(run(&["--require", "nonsense"], &[]).0, Some(3));
    for half in ["@cpu", "cast@", ""] {
        assert_eq!(run(&["--require", half], &[]).0, Some(2), "{half}");
    }
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins");
    for (asked, why) in [
        ("cast@cuda", "cast@cuda: the NVIDIA plugin is not built yet"),
        (
            "cast@quda",
            "cast@quda: no plugin serves 'quda'; known are ",
        ),
    ] {
        let (code, _, errors) = run(&["--require", asked], &[("DS_PLUGIN_PATH", manifests)]);
        assert_eq!(code, Some(3));
        assert!(errors.starts_with(why), "{errors}");
    }
    // A set that lacks a part of upstream's is not all there; the op that is there can be named.
    let (code, _, errors) = run(&["--require", "fp_quantizer"], &[]);
    assert_eq!(code, Some(3));
    assert!(errors.contains("not in this version: "), "{errors}");
    assert_eq!(run(&["--require", "rms_norm"], &[]).0, Some(0));
    assert_eq!(run(&["--bogus"], &[]).0, Some(2));
    // What all views share may stand in front of one; what this view alone knows is not ignored.
    assert_eq!(run(&["--json", "plugins"], &[]).0, Some(0));
    let (code, _, errors) = run(&["--require", "gds", "plugins"], &[]);
    assert_eq!(code, Some(2), "{errors}");
}

#[test]
fn a_log_variable_that_would_silence_everything_is_told() {
    let (code, _, errors) = run(&["plugins"], &[("DS_LOG", "banana")]);
    assert_eq!(code, Some(0));
    assert!(
        errors.contains("DS_LOG has 'banana'; it takes off, error, warn, info, debug or trace"),
        "{errors}"
    );
    for right in ["debug,ds_core=off", "off", ""] {
        let (_, _, errors) = run(&["plugins"], &[("DS_LOG", right)]);
        assert!(!errors.contains("DS_LOG"), "{errors}");
    }
}
