//! A product of two small matrices on whatever `DS_ACCELERATOR` selects.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is all that this program is for")]

use ds_accelerator_cpu as _; // linked in; every other accelerator is a file
use ds_core::{Tensor, default_device};
use ds_ops::matmul::matmul;

fn main() -> ds_core::Result<()> {
    let device = default_device()?;
    let stream = device.default_stream()?;
    let a = Tensor::from_slice(stream, &[2, 2], &[1.0_f32, 2.0, 3.0, 4.0])?;
    let b = Tensor::from_slice(stream, &[2, 2], &[5.0_f32, 6.0, 7.0, 8.0])?;
    let c = matmul(stream, &a, &b)?;
    println!("{device}: {:?}", c.to_vec::<f32>(stream)?);
    Ok(())
}
