//! Failures that the example in C makes on demand: those that a call returns, and those that come
//! after it. Each case is a process of its own, because the plugin reads its faults once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command, sync::mpsc, thread, time::Duration};

use ds_core::{
    Buffer, DType, Device, Error, ErrorKind, MemoryKind, Point, Stream, Tensor, Timeline, op,
};
use ds_schema::Attr;
use ds_tests::{
    cases::tensor,
    compare::values,
    drill, example,
    sim::{self, FOLDER_VARIABLE},
};

/// Names the case that a process is for.
const CASE: &str = "DS_TESTS_CASE";

/// A name, the plugin's faults in its process, and what is to hold there.
type Case = (&'static str, &'static str, fn());

macro_rules! cases {
    ($($name:ident: $faults:literal,)*) => {
        &[$((stringify!($name), $faults, $name)),*]
    };
}

const CASES: &[Case] = cases! {
    a_launch_that_fails_later: "launch_async:1:7",
    a_launch_that_fails_as_if_it_were_pending: "launch_async:1:8",
    a_wait_that_ends_as_if_work_were_pending: "stream_synchronize:2:8",
    a_fill_that_fails_later: "fill_async:1:7",
    // The first three are those of the tensors.
    a_copy_that_fails_later: "copy_async:4:7",
    a_wait_that_fails_later: "event_wait_async:1:7",
    a_write_and_a_read_return_the_failure_of_their_copy: "copy_async:1:7,copy_async:2:6",
    what_a_failed_stream_was_to_use_is_kept_until_it_failed: "launch_async:1:7",
    memory_that_ends_is_asked_for_twice_and_then_told: "allocate:1:6,allocate:2:6,allocate:2:6",
    memory_that_is_not_taken_back_is_lost_and_nothing_else: "free:1:16",
    calls_that_fail_at_once_leave_everything_as_it_was:
        "open:1:7,stream_create:1:16,event_create:1:16,event_record:1:16,copy:1:10,fill:1:3,\
         launch:1:16,prepare:1:7",
    a_stream_whose_wait_fails_ends_when_its_work_does: "stream_synchronize:2:16",
    a_read_whose_wait_fails_returns_when_its_copy_is_over: "stream_synchronize:4:16",
    raw_memory_is_kept_from_work_that_nobody_could_wait_for: "synchronize:1:16",
    memory_used_abroad_is_kept_when_the_wait_for_that_fails: "event_synchronize:1:16",
    a_point_of_another_plugin_that_cannot_be_handed_on_fails: "event_signal:1:16",
    what_is_not_given_back_is_told: "synchronize:1:16,free:1:16",
    a_kernel_that_cannot_be_prepared_leaves_its_place_to_the_reference:
        "prepare:1:13,compile:2:11,load:2:14",
};

#[test]
fn each_failure_is_told_where_it_belongs_and_nothing_else_suffers() {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|case| case.0 == name).unwrap();
        return case.2();
    }
    let folder = tempfile::tempdir().unwrap();
    if !sim::build(folder.path()).unwrap() {
        return;
    }
    for (name, faults, _) in CASES {
        let cache = tempfile::tempdir().unwrap();
        let done = Command::new(std::env::current_exe().unwrap())
            .arg("--nocapture")
            .envs([
                (CASE, Path::new(name)),
                ("SIM_FAULT", Path::new(faults)),
                (FOLDER_VARIABLE, folder.path()),
                ("DS_CACHE_DIR", cache.path()),
            ])
            // No delays: what is late here is held by a point.
            .envs([
                ("SIM_MAX_DELAY_US", "0"),
                ("SIM_COMPILE_MS", "0"),
                ("RUST_BACKTRACE", "0"),
            ])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name}: {told}{errors}");
        drill::tell("faults", faults, &name.replace('_', " "));
    }
}

fn device() -> Device {
    sim::devices().unwrap()[0]
}

/// `z = 2 x + y` by the plugin's own op, which has no reference to fall back to.
fn axpby(stream: &Stream, x: &Tensor, y: &Tensor, z: &Tensor) -> Result<(), Error> {
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

/// What the contract says of a stream whose work failed: every later point and wait fails with that
/// status, and nothing more runs; other streams and devices never notice, and no memory is lost.
fn check_a_failed_stream(fail: impl Fn(&Stream, &[Tensor; 3]) -> Result<(), Error>) {
    let [one, two] = sim::devices().unwrap();
    let stream = Stream::new(one).unwrap();
    let tensors = threes(&stream);
    let before = stream.record().unwrap();
    let live = one.memory_stats().allocations;
    fail(&stream, &tensors).unwrap();
    let after = stream.record().unwrap();
    assert_eq!(after.wait(None).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert_eq!(
        after.is_reached().unwrap_err().kind(),
        ErrorKind::DeviceLost
    );
    assert!(before.is_reached().unwrap());
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceLost);
    assert!(error.to_string().contains("SIM_FAULT"), "{error}");
    assert_eq!(stream.is_idle().unwrap_err().kind(), ErrorKind::DeviceLost);

    // It stays failed, and does no more work: whoever asks for a result gets the failure.
    let [x, y, z] = &tensors;
    let again = axpby(&stream, x, y, z).and_then(|()| stream.synchronize());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::DeviceLost);
    assert_eq!(
        z.to_bytes(&stream).unwrap_err().kind(),
        ErrorKind::DeviceLost
    );
    let other = Stream::new(one).unwrap();
    assert_eq!(
        values(&other, z).unwrap(),
        [0.0; 4],
        "work behind the failure ran"
    );

    // Who waits for it fails with it; who does not, works.
    let waiting = Stream::new(two).unwrap();
    waiting.wait(&after).unwrap();
    assert_eq!(
        waiting.synchronize().unwrap_err().kind(),
        ErrorKind::DeviceLost
    );
    axpby(&other, x, y, z).unwrap();
    assert_eq!(values(&other, z).unwrap(), [3.0; 4]);
    let there = Stream::new(two).unwrap();
    let [x2, y2, z2] = threes(&there);
    axpby(&there, &x2, &y2, &z2).unwrap();
    assert_eq!(values(&there, &z2).unwrap(), [3.0; 4]);

    assert_eq!(one.memory_stats().allocations, live);
    drop((tensors, stream, other));
    assert_eq!(one.memory_stats().allocations, live - 3);
    one.empty_cache().unwrap();
    assert_eq!(one.memory_stats().reserved_bytes, 0);
}

fn a_launch_that_fails_later() {
    check_a_failed_stream(|s, [x, y, z]| axpby(s, x, y, z));
}

/// Status 8 is "not ready": what a stream answers while work is pending, and no way to fail.
fn a_launch_that_fails_as_if_it_were_pending() {
    let stream = Stream::new(device()).unwrap();
    let [x, y, z] = threes(&stream);
    axpby(&stream, &x, &y, &z).unwrap();
    let point = stream.record().unwrap();
    for error in [
        stream.synchronize().unwrap_err(),
        point.wait(None).unwrap_err(),
        point.is_reached().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PluginBug, "{error}");
        assert!(error.context().contains("`ds_plugin.h` forbids"), "{error}");
    }
    // Whoever wants the memory back does not look for ever whether it is over.
    drop((x, y, z, point, stream));
    device().empty_cache().unwrap();
    assert_eq!(device().memory_stats().reserved_bytes, 0);
}

fn a_wait_that_ends_as_if_work_were_pending() {
    let stream = Stream::new(device()).unwrap();
    stream.synchronize().unwrap();
    let gate = Timeline::new(device()).unwrap().next();
    stream.wait(&gate).unwrap();
    assert!(waits_for(&gate, || drop(stream)));
}

fn a_fill_that_fails_later() {
    check_a_failed_stream(|s, [_, _, z]| z.buffer().fill(s, 1));
}

fn a_copy_that_fails_later() {
    check_a_failed_stream(|s, [x, _, z]| z.buffer().copy_from(s, 0, x.buffer(), 0, 16));
}

fn a_wait_that_fails_later() {
    check_a_failed_stream(|s, _| s.wait(&Timeline::new(s.device())?.next()));
}

fn a_write_and_a_read_return_the_failure_of_their_copy() {
    let device = device();
    let live = device.memory_stats().allocations;
    let write = Stream::new(device).unwrap();
    let error = tensor(&write, DType::F32, &[4], &[1.0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceLost);
    assert_eq!(device.memory_stats().allocations, live);
    let read = Stream::new(device).unwrap();
    // The second fault counts the calls that the first one let pass.
    let x = tensor(&read, DType::F32, &[4], &[1.0; 4]).unwrap();
    let error = x.to_bytes(&read).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
}

fn what_a_failed_stream_was_to_use_is_kept_until_it_failed() {
    let device = device();
    let (failing, owner) = (Stream::new(device).unwrap(), Stream::new(device).unwrap());
    let [x, y, z] = threes(&owner);
    let addresses = [&x, &y, &z].map(|t| t.buffer().address());
    let gate = Timeline::new(device).unwrap().next();
    failing.wait(&gate).unwrap();
    axpby(&failing, &x, &y, &z).unwrap();
    drop((x, y, z));
    let others = [(); 3].map(|()| Buffer::new(&owner, 16).unwrap());
    assert!(others.iter().all(|b| !addresses.contains(&b.address())));
    gate.timeline().signal(gate.value()).unwrap();
    assert_eq!(
        failing.synchronize().unwrap_err().kind(),
        ErrorKind::DeviceLost
    );
    device.empty_cache().unwrap_err();
    drop((others, failing));
    device.empty_cache().unwrap();
    assert_eq!(device.memory_stats().reserved_bytes, 0);
}

fn memory_that_ends_is_asked_for_twice_and_then_told() {
    let device = device();
    let stream = Stream::new(device).unwrap();
    // The first fault: what is free is given back, and it works.
    let buffer = Buffer::new(&stream, 4 << 20).unwrap();
    assert_eq!(device.memory_stats().trims, 1);
    // The others: it does not, and the error has the numbers.
    let error = Buffer::new(&stream, 6 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(
        error.to_string(),
        "allocate memory: 6291456 bytes on sim:0: SIM_FAULT makes this call of allocate fail \
         (4194304 bytes are in live buffers, 4194304 reserved)"
    );
    // The device stays usable.
    drop((buffer, Buffer::new(&stream, 6 << 20).unwrap()));
    device.empty_cache().unwrap();
    assert_eq!(device.memory_stats().reserved_bytes, 0);
}

fn memory_that_is_not_taken_back_is_lost_and_nothing_else() {
    let device = device();
    let stream = Stream::new(device).unwrap();
    drop([2, 4].map(|mib| Buffer::new(&stream, mib << 20).unwrap()));
    device.empty_cache().unwrap_err();
    let left = device.memory_stats().reserved_bytes;
    assert!([2 << 20, 4 << 20].contains(&left), "{left}");
    let buffer = Buffer::new(&stream, 2 << 20).unwrap();
    buffer.fill(&stream, 1).unwrap();
    stream.synchronize().unwrap();
}

fn calls_that_fail_at_once_leave_everything_as_it_was() {
    let folder = std::env::var_os(FOLDER_VARIABLE).unwrap();
    let host = example::host(folder.as_ref());
    let sim = host.accelerator("sim").unwrap();
    let kind = |e: Error| e.kind();
    assert_eq!(kind(sim.device(0).unwrap_err()), ErrorKind::DeviceLost);
    let device = sim.device(0).unwrap();
    assert_eq!(kind(Stream::new(device).unwrap_err()), ErrorKind::Internal);
    let stream = Stream::new(device).unwrap();
    assert_eq!(kind(stream.record().unwrap_err()), ErrorKind::Internal);
    assert_eq!(kind(stream.record().unwrap_err()), ErrorKind::Internal);
    let point = stream.record().unwrap();
    assert_eq!(point.value(), 1, "a record that failed takes no value");
    point.wait(None).unwrap();
    let error = tensor(&stream, DType::F32, &[4], &[1.0; 4]).unwrap_err();
    assert_eq!(kind(error), ErrorKind::Io);
    assert_eq!(device.memory_stats().allocations, 0);
    let [x, y, z] = threes(&stream);
    assert_eq!(
        kind(z.buffer().fill(&stream, 1).unwrap_err()),
        ErrorKind::Unimplemented
    );
    assert_eq!(
        kind(axpby(&stream, &x, &y, &z).unwrap_err()),
        ErrorKind::DeviceLost
    );
    assert_eq!(
        kind(axpby(&stream, &x, &y, &z).unwrap_err()),
        ErrorKind::Internal
    );
    assert_eq!(values(&stream, &z).unwrap(), [0.0; 4]);
    axpby(&stream, &x, &y, &z).unwrap();
    assert_eq!(values(&stream, &z).unwrap(), [3.0; 4]);
}

/// Has `action` done while `gate` is closed, and says whether it waited for the gate. An action that
/// should, and does not, is over long before the gate is opened for it all the same.
fn waits_for(gate: &Point, action: impl FnOnce()) -> bool {
    let (over, told) = mpsc::channel();
    thread::scope(|scope| {
        let opener = scope.spawn(move || {
            let waited = told.recv_timeout(Duration::from_millis(200)).is_err();
            gate.timeline().signal(gate.value()).unwrap();
            waited
        });
        action();
        // The other side is gone when it has not waited for this.
        let _ = over.send(());
        opener.join().unwrap()
    })
}

fn a_stream_whose_wait_fails_ends_when_its_work_does() {
    let (late, other) = (
        Stream::new(device()).unwrap(),
        Stream::new(device()).unwrap(),
    );
    other.synchronize().unwrap();
    let gate = Timeline::new(device()).unwrap().next();
    let buffer = Buffer::new(&late, 16).unwrap();
    late.wait(&gate).unwrap();
    buffer.fill(&late, 1).unwrap();
    drop(buffer);
    assert!(waits_for(&gate, || drop(late)));
    // The block is anybody's now, so nothing may come behind this.
    let buffer = Buffer::new(&other, 16).unwrap();
    buffer.fill(&other, 2).unwrap();
    let mut read = [0; 16];
    buffer.read(&other, 0, &mut read).unwrap();
    assert_eq!(read, [2; 16]);
}

fn a_read_whose_wait_fails_returns_when_its_copy_is_over() {
    let stream = Stream::new(device()).unwrap();
    let [x, ..] = threes(&stream);
    let gate = Timeline::new(device()).unwrap().next();
    stream.wait(&gate).unwrap();
    let mut read = [0; 16];
    let read = &mut read;
    assert!(waits_for(&gate, || {
        let error = x.buffer().read(&stream, 0, read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }));
}

fn raw_memory_is_kept_from_work_that_nobody_could_wait_for() {
    let stream = Stream::new(device()).unwrap();
    let gate = Timeline::new(device()).unwrap().next();
    let buffer = Buffer::of_kind(device(), 16, MemoryKind::Device).unwrap();
    stream.wait(&gate).unwrap();
    buffer.fill(&stream, 1).unwrap();
    assert!(waits_for(&gate, || drop(buffer)));
    stream.synchronize().unwrap();
}

fn memory_used_abroad_is_kept_when_the_wait_for_that_fails() {
    let [one, two] = sim::devices().unwrap();
    let there = Stream::new(two).unwrap();
    let gate = Timeline::new(two).unwrap().next();
    let from = Buffer::of_kind(one, 16, MemoryKind::Device).unwrap();
    let to = Buffer::new(&there, 16).unwrap();
    there.wait(&gate).unwrap();
    to.copy_from(&there, 0, &from, 0, 16).unwrap();
    assert!(waits_for(&gate, || drop(from)));
    there.synchronize().unwrap();
}

fn a_point_of_another_plugin_that_cannot_be_handed_on_fails() {
    let folder = std::env::var_os(FOLDER_VARIABLE).unwrap();
    let host = example::host(folder.as_ref());
    let another = host.accelerator("sim").unwrap().device(0).unwrap();
    let (here, there) = (
        Stream::new(device()).unwrap(),
        Stream::new(another).unwrap(),
    );
    there.wait(&here.record().unwrap()).unwrap();
    let end = there.record().unwrap();
    let error = end.wait(Some(Duration::from_secs(10))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

fn what_is_not_given_back_is_told() {
    let device = device();
    let stream = Stream::new(device).unwrap();
    drop([2, 4].map(|mib| Buffer::new(&stream, mib << 20).unwrap()));
    let error = device.empty_cache().unwrap_err();
    assert!(error.to_string().contains("synchronize"), "{error}");
    assert_eq!(device.memory_stats().reserved_bytes, 6 << 20);
    let error = device.empty_cache().unwrap_err();
    assert!(error.to_string().contains("free"), "{error}");
    let left = device.memory_stats().reserved_bytes;
    assert!([2 << 20, 4 << 20].contains(&left), "{left}");
    device.empty_cache().unwrap();
}

fn a_kernel_that_cannot_be_prepared_leaves_its_place_to_the_reference() {
    // Refused by the plugin's constraint, then by its compiler, then by its loader.
    let stream = Stream::new(device()).unwrap();
    for extent in 3..7 {
        let values_in: Vec<f64> = (0..extent).map(f64::from).collect();
        let x = tensor(&stream, DType::F32, &[i64::from(extent)], &values_in).unwrap();
        let y = ds_ops::cast::cast(&stream, &x, DType::BF16).unwrap();
        assert_eq!(values(&stream, &y).unwrap(), values_in);
    }
}
