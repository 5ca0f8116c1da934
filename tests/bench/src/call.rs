//! What a call costs beside its work, and what handing work to another stream costs.

use ds_core::{DType, Stream, Tensor};
use ds_ops::rms_norm;

use crate::{
    Result, inputs,
    sample::{Side, Spread, alternate_for, mean_seconds, print},
};

const D: i64 = 64;
const LIVE_SIGNATURES: i64 = 100;
/// Rounds shorter than a time slice, and many of them: most are then without another program's turn
/// on the core.
const ROUNDS: usize = 99;
const CALLS: u32 = 2_000;
const HAND_OFFS: u32 = 200;

/// A typed call on one row, all checks on, outputs from the allocator.
pub(crate) fn rms_norm() -> Result<()> {
    let device = ds_tests::cpu()?;
    let stream = device.default_stream()?;
    let weight = inputs::numbers(stream, DType::F32, &[D])?;
    for rows in 1..=LIVE_SIGNATURES {
        let x = inputs::numbers(stream, DType::F32, &[rows, D])?;
        rms_norm::rms_norm(stream, &x, &weight, 1e-6)?;
    }
    let x = inputs::numbers(stream, DType::F32, &[1, D])?;
    let mut call = || {
        rms_norm::rms_norm(stream, &x, &weight, 1e-6)?;
        Ok(())
    };
    let mut allocate = || {
        Tensor::empty(stream, DType::F32, &[1, D])?;
        Tensor::empty(stream, DType::F32, &[1])?;
        Ok(())
    };
    let mut sides: [Side<'_>; 2] = [
        Box::new(|| mean_seconds(CALLS, &mut call)),
        Box::new(|| mean_seconds(CALLS, &mut allocate)),
    ];
    let seconds = alternate_for(ROUNDS, &mut sides)?;
    let ns = |side: usize| Spread::of(seconds[side].iter().map(|s| s * 1e9));
    let formula = format!(
        "{ROUNDS} rounds, each the mean of {CALLS} calls, {LIVE_SIGNATURES} signatures live"
    );
    print(
        "rms_norm f32 1x64, a typed call in all",
        ns(0),
        "ns",
        "400",
        &formula,
    );
    print(
        "of it, its two outputs from the allocator",
        ns(1),
        "ns",
        "",
        &formula,
    );
    Ok(())
}

/// From one stream to another and back, with one small op there.
pub(crate) fn hand_off() -> Result<()> {
    let device = ds_tests::cpu()?;
    let here = device.default_stream()?;
    let there = Stream::new(device)?;
    let x = inputs::numbers(here, DType::F32, &[1, D])?;
    let weight = inputs::numbers(here, DType::F32, &[D])?;
    let mut round_trip = || {
        there.wait(&here.record()?)?;
        let done = rms_norm::rms_norm(&there, &x, &weight, 1e-6)?;
        here.wait(&there.record()?)?;
        drop(done);
        Ok(here.synchronize()?)
    };
    let mut waited_for = || {
        there.wait(&here.record()?)?;
        let done = rms_norm::rms_norm(&there, &x, &weight, 1e-6)?;
        there.record()?.wait(None)?;
        drop(done);
        Ok(())
    };
    let mut sides: [Side<'_>; 2] = [
        Box::new(|| mean_seconds(HAND_OFFS, &mut round_trip)),
        Box::new(|| mean_seconds(HAND_OFFS, &mut waited_for)),
    ];
    let seconds = alternate_for(ROUNDS, &mut sides)?;
    let us = |side: usize| Spread::of(seconds[side].iter().map(|s| s * 1e6));
    let formula = format!(
        "{ROUNDS} rounds, each the mean of {HAND_OFFS}: record, wait, rms_norm 1x64, record, wait, finish"
    );
    print(
        "hand-off to a stream and back, waited for on the first",
        us(0),
        "us",
        "10",
        &formula,
    );
    let formula = format!(
        "{ROUNDS} rounds, each the mean of {HAND_OFFS}: record, wait, rms_norm 1x64, record, host waits"
    );
    print(
        "hand-off to a stream, waited for by the host",
        us(1),
        "us",
        "",
        &formula,
    );
    Ok(())
}
