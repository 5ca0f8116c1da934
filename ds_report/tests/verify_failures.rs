//! `ds_report verify` on kernels that crash, never end, or cannot be made ready: each is told for what
//! it is, and costs its op alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use ds_tests::example::{self, Edit};
use serde_json::{Value, json};
use support::House;

/// `rms_norm` crashes.
const CRASH: Edit<'_> = (
    "kernels.c",
    "rstd[row] = (float)scale;",
    "rstd[row] = *(volatile float *)8;",
);
/// `cast` never ends.
const HANG: Edit<'_> = (
    "kernels.c",
    "        store(&tensors[1], i, load(&tensors[0], i));",
    "        for (volatile int on = 1; on;) {}",
);
/// The compiler refuses `cast`, and no other kernel.
const REFUSAL: Edit<'_> = (
    "jit.c",
    "sim_kernel_find(name) == NULL)) {",
    "sim_kernel_find(name) == NULL || sim_str_is(name, \"sim_cast\"))) {",
);
/// The loader takes nothing.
const NO_LOAD: Edit<'_> = (
    "jit.c",
    "    const char *problem = read_artefact(&artefact, recipe);",
    "    const char *problem = read_artefact(&artefact, recipe);\n    problem = \"it is of paper\";",
);

/// A house with the example so edited; `None` without a C compiler.
fn house(edits: &[Edit<'_>]) -> Option<House> {
    let house = House::new();
    let plugin = house.path("plugins").join("sim");
    let built = example::build_c_edited("sim-c", edits, "libds_example_sim.so", &plugin);
    built.unwrap().then_some(house)
}

/// No line takes so long to come: one that does will not.
const PATIENCE: Duration = Duration::from_secs(30);

const QUICK: [(&str, &str); 2] = [("SIM_COMPILE_MS", "0"), ("SIM_MAX_DELAY_US", "0")];

/// How many cases of `op` ran `on` it.
fn cases(op: &Value, on: &str) -> u64 {
    let runs = op["runs"].as_array().unwrap();
    let run = runs.iter().find(|run| run["on"] == on).unwrap();
    run["cases"].as_u64().unwrap()
}

/// The ops of the only device, and the exit code.
fn verified(house: &House, line: &str) -> (Option<i32>, Vec<Value>) {
    let ran = house.run_with(&format!("{line} --json --device sim:1"), &QUICK);
    let report: Value = serde_json::from_str(&ran.text).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    let ops = report["devices"][0]["ops"].as_array().unwrap().clone();
    (ran.code, ops)
}

fn op<'a>(ops: &'a [Value], name: &str) -> &'a Value {
    ops.iter().find(|op| op["op"] == name).unwrap()
}

#[test]
fn a_crash_and_a_hang_cost_their_op_and_nothing_else() {
    let Some(house) = house(&[CRASH, HANG]) else {
        return;
    };
    let named = "verify adam_step axpby cast matmul rms_norm rms_norm_backward --timeout 1";
    let (code, ops) = verified(&house, named);
    assert_eq!(code, Some(1));

    let crashed = op(&ops, "rms_norm");
    assert_eq!(crashed["verdict"], "crashed");
    let run = &crashed["runs"][0];
    assert_eq!(
        [&run["kernel"], &run["verdict"]],
        ["sim_rms_norm", "crashed"]
    );
    let text = run["failures"][0]["text"].as_str().unwrap();
    let untried = text.strip_prefix("crashed: signal SIGSEGV; ");
    assert!(untried.unwrap().ends_with(" cases behind it not tried"));

    let hung = op(&ops, "cast");
    assert_eq!(hung["verdict"], "no-answer");
    let failure = &hung["runs"][0]["failures"][0];
    let text = failure["text"].as_str().unwrap();
    assert!(text.starts_with("no answer within 1 s; "), "{text}");
    assert!(!failure["case"].as_str().unwrap().is_empty());

    // Those before, between and behind are what they are without the two.
    let verdict = |name: &str| op(&ops, name)["verdict"].as_str().unwrap().to_owned();
    for name in ["adam_step", "matmul", "rms_norm_backward"] {
        assert_eq!(verdict(name), "ok", "{name}");
        assert!(op(&ops, name)["runs"][0]["passed"].as_u64().unwrap() > 1);
    }
    assert_eq!(verdict("axpby"), "unverified");

    house
        .run_with(&format!("{named} --device sim:1"), &QUICK)
        .says(
            1,
            &[
                "CRASHED       rms_norm ",
                "NO ANSWER     cast ",
                "error: crashed on sim:1: rms_norm\nerror: no answer on sim:1: cast\n",
            ],
        );
}

#[test]
fn a_crash_of_a_large_call_is_a_failure_and_the_others_are_measured() {
    // The small cases of `cast` have fewer elements.
    let large = (
        HANG.0,
        HANG.1,
        "if (tensors[0].elements > 1 << 16) __builtin_trap();\n        \
         store(&tensors[1], i, load(&tensors[0], i));",
    );
    let Some(house) = house(&[large]) else {
        return;
    };
    let line = "verify cast rms_norm --bench --device sim:1";
    let ran = house.run_with(&format!("{line} --json"), &QUICK);
    let report: Value = serde_json::from_str(&ran.text).unwrap();
    assert_eq!((ran.code, &report["passed"]), (Some(1), &json!(false)));
    let speeds = report["devices"][0]["bench"]["speeds"].as_array().unwrap();
    let of = |op: &'static str| speeds.iter().filter(move |speed| speed["op"] == op);
    assert!(of("cast").any(|speed| speed["crashed"] == true));
    for speed in of("cast").filter(|speed| speed["crashed"] == true) {
        let reason = speed["reason"].as_str().unwrap();
        assert!(reason.starts_with("crashed: signal SIG"), "{reason}");
    }
    assert!(of("rms_norm").any(|speed| speed["us"].as_f64().is_some()));
    assert!(report["devices"][0]["bench"]["copy_gb_per_s"].is_number());
    assert!(ran.errors.contains("error: sim:1: cast "), "{}", ran.errors);
}

#[test]
fn a_kernel_that_its_compiler_refuses_is_broken() {
    let (Some(house), Some(whole)) = (house(&[REFUSAL]), house(&[])) else {
        return;
    };
    let (code, ops) = verified(&house, "verify cast rms_norm");
    assert_eq!(code, Some(1));
    let cast = op(&ops, "cast");
    assert_eq!(cast["verdict"], "broken");
    let broken = &cast["broken"][0];
    assert_eq!([&broken["kernel"], &broken["stage"]], ["sim_cast", "build"]);
    // The reference is no more than a stand-in: for the cases of the kernel when it builds, beside
    // those that it never takes.
    let (_, whole) = verified(&whole, "verify cast");
    let whole = op(&whole, "cast");
    assert_eq!(broken["cases"], cases(whole, "kernel"));
    assert_eq!(
        cases(cast, "reference"),
        cases(whole, "reference") + cases(whole, "kernel")
    );
    assert_eq!(op(&ops, "rms_norm")["verdict"], "ok");

    house.run_with("verify cast --device sim:1", &QUICK).says(
        1,
        &[
            "BROKEN        cast  sim_cast ",
            "does not build: build ",
            "refused recipe.txt; its log says where: recipe.txt:1: expected 'kernel'",
            "hint: the log is /",
            "error: broken kernels on sim:1: cast\n",
        ],
    );
}

#[test]
fn a_kernel_that_does_not_load_is_broken() {
    let Some(house) = house(&[NO_LOAD]) else {
        return;
    };
    let (code, ops) = verified(&house, "verify cast rms_norm");
    assert_eq!(code, Some(1));
    for name in ["cast", "rms_norm"] {
        let broken = &op(&ops, name)["broken"][0];
        assert_eq!(broken["stage"], "load");
        let reason = broken["reason"].as_str().unwrap();
        assert!(reason.contains("it is of paper"), "{reason}");
    }
}

#[test]
fn a_compiler_that_is_a_program_refuses_the_same_way_and_one_that_is_missing_does_not() {
    let house = House::new();
    let line = "verify matmul --device cpu:0";
    house.run_with(line, &[("CC", "bad")]).says(
        1,
        &[
            "BROKEN        matmul  cpu_matmul ",
            "bad exited with 1: it.c:3:1: error: no such thing\n",
            "/build.log\n",
            "error: broken kernels on cpu:0: matmul\n",
        ],
    );
    house
        .run_with(line, &[("CC", "missing")])
        .says(0, &["no kernel     matmul  host reference", "$CC is `"])
        .is_silent_of("BROKEN");
    let forbidden = [("CC", "bad"), ("DS_JIT", "off")];
    house
        .run_with(line, &forbidden)
        .says(0, &["DS_JIT=off"])
        .is_silent_of("BROKEN");
}

#[test]
fn an_interrupt_leaves_no_worker() {
    let Some(house) = house(&[HANG]) else {
        return;
    };
    let mut verify = Command::new(env!("CARGO_BIN_EXE_ds_report"))
        .args(["verify", "cast", "--device", "sim:1"])
        .envs([("DS_PLUGIN_PATH", house.path("plugins").as_path())])
        .envs([("DS_CACHE_DIR", house.path("cache").as_path())])
        .envs([("DS_LOG", Path::new("debug"))])
        .envs(QUICK)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, told) = mpsc::channel();
    let lines = BufReader::new(verify.stderr.take().unwrap()).lines();
    // Its end comes when nobody has the pipe any more: neither this process nor its worker.
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    while !told.recv_timeout(PATIENCE).unwrap().contains("sim:1: cast") {}
    let pid = verify.id().to_string();
    let kill = Command::new("kill").args(["-INT", &pid]).status();
    assert!(kill.unwrap().success());
    verify.wait().unwrap();
    let end = loop {
        if let Err(end) = told.recv_timeout(PATIENCE) {
            break end;
        }
    };
    assert_eq!(end, mpsc::RecvTimeoutError::Disconnected);
}
