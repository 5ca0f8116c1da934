//! What the ops mean, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

use crate::attend::{Row, Tokens, extent, optional, write};

/// A call of either op.
struct Problem {
    tokens: Tokens,
    n: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    /// Rows of all heads.
    rows: usize,
    bias1: Option<Vec<f64>>,
    bias2: Option<Vec<f64>>,
}

impl Problem {
    /// Of a call whose queries are argument `q`, with keys and values behind them.
    fn of(call: &HostCall, q: usize, bias: usize) -> Result<Self> {
        let [batch, n, queries, heads] = [0, 1, 2, 3].map(|dim| extent(call, q, dim));
        let (n, queries, heads) = (n?, queries?, heads?);
        Ok(Self {
            tokens: Tokens::of(call, q)?,
            n,
            queries,
            keys: extent(call, q + 1, 2)?,
            heads,
            rows: batch? * n * heads * queries,
            bias1: optional(call, bias)?,
            bias2: optional(call, bias + 1)?,
        })
    }

    /// Of row `lse`: the sequence among all, the head and the query.
    fn place(&self, lse: usize) -> (usize, usize, usize) {
        let (i, head) = (lse % self.queries, lse / self.queries);
        (head / self.heads, head % self.heads, i)
    }

    /// Where the biases of a row begin.
    fn biases_at(&self, lse: usize) -> (usize, usize) {
        let (sequence, h, i) = self.place(lse);
        let pairs = (sequence / self.n * self.heads + h) * self.queries + i;
        (sequence * self.keys, pairs * self.keys)
    }

    /// Each row sees every key, so that a number among those it sees is that of the key.
    fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.rows).map(|lse| {
            let (sequence, h, i) = self.place(lse);
            let (bias1, bias2) = self.biases_at(lse);
            let number = |token: usize| (token * self.heads + h) * self.tokens.d;
            let q = number(sequence * self.queries + i);
            let bias = |of: &Option<Vec<f64>>, at: usize| of.as_ref().map_or(0.0, |b| b[at]);
            let score = |j: usize| {
                let key = number(sequence * self.keys + j);
                let bias = bias(&self.bias1, bias1 + j) + bias(&self.bias2, bias2 + j);
                (key, self.tokens.score(q, key, bias))
            };
            Row {
                q,
                lse,
                scores: (0..self.keys).map(score).collect(),
            }
        })
    }
}

/// `evoformer_attn(q, k, v, bias1, bias2, scale) -> (o, lse)`.
pub(super) fn evoformer_attn(call: &mut HostCall) -> Result<()> {
    let problem = Problem::of(call, 0, 3)?;
    problem.tokens.forward(call, 5, problem.rows())
}

/// `evoformer_attn_backward(do, q, k, v, o, lse, bias1, bias2, dbias1, dbias2, scale) -> (dq, dk, dv)`.
pub(super) fn evoformer_attn_backward(call: &mut HostCall) -> Result<()> {
    let problem = Problem::of(call, 1, 6)?;
    let zeros = |index: usize| call.args[index].first().map(HostTensor::zeros);
    let (mut dbias1, mut dbias2) = (zeros(8), zeros(9));
    let bias = |row: &Row, j: usize, slope: f64| {
        let (bias1, bias2) = problem.biases_at(row.lse);
        for (of, at) in [(&mut dbias1, bias1), (&mut dbias2, bias2)] {
            if let Some(of) = of {
                of[at + j] += slope;
            }
        }
    };
    let gradients = problem.tokens.backward(call, problem.rows(), bias)?;
    for (index, of) in [(8, dbias1), (9, dbias2)] {
        if let Some(of) = of {
            call.one_mut(index)?.set_f64(&of)?;
        }
    }
    write(call, 10, &gradients)
}
