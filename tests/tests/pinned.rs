//! Page-locked host memory: copies that go on by themselves, and who may look at it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds_core::{Buffer, DType, MemoryKind, Stream, Tensor, is_pinned};
use ds_tests::cpu;

#[test]
fn pinned_memory_feeds_a_stream_and_takes_its_result() {
    let device = cpu().unwrap();
    let stream = Stream::new(device).unwrap();
    let mut batch = Buffer::of_kind(device, 1024, MemoryKind::Pinned).unwrap();
    // SAFETY: nothing is queued, and there is no clone.
    let bytes = unsafe { batch.host_bytes_mut() }.unwrap();
    for (index, chunk) in (0_i16..).zip(bytes.chunks_exact_mut(4)) {
        chunk.copy_from_slice(&f32::from(index).to_ne_bytes());
    }
    let x = Tensor::empty(&stream, DType::F32, &[256]).unwrap();
    x.buffer().copy_from(&stream, 0, &batch, 0, 1024).unwrap();
    let half = ds_ops::cast::cast(&stream, &x, DType::BF16).unwrap();
    let result = Buffer::of_kind(device, 512, MemoryKind::Pinned).unwrap();
    result.copy_from(&stream, 0, half.buffer(), 0, 512).unwrap();
    stream.record().unwrap().wait(None).unwrap();
    // SAFETY: the stream has passed the copy, and nothing was queued since.
    let bytes = unsafe { result.host_bytes() }.unwrap();
    for (index, chunk) in (0_i16..).zip(bytes.chunks_exact(2)) {
        // A bf16 is the upper half of an f32, and these integers need no more.
        let upper = f32::from(index).to_bits() >> 16;
        assert_eq!(u32::from(u16::from_ne_bytes([chunk[0], chunk[1]])), upper);
    }
}

#[test]
fn every_pointer_into_it_is_pinned_and_no_other() {
    let device = cpu().unwrap();
    let pinned = Buffer::of_kind(device, 1000, MemoryKind::Pinned).unwrap();
    let start = pinned.address().cast_const();
    assert!(is_pinned(start, 1000) && is_pinned(start.wrapping_byte_add(999), 1));
    assert!(!is_pinned(start, 1001) && !is_pinned(start.wrapping_byte_add(1000), 1));
    assert!(!is_pinned(start.wrapping_byte_sub(1), 1) && !is_pinned(start, u64::MAX));
    let other = Buffer::new(device.default_stream().unwrap(), 64).unwrap();
    assert!(!is_pinned(other.address(), 64));
    // SAFETY: device memory is refused before anybody could look at it.
    assert!(unsafe { other.host_bytes() }.is_none());
    drop(pinned);
    assert!(!is_pinned(start, 1));
}
