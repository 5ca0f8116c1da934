//! Ragged batches: a cache that is appended to and attended over is attention over whole sequences; what
//! lies on the device and is wrong is never followed; views are taken as they are.

use ds_core::{DType, Tensor};
use ds_ops::{
    flash_attn::{AttentionConfig, flash_attn},
    ragged::{Sequences, kv_append, logits_gather, paged_attention, ragged_embed},
    ragged_batch::RaggedBatch,
    rope::{RopeConfig, rope, rope_tables},
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{
    FLOATS,
    softmax::{bits_are_equal_whatever_the_threads, check_kernel},
    stream,
};

const HEADS: i64 = 4;
const GROUPS: i64 = 2;
const D: i64 = 24;
const EACH: i64 = 4;

fn draw(seed: u64, dtype: DType, shape: &[i64]) -> Tensor {
    Numbers::new(seed).tensor(stream(), dtype, shape).unwrap()
}

fn integers(shape: &[i64], of: &[i32]) -> Tensor {
    Tensor::from_slice(stream(), shape, of).unwrap()
}

fn config() -> AttentionConfig<'static> {
    AttentionConfig {
        causal: true,
        ..AttentionConfig::default()
    }
}

/// Two sequences whose tokens come in three batches, a prompt and then more: each batch's results are
/// those of attention over the whole sequence with the keys turned at once.
#[test]
fn batch_after_batch_is_attention_over_whole_sequences() {
    let s = stream();
    let heads = HEADS + 2 * GROUPS;
    let whole = [
        draw(1, DType::F32, &[11, heads, D]),
        draw(2, DType::F32, &[9, heads, D]),
    ];
    let blocks: [&[i32]; 2] = [&[5, 0, 3], &[4, 1, 2]];
    let tables = rope_tables(s, 12, D, 10_000.0).unwrap();
    let cache = draw(3, DType::F32, &[6, EACH, 2, GROUPS, D]);
    let want: Vec<Vec<f64>> = whole.iter().map(|qkv| dense(qkv, &tables)).collect();
    let row = usize::try_from(HEADS * D).unwrap();
    for parts in [[(0, 7), (0, 1)], [(7, 10), (1, 2)], [(10, 11), (2, 9)]] {
        let mut batch = RaggedBatch::new(64, 2);
        let mut bytes = Vec::new();
        for ((qkv, (from, end)), blocks) in whole.iter().zip(parts).zip(blocks) {
            let tokens = usize::try_from(end - from).unwrap();
            let seen = usize::try_from(from).unwrap();
            batch.insert(&vec![0; tokens], seen, blocks).unwrap();
            let part = qkv.narrow(0, from, end - from).unwrap();
            bytes.extend(part.to_bytes(s).unwrap());
        }
        let tokens: i64 = parts.iter().map(|(from, end)| end - from).sum();
        let qkv = Tensor::from_bytes(s, DType::F32, &[tokens, heads, D], &bytes).unwrap();
        let told = batch.to_device(s, false).unwrap();
        let sequences = Sequences {
            starts: &told.starts,
            seen: &told.seen,
            blocks: &told.blocks,
        };
        let q = kv_append(s, &qkv, &cache, sequences, Some(&tables), false).unwrap();
        let o = paged_attention(s, &q, &cache, sequences, &config()).unwrap();
        let got = values(s, &o).unwrap();
        let want = want.iter().zip(parts).flat_map(|(want, (from, end))| {
            let at = |token: i64| usize::try_from(token).unwrap() * row;
            want[at(from)..at(end)].to_vec()
        });
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() < 2e-5, "{parts:?} {index}: {got} {want}");
        }
    }
}

/// Rotary embedding and causal attention of one sequence `[S, H + 2 G, D]`, by the dense ops.
fn dense(qkv: &Tensor, tables: &ds_ops::rope::RopeTables) -> Vec<f64> {
    let s = stream();
    let tokens = qkv.shape()[0];
    let part = |first, count| {
        let part = qkv.narrow(1, first, count).unwrap();
        let bytes = part.to_bytes(s).unwrap();
        Tensor::from_bytes(s, DType::F32, &[1, tokens, count, D], &bytes).unwrap()
    };
    let turn = |x: &Tensor| rope(s, x, tables, RopeConfig::default()).unwrap();
    let (q, k) = (turn(&part(0, HEADS)), turn(&part(HEADS, GROUPS)));
    let v = part(HEADS + GROUPS, GROUPS);
    values(s, &flash_attn(s, &q, &k, &v, &config()).unwrap().o).unwrap()
}

/// Queries, keys and values of one tensor, and a cache that is the half of another.
#[test]
fn queries_and_the_cache_may_be_views() {
    let s = stream();
    for dtype in FLOATS {
        let own = draw(1, dtype, &[9, HEADS + 2 * GROUPS + 3, D]);
        let own = own.narrow(1, 2, HEADS + 2 * GROUPS).unwrap();
        let q = own.narrow(1, 0, HEADS).unwrap();
        let cache = draw(2, dtype, &[5, EACH, 2, 2 * GROUPS, D]);
        let cache = cache.narrow(3, GROUPS, GROUPS).unwrap();
        let starts = integers(&[3], &[0, 6, 9]);
        let (seen, blocks) = (integers(&[2], &[1, 5]), integers(&[2, 2], &[3, 0, 4, 1]));
        let tables = rope_tables(s, 9, 16, 100.0).unwrap();
        for interleaved in [false, true] {
            let args: [&[&Tensor]; 7] = [
                &[&own],
                &[&cache],
                &[&starts],
                &[&seen],
                &[&blocks],
                &[&tables.cos],
                &[&tables.sin],
            ];
            check_kernel("kv_append", &args, &[Attr::Bool(interleaved)], &[]);
        }
        let o = draw(3, dtype, &[9, 2 * HEADS, D]);
        let o = o.narrow(1, HEADS, HEADS).unwrap();
        let args: [&[&Tensor]; 7] = [
            &[&q],
            &[&cache],
            &[&starts],
            &[&seen],
            &[&blocks],
            &[],
            &[&o],
        ];
        let causal = [Attr::Bool(true), Attr::I64(-1), Attr::I64(-1)];
        check_kernel("paged_attention", &args, &causal, &[Attr::F64(0.2)]);
    }
}

/// One sequence of six tokens, whose second block is none: those of the first are right, the others NaN,
/// and a window that does not reach it does not either.
#[test]
fn a_block_that_is_none_is_nan_for_whoever_sees_it() {
    let s = stream();
    let (q, cache) = (
        draw(1, DType::F32, &[10, HEADS, D]),
        draw(2, DType::F32, &[3, EACH, 2, GROUPS, D]),
    );
    let (starts, seen) = (integers(&[2], &[0, 10]), integers(&[1], &[0]));
    let row = usize::try_from(HEADS * D).unwrap();
    let near = AttentionConfig {
        window_left: Some(1),
        ..config()
    };
    for none in [-1, 3, i32::MAX, i32::MIN] {
        let blocks = integers(&[1, 3], &[2, none, 0]);
        let sequences = Sequences {
            starts: &starts,
            seen: &seen,
            blocks: &blocks,
        };
        for (config, spoilt) in [(config(), 4..10), (near, 4..9)] {
            let o = paged_attention(s, &q, &cache, sequences, &config).unwrap();
            for (token, o) in values(s, &o).unwrap().chunks(row).enumerate() {
                let nan = o.iter().filter(|v| v.is_nan()).count();
                let want = if spoilt.contains(&token) { row } else { 0 };
                assert_eq!(nan, want, "token {token} of {spoilt:?}, block {none}");
            }
        }
        let before = values(s, &cache).unwrap();
        let qkv = draw(3, DType::F32, &[10, HEADS + 2 * GROUPS, D]);
        let q = kv_append(s, &qkv, &cache, sequences, None, false).unwrap();
        for (token, q) in values(s, &q).unwrap().chunks(row).enumerate() {
            assert_eq!(q[0].is_nan(), (4..8).contains(&token), "token {token}");
        }
        let block = before.len() / 3;
        let after = values(s, &cache).unwrap();
        assert_eq!(before[block..2 * block], after[block..2 * block]);
    }
}

#[test]
fn a_row_has_its_bits_whatever_the_threads() {
    let s = stream();
    let cache = draw(1, DType::BF16, &[40, 16, 2, GROUPS, 64]);
    let blocks: Vec<i32> = (0..40).rev().collect();
    let blocks = integers(&[1, 40], &blocks);
    let results = [1, 100].map(|tokens| {
        let q = draw(2, DType::BF16, &[i64::from(tokens), HEADS, 64]);
        let (starts, seen) = (
            integers(&[2], &[0, tokens]),
            integers(&[1], &[640 - tokens]),
        );
        let sequences = Sequences {
            starts: &starts,
            seen: &seen,
            blocks: &blocks,
        };
        paged_attention(s, &q, &cache, sequences, &config()).unwrap()
    });
    bits_are_equal_whatever_the_threads(
        "ragged::a_row_has_its_bits_whatever_the_threads",
        &[&results[0], &results[1]],
    );
}

#[test]
fn rows_are_embedded_at_their_positions_and_the_last_ones_taken() {
    let s = stream();
    let weight = tensor(s, DType::F32, &[3, 1], &[10.0, 20.0, 30.0]).unwrap();
    let positions = tensor(s, DType::F32, &[5, 1], &[0.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
    let ids = integers(&[6], &[0, 2, 1, 7, 1, -1]);
    let (starts, seen) = (integers(&[4], &[0, 2, 2, 5]), integers(&[3], &[0, 9, 1]));
    let blocks = integers(&[3, 0], &[]);
    let sequences = Sequences {
        starts: &starts,
        seen: &seen,
        blocks: &blocks,
    };
    let y = ragged_embed(s, &weight, &ids, sequences, Some((&positions, 2))).unwrap();
    let got = values(s, &y).unwrap();
    let nan = f64::NAN;
    // The second sequence has no token; an id and a position are none; the last token is padding.
    let want = [12.0, 33.0, 23.0, nan, nan, 0.0];
    let same = |(got, want): (&f64, &f64)| got == want || got.is_nan() && want.is_nan();
    assert!(got.iter().zip(&want).all(same), "{got:?}");
    let plain = ragged_embed(s, &weight, &ids, sequences, None).unwrap();
    assert_eq!(values(s, &plain).unwrap()[..3], [10.0, 30.0, 20.0]);
    let last = values(s, &logits_gather(s, &y, &starts).unwrap()).unwrap();
    assert_eq!(last[0], 33.0);
    assert!(last[1].is_nan() && last[2].is_nan(), "{last:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let s = stream();
    let (q, cache) = (
        draw(1, DType::F32, &[4, 5, 8]),
        draw(2, DType::F32, &[2, 4, 2, 2, 8]),
    );
    let (starts, seen) = (integers(&[2], &[0, 4]), integers(&[1], &[0]));
    let blocks = integers(&[1, 1], &[0]);
    let few = Sequences {
        starts: &seen,
        seen: &seen,
        blocks: &blocks,
    };
    let sequences = Sequences {
        starts: &starts,
        ..few
    };
    let told = [
        paged_attention(s, &q, &cache, sequences, &config()).unwrap_err(),
        kv_append(s, &q, &cache, few, None, false).unwrap_err(),
        kv_append(
            s,
            &q.narrow(1, 0, 3).unwrap(),
            &cache,
            sequences,
            None,
            false,
        )
        .unwrap_err(),
        logits_gather(s, &q, &starts).unwrap_err(),
    ]
    .map(|error| error.to_string());
    assert_eq!(
        told,
        [
            "paged_attention: 5 heads of queries cannot share 2 of keys and values evenly",
            "kv_append: 1 sequences have 1 starts, and need 2: one each, and the end",
            "kv_append: qkv has 3 heads, and 2 each of keys and of values",
            "logits_gather: x [4, 5, 8] and starts [2] are not [S, D] and [N + 1]",
        ]
    );
}
