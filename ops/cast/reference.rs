//! What the op means.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};
use ds_schema::DType;

/// `cast(x) -> y`: f64 holds every value of the float dtypes, so there is one rounding.
pub(super) fn cast(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?;
    let to = call.one(1)?.dtype;
    let values = if to.is_float() || x.dtype.is_float() {
        x.to_f64()?
    } else {
        return integers(x.to_i64()?, call.one_mut(1)?);
    };
    if to.is_float() {
        return call.one_mut(1)?.set_f64(&values);
    }
    let is_set = |value: f64| i64::from(value != 0.0);
    let integer: fn(f64) -> i64 = match to {
        DType::I8 => |value| i64::from(value as i8),
        DType::U8 => |value| i64::from(value as u8),
        DType::I16 => |value| i64::from(value as i16),
        DType::I32 => |value| i64::from(value as i32),
        DType::I64 => |value| value as i64,
        _ => is_set,
    };
    integers(values.into_iter().map(integer).collect(), call.one_mut(1)?)
}

/// Low bits of the integers.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is cut off is the rule"
)]
fn integers(values: Vec<i64>, y: &mut HostTensor) -> Result<()> {
    y.bytes = match y.dtype {
        DType::Bool => values.iter().map(|&v| u8::from(v != 0)).collect(),
        dtype => values
            .iter()
            .flat_map(|value| value.to_le_bytes()[..dtype.size_bytes()].to_vec())
            .collect(),
    };
    Ok(())
}
