//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

/// `rms_norm(x, weight, eps) -> (y, rstd)`.
pub(super) fn rms_norm(call: &mut HostCall) -> Result<()> {
    let (x, weight) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let eps = call.scalar(0)?;
    let d = weight.len();
    let mut y = Vec::with_capacity(x.len());
    let mut rstd = Vec::new();
    for row in rows(&x, d) {
        let r = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / count(d) + eps).sqrt();
        y.extend(row.iter().zip(&weight).map(|(v, w)| v * r * w));
        rstd.push(r);
    }
    call.one_mut(2)?.set_f64(&y)?;
    call.one_mut(3)?.set_f64(&rstd)
}

/// `rms_norm_backward(dy, x, weight, rstd) -> (dx, dweight)`.
pub(super) fn rms_norm_backward(call: &mut HostCall) -> Result<()> {
    let (dy, x) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let (weight, rstd) = (call.one(2)?.to_f64()?, call.one(3)?.to_f64()?);
    let d = weight.len();
    let mut dx = Vec::with_capacity(x.len());
    let mut dweight = vec![0.0; d];
    for ((dy, x), r) in rows(&dy, d).zip(rows(&x, d)).zip(rstd) {
        let dot = dy
            .iter()
            .zip(x)
            .zip(&weight)
            .map(|((g, v), w)| g * v * w)
            .sum::<f64>();
        let mean = dot / count(d);
        dx.extend(
            dy.iter()
                .zip(x)
                .zip(&weight)
                .map(|((g, v), w)| r * (g * w - v * r * r * mean)),
        );
        for ((sum, g), v) in dweight.iter_mut().zip(dy).zip(x) {
            *sum += g * v * r;
        }
    }
    call.one_mut(4)?.set_f64(&dx)?;
    call.one_mut(5)?.set_f64(&dweight)
}

/// Rows of `d` elements; none when there are no elements.
fn rows(values: &[f64], d: usize) -> impl Iterator<Item = &[f64]> {
    values.chunks_exact(d.max(1))
}

#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
fn count(d: usize) -> f64 {
    d as f64
}
