//! What attention means, in f64, where scores have biases: a row at a time, with its scores in full.

use ds_core::{
    Result, Tensor,
    op::{HostCall, HostTensor},
};
use ds_schema::Attr;

/// A query of a head, and what it sees.
pub(crate) struct Row {
    /// Its first number in q.
    pub(crate) q: usize,
    /// Its place among the logarithms.
    pub(crate) lse: usize,
    /// For each key that it sees: its first number in k and v, and the score.
    pub(crate) scores: Vec<(usize, f64)>,
}

/// Queries, keys and values of heads of `d` numbers.
pub(crate) struct Tokens {
    pub(crate) d: usize,
    pub(crate) scale: f64,
    pub(crate) q: Vec<f64>,
    pub(crate) k: Vec<f64>,
    pub(crate) v: Vec<f64>,
}

/// Gradients of queries, keys and values.
pub(crate) type Gradients = [Vec<f64>; 3];

impl Tokens {
    /// Of a call whose queries are argument `q`, with keys and values behind them.
    pub(crate) fn of(call: &HostCall, q: usize) -> Result<Self> {
        Ok(Self {
            d: extent(call, q, call.one(q)?.shape.len() - 1)?,
            scale: call.scalar(0)?,
            q: call.one(q)?.to_f64()?,
            k: call.one(q + 1)?.to_f64()?,
            v: call.one(q + 2)?.to_f64()?,
        })
    }

    /// The score of the query and the key that begin at `q` and `k`. What has no number in f32 once
    /// it is multiplied by log2(e) is -infinity.
    pub(crate) fn score(&self, q: usize, k: usize, bias: f64) -> f64 {
        const LEAST: f64 = -(f32::MAX as f64) / std::f64::consts::LOG2_E;
        let score = self.scale * dot(&self.q[q..q + self.d], &self.k[k..k + self.d]) + bias;
        if score < LEAST {
            return f64::NEG_INFINITY;
        }
        score
    }

    /// Writes results `o` and `lse`, which are arguments `o` and the one behind it.
    pub(crate) fn forward(
        &self,
        call: &mut HostCall,
        o: usize,
        rows: impl Iterator<Item = Row>,
    ) -> Result<()> {
        let (mut to, mut lse) = (call.one(o)?.zeros(), call.one(o + 1)?.zeros());
        for row in rows {
            // A NaN is not greater than anything, but stays in the sum.
            let most = row.scores.iter().fold(f64::MIN, |m, s| m.max(s.1));
            let sum: f64 = row.scores.iter().map(|s| (s.1 - most).exp()).sum();
            lse[row.lse] = most + sum.ln();
            for (key, score) in row.scores.iter().filter(|_| sum != 0.0) {
                let weight = (score - most).exp() / sum;
                let values = &self.v[*key..*key + self.d];
                add(&mut to[row.q..row.q + self.d], weight, values);
            }
        }
        call.one_mut(o)?.set_f64(&to)?;
        call.one_mut(o + 1)?.set_f64(&lse)
    }

    /// The gradients, where the gradient of the results is argument 0 and `o` and `lse` are 4 and 5.
    /// Tells `bias` of each row, the number of a key among those that it sees, and the gradient of
    /// the score.
    pub(crate) fn backward(
        &self,
        call: &HostCall,
        rows: impl Iterator<Item = Row>,
        mut bias: impl FnMut(&Row, usize, f64),
    ) -> Result<Gradients> {
        let read = |index: usize| call.one(index)?.to_f64();
        let (d_o, o, lse) = (read(0)?, read(4)?, read(5)?);
        let [mut dq, mut dk, mut dv] = [&self.q, &self.k, &self.v].map(|of| vec![0.0; of.len()]);
        for row in rows.filter(|row| lse[row.lse] != f64::NEG_INFINITY) {
            let own = row.q..row.q + self.d;
            let (d_o, q) = (&d_o[own.clone()], &self.q[own.clone()]);
            let mean = dot(d_o, &o[own.clone()]);
            for (number, (key, score)) in row.scores.iter().enumerate() {
                let of_key = *key..key + self.d;
                let weight = (score - lse[row.lse]).exp();
                let slope = weight * (dot(d_o, &self.v[of_key.clone()]) - mean);
                bias(&row, number, slope);
                add(&mut dv[of_key.clone()], weight, d_o);
                add(
                    &mut dq[own.clone()],
                    slope * self.scale,
                    &self.k[of_key.clone()],
                );
                add(&mut dk[of_key], slope * self.scale, q);
            }
        }
        Ok([dq, dk, dv])
    }
}

/// Extent `dim` of argument `index`.
pub(crate) fn extent(call: &HostCall, index: usize, dim: usize) -> Result<usize> {
    Ok(usize::try_from(call.one(index)?.shape[dim]).unwrap_or(0))
}

/// The numbers of an optional argument.
pub(crate) fn optional(call: &HostCall, index: usize) -> Result<Option<Vec<f64>>> {
    let given = call.args[index].first();
    given.map(HostTensor::to_f64).transpose()
}

/// Writes gradients to argument `dq` and those behind it.
pub(crate) fn write(call: &mut HostCall, dq: usize, gradients: &Gradients) -> Result<()> {
    for (index, gradient) in gradients.iter().enumerate() {
        call.one_mut(dq + index)?.set_f64(gradient)?;
    }
    Ok(())
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

/// The factor of scores as a launch scalar: `1 / sqrt(D)` where none is given.
#[allow(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
pub(crate) fn scale(given: Option<f64>, q: &Tensor) -> Attr {
    let d = q.shape().last().map_or(1, |&d| d.max(1));
    Attr::F64(given.unwrap_or_else(|| 1.0 / (d as f64).sqrt()))
}
