//! Large tensors, made fast: a short sequence of the tests' numbers, over and over.

use ds_core::{DType, Stream, Tensor, op::HostTensor};
use ds_tests::cases::Numbers;

use crate::Result;

/// Elements of the sequence.
const PERIOD: usize = 4096;

/// A tensor of numbers of unit scale.
pub(crate) fn numbers(stream: &Stream, dtype: DType, shape: &[i64]) -> Result<Tensor> {
    let mut numbers = Numbers::new(1);
    periodic(stream, dtype, shape, || numbers.draw())
}

/// A tensor of zeros.
pub(crate) fn zeros(stream: &Stream, dtype: DType, shape: &[i64]) -> Result<Tensor> {
    periodic(stream, dtype, shape, || 0.0)
}

fn periodic(
    stream: &Stream,
    dtype: DType,
    shape: &[i64],
    mut next: impl FnMut() -> f64,
) -> Result<Tensor> {
    let mut period = HostTensor {
        dtype,
        shape: vec![i64::try_from(PERIOD)?],
        bytes: Vec::new(),
    };
    period.set_f64(&(0..PERIOD).map(|_| next()).collect::<Vec<_>>())?;
    let tensor = Tensor::empty(stream, dtype, shape)?;
    let bytes = usize::try_from(tensor.bytes())?;
    let mut all = period.bytes.repeat(bytes.div_ceil(period.bytes.len()));
    all.truncate(bytes);
    tensor.write_bytes(stream, &all)?;
    Ok(tensor)
}
