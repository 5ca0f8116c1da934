//! What the op means, in f64.

use ds_core::{Result, op::HostCall};

/// `adam_step(params, grads, exp_avg, exp_avg_sq, found_inf, lr, beta1, beta2, eps, weight_decay,
/// step)` with the attributes `adamw` and `bias_correction`.
pub(super) fn adam_step(call: &mut HostCall) -> Result<()> {
    if let Some(flag) = call.args[4].first()
        && flag.to_f64()?.iter().any(|&value| value != 0.0)
    {
        return Ok(());
    }
    let (adamw, bias_correction) = (call.flag(0)?, call.flag(1)?);
    let (lr, beta1, beta2) = (call.scalar(0)?, call.scalar(1)?, call.scalar(2)?);
    let (eps, weight_decay, step) = (call.scalar(3)?, call.scalar(4)?, call.scalar(5)?);
    let correction = |beta: f64| {
        if bias_correction {
            1.0 - beta.powf(step)
        } else {
            1.0
        }
    };
    let (correction1, correction2) = (correction(beta1), correction(beta2).sqrt());
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = call.args[1][index].to_f64()?;
        let mut m = call.args[2][index].to_f64()?;
        let mut v = call.args[3][index].to_f64()?;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(&mut m).zip(&mut v) {
            let g = if adamw { g } else { g + weight_decay * *p };
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            if adamw {
                *p -= lr * weight_decay * *p;
            }
            *p -= lr / correction1 * *m / (v.sqrt() / correction2 + eps);
        }
        call.args[0][index].set_f64(&p)?;
        call.args[2][index].set_f64(&m)?;
        call.args[3][index].set_f64(&v)?;
    }
    Ok(())
}
