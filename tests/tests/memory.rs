//! The caching pool as its statistics show it, on the CPU.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds_core::{DType, Stream, Tensor};
use ds_tests::cpu;

#[test]
fn peaks_start_anew_at_what_is_in_use_and_the_cache_can_be_emptied() {
    const KEPT: i64 = 4 << 20;
    const DROPPED: i64 = 64 << 20;
    let both = (KEPT + DROPPED).unsigned_abs();
    let device = cpu().unwrap();
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
