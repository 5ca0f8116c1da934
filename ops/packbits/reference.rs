//! What the ops mean.

use ds_core::{Result, op::HostCall};

/// `packbits(x) -> bits`.
pub(super) fn packbits(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?;
    let is_float = x.dtype.is_float();
    // A NaN is not less than 0 either.
    let bit = |&v: &f64| {
        u8::from(if is_float {
            v >= 0.0 || v.is_nan()
        } else {
            v != 0.0
        })
    };
    let bytes = x.to_f64()?;
    let byte = |eight: &[f64]| f64::from(eight.iter().fold(0, |byte, v| byte << 1 | bit(v)));
    let bits: Vec<f64> = bytes.chunks(8).map(byte).collect();
    call.one_mut(1)?.set_f64(&bits)
}

/// `unpackbits(bits, signs) -> x`.
pub(super) fn unpackbits(call: &mut HostCall) -> Result<()> {
    let zero = if call.flag(0)? { -1.0 } else { 0.0 };
    let bits = &call.one(0)?.bytes;
    let eight = |&byte: &u8| {
        (0..8)
            .rev()
            .map(move |bit| if byte >> bit & 1 == 1 { 1.0 } else { zero })
    };
    let x: Vec<f64> = bits.iter().flat_map(eight).collect();
    call.one_mut(1)?.set_f64(&x)
}
