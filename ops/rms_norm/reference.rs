//! What the ops mean, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// `rms_norm(x, weight, eps) -> (y, rstd)`.
pub(super) fn rms_norm(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    norm(call, &x, 1, 2)
}

/// `add_rms_norm(x, residual, bias, weight, eps) -> (sum, y, rstd)`.
pub(super) fn add_rms_norm(call: &mut HostCall) -> Result<()> {
    let (x, residual) = (call.one(0)?, call.one(1)?.to_f64()?);
    let mut sum: Vec<f64> = x
        .to_f64()?
        .iter()
        .zip(residual)
        .map(|(x, r)| x + r)
        .collect();
    if let Some(bias) = call.args[2].first() {
        let bias = bias.to_f64()?;
        for row in sum.chunks_exact_mut(bias.len().max(1)) {
            row.iter_mut()
                .zip(&bias)
                .for_each(|(sum, bias)| *sum += bias);
        }
    }
    // What is normalised is the sum as it is kept.
    let kept = HostTensor::from_f64(x.dtype, &x.shape, &sum)?.to_f64()?;
    call.one_mut(4)?.set_f64(&sum)?;
    norm(call, &kept, 3, 5)
}

/// The norm of `x` with the argument `weight`, into the arguments from `y` on.
fn norm(call: &mut HostCall, x: &[f64], weight: usize, y: usize) -> Result<()> {
    let weight = call.one(weight)?.to_f64()?;
    let eps = call.scalar(0)?;
    let d = weight.len();
    let mut result = Vec::with_capacity(x.len());
    let mut rstd = Vec::new();
    for row in rows(x, d) {
        let r = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / count(d) + eps).sqrt();
        result.extend(row.iter().zip(&weight).map(|(v, w)| v * r * w));
        rstd.push(r);
    }
    call.one_mut(y)?.set_f64(&result)?;
    call.one_mut(y + 1)?.set_f64(&rstd)
}

/// `rms_norm_backward(dy, x, weight, rstd) -> (dx, dweight)`.
pub(super) fn rms_norm_backward(call: &mut HostCall) -> Result<()> {
    let zeros = call.one(0)?.zeros();
    gradients(call, &zeros, 1)
}

/// `add_rms_norm_backward(dy, dsum, sum, weight, rstd) -> (dx, dweight)`.
pub(super) fn add_rms_norm_backward(call: &mut HostCall) -> Result<()> {
    let dsum = call.one(1)?.to_f64()?;
    gradients(call, &dsum, 2)
}

/// Gradients of the norm of the argument `x`, with `dsum` added to the first.
fn gradients(call: &mut HostCall, dsum: &[f64], x: usize) -> Result<()> {
    let (dy, values) = (call.one(0)?.to_f64()?, call.one(x)?.to_f64()?);
    let (weight, rstd) = (call.one(x + 1)?.to_f64()?, call.one(x + 2)?.to_f64()?);
    let d = weight.len();
    let mut dx = Vec::with_capacity(values.len());
    let mut dweight = vec![0.0; d];
    let all = rows(&dy, d).zip(rows(&values, d)).zip(rows(dsum, d));
    for (((dy, x), dsum), r) in all.zip(rstd) {
        let products = dy.iter().zip(x).zip(&weight).map(|((g, v), w)| g * v * w);
        let mean = products.sum::<f64>() / count(d);
        for index in 0..d {
            let (g, v) = (dy[index], x[index]);
            dx.push(r * (g * weight[index] - v * r * r * mean) + dsum[index]);
            dweight[index] += g * v * r;
        }
    }
    call.one_mut(x + 3)?.set_f64(&dx)?;
    call.one_mut(x + 4)?.set_f64(&dweight)
}

/// Rows of `d` elements; none when there are no elements.
fn rows(values: &[f64], d: usize) -> impl Iterator<Item = &[f64]> {
    values.chunks_exact(d.max(1))
}

#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
fn count(d: usize) -> f64 {
    d as f64
}
