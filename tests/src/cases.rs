//! Inputs: numbers that are the same at every run.

pub use ds_core::op::Numbers;
use ds_core::{DType, Result, Stream, Tensor, op::HostTensor};

/// A contiguous tensor of these values, rounded to the dtype.
///
/// # Errors
/// When the device has no memory.
pub fn tensor(stream: &Stream, dtype: DType, shape: &[i64], values: &[f64]) -> Result<Tensor> {
    let host = HostTensor::from_f64(dtype, shape, values)?;
    Tensor::from_bytes(stream, dtype, shape, &host.bytes)
}

/// Another tensor with the same elements, of its own memory.
///
/// # Errors
/// When the device has no memory, or its work failed.
pub fn copy(stream: &Stream, tensor: &Tensor) -> Result<Tensor> {
    Tensor::from_bytes(
        stream,
        tensor.dtype(),
        tensor.shape(),
        &tensor.to_bytes(stream)?,
    )
}
