//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

use super::reference::Mask;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Additions and multiplications of a score, beside those of its products: its exponential, the
/// greatest and the sum.
const OF_A_SCORE: f64 = 12.0;

/// Queries of more bytes than these are not worth a reference's time only to have a gradient.
const LARGE_BYTES: usize = 1 << 20;

/// What a call has beside its tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) h: i64,
    pub(crate) g: i64,
    pub(crate) d: i64,
    pub(crate) mask: Mask,
    pub(crate) alibi: bool,
}

/// The tokens of a batch.
#[derive(Clone, Copy, Debug)]
struct Batch {
    b: i64,
    s: i64,
    l: i64,
}

/// Packed sequences.
#[derive(Clone, Copy, Debug)]
struct Packed {
    s: i64,
    l: i64,
    q: &'static [i64],
    kv: &'static [i64],
    starts: DType,
}

const ALL: Mask = mask(false, -1, -1);
pub(crate) const CAUSAL: Mask = mask(true, -1, -1);

pub(crate) const fn mask(causal: bool, left: i64, right: i64) -> Mask {
    Mask {
        causal,
        left,
        right,
    }
}

pub(crate) const fn heads(h: i64, g: i64, d: i64, mask: Mask) -> Heads {
    let alibi = false;
    Heads {
        h,
        g,
        d,
        mask,
        alibi,
    }
}

const fn batch(b: i64, s: i64, l: i64) -> Batch {
    Batch { b, s, l }
}

/// Every mask; as many queries as keys, fewer and more; heads that share keys in every way, unevenly
/// too; heads around vectors of every width; blocks and rests; nothing.
fn small() -> Vec<(Batch, Heads)> {
    let mut calls = vec![
        (batch(2, 5, 7), heads(2, 2, 1, ALL)),
        (batch(1, 70, 70), heads(4, 4, 7, CAUSAL)),
        (batch(1, 131, 131), heads(2, 1, 64, CAUSAL)),
        (batch(2, 50, 33), heads(4, 2, 40, CAUSAL)),
        (batch(1, 3, 300), heads(8, 2, 64, CAUSAL)),
        (batch(1, 1, 700), heads(4, 4, 16, CAUSAL)),
        (batch(1, 1, 2100), heads(2, 1, 8, mask(true, 1900, -1))),
        (batch(1, 8, 1029), heads(1, 1, 80, ALL)),
        (batch(3, 1, 130), heads(2, 2, 100, CAUSAL)),
        (batch(1, 4, 2), heads(1, 1, 33, CAUSAL)),
        (batch(1, 1, 9), heads(1, 1, 0, ALL)),
        (batch(1, 17, 40), heads(5, 2, 96, ALL)),
        (batch(1, 9, 50), heads(1, 1, 128, CAUSAL)),
        (batch(1, 7, 66), heads(2, 1, 256, CAUSAL)),
        (batch(1, 0, 5), heads(2, 1, 8, ALL)),
        (batch(2, 5, 0), heads(2, 1, 8, CAUSAL)),
        (batch(0, 5, 5), heads(2, 1, 8, CAUSAL)),
        (batch(1, 5, 5), heads(2, 1, 0, ALL)),
        (batch(1, 2, 3), heads(2, 0, 4, ALL)),
        (batch(1, 2, 3), heads(0, 0, 4, ALL)),
    ];
    for mask in [
        mask(false, 0, 0),
        mask(false, 5, -1),
        mask(false, -1, 3),
        mask(false, 20, 9),
        mask(true, 70, 5),
    ] {
        for tokens in [batch(1, 90, 90), batch(1, 20, 110), batch(1, 75, 30)] {
            calls.push((tokens, heads(2, 1, 8, mask)));
        }
    }
    for mask in [ALL, mask(true, 30, -1)] {
        let alibi = true;
        let of = |h, g| Heads {
            alibi,
            ..heads(h, g, 24, mask)
        };
        calls.push((batch(2, 60, 75), of(3, 3)));
        calls.push((batch(1, 33, 20), of(4, 2)));
        calls.push((batch(1, 2, 90), of(2, 1)));
    }
    calls
}

/// A step of generation and a prompt, 256 KiB of keys of f32.
const CACHED: [(Batch, Heads); 2] = [
    (batch(1, 1, 128), heads(8, 8, 64, CAUSAL)),
    (batch(1, 128, 128), heads(8, 8, 64, CAUSAL)),
];
/// Training, and a step of generation with a long past.
const LARGE: [(Batch, Heads); 2] = [
    (batch(1, 2048, 2048), heads(16, 16, 64, CAUSAL)),
    (batch(4, 1, 4096), heads(16, 16, 64, CAUSAL)),
];

/// One sequence and several, of every length around blocks and of none, tokens outside of them, and
/// starts that are wrong.
const PACKED: [(&[i64], &[i64]); 9] = [
    (&[0, 90], &[0, 90]),
    (&[0, 3, 50, 90], &[0, 3, 50, 90]),
    (&[0, 20, 20, 70, 70], &[0, 0, 30, 90, 90]),
    (&[10, 12, 60], &[5, 80, 85]),
    (&[7], &[9]),
    (&[], &[]),
    (&[0, 50, 40, 90], &[0, 10, 20, 30]),
    (&[0, 90], &[0, 91]),
    (&[-1, 90], &[0, 90]),
];

fn packed(size: Size) -> Vec<(Packed, Heads)> {
    let of = |tokens: i64, q, kv, starts| Packed {
        s: tokens,
        l: tokens,
        q,
        kv,
        starts,
    };
    match size {
        Size::Small => {
            let masks = [ALL, CAUSAL, mask(false, 10, 4)];
            let each = PACKED.iter().flat_map(|p| masks.map(|mask| (p, mask)));
            each.enumerate()
                .map(|(index, ((q, kv), mask))| {
                    let starts = [DType::I32, DType::I64][index % 2];
                    let alibi = index % 3 == 1;
                    let heads = Heads {
                        alibi,
                        ..heads(4, 2, 8, mask)
                    };
                    (of(90, q, kv, starts), heads)
                })
                .collect()
        }
        Size::Cached => [DType::I32, DType::I64]
            .map(|starts| {
                let ends = &[0, 40, 128];
                (of(128, ends, ends, starts), heads(8, 8, 64, CAUSAL))
            })
            .to_vec(),
        Size::Large => {
            let ends = &[0, 512, 612, 2048, 2060, 4096];
            vec![(of(4096, ends, ends, DType::I32), heads(16, 16, 64, CAUSAL))]
        }
    }
}

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let batches = match size {
        Size::Small => small(),
        Size::Cached => CACHED.to_vec(),
        Size::Large => LARGE.to_vec(),
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for (tokens, heads) in &batches {
            let (tokens, heads) = (*tokens, *heads);
            let Batch { b, s, l } = tokens;
            let case = Case::new(
                "flash_attn",
                format!("{dtype} {b} x {s} of {l}, {}", told(heads)),
                move |n| forward(n, dtype, tokens, heads),
            );
            let scores = b * heads.h * seen(heads.mask, s, l);
            cases.push(case.operations(of_each(heads, 2.0), &[scores]));
            if size == Size::Small || s > 1 {
                let case = Case::new(
                    "flash_attn_backward",
                    format!("{dtype} {b} x {s} of {l}, {}", told(heads)),
                    move |n| backward(forward(n, dtype, tokens, heads)?, n),
                );
                cases.push(case.operations(of_each(heads, 5.0), &[scores]));
            }
        }
        for (tokens, heads) in packed(size) {
            let Packed { q, kv, .. } = tokens;
            let case = Case::new(
                "flash_attn_varlen",
                format!("{dtype} {q:?} of {kv:?} {}, {}", tokens.starts, told(heads)),
                move |n| forward_packed(n, dtype, tokens, heads),
            );
            let pairs = q.windows(2).zip(kv.windows(2));
            let scores: i64 = pairs
                .map(|(q, kv)| seen(heads.mask, q[1] - q[0], kv[1] - kv[0]))
                .sum();
            cases.push(case.operations(of_each(heads, 2.0), &[heads.h * scores]));
            let case = Case::new(
                "flash_attn_varlen_backward",
                format!("{dtype} {q:?} of {kv:?} {}, {}", tokens.starts, told(heads)),
                move |n| backward(forward_packed(n, dtype, tokens, heads)?, n),
            );
            cases.push(case.operations(of_each(heads, 5.0), &[heads.h * scores]));
        }
    }
    cases
}

fn told(heads: Heads) -> String {
    let Heads { h, g, d, .. } = heads;
    let Mask {
        causal,
        left,
        right,
    } = heads.mask;
    let alibi = if heads.alibi { ", alibi" } else { "" };
    let causal = if causal { ", causal" } else { "" };
    format!("heads {h} of {g} x {d}{causal}, window {left} {right}{alibi}")
}

/// Keys that queries see, all together.
fn seen(mask: Mask, queries: i64, keys: i64) -> i64 {
    let of = |i| mask.keys_of(i, queries, keys);
    (0..queries).map(|i| of(i).end - of(i).start).sum()
}

/// So many products of `d` for a score, and what it becomes.
#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn of_each(heads: Heads, products: f64) -> f64 {
    2.0 * products * heads.d as f64 + OF_A_SCORE
}

fn slopes(numbers: &mut Numbers, heads: Heads) -> Result<Vec<HostTensor>> {
    let slopes = |numbers: &mut Numbers| numbers.host_of(DType::F32, &[heads.h], |v| 0.1 * v.abs());
    heads.alibi.then(|| slopes(numbers)).into_iter().collect()
}

#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn scale(heads: Heads) -> Attr {
    Attr::F64(1.0 / (heads.d.max(1) as f64).sqrt())
}

fn attributes(heads: Heads) -> Vec<Attr> {
    let Mask {
        causal,
        left,
        right,
    } = heads.mask;
    vec![Attr::Bool(causal), Attr::I64(left), Attr::I64(right)]
}

fn forward(numbers: &mut Numbers, dtype: DType, tokens: Batch, heads: Heads) -> Result<HostCall> {
    let (Batch { b, s, l }, Heads { h, g, d, .. }) = (tokens, heads);
    Ok(HostCall {
        args: vec![
            vec![numbers.host(dtype, &[b, s, h, d])?],
            vec![numbers.host(dtype, &[b, l, g, d])?],
            vec![numbers.host(dtype, &[b, l, g, d])?],
            slopes(numbers, heads)?,
            vec![HostTensor::unwritten(dtype, &[b, s, h, d])],
            vec![HostTensor::unwritten(DType::F32, &[b, h, s])],
        ],
        attributes: attributes(heads),
        scalars: vec![scale(heads)],
    })
}

/// Starts as a tensor.
#[allow(clippy::cast_precision_loss, reason = "starts are small")]
fn starts(tokens: Packed, starts: &[i64]) -> Result<HostTensor> {
    let values: Vec<f64> = starts.iter().map(|&start| start as f64).collect();
    let n = i64::try_from(starts.len()).unwrap_or(0);
    HostTensor::from_f64(tokens.starts, &[n], &values)
}

fn forward_packed(
    numbers: &mut Numbers,
    dtype: DType,
    tokens: Packed,
    heads: Heads,
) -> Result<HostCall> {
    let (Packed { s, l, .. }, Heads { h, g, d, .. }) = (tokens, heads);
    Ok(HostCall {
        args: vec![
            vec![numbers.host(dtype, &[s, h, d])?],
            vec![numbers.host(dtype, &[l, g, d])?],
            vec![numbers.host(dtype, &[l, g, d])?],
            vec![starts(tokens, tokens.q)?],
            vec![starts(tokens, tokens.kv)?],
            slopes(numbers, heads)?,
            vec![HostTensor::unwritten(dtype, &[s, h, d])],
            vec![HostTensor::unwritten(DType::F32, &[h, s])],
        ],
        attributes: attributes(heads),
        scalars: vec![scale(heads)],
    })
}

/// The gradient of a call, with the results that it has. A large call has none computed in f64: its
/// logarithms are those of scores of zero, so that weights are of the right size.
fn backward(mut forward: HostCall, numbers: &mut Numbers) -> Result<HostCall> {
    let results = forward.args.len() - 2;
    let q = forward.one(0)?.clone();
    let keys = forward.one(1)?.shape.iter().rev().nth(2).copied();
    if q.bytes.len() < LARGE_BYTES {
        match results {
            4 => super::reference::flash_attn(&mut forward)?,
            _ => super::reference::flash_attn_varlen(&mut forward)?,
        }
    } else {
        let (mut o, mut lse) = (
            forward.one(results)?.zeros(),
            forward.one(results + 1)?.zeros(),
        );
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        lse.fill((keys.unwrap_or(1) as f64).ln());
        o.fill(0.0);
        forward.one_mut(results)?.set_f64(&o)?;
        forward.one_mut(results + 1)?.set_f64(&lse)?;
    }
    let HostCall {
        args,
        attributes,
        scalars,
    } = forward;
    let unwritten = |of: usize| vec![HostTensor::unwritten(args[of][0].dtype, &args[of][0].shape)];
    let gradients = [unwritten(0), unwritten(1), unwritten(2)];
    let mut of = vec![vec![numbers.host(q.dtype, &q.shape)?]];
    of.extend_from_slice(&args[..3]);
    of.extend_from_slice(&args[results..]);
    of.extend_from_slice(&args[3..results]);
    of.extend(gradients);
    Ok(HostCall {
        args: of,
        attributes,
        scalars,
    })
}
