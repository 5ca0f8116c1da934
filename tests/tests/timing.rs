//! Time between points of a stream, on the device's clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use ds_core::{ErrorKind, Stream, Timeline};
use ds_tests::cpu;

#[test]
fn the_time_between_two_points_is_that_of_the_work_between_them() {
    const HELD: Duration = Duration::from_millis(3);
    let device = cpu().unwrap();
    let stream = Stream::new(device).unwrap();
    let gate = Timeline::new(device).unwrap().next();
    let before = Instant::now();
    let start = stream.record_timed().unwrap();
    start.wait(None).unwrap();
    let started = Instant::now();
    stream.wait(&gate).unwrap();
    let end = stream.record_timed().unwrap();
    let early = end.elapsed_since(&start).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::NotReady, "{early}");
    // The stream is held until the host's clock has gone on by this much.
    while started.elapsed() < HELD {
        std::hint::spin_loop();
    }
    gate.timeline().signal(gate.value()).unwrap();
    end.wait(None).unwrap();
    let all = before.elapsed();
    let told = end.elapsed_since(&start).unwrap();
    assert!((HELD..=all).contains(&told), "{told:?} of {all:?}");
    assert_eq!(start.elapsed_since(&end).unwrap(), Duration::ZERO);
}

#[test]
fn a_timeline_that_has_moved_on_no_longer_knows() {
    let stream = Stream::new(cpu().unwrap()).unwrap();
    let (one, two) = (stream.record().unwrap(), stream.record().unwrap());
    two.wait(None).unwrap();
    let error = two.elapsed_since(&one).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.hint().unwrap().contains("record_timed"));
}
