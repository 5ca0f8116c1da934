//! `ds_report build` and `ops` as an operator runs them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, io::Write, path::Path};

use serde_json::Value;
use support::House;

/// The baseline of this architecture, which is a target everywhere that it is built for.
const TARGET: &str = if cfg!(target_arch = "x86_64") {
    "x86-64"
} else {
    std::env::consts::ARCH
};

#[test]
fn everything_is_built_once_and_then_cached() {
    let house = House::new();
    let first = house.json("build");
    let artefacts = first["targets"][0]["artefacts"].as_array().unwrap();
    let state = |artefact: &Value| artefact["state"].as_str().unwrap().to_owned();
    assert!(artefacts.iter().all(|artefact| state(artefact) == "built"));
    // Several kernels of a folder share an artefact.
    let count = artefacts.len();
    let norms = artefacts.iter().find(|a| a["name"] == "rms_norm").unwrap();
    assert!(norms["kernels"].as_array().unwrap().len() > 1);
    assert_eq!(house.builds(), count);
    house.run("build").says(
        0,
        &[
            "  cached           adam ",
            &format!("0 built, {count} cached, 0 failed; kept in "),
        ],
    );
    assert_eq!(house.builds(), count);
    house
        .run("build rms_norm_backward cast --force")
        .says(0, &["2 built, 0 cached, 0 failed", "built in 0."]);
    assert_eq!(house.builds(), count + 2);
}

#[test]
fn what_is_built_beforehand_is_what_a_program_needs() {
    let house = House::new();
    let real = [("CC", "/usr/bin/cc")];
    if !Path::new(real[0].1).exists() {
        let _ = writeln!(std::io::stderr(), "skipped: no C compiler at {}", real[0].1);
        return;
    }
    house
        .run_with("build fused_adam", &real)
        .says(0, &["1 built"]);
    house.run_with("--require fused_adam", &real).says(
        0,
        &["[YES]  ..... [OKAY]   ready: adam_rollback, adam_step"],
    );
}

#[test]
fn a_target_can_be_named_that_no_device_here_has() {
    let house = House::new();
    let line = format!("build cast --device cpu --target {TARGET}");
    house
        .run(&line)
        .says(0, &[&format!("cpu, target {TARGET}\n"), "1 built"]);
    let calls = fs::read_to_string(house.path("calls")).unwrap();
    assert!(!calls.contains("-mavx"), "{calls}");
    house.run(&line).says(0, &["1 cached"]);
    // The artefact for the device here is another one, where it has any feature at all.
    let built = house.json("build cast");
    let here = built["targets"][0]["target"].as_str().unwrap();
    let state = if here == TARGET { "cached" } else { "built" };
    assert_eq!(built["targets"][0]["artefacts"][0]["state"], state);
}

#[test]
fn nonsense_is_refused_before_anything_is_built() {
    let house = House::new();
    let line = "build --target sm_90+banana";
    let parts = [
        "'sm_90+banana' is no target",
        &format!("it must be {TARGET}"),
        "hint: ",
    ];
    house.run(line).says(1, &parts);
    house.run("build cast nonsense").says(
        2,
        &[
            "no op set and no op 'nonsense'",
            "fused_adam",
            "rms_norm_backward",
        ],
    );
    house
        .run("build --device nonsense")
        .says(1, &["no plugin's manifest has the name `nonsense`"]);
    for (name, value) in [
        ("DS_BUILD_OPS", "yes"),
        ("DS_BUILD_CAST", "2"),
        ("MAX_JOBS", "0"),
    ] {
        let parts = [&*format!("{name} is '{value}'; it must be")];
        house.run_with("build", &[(name, value)]).says(1, &parts);
    }
    assert_eq!(house.builds(), 0);
}

#[test]
fn switches_steer_and_names_win() {
    let house = House::new();
    let only_adam = [("DS_BUILD_OPS", "0"), ("DS_BUILD_FUSED_ADAM", "1")];
    house
        .run_with("build", &only_adam)
        .says(
            0,
            &[
                "left out by DS_BUILD_OPS=0: cast, ",
                ", cpu_adam (another set",
                "1 built",
            ],
        )
        .is_silent_of("kernels of cast");
    house
        .run_with("build", &[("DS_BUILD_CAST", "0"), ("MAX_JOBS", "1")])
        .says(
            0,
            &["left out by DS_BUILD_CAST=0: cast\n", " 1 cached, 0 failed"],
        );
    house
        .run_with(
            "build cast",
            &[("DS_BUILD_OPS", "0"), ("DS_BUILD_CAST", "0")],
        )
        .says(0, &["1 built, 0 cached"])
        .is_silent_of("left out");
    // What is asked for in so many words and cannot be had is no success.
    house
        .run_with("build", &[("DS_BUILD_DEEP_COMPILE", "1")])
        .says(
            1,
            &[
                "dc (DS_BUILD_DEEP_COMPILE=1): not in this version",
                " 0 failed",
            ],
        );
    house
        .run("build gds")
        .says(1, &["gds: missing: boundary 1.0 has no table"]);
    // A service is there without a build.
    house.run_with("build", &[("DS_BUILD_AIO", "1")]).says(
        0,
        &["async_io (DS_BUILD_AIO=1): needs no build, it is a service of the host; `ds_report io`"],
    );
    house
        .run_with("build", &[("DS_BUILD_CASTS", "0")])
        .says(0, &["DS_BUILD_CASTS switches no op set"]);
}

#[test]
fn a_failure_is_told_with_its_log_and_tried_again_when_asked() {
    let house = House::new();
    let bad = [("CC", "bad")];
    let failed = house.run_with("build cast matmul", &bad);
    failed.says(
        1,
        &[
            "it.c:3:1: error: no such thing",
            "2 failed",
            "not built: cast, matmul",
        ],
    );
    let at = failed.text.find("the log is ").unwrap();
    let log = failed.text[at + "the log is ".len()..]
        .lines()
        .next()
        .unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("no such thing"));
    house
        .run_with("build cast", &bad)
        .says(1, &["(remembered: "]);
    house
        .run_with("build cast --force", &bad)
        .says(1, &["no such thing"])
        .is_silent_of("remembered");

    // One compiler that is missing is one complaint.
    let none = house.run_with("build cast matmul", &[("CC", "nowhere")]);
    none.says(1, &["as above", "2 failed", "hint: "]);
    assert_eq!(none.text.matches("nowhere").count(), 1, "{none:#?}");
}

#[test]
fn an_accelerator_without_a_device_is_built_for_by_its_targets_name() {
    let Some(house) = House::with_sim() else {
        return;
    };
    let each = " rms_norm: built per signature, at first use";
    house.run("build --device sim").says(
        0,
        &[
            each,
            "no kernel        matmul ",
            "it runs on the host reference",
        ],
    );
    let absent = [("SIM_VISIBLE_DEVICES", "")];
    house
        .run_with("build --device sim", &absent)
        .says(1, &["give --device and --target"]);
    house
        .run_with("build --device sim --target sim-1", &absent)
        .says(0, &[each]);
    house
        .run("build --device sim --target sim-2")
        .says(1, &["builds for sim-1, not for 'sim-2'"]);
    // A plugin's own op is known, whoever is selected.
    house.run("build axpby").says(
        1,
        &["axpby: cpu has no kernel for axpby; it cannot run there"],
    );
    house
        .run("build fused_adam cast --device sim")
        .says(1, &["fused_adam: sim has no kernel for adam_rollback"])
        .is_silent_of("error: cast");
}

#[test]
fn ops_are_counted_by_kind_and_device() {
    let Some(house) = House::with_sim() else {
        return;
    };
    let ops = house.run("ops");
    ops.says(0, &["cpu:0", "sim:0-1", "without a host reference: axpby"]);
    let line = |op: &str| {
        let mut lines = ops.text.lines();
        let line = lines.find(|line| line.starts_with(&format!("{op} ")));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert!(line("adam_step").ends_with(" native host reference cpu_adam, fused_adam"));
    assert_eq!(line("axpby"), "axpby cannot run 1 native sim_axpby");

    let one = house.json("ops fused_adam");
    assert_eq!(one["ops"].as_array().unwrap().len(), 2);
    assert!(one["ops"][0]["kernels"][0]["native"].as_u64() > Some(0));
    assert_eq!(one["ops"][0]["kernels"][1]["native"], 0);
    assert_eq!(one["ops"][0]["host_reference"], true);
    house
        .run("ops dc")
        .says(1, &["'dc' is not in this version"]);
    house
        .run("ops async_io")
        .says(1, &["'async_io' has no ops", "`ds_report io` tells"]);
    house
        .run("explain async_io")
        .says(2, &["'async_io' is a service of the host, not an op"]);
    house
        .run("ops nonsense")
        .says(2, &["no op set and no op 'nonsense'"]);
}

#[test]
fn a_set_is_no_better_than_what_can_be_had_of_it() {
    let Some(house) = House::with_sim() else {
        return;
    };
    let partly = "has a kernel: rms_norm; on the host reference: activation, ";
    house.run("").says(0, &[partly]);
    let off = house.run_with("", &[("DS_JIT", "off")]);
    off.says(
        0,
        &[
            "inference_core_ops ....... [NO]   ..... [NO]     host reference only: DS_JIT=off: ",
            "sim_axpby ................ [NO]   ..... [NO]     DS_JIT=off: ",
        ],
    );
    // Services need no build.
    let mut okay = off.text.lines().filter(|line| line.contains("[OKAY]"));
    assert!(
        okay.all(|line| line.starts_with("async_io .") || line.starts_with("pin_memory .")),
        "{off:#?}"
    );
}
