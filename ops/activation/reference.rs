//! What the ops mean, in f64.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use ds_core::{Error, ErrorKind, Result, op::HostCall};

/// `activation(x, bias; kind) -> y`.
pub(super) fn activation(call: &mut HostCall) -> Result<()> {
    let f = kind(call)?;
    let y: Vec<f64> = biased(call, 0, 1)?.into_iter().map(|x| f(x).0).collect();
    call.one_mut(2)?.set_f64(&y)
}

/// `activation_backward(dy, x, bias; kind) -> dx`.
pub(super) fn activation_backward(call: &mut HostCall) -> Result<()> {
    let f = kind(call)?;
    let dy = call.one(0)?.to_f64()?;
    let slopes = biased(call, 1, 2)?.into_iter().map(|x| f(x).1);
    let dx: Vec<f64> = dy
        .iter()
        .zip(slopes)
        .map(|(dy, slope)| dy * slope)
        .collect();
    call.one_mut(3)?.set_f64(&dx)
}

/// `gated_activation(gate, up, gate_bias, up_bias; kind) -> y`.
pub(super) fn gated_activation(call: &mut HostCall) -> Result<()> {
    let f = kind(call)?;
    let both = biased(call, 0, 2)?.into_iter().zip(biased(call, 1, 3)?);
    let y: Vec<f64> = both.map(|(gate, up)| f(gate).0 * up).collect();
    call.one_mut(4)?.set_f64(&y)
}

/// `gated_activation_backward(dy, gate, up, gate_bias, up_bias; kind) -> (dgate, dup)`.
pub(super) fn gated_activation_backward(call: &mut HostCall) -> Result<()> {
    let f = kind(call)?;
    let dy = call.one(0)?.to_f64()?;
    let both = biased(call, 1, 3)?.into_iter().zip(biased(call, 2, 4)?);
    let (dgate, dup): (Vec<_>, Vec<_>) = dy
        .into_iter()
        .zip(both)
        .map(|(dy, (gate, up))| (dy * up * f(gate).1, dy * f(gate).0))
        .unzip();
    call.one_mut(5)?.set_f64(&dgate)?;
    call.one_mut(6)?.set_f64(&dup)
}

/// `bias_backward(dy) -> dbias`.
pub(super) fn bias_backward(call: &mut HostCall) -> Result<()> {
    let dy = call.one(0)?.to_f64()?;
    let mut dbias = call.one(1)?.zeros();
    for row in dy.chunks_exact(dbias.len().max(1)) {
        dbias.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy);
    }
    call.one_mut(1)?.set_f64(&dbias)
}

/// `residual_add(x, residual, attention, bias, attention_bias, residual_scale, attention_scale) -> y`.
pub(super) fn residual_add(call: &mut HostCall) -> Result<()> {
    let (residual_scale, attention_scale) = (call.scalar(0)?, call.scalar(1)?);
    let mut y = call.one(0)?.to_f64()?;
    let residual = biased(call, 1, 3)?;
    add(&mut y, &residual, residual_scale);
    if let Some(bias) = call.args[4].first() {
        add(&mut y, &bias.to_f64()?, residual_scale);
    }
    if let Some(attention) = call.args[2].first() {
        add(&mut y, &attention.to_f64()?, attention_scale);
    }
    call.one_mut(5)?.set_f64(&y)
}

/// Adds `scale` times `other`, which every row shares where it is shorter.
fn add(to: &mut [f64], other: &[f64], scale: f64) {
    for row in to.chunks_exact_mut(other.len().max(1)) {
        for (to, other) in row.iter_mut().zip(other) {
            *to += other * scale;
        }
    }
}

/// Argument `x` plus the argument `bias`, where there is one.
fn biased(call: &HostCall, x: usize, bias: usize) -> Result<Vec<f64>> {
    let mut x = call.one(x)?.to_f64()?;
    if let Some(bias) = call.args[bias].first() {
        add(&mut x, &bias.to_f64()?, 1.0);
    }
    Ok(x)
}

/// A function's value and slope.
pub(crate) type Function = fn(f64) -> (f64, f64);

/// The function that the call asks for.
fn kind(call: &HostCall) -> Result<Function> {
    function(HostCall::integer(&call.attributes, 0)?)
}

/// The function of a schema's `kind`.
pub(crate) fn function(kind: i64) -> Result<Function> {
    Ok(match kind {
        0 => |x| (x, 1.0),
        1 => |x| if x <= 0.0 { (0.0, 0.0) } else { (x, 1.0) },
        2 => gelu,
        3 => gelu_tanh,
        4 => |x| {
            let s = sigmoid(x);
            (x * s, s * (1.0 + x * (1.0 - s)))
        },
        5 => |x| (x.tanh(), 1.0 - x.tanh().powi(2)),
        6 => |x| (sigmoid(x), sigmoid(x) * (1.0 - sigmoid(x))),
        other => {
            let text = format!("kind {other} is no function; they are 0 to 6");
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "run an activation",
                text,
            ));
        }
    })
}

fn gelu(x: f64) -> (f64, f64) {
    let half = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
    let density = (-x * x / 2.0).exp() / (2.0 * PI).sqrt();
    (x * half, half + x * density)
}

fn gelu_tanh(x: f64) -> (f64, f64) {
    let root = (2.0 / PI).sqrt();
    let half = 0.5 * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh());
    // Half the slope of a tanh that is 2 half - 1.
    let slope = 2.0 * half * (1.0 - half) * root * (1.0 + 3.0 * 0.044_715 * x * x);
    (x * half, half + x * slope)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function, by its series with terms of one sign; beyond 6 it is 1 in f64.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut sum, mut term, mut n) = (0.0, x, 1.0);
    while sum + term != sum {
        sum += term;
        n += 2.0;
        term *= 2.0 * x * x / n;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Abramowitz and Stegun, table 7.1, and 10 digits more.
    #[test]
    fn the_error_function_is_that_of_the_tables() {
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (-1.0, -0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (7.0, 1.0),
        ] {
            assert!((erf(x) - want).abs() < 1e-15, "{x}: {}", erf(x));
        }
    }
}
