//! Timelines: a counter that grows, or fails, and whoever waits for it.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use ds_plugin::{
    Error, EventState, Result,
    abi::{DS_CANCELLED, DS_FOREVER, DS_OK, DsStatus},
};

use crate::sync::{AtomicI32, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, spin_until};

type Callback = Box<dyn FnOnce(DsStatus) + Send>;

/// A timeline that stands at 0 when made.
#[derive(Default)]
pub struct Timeline {
    /// Written under the lock, read without it.
    value: AtomicU64,
    /// `DS_OK`, or why higher values will never be reached.
    status: AtomicI32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    reached_ns: u64,
    waiters: Vec<(u64, Callback)>,
}

impl Timeline {
    /// Raises the timeline to `value`, or fails it.
    pub(crate) fn signal(&self, value: u64, status: DsStatus) {
        let mut state = self.lock();
        if self.status.load(Ordering::Relaxed) != DS_OK {
            // A failed timeline stays where it is.
        } else if status != DS_OK {
            self.status.store(status, Ordering::Release);
        } else if value > self.value.load(Ordering::Relaxed) {
            state.reached_ns = now_ns();
            self.value.store(value, Ordering::Release);
        }
        self.changed.notify_all();
        let ready: Vec<_> = if state.waiters.is_empty() {
            Vec::new()
        } else {
            let (ready, waiting) = std::mem::take(&mut state.waiters)
                .into_iter()
                .partition(|(value, _)| self.outcome(*value).is_some());
            state.waiters = waiting;
            ready
        };
        drop(state);
        for (value, callback) in ready {
            callback(self.outcome(value).unwrap_or(DS_OK));
        }
    }

    /// `DS_OK` once `value` is reached, the failure if it never will be, `None` before either.
    pub(crate) fn outcome(&self, value: u64) -> Option<DsStatus> {
        // The status first: a value that was reached before the failure counts as reached.
        let status = self.status.load(Ordering::Acquire);
        if self.value.load(Ordering::Acquire) >= value {
            return Some(DS_OK);
        }
        (status != DS_OK).then_some(status)
    }

    /// Blocks until there is an outcome for `value`.
    pub(crate) fn wait(&self, value: u64, timeout_ns: u64) -> Result<()> {
        if timeout_ns > 0 {
            spin_until(|| self.outcome(value).is_some());
        }
        let deadline = (timeout_ns != DS_FOREVER)
            .then(|| Instant::now().checked_add(Duration::from_nanos(timeout_ns)))
            .flatten();
        let mut state = self.lock();
        loop {
            if let Some(status) = self.outcome(value) {
                return failure(status);
            }
            state = match deadline {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let at = self.value.load(Ordering::Relaxed);
                        return Err(Error::timeout(format!(
                            "the timeline stands at {at} after {timeout_ns} ns, {value} was waited \
                             for"
                        )));
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Calls `callback` when there is an outcome for `value`, perhaps at once.
    pub(crate) fn on_ready(&self, value: u64, callback: Callback) {
        let mut state = self.lock();
        match self.outcome(value) {
            None => state.waiters.push((value, callback)),
            Some(status) => {
                drop(state);
                callback(status);
            }
        }
    }

    pub(crate) fn state(&self) -> EventState {
        let state = self.lock();
        EventState {
            value: self.value.load(Ordering::Relaxed),
            status: self.status.load(Ordering::Relaxed),
            time_ns: state.reached_ns,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, callback) in state.waiters.drain(..) {
            callback(DS_CANCELLED);
        }
    }
}

/// The error of a point that will not be reached.
pub(crate) fn failure(status: DsStatus) -> Result<()> {
    match status {
        DS_OK => Ok(()),
        status => Err(Error::new(
            status,
            "work before this point of the timeline failed",
        )),
    }
}

/// Nanoseconds since the first call, at least 1, on a clock that never goes back.
fn now_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use ds_plugin::abi::{DS_DEVICE_LOST, DS_TIMEOUT};

    use super::*;

    #[test]
    fn a_failure_spares_the_points_reached_before_it() {
        let timeline = Timeline::default();
        timeline.signal(3, DS_OK);
        timeline.signal(9, DS_DEVICE_LOST);
        assert_eq!(timeline.outcome(3), Some(DS_OK));
        assert_eq!(timeline.outcome(4), Some(DS_DEVICE_LOST));
        assert_eq!(
            timeline.wait(4, DS_FOREVER).unwrap_err().status(),
            DS_DEVICE_LOST
        );
    }

    #[test]
    fn a_failed_timeline_stays_where_it_is() {
        let timeline = Timeline::default();
        timeline.signal(0, DS_DEVICE_LOST);
        timeline.signal(5, DS_OK);
        assert_eq!(timeline.outcome(1), Some(DS_DEVICE_LOST));
    }

    #[test]
    fn a_dropped_timeline_cancels_who_waits() {
        let (send, receive) = mpsc::channel();
        let timeline = Timeline::default();
        timeline.on_ready(1, Box::new(move |status| send.send(status).unwrap()));
        drop(timeline);
        assert_eq!(receive.recv().unwrap(), DS_CANCELLED);
    }

    #[test]
    fn the_value_never_goes_back() {
        let timeline = Timeline::default();
        timeline.signal(5, DS_OK);
        timeline.signal(2, DS_OK);
        assert_eq!(timeline.state().value, 5);
    }

    #[test]
    fn a_wait_times_out_and_says_where_the_timeline_stands() {
        let timeline = Timeline::default();
        timeline.signal(1, DS_OK);
        let error = timeline.wait(2, 1_000).unwrap_err();
        assert_eq!(error.status(), DS_TIMEOUT);
        assert!(error.message().contains("stands at 1"), "{error}");
    }

    #[test]
    fn callbacks_run_once_with_the_outcome_of_their_own_point() {
        let timeline = Arc::new(Timeline::default());
        let (send, receive) = mpsc::channel();
        for value in [1, 2, 3] {
            let send = send.clone();
            timeline.on_ready(
                value,
                Box::new(move |status| send.send((value, status)).unwrap()),
            );
        }
        timeline.signal(2, DS_OK);
        timeline.signal(0, DS_DEVICE_LOST);
        drop(send);
        let mut seen: Vec<_> = receive.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, [(1, DS_OK), (2, DS_OK), (3, DS_DEVICE_LOST)]);
    }
}
