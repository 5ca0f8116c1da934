//! Inputs: numbers that are the same at every run.

use ds_core::{DType, Result, RngState, Stream, Tensor, op::HostTensor};

/// Numbers around zero of about unit scale, the same for equal seeds: sums of uniforms, which is
/// close enough to normal and has no tails that would overflow half types.
#[derive(Debug)]
pub struct Numbers {
    state: RngState,
    next: u64,
}

impl Numbers {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: RngState { seed, offset: 0 },
            next: 0,
        }
    }

    /// The next number.
    pub fn draw(&mut self) -> f64 {
        let uniform = |i| f64::from(self.state.uniform(self.next + i));
        let sum = uniform(0) + uniform(1) + uniform(2) + uniform(3) - 2.0;
        self.next += 4;
        // Four uniforms have variance 1/3.
        sum * 3.0_f64.sqrt()
    }

    /// A contiguous tensor of such numbers.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn tensor(&mut self, stream: &Stream, dtype: DType, shape: &[i64]) -> Result<Tensor> {
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let values: Vec<f64> = (0..count).map(|_| self.draw()).collect();
        tensor(stream, dtype, shape, &values)
    }
}

/// A contiguous tensor of these values, rounded to the dtype.
///
/// # Errors
/// When the device has no memory.
pub fn tensor(stream: &Stream, dtype: DType, shape: &[i64], values: &[f64]) -> Result<Tensor> {
    let mut host = HostTensor {
        dtype,
        shape: shape.to_vec(),
        bytes: Vec::new(),
    };
    host.set_f64(values)?;
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
