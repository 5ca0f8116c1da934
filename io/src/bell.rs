//! What wakes a lane that sleeps in the kernel: a descriptor that an engine can wait for.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{Errno, read, write},
};

/// Wakes the one thread that listens. Clones are the same bell.
#[derive(Clone)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    /// Wakes the listener, now or when it next listens.
    pub(crate) fn ring(&self) {
        // It fails only when it has been rung 2^64 - 1 times and not heard.
        while write(&*self.0, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }

    /// Waits until it rings, and makes it quiet.
    pub(crate) fn wait(&self) {
        while poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], None) == Err(Errno::INTR) {}
        self.clear();
    }

    /// Makes it quiet.
    pub(crate) fn clear(&self) {
        while read(&*self.0, &mut [0_u8; 8]) == Err(Errno::INTR) {}
    }

    /// Readable while it rings.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
