//! What the ops mean, in f64: a row at a time, with its scores in full.

use std::ops::Range;

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// Which keys a query sees, from the static attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    pub(super) causal: bool,
    pub(super) left: i64,
    pub(super) right: i64,
}

impl Mask {
    fn of(call: &HostCall) -> Result<Self> {
        Ok(Self {
            causal: call.flag(0)?,
            left: HostCall::integer(&call.attributes, 1)?,
            right: HostCall::integer(&call.attributes, 2)?,
        })
    }

    /// The keys, of `keys`, that query `i` of `queries` sees.
    pub(super) fn keys_of(self, i: i64, queries: i64, keys: i64) -> Range<i64> {
        let meets = i + keys - queries;
        let right = if self.causal { 0 } else { self.right };
        let end = match right {
            0.. => meets.saturating_add(right).saturating_add(1).clamp(0, keys),
            _ => keys,
        };
        let start = match self.left {
            0.. => meets.saturating_sub(self.left).clamp(0, end),
            _ => 0,
        };
        start..end
    }
}

/// Tokens that see each other alone: where they begin, and how many there are.
struct Sequence {
    first_query: usize,
    queries: usize,
    first_key: usize,
    keys: usize,
    /// Where the logarithms of head 0 begin, and how far those of the next head are.
    lse: (usize, usize),
}

/// A call of either op: tokens are rows of `heads * d` numbers.
struct Problem {
    heads: usize,
    groups: usize,
    d: usize,
    scale: f64,
    slopes: Option<Vec<f64>>,
    mask: Mask,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    /// Nothing where starts are wrong.
    sequences: Option<Vec<Sequence>>,
}

/// A row of a sequence: a query of a head, what it sees, and what it meets.
struct Row {
    /// Its first number in q.
    at: usize,
    lse: usize,
    /// For each key that it sees: its first number in k, and the score.
    scores: Vec<(usize, f64)>,
}

impl Problem {
    fn of(call: &HostCall, alibi: usize, sequences: Option<Vec<Sequence>>) -> Result<Self> {
        let extent = |index: usize, from_last: usize| -> Result<usize> {
            let shape = &call.one(index)?.shape;
            Ok(usize::try_from(shape[shape.len() - from_last]).unwrap_or(0))
        };
        let slopes = call.args[alibi]
            .first()
            .map(HostTensor::to_f64)
            .transpose()?;
        Ok(Self {
            heads: extent(0, 2)?,
            groups: extent(1, 2)?,
            d: extent(0, 1)?,
            scale: call.scalar(0)?,
            slopes,
            mask: Mask::of(call)?,
            q: call.one(0)?.to_f64()?,
            k: call.one(1)?.to_f64()?,
            v: call.one(2)?.to_f64()?,
            sequences,
        })
    }

    fn rows<'a>(&'a self, sequence: &'a Sequence) -> impl Iterator<Item = Row> + 'a {
        let each = (0..sequence.queries).flat_map(|i| (0..self.heads).map(move |h| (i, h)));
        each.map(|(i, h)| self.row(sequence, i, h))
    }

    #[allow(
        clippy::cast_possible_wrap,
        clippy::cast_precision_loss,
        reason = "indices of tensors in memory"
    )]
    fn row(&self, sequence: &Sequence, i: usize, h: usize) -> Row {
        let at = ((sequence.first_query + i) * self.heads + h) * self.d;
        let (queries, keys) = (sequence.queries as i64, sequence.keys as i64);
        let seen = match self.groups {
            0 => 0..0,
            _ => self.mask.keys_of(i as i64, queries, keys),
        };
        let q = &self.q[at..at + self.d];
        let score = |j: i64| {
            let token = sequence.first_key + usize::try_from(j).unwrap_or(0);
            let key = (token * self.groups + h * self.groups / self.heads) * self.d;
            let product: f64 = (q.iter().zip(&self.k[key..])).map(|(q, k)| q * k).sum();
            let distance = (i as i64 + keys - queries - j).abs() as f64;
            let bias = self.slopes.as_ref().map_or(0.0, |s| s[h] * distance);
            (key, self.scale * product - bias)
        };
        Row {
            at,
            lse: sequence.lse.0 + h * sequence.lse.1 + i,
            scores: seen.map(score).collect(),
        }
    }

    /// Results `o` and `lse`, of so many numbers.
    fn forward(&self, o: &mut [f64], lse: &mut [f64]) {
        let Some(sequences) = &self.sequences else {
            o.fill(f64::NAN);
            lse.fill(f64::NAN);
            return;
        };
        o.fill(0.0);
        lse.fill(f64::NEG_INFINITY);
        for row in sequences.iter().flat_map(|sequence| self.rows(sequence)) {
            // A NaN is not greater than anything, but stays in the sum.
            let most = row.scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.1));
            let sum: f64 = row.scores.iter().map(|s| (s.1 - most).exp()).sum();
            if row.scores.is_empty() {
                continue;
            }
            lse[row.lse] = most + sum.ln();
            for (key, score) in &row.scores {
                let weight = (score - most).exp() / sum;
                let values = &self.v[*key..*key + self.d];
                for (o, v) in o[row.at..row.at + self.d].iter_mut().zip(values) {
                    *o += weight * v;
                }
            }
        }
    }
}

/// The sequences of a batch: one after the other, all of a length.
fn batch(call: &HostCall) -> Result<Vec<Sequence>> {
    let extent = |index: usize, dim: usize| -> Result<usize> {
        Ok(usize::try_from(call.one(index)?.shape[dim]).unwrap_or(0))
    };
    let (queries, heads, keys) = (extent(0, 1)?, extent(0, 2)?, extent(1, 1)?);
    let sequence = |n: usize| Sequence {
        first_query: n * queries,
        queries,
        first_key: n * keys,
        keys,
        lse: (n * heads * queries, queries),
    };
    Ok((0..extent(0, 0)?).map(sequence).collect())
}

/// The sequences that starts tell of; nothing where they are wrong.
fn packed(call: &HostCall, starts: [usize; 2]) -> Result<Option<Vec<Sequence>>> {
    let read = |index: usize, tokens: i64| -> Result<Option<Vec<usize>>> {
        let starts = call.one(index)?.to_i64()?;
        let is_right = starts.is_sorted() && starts.iter().all(|s| (0..=tokens).contains(s));
        let usable = starts.iter().map(|s| usize::try_from(*s).unwrap_or(0));
        Ok(is_right.then(|| usable.collect()))
    };
    let tokens = call.one(0)?.shape[0];
    let q = read(starts[0], tokens)?;
    let kv = read(starts[1], call.one(1)?.shape[0])?;
    let stride = usize::try_from(tokens).unwrap_or(0);
    Ok(q.zip(kv).map(|(q, kv)| {
        let pairs = q.windows(2).zip(kv.windows(2));
        let sequence = |(q, kv): (&[usize], &[usize])| Sequence {
            first_query: q[0],
            queries: q[1] - q[0],
            first_key: kv[0],
            keys: kv[1] - kv[0],
            lse: (q[0], stride),
        };
        pairs.map(sequence).collect()
    }))
}

fn write_forward(call: &mut HostCall, problem: &Problem, o: usize) -> Result<()> {
    let (mut y, mut lse) = (call.one(o)?.zeros(), call.one(o + 1)?.zeros());
    problem.forward(&mut y, &mut lse);
    call.one_mut(o)?.set_f64(&y)?;
    call.one_mut(o + 1)?.set_f64(&lse)
}

/// `flash_attn(q, k, v, alibi, scale, causal, window_left, window_right) -> (o, lse)`.
pub(super) fn flash_attn(call: &mut HostCall) -> Result<()> {
    let problem = Problem::of(call, 3, Some(batch(call)?))?;
    write_forward(call, &problem, 4)
}

/// `flash_attn_varlen(q, k, v, q_starts, kv_starts, alibi, scale, causal, window_left, window_right)
/// -> (o, lse)`.
pub(super) fn flash_attn_varlen(call: &mut HostCall) -> Result<()> {
    let sequences = packed(call, [3, 4])?;
    let problem = Problem::of(call, 5, sequences)?;
    write_forward(call, &problem, 6)
}
