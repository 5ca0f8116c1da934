//! `ds_report` with a warm cache and seven plugins: wall time and memory.

use std::{
    env, fs, io,
    mem::MaybeUninit,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::{
    Result,
    sample::{ROUNDS, Spread, print},
};

const PLUGINS: usize = 7;

/// The program beside this one, where it is built.
pub(crate) fn warm() -> Result<()> {
    let program = env::current_exe()?.with_file_name("ds_report");
    if !program.exists() {
        println!("| ds_report, warm cache, {PLUGINS} plugins | not built | | ms | | |");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for index in 0..PLUGINS {
        plugin(folder.path(), index)?;
    }
    let cache = tempfile::tempdir()?;
    let (mut wall_ms, mut memory_mib) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (ms, mib) = run(&program, folder.path(), cache.path())?;
        // The first one fills the cache.
        if round > 0 {
            wall_ms.push(ms);
            memory_mib.push(mib);
        }
    }
    let figure = format!("ds_report, warm cache, {PLUGINS} plugins");
    print(&figure, Spread::of(wall_ms), "ms", "30", "spawn to exit");
    print(
        &figure,
        Spread::of(memory_mib),
        "MiB",
        "30",
        "largest resident set",
    );
    Ok(())
}

/// A copy of the CPU's manifest with its kernels, under an id and an accelerator of its own, with the
/// library beside it where it is built.
fn plugin(folder: &Path, index: usize) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/cpu/plugin.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(source)?)?;
    manifest["id"] = format!("org.deepspeed.bench{index}").into();
    manifest["accelerator"] = format!("bench{index}").into();
    manifest["aliases"] = Value::Array(Vec::new());
    let mut kernels = Vec::new();
    for text in ds_kernels::descriptions() {
        let mut file: Value = serde_json::from_str(text)?;
        for kernel in file["kernels"].as_array_mut().into_iter().flatten() {
            kernel["accelerator"] = manifest["accelerator"].clone();
            kernels.push(kernel.take());
        }
    }
    manifest["kernels"] = kernels.into();
    let own = folder.join(format!("bench{index}"));
    fs::create_dir(&own)?;
    fs::write(own.join("plugin.json"), manifest.to_string())?;
    let library = env::current_exe()?.with_file_name("libds_plugin_cpu.so");
    if library.exists() {
        fs::copy(&library, own.join("libds_plugin_cpu.so"))?;
    }
    Ok(())
}

/// Milliseconds and MiB of one run.
fn run(program: &Path, plugins: &Path, cache: &Path) -> Result<(f64, f64)> {
    let start = Instant::now();
    let child = Command::new(program)
        .env("DS_PLUGIN_PATH", plugins)
        .env("DS_CACHE_DIR", cache)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = libc::pid_t::try_from(child.id())?;
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places are writable for the call; the child is ours and nobody else waits for it.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let wall_ms = start.elapsed().as_secs_f64() * 1e3;
    if waited != pid {
        return Err(io::Error::last_os_error().into());
    }
    // A report may end with a status that says that something is missing; a signal is no report.
    if !libc::WIFEXITED(status) {
        return Err(format!("{} ended with status {status}", program.display()).into());
    }
    // SAFETY: `wait4` filled it, and every bit pattern of it is valid.
    let usage = unsafe { usage.assume_init() };
    Ok((wall_ms, usage.ru_maxrss as f64 / 1024.0))
}
