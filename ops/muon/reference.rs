//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

use crate::lists::skips;

/// `muon_momentum(grad, momentum, found_inf, beta) -> update` with the attribute `nesterov`.
pub(super) fn muon_momentum(call: &mut HostCall) -> Result<()> {
    let grad = call.one(0)?.to_f64()?;
    if skips(&call.args[2])? {
        return call.one_mut(3)?.set_f64(&grad);
    }
    let (beta, nesterov) = (call.scalar(0)?, call.flag(0)?);
    let blend = |m: &f64, g: &f64| beta * m + (1.0 - beta) * g;
    let mix = |m: &[f64]| -> Vec<f64> { m.iter().zip(&grad).map(|(m, g)| blend(m, g)).collect() };
    let momentum = mix(&call.one(1)?.to_f64()?);
    let update = if nesterov {
        mix(&momentum)
    } else {
        momentum.clone()
    };
    call.one_mut(1)?.set_f64(&momentum)?;
    call.one_mut(3)?.set_f64(&update)
}

/// `muon_normalize(x, norm, eps) -> y`.
pub(super) fn muon_normalize(call: &mut HostCall) -> Result<()> {
    let by = call.one(1)?.to_f64()?[0] + call.scalar(0)?;
    let y: Vec<f64> = call.one(0)?.to_f64()?.iter().map(|x| x / by).collect();
    call.one_mut(2)?.set_f64(&y)
}

/// `muon_combine(x, y, a, b) -> z`.
pub(super) fn muon_combine(call: &mut HostCall) -> Result<()> {
    let (a, b) = (call.scalar(0)?, call.scalar(1)?);
    let (x, y) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let z: Vec<f64> = x.iter().zip(y).map(|(x, y)| a * x + b * y).collect();
    call.one_mut(2)?.set_f64(&z)
}

/// `muon_apply(param, update, found_inf, lr, weight_decay, scale)`.
pub(super) fn muon_apply(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[2])? {
        return Ok(());
    }
    let (lr, weight_decay, scale) = (call.scalar(0)?, call.scalar(1)?, call.scalar(2)?);
    let update = call.one(1)?.to_f64()?;
    let mut param = call.one(0)?.to_f64()?;
    for (p, u) in param.iter_mut().zip(update) {
        *p = *p * (1.0 - lr * weight_decay) - lr * scale * u;
    }
    call.one_mut(0)?.set_f64(&param)
}
