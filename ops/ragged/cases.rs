//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

use crate::flash_attn::Mask;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Additions and multiplications of a score, beside those of its products.
const OF_A_SCORE: f64 = 12.0;

/// The sequences of a batch, and the cache.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// Tokens of each sequence, and those that it has seen.
    sequences: &'static [(i64, i64)],
    /// Tokens of a block, and blocks that a sequence may have.
    each: i64,
    row: i64,
    wrong: Wrong,
}

/// What the numbers on the device tell wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The second block of every sequence is none; -1 or one past the cache.
    Block(i64),
    /// A start is behind the next one.
    Descent,
    /// The last start is behind the last token.
    End,
    /// There is one start too few.
    Count,
}

/// Heads, and what a query sees.
#[derive(Clone, Copy, Debug)]
struct Heads {
    h: i64,
    g: i64,
    d: i64,
    mask: Mask,
    alibi: bool,
}

const CAUSAL: Mask = mask(true, -1, -1);

const fn mask(causal: bool, left: i64, right: i64) -> Mask {
    Mask {
        causal,
        left,
        right,
    }
}

const fn heads(h: i64, g: i64, d: i64, mask: Mask) -> Heads {
    let alibi = false;
    Heads {
        h,
        g,
        d,
        mask,
        alibi,
    }
}

const fn batch(sequences: &'static [(i64, i64)], each: i64, row: i64) -> Batch {
    let wrong = Wrong::Nothing;
    Batch {
        sequences,
        each,
        row,
        wrong,
    }
}

/// Padding before and behind the sequences.
const PADDING: i64 = 2;

/// Prompts, steps of generation and both; blocks of every size around tiles; sequences without tokens,
/// none at all, and such that are longer than their blocks.
const BATCHES: [Batch; 9] = [
    batch(&[(7, 0), (1, 20), (0, 5), (5, 30)], 16, 4),
    batch(&[(1, 40), (1, 0), (1, 63)], 64, 1),
    batch(&[(70, 3)], 1, 80),
    batch(&[(33, 100), (2, 131)], 5, 30),
    batch(&[(1, 1100)], 128, 9),
    batch(&[(3, 0), (4, 10), (2, -1), (1, 9)], 4, 3),
    batch(&[], 4, 3),
    batch(&[(3, 0)], 4, 0),
    batch(&[(3, 0), (2, 2)], 0, 4),
];

/// Every way in which heads share keys, upstream's among them, and heads around vectors.
const HEADS: [Heads; 6] = [
    heads(4, 2, 8, CAUSAL),
    heads(5, 1, 20, mask(false, -1, -1)),
    heads(2, 2, 64, mask(true, 17, -1)),
    heads(3, 3, 7, mask(false, 6, 2)),
    heads(2, 0, 4, CAUSAL),
    heads(0, 0, 4, CAUSAL),
];
const LARGER_HEADS: [Heads; 3] = [
    heads(32, 8, 64, CAUSAL),
    heads(64, 16, 16, CAUSAL),
    heads(40, 8, 32, CAUSAL),
];

const LLAMA: Heads = heads(32, 8, 128, CAUSAL);

fn calls(size: Size) -> Vec<(Batch, Heads)> {
    match size {
        Size::Small => {
            let each = BATCHES.iter().flat_map(|b| HEADS.map(|h| (*b, h)));
            let mut calls: Vec<_> = each.collect();
            calls.extend(LARGER_HEADS.map(|heads| (BATCHES[0], heads)));
            for (_, heads) in calls.clone().into_iter().take(HEADS.len()) {
                let alibi = true;
                calls.push((BATCHES[3], Heads { alibi, ..heads }));
            }
            for wrong in [
                Wrong::Block(-1),
                Wrong::Block(1 << 20),
                Wrong::Descent,
                Wrong::End,
                Wrong::Count,
            ] {
                for heads in [HEADS[0], HEADS[1], HEADS[2]] {
                    calls.push((Batch { wrong, ..BATCHES[0] }, heads));
                }
            }
            calls
        }
        Size::Cached => vec![
            (batch(&[(1, 127); 4], 16, 8), heads(8, 2, 64, CAUSAL)),
            (batch(&[(64, 0); 2], 16, 4), heads(8, 2, 64, CAUSAL)),
        ],
        Size::Large => vec![
            (batch(&[(1, 4095); 8], 64, 64), LLAMA),
            (batch(&[(512, 512); 2], 64, 16), LLAMA),
        ],
    }
}

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for (index, (batch, heads)) in calls(size).into_iter().enumerate() {
            let of = [DType::I32, DType::I64][index % 2];
            let case = Case::new("paged_attention", told(dtype, of, batch, heads), move |n| {
                paged_attention(n, dtype, of, batch, heads)
            });
            let seen = |&(queries, before): &(i64, i64)| {
                let of = |i| heads.mask.keys_of(i, queries, queries + before);
                (0..queries).map(|i| of(i).end - of(i).start).sum::<i64>()
            };
            let scores: i64 = batch.sequences.iter().map(seen).sum();
            let case = case.operations(of_each(heads), &[heads.h * scores]);
            cases.push(case.traffic(traffic(dtype, batch, heads)));
        }
    }
    cases
}

fn told(dtype: DType, of: DType, batch: Batch, heads: Heads) -> String {
    let Batch {
        sequences,
        each,
        row,
        wrong,
    } = batch;
    let sequences = match sequences {
        [first, _, ..] if sequences.iter().all(|s| s == first) => {
            format!("{} x {first:?}", sequences.len())
        }
        _ => format!("{sequences:?}"),
    };
    let Heads { h, g, d, alibi, .. } = heads;
    let Mask {
        causal,
        left,
        right,
    } = heads.mask;
    let causal = if causal { ", causal" } else { "" };
    let alibi = if alibi { ", alibi" } else { "" };
    let wrong = match wrong {
        Wrong::Nothing => String::new(),
        _ => format!(", wrong {wrong:?}"),
    };
    format!(
        "{dtype} {sequences} in {row} blocks of {each} {of}, heads {h} of {g} x {d}{causal}, \
         window {left} {right}{alibi}{wrong}"
    )
}

/// Two products of `d` for a score, and what it becomes.
#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn of_each(heads: Heads) -> f64 {
    4.0 * heads.d as f64 + OF_A_SCORE
}

/// The keys and values of every sequence once, its queries and results.
fn traffic(dtype: DType, batch: Batch, heads: Heads) -> Traffic {
    let Heads { h, g, d, .. } = heads;
    let size = i64::try_from(dtype.size_bytes()).unwrap_or(0);
    let tokens: i64 = batch.sequences.iter().map(|s| s.0).sum();
    let keys: i64 = batch.sequences.iter().map(|s| s.0 + s.1).sum();
    let bytes = |elements: i64| u64::try_from(elements * size).unwrap_or(0);
    Traffic {
        read_bytes: bytes(keys * 2 * g * d + tokens * h * d),
        written_bytes: bytes(tokens * h * d),
    }
}

/// Blocks of the cache: those of all sequences, and some.
fn blocks(batch: Batch) -> i64 {
    i64::try_from(batch.sequences.len()).unwrap_or(0) * batch.row + 1
}

/// Starts, what was seen and blocks, of so many tokens. Sequences get their blocks in turns, the last one
/// first.
#[allow(clippy::cast_precision_loss, reason = "indices are small")]
fn sequences(of: DType, batch: Batch) -> Result<(i64, Vec<Vec<HostTensor>>)> {
    let n = batch.sequences.len();
    let mut starts = vec![PADDING];
    for (tokens, _) in batch.sequences {
        starts.push(starts[starts.len() - 1] + tokens);
    }
    let tokens = starts[n] + PADDING;
    match batch.wrong {
        Wrong::Descent => starts.swap(0, 1),
        Wrong::End => starts[n] = tokens + 1,
        Wrong::Count => starts.truncate(n),
        Wrong::Nothing | Wrong::Block(_) => {}
    }
    let row = usize::try_from(batch.row).unwrap_or(0);
    let table = (0..n * row).map(|at| match (batch.wrong, at % row) {
        (Wrong::Block(none), 1) => none as f64,
        (_, block) => blocks(batch) as f64 - 1.0 - (block * n + at / row) as f64,
    });
    let seen = batch.sequences.iter().map(|s| s.1 as f64).collect();
    let tensor = |shape: &[usize], values: Vec<f64>| -> Result<Vec<HostTensor>> {
        let shape: Vec<i64> = (shape.iter())
            .map(|&extent| i64::try_from(extent).unwrap_or(0))
            .collect();
        Ok(vec![HostTensor::from_f64(of, &shape, &values)?])
    };
    let starts: Vec<f64> = starts.iter().map(|&start| start as f64).collect();
    let lists = vec![
        tensor(&[starts.len()], starts)?,
        tensor(&[n], seen)?,
        tensor(&[n, row], table.collect())?,
    ];
    Ok((tokens, lists))
}

#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn paged_attention(
    numbers: &mut Numbers,
    dtype: DType,
    of: DType,
    batch: Batch,
    heads: Heads,
) -> Result<HostCall> {
    let Heads { h, g, d, mask, .. } = heads;
    let (tokens, lists) = sequences(of, batch)?;
    let slopes = |numbers: &mut Numbers| numbers.host_of(DType::F32, &[h], |v| 0.1 * v.abs());
    let mut args = vec![
        vec![numbers.host(dtype, &[tokens, h, d])?],
        vec![numbers.host(dtype, &[blocks(batch), batch.each, 2, g, d])?],
    ];
    args.extend(lists);
    args.push((heads.alibi.then(|| slopes(numbers)).into_iter()).collect::<Result<_>>()?);
    args.push(vec![HostTensor::unwritten(dtype, &[tokens, h, d])]);
    Ok(HostCall {
        args,
        attributes: vec![
            Attr::Bool(mask.causal),
            Attr::I64(mask.left),
            Attr::I64(mask.right),
        ],
        scalars: vec![Attr::F64(1.0 / (d as f64).sqrt())],
    })
}
