//! What the ops mean, in f64: a token at a time.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

use crate::flash_attn::Mask;

/// The sequences of a batch, and where their tokens lie in the cache.
pub(super) struct Batch {
    /// Nothing where the starts are wrong.
    pub(super) sequences: Option<Vec<Sequence>>,
    /// Of the table: rows of so many blocks.
    blocks: Vec<i64>,
    row: usize,
    /// Blocks of the cache, and tokens of each.
    count: i64,
    each: i64,
}

/// The tokens of a sequence that are in the batch.
pub(super) struct Sequence {
    index: usize,
    pub(super) first: usize,
    pub(super) tokens: usize,
    pub(super) seen: i64,
}

impl Batch {
    /// Of a call whose argument `cache` is the cache, and `starts` and those behind it tell of the
    /// sequences of `tokens`.
    pub(super) fn of(call: &HostCall, cache: usize, starts: usize, tokens: i64) -> Result<Self> {
        let (cache, blocks) = (&call.one(cache)?.shape, call.one(starts + 2)?);
        let starts_of = call.one(starts)?.to_i64()?;
        let seen = call.one(starts + 1)?.to_i64()?;
        let is_right = starts_of.len() == seen.len() + 1
            && starts_of.is_sorted()
            && starts_of.iter().all(|s| (0..=tokens).contains(s));
        let pairs = starts_of.windows(2).zip(&seen).enumerate();
        let sequence = |(index, (pair, &seen)): (usize, (&[i64], &i64))| Sequence {
            index,
            first: usize::try_from(pair[0]).unwrap_or(0),
            tokens: usize::try_from(pair[1] - pair[0]).unwrap_or(0),
            seen,
        };
        Ok(Self {
            sequences: is_right.then(|| pairs.map(sequence).collect()),
            blocks: blocks.to_i64()?,
            row: usize::try_from(blocks.shape[1]).unwrap_or(0),
            count: cache[0],
            each: cache[1],
        })
    }

    /// The place in the cache, counted in tokens, of token `token` of a sequence.
    pub(super) fn place(&self, of: &Sequence, token: i64) -> Option<usize> {
        let block = usize::try_from(token.checked_div(self.each)?).ok()?;
        let block = *self.blocks[of.index * self.row..][..self.row].get(block)?;
        let place = block.checked_mul(self.each)? + token % self.each;
        usize::try_from(place).ok().filter(|_| (0..self.count).contains(&block))
    }

    /// Whether the table has room for all tokens of a sequence.
    #[allow(clippy::cast_possible_wrap, reason = "extents of tensors in memory")]
    fn has_room(&self, of: &Sequence) -> bool {
        of.seen >= 0 && of.seen + of.tokens as i64 <= self.row as i64 * self.each
    }
}

/// Extents `dims` from the last one of an argument.
pub(super) fn extents<const N: usize>(tensor: &HostTensor) -> [usize; N] {
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
    mask.keys_of(i, queries, of.seen + queries).map(key).collect()
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
