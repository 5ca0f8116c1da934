//! What the ops mean, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

use crate::lists::skips;

/// `sgd_step(params, grads, found_inf, lr, weight_decay)`.
pub(super) fn sgd_step(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[2])? {
        return Ok(());
    }
    let (lr, weight_decay) = (call.scalar(0)?, call.scalar(1)?);
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = decayed(&p, &call.args[1][index], weight_decay)?;
        for (p, g) in p.iter_mut().zip(g) {
            *p -= lr * g;
        }
        call.args[0][index].set_f64(&p)?;
    }
    Ok(())
}

/// `sgd_momentum_step(params, grads, momentum_buffer, found_inf, lr, momentum, dampening,
/// weight_decay, step)` with the attribute `nesterov`.
pub(super) fn sgd_momentum_step(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[3])? {
        return Ok(());
    }
    let nesterov = call.flag(0)?;
    let (lr, momentum, dampening) = (call.scalar(0)?, call.scalar(1)?, call.scalar(2)?);
    let weight_decay = call.scalar(3)?;
    let is_first = HostCall::integer(&call.scalars, 4)? == 1;
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = decayed(&p, &call.args[1][index], weight_decay)?;
        let mut buffer = call.args[2][index].to_f64()?;
        for ((p, g), b) in p.iter_mut().zip(g).zip(&mut buffer) {
            *b = if is_first {
                g
            } else {
                momentum * *b + (1.0 - dampening) * g
            };
            *p -= lr * if nesterov { g + momentum * *b } else { *b };
        }
        call.args[0][index].set_f64(&p)?;
        call.args[2][index].set_f64(&buffer)?;
    }
    Ok(())
}

fn decayed(p: &[f64], grad: &HostTensor, weight_decay: f64) -> Result<Vec<f64>> {
    let mut g = grad.to_f64()?;
    if weight_decay != 0.0 {
        for (g, p) in g.iter_mut().zip(p) {
            *g += weight_decay * p;
        }
    }
    Ok(g)
}
