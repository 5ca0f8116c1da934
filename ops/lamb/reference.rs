//! What the op means, in f64.

use ds_core::{Result, op::HostCall};

use crate::lists::skips;

/// `lamb_step(params, grads, exp_avg, exp_avg_sq, found_inf, lr, beta1, beta2, eps, weight_decay,
/// max_coeff, min_coeff, grad_scale, step) -> ratios` with the attributes `eps_inside_sqrt` and
/// `bias_correction`.
pub(super) fn lamb_step(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[4])? {
        return call.args[5].iter_mut().try_for_each(|r| r.set_f64(&[1.0]));
    }
    let (eps_inside_sqrt, bias_correction) = (call.flag(0)?, call.flag(1)?);
    let (lr, beta1, beta2) = (call.scalar(0)?, call.scalar(1)?, call.scalar(2)?);
    let (eps, weight_decay) = (call.scalar(3)?, call.scalar(4)?);
    let (max_coeff, min_coeff) = (call.scalar(5)?, call.scalar(6)?);
    let (grad_scale, step) = (call.scalar(7)?, call.scalar(8)?);
    let step_size = if bias_correction {
        lr * (1.0 - beta2.powf(step)).sqrt() / (1.0 - beta1.powf(step))
    } else {
        lr
    };
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = call.args[1][index].to_f64()?;
        let mut m = call.args[2][index].to_f64()?;
        let mut v = call.args[3][index].to_f64()?;
        let mut updates = Vec::with_capacity(p.len());
        for (((p, g), m), v) in p.iter().zip(g).zip(&mut m).zip(&mut v) {
            let g = g / grad_scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let root = if eps_inside_sqrt {
                (*v + eps).sqrt()
            } else {
                v.sqrt() + eps
            };
            updates.push(*m / root + weight_decay * p);
        }
        let ratio = ratio(norm(&p), norm(&updates), min_coeff, max_coeff);
        for (p, update) in p.iter_mut().zip(updates) {
            *p -= step_size * ratio * update;
        }
        call.args[0][index].set_f64(&p)?;
        call.args[2][index].set_f64(&m)?;
        call.args[3][index].set_f64(&v)?;
        call.args[5][index].set_f64(&[ratio])?;
    }
    Ok(())
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Not `clamp`, which refuses bounds that cross: the lower one counts last.
fn ratio(param: f64, update: f64, min_coeff: f64, max_coeff: f64) -> f64 {
    if param == 0.0 || update == 0.0 {
        return 1.0;
    }
    let ratio = param / update;
    let ratio = if ratio > max_coeff { max_coeff } else { ratio };
    if ratio < min_coeff { min_coeff } else { ratio }
}
