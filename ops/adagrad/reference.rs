//! What the ops mean, in f64.

use std::collections::BTreeMap;

use ds_core::{Result, op::HostCall};

use crate::lists::skips;

/// The launch scalars.
struct Rule {
    lr: f64,
    eps: f64,
    weight_decay: f64,
}

impl Rule {
    fn of(call: &HostCall) -> Result<Self> {
        Ok(Self {
            lr: call.scalar(0)?,
            eps: call.scalar(1)?,
            weight_decay: call.scalar(2)?,
        })
    }

    fn update(&self, p: &mut f64, g: f64, v: &mut f64) {
        let g = match self.weight_decay {
            0.0 => g,
            decay => g + decay * *p,
        };
        *v += g * g;
        *p -= self.lr * g / (v.sqrt() + self.eps);
    }
}

/// `adagrad_step(params, grads, exp_avg_sq, found_inf, lr, eps, weight_decay)`.
pub(super) fn adagrad_step(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[3])? {
        return Ok(());
    }
    let rule = Rule::of(call)?;
    for index in 0..call.args[0].len() {
        let mut p = call.args[0][index].to_f64()?;
        let g = call.args[1][index].to_f64()?;
        let mut v = call.args[2][index].to_f64()?;
        for ((p, g), v) in p.iter_mut().zip(g).zip(&mut v) {
            rule.update(p, g, v);
        }
        call.args[0][index].set_f64(&p)?;
        call.args[2][index].set_f64(&v)?;
    }
    Ok(())
}

/// `adagrad_step_sparse(param, indices, values, exp_avg_sq, found_inf, lr, eps, weight_decay)`.
pub(super) fn adagrad_step_sparse(call: &mut HostCall) -> Result<()> {
    if skips(&call.args[4])? {
        return Ok(());
    }
    let rule = Rule::of(call)?;
    let mut p = call.one(0)?.to_f64()?;
    let mut v = call.one(3)?.to_f64()?;
    let extent = |dim: usize| Ok::<_, ds_core::Error>(call.one(0)?.shape[dim]);
    let (rows, d) = (extent(0)?, usize::try_from(extent(1)?).unwrap_or(0));
    let values = call.one(2)?.to_f64()?;
    let mut sums: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (at, row) in call.one(1)?.to_i64()?.into_iter().enumerate() {
        let Some(row) = (usize::try_from(row).ok()).filter(|_| row < rows) else {
            continue;
        };
        let sum = sums.entry(row).or_insert_with(|| vec![0.0; d]);
        for (sum, value) in sum.iter_mut().zip(&values[at * d..]) {
            *sum += value;
        }
    }
    for (row, sum) in sums {
        let elements = row * d..(row + 1) * d;
        let both = p[elements.clone()].iter_mut().zip(&mut v[elements]);
        for ((p, v), g) in both.zip(sum) {
            rule.update(p, g, v);
        }
    }
    call.one_mut(0)?.set_f64(&p)?;
    call.one_mut(3)?.set_f64(&v)
}
