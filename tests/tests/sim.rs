//! The example accelerator in C, which is nothing like a CPU: memory that the host cannot reach,
//! streams that are late, failures that surface on events, an artefact for each signature.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds_core::{DType, ErrorKind, Stream, Tensor, Timeline, op};
use ds_ops::{
    adam::{AdamConfig, AdamTensors, adam_step},
    cast::cast,
    matmul::matmul,
    rms_norm::{rms_norm, rms_norm_backward},
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::{values, with_reference},
    cpu,
    sim::devices,
};

#[test]
fn it_is_what_it_says() {
    let Some([device, other]) = devices() else {
        return;
    };
    assert_eq!(
        (device.to_string(), other.to_string()),
        ("sim:0".into(), "sim:1".into())
    );
    let info = device.info();
    assert!(!info.host_visible_memory && !info.synchronous);
    assert_eq!(info.alignment_bytes, 256);
    let error = ds_core::Buffer::of_kind(device, 64, ds_core::MemoryKind::Pinned).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn pageable_host_memory_is_copied_from_and_to_and_refused_by_ops() {
    let Some([device, _]) = devices() else { return };
    let stream = Stream::new(device).unwrap();
    let kind = ds_core::MemoryKind::Pageable;
    let mut batch = ds_core::Buffer::of_kind(device, 64, kind).unwrap();
    assert_eq!(batch.address().addr() % 4096, 0);
    // SAFETY: nothing is queued, and there is no clone.
    let bytes = unsafe { batch.host_bytes_mut() }.unwrap();
    bytes.copy_from_slice(&[1.5_f32; 16].map(f32::to_ne_bytes).concat());
    let x = Tensor::empty(&stream, DType::F32, &[16]).unwrap();
    x.buffer().copy_from(&stream, 0, &batch, 0, 64).unwrap();
    assert_eq!(x.to_vec::<f32>(&stream).unwrap(), [1.5; 16]);
    let other = ds_core::Buffer::of_kind(device, 64, kind).unwrap();
    other.fill(&stream, 0).unwrap();
    other.copy_from(&stream, 4, &batch, 0, 8).unwrap();
    let view = Tensor::view_of(&other, 0, DType::F32, &[4], &[1]).unwrap();
    assert_eq!(view.to_vec::<f32>(&stream).unwrap(), [0.0, 1.5, 1.5, 0.0]);
    let error = cast(&stream, &view, DType::F16).unwrap_err();
    assert!(
        error.to_string().contains("pageable host memory"),
        "{error}"
    );
}

#[test]
fn what_is_written_comes_back_and_moves_between_its_devices() {
    let Some([one, two]) = devices() else { return };
    let (s1, s2) = (Stream::new(one).unwrap(), Stream::new(two).unwrap());
    let numbers: Vec<f32> = (0..1000_i16).map(f32::from).collect();
    let a = Tensor::from_slice(&s1, &[1000], &numbers).unwrap();
    let b = Tensor::empty(&s2, DType::F32, &[1000]).unwrap();
    s2.wait(&s1.record().unwrap()).unwrap();
    b.buffer().copy_from(&s2, 0, a.buffer(), 0, 4000).unwrap();
    assert_eq!(b.to_vec::<f32>(&s2).unwrap(), numbers);
}

#[test]
fn its_own_kernels_run_and_build_once_a_signature() {
    let Some([device, _]) = devices() else { return };
    let s = device.default_stream().unwrap();
    let mut numbers = Numbers::new(11);
    for shape in [&[4, 64][..], &[3, 5, 7], &[1]] {
        let x = numbers.tensor(s, DType::F32, shape).unwrap();
        let weight = numbers
            .tensor(s, DType::F32, &shape[shape.len() - 1..])
            .unwrap();
        let y = Tensor::empty(s, DType::F32, shape).unwrap();
        let rstd = Tensor::empty(s, DType::F32, &shape[..shape.len() - 1]).unwrap();
        let args: [&[&Tensor]; 4] = [&[&x], &[&weight], &[&y], &[&rstd]];
        assert_eq!(
            with_reference("rms_norm", s, &args, &[], &[Attr::F64(1e-6)]).unwrap(),
            []
        );
        let half = Tensor::empty(s, DType::BF16, shape).unwrap();
        assert_eq!(
            with_reference("cast", s, &[&[&x], &[&half]], &[], &[]).unwrap(),
            []
        );
    }
    let specs = |shape: Vec<i64>| {
        let mut spec = ds_schema::TensorSpec::contiguous(DType::F32, shape);
        spec.alignment_log2 = 8;
        vec![spec]
    };
    let args = [
        specs(vec![4, 64]),
        specs(vec![64]),
        specs(vec![4, 64]),
        specs(vec![4]),
    ];
    let (choice, candidates) =
        op::explain(device, op::find("rms_norm").unwrap(), &args, &[]).unwrap();
    assert!(
        matches!(choice, op::Choice::Kernel(name) if name == "sim_rms_norm"),
        "{candidates:?}"
    );
}

#[test]
fn its_own_op_runs_beside_the_catalogue() {
    let Some([device, _]) = devices() else { return };
    let s = device.default_stream().unwrap();
    let x = tensor(s, DType::F32, &[3], &[1.0, 2.0, 3.0]).unwrap();
    let y = tensor(s, DType::F32, &[3], &[10.0, 20.0, 30.0]).unwrap();
    let z = Tensor::empty(s, DType::F32, &[3]).unwrap();
    let axpby = op::find("axpby").unwrap();
    assert!(axpby.reference().is_none());
    let scalars = [Attr::F64(2.0), Attr::F64(0.5)];
    op::launch(axpby, s, &[&[&x], &[&y], &[&z]], &[], &scalars).unwrap();
    assert_eq!(values(s, &z).unwrap(), [7.0, 14.0, 21.0]);
}

#[test]
fn what_it_has_no_kernel_for_runs_on_the_reference() {
    let Some([device, _]) = devices() else { return };
    let s = device.default_stream().unwrap();
    let mut numbers = Numbers::new(12);
    let a = numbers.tensor(s, DType::BF16, &[5, 6]).unwrap();
    let b = numbers
        .tensor(s, DType::BF16, &[7, 6])
        .unwrap()
        .transpose(0, 1)
        .unwrap();
    let c = Tensor::empty(s, DType::BF16, &[5, 7]).unwrap();
    assert_eq!(
        with_reference("matmul", s, &[&[&a], &[&b], &[&c]], &[], &[]).unwrap(),
        []
    );
}

#[test]
fn a_point_that_the_host_never_reaches_fails_what_waits_for_it() {
    let Some([device, _]) = devices() else { return };
    let s = Stream::new(device).unwrap();
    let gate = Timeline::new(device).unwrap();
    s.wait(&gate.next()).unwrap();
    let after = s.record().unwrap();
    assert!(!after.is_reached().unwrap());
    gate.fail(ErrorKind::DeviceLost).unwrap();
    assert_eq!(after.wait(None).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert_eq!(s.synchronize().unwrap_err().kind(), ErrorKind::DeviceLost);
}

#[test]
fn a_stream_of_another_plugin_waits_through_the_host() {
    let Some([device, _]) = devices() else { return };
    let (sim, cpu) = (
        Stream::new(device).unwrap(),
        Stream::new(cpu().unwrap()).unwrap(),
    );
    let gate = Timeline::new(cpu.device()).unwrap();
    let point = gate.next();
    sim.wait(&point).unwrap();
    let there = sim.record().unwrap();
    cpu.wait(&there).unwrap();
    let back = cpu.record().unwrap();
    assert!(!there.is_reached().unwrap() && !back.is_reached().unwrap());
    gate.signal(point.value()).unwrap();
    back.wait(None).unwrap();
}

/// Two layers `y = rms_norm(x) W` with the loss `sum(y^2) / 2`, trained by Adam; gives the weights
/// after some steps.
fn train(stream: &Stream) -> Vec<Vec<f64>> {
    let mut numbers = Numbers::new(13);
    let x = numbers.tensor(stream, DType::F32, &[16, 32]).unwrap();
    let mut list = |shape: &[i64]| numbers.tensor(stream, DType::F32, shape).unwrap();
    let (scale, weight) = (list(&[32]), list(&[32, 8]));
    let zeros = |t: &Tensor| {
        let count = usize::try_from(t.elements()).unwrap();
        tensor(stream, DType::F32, t.shape(), &vec![0.0; count]).unwrap()
    };
    let (m1, m2, v1, v2) = (zeros(&scale), zeros(&weight), zeros(&scale), zeros(&weight));
    let config = AdamConfig {
        lr: 0.05,
        weight_decay: 0.01,
        ..AdamConfig::default()
    };
    for step in 1..=5 {
        let (normed, rstd) = rms_norm(stream, &x, &scale, 1e-6).unwrap();
        let y = matmul(stream, &normed, &weight).unwrap();
        // The gradient of the loss with respect to y is y.
        let dweight = matmul(stream, &normed.transpose(0, 1).unwrap(), &y).unwrap();
        let dnormed = matmul(stream, &y, &weight.transpose(0, 1).unwrap()).unwrap();
        let (_, dscale) = rms_norm_backward(stream, &dnormed, &x, &scale, &rstd).unwrap();
        let tensors = AdamTensors {
            params: &[&scale, &weight],
            grads: &[&dscale, &dweight],
            exp_avg: &[&m1, &m2],
            exp_avg_sq: &[&v1, &v2],
        };
        adam_step(stream, tensors, None, step, &config).unwrap();
    }
    let half = cast(stream, &weight, DType::BF16).unwrap();
    [&scale, &weight, &half]
        .map(|t| values(stream, t).unwrap())
        .into()
}

#[test]
fn a_training_loop_gives_the_same_numbers_on_every_device() {
    let Some([one, two]) = devices() else { return };
    let expected = train(cpu().unwrap().default_stream().unwrap());
    for stream in [
        one.default_stream().unwrap().clone(),
        two.default_stream().unwrap().clone(),
        Stream::new(one).unwrap(),
        Stream::new(cpu().unwrap()).unwrap(),
    ] {
        for (got, want) in train(&stream).iter().zip(&expected) {
            for (got, want) in got.iter().zip(want) {
                // Five steps of f32 against f64 arithmetic; bf16 has 2^-8.
                assert!(
                    (got - want).abs() <= 8e-3 * want.abs() + 1e-4,
                    "{stream:?} {got} {want}"
                );
            }
        }
    }
}
