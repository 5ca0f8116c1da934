//! `rms_norm` forward and backward on 8192x4096: its share of the roofline, and beside `PyTorch`.

use ds_core::DType;

use crate::{
    Result, inputs,
    peer::Peer,
    sample::{Side, Spread, alternate, mean_seconds, paired, print},
};

const ROWS: u32 = 8192;
const D: u32 = 4096;
const CALLS: u32 = 3;

/// What the roofline is made of.
struct Work {
    direction: &'static str,
    /// Tensors of `[ROWS, D]` that are read and written.
    tensors: u32,
    /// Operations an element.
    operations: u32,
    /// The probe's loop with as many reads a write.
    loops: [&'static str; 2],
}

/// Forward: reads x, writes y.
pub(crate) fn forward() -> Result<()> {
    let stream = ds_tests::cpu()?.default_stream()?;
    let work = Work {
        direction: "forward",
        tensors: 2,
        operations: 4,
        loops: ["copy", "copy_nt"],
    };
    for dtype in [DType::F32, DType::BF16] {
        let x = inputs::numbers(stream, dtype, &[ROWS.into(), D.into()])?;
        let weight = inputs::numbers(stream, dtype, &[D.into()])?;
        compare(&work, dtype, || {
            ds_ops::rms_norm::rms_norm(stream, &x, &weight, 1e-6)?;
            Ok(stream.synchronize()?)
        })?;
    }
    Ok(())
}

/// Backward: reads dy and x, writes dx.
pub(crate) fn backward() -> Result<()> {
    let stream = ds_tests::cpu()?.default_stream()?;
    let work = Work {
        direction: "backward",
        tensors: 3,
        operations: 10,
        loops: ["triad", "triad_nt"],
    };
    for dtype in [DType::F32, DType::BF16] {
        let x = inputs::numbers(stream, dtype, &[ROWS.into(), D.into()])?;
        let dy = inputs::numbers(stream, dtype, &[ROWS.into(), D.into()])?;
        let weight = inputs::numbers(stream, dtype, &[D.into()])?;
        let (_, rstd) = ds_ops::rms_norm::rms_norm(stream, &x, &weight, 1e-6)?;
        compare(&work, dtype, || {
            ds_ops::rms_norm::rms_norm_backward(stream, &dy, &x, &weight, &rstd)?;
            Ok(stream.synchronize()?)
        })?;
    }
    Ok(())
}

fn compare(work: &Work, dtype: DType, mut ours: impl FnMut() -> Result<()>) -> Result<()> {
    let elements = f64::from(ROWS) * f64::from(D);
    let bytes = elements * f64::from(work.tensors) * dtype.size_bytes() as f64;
    let operations = elements * f64::from(work.operations);
    // The probe's loops are in f32: as many bytes, not as many elements.
    let floats = usize::try_from(ROWS * D)? * dtype.size_bytes() / 4;
    let mut plain = Peer::probe(&format!("{} {floats}", work.loops[0]))?;
    let mut streamed = Peer::probe(&format!("{} {floats}", work.loops[1]))?;
    let mut arithmetic = Peer::probe("fma 0")?;
    let torch = format!("rms_norm {} {dtype} {ROWS} {D}", work.direction);
    let mut torch = Peer::python(&torch)?;

    let mut sides: Vec<Side<'_>> = vec![
        Box::new(|| mean_seconds(CALLS, &mut ours)),
        plain.side(CALLS),
        streamed.side(CALLS),
        arithmetic.side(1),
    ];
    sides.extend(torch.as_mut().map(|torch| torch.side(CALLS)));
    let seconds = alternate(&mut sides)?;

    // As the probe counts them: 2 an FMA, 16 lanes, 12 sums, 2^20 steps, every thread.
    let threads = std::thread::available_parallelism()?.get() as f64;
    let peak = |seconds: f64| 2.0 * 16.0 * 12.0 * f64::from(1 << 20) * threads / seconds;
    let bound: Vec<f64> = (0..seconds[0].len())
        .map(|round| {
            let memory = seconds[1][round].min(seconds[2][round]);
            memory.max(operations / peak(seconds[3][round]))
        })
        .collect();
    let figure = format!("rms_norm {} {dtype} {ROWS}x{D}", work.direction);
    let rate = |s: &[f64]| Spread::of(s.iter().map(|s| bytes / s / 1e9));
    let formula = format!("{} x {} B an element / s", work.tensors, dtype.size_bytes());
    print(&figure, rate(&seconds[0]), "GB/s", "", &formula);
    for (name, seconds) in [("plain", &seconds[1]), ("non-temporal", &seconds[2])] {
        let name = format!("{}, {name} stores, same bytes", work.loops[0]);
        print(&name, rate(seconds), "GB/s", "", "the same bytes / s");
    }
    let share = paired(&bound, &seconds[0], |bound, own| 100.0 * bound / own);
    let formula = format!(
        "max(bytes / best stream, {} operations an element / peak) / s",
        work.operations
    );
    print(
        &format!("{figure}, share of the roofline"),
        share,
        "%",
        "",
        &formula,
    );
    if let Some(theirs) = seconds.get(4) {
        let ratio = paired(&seconds[0], theirs, |own, theirs| theirs / own);
        print(
            &format!("{figure}, to PyTorch"),
            ratio,
            "x",
            ">= 1",
            "s by s",
        );
    }
    Ok(())
}
