//! What the ops mean, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// `layer_norm(x, weight, bias, eps) -> (y, mean, rstd)`.
pub(super) fn layer_norm(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    norm(call, &x, 1, 3)
}

/// `add_layer_norm(x, residual, add_bias, weight, bias, eps) -> (sum, y, mean, rstd)`.
pub(super) fn add_layer_norm(call: &mut HostCall) -> Result<()> {
    let (x, residual) = (call.one(0)?, call.one(1)?.to_f64()?);
    let d = row_length(x);
    let add_bias = vector(call, 2, d, 0.0)?;
    let added = x.to_f64()?.into_iter().zip(residual).enumerate();
    let sum: Vec<f64> = added
        .map(|(index, (x, residual))| x + add_bias[index % d.max(1)] + residual)
        .collect();
    // What is normalised is the sum as it is kept.
    let kept = HostTensor::from_f64(x.dtype, &x.shape, &sum)?.to_f64()?;
    call.one_mut(5)?.set_f64(&sum)?;
    norm(call, &kept, 3, 6)
}

/// The norm of `x`, with the weight and bias that are the arguments from `weight` on, into the
/// arguments from `y` on.
fn norm(call: &mut HostCall, x: &[f64], weight: usize, y: usize) -> Result<()> {
    let d = row_length(call.one(0)?);
    let eps = call.scalar(0)?;
    let (weight, bias) = (
        vector(call, weight, d, 1.0)?,
        vector(call, weight + 1, d, 0.0)?,
    );
    let (mut result, mut means, mut rstds) = (Vec::with_capacity(x.len()), Vec::new(), Vec::new());
    for row in rows(x, d) {
        let mean = row.iter().sum::<f64>() / count(d);
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count(d);
        let rstd = 1.0 / (variance + eps).sqrt();
        // A row without a variance has no mean either.
        means.push(if variance.is_finite() { mean } else { f64::NAN });
        rstds.push(rstd);
        let scaled = row.iter().zip(&weight).zip(&bias);
        result.extend(scaled.map(|((v, w), b)| (v - mean) * rstd * w + b));
    }
    call.one_mut(y)?.set_f64(&result)?;
    call.one_mut(y + 1)?.set_f64(&means)?;
    call.one_mut(y + 2)?.set_f64(&rstds)
}

/// `layer_norm_backward(dy, x, weight, mean, rstd) -> (dx, dweight, dbias)`.
pub(super) fn layer_norm_backward(call: &mut HostCall) -> Result<()> {
    let zeros = call.one(0)?.zeros();
    gradients(call, &zeros, 1)
}

/// `add_layer_norm_backward(dy, dsum, sum, weight, mean, rstd) -> (dx, dweight, dbias)`.
pub(super) fn add_layer_norm_backward(call: &mut HostCall) -> Result<()> {
    let dsum = call.one(1)?.to_f64()?;
    gradients(call, &dsum, 2)
}

/// Gradients of the norm of the argument `x`, with `dsum` added to the first.
fn gradients(call: &mut HostCall, dsum: &[f64], x: usize) -> Result<()> {
    let (dy, values) = (call.one(0)?.to_f64()?, call.one(x)?.to_f64()?);
    let d = row_length(call.one(0)?);
    let weight = vector(call, x + 1, d, 1.0)?;
    let (mean, rstd) = (call.one(x + 2)?.to_f64()?, call.one(x + 3)?.to_f64()?);
    let mut dx = Vec::with_capacity(dy.len());
    let (mut dweight, mut dbias) = (vec![0.0; d], vec![0.0; d]);
    let all = rows(&dy, d).zip(rows(&values, d)).zip(rows(dsum, d));
    for (((dy, x), dsum), (mean, rstd)) in all.zip(mean.iter().zip(rstd)) {
        let normal: Vec<f64> = x.iter().map(|v| (v - mean) * rstd).collect();
        let slope: Vec<f64> = dy.iter().zip(&weight).map(|(g, w)| g * w).collect();
        let plain = slope.iter().sum::<f64>() / count(d);
        let dot = slope.iter().zip(&normal).map(|(g, n)| g * n).sum::<f64>() / count(d);
        for (index, (g, n)) in slope.iter().zip(&normal).enumerate() {
            dx.push(rstd * (g - plain - n * dot) + dsum[index]);
            dweight[index] += dy[index] * n;
            dbias[index] += dy[index];
        }
    }
    call.one_mut(x + 4)?.set_f64(&dx)?;
    call.one_mut(x + 5)?.set_f64(&dweight)?;
    call.one_mut(x + 6)?.set_f64(&dbias)
}

/// The optional argument `index`, or `d` times `missing`.
fn vector(call: &HostCall, index: usize, d: usize, missing: f64) -> Result<Vec<f64>> {
    match call.args[index].first() {
        Some(given) => given.to_f64(),
        None => Ok(vec![missing; d]),
    }
}

fn row_length(tensor: &HostTensor) -> usize {
    let last = tensor.shape.last().copied().unwrap_or(0);
    usize::try_from(last).unwrap_or(0)
}

/// Rows of `d` elements; none when there are no elements.
fn rows(values: &[f64], d: usize) -> impl Iterator<Item = &[f64]> {
    values.chunks_exact(d.max(1))
}

#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
fn count(d: usize) -> f64 {
    d as f64
}
