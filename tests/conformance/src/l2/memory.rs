//! Memory: what is written is read again and nothing else is touched, and it ends without harm.

use ds_core::{Accelerator, Buffer, Device, ErrorKind, MemoryKind, Stream};

use super::{OnDevice, content, pattern, times};
use crate::check::{Held, Problem, hold};

pub(super) const CHECKS: &[OnDevice] = &[
    ("memory is told", told),
    ("blocks are aligned and apart", aligned_and_apart),
    ("bytes come back from any place", come_back),
    ("copies on the device touch their range alone", copies),
    ("fills touch their buffer alone", fills),
    ("pinned memory", pinned),
    ("pageable memory of the host", pageable),
    ("memory that both reach", shared),
    ("memory ends without harm", ends),
    ("many buffers come and go", many),
];

/// Sizes around words, lines, pages and pools.
const SIZES: [usize; 12] = [1, 2, 3, 7, 64, 255, 256, 257, 4095, 4096, 65_537, 1 << 20];
/// Bytes around each range that nobody may touch.
const MARGIN: usize = 67;

fn told(device: Device) -> Held {
    let info = device.memory_info()?;
    hold!(
        info.free_bytes <= info.total_bytes && info.total_bytes > 0,
        "{} bytes are free of {}",
        info.free_bytes,
        info.total_bytes
    );
    Ok(())
}

fn aligned_and_apart(device: Device) -> Held {
    let stream = Stream::new(device)?;
    let alignment = usize::try_from(device.info().alignment_bytes).unwrap_or(1);
    let mut live = Vec::new();
    // The large ones are blocks of the plugin's own; the host cuts the small ones out of such.
    for bytes in SIZES.into_iter().chain([5 << 20; 3]) {
        let buffer = Buffer::new(&stream, bytes as u64)?;
        let address = buffer.address().addr();
        hold!(
            address.is_multiple_of(alignment),
            "a block of {bytes} bytes lies at {address:#x}, which {alignment} does not divide"
        );
        live.push((address, address + bytes, buffer));
    }
    live.sort_by_key(|&(start, end, _)| (start, end));
    for pair in live.windows(2) {
        hold!(
            pair[0].1 <= pair[1].0,
            "blocks overlap: one ends at {:#x}, the next begins at {:#x}",
            pair[0].1,
            pair[1].0
        );
    }
    Ok(())
}

fn come_back(device: Device) -> Held {
    let stream = Stream::new(device)?;
    for (seed, bytes) in (1..).zip(SIZES) {
        let around = pattern(seed, bytes + 2 * MARGIN);
        let buffer = Buffer::new(&stream, around.len() as u64)?;
        buffer.write(&stream, 0, &around)?;
        let own = pattern(seed + 100, bytes);
        buffer.write(&stream, MARGIN as u64, &own)?;
        let mut back = vec![0; bytes];
        buffer.read(&stream, MARGIN as u64, &mut back)?;
        hold!(
            back == own,
            "{bytes} bytes at offset {MARGIN} come back as others"
        );
        let mut want = around;
        want[MARGIN..MARGIN + bytes].copy_from_slice(&own);
        hold!(
            content(&buffer, &stream)? == want,
            "writing {bytes} bytes at offset {MARGIN} changed bytes beside them"
        );
    }
    Ok(())
}

fn copies(device: Device) -> Held {
    let stream = Stream::new(device)?;
    for (seed, bytes) in (1..).zip(SIZES) {
        let from = pattern(seed, bytes + 2 * MARGIN);
        let mut to = pattern(seed + 100, bytes + 2 * MARGIN);
        let [source, destination] = [&from, &to].map(|content| {
            let buffer = Buffer::new(&stream, content.len() as u64)?;
            buffer.write(&stream, 0, content).map(|()| buffer)
        });
        let (source, destination) = (source?, destination?);
        destination.copy_from(&stream, MARGIN as u64, &source, 5, bytes as u64)?;
        to[MARGIN..MARGIN + bytes].copy_from_slice(&from[5..5 + bytes]);
        hold!(
            content(&destination, &stream)? == to,
            "copying {bytes} bytes from offset 5 to {MARGIN} gives others, or more"
        );
        hold!(
            content(&source, &stream)? == from,
            "a copy changed its source"
        );
    }
    Ok(())
}

fn fills(device: Device) -> Held {
    let stream = Stream::new(device)?;
    for bytes in SIZES {
        let [before, own, behind] = [MARGIN, bytes, MARGIN].map(|n| {
            let buffer = Buffer::new(&stream, n as u64)?;
            buffer.write(&stream, 0, &pattern(9, n)).map(|()| buffer)
        });
        let (before, own, behind) = (before?, own?, behind?);
        own.fill(&stream, 0x5a)?;
        hold!(
            content(&own, &stream)? == vec![0x5a; bytes],
            "a fill of {bytes} bytes leaves others"
        );
        for other in [before, behind] {
            hold!(
                content(&other, &stream)? == pattern(9, MARGIN),
                "a fill of {bytes} bytes changed another buffer"
            );
        }
    }
    Ok(())
}

/// Through another buffer and back, without the host in between.
fn by_way_of(device: Device, kind: MemoryKind) -> Held {
    let stream = Stream::new(device)?;
    let bytes = 4097;
    let [there, back] = [(); 2].map(|()| Buffer::of_kind(device, bytes as u64, kind));
    let (there, back) = (there?, back?);
    let own = Buffer::new(&stream, bytes as u64)?;
    there.write(&stream, 0, &pattern(3, bytes))?;
    own.copy_from(&stream, 0, &there, 0, bytes as u64)?;
    back.copy_from(&stream, 0, &own, 0, bytes as u64)?;
    stream.synchronize()?;
    hold!(
        content(&back, &stream)? == pattern(3, bytes),
        "{bytes} bytes that went to the device and back are others"
    );
    Ok(())
}

fn pinned(device: Device) -> Held {
    by_way_of(device, MemoryKind::Pinned)
}

fn pageable(device: Device) -> Held {
    by_way_of(device, MemoryKind::Pageable)
}

fn shared(device: Device) -> Held {
    by_way_of(device, MemoryKind::Shared)
}

/// From the first device to the second.
pub(super) fn peers(accelerator: Accelerator) -> Held {
    let device = super::device(accelerator)?;
    if accelerator.device_count()? < 2 {
        return Err(Problem::Unavailable("there is one device here".into()));
    }
    let other = accelerator.device(1)?;
    let (here, there) = (Stream::new(device)?, Stream::new(other)?);
    let bytes = 4097;
    let source = Buffer::new(&here, bytes as u64)?;
    source.write(&here, 0, &pattern(4, bytes))?;
    let destination = Buffer::new(&there, bytes as u64)?;
    there.wait(&here.record()?)?;
    destination.copy_from(&there, 0, &source, 0, bytes as u64)?;
    hold!(
        content(&destination, &there)? == pattern(4, bytes),
        "{bytes} bytes from {device} are others on {other}"
    );
    Ok(())
}

fn ends(device: Device) -> Held {
    let stream = Stream::new(device)?;
    let small = Buffer::new(&stream, 4096)?;
    small.write(&stream, 0, &pattern(5, 4096))?;
    let total = device.memory_info()?.total_bytes;
    for bytes in [total.saturating_mul(2), 1 << 60] {
        match Buffer::new(&stream, bytes) {
            Ok(_) => hold!(false, "{bytes} bytes were given of {total}"),
            Err(e) => hold!(
                e.kind() == ErrorKind::OutOfMemory,
                "asked for {bytes} bytes of {total}, it says: {e}"
            ),
        }
    }
    hold!(
        content(&small, &stream)? == pattern(5, 4096),
        "a request that failed changed another buffer"
    );
    let again = Buffer::new(&stream, 1 << 20)?;
    again.write(&stream, 0, &pattern(6, 1 << 20))?;
    hold!(
        content(&again, &stream)? == pattern(6, 1 << 20),
        "memory does not work any more after a request that failed"
    );
    Ok(())
}

fn many(device: Device) -> Held {
    let stream = Stream::new(device)?;
    for round in 0..times(100) {
        let mut live = Vec::new();
        for (seed, bytes) in (round..).zip(SIZES) {
            let buffer = Buffer::new(&stream, bytes as u64)?;
            buffer.write(&stream, 0, &pattern(seed, bytes))?;
            live.push((seed, bytes, buffer));
        }
        let (seed, bytes, buffer) =
            live.swap_remove(usize::try_from(round).unwrap_or(0) % live.len());
        hold!(
            content(&buffer, &stream)? == pattern(seed, bytes),
            "round {round}: a buffer of {bytes} bytes holds others"
        );
        drop((live, buffer));
        if round % 10 == 0 {
            device.empty_cache()?;
        }
    }
    drop(stream);
    device.empty_cache()?;
    let stats = device.memory_stats();
    hold!(
        stats.reserved_bytes == 0 && stats.allocations == 0,
        "{} bytes in {} buffers were not taken back",
        stats.reserved_bytes,
        stats.allocations
    );
    Ok(())
}
