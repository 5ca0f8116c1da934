//! What the ops mean, in f64.

use ds_core::{Result, RngState, op::HostCall};

/// `dropout(x, seed, offset, p) -> y`.
pub(super) fn dropout(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let y = dropped(call, x)?;
    call.one_mut(1)?.set_f64(&y)
}

/// `bias_dropout_add(x, residual, bias, seed, offset, p) -> y`.
pub(super) fn bias_dropout_add(call: &mut HostCall) -> Result<()> {
    let (mut x, residual) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    if let Some(bias) = call.args[2].first() {
        let bias = bias.to_f64()?;
        for row in x.chunks_exact_mut(bias.len().max(1)) {
            row.iter_mut().zip(&bias).for_each(|(x, bias)| *x += bias);
        }
    }
    let mut y = dropped(call, x)?;
    y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
    call.one_mut(3)?.set_f64(&y)
}

/// What the call's seed, offset and p leave of `x`.
fn dropped(call: &HostCall, x: Vec<f64>) -> Result<Vec<f64>> {
    let state = RngState {
        seed: HostCall::integer(&call.scalars, 0)?.cast_unsigned(),
        offset: HostCall::integer(&call.scalars, 1)?.cast_unsigned(),
    };
    let p = call.scalar(2)?;
    let one = |(index, x): (u64, f64)| {
        if f64::from(state.uniform(index)) >= p {
            x / (1.0 - p)
        } else {
            0.0
        }
    };
    Ok((0..).zip(x).map(one).collect())
}
