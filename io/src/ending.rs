//! How operations end, and how that is told: to their owners, to streams, to who waits for all.

use std::{
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use ds_core::{Device, ErrorKind, Point, Timeline};

use crate::{
    failure::Failure,
    memory::{Left, Memory},
};

/// How an operation ended that did what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// How many bytes were moved.
    pub bytes: u64,
    /// CRC-64/NVME of these bytes in the order of the extents, if it was asked for.
    pub checksum: Option<u64>,
}

/// The end of one operation; outlives its file and its hold on memory.
pub(crate) struct Ending {
    device: Device,
    state: Mutex<EndingState>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct EndingState {
    outcome: Option<Result<Done, Failure>>,
    /// Made when it is first asked for.
    point: Option<Point>,
}

impl Ending {
    /// Of an operation that has just begun.
    pub(crate) fn new(device: Device, tally: &Arc<Tally>) -> Self {
        tally.lock().pending += 1;
        Self {
            device,
            state: Mutex::default(),
            tally: Arc::clone(tally),
        }
    }

    /// Tells everybody. Once.
    pub(crate) fn tell(&self, outcome: Result<Done, Failure>) {
        let failure = outcome.as_ref().err().cloned();
        let mut state = self.state();
        if let Some(point) = &state.point {
            reach(point, &outcome);
        }
        state.outcome = Some(outcome);
        drop(state);
        self.tally.ended(failure);
    }

    /// The point that is reached when it has ended, or fails as it does.
    pub(crate) fn point(&self) -> ds_core::Result<Point> {
        let mut state = self.state();
        if let Some(point) = &state.point {
            return Ok(point.clone());
        }
        let point = Timeline::new(self.device)?.next();
        if let Some(outcome) = &state.outcome {
            reach(&point, outcome);
        }
        state.point = Some(point.clone());
        Ok(point)
    }

    pub(crate) fn outcome(&self) -> Option<Result<Done, Failure>> {
        self.state().outcome.clone()
    }

    pub(crate) fn wait(&self) -> Result<Done, Failure> {
        self.tally.check_process("wait for a file operation")?;
        let mut tally = self.tally.lock();
        let outcome = loop {
            if let Some(outcome) = self.outcome() {
                break outcome;
            }
            tally = self.tally.sleep(tally);
        };
        drop(tally);
        self.tally.left.clear();
        outcome
    }

    /// Takes the memory of its job, which nobody needs any more.
    pub(crate) fn leave(&self, memory: Memory) {
        self.tally.left.push(memory);
    }

    fn state(&self) -> MutexGuard<'_, EndingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises a point's timeline, or fails it.
fn reach(point: &Point, outcome: &Result<Done, Failure>) {
    let timeline = point.timeline();
    let told = match outcome {
        Ok(_) => timeline.signal(point.value()),
        Err(failure) => timeline.fail(failure.kind()),
    };
    if let Err(e) = told {
        log::error!(
            "tell {} that a file operation has ended: {e}",
            timeline.device()
        );
    }
}

/// What a handle knows of all its jobs together.
pub(crate) struct Tally {
    state: Mutex<TallyState>,
    changed: Condvar,
    left: Left,
    process: u32,
}

#[derive(Default)]
pub(crate) struct TallyState {
    /// Jobs that have not ended.
    pub(crate) pending: usize,
    /// Jobs that ended well since the handle was last waited for.
    pub(crate) finished: usize,
    /// The first failure since then.
    pub(crate) failure: Option<Failure>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            left: Left::default(),
            process: process::id(),
        }
    }

    pub(crate) fn left(&self) -> &Left {
        &self.left
    }

    /// A child of `fork` has none of the lanes' threads and would wait for ever.
    pub(crate) fn check_process(&self, op: &'static str) -> Result<(), Failure> {
        if process::id() == self.process {
            return Ok(());
        }
        let context = "this process was forked off the one that made the handle".to_owned();
        let failure = Failure::new(ErrorKind::ShuttingDown, op, context);
        Err(failure.with_hint("make a handle of its own"))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, TallyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, TallyState>) -> MutexGuard<'a, TallyState> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, failure: Option<Failure>) {
        let mut state = self.lock();
        state.pending -= 1;
        match failure {
            None => state.finished += 1,
            Some(failure) => _ = state.failure.get_or_insert(failure),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until no job is pending, and gives how many ended well since the last time.
    pub(crate) fn wait(&self) -> Result<usize, Failure> {
        let mut state = self.lock();
        while state.pending > 0 {
            state = self.sleep(state);
        }
        let finished = std::mem::take(&mut state.finished);
        let failure = state.failure.take();
        drop(state);
        self.left.clear();
        match failure {
            None => Ok(finished),
            Some(failure) => Err(failure),
        }
    }
}
