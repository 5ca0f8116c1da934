//! The engine of threads: each asks the kernel for one thing at a time and waits for it.

use std::{
    collections::VecDeque,
    io,
    os::fd::BorrowedFd,
    slice,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{Action, Completion, Engine, Request, Seam};
use crate::bell::Bell;

/// More threads than this wait for one disk no better.
const MOST_THREADS: usize = 32;
/// What a thread needs that calls `pread`.
const STACK_BYTES: usize = 64 << 10;

pub(super) struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    most: usize,
}

struct Shared {
    state: Mutex<State>,
    /// There is something queued, or nothing will be any more.
    more: Condvar,
    bell: Bell,
    seam: Seam,
}

#[derive(Default)]
struct State {
    queued: VecDeque<Job>,
    idle: usize,
    done: Vec<Completion>,
    closed: bool,
}

struct Job(Request);

// SAFETY: the memory that a request names is the engine's to use from any thread until the request
// has completed, which is `queue`'s contract.
unsafe impl Send for Job {}

impl Threads {
    pub(super) fn open(depth: u32, bell: Bell, seam: Seam) -> io::Result<Self> {
        let mut threads = Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                more: Condvar::new(),
                bell,
                seam,
            }),
            workers: Vec::new(),
            most: MOST_THREADS.min(depth as usize),
        };
        // Without one nothing would ever complete.
        threads.hire()?;
        Ok(threads)
    }

    fn hire(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let builder = thread::Builder::new()
            .name("ds-io-worker".to_owned())
            .stack_size(STACK_BYTES);
        self.workers.push(builder.spawn(move || shared.work())?);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(Job(request)) = state.queued.pop_front() {
                drop(state);
                let result = self.run(&request);
                let id = request.id;
                let completion = self.seam.completion(Completion { id, result });
                state = self.lock();
                state.done.push(completion);
                self.bell.ring();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = (self.more.wait(state)).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn run(&self, request: &Request) -> Result<u32, Errno> {
        // SAFETY: the descriptor is open until the request has completed: the lane holds its file.
        let file = unsafe { BorrowedFd::borrow_raw(request.file) };
        let bytes = request.bytes as usize;
        loop {
            let moved = self.seam.submit(1).and_then(|()| match request.action {
                // SAFETY: `queue`'s contract; a byte that was never written may be read into.
                Action::Read => rustix::io::pread(
                    file,
                    unsafe { slice::from_raw_parts_mut(request.address, bytes) },
                    request.offset,
                ),
                // SAFETY: `queue`'s contract.
                Action::Write => rustix::io::pwrite(
                    file,
                    unsafe { slice::from_raw_parts(request.address, bytes) },
                    request.offset,
                ),
                Action::Sync => rustix::fs::fsync(file).map(|()| 0),
            });
            match moved {
                Err(Errno::INTR) => {}
                moved => return moved.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
            }
        }
    }
}

impl Engine for Threads {
    unsafe fn queue(&mut self, request: Request) {
        let request = self.shared.seam.request(request);
        let mut state = self.shared.lock();
        state.queued.push_back(Job(request));
        let short = state.queued.len() > state.idle;
        drop(state);
        self.shared.more.notify_one();
        // Those that there are do the work if there can be no more.
        if short && self.workers.len() < self.most && self.hire().is_err() {
            self.most = self.workers.len();
        }
    }

    fn turn(&mut self, wait_for: usize, done: &mut Vec<Completion>) -> io::Result<()> {
        let mut state = self.shared.lock();
        if wait_for > 0 && state.done.is_empty() && done.is_empty() {
            drop(state);
            // SAFETY: the bell's descriptor is open as long as the bell.
            let bell = unsafe { BorrowedFd::borrow_raw(self.shared.bell.descriptor()) };
            while poll(&mut [PollFd::new(&bell, PollFlags::IN)], None) == Err(Errno::INTR) {}
            state = self.shared.lock();
        }
        // Under the lock, so that no ring for what comes later is lost.
        self.shared.bell.clear();
        done.append(&mut state.done);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.more.notify_all();
        for worker in self.workers.drain(..) {
            // One that panicked has let go of its memory, too.
            let _ = worker.join();
        }
    }
}
