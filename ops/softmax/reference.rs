//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

/// `softmax(x, mask, scale, causal) -> y`.
pub(super) fn softmax(call: &mut HostCall) -> Result<()> {
    let (scale, causal) = (call.scalar(0)?, call.flag(0)?);
    let (d, queries) = extents(&call.one(0)?.shape);
    let mut scores: Vec<f64> = call.one(0)?.to_f64()?.iter().map(|x| scale * x).collect();
    let mask = call.args[1].first();
    let is_masked = mask.is_some();
    if let Some(mask) = mask {
        for (score, mask) in scores.iter_mut().zip(mask.to_f64()?) {
            *score += mask;
        }
    }
    for (row, scores) in scores.chunks_exact_mut(d.max(1)).enumerate() {
        let visible = if causal {
            (d + row % queries + 1).saturating_sub(queries).min(d)
        } else {
            d
        };
        let (seen, hidden) = scores.split_at_mut(visible);
        hidden.fill(0.0);
        if is_masked && seen.iter().all(|&score| score == f64::NEG_INFINITY) {
            seen.fill(0.0);
            continue;
        }
        let (max, sum) = max_and_sum(seen);
        for score in seen {
            *score = (*score - max).exp() / sum;
        }
    }
    call.one_mut(2)?.set_f64(&scores)
}

/// `softmax_backward(dy, y, scale) -> dx`.
pub(super) fn softmax_backward(call: &mut HostCall) -> Result<()> {
    let scale = call.scalar(0)?;
    gradient(call, |dy, y| {
        let sum: f64 = dy.iter().zip(y).map(|(g, p)| g * p).sum();
        let one = |(g, p): (&f64, &f64)| scale * p * (g - sum);
        dy.iter().zip(y).map(one).collect()
    })
}

/// `log_softmax(x) -> y`.
pub(super) fn log_softmax(call: &mut HostCall) -> Result<()> {
    let (d, _) = extents(&call.one(0)?.shape);
    let mut y = call.one(0)?.to_f64()?;
    for row in y.chunks_exact_mut(d.max(1)) {
        let (max, sum) = max_and_sum(row);
        for x in row {
            *x = *x - max - sum.ln();
        }
    }
    call.one_mut(1)?.set_f64(&y)
}

/// `log_softmax_backward(dy, y) -> dx`.
pub(super) fn log_softmax_backward(call: &mut HostCall) -> Result<()> {
    gradient(call, |dy, y| {
        let sum: f64 = dy.iter().sum();
        dy.iter().zip(y).map(|(g, y)| g - y.exp() * sum).collect()
    })
}

/// `dx` of each row from its `dy` and `y`.
fn gradient(call: &mut HostCall, of: impl Fn(&[f64], &[f64]) -> Vec<f64>) -> Result<()> {
    let (d, _) = extents(&call.one(1)?.shape);
    let (dy, y) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let rows = dy.chunks_exact(d.max(1)).zip(y.chunks_exact(d.max(1)));
    let dx: Vec<f64> = rows.flat_map(|(dy, y)| of(dy, y)).collect();
    call.one_mut(2)?.set_f64(&dx)
}

/// The greatest value, and the sum of the exponentials of the differences to it.
fn max_and_sum(row: &[f64]) -> (f64, f64) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (max, row.iter().map(|x| (x - max).exp()).sum())
}

/// The last dimension, and the one before it; 1 where there is none.
fn extents(shape: &[i64]) -> (usize, usize) {
    let mut last = shape.iter().rev().map(|&e| usize::try_from(e).unwrap_or(0));
    (last.next().unwrap_or(1), last.next().unwrap_or(1))
}
