//! Block-sparse attention: views, differences, what is not seen, layouts that are wrong, and equal bits; and
//! the layouts against those of DeepSpeed's own module.

use std::ops::Range;

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::{
    flash_attn::{AttentionConfig, flash_attn},
    sparse_attn::{SparseConfig, Sparsity, SparsityConfig, sparse_attn, sparse_attn_backward},
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};
use serde::Deserialize;

use crate::{
    FLOATS,
    softmax::{bits_are_equal_whatever_the_threads, check_kernel, dot, hold_slopes, slopes},
    stream,
};

fn draw(seed: u64, dtype: DType, shape: &[i64]) -> Tensor {
    Numbers::new(seed).tensor(stream(), dtype, shape).unwrap()
}

fn config(heads: usize, block: usize, sparsity: Sparsity) -> SparsityConfig {
    SparsityConfig {
        heads,
        block,
        different_layout_per_head: false,
        sparsity,
    }
}

/// A layout of three blocks of seven tokens: some of both heads, and a row of the second that sees none.
fn three_blocks(dtype: DType) -> Tensor {
    let cells = [1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1].map(f64::from);
    tensor(stream(), dtype, &[2, 3, 3], &cells).unwrap()
}

/// Queries, keys and values of one tensor `[B, S, 3, H, D]`, and gradients into the places of
/// others, with
/// layouts of every dtype.
#[test]
fn queries_keys_and_values_may_be_views() {
    let s = stream();
    let (b, tokens, h, d) = (2, 21, 2, 20);
    let layouts = [DType::I64, DType::I32, DType::U8, DType::Bool].map(three_blocks);
    for (dtype, layout) in FLOATS.into_iter().cycle().zip(&layouts) {
        let wide = |seed| draw(seed, dtype, &[b, tokens, 3 * h, d]);
        let parts = |of: &Tensor| [0, 1, 2].map(|index| of.narrow(2, index * h, h).unwrap());
        let [q, k, v] = parts(&wide(1));
        let [o, d_o, _] = parts(&wide(2));
        let [dq, dk, dv] = [3, 8, 9].map(|seed| parts(&wide(seed))[1].clone());
        let lse = Tensor::empty(s, DType::F32, &[b, h, tokens]).unwrap();
        let (flag, scale) = ([Attr::Bool(true)], [Attr::F64(0.3)]);
        let args: [&[&Tensor]; 8] = [&[&q], &[&k], &[&v], &[layout], &[], &[], &[&o], &[&lse]];
        check_kernel("sparse_attn", &args, &flag, &scale);
        let config = SparseConfig {
            causal: true,
            scale: Some(0.3),
            ..SparseConfig::default()
        };
        let of = sparse_attn(s, &q, &k, &v, layout, &config).unwrap();
        let args: [&[&Tensor]; 12] = [
            &[&d_o],
            &[&q],
            &[&k],
            &[&v],
            &[&of.o],
            &[&of.lse],
            &[layout],
            &[],
            &[],
            &[&dq],
            &[&dk],
            &[&dv],
        ];
        check_kernel("sparse_attn_backward", &args, &flag, &scale);
    }
}

#[test]
fn gradients_are_the_slopes() {
    let s = stream();
    let shape = [1, 12, 2, 3];
    let mut numbers = Numbers::new(3);
    let mut draw = |n: i64| -> Vec<f64> { (0..n).map(|_| numbers.draw()).collect() };
    let x = [72; 3].map(&mut draw);
    let d_o = draw(72);
    let key_padding_mask = tensor(s, DType::F32, &[1, 12], &draw(12)).unwrap();
    let attn_mask = tensor(s, DType::F32, &[12, 12], &draw(144)).unwrap();
    let layout = three_blocks(DType::I64);
    let with_masks = SparseConfig {
        key_padding_mask: Some(&key_padding_mask),
        attn_mask: Some(&attn_mask),
        ..SparseConfig::default()
    };
    let causal = SparseConfig {
        causal: true,
        scale: Some(0.6),
        ..SparseConfig::default()
    };
    let upload = |of: &[f64]| tensor(s, DType::F32, &shape, of).unwrap();
    for config in [with_masks, causal] {
        let forward = |x: &[Vec<f64>; 3]| {
            let [q, k, v] = x.each_ref().map(|of| upload(of));
            sparse_attn(s, &q, &k, &v, &layout, &config).unwrap()
        };
        let ([q, k, v], of) = (x.each_ref().map(|of| upload(of)), forward(&x));
        let d = upload(&d_o);
        let to = sparse_attn_backward(s, &d, &q, &k, &v, &of, &layout, &config).unwrap();
        for (index, gradient) in [to.dq, to.dk, to.dv].iter().enumerate() {
            let loss = |moved: &[f64]| {
                let mut x = x.clone();
                x[index] = moved.to_vec();
                dot(&d_o, &values(s, &forward(&x).o).unwrap())
            };
            let what = ["dq", "dk", "dv"][index];
            hold_slopes(
                what,
                &values(s, gradient).unwrap(),
                &slopes(&x[index], loss),
            );
        }
    }
}

/// NaN in a block of keys that nobody sees changes no bit; and a row that sees no block is zero.
#[test]
fn what_is_not_seen_is_not_read() {
    let s = stream();
    let shape = [1, 48, 1, 8];
    let layout = tensor(
        s,
        DType::U8,
        &[1, 3, 3],
        &[1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0],
    );
    let layout = layout.unwrap();
    let mut k = Numbers::new(2).host(DType::F32, &shape).unwrap();
    let (q, d_o) = (draw(1, DType::F32, &shape), draw(3, DType::F32, &shape));
    let clean = Tensor::from_bytes(s, DType::F32, &shape, &k.bytes).unwrap();
    for value in k.bytes[16 * 8 * 4..32 * 8 * 4].chunks_exact_mut(4) {
        value.copy_from_slice(&f32::NAN.to_ne_bytes());
    }
    let spoilt = Tensor::from_bytes(s, DType::F32, &shape, &k.bytes).unwrap();
    let config = SparseConfig::default();
    let [clean, spoilt] = [clean, spoilt].map(|k| {
        let of = sparse_attn(s, &q, &k, &k, &layout, &config).unwrap();
        let to = sparse_attn_backward(s, &d_o, &q, &k, &k, &of, &layout, &config).unwrap();
        [of.o, of.lse, to.dq, to.dk, to.dv].map(|t| values(s, &t).unwrap())
    });
    assert_eq!(clean, spoilt);
    let [o, lse, dq, dk, dv] = clean;
    for of in [o, dq, dk, dv] {
        assert_eq!(of[16 * 8..32 * 8], [0.0; 128]);
    }
    assert_eq!(lse[16..32], [f64::NEG_INFINITY; 16]);
}

#[test]
fn a_dense_layout_is_attention() {
    let s = stream();
    let t = |seed| draw(seed, DType::F32, &[2, 96, 2, 16]);
    let (q, k, v) = (t(1), t(2), t(3));
    let layout = config(2, 16, Sparsity::Dense).layout(96).unwrap();
    let causal = SparseConfig {
        causal: true,
        ..SparseConfig::default()
    };
    let sparse = sparse_attn(s, &q, &k, &v, &layout.tensor(s).unwrap(), &causal).unwrap();
    let causal = AttentionConfig {
        causal: true,
        ..AttentionConfig::default()
    };
    let dense = flash_attn(s, &q, &k, &v, &causal).unwrap();
    let (sparse, dense) = (values(s, &sparse.o).unwrap(), values(s, &dense.o).unwrap());
    for (a, b) in sparse.iter().zip(&dense) {
        assert!((a - b).abs() < 2e-5, "{a} {b}");
    }
}

#[test]
fn layouts_that_do_not_fit_are_refused() {
    let s = stream();
    let t = draw(1, DType::F32, &[1, 20, 2, 4]);
    let config = SparseConfig::default();
    let error = sparse_attn(s, &t, &t, &t, &three_blocks(DType::I64), &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "sparse_attn: a layout of 3 blocks does not tile 20 tokens: \
         the blocks have to be of equal length"
    );
    // Heads that differ, a layout that is not square, and one of floats.
    let t = draw(1, DType::F32, &[1, 21, 3, 4]);
    let error = sparse_attn(s, &t, &t, &t, &three_blocks(DType::I64), &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let t = t.narrow(2, 0, 2).unwrap();
    let oblong = three_blocks(DType::I64).narrow(2, 0, 2).unwrap();
    assert!(sparse_attn(s, &t, &t, &t, &oblong, &config).is_err());
    assert!(sparse_attn(s, &t, &t, &t, &three_blocks(DType::F32), &config).is_err());
}

#[test]
fn sparse_attention_gives_equal_bits_whatever_the_threads() {
    let s = stream();
    let t = |seed| draw(seed, DType::F32, &[1, 224, 2, 16]);
    let (q, k, v, d_o) = (t(1), t(2), t(3), t(4));
    let layout = config(2, 32, windows(3, false)).layout(224).unwrap();
    let (layout, config) = (layout.tensor(s).unwrap(), SparseConfig::default());
    let of = sparse_attn(s, &q, &k, &v, &layout, &config).unwrap();
    let to = sparse_attn_backward(s, &d_o, &q, &k, &v, &of, &layout, &config).unwrap();
    let name = "sparse_attn::sparse_attention_gives_equal_bits_whatever_the_threads";
    let results = [&of.o, &of.lse, &to.dq, &to.dk, &to.dv];
    bits_are_equal_whatever_the_threads(name, &results);
}

fn windows(window_blocks: usize, unidirectional: bool) -> Sparsity {
    Sparsity::LocalSlidingWindow {
        window_blocks,
        unidirectional,
    }
}

/// A layout of DeepSpeed's, and how it was asked for.
#[derive(Deserialize)]
struct Upstream {
    kind: String,
    tokens: usize,
    heads: usize,
    block: usize,
    different: bool,
    given: Given,
    /// Of all heads, a digit for each block.
    rows: Vec<String>,
}

/// What was not left to its default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    attention: Option<String>,
    num_local_blocks: Option<usize>,
    num_global_blocks: Option<usize>,
    num_different_global_patterns: Option<usize>,
    horizontal_global_attention: Option<bool>,
    num_random_blocks: Option<usize>,
    local_window_blocks: Option<Vec<usize>>,
    global_block_indices: Option<Vec<usize>>,
    global_block_end_indices: Option<Vec<usize>>,
    num_sliding_window_blocks: Option<usize>,
}

impl Upstream {
    fn sparsity(&self) -> Sparsity {
        let of = &self.given;
        let unidirectional = match of.attention.as_deref() {
            Some(attention) => attention == "unidirectional",
            None => self.kind == "LocalSlidingWindow",
        };
        let starts = of.global_block_indices.clone().unwrap_or(vec![0]);
        let ends = of.global_block_end_indices.clone();
        let ends = ends.unwrap_or(starts.iter().map(|start| start + 1).collect());
        let global: Vec<Range<usize>> = starts.into_iter().zip(ends).map(|(a, b)| a..b).collect();
        let horizontal_global = of.horizontal_global_attention.unwrap_or(false);
        let window_blocks = of.num_sliding_window_blocks.unwrap_or(3);
        match self.kind.as_str() {
            "Dense" => Sparsity::Dense,
            "Fixed" => Sparsity::Fixed {
                local_blocks: of.num_local_blocks.unwrap_or(4),
                global_blocks: of.num_global_blocks.unwrap_or(1),
                unidirectional,
                horizontal_global,
                global_patterns: of.num_different_global_patterns.unwrap_or(1),
            },
            "Variable" => Sparsity::Variable {
                random_blocks: 0,
                windows: of.local_window_blocks.clone().unwrap_or(vec![4]),
                global,
                unidirectional,
                horizontal_global,
                seed: 0,
            },
            "BigBird" => Sparsity::BigBird {
                random_blocks: of.num_random_blocks.unwrap_or(1),
                window_blocks,
                global_blocks: of.num_global_blocks.unwrap_or(1),
                unidirectional,
                seed: 0,
            },
            "BSLongformer" => Sparsity::BsLongformer {
                window_blocks,
                global,
                unidirectional,
            },
            "LocalSlidingWindow" => windows(window_blocks, unidirectional),
            other => panic!("no kind of layout is called {other}"),
        }
    }
}

#[test]
fn layouts_are_those_of_deepspeed() {
    let all: Vec<Upstream> =
        serde_json::from_str(include_str!("../../golden/models/sparse_layouts.json")).unwrap();
    assert!(all.len() > 100);
    for upstream in all {
        let config = SparsityConfig {
            heads: upstream.heads,
            block: upstream.block,
            different_layout_per_head: upstream.different,
            sparsity: upstream.sparsity(),
        };
        let layout = config.layout(upstream.tokens).unwrap();
        let digits = |row: &[u8]| row.iter().map(|cell| char::from(b'0' + cell)).collect();
        let rows = layout.cells().chunks(layout.blocks());
        let rows: Vec<String> = rows.map(digits).collect();
        assert_eq!(rows, upstream.rows, "{config:?} of {}", upstream.tokens);
    }
}

/// So many in a row, all different, in range, the same for a seed, and others for another.
#[test]
fn random_blocks_are_drawn_from_the_row() {
    let big_bird = |unidirectional, seed, different| SparsityConfig {
        different_layout_per_head: different,
        ..config(
            3,
            16,
            Sparsity::BigBird {
                random_blocks: 4,
                window_blocks: 1,
                global_blocks: 0,
                unidirectional,
                seed,
            },
        )
    };
    let variable = |seed| {
        let sparsity = Sparsity::Variable {
            random_blocks: 4,
            windows: vec![1],
            global: vec![],
            unidirectional: true,
            horizontal_global: false,
            seed,
        };
        config(3, 16, sparsity)
    };
    for (config, only_behind) in [
        (big_bird(false, 1, false), false),
        (big_bird(true, 1, true), true),
        (variable(1), false),
    ] {
        let layout = config.layout(320).unwrap();
        assert_eq!(layout, config.layout(320).unwrap());
        let mut of_column = [0; 20];
        for (row, cells) in layout.cells().chunks(20).enumerate() {
            let (row, seen) = (row % 20, cells.iter().filter(|cell| **cell != 0).count());
            // The block itself is in its window, and may have been drawn, too.
            let drawn = if only_behind { 4.min(row + 1) } else { 4 };
            assert!(
                seen == drawn || seen == drawn + 1,
                "{config:?} {row}: {seen}"
            );
            assert!(!only_behind || cells[row + 1..].iter().all(|cell| *cell == 0));
            cells
                .iter()
                .zip(&mut of_column)
                .for_each(|(cell, n)| *n += u32::from(*cell));
        }
        let (first, rest) = layout.cells().split_at(400);
        let same = rest.chunks(400).all(|head| head == first);
        assert_eq!(same, !config.different_layout_per_head, "{config:?}");
        assert!(of_column.iter().all(|n| *n > 0), "{of_column:?}");
    }
    assert_ne!(
        variable(1).layout(320).unwrap(),
        variable(2).layout(320).unwrap()
    );
}

#[test]
fn impossible_layouts_are_refused() {
    let fixed =
        |local_blocks, global_blocks, unidirectional, horizontal_global, global_patterns| {
            Sparsity::Fixed {
                local_blocks,
                global_blocks,
                unidirectional,
                horizontal_global,
                global_patterns,
            }
        };
    let variable = |random_blocks, windows: &[usize], global: Range<usize>| Sparsity::Variable {
        random_blocks,
        windows: windows.to_vec(),
        global: vec![global],
        unidirectional: false,
        horizontal_global: false,
        seed: 0,
    };
    let refused = [
        (
            fixed(4, 3, false, false, 1),
            "3 global blocks do not divide a window of 4",
        ),
        (
            fixed(0, 0, false, false, 1),
            "0 global blocks do not divide a window of 0",
        ),
        (
            fixed(4, 1, true, true, 1),
            "horizontal global blocks would see what is behind them",
        ),
        (
            fixed(4, 1, false, false, 2),
            "set different_layout_per_head",
        ),
        (
            fixed(4, 2, false, false, 3),
            "3 global patterns; a window of 4 has from 1 to 2",
        ),
        (
            variable(9, &[4], 0..1),
            "9 random blocks of a sequence that has 8",
        ),
        (
            variable(0, &[], 0..1),
            "the last window, which repeats, has no blocks",
        ),
        (
            variable(0, &[2, 0], 0..1),
            "the last window, which repeats, has no blocks",
        ),
        (variable(0, &[4], 3..3), "global blocks 3..3 are none"),
        (
            windows(9, false),
            "9 window blocks of a sequence that has 8",
        ),
    ];
    for (sparsity, why) in refused {
        let error = config(2, 16, sparsity).layout(128).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(why), "{error}");
    }
    let error = config(2, 16, Sparsity::Dense).layout(100).unwrap_err();
    let why = "100 tokens are no whole number of blocks of 16";
    assert!(error.to_string().contains(why), "{error}");
    assert!(config(2, 0, Sparsity::Dense).layout(100).is_err());
}
