//! What the ops mean, in f64: a row at a time, with its scores in full.

use std::ops::Range;

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// Which keys a query sees, from the static attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) causal: bool,
    pub(crate) left: i64,
    pub(crate) right: i64,
}

impl Mask {
    pub(crate) fn of(call: &HostCall) -> Result<Self> {
        Ok(Self {
            causal: call.flag(0)?,
            left: HostCall::integer(&call.attributes, 1)?,
            right: HostCall::integer(&call.attributes, 2)?,
        })
    }

    /// The keys, of `keys`, that query `i` of `queries` sees.
    pub(crate) fn keys_of(self, i: i64, queries: i64, keys: i64) -> Range<i64> {
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
    /// For each key that it sees: its first number in k and v, and the score.
    scores: Vec<(usize, f64)>,
}

/// Gradients of the queries, the keys and the values.
type Gradients = [Vec<f64>; 3];

impl Problem {
    /// Of a call whose queries are argument `q`, with keys and values behind them.
    fn of(
        call: &HostCall,
        q: usize,
        alibi: usize,
        sequences: Option<Vec<Sequence>>,
    ) -> Result<Self> {
        let extent = |index: usize, from_last: usize| -> Result<usize> {
            let shape = &call.one(index)?.shape;
            Ok(usize::try_from(shape[shape.len() - from_last]).unwrap_or(0))
        };
        let slopes = call.args[alibi]
            .first()
            .map(HostTensor::to_f64)
            .transpose()?;
        Ok(Self {
            heads: extent(q, 2)?,
            groups: extent(q + 1, 2)?,
            d: extent(q, 1)?,
            scale: call.scalar(0)?,
            slopes,
            mask: Mask::of(call)?,
            q: call.one(q)?.to_f64()?,
            k: call.one(q + 1)?.to_f64()?,
            v: call.one(q + 2)?.to_f64()?,
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
            let product = dot(q, &self.k[key..key + self.d]);
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
                add(&mut o[row.at..row.at + self.d], weight, values);
            }
        }
    }
}

impl Problem {
    /// From the gradient of the results, the results and their logarithms.
    fn backward(&self, d_o: &[f64], o: &[f64], lse: &[f64]) -> Gradients {
        let Some(sequences) = &self.sequences else {
            return [&self.q, &self.k, &self.v].map(|of| vec![f64::NAN; of.len()]);
        };
        let [mut dq, mut dk, mut dv] = [&self.q, &self.k, &self.v].map(|of| vec![0.0; of.len()]);
        for row in sequences.iter().flat_map(|sequence| self.rows(sequence)) {
            let own = row.at..row.at + self.d;
            let (d_o, q) = (&d_o[own.clone()], &self.q[own.clone()]);
            let mean = dot(d_o, &o[own.clone()]);
            for (key, score) in row.scores {
                let of_key = key..key + self.d;
                let weight = (score - lse[row.lse]).exp();
                let slope = weight * (dot(d_o, &self.v[of_key.clone()]) - mean) * self.scale;
                add(&mut dv[of_key.clone()], weight, d_o);
                add(&mut dq[own.clone()], slope, &self.k[of_key.clone()]);
                add(&mut dk[of_key], slope, q);
            }
        }
        [dq, dk, dv]
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += factor * of`.
fn add(to: &mut [f64], factor: f64, of: &[f64]) {
    for (to, of) in to.iter_mut().zip(of) {
        *to += factor * of;
    }
}

/// The sequences of a batch, whose queries are argument `q`: one after the other, all of a length.
fn batch(call: &HostCall, q: usize) -> Result<Vec<Sequence>> {
    let extent = |index: usize, dim: usize| -> Result<usize> {
        Ok(usize::try_from(call.one(index)?.shape[dim]).unwrap_or(0))
    };
    let (queries, heads, keys) = (extent(q, 1)?, extent(q, 2)?, extent(q + 1, 1)?);
    let sequence = |n: usize| Sequence {
        first_query: n * queries,
        queries,
        first_key: n * keys,
        keys,
        lse: (n * heads * queries, queries),
    };
    Ok((0..extent(q, 0)?).map(sequence).collect())
}

/// The sequences that starts tell of; nothing where they are wrong.
fn packed(call: &HostCall, q: usize, starts: usize) -> Result<Option<Vec<Sequence>>> {
    let read = |index: usize, tokens: i64| -> Result<Option<Vec<usize>>> {
        let starts = call.one(index)?.to_i64()?;
        let is_right = starts.is_sorted() && starts.iter().all(|s| (0..=tokens).contains(s));
        let usable = starts.iter().map(|s| usize::try_from(*s).unwrap_or(0));
        Ok(is_right.then(|| usable.collect()))
    };
    let tokens = call.one(q)?.shape[0];
    let of_q = read(starts, tokens)?;
    let of_kv = read(starts + 1, call.one(q + 1)?.shape[0])?;
    let stride = usize::try_from(tokens).unwrap_or(0);
    Ok(of_q.zip(of_kv).map(|(q, kv)| {
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
    let problem = Problem::of(call, 0, 3, Some(batch(call, 0)?))?;
    write_forward(call, &problem, 4)
}

/// `flash_attn_varlen(q, k, v, q_starts, kv_starts, alibi, scale, causal, window_left, window_right)
/// -> (o, lse)`.
pub(super) fn flash_attn_varlen(call: &mut HostCall) -> Result<()> {
    let sequences = packed(call, 0, 3)?;
    let problem = Problem::of(call, 0, 5, sequences)?;
    write_forward(call, &problem, 6)
}

fn write_backward(call: &mut HostCall, problem: &Problem, dq: usize) -> Result<()> {
    let read = |index: usize| call.one(index)?.to_f64();
    let gradients = problem.backward(&read(0)?, &read(4)?, &read(5)?);
    for (index, gradient) in gradients.iter().enumerate() {
        call.one_mut(dq + index)?.set_f64(gradient)?;
    }
    Ok(())
}

/// `flash_attn_backward(do, q, k, v, o, lse, alibi, scale, causal, window_left, window_right)
/// -> (dq, dk, dv)`.
pub(super) fn flash_attn_backward(call: &mut HostCall) -> Result<()> {
    let problem = Problem::of(call, 1, 6, Some(batch(call, 1)?))?;
    write_backward(call, &problem, 7)
}

/// `flash_attn_varlen_backward(do, q, k, v, o, lse, q_starts, kv_starts, alibi, scale, causal,
/// window_left, window_right) -> (dq, dk, dv)`.
pub(super) fn flash_attn_varlen_backward(call: &mut HostCall) -> Result<()> {
    let sequences = packed(call, 1, 6)?;
    let problem = Problem::of(call, 1, 8, sequences)?;
    write_backward(call, &problem, 9)
}
