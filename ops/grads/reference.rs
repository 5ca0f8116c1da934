//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

/// `grad_norm(grads) -> (norm, found_inf)`.
pub(super) fn grad_norm(call: &mut HostCall) -> Result<()> {
    let mut sum = 0.0;
    let mut finite = true;
    for grad in &call.args[0] {
        let values = grad.to_f64()?;
        finite &= values.iter().all(|v| v.is_finite());
        sum += values.iter().map(|v| v * v).sum::<f64>();
    }
    call.one_mut(1)?.set_f64(&[sum.sqrt()])?;
    call.one_mut(2)?.set_f64(&[f64::from(u8::from(!finite))])
}

/// `grad_scale(grads, by, factor)`.
pub(super) fn grad_scale(call: &mut HostCall) -> Result<()> {
    let by = match call.args[1].first() {
        Some(by) => by.to_f64()?[0],
        None => 1.0,
    };
    let factor = call.scalar(0)? * by;
    multiply(call, factor)
}

/// `grad_clip(grads, norm, max_norm, factor)`.
pub(super) fn grad_clip(call: &mut HostCall) -> Result<()> {
    let norm = call.one(1)?.to_f64()?[0];
    let (max_norm, factor) = (call.scalar(0)?, call.scalar(1)?);
    let clip = max_norm / (factor * norm + 1e-6);
    // Not `min`, which would take 1 for NaN.
    multiply(call, if clip > 1.0 { factor } else { clip * factor })
}

fn multiply(call: &mut HostCall, by: f64) -> Result<()> {
    for grad in &mut call.args[0] {
        let values: Vec<f64> = grad.to_f64()?.iter().map(|v| v * by).collect();
        grad.set_f64(&values)?;
    }
    Ok(())
}
