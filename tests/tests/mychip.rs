//! The accelerator of `docs/adding-an-accelerator.md`: it keeps the boundary's contracts, every op
//! runs on it, and the document shows its code as it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::OnceLock, thread, time::Duration};

use ds_core::{Buffer, DType, Device, ErrorKind, Host, MemoryKind, Stream, Tensor, Timeline, op};
use ds_ops::{
    adam::{AdamConfig, AdamTensors, adam_step},
    cast::cast,
};
use ds_schema::{Attr, TensorSpec};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::{values, with_reference},
    cpu, example,
};

const DOCUMENT: &str = include_str!("../../docs/adding-an-accelerator.md");
const FILES: [&str; 6] = [
    include_str!("../../plugins/examples/mychip-rust/src/lib.rs"),
    include_str!("../../plugins/examples/mychip-rust/src/memory.rs"),
    include_str!("../../plugins/examples/mychip-rust/src/event.rs"),
    include_str!("../../plugins/examples/mychip-rust/src/stream.rs"),
    include_str!("../../plugins/examples/mychip-rust/src/ops.rs"),
    include_str!("../../plugins/examples/mychip-rust/plugin.json"),
];

fn device() -> Device {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        // Once it is open, the library needs its file no more.
        let folder = tempfile::tempdir().unwrap();
        example::build_mychip(folder.path()).unwrap();
        let host = example::host(folder.path());
        host.accelerator("mychip").unwrap();
        host
    });
    host.accelerator("mychip").unwrap().device(0).unwrap()
}

#[test]
fn memory_that_does_not_fit_or_is_of_no_kind_here_is_refused_and_the_device_goes_on() {
    let device = device();
    let s = device.default_stream().unwrap();
    let total = device.memory_info().unwrap().total_bytes;
    assert_eq!(total, device.info().memory_bytes);
    let error = Buffer::new(s, total + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    let error = Buffer::of_kind(device, 64, MemoryKind::Pinned).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let x = Tensor::from_slice(s, &[3], &[1.0_f32, 2.0, 3.0]).unwrap();
    assert_eq!(x.to_vec::<f32>(s).unwrap(), [1.0, 2.0, 3.0]);
}

#[test]
fn a_stream_waits_for_the_host_and_nobody_waits_with_it() {
    let device = device();
    let (held, free) = (Stream::new(device).unwrap(), Stream::new(device).unwrap());
    let gate = Timeline::new(device).unwrap().next();
    held.wait(&gate).unwrap();
    let behind = held.record().unwrap();
    let x = Tensor::from_slice(&free, &[2], &[1.0_f32, 2.0]).unwrap();
    assert_eq!(x.to_vec::<f32>(&free).unwrap(), [1.0, 2.0]);
    assert!(!behind.is_reached().unwrap() && !held.is_idle().unwrap());
    let error = behind.wait(Some(Duration::from_millis(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    gate.timeline().signal(gate.value()).unwrap();
    behind.wait(None).unwrap();
    held.synchronize().unwrap();
    assert!(held.is_idle().unwrap());
}

#[test]
fn a_failure_stays_with_its_stream_and_reaches_every_point_behind_it() {
    let device = device();
    let (first, second) = (Stream::new(device).unwrap(), Stream::new(device).unwrap());
    let before = first.record().unwrap();
    let gate = Timeline::new(device).unwrap();
    first.wait(&gate.next()).unwrap();
    second.wait(&first.record().unwrap()).unwrap();
    gate.fail(ErrorKind::DeviceLost).unwrap();
    for stream in [&first, &second] {
        for _ in 0..2 {
            let error = stream.synchronize().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceLost, "{error}");
        }
        let error = stream.is_idle().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceLost, "{error}");
    }
    assert!(before.is_reached().unwrap());
    device.default_stream().unwrap().synchronize().unwrap();
}

#[test]
fn streams_hand_over_to_each_other_and_to_another_plugin() {
    let device = device();
    let (a, b) = (Stream::new(device).unwrap(), Stream::new(device).unwrap());
    let other = Stream::new(cpu().unwrap()).unwrap();
    let gate = Timeline::new(device).unwrap().next();
    a.wait(&gate).unwrap();
    for _ in 0..20 {
        b.wait(&a.record().unwrap()).unwrap();
        other.wait(&b.record().unwrap()).unwrap();
        a.wait(&other.record().unwrap()).unwrap();
    }
    let last = a.record().unwrap();
    let waiter = thread::spawn(move || last.wait(None));
    gate.timeline().signal(gate.value()).unwrap();
    waiter.join().unwrap().unwrap();
}

#[test]
fn points_tell_the_time() {
    let s = Stream::new(device()).unwrap();
    let (start, end) = (s.record_timed().unwrap(), s.record_timed().unwrap());
    end.wait(None).unwrap();
    end.elapsed_since(&start).unwrap();
}

#[test]
fn every_op_gives_what_its_reference_gives() {
    let s = Stream::new(device()).unwrap();
    let mut numbers = Numbers::new(21);
    let mut list = |shape: &[i64]| numbers.tensor(&s, DType::F32, shape).unwrap();
    let empty = |shape: &[i64]| Tensor::empty(&s, DType::F32, shape).unwrap();
    let (x, dy, weight, rstd) = (list(&[5, 7]), list(&[5, 7]), list(&[7]), empty(&[5]));
    let run = |name, args: &[op::Args<'_>], scalars: &[Attr]| {
        assert_eq!(
            with_reference(name, &s, args, &[], scalars).unwrap(),
            [],
            "{name}"
        );
    };
    let y = empty(&[5, 7]);
    run(
        "rms_norm",
        &[&[&x], &[&weight], &[&y], &[&rstd]],
        &[Attr::F64(1e-6)],
    );
    let (dx, dweight) = (empty(&[5, 7]), empty(&[7]));
    run(
        "rms_norm_backward",
        &[&[&dy], &[&x], &[&weight], &[&rstd], &[&dx], &[&dweight]],
        &[],
    );
    let half = Tensor::empty(&s, DType::BF16, &[5, 7]).unwrap();
    run("cast", &[&[&x], &[&half]], &[]);
    let wide = half.transpose(0, 1).unwrap();
    let product = Tensor::empty(&s, DType::BF16, &[5, 5]).unwrap();
    run("matmul", &[&[&half], &[&wide], &[&product]], &[]);
    let adam = |s: &Stream| {
        let on = |values: &[f64]| tensor(s, DType::F32, &[3], values).unwrap();
        let (param, grad) = (on(&[1.0, -2.0, 3.0]), on(&[0.5, 0.25, -1.0]));
        let (m, v) = (on(&[0.0; 3]), on(&[0.0; 3]));
        let tensors = AdamTensors {
            params: &[&param],
            grads: &[&grad],
            exp_avg: &[&m],
            exp_avg_sq: &[&v],
        };
        adam_step(s, tensors, None, 1, &AdamConfig::default()).unwrap();
        let all = [&param, &m, &v].map(|t| values(s, t).unwrap());
        all.concat()
    };
    let (got, want) = (adam(&s), adam(cpu().unwrap().default_stream().unwrap()));
    // One step in f32 against one in f64.
    assert!(
        got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6),
        "{got:?} {want:?}"
    );
    assert_eq!(
        values(&s, &cast(&s, &x, DType::F32).unwrap()).unwrap(),
        values(&s, &x).unwrap()
    );
}

#[test]
fn its_kernel_is_right_and_takes_what_the_manifest_says() {
    let device = device();
    let s = Stream::new(device).unwrap();
    let mut numbers = Numbers::new(22);
    for [m, k, n] in [[1, 1, 1], [3, 5, 7], [17, 64, 33], [2, 0, 3], [0, 4, 2]] {
        let a = numbers.tensor(&s, DType::F32, &[m, k]).unwrap();
        let b = numbers.tensor(&s, DType::F32, &[k, n]).unwrap();
        let c = Tensor::empty(&s, DType::F32, &[m, n]).unwrap();
        assert_eq!(
            with_reference("matmul", &s, &[&[&a], &[&b], &[&c]], &[], &[]).unwrap(),
            [],
            "{m} {k} {n}"
        );
    }
    let choice = |dtype, batch: &[i64]| {
        let of = |shape: [i64; 2]| {
            let shape = [batch, &shape].concat();
            vec![TensorSpec::contiguous(dtype, shape)]
        };
        let args = [of([2, 3]), of([3, 4]), of([2, 4])];
        let found = op::explain(device, op::find("matmul").unwrap(), &args, &[]);
        found.unwrap().0
    };
    assert!(matches!(choice(DType::F32, &[]), op::Choice::Kernel(name) if name == "mychip_matmul"));
    assert!(matches!(choice(DType::BF16, &[]), op::Choice::Reference));
    assert!(matches!(choice(DType::F32, &[2]), op::Choice::Reference));
}

/// The lines of a text that are not empty, without indentation: a document shows code otherwise
/// than a file.
fn lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    format!("\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_document_shows_code_that_is_compiled() {
    let files = FILES.map(lines);
    let mut shown = 0;
    let blocks = ["\n```rust\n", "\n```json\n"].map(|open| DOCUMENT.split(open).skip(1));
    for block in blocks.into_iter().flatten() {
        let block = block.split("\n```").next().unwrap();
        // Stands for what is left out.
        for part in block.split("// ...") {
            let part = lines(part);
            assert!(
                files.iter().any(|file| file.contains(&part)),
                "no file has\n{part}"
            );
        }
        shown += 1;
    }
    assert!(shown > 0);
}
