//! L2: devices, memory, streams and points in time, through the host as a program uses them.

mod memory;
mod streams;

use std::{fs, thread};

use ds_core::{Accelerator, Buffer, Device, Stream};

use crate::{
    check::{Check, Held, Problem, hold},
    subject::Subject,
};

pub(crate) fn checks(subject: &Subject) -> Result<Vec<Check>, String> {
    let accelerator = subject.accelerator()?;
    let mut checks = vec![Check::new("devices", move || devices(accelerator))];
    checks.extend(
        memory::CHECKS
            .iter()
            .map(|&(name, run)| Check::new(name, move || run(device(accelerator)?))),
    );
    checks.push(Check::new("another device's memory", move || {
        memory::peers(accelerator)
    }));
    checks.extend(
        streams::CHECKS
            .iter()
            .map(|&(name, run)| Check::new(name, move || run(device(accelerator)?))),
    );
    Ok(checks)
}

/// A name, and what is to hold of a device.
type OnDevice = (&'static str, fn(Device) -> Held);

/// The first device; skipped where the machine has none.
pub(crate) fn device(accelerator: Accelerator) -> Result<Device, Problem> {
    match accelerator.device_count() {
        Ok(0) => Err(Problem::Unavailable("there is no device here".into())),
        Err(e) => Err(Problem::Unavailable(e.to_string())),
        Ok(_) => Ok(accelerator.device(0)?),
    }
}

fn devices(accelerator: Accelerator) -> Held {
    device(accelerator)?;
    for index in 0..accelerator.device_count()? {
        let info = accelerator.device_info(index)?;
        hold!(!info.name.is_empty(), "device {index} has no name");
        hold!(
            info.alignment_bytes.is_power_of_two(),
            "device {index}: alignment_bytes is {}, no power of two",
            info.alignment_bytes
        );
        hold!(
            accelerator.device_info(index)? == info,
            "device {index} is described in another way the second time"
        );
        let device = accelerator.device(index)?;
        hold!(
            accelerator.device(index)? == device,
            "device {index} is another one when it is opened again"
        );
    }
    // Every question is allowed at any time from any thread.
    let asked = (0..4).map(|_| thread::spawn(move || accelerator.device_info(0)));
    let told: Vec<_> = asked
        .collect::<Vec<_>>()
        .into_iter()
        .map(thread::JoinHandle::join)
        .collect();
    hold!(
        told.iter().all(|t| matches!(t, Ok(Ok(_)))),
        "describing a device from four threads at once fails"
    );
    Ok(())
}

/// A number of repetitions: this many, or five hundred times as many with `DS_DRILLS=long`.
fn times(usual: u64) -> u64 {
    match std::env::var("DS_DRILLS").as_deref() {
        Ok("long") => usual * 500,
        _ => usual,
    }
}

/// `len` bytes that tell where they belong: no two neighbours, and no two seeds, are alike.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// What `buffer` holds, read on `stream`.
fn content(buffer: &Buffer, stream: &Stream) -> Result<Vec<u8>, Problem> {
    let mut bytes = vec![0; usize::try_from(buffer.bytes()).unwrap_or(0)];
    buffer.read(stream, 0, &mut bytes)?;
    Ok(bytes)
}

/// Open file descriptors and threads of this process.
fn census() -> (usize, usize) {
    let count = |path| fs::read_dir(path).map_or(0, Iterator::count);
    (count("/proc/self/fd"), count("/proc/self/task"))
}
