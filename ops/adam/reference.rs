//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

use crate::lists::skips;

/// What a step depends on beside the tensors.
struct Step {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    adamw: bool,
    /// `1 - beta1^step`, and the root of `1 - beta2^step`.
    corrections: (f64, f64),
}

impl Step {
    fn of(call: &HostCall) -> Result<Self> {
        let (adamw, bias_correction) = (call.flag(0)?, call.flag(1)?);
        let (beta1, beta2, step) = (call.scalar(1)?, call.scalar(2)?, call.scalar(5)?);
        let correction = |beta: f64| {
            if bias_correction {
                1.0 - beta.powf(step)
            } else {
                1.0
            }
        };
        Ok(Self {
            lr: call.scalar(0)?,
            beta1,
            beta2,
            eps: call.scalar(3)?,
            weight_decay: call.scalar(4)?,
            adamw,
            corrections: (correction(beta1), correction(beta2).sqrt()),
        })
    }

    /// How far moments move a parameter down.
    fn update(&self, m: f64, v: f64) -> f64 {
        self.lr / self.corrections.0 * m / (v.sqrt() / self.corrections.1 + self.eps)
    }

    /// The gradient, with the decay of L2.
    fn decayed(&self, g: f64, p: f64) -> f64 {
        if self.adamw {
            g
        } else {
            g + self.weight_decay * p
        }
    }

    /// What decoupled decay leaves of a parameter.
    fn kept(&self) -> f64 {
        if self.adamw {
            1.0 - self.lr * self.weight_decay
        } else {
            1.0
        }
    }
}

/// `adam_step(params, grads, exp_avg, exp_avg_sq, found_inf, lr, beta1, beta2, eps, weight_decay,
/// step)` with the attributes `adamw` and `bias_correction`.
pub(super) fn adam_step(call: &mut HostCall) -> Result<()> {
    let step = Step::of(call)?;
    for_each_element(call, |p, g, m, v| {
        let g = step.decayed(g, *p);
        *m = step.beta1 * *m + (1.0 - step.beta1) * g;
        *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
        *p = step.kept() * *p - step.update(*m, *v);
    })
}

/// `adam_rollback` with the arguments of `adam_step`.
pub(super) fn adam_rollback(call: &mut HostCall) -> Result<()> {
    let step = Step::of(call)?;
    // What was multiplied by 0 is lost.
    let inverse = |beta: f64| if beta == 0.0 { 0.0 } else { 1.0 / beta };
    for_each_element(call, |p, g, m, v| {
        let before = (*p + step.update(*m, *v)) / step.kept();
        *p = if before.is_finite() { before } else { 0.0 };
        let g = step.decayed(g, *p);
        *m = (*m - (1.0 - step.beta1) * g) * inverse(step.beta1);
        *v = (*v - (1.0 - step.beta2) * g * g) * inverse(step.beta2);
        if *v < 0.0 {
            *v = 0.0;
        }
    })
}

/// Updates parameter, first and second moment of each element, from its gradient; nothing when the
/// flag says so.
fn for_each_element(
    call: &mut HostCall,
    update: impl Fn(&mut f64, f64, &mut f64, &mut f64),
) -> Result<()> {
    if skips(&call.args[4])? {
        return Ok(());
    }
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = call.args[1][index].to_f64()?;
        let mut m = call.args[2][index].to_f64()?;
        let mut v = call.args[3][index].to_f64()?;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(&mut m).zip(&mut v) {
            update(p, g, m, v);
        }
        call.args[0][index].set_f64(&p)?;
        call.args[2][index].set_f64(&m)?;
        call.args[3][index].set_f64(&v)?;
    }
    Ok(())
}
