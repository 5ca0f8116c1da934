//! What is made of ops for inference, against the same in f64, number by number.
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::{
    activation::Activation,
    flash_attn::AttentionConfig,
    inference::{KvCache, Mlp, Norm, mlp_gemm, qkv_gemm, softmax_context},
    rope::rope_tables,
};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::stream;

const EPS: f64 = 1e-5;

fn numbers(seed: u64, shape: &[i64]) -> (Tensor, Vec<f64>) {
    let tensor = Numbers::new(seed)
        .tensor(stream(), DType::F32, shape)
        .unwrap();
    let numbers = values(stream(), &tensor).unwrap();
    (tensor, numbers)
}

/// A dozen products and sums of unit scale in f32.
fn near(name: &str, got: &Tensor, want: &[f64]) {
    let got = values(stream(), got).unwrap();
    assert_eq!(got.len(), want.len(), "{name}");
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() < 2e-5 * (1.0 + want.abs()),
            "{name}[{index}] is {got}, not {want}"
        );
    }
}

/// The layer norm of rows as long as `weight`, or the RMS norm where there is no bias.
fn norm(x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let length = weight.len() as f64;
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = bias.map_or(0.0, |_| x.iter().sum::<f64>() / length);
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / length;
        let each = x.iter().zip(weight).enumerate();
        each.map(|(i, (x, w))| (x - mean) / (square + EPS).sqrt() * w + bias.map_or(0.0, |b| b[i]))
            .collect()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

/// `x w^T + bias`.
fn product(x: &[f64], w: &[f64], k: usize, bias: Option<&[f64]>) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    let row = |x: &[f64]| -> Vec<f64> {
        let each = w.chunks(k).enumerate();
        each.map(|(n, w)| dot(x, w) + bias.map_or(0.0, |bias| bias[n]))
            .collect()
    };
    x.chunks(k).flat_map(row).collect()
}

#[test]
fn a_product_with_a_norm() {
    let (x, x64) = numbers(1, &[2, 3, 8]);
    let (w, w64) = numbers(2, &[20, 8]);
    let (weight, weight64) = numbers(3, &[8]);
    let (bias, bias64) = numbers(4, &[8]);
    let (add, add64) = numbers(5, &[20]);
    for bias in [None, Some((&bias, &bias64[..]))] {
        let of = Norm {
            weight: &weight,
            bias: bias.map(|bias| bias.0),
            eps: EPS,
        };
        let (qkv, normed) = qkv_gemm(stream(), &x, of, &w, Some(&add)).unwrap();
        let want = norm(&x64, &weight64, bias.map(|bias| bias.1));
        near("the norm", &normed, &want);
        near("the product", &qkv, &product(&want, &w64, 8, Some(&add64)));
        assert_eq!(qkv.shape(), [2, 3, 20]);
    }
}

#[test]
fn a_feed_forward_network_behind_a_norm() {
    let (x, x64) = numbers(1, &[2, 3, 8]);
    let (residual, residual64) = numbers(2, &[2, 3, 8]);
    let (weight, weight64) = numbers(3, &[8]);
    let (bias, bias64) = numbers(4, &[8]);
    let (up, up64) = numbers(5, &[12, 8]);
    let (up_bias, up_bias64) = numbers(6, &[12]);
    let relu = |x: f64| x.max(0.0);
    for gated in [false, true] {
        let inner = if gated { 6 } else { 12 };
        let (down, down64) = numbers(7, &[8, inner]);
        for with_bias in [false, true] {
            let call = Mlp {
                residual: &residual,
                input_bias: Some(&bias),
                norm: Norm {
                    weight: &weight,
                    bias: with_bias.then_some(&bias),
                    eps: EPS,
                },
                up: &up,
                up_bias: Some(&up_bias),
                activation: Activation::Relu,
                gated,
                down: &down,
            };
            let (y, sum) = mlp_gemm(stream(), &x, call).unwrap();
            let each = x64.iter().zip(&residual64).zip(bias64.iter().cycle());
            let want: Vec<f64> = each.map(|((x, r), b)| x + r + b).collect();
            near("the sum", &sum, &want);
            let normed = norm(&want, &weight64, with_bias.then_some(&bias64));
            let rows = product(&normed, &up64, 8, Some(&up_bias64));
            let rows = rows.chunks(12).flat_map(|row| -> Vec<f64> {
                if gated {
                    (0..6).map(|i| row[i] * relu(row[6 + i])).collect()
                } else {
                    row.iter().copied().map(relu).collect()
                }
            });
            let rows: Vec<f64> = rows.collect();
            let inner = usize::try_from(inner).unwrap();
            near("the network", &y, &product(&rows, &down64, inner, None));
        }
    }
}

const TOKENS: usize = 9;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const D: usize = 6;

/// Head `head` of token `token` of sequence `batch`, of queries, keys and values side by side, its halves turned.
fn head_of(qkv: &[f64], batch: usize, token: usize, head: usize) -> Vec<f64> {
    let first = ((batch * TOKENS + token) * (HEADS + 2 * GROUPS) + head) * D;
    let x = &qkv[first..first + D];
    if head >= HEADS + GROUPS {
        return x.to_vec(); // a value
    }
    let turned = |i: usize| {
        let point = i % (D / 2);
        let angle = token as f64 * 10_000_f64.powf(-2.0 * point as f64 / D as f64);
        let (a, b) = (x[point], x[point + D / 2]);
        if i < D / 2 {
            a * angle.cos() - b * angle.sin()
        } else {
            b * angle.cos() + a * angle.sin()
        }
    };
    (0..D).map(turned).collect()
}

/// A prompt and then tokens one by one, with fewer keys than queries, turned by their positions.
#[test]
fn a_cache_goes_on_where_it_ended() {
    let s = stream();
    let width = i64::try_from((HEADS + 2 * GROUPS) * D).unwrap();
    let (qkv, numbers64) = numbers(8, &[2, 9, width]);
    let tables = rope_tables(s, 16, 6, 10_000.0).unwrap();
    let config = AttentionConfig {
        causal: true,
        ..AttentionConfig::default()
    };
    let mut cache = KvCache::new(s, DType::F32, [2, 10, 2, 6]).unwrap();
    for _ in 0..2 {
        let mut first = 0;
        for count in [5, 1, 2, 1] {
            let part = qkv.narrow(1, first, count).unwrap();
            let part = ds_ops::movement::contiguous(s, &part).unwrap();
            let got =
                softmax_context(s, &part, &mut cache, Some((&tables, false)), &config).unwrap();
            let mut want = Vec::new();
            for batch in 0..2 {
                for token in (first..first + count).map(|token| usize::try_from(token).unwrap()) {
                    for head in 0..HEADS {
                        want.extend(attended(&numbers64, batch, token, head));
                    }
                }
            }
            near("attention", &got, &want);
            first += count;
            assert_eq!(cache.seen(), first);
        }
        let two = qkv.narrow(1, 0, 2).unwrap();
        let two = ds_ops::movement::contiguous(s, &two).unwrap();
        let e = softmax_context(s, &two, &mut cache, None, &config).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        assert!(
            e.to_string()
                .contains("2 tokens behind 9 are more than the 10"),
            "{e}"
        );
        assert_eq!(cache.seen(), 9);
        cache.reset();
    }
    let odd = tensor(s, DType::F32, &[2, 1, 25], &[0.0; 50]).unwrap();
    let e = softmax_context(s, &odd, &mut cache, None, &config).unwrap_err();
    assert!(e.to_string().contains("25 elements are no queries"), "{e}");
}

/// Softmax of a query with the keys up to it, times their values.
fn attended(qkv: &[f64], batch: usize, token: usize, head: usize) -> Vec<f64> {
    let q = head_of(qkv, batch, token, head);
    let group = head / (HEADS / GROUPS);
    let weight = |key: usize| {
        let k = head_of(qkv, batch, key, HEADS + group);
        let score: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
        (score / (D as f64).sqrt()).exp()
    };
    let weights: Vec<f64> = (0..=token).map(weight).collect();
    let total: f64 = weights.iter().sum();
    let value = |i: usize| {
        let each = weights.iter().enumerate();
        each.map(|(key, weight)| {
            weight / total * head_of(qkv, batch, key, HEADS + GROUPS + group)[i]
        })
        .sum()
    };
    (0..D).map(value).collect()
}
