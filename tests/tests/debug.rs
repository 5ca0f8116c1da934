//! `DS_DEBUG` and `DS_DETERMINISTIC`, mostly on the example in C, whose work fails later and whose
//! kernels are wrong on demand. Each case is a process of its own, because variables are read once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command, sync::OnceLock};

use ds_core::{
    Buffer, DType, Device, Error, ErrorKind, MemoryKind, Stream, Tensor, Timeline,
    op::{self, Choice, Placed, RunsOn, Size},
};
use ds_ops::{cast::cast, matmul::matmul, rms_norm::rms_norm};
use ds_schema::{Attr, TensorSpec};
use ds_tests::{
    cases::tensor,
    compare::values,
    cpu, example,
    sim::{self, FOLDER_VARIABLE},
};

/// Names the case that a process is for.
const CASE: &str = "DS_TESTS_CASE";

/// Asks for the example with kernels that need not repeat.
const OTHER_BITS: &str = "DS_TESTS_OTHER_BITS";

/// A case: what its process has in the environment, what is to hold there, and what of its standard
/// error.
struct Case {
    name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    run: fn(),
    told: fn(&str),
}

macro_rules! cases {
    ($($name:ident [$($variable:ident = $value:literal),*] $($told:ident)?;)*) => {
        &[$(Case {
            name: stringify!($name),
            variables: &[$((stringify!($variable), $value)),*],
            run: $name,
            told: [nothing_of_leaks, $($told)?][cases!(@ $($told)?)],
        }),*]
    };
    (@) => { 0 };
    (@ $told:ident) => { 1 };
}

const CASES: &[Case] = cases! {
    without_sync_a_later_call_has_the_blame [SIM_FAULT = "launch_async:1:7"];
    with_sync_the_call_itself_has_it [DS_DEBUG = "sync", SIM_FAULT = "launch_async:1:7"];
    a_fill_has_its_own_blame [DS_DEBUG = "sync", SIM_FAULT = "fill_async:1:7"];
    // The first three are those of the tensors.
    a_copy_has_its_own_blame [DS_DEBUG = "sync", SIM_FAULT = "copy_async:4:7"];
    a_write_and_a_read_have_theirs
        [DS_DEBUG = "sync", SIM_FAULT = "copy_async:1:7,copy_async:2:6"];
    what_waits_for_a_failure_is_not_blamed
        [DS_DEBUG = "sync", SIM_FAULT = "event_wait_async:1:7"];
    without_shadow_a_wrong_result_passes [SIM_WRONG = "sim_rms_norm"];
    with_shadow_a_wrong_result_stops [DS_DEBUG = "shadow", SIM_WRONG = "sim_rms_norm"];
    a_changed_input_stops [DS_DEBUG = "shadow", SIM_WRONG = "sim_cast:input"];
    shadow_waits_too
        [DS_DEBUG = "shadow", SIM_WRONG = "sim_rms_norm", SIM_FAULT = "launch_async:2:7"];
    what_has_no_reference_runs_unchecked [DS_DEBUG = "shadow"] noted_once;
    every_case_passes [DS_DEBUG = "shadow"];
    every_case_passes [DS_DEBUG = "sync,shadow", DS_CPU_STREAMS = "async"];
    a_word_that_nobody_knows_opens_no_device [DS_DEBUG = "sync,synk"];
    a_digit_that_nobody_knows_opens_no_device [DS_DETERMINISTIC = "2"];
    any_kernel_may_be_chosen [DS_TESTS_OTHER_BITS = "1"];
    any_kernel_may_be_chosen [DS_TESTS_OTHER_BITS = "1", DS_DETERMINISTIC = "0"];
    what_may_not_repeat_is_refused [DS_TESTS_OTHER_BITS = "1", DS_DETERMINISTIC = "1"];
    what_is_forgotten_stays_alive [];
    what_is_forgotten_stays_alive [DS_DEBUG = "leaks"] leaks_are_counted;
    a_child_of_fork_tells_no_leaks [DS_DEBUG = "leaks"] told_once;
};

#[test]
fn debugging_and_determinism_are_asked_for_by_variables() {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        return (case.run)();
    }
    let folder = tempfile::tempdir().unwrap();
    if !sim::build(folder.path()).unwrap() {
        return;
    }
    let other_bits = tempfile::tempdir().unwrap();
    sim::build(other_bits.path()).unwrap();
    allow_other_bits(&other_bits.path().join("sim-c"));
    let cache = tempfile::tempdir().unwrap();
    for case in CASES {
        let wants_other_bits = case.variables.iter().any(|v| v.0 == OTHER_BITS);
        let plugins = if wants_other_bits {
            &other_bits
        } else {
            &folder
        };
        let done = Command::new(std::env::current_exe().unwrap())
            .arg("--nocapture")
            .env_remove("DS_DEBUG")
            .env_remove("DS_DETERMINISTIC")
            .envs([
                (CASE, Path::new(case.name)),
                (FOLDER_VARIABLE, plugins.path()),
                ("DS_CACHE_DIR", cache.path()),
            ])
            // No delays: what is late here is held by a point.
            .envs([("SIM_MAX_DELAY_US", "0"), ("SIM_COMPILE_MS", "0")])
            .envs(case.variables.iter().copied())
            .output()
            .unwrap();
        let (name, variables) = (case.name, case.variables);
        let told = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "{name} {variables:?}: {told}{errors}"
        );
        (case.told)(&errors);
    }
}

/// Makes the example's own op one whose kernel need not repeat, and gives it a kernel of that kind
/// for an op that has a reference, too; it cannot prepare that one.
fn allow_other_bits(plugin: &Path) {
    let ops = plugin.join("axpby.ops");
    let text = std::fs::read_to_string(&ops).unwrap();
    std::fs::write(&ops, text.replace("\ndeterministic\n", "\n")).unwrap();
    let manifest = plugin.join("plugin.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kernels = json["kernels"].as_array_mut().unwrap();
    let mut own = kernels.pop().unwrap();
    assert_eq!(own["name"], "sim_axpby");
    own["flags"] = serde_json::json!(["zero_size", "in_place"]);
    kernels.push(own);
    kernels.push(serde_json::json!({
        "name": "sim_matmul", "op": "matmul", "accelerator": "sim",
        "score": [{"elements": [0, null], "score": 300}],
    }));
    std::fs::write(&manifest, json.to_string()).unwrap();
}

fn device() -> Device {
    sim::devices().unwrap()[0]
}

/// `z = 2 x + y` by the plugin's own op, which has no reference.
fn axpby(stream: &Stream, [x, y, z]: &[Tensor; 3]) -> Result<(), Error> {
    let scalars = [Attr::F64(2.0), Attr::F64(1.0)];
    op::launch(
        op::find("axpby")?,
        stream,
        &[&[x], &[y], &[z]],
        &[],
        &scalars,
    )
}

fn threes(stream: &Stream) -> [Tensor; 3] {
    [1.0, 1.0, 0.0].map(|value| tensor(stream, DType::F32, &[4], &[value; 4]).unwrap())
}

/// That `result` is the failure of `SIM_FAULT`, told in these words.
fn assert_blamed(result: Result<(), Error>, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceLost);
    let faults = std::env::var("SIM_FAULT").unwrap();
    let (failing, _) = faults.split_once(':').unwrap();
    assert_eq!(
        error.to_string(),
        format!("{words}: sim stream_synchronize: SIM_FAULT makes this {failing} fail")
    );
}

fn without_sync_a_later_call_has_the_blame() {
    let stream = Stream::new(device()).unwrap();
    axpby(&stream, &threes(&stream)).unwrap();
    let error = stream.synchronize().unwrap_err();
    assert!(!error.to_string().contains("axpby"), "{error}");
}

fn with_sync_the_call_itself_has_it() {
    let stream = Stream::new(device()).unwrap();
    let tensors = threes(&stream);
    assert_blamed(
        axpby(&stream, &tensors),
        "axpby: kernel sim_axpby on sim:0 with x=f32[4] y=f32[4] z=f32[4]",
    );
    assert_blamed(
        axpby(&stream, &tensors),
        "axpby: not queued, because earlier work on sim:0 failed",
    );
    let other = Stream::new(device()).unwrap();
    axpby(&other, &tensors).unwrap();
    assert_eq!(values(&other, &tensors[2]).unwrap(), [3.0; 4]);
}

fn a_fill_has_its_own_blame() {
    let stream = Stream::new(device()).unwrap();
    let buffer = Buffer::new(&stream, 64).unwrap();
    let filled = buffer.fill(&stream, 1);
    assert_blamed(filled, "fill a buffer: 64 bytes on sim:0");
}

fn a_copy_has_its_own_blame() {
    let stream = Stream::new(device()).unwrap();
    let [x, _, z] = threes(&stream);
    let copied = z.buffer().copy_from(&stream, 0, x.buffer(), 0, 16);
    assert_blamed(copied, "copy a buffer: 16 bytes on sim:0");
}

fn a_write_and_a_read_have_theirs() {
    let stream = Stream::new(device()).unwrap();
    let written = Buffer::new(&stream, 8).unwrap().write(&stream, 0, &[1; 8]);
    assert_blamed(written, "copy a buffer: 8 bytes to sim:0");
    let stream = Stream::new(device()).unwrap();
    // The second fault counts the calls that the first one let pass.
    let buffer = Buffer::new(&stream, 8).unwrap();
    buffer.write(&stream, 0, &[1; 8]).unwrap();
    let error = buffer.read(&stream, 0, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(error.context(), "8 bytes from sim:0");
}

fn what_waits_for_a_failure_is_not_blamed() {
    let stream = Stream::new(device()).unwrap();
    let tensors = threes(&stream);
    let point = Timeline::new(device()).unwrap().next();
    stream.wait(&point).unwrap();
    assert_blamed(
        axpby(&stream, &tensors),
        "axpby: not queued, because earlier work on sim:0 failed",
    );
}

/// A call of `rms_norm` that the example has a kernel for.
fn norm(stream: &Stream) -> Result<(), Error> {
    let x = tensor(stream, DType::F32, &[2, 3], &[1.0; 6])?;
    let weight = tensor(stream, DType::F32, &[3], &[1.0; 3])?;
    rms_norm(stream, &x, &weight, 1e-6).map(drop)
}

const NORM: &str =
    "kernel sim_rms_norm on sim:0 with x=f32[2,3] weight=f32[3] y=f32[2,3] rstd=f32[2]: ";

fn without_shadow_a_wrong_result_passes() {
    norm(&Stream::new(device()).unwrap()).unwrap();
}

fn with_shadow_a_wrong_result_stops() {
    let error = norm(&Stream::new(device()).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginBug);
    assert_eq!(error.op(), "rms_norm");
    let wrong = error.context().strip_prefix(NORM).unwrap();
    // The mean square is one, so `rstd` is 1 within 1e-6.
    assert!(wrong.starts_with("rstd[1] is "), "{wrong}");
    assert!(
        wrong.ends_with("and allows 1.1e-5; 1 of 2 elements wrong"),
        "{wrong}"
    );
}

fn a_changed_input_stops() {
    let stream = Stream::new(device()).unwrap();
    let x = tensor(&stream, DType::F32, &[4], &[1.0; 4]).unwrap();
    let error = cast(&stream, &x, DType::BF16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cast: kernel sim_cast on sim:0 with x=f32[4] y=bf16[4]: x is only to be read, but was \
         changed"
    );
}

fn shadow_waits_too() {
    let stream = Stream::new(device()).unwrap();
    let kind = |done: Result<(), Error>| done.unwrap_err().kind();
    assert_eq!(kind(norm(&stream)), ErrorKind::PluginBug);
    let error = norm(&stream).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceLost);
    assert!(error.context().starts_with("kernel sim_rms_norm on "));
}

fn what_has_no_reference_runs_unchecked() {
    let stream = Stream::new(device()).unwrap();
    let tensors = threes(&stream);
    axpby(&stream, &tensors).unwrap();
    axpby(&stream, &tensors).unwrap();
    assert_eq!(values(&stream, &tensors[2]).unwrap(), [3.0; 4]);
}

fn noted_once(errors: &str) {
    let note = "warning: DS_DEBUG=shadow: axpby is not checked: the op has no reference";
    assert_eq!(errors.matches(note).count(), 1, "{errors}");
}

fn every_case_passes() {
    let mut on_kernels = 0;
    for device in [device(), cpu().unwrap()] {
        let stream = device.default_stream().unwrap();
        // A few of each: all of them, watched, take minutes.
        let few = |op: &&op::Op| op.cases(Size::Small).into_iter().take(2);
        for case in op::ops().iter().flat_map(few) {
            let placed = Placed::new(stream, &case, &case.call().unwrap()).unwrap();
            on_kernels += i32::from(matches!(placed.resolve(stream).unwrap(), RunsOn::Kernel(_)));
            // Twice: what is updated in place goes on from what the first call left.
            placed.launch(stream).unwrap();
            placed.launch(stream).unwrap();
        }
    }
    assert!(on_kernels > 0);
}

/// That no device opens, and why.
fn assert_refused(words: &str) {
    let folder = std::env::var_os(FOLDER_VARIABLE).unwrap();
    let host = example::host(folder.as_ref());
    let error = host.accelerator("sim").unwrap().device(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.to_string(), format!("read the environment: {words}"));
}

fn a_word_that_nobody_knows_opens_no_device() {
    assert_refused("DS_DEBUG has 'synk'; its words, separated by commas, are sync, shadow, leaks");
}

fn a_digit_that_nobody_knows_opens_no_device() {
    assert_refused("DS_DETERMINISTIC is '2'; it must be one of 0, 1");
}

/// What `ds_report explain` says of a call of `name` with tensors of this shape.
fn explained(name: &str, shape: &[i64], count: usize) -> (Choice, String) {
    let mut spec = TensorSpec::contiguous(DType::F32, shape.to_vec());
    spec.alignment_log2 = 8;
    let args = vec![vec![spec]; count];
    let op = op::find(name).unwrap();
    let (choice, candidates) = op::explain(device(), op, &args, &[]).unwrap();
    let [candidate] = candidates.as_slice() else {
        panic!("{candidates:?}");
    };
    (choice, candidate.outcome.clone().err().unwrap_or_default())
}

fn any_kernel_may_be_chosen() {
    let stream = Stream::new(device()).unwrap();
    axpby(&stream, &threes(&stream)).unwrap();
    let (choice, refusal) = explained("axpby", &[4], 3);
    assert!(matches!(choice, Choice::Kernel(_)), "{refusal}");
}

fn what_may_not_repeat_is_refused() {
    let refusal = |kernel: &str| {
        format!("kernel {kernel} is not flagged 'deterministic', and DS_DETERMINISTIC is 1")
    };
    let stream = Stream::new(device()).unwrap();
    let error = axpby(&stream, &threes(&stream)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoKernel);
    assert_eq!(error.context(), refusal("sim_axpby"));
    let (choice, why) = explained("axpby", &[4], 3);
    assert!(matches!(choice, Choice::Nothing));
    assert_eq!(why, refusal("sim_axpby"));

    // The reference gives equal bits, so it may.
    let a = tensor(&stream, DType::F32, &[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let c = matmul(&stream, &a, &a).unwrap();
    assert_eq!(values(&stream, &c).unwrap(), [7.0, 10.0, 15.0, 22.0]);
    let (choice, why) = explained("matmul", &[2, 2], 3);
    assert!(matches!(choice, Choice::Reference));
    assert_eq!(why, refusal("sim_matmul"));

    // What is flagged runs as ever.
    norm(&stream).unwrap();
    let op = op::find("cast").unwrap();
    let y = Tensor::empty(&stream, DType::BF16, &[2, 2]).unwrap();
    let runs_on = op::resolve(op, &stream, &[&[&a], &[&y]], &[], &[]).unwrap();
    assert_eq!(runs_on, RunsOn::Kernel("sim_cast"));
}

fn what_is_forgotten_stays_alive() {
    static KEPT: OnceLock<(Stream, [Buffer; 3])> = OnceLock::new();
    let [one, two] = sim::devices().unwrap();
    let stream = Stream::new(one).unwrap();
    let [a, b, c] = [2, 4, 8].map(|mib| Buffer::new(&stream, mib << 20).unwrap());
    drop(c);
    // What comes with a device and what was given back is no leak.
    let default = two.default_stream().unwrap();
    drop((Stream::new(two).unwrap(), Buffer::new(default, 64).unwrap()));
    let pinned = || Buffer::of_kind(cpu().unwrap(), 100, MemoryKind::Pinned).unwrap();
    let kept = pinned();
    drop(pinned());
    KEPT.set((stream, [a, b, kept])).unwrap();
}

fn leaks_are_counted(errors: &str) {
    let told: Vec<_> = errors.lines().filter(|l| l.contains("leaks")).collect();
    assert_eq!(
        told,
        [
            "leaks: sim:0: 2 buffers (6291456 bytes) and 1 stream are alive",
            "leaks: sim:1: nothing is alive",
            "leaks: cpu:0: 1 buffer (100 bytes) and 0 streams are alive",
        ]
    );
}

fn a_child_of_fork_tells_no_leaks() {
    device();
    // SAFETY: the child does nothing but leave, by way of what runs at the end of a process.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: as above; a child that hangs is ended by the timer.
        unsafe {
            libc::alarm(30);
            libc::exit(0)
        };
    }
    let mut status = 0;
    // SAFETY: `status` is writable for the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

fn told_once(errors: &str) {
    let line = "leaks: sim:0: nothing is alive\n";
    assert_eq!(errors.matches(line).count(), 1, "{errors}");
}

fn nothing_of_leaks(errors: &str) {
    assert!(!errors.contains("leaks: "), "{errors}");
}
