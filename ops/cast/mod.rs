//! Conversion between float dtypes.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("cast", reference::cast)];

static CAST: OpCell = OpCell::new("cast");

/// The values of `x` as `dtype`: to the nearest, ties to even; beyond the range infinity.
///
/// # Shapes
/// `x` of any shape; the result has the same.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] for a dtype that the schema does not list.
pub fn cast(stream: &Stream, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let y = Tensor::empty(stream, dtype, x.shape())?;
    op::launch(CAST.op()?, stream, &[&[x], &[&y]], &[], &[])?;
    Ok(y)
}
