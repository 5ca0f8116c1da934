//! Notices a child of `fork`: the threads behind streams and drivers do not exist in it, locks may
//! be held for ever, and the memory is the parent's. There every call into a plugin is refused.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

use crate::{Error, ErrorKind};

static FORKED: AtomicBool = AtomicBool::new(false);

/// From now on children of this process are noticed. Called before the first device is opened: a
/// process that was forked before has devices of its own.
pub(crate) fn watch() {
    extern "C" fn note() {
        FORKED.store(true, Ordering::Relaxed);
    }
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: the handler lives as long as the process, and one store is all that it does.
        let code = unsafe { libc::pthread_atfork(None, None, Some(note)) };
        if code != 0 {
            log::warn!("children of fork will not be noticed: pthread_atfork gives {code}");
        }
    });
}

/// Whether this process was forked off one that had opened a device.
#[inline]
pub(crate) fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Why `what` is not done in a child.
#[cold]
pub(crate) fn refusal(what: &'static str) -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        what,
        "this process was forked off one that had opened a device, and has neither its threads nor \
         its memory",
    )
    .with_hint("start processes instead of forking after initialisation")
}
