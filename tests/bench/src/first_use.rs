//! The first use of an op: with a cold cache, and in a new process with a warm one.

use std::{env, path::Path, process::Command, time::Instant};

use ds_core::DType;
use ds_ops::adam::{AdamConfig, AdamTensors, adam_step};

use crate::{
    Result, inputs,
    sample::{ROUNDS, Spread, print},
};

/// The argument that makes this program the child that is timed.
pub(crate) const CHILD: &str = "--first-use";

/// Cold and warm, each in a process of its own.
pub(crate) fn figure() -> Result<()> {
    let (mut cold, mut warm, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cache = tempfile::tempdir()?;
        cold.push(timed(cache.path())?.0);
        let (inside, outside) = timed(cache.path())?;
        warm.push(inside * 1e3);
        whole.push(outside * 1e3);
    }
    let formula =
        "host made, found, loaded, built, prepared and one step of 64 parameters, in a new process";
    print(
        "adam, first use, cold cache",
        Spread::of(cold),
        "s",
        "",
        formula,
    );
    print(
        "adam, first use, warm cache",
        Spread::of(warm),
        "ms",
        "",
        formula,
    );
    print(
        "the same, the whole process",
        Spread::of(whole),
        "ms",
        "",
        "spawn to exit",
    );
    Ok(())
}

/// Seconds that the child counts, and seconds of its whole life.
fn timed(cache: &Path) -> Result<(f64, f64)> {
    let start = Instant::now();
    let output = Command::new(env::current_exe()?)
        .arg(CHILD)
        .env("DS_CACHE_DIR", cache)
        // A fallback to the reference would be fast, and no first use of anything.
        .env("DS_FALLBACK", "deny")
        .output()?;
    let whole = start.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok((String::from_utf8(output.stdout)?.trim().parse()?, whole))
}

/// The child: prints seconds from nothing to the first step done.
pub(crate) fn child() -> Result<()> {
    let start = Instant::now();
    let stream = ds_tests::cpu()?.default_stream()?;
    let tensors: Vec<_> = (0..4)
        .map(|_| inputs::zeros(stream, DType::F32, &[64]))
        .collect::<Result<_>>()?;
    let lists = AdamTensors {
        params: &[&tensors[0]],
        grads: &[&tensors[1]],
        exp_avg: &[&tensors[2]],
        exp_avg_sq: &[&tensors[3]],
    };
    adam_step(stream, lists, None, 1, &AdamConfig::default())?;
    stream.synchronize()?;
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}
