//! Buffers whose last owners go at the same time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::mpsc, thread};

use ds_core::Buffer;
use ds_tests::cpu;

#[test]
fn a_buffer_comes_back_once_whoever_drops_it_last() {
    const ROUNDS: u64 = 20_000;
    let device = cpu().unwrap();
    let stream = device.default_stream().unwrap();
    let before = device.memory_stats();
    let (send, receive) = mpsc::channel::<Buffer>();
    thread::scope(|scope| {
        scope.spawn(move || receive.into_iter().for_each(drop));
        for _ in 0..ROUNDS {
            let buffer = Buffer::new(stream, 4096).unwrap();
            send.send(buffer.clone()).unwrap();
            drop(buffer);
        }
        drop(send);
    });
    let after = device.memory_stats();
    assert_eq!(after.total_allocations - before.total_allocations, ROUNDS);
    assert_eq!(after.allocations, before.allocations, "{after:?}");
    assert_eq!(after.allocated_bytes, before.allocated_bytes, "{after:?}");
    // A block that came back twice would be handed out twice.
    let all: Vec<_> = (0..100)
        .map(|_| Buffer::new(stream, 4096).unwrap())
        .collect();
    let mut addresses: Vec<_> = all.iter().map(|b| b.address().addr()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), all.len());
}
