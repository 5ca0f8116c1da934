//! Streams and timelines in every order in which their threads can go on, by loom: what is queued is
//! done once, in its order, and whoever waits wakes up. `cargo xtask loom` runs these.
//!
//! A model preempts a thread where it would have gone on at most a few times
//! (`LOOM_MAX_PREEMPTIONS`), and leaves out what streams do without locks of their own: the looks
//! before somebody sleeps, the team of threads in `pool`, and the call of a kernel.

use std::sync::Arc;

use ds_plugin::abi::{DS_DEVICE_LOST, DS_FOREVER, DS_OK};

use crate::{
    event::Timeline,
    stream::Stream,
    sync::{AtomicUsize, Ordering, thread},
};

/// Queues work that counts itself, after so many have been counted.
fn count(stream: &Stream, done: &Arc<AtomicUsize>, after: usize) {
    let now = Arc::clone(done);
    let later = Arc::clone(done);
    let step = move |done: &AtomicUsize| {
        let before = done.fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, after, "out of its order, or twice");
    };
    stream
        .run(move || step(&now), move || Box::new(move || step(&later)))
        .unwrap();
}

/// Two threads beside each other. Neither is the model's first one, of whose steps loom tries fewer
/// orders.
fn beside(one: impl FnOnce() + Send + 'static, other: impl FnOnce() + Send + 'static) {
    let (one, other) = (thread::spawn(one), thread::spawn(other));
    one.join().unwrap();
    other.join().unwrap();
}

#[test]
fn what_waits_is_run_when_another_thread_signals() {
    loom::model(|| {
        let stream = Stream::new(true);
        let (gate, done) = (Arc::new(Timeline::default()), Arc::new(AtomicUsize::new(0)));
        stream.wait(&gate, 1);
        count(&stream, &done, 0);
        let synchronizes = move || {
            stream.synchronize().unwrap();
            assert_eq!(done.load(Ordering::Relaxed), 1);
        };
        beside(synchronizes, move || gate.signal(1, DS_OK));
    });
}

#[test]
fn no_work_is_left_behind_by_a_caller_that_comes_and_goes() {
    loom::model(|| {
        let stream = Arc::new(Stream::new(false));
        let (gate, after) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
        let done = Arc::new(AtomicUsize::new(0));
        stream.wait(&gate, 1);
        let caller = Arc::clone(&stream);
        let synchronizes = move || caller.synchronize().unwrap();
        let queues = move || {
            gate.signal(1, DS_OK);
            count(&stream, &done, 0);
            stream.record(&after, 1);
            // It runs nothing itself: the caller does, or the stream's own thread.
            after.wait(1, DS_FOREVER).unwrap();
            assert_eq!(done.load(Ordering::Relaxed), 1);
        };
        beside(synchronizes, queues);
    });
}

#[test]
fn two_streams_hand_over_and_back() {
    loom::model(|| {
        let (a, b) = (Stream::new(true), Stream::new(false));
        let (there, back) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
        let done = Arc::new(AtomicUsize::new(0));
        count(&a, &done, 0);
        a.record(&there, 1);
        b.wait(&there, 1);
        count(&b, &done, 1);
        b.record(&back, 1);
        a.wait(&back, 1);
        count(&a, &done, 2);
        a.synchronize().unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn what_is_behind_a_failed_wait_is_not_run_and_everyone_is_told() {
    loom::model(|| {
        let stream = Stream::new(false);
        let (gate, after) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
        let done = Arc::new(AtomicUsize::new(0));
        stream.wait(&gate, 1);
        count(&stream, &done, 0);
        stream.record(&after, 1);
        let waits = move || {
            let told = after.wait(1, DS_FOREVER).unwrap_err();
            assert_eq!(told.status(), DS_DEVICE_LOST);
            let told = stream.synchronize().unwrap_err();
            assert_eq!(told.status(), DS_DEVICE_LOST);
            assert_eq!(done.load(Ordering::Relaxed), 0);
        };
        beside(waits, move || gate.signal(0, DS_DEVICE_LOST));
    });
}

#[test]
fn a_point_is_told_once_whoever_comes_first() {
    loom::model(|| {
        let timeline = Arc::new(Timeline::default());
        let told = Arc::new(AtomicUsize::new(0));
        let signals = thread::spawn({
            let timeline = Arc::clone(&timeline);
            move || {
                timeline.signal(1, DS_OK);
                timeline.signal(2, DS_OK);
            }
        });
        let fails = thread::spawn({
            let timeline = Arc::clone(&timeline);
            move || timeline.signal(0, DS_DEVICE_LOST)
        });
        timeline.on_ready(2, {
            let told = Arc::clone(&told);
            Box::new(move |status| {
                assert!([DS_OK, DS_DEVICE_LOST].contains(&status));
                told.fetch_add(1, Ordering::Relaxed);
            })
        });
        let waited = timeline
            .wait(1, DS_FOREVER)
            .map_or_else(|e| e.status(), |()| DS_OK);
        signals.join().unwrap();
        fails.join().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(
            timeline.outcome(1),
            Some(waited),
            "who waited was told something else"
        );
    });
}

#[test]
fn a_point_that_was_reached_stays_so_and_shows_what_came_before_it() {
    loom::model(|| {
        let timeline = Arc::new(Timeline::default());
        let done = Arc::new(AtomicUsize::new(0));
        let (seen, looked_at) = (Arc::clone(&done), Arc::clone(&timeline));
        let signals = move || {
            done.store(1, Ordering::Relaxed);
            timeline.signal(1, DS_OK);
            timeline.signal(0, DS_DEVICE_LOST);
        };
        let looks_without_the_lock = move || {
            if let Some(status) = looked_at.outcome(1) {
                assert_eq!(status, DS_OK);
                assert_eq!(seen.load(Ordering::Relaxed), 1);
            }
        };
        beside(signals, looks_without_the_lock);
    });
}
