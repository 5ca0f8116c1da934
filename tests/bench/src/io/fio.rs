//! fio on the same file, at its best: with buffers in huge pages. In small ones a block of 1 MiB is up
//! to 256 pieces for the disk, and fio was half as fast.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Shape, turns::Cost};
use crate::Result;

/// What fio calls its engines.
pub(super) const ENGINES: [&str; 2] = ["libaio", "io_uring"];

/// Whether it is installed.
pub(super) fn is_there() -> bool {
    let version = Command::new("fio")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// One run over the first `bytes` of a file, or as many of its places. `seed` chooses the places.
pub(super) fn run(
    engine: &str,
    file: &Path,
    shape: Shape,
    file_bytes: u64,
    bytes: u64,
    seed: u64,
) -> Result<Cost> {
    let Shape {
        direction,
        random,
        block_bytes,
        depth,
    } = shape;
    let places = if random { "rand" } else { "" };
    let output = Command::new("fio")
        // `malloc` asks for huge pages (glibc 2.35).
        .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        .arg("--name=bench")
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--rw={places}{}", direction.name()))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--bs={block_bytes}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--size={file_bytes}"))
        .arg(format!("--io_size={bytes}"))
        .arg(format!("--randseed={seed}"))
        // Places may come twice, as ours do; it would keep account of them otherwise.
        .arg("--norandommap")
        .args(["--direct=1", "--thread", "--overwrite=1"])
        .arg("--output-format=json")
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Warnings come before it.
    let report = text.find('{').map_or("", |start| &text[start..]);
    let report: Value = serde_json::from_str(report)
        .map_err(|e| format!("fio ended with {} and {text:?}: {e}", output.status))?;
    cost(&report["jobs"][0], direction.name(), bytes)
        .ok_or_else(|| format!("fio did not move {bytes} bytes: {text}").into())
}

/// Its own figures, of the time in which it moved data.
fn cost(job: &Value, direction: &str, bytes: u64) -> Option<Cost> {
    let moved = &job[direction];
    let all = job["error"].as_i64() == Some(0) && moved["io_bytes"].as_u64() == Some(bytes);
    let share_of_cpu = (job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?) / 100.0;
    all.then_some(Cost {
        seconds: bytes as f64 / moved["bw_bytes"].as_f64()?,
        cpu_seconds: share_of_cpu * job["job_runtime"].as_f64()? / 1e3,
    })
}
