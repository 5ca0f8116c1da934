//! The compute pool: one fork-join team that does the work of every stream.
//!
//! A job is a range of chunks, in pieces. Each thread takes pieces from a place of its own on, so that
//! one call after another finds a tensor in the caches of the same cores, and then what others have not
//! begun. Idle workers spin for a moment, because the next kernel usually follows at once, and then park.
//! Which thread takes a chunk never changes a result: chunk boundaries are the kernel's, and chunks do
//! not share output.

use std::{
    hint,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a waiting thread looks before it sleeps: about what waking a sleeper costs, so that the
/// wait is never much more than twice the shortest possible.
const SPIN: Duration = Duration::from_micros(50);
/// Looks between two glances at the clock.
const LOOKS: u32 = 16;

/// Looks for a moment whether it is `done`.
#[inline]
pub(crate) fn spin_until(done: impl Fn() -> bool) -> bool {
    if done() {
        return true;
    }
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..LOOKS {
            hint::spin_loop();
            if done() {
                return true;
            }
        }
        // The scheduler likes to put the one that is waited for on this very core.
        thread::yield_now();
    }
    false
}

/// Set in [`Team::gate`] while a job may be joined; the bits above count who is inside.
const OPEN: usize = 1;
const INSIDE: usize = 2;

/// A team of threads. The calling thread is always one of them.
pub(crate) struct Pool {
    team: Arc<Team>,
    workers: OnceLock<Vec<Worker>>,
    threads: usize,
    /// Held for the length of a job: one at a time.
    busy: Mutex<()>,
}

struct Worker {
    thread: Thread,
    parked: Arc<AtomicBool>,
}

struct Team {
    gate: AtomicUsize,
    job: AtomicPtr<Job<'static>>,
}

/// Words of [`Job::taken`].
const WORDS: usize = 16;
/// Pieces for a thread, where there are as many chunks: few enough to take, small enough to balance.
const PIECES: usize = 8;

struct Job<'a> {
    /// A bit for each piece.
    taken: [AtomicU64; WORDS],
    pieces: usize,
    chunks: usize,
    threads: usize,
    run: &'a (dyn Fn(usize, usize) + Sync),
}

impl Pool {
    /// A team of `threads`, at least one; workers start with the first job that needs them.
    pub(crate) fn new(threads: usize) -> Self {
        let team = Team {
            gate: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
        };
        Self {
            team: Arc::new(team),
            workers: OnceLock::new(),
            threads: threads.max(1),
            busy: Mutex::new(()),
        }
    }

    /// Calls `run(begin, end)` for pieces that cover `0..chunks`, on all threads, and returns when
    /// every piece is done.
    pub(crate) fn for_each(&self, chunks: usize, run: &(dyn Fn(usize, usize) + Sync)) {
        if chunks <= 1 || self.threads == 1 {
            if chunks > 0 {
                run(0, chunks);
            }
            return;
        }
        let _turn = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = (self.threads * PIECES).min(WORDS * 64);
        let job = Job {
            taken: [const { AtomicU64::new(0) }; WORDS],
            pieces: chunks.min(pieces),
            chunks,
            threads: self.threads,
            run,
        };
        // The pointer outlives `'a` only in type: `close` below keeps this frame alive until the
        // last worker has left the job.
        self.team
            .job
            .store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        self.team.gate.store(OPEN, Ordering::SeqCst);
        for worker in self.workers().iter().take(chunks - 1) {
            if worker.parked.swap(false, Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        // Closes also when a chunk panics, so that no worker is left with a dangling job.
        let _close = Close(&self.team);
        job.work(0);
    }

    fn workers(&self) -> &[Worker] {
        self.workers.get_or_init(|| {
            (1..self.threads)
                .filter_map(|index| {
                    let team = Arc::clone(&self.team);
                    let parked = Arc::new(AtomicBool::new(false));
                    let own = Arc::clone(&parked);
                    thread::Builder::new()
                        .name(format!("ds-cpu-{index}"))
                        .spawn(move || team.serve(index, &own))
                        .ok()
                        .map(|handle| Worker {
                            thread: handle.thread().clone(),
                            parked,
                        })
                })
                .collect()
        })
    }
}

impl Job<'_> {
    /// Takes what nobody has, from the share of this thread on; whether there was anything.
    fn work(&self, thread: usize) -> bool {
        let home = thread * self.pieces / self.threads;
        let mut any = false;
        for piece in (home..self.pieces).chain(0..home) {
            let (word, bit) = (&self.taken[piece / 64], 1 << (piece % 64));
            if word.load(Ordering::Relaxed) & bit == 0
                && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
            {
                let at = |piece| piece * self.chunks / self.pieces;
                (self.run)(at(piece), at(piece + 1));
                any = true;
            }
        }
        any
    }
}

impl Team {
    fn serve(&self, thread: usize, parked: &AtomicBool) {
        loop {
            if spin_until(|| self.join(thread)) {
                continue;
            }
            parked.store(true, Ordering::SeqCst);
            // Looks once more, in case the job came between the last look and the flag.
            if self.gate.load(Ordering::SeqCst) & OPEN == 0 {
                thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
    }

    /// Works on the open job, if there is one with chunks left.
    fn join(&self, thread: usize) -> bool {
        let mut gate = self.gate.load(Ordering::Relaxed);
        loop {
            if gate & OPEN == 0 {
                return false;
            }
            match self.gate.compare_exchange_weak(
                gate,
                gate + INSIDE,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => gate = now,
            }
        }
        // SAFETY: we entered while the gate was open, so the caller of `for_each` stays in its
        // frame, where the job lives, until we have left.
        let job = unsafe { &*self.job.load(Ordering::Relaxed) };
        let any = job.work(thread);
        self.gate.fetch_sub(INSIDE, Ordering::Release);
        any
    }
}

struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let left = || self.0.gate.load(Ordering::Acquire) == 0;
        while !spin_until(left) {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once_whatever_the_team() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for chunks in [0, 1, 2, 3, 17, 1000] {
                let seen: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(chunks, &|begin, end| {
                    for one in &seen[begin..end] {
                        one.fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(
                    seen.iter().all(|n| n.load(Ordering::Relaxed) == 1),
                    "{threads} {chunks}"
                );
            }
        }
    }

    #[test]
    fn several_callers_take_turns() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.for_each(7, &|begin, end| {
                            sum.fetch_add((begin..end).sum(), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 200 * 21);
    }

    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller_and_leaves_the_team_usable() {
        let pool = Pool::new(1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.for_each(4, &|_, _| panic!("chunk"));
        }));
        assert!(caught.is_err());
        let done = AtomicUsize::new(0);
        pool.for_each(4, &|begin, end| {
            done.fetch_add(end - begin, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 4);
    }
}
