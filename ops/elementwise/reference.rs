//! What the ops mean, in f64. Scalars are f32, as the kernels of every accelerator have them.

use ds_core::{Result, op::HostCall};

fn of_one(call: &mut HostCall, f: impl Fn(f64) -> f64) -> Result<()> {
    let y: Vec<f64> = call.one(0)?.to_f64()?.into_iter().map(f).collect();
    call.one_mut(1)?.set_f64(&y)
}

fn of_two(call: &mut HostCall, f: impl Fn(f64, f64) -> f64) -> Result<()> {
    let (a, b) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let y: Vec<f64> = a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect();
    call.one_mut(2)?.set_f64(&y)
}

#[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
fn scalar(call: &HostCall, index: usize) -> Result<f64> {
    Ok(f64::from(call.scalar(index)? as f32))
}

/// `op(a, b) -> y`, named like their ops.
macro_rules! binary {
    ($($name:ident: $f:expr;)*) => {
        $(pub(super) fn $name(call: &mut HostCall) -> Result<()> { of_two(call, $f) })*
    };
}

binary! {
    add: |a, b| a + b;
    sub: |a, b| a - b;
    mul: |a, b| a * b;
    div: |a, b| a / b;
    maximum: |a, b| if a > b || a.is_nan() { a } else { b };
    minimum: |a, b| if a < b || a.is_nan() { a } else { b };
}

/// `op(x) -> y`, named like their ops.
macro_rules! unary {
    ($($name:ident: $f:expr;)*) => {
        $(pub(super) fn $name(call: &mut HostCall) -> Result<()> { of_one(call, $f) })*
    };
}

unary! {
    neg: |x| -x;
    abs: f64::abs;
    exp: f64::exp;
    log: f64::ln;
    sqrt: f64::sqrt;
    rsqrt: |x| 1.0 / x.sqrt();
    square: |x| x * x;
    reciprocal: |x| 1.0 / x;
}

/// `add_scaled(a, b, alpha) -> y`.
pub(super) fn add_scaled(call: &mut HostCall) -> Result<()> {
    let alpha = scalar(call, 0)?;
    of_two(call, |a, b| a + alpha * b)
}

/// `scale(x, factor, shift) -> y`.
pub(super) fn scale(call: &mut HostCall) -> Result<()> {
    let (factor, shift) = (scalar(call, 0)?, scalar(call, 1)?);
    of_one(call, |x| factor * x + shift)
}

/// `clamp(x, min, max) -> y`.
pub(super) fn clamp(call: &mut HostCall) -> Result<()> {
    let (min, max) = (scalar(call, 0)?, scalar(call, 1)?);
    of_one(call, |x| {
        let at_least = if x < min { min } else { x };
        if at_least > max { max } else { at_least }
    })
}

/// `select(condition, a, b) -> y`.
pub(super) fn select(call: &mut HostCall) -> Result<()> {
    let condition = call.one(0)?.to_f64()?;
    let (a, b) = (call.one(1)?.to_f64()?, call.one(2)?.to_f64()?);
    let chosen = condition.into_iter().zip(a.into_iter().zip(b));
    let y: Vec<f64> = chosen
        .map(|(holds, (a, b))| if holds == 0.0 { b } else { a })
        .collect();
    call.one_mut(3)?.set_f64(&y)
}

/// `masked_fill(x, mask, value) -> y`.
pub(super) fn masked_fill(call: &mut HostCall) -> Result<()> {
    let value = scalar(call, 0)?;
    of_two(call, |x, mask| if mask == 0.0 { x } else { value })
}
