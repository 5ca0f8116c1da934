//! Conversion between dtypes.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("cast", reference::cast)];

static CAST: OpCell = OpCell::new("cast");

/// The values of `x` as `dtype`.
///
/// - To a float: to the nearest, ties to even; beyond the range infinity, and NaN in `f8e4m3`, which has
///   none. i64 beyond 2^53 are rounded to
///   f64 first.
/// - A float to an integer: towards zero; beyond the range its nearest bound, of NaN 0, as Rust's `as`.
/// - An integer to a narrower one: its low bits.
/// - To a boolean: whether it is other than zero, as NaN is; from one: 0 or 1.
///
/// # Shapes
/// `x` of any shape; the result has the same.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] for a dtype that the schema does not list.
///
/// # Upstream
/// `Tensor.to`, whose result for NaN and beyond the range depends on the device.
pub fn cast(stream: &Stream, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let y = Tensor::empty(stream, dtype, x.shape())?;
    op::launch(CAST.op()?, stream, &[&[x], &[&y]], &[], &[])?;
    Ok(y)
}
