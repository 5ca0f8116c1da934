//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

use crate::flash_attn::{CAUSAL, Heads, Mask, heads, mask};

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
                    calls.push((
                        Batch {
                            wrong,
                            ..BATCHES[0]
                        },
                        heads,
                    ));
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
        cases.extend(appends(size, dtype));
        cases.extend(rows(size, dtype));
    }
    cases
}

/// Tables of a call: rows, points and whether these are neighbours.
type Tables = Option<(i64, i64, bool)>;

fn appends(size: Size, dtype: DType) -> Vec<Case> {
    let prompts = batch(&[(512, 512); 8], 64, 16);
    let calls: Vec<(Batch, Heads)> = match size {
        Size::Small => calls(size),
        Size::Cached => vec![
            (batch(&[(4, 60); 8], 16, 4), heads(8, 2, 64, CAUSAL)),
            (batch(&[(1, 63); 32], 16, 4), heads(8, 2, 64, CAUSAL)),
        ],
        Size::Large => vec![(prompts, LLAMA)],
    };
    let mut cases = Vec::new();
    for (index, (batch, heads)) in calls.into_iter().enumerate() {
        let of = [DType::I32, DType::I64][index % 2];
        let half = heads.d / 2;
        let tables: &[Tables] = match size {
            // Some tokens are behind the short ones.
            Size::Small => &[None, Some((40, half, false)), Some((2048, half / 2, true))],
            _ => &[None, Some((1024, half, false)), Some((1024, half, true))],
        };
        for &tables in tables {
            let turns = match tables {
                None => "as it is".into(),
                Some((rows, points, interleaved)) => {
                    format!("turned by {rows} x {points}, interleaved {interleaved}")
                }
            };
            let name = format!("{}, {turns}", told(dtype, of, batch, heads));
            let case = Case::new("kv_append", name, move |n| {
                kv_append(n, dtype, of, batch, heads, tables)
            });
            let turned = if tables.is_some() { 3.0 } else { 0.0 };
            let tokens: i64 = batch.sequences.iter().map(|s| s.0).sum();
            let case = case.operations(turned, &[tokens, heads.h + heads.g, heads.d]);
            cases.push(case.traffic(append_traffic(dtype, batch, heads, tables.is_some())));
        }
    }
    cases
}

/// Keys and values once each way, and queries where they are turned.
fn append_traffic(dtype: DType, batch: Batch, heads: Heads, turned: bool) -> Traffic {
    let queries = if turned { heads.h } else { 0 };
    let tokens: i64 = batch.sequences.iter().map(|s| s.0).sum();
    let elements = (tokens * (queries + 2 * heads.g) * heads.d).unsigned_abs();
    let bytes = elements * dtype.size_bytes() as u64;
    Traffic {
        read_bytes: bytes,
        written_bytes: bytes,
    }
}

fn kv_append(
    numbers: &mut Numbers,
    dtype: DType,
    of: DType,
    batch: Batch,
    heads: Heads,
    tables: Tables,
) -> Result<HostCall> {
    let Heads { h, g, d, .. } = heads;
    let (tokens, lists) = sequences(of, batch)?;
    let mut args = vec![
        vec![numbers.host(dtype, &[tokens, h + 2 * g, d])?],
        vec![numbers.host(dtype, &[blocks(batch), batch.each, 2, g, d])?],
    ];
    args.extend(lists);
    for _ in 0..2 {
        let table = tables.map(|(rows, points, _)| numbers.host(DType::F32, &[rows, points]));
        args.push(table.into_iter().collect::<Result<_>>()?);
    }
    let interleaved = tables.is_some_and(|(_, _, interleaved)| interleaved);
    Ok(HostCall {
        args,
        attributes: vec![Attr::Bool(interleaved)],
        scalars: vec![],
    })
}

/// Embeddings and last rows of the batches; `d` around vectors.
fn rows(size: Size, dtype: DType) -> Vec<Case> {
    let prompts = batch(&[(1024, 100); 8], 64, 32);
    let calls: Vec<(Batch, i64)> = match size {
        Size::Small => {
            let wrong = [Wrong::Descent, Wrong::End, Wrong::Count];
            let wrong = wrong.map(|wrong| Batch {
                wrong,
                ..BATCHES[0]
            });
            let each = BATCHES.into_iter().chain(wrong);
            each.flat_map(|b| [(b, 40), (b, 131), (b, 0)]).collect()
        }
        Size::Cached => vec![
            (batch(&[(16, 4); 4], 16, 4), 512),
            (batch(&[(1, 19); 64], 16, 4), 512),
        ],
        Size::Large => vec![(prompts, 4096)],
    };
    let mut cases = Vec::new();
    for (index, (batch, d)) in calls.into_iter().enumerate() {
        let of = [DType::I32, DType::I64][index % 2];
        let Batch {
            sequences, wrong, ..
        } = batch;
        let name = format!("{dtype} {sequences:?} {of} x {d}, wrong {wrong:?}");
        let embed = move |n: &mut Numbers| ragged_embed(n, dtype, of, batch, d, size);
        let tokens: i64 = sequences.iter().map(|s| s.0).sum();
        let case = Case::new("ragged_embed", name.clone(), embed);
        let moved = row_traffic(dtype, [2 * tokens, tokens + 2 * PADDING], d);
        cases.push(case.operations(1.0, &[tokens, d]).traffic(moved));
        let last = move |n: &mut Numbers| logits_gather(n, dtype, of, batch, d);
        let count = i64::try_from(sequences.len()).unwrap_or(0);
        let case = Case::new("logits_gather", name, last);
        cases.push(case.traffic(row_traffic(dtype, [count; 2], d)));
    }
    cases
}

/// Rows read and written.
fn row_traffic(dtype: DType, rows: [i64; 2], d: i64) -> Traffic {
    let [read_bytes, written_bytes] =
        rows.map(|rows| (rows * d).unsigned_abs() * dtype.size_bytes() as u64);
    Traffic {
        read_bytes,
        written_bytes,
    }
}

fn ragged_embed(
    numbers: &mut Numbers,
    dtype: DType,
    of: DType,
    batch: Batch,
    d: i64,
    size: Size,
) -> Result<HostCall> {
    // Of the small tables some tokens are behind the last row, and some ids are none.
    let (words, rows, none, offset) = match size {
        Size::Small => (50, 60, 3, 2),
        _ => (8192, 2048, 0, 2),
    };
    let (tokens, mut lists) = sequences(of, batch)?;
    lists.pop();
    let mut args = vec![
        vec![numbers.host(dtype, &[words, d])?],
        vec![numbers.integers(of, &[tokens], words + none)?],
        vec![numbers.host(dtype, &[rows, d])?],
    ];
    args.extend(lists);
    args.push(vec![HostTensor::unwritten(dtype, &[tokens, d])]);
    Ok(HostCall {
        args,
        attributes: vec![],
        scalars: vec![Attr::I64(offset)],
    })
}

fn logits_gather(
    numbers: &mut Numbers,
    dtype: DType,
    of: DType,
    batch: Batch,
    d: i64,
) -> Result<HostCall> {
    let (tokens, lists) = sequences(of, batch)?;
    let starts = lists[0][0].to_i64()?;
    #[allow(clippy::cast_precision_loss, reason = "indices are small")]
    let part = |part: &[i64]| {
        let values: Vec<f64> = part.iter().map(|&start| start as f64).collect();
        let shape = [i64::try_from(part.len()).unwrap_or(0)];
        HostTensor::from_f64(of, &shape, &values)
    };
    let sequences = starts.len().saturating_sub(1);
    let (first, end) = (&starts[..sequences], &starts[starts.len() - sequences..]);
    Ok(HostCall {
        args: vec![
            vec![numbers.host(dtype, &[tokens, d])?],
            vec![part(first)?],
            vec![part(end)?],
            vec![HostTensor::unwritten(
                dtype,
                &[i64::try_from(sequences).unwrap_or(0), d],
            )],
        ],
        attributes: vec![],
        scalars: vec![],
    })
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
