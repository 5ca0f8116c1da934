//! The compute pool: one fork-join team that does the work of every stream.
//!
//! A job is a range of chunks, of which each thread has a share of neighbours: what one kernel left
//! in a core's cache, the next one finds there. Whoever has done his own helps the others. Idle
//! workers spin for a moment, because the next kernel usually follows at once, and then park. Which
//! thread takes a chunk never changes a result: chunk boundaries are the kernel's, and chunks do not
//! share output.

use std::{
    cell::Cell,
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

/// Set in [`Team::gate`] while a job may be joined.
const OPEN: u64 = 1;
/// Above it, how many workers are inside.
const INSIDE: u64 = 2;
/// Above that, the number of the job.
const NUMBER: u64 = 1 << 32;

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
    gate: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    /// One for each thread, the caller's first.
    shares: Box<[Share]>,
}

/// The chunks that a thread begins with, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

struct Job<'a> {
    /// Chunks taken at a time: few enough visits to a share, small enough pieces to balance.
    batch: usize,
    run: &'a (dyn Fn(usize, usize) + Sync),
}

impl Pool {
    /// A team of `threads`, at least one; workers start with the first job that needs them.
    pub(crate) fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let team = Team {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            shares: (0..threads).map(|_| Share::default()).collect(),
        };
        Self {
            team: Arc::new(team),
            workers: OnceLock::new(),
            threads,
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
        let job = Job {
            batch: (chunks / (self.threads * 8)).max(1),
            run,
        };
        self.team.divide(chunks);
        // The pointer outlives `'a` only in type: `close` below keeps this frame alive until the
        // last worker has left the job.
        self.team
            .job
            .store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        self.team.open();
        for worker in self.workers().iter().take(chunks - 1) {
            if worker.parked.swap(false, Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        // Closes also when a chunk panics, so that no worker is left with a dangling job.
        let _close = Close(&self.team);
        self.team.work(0, &job);
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

impl Team {
    /// Gives every thread that is needed a share of `chunks`. Nobody is inside.
    fn divide(&self, chunks: usize) {
        let sharers = chunks.min(self.shares.len());
        // Without a product that could overflow: the first `more` shares have one chunk more.
        let (each, more) = (chunks / sharers, chunks % sharers);
        let start = |member: usize| member.min(sharers) * each + member.min(more);
        for (member, share) in self.shares.iter().enumerate() {
            share.next.store(start(member), Ordering::Relaxed);
            share.end.store(start(member + 1), Ordering::Relaxed);
        }
    }

    /// Lets workers join a job of the next number. Nobody is inside, and only the caller of
    /// [`Pool::for_each`] whose turn it is opens and closes.
    fn open(&self) {
        let number = self.gate.load(Ordering::Relaxed) & !(NUMBER - 1);
        self.gate
            .store(number.wrapping_add(NUMBER) | OPEN, Ordering::SeqCst);
    }

    fn serve(&self, member: usize, parked: &AtomicBool) {
        let last = Cell::new(0);
        loop {
            if spin_until(|| self.join(member, &last)) {
                continue;
            }
            parked.store(true, Ordering::SeqCst);
            // Looks once more, in case the job came between the last look and the flag.
            let gate = self.gate.load(Ordering::SeqCst);
            if gate & OPEN == 0 || gate / NUMBER == last.get() {
                thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
    }

    /// Works on the open job, if there is one that it has not worked on: what it left was done.
    fn join(&self, member: usize, last: &Cell<u64>) -> bool {
        let mut gate = self.gate.load(Ordering::Relaxed);
        loop {
            if gate & OPEN == 0 || gate / NUMBER == last.get() {
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
        last.set(gate / NUMBER);
        // SAFETY: we entered while the gate was open, so the caller of `for_each` stays in its
        // frame, where the job lives, until we have left.
        let job = unsafe { &*self.job.load(Ordering::Relaxed) };
        self.work(member, job);
        self.gate.fetch_sub(INSIDE, Ordering::Release);
        true
    }

    /// Takes what is left of every share, the member's own first.
    fn work(&self, member: usize, job: &Job<'_>) {
        let (before, own) = self.shares.split_at(member);
        for share in own.iter().chain(before) {
            let end = share.end.load(Ordering::Relaxed);
            // A look first: an empty share's line stays where it is.
            while share.next.load(Ordering::Relaxed) < end {
                let begin = share.next.fetch_add(job.batch, Ordering::Relaxed);
                if begin < end {
                    (job.run)(begin, (begin + job.batch).min(end));
                }
            }
        }
    }
}

struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let left = || self.0.gate.load(Ordering::Acquire) % NUMBER == 0;
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
    fn shares_follow_one_another_and_are_of_a_size() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for chunks in [1, 2, 3, 7, 8, 17, usize::MAX] {
                pool.team.divide(chunks);
                let shares = pool.team.shares.iter();
                let spans = shares.map(|s| {
                    (
                        s.next.load(Ordering::Relaxed),
                        s.end.load(Ordering::Relaxed),
                    )
                });
                let spans: Vec<_> = spans.collect();
                assert_eq!((spans[0].0, spans[threads - 1].1), (0, chunks));
                assert!(
                    spans.windows(2).all(|pair| pair[0].1 == pair[1].0),
                    "{spans:?}"
                );
                let sizes = spans.iter().map(|(begin, end)| end - begin);
                let least = sizes.clone().filter(|&size| size > 0).min();
                assert!(sizes.max() <= least.map(|least| least + 1), "{spans:?}");
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
