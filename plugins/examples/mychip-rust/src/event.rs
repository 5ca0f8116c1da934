//! Timelines: a counter that grows, or fails, and whoever waits for it.

use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use ds_plugin::{
    Error, EventState, Result,
    abi::{DS_FOREVER, DS_OK, DsStatus},
};

/// A timeline, at 0 when made.
pub(crate) struct Timeline {
    state: Mutex<EventState>,
    changed: Condvar,
}

impl Default for Timeline {
    fn default() -> Self {
        let state = EventState {
            value: 0,
            status: DS_OK,
            time_ns: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }
}

impl Timeline {
    /// Raises it to `value`, or fails it with a `status`. A failed one stays where it is.
    pub(crate) fn raise(&self, value: u64, status: DsStatus) {
        let mut state = self.lock();
        if state.status != DS_OK {
            return;
        }
        if status != DS_OK {
            state.status = status;
        } else if value > state.value {
            state.value = value;
            state.time_ns = now_ns();
        }
        self.changed.notify_all();
    }

    /// Blocks until it stands at `value` or never will.
    pub(crate) fn wait(&self, value: u64, timeout_ns: u64) -> Result<()> {
        let open = |state: &mut EventState| state.value < value && state.status == DS_OK;
        let state = self.lock();
        let state = if timeout_ns == DS_FOREVER {
            self.changed
                .wait_while(state, open)
                .unwrap_or_else(PoisonError::into_inner)
        } else {
            let timeout = Duration::from_nanos(timeout_ns);
            let waited = self.changed.wait_timeout_while(state, timeout, open);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        match state.status {
            // What was reached before a failure counts as reached.
            _ if state.value >= value => Ok(()),
            DS_OK => Err(Error::timeout(format!(
                "the timeline stands at {} after {timeout_ns} ns, {value} was waited for",
                state.value
            ))),
            status => Err(Error::new(status, "work before this point failed")),
        }
    }

    pub(crate) fn state(&self) -> EventState {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, EventState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds on a clock that never goes back; at least 1, for 0 means that the time is not told.
fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1)
}
