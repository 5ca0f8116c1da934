//! A training loop on whatever `DS_ACCELERATOR` selects: fits `rms_norm(x) W` to a target.
//!
//! ```sh
//! cargo run --release -p ds-ops --example train
//! DS_PLUGIN_PATH=~/my-plugins DS_ACCELERATOR=sim cargo run --release -p ds-ops --example train
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(clippy::cast_precision_loss, reason = "the sizes are small")]

use std::time::Instant;

// Linked in; every other accelerator is a file.
use ds_accelerator_cpu as _;
use ds_core::{DType, Result, RngState, Stream, Tensor, default_device};
use ds_ops::{
    adam::{AdamConfig, AdamTensors, adam_step},
    matmul::matmul,
    rms_norm::{rms_norm, rms_norm_backward},
};

/// Rows of the batch, features, and outputs.
const ROWS: i64 = 64;
const WIDTH: i64 = 32;
const OUTPUTS: i64 = 8;

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("DS_LOG", "warn")).init();
    let device = default_device()?;
    let stream = device.default_stream()?;
    println!(
        "{device}: {} ({})",
        device.info().name,
        device.info().target
    );

    let state = RngState { seed: 7, offset: 0 };
    let numbers = |from: u64, shape: &[i64]| {
        let count = shape.iter().product::<i64>().unsigned_abs();
        let values: Vec<f32> = (0..count).map(|i| state.uniform(from + i) - 0.5).collect();
        Tensor::from_slice(stream, shape, &values)
    };
    let x = numbers(0, &[ROWS, WIDTH])?;
    let target = numbers(10_000, &[ROWS, OUTPUTS])?.to_vec::<f32>(stream)?;
    let scale = Tensor::from_slice(stream, &[WIDTH], &[1.0_f32; 32])?;
    let weight = numbers(20_000, &[WIDTH, OUTPUTS])?;
    let moments = [zeros(stream, &scale)?, zeros(stream, &weight)?];
    let squares = [zeros(stream, &scale)?, zeros(stream, &weight)?];
    let config = AdamConfig {
        lr: 0.02,
        ..AdamConfig::default()
    };

    let start = Instant::now();
    for step in 1..=50 {
        let (normed, rstd) = rms_norm(stream, &x, &scale, 1e-6)?;
        let y = matmul(stream, &normed, &weight)?;
        // The loss is half the mean squared error; its gradient is made on the host.
        let error: Vec<f32> = y
            .to_vec::<f32>(stream)?
            .iter()
            .zip(&target)
            .map(|(y, t)| y - t)
            .collect();
        let loss: f32 = error.iter().map(|e| e * e).sum::<f32>() / 2.0 / (ROWS as f32);
        let gradient: Vec<f32> = error.iter().map(|e| e / (ROWS as f32)).collect();
        let dy = Tensor::from_slice(stream, &[ROWS, OUTPUTS], &gradient)?;

        let dweight = matmul(stream, &normed.transpose(0, 1)?, &dy)?;
        let dnormed = matmul(stream, &dy, &weight.transpose(0, 1)?)?;
        let (_, dscale) = rms_norm_backward(stream, &dnormed, &x, &scale, &rstd)?;
        let tensors = AdamTensors {
            params: &[&scale, &weight],
            grads: &[&dscale, &dweight],
            exp_avg: &[&moments[0], &moments[1]],
            exp_avg_sq: &[&squares[0], &squares[1]],
        };
        adam_step(stream, tensors, None, step, &config)?;
        if step == 1 || step % 10 == 0 {
            println!("step {step:3}  loss {loss:.6}");
        }
    }
    println!("{:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn zeros(stream: &Stream, like: &Tensor) -> Result<Tensor> {
    let tensor = Tensor::empty(stream, DType::F32, like.shape())?;
    tensor.write_bytes(stream, &vec![0; usize::try_from(like.bytes()).unwrap_or(0)])?;
    Ok(tensor)
}
