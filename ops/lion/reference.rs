//! What the op means, in f64; but for the sum whose sign decides, which is defined to the bit.

use ds_core::{Result, op::HostCall};

use crate::lists::skips;

/// `lion_step(params, grads, exp_avg, found_inf, lr, beta1, beta2, weight_decay)`.
pub(super) fn lion_step(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[3])? {
        return Ok(());
    }
    let (lr, beta1, beta2) = (call.scalar(0)?, call.scalar(1)?, call.scalar(2)?);
    let weight_decay = call.scalar(3)?;
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = call.args[1][index].to_f64()?;
        let mut m = call.args[2][index].to_f64()?;
        for ((p, g), m) in p.iter_mut().zip(g).zip(&mut m) {
            let direction = direction(*m, g, beta1);
            let update = if direction.is_nan() {
                f64::NAN
            } else {
                lr.copysign(f64::from(direction))
            };
            *p = *p * (1.0 - lr * weight_decay) - update;
            *m = beta2 * *m + (1.0 - beta2) * g;
        }
        call.args[0][index].set_f64(&p)?;
        call.args[2][index].set_f64(&m)?;
    }
    Ok(())
}

/// `beta1 m + (1 - beta1) g` in f32, each product rounded, then their sum.
#[allow(clippy::cast_possible_truncation, reason = "rounding is what it means")]
fn direction(m: f64, g: f64, beta1: f64) -> f32 {
    m as f32 * beta1 as f32 + g as f32 * (1.0 - beta1) as f32
}
