//! Attention: views of one tensor, packed sequences, starts that are wrong, numbers that are none, and
//! that a row's bits are its own.

use ds_core::{
    DType, ErrorKind, Tensor,
    op::{self, RunsOn},
};
use ds_ops::flash_attn::{
    AttentionConfig, Starts, flash_attn, flash_attn_backward, flash_attn_varlen,
    flash_attn_varlen_backward,
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{
    AGAIN, FLOATS, check,
    softmax::{bits_are_equal_whatever_the_threads, check_kernel, dot, hold_slopes, slopes},
    stream,
};

const CAUSAL: [Attr; 3] = [Attr::Bool(true), Attr::I64(-1), Attr::I64(-1)];
const SCALE: [Attr; 1] = [Attr::F64(0.3)];

fn causal() -> AttentionConfig<'static> {
    AttentionConfig {
        causal: true,
        ..AttentionConfig::default()
    }
}

fn draw(seed: u64, dtype: DType, shape: &[i64]) -> Tensor {
    Numbers::new(seed).tensor(stream(), dtype, shape).unwrap()
}

fn starts(dtype: DType, of: &[f64]) -> Tensor {
    let n = i64::try_from(of.len()).unwrap();
    tensor(stream(), dtype, &[n], of).unwrap()
}

fn bytes(t: &Tensor) -> Vec<u8> {
    t.to_bytes(stream()).unwrap()
}

/// Queries, keys and values of one tensor `[B, S, 3, H, D]`, and results into the queries' place of
/// another; heads before tokens, `[B, H, S, D]`. Nothing is copied: the kernel takes the call.
#[test]
fn queries_keys_and_values_may_be_views() {
    let s = stream();
    let (b, tokens, h, d) = (2, 21, 3, 20);
    for dtype in FLOATS {
        let qkv = draw(1, dtype, &[b, tokens, 3 * h, d]);
        let part = |index| qkv.narrow(2, index * h, h).unwrap();
        let lse = Tensor::empty(s, DType::F32, &[b, h, tokens]).unwrap();
        let o = draw(2, dtype, &[b, tokens, 3 * h, d]);
        let o = o.narrow(2, 0, h).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let args: [&[&Tensor]; 6] = [&[&q], &[&k], &[&v], &[], &[&o], &[&lse]];
        check_kernel("flash_attn", &args, &CAUSAL, &SCALE);

        let turned = |seed| {
            let heads_first = draw(seed, dtype, &[b, h, tokens, d]);
            heads_first.transpose(1, 2).unwrap()
        };
        let (q, k, v, o) = (turned(3), turned(4), turned(5), turned(6));
        let args: [&[&Tensor]; 6] = [&[&q], &[&k], &[&v], &[], &[&o], &[&lse]];
        check_kernel("flash_attn", &args, &CAUSAL, &SCALE);

        let packed = draw(7, dtype, &[tokens, 3 * h, d]);
        let part = |index| packed.narrow(1, index * h, h).unwrap();
        let ends = starts(DType::I32, &[0.0, 5.0, 21.0]);
        let o = draw(8, dtype, &[tokens, 3 * h, d]);
        let o = o.narrow(1, 0, h).unwrap();
        let lse = Tensor::empty(s, DType::F32, &[h, tokens]).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let args: [&[&Tensor]; 8] = [&[&q], &[&k], &[&v], &[&ends], &[&ends], &[], &[&o], &[&lse]];
        check_kernel("flash_attn_varlen", &args, &CAUSAL, &SCALE);
    }
}

/// Every way in which heads of queries share those of keys, and heads of every width.
#[test]
fn heads_share_keys_and_have_any_width() {
    let s = stream();
    for d in [1, 7, 40, 64, 80, 96, 128, 256, 300] {
        for groups in [1, 2, 4] {
            let (q, k) = (
                draw(1, DType::F32, &[1, 9, 4, d]),
                draw(2, DType::F32, &[1, 11, groups, d]),
            );
            let v = draw(3, DType::F32, &[1, 11, groups, d]);
            let o = Tensor::empty(s, DType::F32, q.shape()).unwrap();
            let lse = Tensor::empty(s, DType::F32, &[1, 4, 9]).unwrap();
            let args: [&[&Tensor]; 6] = [&[&q], &[&k], &[&v], &[], &[&o], &[&lse]];
            check("flash_attn", &args, &CAUSAL, &SCALE);
            let d_o = draw(4, DType::F32, q.shape());
            let like = |t: &Tensor| Tensor::empty(s, DType::F32, t.shape()).unwrap();
            let (dq, dk, dv) = (like(&q), like(&k), like(&v));
            let args: [&[&Tensor]; 10] = [
                &[&d_o],
                &[&q],
                &[&k],
                &[&v],
                &[&o],
                &[&lse],
                &[],
                &[&dq],
                &[&dk],
                &[&dv],
            ];
            check("flash_attn_backward", &args, &CAUSAL, &SCALE);
        }
    }
}

/// Gradients into rows with gaps, which they leave alone.
#[test]
fn gradients_of_views_are_views() {
    let s = stream();
    let (b, tokens, h, d) = (2, 21, 3, 20);
    for dtype in FLOATS {
        let wide = |seed| draw(seed, dtype, &[b, tokens, 3 * h, d]);
        let part = |of: &Tensor, index| of.narrow(2, index * h, h).unwrap();
        let qkv = wide(1);
        let (q, k, v) = (part(&qkv, 0), part(&qkv, 1), part(&qkv, 2));
        let to = [wide(2), wide(3), wide(4)];
        let [dq, dk, dv] = to.each_ref().map(|of| part(of, 1));
        let around = || to.each_ref().map(|of| [0, 2].map(|i| bytes(&part(of, i))));
        let before = around();
        let of = flash_attn(s, &q, &k, &v, &causal()).unwrap();
        let d_o = draw(3, dtype, &[b, h, tokens, d]).transpose(1, 2).unwrap();
        let args: [&[&Tensor]; 10] = [
            &[&d_o],
            &[&q],
            &[&k],
            &[&v],
            &[&of.o],
            &[&of.lse],
            &[],
            &[&dq],
            &[&dk],
            &[&dv],
        ];
        let scale = [Attr::F64(1.0 / 20_f64.sqrt())];
        check_kernel("flash_attn_backward", &args, &CAUSAL, &scale);
        assert!(before == around(), "{dtype}");
    }
}

/// By differences, of a batch and packed, with everything that has a gradient of its own to spoil.
#[test]
fn gradients_are_the_slopes() {
    let s = stream();
    let shapes: [[i64; 3]; 3] = [[5, 4, 3], [7, 2, 3], [7, 2, 3]];
    let mut numbers = Numbers::new(3);
    let mut draw = |shape: &[i64; 3]| -> Vec<f64> {
        (0..shape.iter().product())
            .map(|_| numbers.draw())
            .collect()
    };
    let x = shapes.each_ref().map(&mut draw);
    let d_o = draw(&shapes[0]);
    let alibi = tensor(s, DType::F32, &[4], &[0.0, 0.3, 0.1, 0.5]).unwrap();
    let config = AttentionConfig {
        scale: Some(0.6),
        window_left: Some(3),
        alibi: Some(&alibi),
        ..causal()
    };
    let (q_starts, kv_starts) = (
        starts(DType::I32, &[0.0, 2.0, 5.0]),
        starts(DType::I32, &[0.0, 3.0, 7.0]),
    );
    let starts = Starts {
        q: &q_starts,
        kv: &kv_starts,
    };
    let upload = |index: usize, of: &[f64], is_batch: bool| {
        let shape = &shapes[index];
        let batch = [1, shape[0], shape[1], shape[2]];
        tensor(s, DType::F32, if is_batch { &batch } else { shape }, of).unwrap()
    };
    for is_batch in [true, false] {
        let at = |x: &[Vec<f64>; 3]| [0, 1, 2].map(|index| upload(index, &x[index], is_batch));
        let forward = |x: &[Vec<f64>; 3]| {
            let [q, k, v] = at(x);
            if is_batch {
                flash_attn(s, &q, &k, &v, &config).unwrap()
            } else {
                flash_attn_varlen(s, &q, &k, &v, starts, &config).unwrap()
            }
        };
        let [q, k, v] = at(&x);
        let (of, d_o_tensor) = (forward(&x), upload(0, &d_o, is_batch));
        let gradients = if is_batch {
            flash_attn_backward(s, &d_o_tensor, &q, &k, &v, &of, &config)
        } else {
            flash_attn_varlen_backward(s, &d_o_tensor, &q, &k, &v, &of, starts, &config)
        };
        let gradients = gradients.unwrap();
        let gradients = [gradients.dq, gradients.dk, gradients.dv];
        for (index, gradient) in gradients.iter().enumerate() {
            let loss = |moved: &[f64]| {
                let mut x = x.clone();
                x[index] = moved.to_vec();
                dot(&d_o, &values(s, &forward(&x).o).unwrap())
            };
            let want = slopes(&x[index], loss);
            let what = ["dq", "dk", "dv"][index];
            hold_slopes(what, &values(s, gradient).unwrap(), &want);
        }
    }
}

#[test]
fn heads_that_cannot_share_evenly_are_refused() {
    let s = stream();
    let (q, k) = (
        draw(1, DType::F32, &[1, 3, 4, 8]),
        draw(2, DType::F32, &[1, 3, 3, 8]),
    );
    let error = flash_attn(s, &q, &k, &k, &causal()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "flash_attn: 4 heads of queries cannot share 3 of keys and values evenly"
    );
    let error = flash_attn(s, &q, &k.narrow(3, 0, 4).unwrap(), &k, &causal()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// The results of a sequence are the same bits alone, in a batch, and packed with others, wherever it
/// begins: panels and blocks of it do not depend on its neighbours.
#[test]
fn a_sequence_has_its_bits_whatever_is_beside_it() {
    let s = stream();
    for dtype in FLOATS {
        let (q, k) = (
            draw(1, dtype, &[2, 100, 4, 24]),
            draw(2, dtype, &[2, 100, 2, 24]),
        );
        let v = draw(3, dtype, &[2, 100, 2, 24]);
        let window = AttentionConfig {
            window_left: Some(70),
            ..causal()
        };
        for config in [AttentionConfig::default(), causal(), window] {
            let both = flash_attn(s, &q, &k, &v, &config).unwrap();
            let packed = |t: &Tensor| t.reshape(&[200, t.shape()[2], 24]).unwrap();
            let ends = starts(DType::I64, &[0.0, 100.0, 200.0]);
            let ends = Starts {
                q: &ends,
                kv: &ends,
            };
            let together =
                flash_attn_varlen(s, &packed(&q), &packed(&k), &packed(&v), ends, &config).unwrap();
            assert!(bytes(&together.o) == bytes(&both.o), "{dtype} {config:?}");
            let one = |t: &Tensor| t.narrow(0, 1, 1).unwrap();
            let alone = flash_attn(s, &one(&q), &one(&k), &one(&v), &config).unwrap();
            let part = both.o.narrow(0, 1, 1).unwrap();
            assert!(bytes(&alone.o) == bytes(&part), "{dtype} {config:?}");
        }
        // The last queries alone, which see what they saw.
        let whole = flash_attn(s, &q, &k, &v, &causal()).unwrap();
        let last = flash_attn(s, &q.narrow(1, 95, 5).unwrap(), &k, &v, &causal()).unwrap();
        assert!(bytes(&last.o) == bytes(&whole.o.narrow(1, 95, 5).unwrap()));
    }
}

/// And so are its gradients, where no sequence is so alone that its keys are shared out.
#[test]
fn gradients_of_a_sequence_have_their_bits_whatever_is_beside_it() {
    let s = stream();
    for dtype in FLOATS {
        let t = |seed, heads| draw(seed, dtype, &[2, 70, heads, 10]);
        let (d_o, q, k, v) = (t(1, 32), t(2, 32), t(3, 16), t(4, 16));
        let of = flash_attn(s, &q, &k, &v, &causal()).unwrap();
        let batch = flash_attn_backward(s, &d_o, &q, &k, &v, &of, &causal()).unwrap();
        let flat = |t: &Tensor| t.reshape(&[140, t.shape()[2], 10]).unwrap();
        let ends = starts(DType::I32, &[0.0, 70.0, 140.0]);
        let ends = Starts {
            q: &ends,
            kv: &ends,
        };
        let (d_o, q, k, v) = (flat(&d_o), flat(&q), flat(&k), flat(&v));
        let of = flash_attn_varlen(s, &q, &k, &v, ends, &causal()).unwrap();
        let packed = flash_attn_varlen_backward(s, &d_o, &q, &k, &v, &of, ends, &causal()).unwrap();
        for (a, b) in [
            (&batch.dq, &packed.dq),
            (&batch.dk, &packed.dk),
            (&batch.dv, &packed.dv),
        ] {
            assert!(bytes(a) == bytes(b), "{dtype}");
        }
    }
}

#[test]
fn attention_gives_equal_bits_whatever_the_threads() {
    let s = stream();
    let t = |seed, tokens, heads| draw(seed, DType::F32, &[1, tokens, heads, 32]);
    let (q, k, v) = (t(1, 200, 4), t(2, 3000, 2), t(3, 3000, 2));
    let many = flash_attn(s, &q, &k, &v, &causal()).unwrap();
    // Few rows and many keys: parts of the keys are put together.
    let few = flash_attn(s, &q.narrow(1, 0, 2).unwrap(), &k, &v, &causal()).unwrap();
    let ends = starts(DType::I32, &[0.0, 77.0, 200.0]);
    let ends = Starts {
        q: &ends,
        kv: &ends,
    };
    let flat = |t: &Tensor| t.reshape(&[t.shape()[1], t.shape()[2], 32]).unwrap();
    let packed = flash_attn_varlen(s, &flat(&q), &flat(&k), &flat(&v), ends, &causal()).unwrap();
    // One sequence of two heads of keys: its keys are dealt to several, each with sums of its own.
    let back = flash_attn_backward(s, &q, &q, &k, &v, &many, &causal()).unwrap();
    let name = "flash_attn::attention_gives_equal_bits_whatever_the_threads";
    let mut results = vec![&many.o, &many.lse, &few.o, &few.lse, &packed.o, &packed.lse];
    results.extend([&back.dq, &back.dk, &back.dv]);
    bits_are_equal_whatever_the_threads(name, &results);
}

/// Scores of several thousand: each row is the value of its greatest score, and nothing overflows.
#[test]
fn large_scores_do_not_overflow() {
    let s = stream();
    let (q, k) = (
        draw(1, DType::F32, &[1, 60, 2, 16]),
        draw(2, DType::F32, &[1, 200, 2, 16]),
    );
    let config = AttentionConfig {
        scale: Some(100.0),
        ..AttentionConfig::default()
    };
    let attention = flash_attn(s, &q, &k, &k, &config).unwrap();
    let (qs, ks) = (values(s, &q).unwrap(), values(s, &k).unwrap());
    let (o, lse) = (
        values(s, &attention.o).unwrap(),
        values(s, &attention.lse).unwrap(),
    );
    let mut clear = 0;
    for (row, query) in qs.chunks_exact(16).enumerate() {
        let (i, h) = (row / 2, row % 2);
        let keys = ks.chunks_exact(16).skip(h).step_by(2);
        let score = |key: &[f64]| 100.0 * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
        let mut scores: Vec<_> = keys.map(|key| (score(key), key)).collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        if scores[0].0 - scores[1].0 < 20.0 {
            continue; // two keys share the row
        }
        clear += 1;
        // A score of several thousand is off by 2^-24 of it.
        assert!((lse[h * 60 + i] / scores[0].0 - 1.0).abs() < 1e-6);
        for (o, k) in o[row * 16..].iter().zip(scores[0].1) {
            assert!((o - k).abs() <= 1e-6 * (1.0 + k.abs()), "{o} {k}");
        }
    }
    assert!(clear > 60, "{clear} rows have one greatest score");
}

#[test]
fn a_nan_stays_in_its_row() {
    let s = stream();
    let (mut q, k) = (
        Numbers::new(1).host(DType::F32, &[1, 60, 2, 8]).unwrap(),
        draw(2, DType::F32, &[1, 70, 1, 8]),
    );
    let before = Tensor::from_bytes(s, DType::F32, &q.shape, &q.bytes).unwrap();
    let row = 30 * 2 + 1;
    q.bytes[row * 8 * 4..][..4].copy_from_slice(&f32::NAN.to_ne_bytes());
    let with = Tensor::from_bytes(s, DType::F32, &q.shape, &q.bytes).unwrap();
    let of = |q: &Tensor| flash_attn(s, q, &k, &k, &causal()).unwrap();
    let (before, with) = (of(&before), of(&with));
    let (before, o) = (values(s, &before.o).unwrap(), values(s, &with.o).unwrap());
    for (index, (before, after)) in before.chunks(8).zip(o.chunks(8)).enumerate() {
        if index == row {
            assert!(after.iter().all(|v| v.is_nan()));
        } else {
            assert_eq!(before, after, "row {index}");
        }
    }
    let lse = values(s, &with.lse).unwrap();
    assert!(lse[60 + 30].is_nan() && lse.iter().filter(|v| v.is_nan()).count() == 1);
}

/// Starts are numbers on the device that nobody has looked at; whatever they are, nothing outside of
/// the tensors is read or written, and nobody mistakes the result for one.
#[test]
fn wrong_starts_are_not_followed() {
    let s = stream();
    let t = draw(1, DType::F32, &[10, 2, 8]);
    let right = [0.0, 4.0, 10.0];
    let wrong: [[f64; 3]; 6] = [
        [0.0, 11.0, 11.0],
        [0.0, 4.0, 1e18],
        [-1e18, 4.0, 10.0],
        [-1.0, 4.0, 10.0],
        [0.0, 6.0, 4.0],
        [10.0, 0.0, 10.0],
    ];
    for wrong in wrong {
        for (q, kv) in [(wrong, right), (right, wrong)] {
            let (q, kv) = (starts(DType::I64, &q), starts(DType::I64, &kv));
            let starts = Starts { q: &q, kv: &kv };
            let attention = flash_attn_varlen(s, &t, &t, &t, starts, &causal()).unwrap();
            let gradients =
                flash_attn_varlen_backward(s, &t, &t, &t, &t, &attention, starts, &causal())
                    .unwrap();
            let results = [&attention.o, &attention.lse];
            let gradients = [&gradients.dq, &gradients.dk, &gradients.dv];
            for result in results.into_iter().chain(gradients) {
                let all = values(s, result).unwrap();
                assert!(all.iter().all(|v| v.is_nan()), "{wrong:?} {all:?}");
            }
        }
    }
}

#[test]
fn a_row_that_sees_no_key_is_zero() {
    let s = stream();
    // Five queries of three keys: the first two come before every key.
    let (q, k) = (
        draw(1, DType::F32, &[1, 5, 1, 4]),
        draw(2, DType::F32, &[1, 3, 1, 4]),
    );
    let attention = flash_attn(s, &q, &k, &k, &causal()).unwrap();
    let o = values(s, &attention.o).unwrap();
    let lse = values(s, &attention.lse).unwrap();
    assert_eq!(o[..8], [0.0; 8]);
    assert_eq!(lse[..2], [f64::NEG_INFINITY; 2]);
    // The third sees one key: its value is the result.
    let first = values(s, &k).unwrap();
    assert_eq!(o[8..12], first[..4]);
    assert!(lse[2..].iter().all(|v| v.is_finite()));
}

#[test]
fn heads_beyond_what_the_kernel_takes_are_left_to_the_reference() {
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    let s = stream();
    let op = op::find("flash_attn").unwrap();
    for (d, is_kernel) in [(256, true), (257, false)] {
        let t = draw(1, DType::BF16, &[1, 2, 1, d]);
        let o = Tensor::empty(s, DType::BF16, t.shape()).unwrap();
        let lse = Tensor::empty(s, DType::F32, &[1, 1, 2]).unwrap();
        let args: [&[&Tensor]; 6] = [&[&t], &[&t], &[&t], &[], &[&o], &[&lse]];
        let on = op::resolve(op, s, &args, &CAUSAL, &SCALE).unwrap();
        assert_eq!(matches!(on, RunsOn::Kernel(_)), is_kernel, "{on:?}");
    }
}
