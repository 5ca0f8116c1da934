//! `ds_report verify` as an operator runs it: on the processor, and on the example in C, whose
//! kernels can be told to be wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use ds_tests::example;
use serde_json::Value;

/// Exit code, standard output, standard error.
type Ran = (Option<i32>, String, String);

/// Where all tests of this file keep what they build: in the build folder, so that nothing has to be
/// cleared away.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The command line, split at spaces.
fn run(line: &str, variables: &[(&str, &str)]) -> Ran {
    let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
        .args(line.split(' '))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DS_CACHE_DIR", place("verify-cache"))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// On the example in C; `None` where it cannot be built.
fn run_on_sim(line: &str, variables: &[(&str, &str)]) -> Option<Ran> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let plugins = place("verify-plugins");
    let build = || example::build_c("sim-c", "libds_example_sim.so", &plugins).unwrap();
    if !BUILT.get_or_init(build) {
        return None;
    }
    let mut all = vec![
        ("DS_PLUGIN_PATH", plugins.to_str().unwrap()),
        ("DS_ACCELERATOR", "sim:1"),
        ("SIM_COMPILE_MS", "0"),
        ("SIM_MAX_DELAY_US", "0"),
    ];
    all.extend(variables);
    Some(run(line, &all))
}

/// An op's part of the only device's result.
fn op<'a>(report: &'a Value, name: &str) -> &'a Value {
    let ops = report["devices"][0]["ops"].as_array().unwrap();
    ops.iter().find(|op| op["op"] == name).unwrap()
}

#[test]
fn the_processor_is_right_on_kernels_of_its_own() {
    let (code, text, errors) = run("verify", &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    for words in ["cpu:0  ", "cpu_adam_step", "cpu_rms_norm "] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let (code, text, _) = run("--json verify rms_norm matmul", &[]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["passed"]), (Some(0), &Value::Bool(true)));
    assert_eq!(report["devices"][0]["ops"].as_array().unwrap().len(), 2);
    for run in op(&report, "rms_norm")["runs"].as_array().unwrap() {
        assert!(run["on"] == "kernel" || run["on"] == "nothing", "{run}");
        assert!(run["error"].as_f64().unwrap() <= 1.0, "{run}");
    }
}

#[test]
fn a_set_is_the_ops_of_it_and_what_nobody_knows_is_an_error() {
    let (code, text, _) = run("--json verify cpu_adam", &[]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(op(&report, "adam_step")["verdict"], "ok");
    let (code, _, errors) = run("verify nonsense", &[]);
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("no op set and no op 'nonsense'"),
        "{errors}"
    );
    let (code, _, errors) = run("verify gds", &[]);
    assert_eq!(code, Some(1));
    let service = "'gds' has no ops: it is a service of the host\nhint: `ds_report io` tells";
    assert!(errors.contains(service), "{errors}");
    let (code, _, errors) = run("verify --device cpu:7", &[]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("there is no cpu:7"), "{errors}");
}

#[test]
fn without_a_compiler_it_says_that_no_kernel_ran_and_why() {
    let nowhere = [
        ("PATH", "/nonexistent"),
        ("DS_CACHE_DIR", "/dev/null/cache"),
    ];
    let (code, text, errors) = run("verify matmul", &nowhere);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(
        text.contains("no kernel     matmul  host reference"),
        "{text}"
    );
    assert!(text.contains("kernel cpu_matmul: "), "{text}");
}

#[test]
fn the_example_is_right_where_it_has_kernels_and_its_own_op_is_unverified() {
    let Some((code, text, errors)) = run_on_sim("--json verify", &[]) else {
        return;
    };
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["devices"][0]["name"], "sim:1");
    assert_eq!(op(&report, "cast")["runs"][0]["kernel"], "sim_cast");
    assert_eq!(op(&report, "rms_norm")["runs"][0]["kernel"], "sim_rms_norm");
    assert_eq!(op(&report, "matmul")["runs"][0]["on"], "reference");
    assert_eq!(op(&report, "axpby")["verdict"], "unverified");
}

#[test]
fn a_wrong_result_is_told_by_op_argument_and_element() {
    let wrong = [("SIM_WRONG", "sim_rms_norm")];
    let Some((code, text, errors)) = run_on_sim("verify", &wrong) else {
        return;
    };
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(errors, "error: wrong on sim:1: rms_norm\n");
    let line = text.lines().find(|line| line.contains("f32 [3, 7]: "));
    // The last written argument of it is `rstd`, and the last of its elements is wrong.
    assert!(line.unwrap().contains("rstd[2] is "), "{text}");
    let verdict = |op: &str| text.lines().find(|line| line.contains(op)).unwrap();
    assert!(verdict("sim_rms_norm").contains("WRONG"), "{text}");
    assert!(verdict("sim_cast").contains("  ok  "), "{text}");

    let (_, text, _) = run_on_sim("--json verify", &wrong).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["passed"], false);
    let failures = &op(&report, "rms_norm")["runs"][0]["failures"];
    assert_eq!(failures[1]["argument"], "rstd");
    assert_eq!(failures[1]["index"], serde_json::json!([2]));
}

#[test]
fn a_wrong_result_is_told_alike_under_shadow_and_sync() {
    let wrong = ("SIM_WRONG", "sim_rms_norm");
    let Some(plain) = run_on_sim("verify rms_norm cast", &[wrong]) else {
        return;
    };
    for words in ["shadow", "sync", "shadow,sync"] {
        let debug = ("DS_DEBUG", words);
        let watched = run_on_sim("verify rms_norm cast", &[wrong, debug]);
        assert_eq!(watched.as_ref(), Some(&plain), "{words}");
    }
}

#[test]
fn under_shadow_and_sync_nothing_is_measured() {
    for words in ["shadow", "sync"] {
        let (code, text, _) = run("verify matmul --bench", &[("DS_DEBUG", words)]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("not measured: under DS_DEBUG"), "{text}");
    }
}

#[test]
fn a_changed_input_and_a_write_behind_the_end_are_seen() {
    for (what, words) in [
        ("sim_cast:input", "x is only to be read, but was changed"),
        ("sim_cast:behind", "y: bytes behind its end were written"),
    ] {
        let Some((code, text, _)) = run_on_sim("verify cast", &[("SIM_WRONG", what)]) else {
            return;
        };
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn what_fails_once_fails_one_case() {
    let lost = [("SIM_FAULT", "launch_async:3:7")];
    let Some((code, text, _)) = run_on_sim("--json verify rms_norm", &lost) else {
        return;
    };
    assert_eq!(code, Some(1));
    let report: Value = serde_json::from_str(&text).unwrap();
    let runs = op(&report, "rms_norm")["runs"].as_array().unwrap();
    let unknown = runs.iter().find(|run| run["on"] == "unknown").unwrap();
    assert_eq!(unknown["cases"], 1, "{text}");
}

#[test]
fn large_calls_are_measured_beside_the_copy() {
    let (code, text, _) = run("--json verify matmul --bench", &[]);
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let bench = &report["devices"][0]["bench"];
    let copy = bench["copy_gb_per_s"].as_f64().unwrap();
    assert!(copy > 0.0);
    for speed in bench["speeds"].as_array().unwrap() {
        let figure = |name: &str| speed[name].as_f64().unwrap();
        // 2 inputs and an output of 2^20 elements, 4 or 2 bytes each.
        let bytes = if figure("us") * figure("gb_per_s") > 10e3 {
            12e6
        } else {
            6e6
        };
        let moved = figure("us") * figure("gb_per_s") * 1e3;
        assert!((moved / bytes - 1.048_576).abs() < 1e-6, "{speed}");
        assert!(figure("of_copy") > 0.0);
    }
}
