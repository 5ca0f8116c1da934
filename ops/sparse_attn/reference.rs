//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

use crate::attend::{Row, Tokens, extent, optional, write};

/// A call of either op.
struct Problem {
    tokens: Tokens,
    heads: usize,
    /// Of a sequence.
    queries: usize,
    blocks: usize,
    rows: usize,
    layout: Vec<i64>,
    causal: bool,
    key_padding_mask: Option<Vec<f64>>,
    attn_mask: Option<Vec<f64>>,
}

impl Problem {
    /// Of a call whose queries are argument `q`, with keys and values behind them.
    fn of(call: &HostCall, q: usize, layout: usize) -> Result<Self> {
        let [batch, queries, heads] = [0, 1, 2].map(|dim| extent(call, q, dim));
        let (batch, queries, heads) = (batch?, queries?, heads?);
        let blocks = extent(call, layout, 1)?;
        Ok(Self {
            tokens: Tokens::of(call, q)?,
            heads,
            queries,
            blocks,
            rows: batch * heads * queries,
            layout: call.one(layout)?.to_i64()?,
            causal: call.flag(0)?,
            key_padding_mask: optional(call, layout + 1)?,
            attn_mask: optional(call, layout + 2)?,
        })
    }

    fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.rows).map(|lse| {
            let (i, head) = (lse % self.queries, lse / self.queries);
            let (h, b) = (head % self.heads, head / self.heads);
            let block = self.queries.div_ceil(self.blocks.max(1));
            let is_seen = |j: usize| {
                let row = (h * self.blocks + i / block) * self.blocks;
                self.blocks > 0 && self.layout[row + j / block] != 0
            };
            let number = |i: usize| ((b * self.queries + i) * self.heads + h) * self.tokens.d;
            let at = |of: &Option<Vec<f64>>, at: usize| of.as_ref().map_or(0.0, |of| of[at]);
            let score = |j: usize| {
                let mask = at(&self.key_padding_mask, b * self.queries + j)
                    + at(&self.attn_mask, i * self.queries + j);
                (number(j), self.tokens.score(number(i), number(j), mask))
            };
            let end = if self.causal { i + 1 } else { self.queries };
            let seen = (0..end).filter(|j| is_seen(*j));
            Row {
                q: number(i),
                lse,
                scores: seen.map(score).collect(),
            }
        })
    }
}

/// `sparse_attn(q, k, v, layout, key_padding_mask, attn_mask, scale, causal) -> (o, lse)`.
pub(super) fn sparse_attn(call: &mut HostCall) -> Result<()> {
    let problem = Problem::of(call, 0, 3)?;
    problem.tokens.forward(call, 6, problem.rows())
}

/// `sparse_attn_backward(do, q, k, v, o, lse, layout, key_padding_mask, attn_mask, scale, causal)
/// -> (dq, dk, dv)`.
pub(super) fn sparse_attn_backward(call: &mut HostCall) -> Result<()> {
    let problem = Problem::of(call, 1, 6)?;
    let gradients = problem
        .tokens
        .backward(call, problem.rows(), |_, _, _| ())?;
    write(call, 9, &gradients)
}
