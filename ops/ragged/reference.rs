//! What the ops mean, in f64: a token at a time.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

use crate::flash_attn::Mask;

/// The sequences of a batch, and where their tokens lie in the cache.
struct Batch {
    /// Nothing where the starts are wrong.
    sequences: Option<Vec<Sequence>>,
    /// Of the table: rows of so many blocks.
    blocks: Vec<i64>,
    row: usize,
    /// Blocks of the cache, and tokens of each.
    count: i64,
    each: i64,
}

/// The tokens of a sequence that are in the batch.
struct Sequence {
    index: usize,
    first: usize,
    tokens: usize,
    seen: i64,
}

impl Sequence {
    /// Those that lie in so many tokens; nothing where starts are wrong.
    fn all(starts: &[i64], seen: &[i64], tokens: i64) -> Option<Vec<Self>> {
        let is_right = starts.len() == seen.len() + 1
            && starts.is_sorted()
            && starts.iter().all(|s| (0..=tokens).contains(s));
        let sequence = |(index, (pair, &seen)): (usize, (&[i64], &i64))| Self {
            index,
            first: usize::try_from(pair[0]).unwrap_or(0),
            tokens: usize::try_from(pair[1] - pair[0]).unwrap_or(0),
            seen,
        };
        let pairs = starts.windows(2).zip(seen).enumerate();
        is_right.then(|| pairs.map(sequence).collect())
    }
}

impl Batch {
    /// Of a call whose argument `cache` is the cache, and `starts` and those behind it tell of the
    /// sequences of `tokens`.
    fn of(call: &HostCall, cache: usize, starts: usize, tokens: i64) -> Result<Self> {
        let (cache, blocks) = (&call.one(cache)?.shape, call.one(starts + 2)?);
        let starts_of = call.one(starts)?.to_i64()?;
        let seen = call.one(starts + 1)?.to_i64()?;
        Ok(Self {
            sequences: Sequence::all(&starts_of, &seen, tokens),
            blocks: blocks.to_i64()?,
            row: usize::try_from(blocks.shape[1]).unwrap_or(0),
            count: cache[0],
            each: cache[1],
        })
    }

    /// The place in the cache, counted in tokens, of token `token` of a sequence.
    fn place(&self, of: &Sequence, token: i64) -> Option<usize> {
        let block = usize::try_from(token.checked_div(self.each)?).ok()?;
        let block = *self.blocks[of.index * self.row..][..self.row].get(block)?;
        let place = block.checked_mul(self.each)? + token % self.each;
        usize::try_from(place)
            .ok()
            .filter(|_| (0..self.count).contains(&block))
    }

    /// Whether the table has room for all tokens of a sequence.
    #[allow(clippy::cast_possible_wrap, reason = "extents of tensors in memory")]
    fn has_room(&self, of: &Sequence) -> bool {
        of.seen >= 0 && of.seen + of.tokens as i64 <= self.row as i64 * self.each
    }
}

/// Extents `dims` from the last one of an argument.
fn extents<const N: usize>(tensor: &HostTensor) -> [usize; N] {
    let first = tensor.shape.len() - N;
    std::array::from_fn(|dim| usize::try_from(tensor.shape[first + dim]).unwrap_or(0))
}

/// `paged_attention(q, cache, q_starts, seen, blocks, alibi, scale, causal, window_left,
/// window_right) -> o`.
pub(super) fn paged_attention(call: &mut HostCall) -> Result<()> {
    let [tokens, heads, d] = extents(call.one(0)?);
    let [groups, _] = extents(call.one(1)?);
    let batch = Batch::of(call, 1, 2, call.one(0)?.shape[0])?;
    let (scale, mask) = (call.scalar(0)?, Mask::of(call)?);
    let (q, cache) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let slopes = call.args[5].first().map(HostTensor::to_f64).transpose()?;
    let mut o = vec![0.0; tokens * heads * d];
    if batch.sequences.is_none() {
        o.fill(f64::NAN);
    }
    for sequence in batch.sequences.iter().flatten() {
        for i in 0..sequence.tokens {
            for head in 0..heads {
                let at = ((sequence.first + i) * heads + head) * d;
                let (q, o) = (&q[at..at + d], &mut o[at..at + d]);
                let slope = slopes.as_ref().map_or(0.0, |s| s[head]);
                let Some(keys) = keys(&batch, sequence, mask, i) else {
                    o.fill(f64::NAN);
                    continue;
                };
                if groups == 0 {
                    continue;
                }
                let score = |(place, distance): &(usize, f64)| {
                    let key = (place * 2 * groups + head * groups / heads) * d;
                    let product: f64 = q.iter().zip(&cache[key..]).map(|(q, k)| q * k).sum();
                    (key + groups * d, scale * product - slope * distance)
                };
                attend(o, &cache, &keys.iter().map(score).collect::<Vec<_>>());
            }
        }
    }
    call.one_mut(6)?.set_f64(&o)
}

/// Where the keys lie that token `i` of a sequence sees, and how far each is; nothing where one of
/// them has no block.
#[allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "extents of tensors in memory"
)]
fn keys(batch: &Batch, of: &Sequence, mask: Mask, i: usize) -> Option<Vec<(usize, f64)>> {
    let (i, queries) = (i as i64, of.tokens as i64);
    if !batch.has_room(of) {
        return None;
    }
    let key = |j: i64| Some((batch.place(of, j)?, (i + of.seen - j).abs() as f64));
    mask.keys_of(i, queries, of.seen + queries)
        .map(key)
        .collect()
}

/// Softmax of the scores, times the values that begin at the place beside each.
fn attend(o: &mut [f64], values: &[f64], scores: &[(usize, f64)]) {
    // A NaN is not greater than anything, but stays in the sum.
    let most = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.1));
    let sum: f64 = scores.iter().map(|s| (s.1 - most).exp()).sum();
    for &(value, score) in scores {
        let weight = (score - most).exp() / sum;
        for (o, v) in o.iter_mut().zip(&values[value..]) {
            *o += weight * v;
        }
    }
}

/// The tables of a call that turns; `[positions, points]`.
struct Angles {
    cos: Vec<f64>,
    sin: Vec<f64>,
    rows: usize,
    points: usize,
    interleaved: bool,
}

impl Angles {
    fn of(call: &HostCall, cos: usize) -> Result<Option<Self>> {
        let ([cos], [sin]) = (&call.args[cos][..], &call.args[cos + 1][..]) else {
            return Ok(None);
        };
        let [rows, points] = extents(cos);
        Ok(Some(Self {
            cos: cos.to_f64()?,
            sin: sin.to_f64()?,
            rows,
            points,
            interleaved: call.flag(0)?,
        }))
    }

    fn turn(&self, head: &mut [f64], position: usize) {
        for point in 0..self.points.min(head.len() / 2) {
            let (a, b) = if self.interleaved {
                (2 * point, 2 * point + 1)
            } else {
                (point, self.points.min(head.len() / 2) + point)
            };
            let at = position * self.points + point;
            let (c, s) = (self.cos[at], self.sin[at]);
            (head[a], head[b]) = (head[a] * c - head[b] * s, head[b] * c + head[a] * s);
        }
    }
}

/// `kv_append(qkv, cache, q_starts, seen, blocks, cos, sin, interleaved)`.
pub(super) fn kv_append(call: &mut HostCall) -> Result<()> {
    let [_, heads, d] = extents(call.one(0)?);
    let [groups, _] = extents(call.one(1)?);
    let batch = Batch::of(call, 1, 2, call.one(0)?.shape[0])?;
    let angles = Angles::of(call, 5)?;
    let [mut qkv, mut cache] = [call.one(0)?.to_f64()?, call.one(1)?.to_f64()?];
    let Some(queries) = heads.checked_sub(2 * groups) else {
        return Ok(());
    };
    if batch.sequences.is_none() {
        let tokens = qkv.chunks_exact_mut((heads * d).max(1));
        tokens.for_each(|token| token[..queries * d].fill(f64::NAN));
    }
    for sequence in batch.sequences.iter().flatten() {
        for (i, token) in (sequence.first..).take(sequence.tokens).enumerate() {
            let position = usize::try_from(sequence.seen).ok().map(|seen| seen + i);
            let is_told = |p: &usize| angles.as_ref().is_none_or(|a| *p < a.rows);
            let position = position.filter(is_told);
            let place = position.and_then(|p| batch.place(sequence, i64::try_from(p).ok()?));
            let own = &mut qkv[token * heads * d..(token + 1) * heads * d];
            let (Some(position), Some(place)) = (position, place) else {
                own[..queries * d].fill(f64::NAN);
                continue;
            };
            let turn = |head: &mut [f64]| angles.iter().for_each(|a| a.turn(head, position));
            let turned = own[..queries * d].chunks_exact_mut(d.max(1));
            turned.for_each(turn);
            for group in 0..groups {
                let (k, v) = ((queries + group) * d, (queries + groups + group) * d);
                let key = (place * 2 * groups + group) * d;
                let value = key + groups * d;
                cache[key..key + d].copy_from_slice(&own[k..k + d]);
                turn(&mut cache[key..key + d]);
                cache[value..value + d].copy_from_slice(&own[v..v + d]);
            }
        }
    }
    call.one_mut(0)?.set_f64(&qkv)?;
    call.one_mut(1)?.set_f64(&cache)
}

/// `ragged_embed(weight, ids, positions, q_starts, seen, offset) -> y`.
pub(super) fn ragged_embed(call: &mut HostCall) -> Result<()> {
    let [_, d] = extents(call.one(0)?);
    let ids = call.one(1)?.to_i64()?;
    let (starts, seen) = (call.one(3)?.to_i64()?, call.one(4)?.to_i64()?);
    let offset = HostCall::integer(&call.scalars, 0)?;
    let row = |table: usize, index: Option<i64>| -> Result<Vec<f64>> {
        let (table, row) = (
            call.one(table)?,
            index.and_then(|i| usize::try_from(i).ok()),
        );
        let [rows, _] = extents::<2>(table);
        Ok(match row.filter(|row| *row < rows) {
            Some(row) => table.to_f64()?[row * d..(row + 1) * d].to_vec(),
            None => vec![f64::NAN; d],
        })
    };
    let tokens = i64::try_from(ids.len()).unwrap_or(0);
    let mut y = vec![0.0; ids.len() * d];
    match Sequence::all(&starts, &seen, tokens) {
        None => y.fill(f64::NAN),
        Some(sequences) => {
            for sequence in sequences {
                for (i, token) in (sequence.first..).take(sequence.tokens).enumerate() {
                    let index = Some(sequence.seen).filter(|seen| *seen >= 0);
                    let index = index.map(|seen| seen + offset + i64::try_from(i).unwrap_or(0));
                    let rows = row(0, Some(ids[token]))?.into_iter().zip(row(2, index)?);
                    for (y, (word, position)) in y[token * d..].iter_mut().zip(rows) {
                        *y = word + position;
                    }
                }
            }
        }
    }
    call.one_mut(5)?.set_f64(&y)
}

/// `logits_gather(x, starts, ends) -> y`.
pub(super) fn logits_gather(call: &mut HostCall) -> Result<()> {
    let [tokens, d] = extents(call.one(0)?);
    let x = call.one(0)?.to_f64()?;
    let (starts, ends) = (call.one(1)?.to_i64()?, call.one(2)?.to_i64()?);
    let mut y = vec![f64::NAN; starts.len() * d];
    for (n, (&start, &end)) in starts.iter().zip(&ends).enumerate() {
        let end = usize::try_from(end).unwrap_or(0);
        if start >= 0 && usize::try_from(start).is_ok_and(|start| start < end) && end <= tokens {
            y[n * d..(n + 1) * d].copy_from_slice(&x[(end - 1) * d..end * d]);
        }
    }
    call.one_mut(3)?.set_f64(&y)
}
