//! Comparison of a device's results with the reference implementation, element by element.

use ds_core::{
    Result, Stream, Tensor,
    op::{self, Args, HostTensor, Wrong},
};
use ds_schema::Attr;

/// Runs `name` on `stream` and on the reference, and gives what is wrong.
///
/// # Errors
/// When the call does not run.
pub fn with_reference(
    name: &str,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<Vec<Wrong>> {
    let verified = op::verify_call(op::find(name)?, stream, args, attributes, scalars)?;
    Ok(verified.wrong)
}

/// The elements of a tensor of any float dtype.
///
/// # Errors
/// When the device's work failed.
pub fn values(stream: &Stream, tensor: &Tensor) -> Result<Vec<f64>> {
    HostTensor {
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.to_bytes(stream)?,
    }
    .to_f64()
}
