//! One fault in one call, for every call that a plugin can fail: each is told where it belongs, or
//! made good by the host; nothing is lost, and what comes after it works.
//!
//! The slots are those of the C header, so that a new one cannot be forgotten. Each fault has a
//! process of its own, which runs the same program (`program.rs`) on the example in C.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    sync::Mutex,
    thread,
};

use ds_core::ErrorKind;
use ds_tests::{drill, sim};

/// The fault that a process is for, as `SIM_FAULT` has it; its first word is the slot.
const FAULT: &str = "DS_TESTS_FAULT";

/// Processes at the same time: the gate has two cores to count on.
const PROCESSES: usize = 2;

/// Calls that fail: each slot is called at least so often. What the program calls more often may fail
/// later, too.
const CALLS: u32 = 3;
const LATER_CALLS: u32 = 6;

/// The numbers of `ds_plugin.h`, and what the host is to make of them. In the gate the first ones.
const STATUSES: [(i32, ErrorKind); 20] = [
    (2, ErrorKind::Unsupported),
    (6, ErrorKind::OutOfMemory),
    (16, ErrorKind::Internal),
    (7, ErrorKind::DeviceLost),
    (8, ErrorKind::NotReady),
    (1, ErrorKind::InvalidArgument),
    (3, ErrorKind::Unimplemented),
    (4, ErrorKind::LibraryNotFound),
    (5, ErrorKind::NoDevice),
    (9, ErrorKind::Timeout),
    (10, ErrorKind::Io),
    (11, ErrorKind::BuildFailed),
    (12, ErrorKind::Incompatible),
    (13, ErrorKind::NoKernel),
    (14, ErrorKind::Incompatible),
    (15, ErrorKind::PluginBug),
    (17, ErrorKind::Cancelled),
    (18, ErrorKind::ShuttingDown),
    (19, ErrorKind::ShuttingDown),
    (20, ErrorKind::OutOfMemory),
];

/// Slots that this plugin leaves empty, or this host does not call.
const NOT_CALLED: [&str; 4] = ["stream_native", "stream_wrap", "event_on_ready", "refine"];

/// Failures that come after the call which queued the work, by the names that the example has for
/// them.
const LATE: [&str; 5] = [
    "copy_async",
    "fill_async",
    "launch_async",
    "event_record_async",
    "event_wait_async",
];

/// Of a kernel with one of these, nothing else is to be feared: the reference does its work.
const OF_THE_KERNEL: &[i32] = &[2, 3, 4, 10, 11, 12, 13, 14];

/// Where no error surfaces, because the host makes the failure good: the slot, the statuses (none
/// stands for each), and how.
const MADE_GOOD: &[(&str, &[i32], &str)] = &[
    ("allocate", &[6, 20], "free memory is given back first"),
    ("compile", OF_THE_KERNEL, "the reference runs"),
    (
        "event_create",
        &[],
        "new memory instead of another stream's",
    ),
    ("event_query", &[], "a block waits until it is asked again"),
    ("event_record", &[], "new memory, or a wait for the stream"),
    ("event_wait", &[], "new memory instead of another stream's"),
    ("load", OF_THE_KERNEL, "the reference runs"),
    ("prepare", OF_THE_KERNEL, "the reference runs"),
    ("request", OF_THE_KERNEL, "the reference runs"),
    ("stream_query", &[], "it is asked again"),
    (
        "stream_synchronize",
        &[],
        "a stream ends when its work does",
    ),
    ("synchronize", &[3], "each stream is waited for"),
    ("toolchain", OF_THE_KERNEL, "the reference runs"),
    ("toolchain_count", OF_THE_KERNEL, "the reference runs"),
];

#[test]
fn every_failure_is_told_or_made_good_and_nothing_is_lost() {
    if let Ok(fault) = std::env::var(FAULT) {
        return program::run(&fault);
    }
    let folder = tempfile::tempdir().unwrap();
    if !sim::build(folder.path()).unwrap() {
        return;
    }
    let statuses = usize::try_from(drill::times(3, 20)).unwrap();
    let mut faults = Vec::new();
    for slot in slots().iter().map(String::as_str).chain(LATE) {
        let calls = if NOT_CALLED.contains(&slot) {
            1
        } else {
            LATER_CALLS
        };
        for call in 1..=calls {
            let fault = |&(status, _): &(i32, _)| (slot.to_owned(), call, status);
            faults.extend(STATUSES[..statuses].iter().map(fault));
        }
    }
    let todo = Mutex::new(faults.into_iter());
    let found = Mutex::new(BTreeMap::<String, Vec<Came>>::new());
    let problems = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PROCESSES {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().unwrap().next();
                    let Some((slot, call, status)) = next else {
                        return;
                    };
                    match judge(folder.path(), &slot, call, status) {
                        Ok(came) => found.lock().unwrap().entry(slot).or_default().push(came),
                        Err(problem) => problems.lock().unwrap().push(problem),
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{}\n", problems.join("\n\n"));
    for (slot, found) in found.into_inner().unwrap() {
        let count = |came| found.iter().filter(|other| **other == came).count();
        let (told, logged) = (count(Came::Told), count(Came::Logged));
        let made_good = count(Came::MadeGood);
        let faults = told + logged + made_good;
        let words = match faults {
            0 => "not called".to_owned(),
            _ => format!(
                "{faults} faults: {told} told, {logged} logged, {made_good} recovered, 0 leaks"
            ),
        };
        drill::tell("faults", &slot, &words);
    }
}

/// What came of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// There was no such call.
    NotMet,
    /// An error surfaced.
    Told,
    /// Nobody was there to have the error, so it is in the log.
    Logged,
    /// The host went on without it.
    MadeGood,
}

/// Runs the program with one fault and holds what came of it against what is allowed.
fn judge(plugins: &Path, slot: &str, call: u32, status: i32) -> Result<Came, String> {
    let fault = format!("{slot}:{call}:{status}");
    // Only a build needs a cache that has it not; to write one is most of what a process does.
    let cold = tempfile::tempdir().unwrap();
    let warm = plugins.join("cache");
    let cache = if slot == "compile" {
        cold.path()
    } else {
        &warm
    };
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "every_failure_is_told"])
        .envs([(sim::FOLDER_VARIABLE, plugins), ("DS_CACHE_DIR", cache)])
        .envs([(FAULT, fault.as_str()), ("SIM_FAULT", &fault)])
        .envs([
            ("SIM_MAX_DELAY_US", "0"),
            ("SIM_COMPILE_MS", "0"),
            ("RUST_BACKTRACE", "0"),
        ])
        .envs([("SIM_REPORT", "1"), ("DS_FALLBACK", "allow")])
        .output()
        .unwrap();
    let Output { stdout, stderr, .. } = &done;
    let (words, errors) = (
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr),
    );
    let problem = |what: &str| Err(format!("{fault}: {what}\n{words}{errors}"));
    if !done.status.success() {
        return problem(&done.status.to_string());
    }
    let Some([streams, events, blocks, prepared, met]) = report(&errors) else {
        return problem("the plugin reports nothing");
    };
    if NOT_CALLED.contains(&slot) {
        return match met {
            0 => Ok(Came::NotMet),
            _ => problem("it is called after all"),
        };
    }
    if met != 1 && call <= CALLS {
        return problem("the program makes too few calls of it");
    }
    let lost = if met == 1 {
        program::lost_blocks(slot)
    } else {
        0
    };
    if [streams, events, blocks] != [0, 0, lost] || prepared > program::PREPARED {
        return problem("the plugin has not everything back");
    }
    if met == 0 {
        return Ok(Came::NotMet);
    }
    if words.contains(program::TOLD) {
        return Ok(Came::Told);
    }
    let names = |line: &str| line.starts_with(program::LOGGED) && line.contains(slot);
    if !LATE.contains(&slot) && words.lines().any(names) {
        return Ok(Came::Logged);
    }
    let good = |&(of, statuses, _): &(&str, &[i32], _)| {
        of == slot && (statuses.is_empty() || statuses.contains(&status))
    };
    if MADE_GOOD.iter().any(good) {
        Ok(Came::MadeGood)
    } else {
        problem("nobody was told")
    }
}

/// The numbers of the example's `SIM_REPORT`: live streams, events, blocks and prepared kernels, and
/// the faults that were met.
fn report(errors: &str) -> Option<[u32; 5]> {
    let (_, line) = errors.rsplit_once("sim: live at the end: ")?;
    let numbers = line.lines().next()?.split([',', ';']);
    let number = |part: &str| part.rsplit(' ').next()?.parse().ok();
    let numbers: Vec<u32> = numbers.filter_map(number).collect();
    numbers.try_into().ok()
}

/// Every slot of every table that can fail, from the header.
fn slots() -> Vec<String> {
    let header = include_str!("../../../core/abi/include/ds_plugin.h");
    let tables = header.split("typedef struct Ds").filter_map(|text| {
        let (name, text) = text.split_once(" {\n")?;
        let (slots, _) = text.split_once("\n} Ds")?;
        name.ends_with("Table").then_some(slots)
    });
    let slot = |line: &str| {
        let (_, rest) = line.split_once("    DsStatus (*")?;
        Some(rest.split_once(')')?.0.to_owned())
    };
    let mut slots: Vec<String> = tables.flat_map(str::lines).filter_map(slot).collect();
    slots.push("ds_plugin_v1".to_owned());
    slots
}

#[test]
fn the_header_has_slots_and_each_that_is_named_here() {
    let slots = slots();
    let has = |name: &str| slots.iter().any(|slot| slot == name);
    for name in [
        "count",
        "synchronize",
        "stream_wrap",
        "allocate",
        "load",
        "launch",
        "compile",
    ] {
        assert!(has(name), "{name}: {slots:?}");
    }
    for void in ["close", "stream_destroy", "event_destroy", "release", "log"] {
        assert!(!has(void), "{void} cannot fail");
    }
    assert!(NOT_CALLED.iter().all(|name| has(name)));
    let known = |name: &str| has(name) || LATE.contains(&name);
    assert!(MADE_GOOD.iter().all(|(name, ..)| known(name)));
}
