//! Steps of optimizers: what cases of one kernel cannot say.

use std::{fmt::Write, process::Command, time::Duration};

use ds_core::{DType, ErrorKind, Stream, Tensor, Timeline};
use ds_ops::{
    adagrad::{AdagradConfig, AdagradRows, AdagradTensors, adagrad_step, adagrad_step_sparse},
    adam::{AdamConfig, AdamTensors, AdamWorker, adam_rollback, adam_step},
    grads::{grad_norm, grad_scale},
    lamb::{LambConfig, LambTensors, lamb_step},
    lion::{LionConfig, LionTensors, lion_step},
    sgd::{SgdConfig, SgdTensors, sgd_step},
};
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
    cpu,
};

use crate::{AGAIN, stream};

const SHAPE: [i64; 2] = [30, 700];

/// A parameter, its gradient, and a first and a second moment.
fn four(seed: u64) -> [Tensor; 4] {
    let mut numbers = Numbers::new(seed);
    let mut draw = |of: fn(f64) -> f64| {
        let host = numbers.host_of(DType::F32, &SHAPE, of).unwrap();
        Tensor::from_bytes(stream(), DType::F32, &SHAPE, &host.bytes).unwrap()
    };
    [
        draw(|v| v),
        draw(|v| v),
        draw(|v| v),
        draw(|v| v * v + 0.01),
    ]
}

fn bytes(of: &[Tensor; 4]) -> Vec<Vec<u8>> {
    let one = |tensor: &Tensor| tensor.to_bytes(stream()).unwrap();
    of.iter().map(one).collect()
}

fn adam(at: &Stream, tensors: &[Tensor; 4], step: i64, config: &AdamConfig) {
    on(tensors, |t| adam_step(at, t, None, step, config)).unwrap();
}

/// Runs a step on these as lists of one.
fn on<R>([p, g, m, v]: &[Tensor; 4], step: impl FnOnce(AdamTensors<'_>) -> R) -> R {
    step(AdamTensors {
        params: &[p],
        grads: &[g],
        exp_avg: &[m],
        exp_avg_sq: &[v],
    })
}

#[test]
fn a_step_of_adam_that_is_taken_back_was_not_there() {
    for (adamw, bias_correction) in [(true, true), (true, false), (false, true), (false, false)] {
        for step in [1, 7] {
            let config = AdamConfig {
                lr: 1e-2,
                weight_decay: 0.1,
                adamw,
                bias_correction,
                ..AdamConfig::default()
            };
            let at = four(21);
            let before: Vec<_> = at.iter().map(|t| values(stream(), t).unwrap()).collect();
            adam(stream(), &at, step, &config);
            assert_ne!(values(stream(), &at[0]).unwrap(), before[0]);
            on(&at, |t| adam_rollback(stream(), t, None, step, &config)).unwrap();
            for (tensor, before) in at.iter().zip(before) {
                for (got, want) in values(stream(), tensor).unwrap().into_iter().zip(before) {
                    // A few roundings of numbers up to 10.
                    assert!((got - want).abs() < 1e-5, "{got} {want} {config:?}");
                }
            }
        }
    }
}

#[test]
fn a_worker_gives_the_bits_of_a_step_and_its_waits_end_in_time() {
    let worker = AdamWorker::new(cpu().unwrap()).unwrap();
    let config = AdamConfig::default();
    let (own, at) = (four(22), four(22));
    let gate = Timeline::new(cpu().unwrap()).unwrap();
    let ready = gate.next();
    let submit = |step, ready| on(&at, |t| worker.submit(ready, t, None, step, &config)).unwrap();
    if has_kernel() {
        let first = submit(1, Some(&ready));
        let second = submit(2, None);
        let error = first.wait(Some(Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(!second.is_reached().unwrap());
        // Not their bytes: another stream that takes up memory of the step waits for it, too.
        gate.signal(ready.value()).unwrap();
        second.wait(None).unwrap();
        assert!(first.is_reached().unwrap());
        adam(stream(), &own, 1, &config);
        adam(stream(), &own, 2, &config);
        assert_eq!(bytes(&own), bytes(&at));
    }
}

/// The reference runs on the calling thread, which would wait for the gate that it has to open.
fn has_kernel() -> bool {
    use ds_core::op;
    let scalars = [0.1; 5].map(ds_schema::Attr::F64).into_iter();
    let scalars: Vec<_> = scalars.chain([ds_schema::Attr::I64(1)]).collect();
    let attributes = [ds_schema::Attr::Bool(true); 2];
    let op = op::find("adam_step").unwrap();
    let [p, g, m, v] = &four(1);
    let args: [&[&Tensor]; 5] = [&[p], &[g], &[m], &[v], &[]];
    let runs_on = op::resolve(op, stream(), &args, &attributes, &scalars).unwrap();
    matches!(runs_on, op::RunsOn::Kernel(_))
}

#[test]
fn a_worker_refuses_what_is_wrong_and_ends_with_what_it_waits_for() {
    let worker = AdamWorker::new(cpu().unwrap()).unwrap();
    let config = AdamConfig::default();
    let submit = |ready, tensors| on(tensors, |t| worker.submit(ready, t, None, 1, &config));
    let at = four(23);
    let mut short = at.clone();
    short[3] = at[3].narrow(0, 0, 3).unwrap();
    let error = submit(None, &short).unwrap_err();
    assert!(error.to_string().contains("exp_avg_sq"), "{error}");
    submit(None, &at).unwrap().wait(None).unwrap();

    let before = bytes(&at);
    let gate = Timeline::new(cpu().unwrap()).unwrap();
    let ready = gate.next();
    gate.fail(ErrorKind::Io).unwrap();
    for ready in [Some(&ready), None] {
        let failed = submit(ready, &at).and_then(|point| point.wait(None));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
    }
    assert_eq!(bytes(&at), before);
}

#[test]
fn what_a_worker_was_given_outlives_its_owner() {
    let config = AdamConfig::default();
    let own = four(24);
    let at = four(24);
    let result = at[0].clone();
    let worker = AdamWorker::new(cpu().unwrap()).unwrap();
    for step in 1..=20 {
        on(&at, |t| worker.submit(None, t, None, step, &config)).unwrap();
        adam(stream(), &own, step, &config);
    }
    drop(at);
    drop(worker);
    let want = own[0].to_bytes(stream()).unwrap();
    assert_eq!(result.to_bytes(stream()).unwrap(), want);
}

/// Parameters that are views: no step may update a copy and lose it.
#[test]
fn a_parameter_with_gaps_is_updated_where_it_lies() {
    let (at, whole) = (four(25), four(25));
    let config = AdamConfig::default();
    let turned = at.each_ref().map(|t| t.transpose(0, 1).unwrap());
    let before = values(stream(), &at[0]).unwrap();
    let step = |tensors: &[Tensor; 4]| {
        on(tensors, |t| adam_step(stream(), t, None, 1, &config)).unwrap();
        on(tensors, |t| {
            let (params, grads) = (t.params, t.grads);
            let lion = LionTensors {
                params,
                grads,
                exp_avg: t.exp_avg,
            };
            lion_step(stream(), lion, None, &LionConfig::default())?;
            let sgd = SgdTensors {
                params,
                grads,
                momentum_buffer: None,
            };
            sgd_step(stream(), sgd, None, 1, &SgdConfig::default())?;
            let adagrad = AdagradTensors {
                params,
                grads,
                exp_avg_sq: t.exp_avg_sq,
            };
            adagrad_step(stream(), adagrad, None, &AdagradConfig::default())
        })
        .unwrap();
    };
    step(&turned);
    step(&whole);
    let [got, want] = [&at, &whole].map(|t| values(stream(), &t[0]).unwrap());
    assert!(got.iter().zip(&before).all(|(got, before)| got != before));
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
}

#[test]
fn signs_of_zeros_move_lion_and_a_nan_shows() {
    let f32s = |values: &[f64]| tensor(stream(), DType::F32, &[4], values).unwrap();
    let (params, grads) = (f32s(&[1.0; 4]), f32s(&[0.0, -0.0, f64::NAN, -2.0]));
    let exp_avg = f32s(&[0.0, -0.0, 0.0, 0.0]);
    let tensors = LionTensors {
        params: &[&params],
        grads: &[&grads],
        exp_avg: &[&exp_avg],
    };
    let config = LionConfig {
        lr: 0.25,
        ..LionConfig::default()
    };
    lion_step(stream(), tensors, None, &config).unwrap();
    let moved = values(stream(), &params).unwrap();
    assert_eq!(moved[..2], [0.75, 1.25]);
    assert!(moved[2].is_nan());
    assert_eq!(moved[3], 1.25);
}

#[test]
fn lamb_gives_the_ratio_of_each_tensor_and_of_none() {
    let one = |value: f64, n: usize| {
        let shape = [i64::try_from(n).unwrap()];
        tensor(stream(), DType::F32, &shape, &vec![value; n]).unwrap()
    };
    let params = [one(3.0, 50_000), one(0.0, 5), one(1.0, 0)];
    let like = |value| [one(value, 50_000), one(value, 5), one(value, 0)];
    let (grads, means, squares) = (like(2.0), like(0.0), like(0.0));
    let [p, g, m, v] = [&params, &grads, &means, &squares].map(|l| l.iter().collect::<Vec<_>>());
    let tensors = LambTensors {
        params: &p,
        grads: &g,
        exp_avg: &m,
        exp_avg_sq: &v,
    };
    let config = LambConfig {
        beta1: 0.0,
        beta2: 0.0,
        bias_correction: false,
        ..LambConfig::default()
    };
    // u = g / |g| = 1 everywhere: the ratio is |p| / |u|, 1 where a norm is 0.
    let ratios = lamb_step(stream(), tensors, None, 1, &config).unwrap();
    let ratios = values(stream(), &ratios).unwrap();
    assert!((ratios[0] - 3.0).abs() < 1e-5, "{ratios:?}");
    assert_eq!(ratios[1..], [1.0, 1.0]);
    let none = LambTensors {
        params: &[],
        grads: &[],
        exp_avg: &[],
        exp_avg_sq: &[],
    };
    let ratios = lamb_step(stream(), none, None, 1, &config).unwrap();
    assert_eq!(ratios.shape(), [0]);
}

/// A dense step with zeros in the other rows moves the same rows.
#[test]
fn sparse_adagrad_is_the_dense_one_of_the_sum() {
    let mut numbers = Numbers::new(26);
    let draw = |n: &mut Numbers, shape: &[i64]| n.tensor(stream(), DType::F32, shape).unwrap();
    let param = draw(&mut numbers, &[6, 50]);
    let rows = draw(&mut numbers, &[4, 50]);
    let sums = tensor(stream(), DType::F32, &[6, 50], &[0.5; 300]).unwrap();
    let (dense_param, dense_sums) = (
        copy(stream(), &param).unwrap(),
        copy(stream(), &sums).unwrap(),
    );
    let r = values(stream(), &rows).unwrap();
    let mut dense = vec![0.0; 300];
    for column in 0..50 {
        dense[2 * 50 + column] = r[column] + r[100 + column];
        dense[5 * 50 + column] = r[50 + column];
    }
    let dense = tensor(stream(), DType::F32, &[6, 50], &dense).unwrap();
    let config = AdagradConfig::default();
    let tensors = AdagradTensors {
        params: &[&dense_param],
        grads: &[&dense],
        exp_avg_sq: &[&dense_sums],
    };
    adagrad_step(stream(), tensors, None, &config).unwrap();
    let indices = Tensor::from_slice(stream(), &[4], &[2_i64, 5, 2, 6]).unwrap();
    let at = AdagradRows {
        param: &param,
        indices: &indices,
        values: &rows,
        exp_avg_sq: &sums,
    };
    adagrad_step_sparse(stream(), at, None, &config).unwrap();
    for (sparse, dense) in [(&param, &dense_param), (&sums, &dense_sums)] {
        let (sparse, dense) = (
            values(stream(), sparse).unwrap(),
            values(stream(), dense).unwrap(),
        );
        for (index, (got, want)) in sparse.iter().zip(&dense).enumerate() {
            // The dense gradient was rounded to f32 on its way; rows without one have their bits.
            let exact = ![2, 5].contains(&(index / 50));
            let near = (got - want).abs() <= if exact { 0.0 } else { 1e-5 };
            assert!(near, "element {index}: {got} {want}");
        }
    }
}

#[test]
fn sgd_refuses_what_pytorch_does() {
    let [p, g, ..] = &four(27);
    let tensors = SgdTensors {
        params: &[p],
        grads: &[g],
        momentum_buffer: None,
    };
    for (momentum, dampening, nesterov, words) in [
        (0.9, 0.0, false, "momentum 0.9 has no buffers"),
        (0.0, 0.0, true, "nesterov takes momentum and no dampening"),
        (0.9, 0.1, true, "nesterov takes momentum and no dampening"),
    ] {
        let config = SgdConfig {
            momentum,
            dampening,
            nesterov,
            ..SgdConfig::default()
        };
        let error = sgd_step(stream(), tensors, None, 1, &config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Sums over blocks and over chains of rows, in processes with other numbers of threads.
#[test]
fn sums_over_lists_and_rows_have_equal_bits_whatever_the_threads() {
    let s = stream();
    let mut numbers = Numbers::new(28);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let shapes: [&[i64]; 4] = [&[200_003], &[7], &[0], &[300, 257]];
    let [p, g, m, v] = [0; 4].map(|_| shapes.map(&mut t));
    let [p, g, m, v] = [&p, &g, &m, &v].map(<[Tensor; 4]>::each_ref);
    let found = grad_norm(s, &g).unwrap();
    grad_scale(s, &v, None, 0.0).unwrap();
    let tensors = LambTensors {
        params: &p,
        grads: &g,
        exp_avg: &m,
        exp_avg_sq: &v,
    };
    let ratios = lamb_step(s, tensors, None, 1, &LambConfig::default()).unwrap();
    let (table, rows, sums) = (t(&[9, 1000]), t(&[500, 1000]), t(&[9, 1000]));
    grad_scale(s, &[&sums], None, 0.0).unwrap();
    let indices: Vec<i32> = (0..500).map(|i| i * i % 11).collect();
    let at = AdagradRows {
        param: &table,
        indices: &Tensor::from_slice(s, &[500], &indices).unwrap(),
        values: &rows,
        exp_avg_sq: &sums,
    };
    adagrad_step_sparse(s, at, None, &AdagradConfig::default()).unwrap();
    let mut bits = String::new();
    for tensor in [&found.norm, &ratios, p[0], p[3], &table, &sums] {
        let bytes = tensor.to_bytes(s).unwrap();
        // FNV-1a.
        let hash = bytes.iter().fold(14_695_981_039_346_656_037, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(1_099_511_628_211_u64)
        });
        write!(bits, " {hash:x}").unwrap();
    }
    println!("bits:{bits}");
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    for threads in ["1", "2", "3"] {
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["sums_over_lists", "--nocapture"])
            .envs([(AGAIN, "1"), ("DS_CPU_THREADS", threads)])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(told.contains(&format!("bits:{bits}")), "{threads}: {told}");
    }
}
