//! The caching pool: its numbers, its cap, and above all who may have a block when. Streams are
//! held by points that the test signals, so nothing depends on how fast anything is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use ds_core::{Buffer, DType, Device, ErrorKind, MemoryStats, Point, Stream, Tensor, Timeline};
use ds_tests::{cpu, sim};

/// A block that is allocated by itself: no other of its size is free by chance.
const LARGE: u64 = 2 << 20;

/// The CPU with an empty pool, for one test at a time: they look at its numbers.
fn alone() -> (Device, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = cpu().unwrap();
    device.set_memory_cap(None);
    device.empty_cache().unwrap();
    device.reset_peak_memory_stats();
    (device, turn)
}

/// What holds a stream; opened at the latest when it goes, so that a test that failed ends.
struct Gate(Point);

impl Gate {
    fn open(&self) {
        self.0.timeline().signal(self.0.value()).unwrap();
    }

    fn fail(&self, kind: ErrorKind) {
        self.0.timeline().fail(kind).unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// A stream of `device` that does nothing until the gate opens.
fn held(device: Device) -> (Stream, Gate) {
    let stream = Stream::new(device).unwrap();
    let gate = Timeline::new(device).unwrap().next();
    stream.wait(&gate).unwrap();
    (stream, Gate(gate))
}

fn content(buffer: &Buffer, stream: &Stream) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(buffer.bytes()).unwrap()];
    buffer.read(stream, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_numbers_tell_what_is_live_and_what_was_asked_of_the_device() {
    let (device, _turn) = alone();
    let s = Stream::new(device).unwrap();
    let start = device.memory_stats();
    assert_eq!((start.allocated_bytes, start.reserved_bytes), (0, 0));
    let buffer = Buffer::new(&s, 1000).unwrap();
    let address = buffer.address();
    let one = device.memory_stats();
    assert_eq!(one.allocations, 1);
    assert!((1000..=1024).contains(&one.allocated_bytes), "{one:?}");
    assert!(one.reserved_bytes >= one.allocated_bytes);
    assert_eq!(one.device_allocations, start.device_allocations + 1);
    drop(buffer);
    let none = device.memory_stats();
    let expected = MemoryStats {
        allocated_bytes: 0,
        allocations: 0,
        ..one
    };
    assert_eq!(none, expected);
    // Again: the same memory, and nothing asked of the device.
    let again = Buffer::new(&s, 1000).unwrap();
    assert_eq!(again.address(), address);
    let expected = MemoryStats {
        total_allocations: one.total_allocations + 1,
        cache_hits: one.cache_hits + 1,
        ..one
    };
    assert_eq!(device.memory_stats(), expected);
    drop(again);
    // Peaks stay until they are reset.
    let large = Buffer::new(&s, 5 * LARGE).unwrap();
    let most = device.memory_stats();
    assert_eq!(most.peak_allocated_bytes, 5 * LARGE);
    drop(large);
    assert_eq!(device.memory_stats().peak_allocated_bytes, 5 * LARGE);
    device.reset_peak_memory_stats();
    assert_eq!(device.memory_stats().peak_allocated_bytes, 0);
    // Trimmed, everything goes back.
    device.empty_cache().unwrap();
    let end = device.memory_stats();
    assert_eq!((end.reserved_bytes, end.trims), (0, start.trims + 1));
    // A buffer of nothing is nothing.
    let empty = Buffer::new(&s, 0).unwrap();
    assert!(empty.address().is_null());
    drop(empty);
    assert_eq!(device.memory_stats(), end);
}

#[test]
fn peaks_start_anew_at_what_is_in_use_and_the_cache_can_be_emptied() {
    const KEPT: i64 = 4 << 20;
    const DROPPED: i64 = 64 << 20;
    let both = (KEPT + DROPPED).unsigned_abs();
    let (device, _turn) = alone();
    let stream = Stream::new(device).unwrap();
    let kept = Tensor::empty(&stream, DType::U8, &[KEPT]).unwrap();
    drop(Tensor::empty(&stream, DType::U8, &[DROPPED]).unwrap());
    let before = device.memory_stats();
    assert!(before.peak_allocated_bytes >= both, "{before:?}");
    assert!(before.reserved_bytes >= both, "{before:?}");
    device.empty_cache().unwrap();
    let emptied = device.memory_stats();
    assert!(emptied.reserved_bytes < both, "{emptied:?}");
    assert!(emptied.peak_reserved_bytes >= both, "{emptied:?}");
    device.reset_peak_memory_stats();
    let reset = device.memory_stats();
    assert!((kept.bytes()..both).contains(&reset.peak_allocated_bytes));
    assert!((kept.bytes()..both).contains(&reset.peak_reserved_bytes));
}

#[test]
fn a_trim_keeps_what_is_live() {
    let (device, _turn) = alone();
    let s = Stream::new(device).unwrap();
    let small = Buffer::new(&s, 100).unwrap();
    let large = Buffer::new(&s, 3 * LARGE).unwrap();
    for buffer in [&small, &large] {
        buffer.fill(&s, 9).unwrap();
    }
    drop(Buffer::new(&s, LARGE).unwrap());
    let before = device.memory_stats();
    device.empty_cache().unwrap();
    let after = device.memory_stats();
    assert_eq!(after.reserved_bytes, before.reserved_bytes - LARGE);
    assert_eq!(after.allocated_bytes, before.allocated_bytes);
    for buffer in [&small, &large] {
        assert!(content(buffer, &s).iter().all(|byte| *byte == 9));
    }
}

#[test]
fn blocks_of_any_size_are_aligned_and_apart() {
    let (device, _turn) = alone();
    let s = Stream::new(device).unwrap();
    let sizes = [
        1,
        511,
        512,
        513,
        5000,
        100_000,
        1 << 20,
        (1 << 20) + 1,
        LARGE + 1,
    ];
    let mut buffers: Vec<Buffer> = (sizes.iter().cycle().take(4 * sizes.len()))
        .map(|&bytes| Buffer::new(&s, bytes).unwrap())
        .collect();
    buffers.sort_by_key(Buffer::address);
    let alignment = usize::try_from(device.info().alignment_bytes).unwrap();
    for pair in buffers.windows(2) {
        let gap = pair[1].address().addr() - pair[0].address().addr();
        assert!(gap as u64 >= pair[0].bytes(), "{pair:?}");
        assert_eq!(pair[0].address().addr() % alignment, 0, "{pair:?}");
    }
}

#[test]
fn the_cap_holds_after_what_is_free_was_given_back_for_it() {
    let (device, _turn) = alone();
    let s = Stream::new(device).unwrap();
    let kept = Buffer::new(&s, LARGE).unwrap();
    drop(Buffer::new(&s, 2 * LARGE).unwrap());
    device.set_memory_cap(Some(4 * LARGE));
    // 3 are reserved and 3 more asked for: with the free ones given back it fits.
    let trims = device.memory_stats().trims;
    let fits = Buffer::new(&s, 3 * LARGE).unwrap();
    assert_eq!(device.memory_stats().trims, trims + 1);
    assert_eq!(device.memory_stats().reserved_bytes, 4 * LARGE);
    let before = device.memory_stats();
    let error = Buffer::new(&s, LARGE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(
        error.to_string(),
        "allocate memory: 2097152 bytes on cpu:0: 10485760 bytes would exceed the cap of 8388608 \
         (8388608 bytes are in live buffers, 8388608 reserved)"
    );
    assert!(error.hint().unwrap().contains("raise the device's cap"));
    let after = device.memory_stats();
    assert_eq!(after.reserved_bytes, before.reserved_bytes);
    assert_eq!(after.allocations, before.allocations);
    drop(fits);
    drop(Buffer::new(&s, LARGE).unwrap());
    drop(kept);
    device.set_memory_cap(None);
}

#[test]
fn its_own_stream_has_a_block_at_once() {
    let (device, _turn) = alone();
    let (s, gate) = held(device);
    let first = Buffer::new(&s, LARGE).unwrap();
    first.fill(&s, 1).unwrap();
    let address = first.address();
    drop(first);
    let second = Buffer::new(&s, LARGE).unwrap();
    assert_eq!(second.address(), address);
    second.fill(&s, 2).unwrap();
    assert!(!s.is_idle().unwrap(), "nothing was waited for");
    gate.open();
    assert!(content(&second, &s).iter().all(|byte| *byte == 2));
}

#[test]
fn another_stream_has_it_behind_the_work_that_was_queued() {
    let (device, _turn) = alone();
    let (s1, gate) = held(device);
    let s2 = Stream::new(device).unwrap();
    let first = Buffer::new(&s1, LARGE).unwrap();
    first.fill(&s1, 1).unwrap();
    let address = first.address();
    drop(first);
    let before = device.memory_stats();
    let second = Buffer::new(&s2, LARGE).unwrap();
    assert_eq!(second.address(), address);
    let hits = device.memory_stats().cross_stream_hits;
    assert_eq!(hits, before.cross_stream_hits + 1);
    second.fill(&s2, 2).unwrap();
    let point = s2.record().unwrap();
    assert!(!point.is_reached().unwrap());
    gate.open();
    assert!(content(&second, &s2).iter().all(|byte| *byte == 2));
    // A stream without work is waited for by nobody.
    drop(second);
    let third = Buffer::new(&s1, LARGE).unwrap();
    assert_eq!(third.address(), address);
    assert_eq!(device.memory_stats().cross_stream_hits, hits);
}

#[test]
fn a_block_that_a_second_stream_uses_is_nobodys_until_that_is_over() {
    let (device, _turn) = alone();
    let s1 = Stream::new(device).unwrap();
    let (s2, gate) = held(device);
    let first = Buffer::new(&s1, LARGE).unwrap();
    first.fill(&s2, 1).unwrap();
    let address = first.address();
    drop(first);
    let second = Buffer::new(&s1, LARGE).unwrap();
    assert_ne!(second.address(), address);
    gate.open();
    s2.synchronize().unwrap();
    assert_eq!(Buffer::new(&s1, LARGE).unwrap().address(), address);
}

#[test]
fn a_stream_that_ended_leaves_its_blocks_to_everybody() {
    let (device, _turn) = alone();
    let s1 = Stream::new(device).unwrap();
    let address = Buffer::new(&s1, LARGE).unwrap().address();
    // Also those that come back after it ended.
    let late = Buffer::new(&s1, 3 * LARGE).unwrap();
    let late_address = late.address();
    drop(s1);
    drop(late);
    let before = device.memory_stats();
    let (s2, gate) = held(device);
    assert_eq!(Buffer::new(&s2, LARGE).unwrap().address(), address);
    assert_eq!(Buffer::new(&s2, 3 * LARGE).unwrap().address(), late_address);
    let after = device.memory_stats();
    assert_eq!(after.cross_stream_hits, before.cross_stream_hits);
    assert_eq!(after.device_allocations, before.device_allocations);
    gate.open();
}

#[test]
fn a_failed_stream_harms_nobody_else_and_its_memory_comes_back() {
    let (device, _turn) = alone();
    let (failed, gate) = held(device);
    let s = Stream::new(device).unwrap();
    let own = Buffer::new(&failed, LARGE).unwrap();
    let guest = Buffer::new(&s, 3 * LARGE).unwrap();
    own.fill(&failed, 1).unwrap();
    guest.fill(&failed, 1).unwrap();
    guest.fill(&s, 2).unwrap();
    let addresses = [own.address(), guest.address()];
    gate.fail(ErrorKind::DeviceLost);
    assert_eq!(
        failed.synchronize().unwrap_err().kind(),
        ErrorKind::DeviceLost
    );
    drop((own, guest));
    let again = [LARGE, 3 * LARGE].map(|bytes| Buffer::new(&s, bytes).unwrap());
    assert_eq!([again[0].address(), again[1].address()], addresses);
    again[0].fill(&s, 3).unwrap();
    s.synchronize().unwrap();
    assert!(content(&again[0], &s).iter().all(|byte| *byte == 3));
    drop(again);
    drop(failed);
    device.empty_cache().unwrap();
    assert_eq!(device.memory_stats().reserved_bytes, 0);
}

#[test]
fn a_copy_to_another_device_keeps_its_source_until_it_is_over() {
    let Some([one, two]) = sim::devices() else {
        return;
    };
    let s1 = Stream::new(one).unwrap();
    let (s2, gate) = held(two);
    let source = Buffer::new(&s1, LARGE).unwrap();
    source.fill(&s1, 5).unwrap();
    s1.synchronize().unwrap();
    let target = Buffer::new(&s2, LARGE).unwrap();
    target.copy_from(&s2, 0, &source, 0, LARGE).unwrap();
    let address = source.address();
    drop(source);
    let next = Buffer::new(&s1, LARGE).unwrap();
    assert_ne!(next.address(), address, "the copy still has to read it");
    next.fill(&s1, 6).unwrap();
    s1.synchronize().unwrap();
    gate.open();
    assert!(content(&target, &s2).iter().all(|byte| *byte == 5));
    assert_eq!(Buffer::new(&s1, LARGE).unwrap().address(), address);
}
