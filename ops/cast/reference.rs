//! What the op means.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};
use ds_schema::DType;

/// `cast(x) -> y`: f64 holds every value of the float dtypes, so there is one rounding.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "towards zero and within the bounds is what `as` does"
)]
pub(super) fn cast(call: &mut HostCall) -> Result<()> {
    let (x, to) = (call.one(0)?, call.one(1)?.dtype);
    if to.is_float() {
        let values = x.to_f64()?;
        return call.one_mut(1)?.set_f64(&values);
    }
    let integers = if x.dtype.is_float() {
        let integer: fn(f64) -> i64 = match to {
            DType::I8 => |value| i64::from(value as i8),
            DType::U8 => |value| i64::from(value as u8),
            DType::I16 => |value| i64::from(value as i16),
            DType::I32 => |value| i64::from(value as i32),
            DType::I64 => |value| value as i64,
            _ => |value| i64::from(value != 0.0),
        };
        x.to_f64()?.into_iter().map(integer).collect()
    } else {
        x.to_i64()?
    };
    set_low_bits(call.one_mut(1)?, &integers);
    Ok(())
}

fn set_low_bits(y: &mut HostTensor, integers: &[i64]) {
    let size = y.dtype.size_bytes();
    y.bytes = match y.dtype {
        DType::Bool => integers.iter().map(|&v| u8::from(v != 0)).collect(),
        _ if cfg!(target_endian = "little") => (integers.iter())
            .flat_map(|value| value.to_le_bytes().into_iter().take(size))
            .collect(),
        _ => (integers.iter())
            .flat_map(|value| value.to_be_bytes().into_iter().skip(8 - size))
            .collect(),
    };
}
