//! Streams: queues that whoever is at hand moves on. The default one runs work where it is called
//! while nothing is pending; what waits is run by the stream's own thread, or by a caller that
//! waits for the stream anyway. Waits block no thread: the timeline calls when it gets there.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
};

use ds_plugin::{
    Error, Result,
    abi::{DS_OK, DsStatus},
};

use crate::{
    event::{self, Timeline},
    sync::{
        AtomicBool, AtomicI32, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, spin_until,
        thread,
    },
};

/// A queue of work.
pub struct Stream {
    shared: Arc<Shared>,
    /// Whether work may run on the calling thread when nothing is pending.
    inline: bool,
}

struct Shared {
    /// Items queued or running; 0 means that the stream is idle.
    pending: AtomicUsize,
    /// The status of the first failure, which the queue holds in full.
    status: AtomicI32,
    /// The first item is a launch or copy that nobody runs yet. Written under the lock.
    runnable: AtomicBool,
    queue: Mutex<Queue>,
    /// Where the stream's thread sleeps.
    work: Condvar,
    /// Where callers of `synchronize` sleep.
    change: Condvar,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Work>,
    turn: Turn,
    /// How many callers are in `synchronize`, and will run what is there to run.
    callers: usize,
    callers_asleep: usize,
    thread: Served,
    closed: bool,
    /// The first failure; the stream takes no more work.
    failure: Option<Error>,
}

/// Who takes the next item.
#[derive(Default, PartialEq)]
enum Turn {
    /// Anybody.
    #[default]
    Free,
    /// The one who is at it.
    Taken,
    /// Nobody, until the timeline that the last item waits for has called.
    Blocked,
}

/// The stream's thread.
#[derive(Default, PartialEq)]
enum Served {
    #[default]
    NotStarted,
    Awake,
    Asleep,
}

/// One item of a queue.
pub(crate) enum Work {
    /// A launch, copy or fill.
    Run(Box<dyn FnOnce() + Send>),
    /// Raise the timeline.
    Record(Arc<Timeline>, u64),
    /// Hold the queue until the timeline stands at the value.
    Wait(Arc<Timeline>, u64),
}

impl Stream {
    /// A stream; `inline` for the default one.
    pub(crate) fn new(inline: bool) -> Self {
        let shared = Shared {
            pending: AtomicUsize::new(0),
            status: AtomicI32::new(DS_OK),
            runnable: AtomicBool::new(false),
            queue: Mutex::default(),
            work: Condvar::new(),
            change: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            inline,
        }
    }

    /// Runs `now` on this thread when the stream is idle and inline, else queues what `later` makes.
    /// Two closures, because only the queued one has to own its data.
    #[inline]
    pub(crate) fn run(
        &self,
        now: impl FnOnce(),
        later: impl FnOnce() -> Box<dyn FnOnce() + Send>,
    ) -> Result<()> {
        if self.idle_inline() {
            self.shared.check()?;
            now();
            return Ok(());
        }
        self.push(Work::Run(later()));
        Ok(())
    }

    /// Queues a record, or does it at once.
    pub(crate) fn record(&self, timeline: &Arc<Timeline>, value: u64) {
        if self.idle_inline() {
            timeline.signal(value, self.shared.status());
        } else {
            self.push(Work::Record(Arc::clone(timeline), value));
        }
    }

    /// Queues a wait, or finds that it is over.
    pub(crate) fn wait(&self, timeline: &Arc<Timeline>, value: u64) {
        if !self.idle_inline() || timeline.outcome(value) != Some(DS_OK) {
            self.push(Work::Wait(Arc::clone(timeline), value));
        }
    }

    /// Blocks until everything queued so far is done; gives the first failure.
    ///
    /// The caller has nothing better to do, so it runs what it finds in the queue.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let shared = &self.shared;
        if self.is_idle() {
            return shared.check();
        }
        shared.lock().callers += 1;
        while !self.is_idle() {
            shared.advance(true);
            if spin_until(|| self.is_idle() || shared.runnable.load(Ordering::Acquire)) {
                continue;
            }
            let mut queue = shared.lock();
            queue.callers_asleep += 1;
            while !self.is_idle() && !shared.runnable.load(Ordering::Acquire) {
                queue = shared
                    .change
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            queue.callers_asleep -= 1;
        }
        let mut queue = shared.lock();
        queue.callers -= 1;
        // What came after the last look counted on this caller.
        if queue.callers == 0 && shared.runnable.load(Ordering::Acquire) {
            shared.call_a_runner(&mut queue);
        }
        drop(queue);
        shared.check()
    }

    /// `Ok` when idle, `not_ready` when not, else the failure.
    pub(crate) fn query(&self) -> Result<()> {
        match self.shared.pending.load(Ordering::Acquire) {
            0 => self.shared.check(),
            n => Err(Error::not_ready(format!(
                "{n} items of the stream are pending"
            ))),
        }
    }

    fn is_idle(&self) -> bool {
        self.shared.pending.load(Ordering::Acquire) == 0
    }

    #[inline]
    fn idle_inline(&self) -> bool {
        self.inline && self.is_idle()
    }

    fn push(&self, work: Work) {
        let mut queue = self.shared.lock();
        queue.items.push_back(work);
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        drop(queue);
        self.shared.advance(false);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The thread finishes the queue first, as the boundary promises, and holds what it needs.
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    /// Takes items from the front until there are none, a wait is not over, or the first one is to
    /// be run and `runs` says that this is not the thread for it.
    fn advance(self: &Arc<Self>, runs: bool) {
        let mut queue = self.lock();
        if queue.turn != Turn::Free {
            return;
        }
        queue.turn = Turn::Taken;
        loop {
            match queue.items.front() {
                Some(Work::Run(_)) if !runs && self.status() == DS_OK => {
                    if self.call_a_runner(&mut queue) {
                        break;
                    }
                    continue;
                }
                None => break,
                Some(_) => {}
            }
            self.runnable.store(false, Ordering::Release);
            let Some(work) = queue.items.pop_front() else {
                break;
            };
            drop(queue);
            match work {
                Work::Run(run) => {
                    if self.status() == DS_OK && catch_unwind(AssertUnwindSafe(run)).is_err() {
                        self.fail(Error::internal("a kernel or copy of the stream panicked"));
                    }
                }
                Work::Record(timeline, value) => timeline.signal(value, self.status()),
                Work::Wait(timeline, value) => {
                    let Some(status) = timeline.outcome(value) else {
                        // Said before the timeline knows of the callback: it may come at once.
                        self.lock().turn = Turn::Blocked;
                        let shared = Arc::clone(self);
                        timeline.on_ready(value, Box::new(move |status| shared.unblock(status)));
                        return;
                    };
                    self.note(status);
                }
            }
            self.finish_one();
            queue = self.lock();
        }
        queue.turn = Turn::Free;
    }

    /// The timeline that the last item waited for has got there, or failed.
    fn unblock(self: &Arc<Self>, status: DsStatus) {
        self.note(status);
        self.lock().turn = Turn::Free;
        self.finish_one();
        self.advance(false);
    }

    /// Tells whoever runs work that there is some: a caller of `synchronize`, else the stream's
    /// thread. `false` when there is no thread to be had, so that the stream has failed.
    fn call_a_runner(self: &Arc<Self>, queue: &mut Queue) -> bool {
        self.runnable.store(true, Ordering::Release);
        if queue.callers > 0 {
            if queue.callers_asleep > 0 {
                self.change.notify_all();
            }
            return true;
        }
        match queue.thread {
            Served::Awake => {}
            Served::Asleep => self.work.notify_one(),
            Served::NotStarted => {
                let shared = Arc::clone(self);
                let started = thread::Builder::new()
                    .name("ds-cpu-stream".to_owned())
                    .spawn(move || shared.serve());
                if let Err(e) = started {
                    let error = Error::io("start a thread for the stream", &e);
                    self.status.store(error.status(), Ordering::Release);
                    queue.failure.get_or_insert(error);
                    return false;
                }
                queue.thread = Served::Awake;
            }
        }
        true
    }

    /// The stream's thread.
    fn serve(self: &Arc<Self>) {
        loop {
            self.advance(true);
            if spin_until(|| self.runnable.load(Ordering::Acquire)) {
                continue;
            }
            let mut queue = self.lock();
            while !self.runnable.load(Ordering::Acquire) {
                if queue.closed && self.pending.load(Ordering::Acquire) == 0 {
                    return;
                }
                queue.thread = Served::Asleep;
                queue = self
                    .work
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                queue.thread = Served::Awake;
            }
        }
    }

    /// One item less is pending.
    fn finish_one(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let queue = self.lock();
            if queue.callers_asleep > 0 {
                self.change.notify_all();
            }
            if queue.closed {
                self.work.notify_all();
            }
        }
    }

    fn note(&self, status: DsStatus) {
        if let Err(error) = event::failure(status) {
            self.fail(error);
        }
    }

    fn fail(&self, error: Error) {
        let mut queue = self.lock();
        if queue.failure.is_none() {
            self.status.store(error.status(), Ordering::Release);
            queue.failure = Some(error);
        }
    }

    fn status(&self) -> DsStatus {
        self.status.load(Ordering::Acquire)
    }

    #[inline]
    fn check(&self) -> Result<()> {
        if self.status() == DS_OK {
            return Ok(());
        }
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ds_plugin::abi::{DS_DEVICE_LOST, DS_FOREVER, DS_NOT_READY};

    use super::*;

    fn queue(stream: &Stream, run: impl Fn() + Clone + Send + 'static) {
        let later = run.clone();
        stream.run(run, move || Box::new(later)).unwrap();
    }

    #[test]
    fn the_default_stream_runs_on_the_calling_thread_until_a_wait_is_pending() {
        let stream = Stream::new(true);
        let gate = Arc::new(Timeline::default());
        let (send, receive) = mpsc::channel();
        let here = thread::current().id();
        let note = move || send.send(thread::current().id()).unwrap();
        queue(&stream, note.clone());
        assert_eq!(receive.try_recv().unwrap(), here);
        stream.wait(&gate, 1);
        queue(&stream, note);
        assert!(receive.try_recv().is_err(), "ran before the wait was over");
        assert_eq!(stream.query().unwrap_err().status(), DS_NOT_READY);
        gate.signal(1, DS_OK);
        // Whoever signals is not made to run what waited.
        assert_ne!(receive.recv().unwrap(), here);
        stream.synchronize().unwrap();
    }

    #[test]
    fn no_work_is_left_behind_by_callers_that_come_and_go() {
        for inline in [true, false] {
            let stream = Stream::new(inline);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            stream.synchronize().unwrap();
                        }
                    });
                }
                for step in 1..=500 {
                    let (gate, done) = (Arc::new(Timeline::default()), Arc::default());
                    stream.wait(&gate, 1);
                    queue(&stream, || ());
                    stream.record(&done, step);
                    gate.signal(1, DS_OK);
                    done.wait(step, DS_FOREVER).unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    }

    #[test]
    fn two_streams_hand_over_in_order_through_timelines() {
        for inline in [true, false] {
            let (a, b) = (Stream::new(inline), Stream::new(false));
            let (there, back) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
            let seen = Arc::new(Mutex::new(Vec::new()));
            for step in 0..100u64 {
                let log = |name| {
                    let seen = Arc::clone(&seen);
                    move || seen.lock().unwrap().push((step, name))
                };
                queue(&a, log('a'));
                a.record(&there, step + 1);
                b.wait(&there, step + 1);
                queue(&b, log('b'));
                b.record(&back, step + 1);
                a.wait(&back, step + 1);
            }
            a.synchronize().unwrap();
            let expected: Vec<_> = (0..100).flat_map(|s| [(s, 'a'), (s, 'b')]).collect();
            assert_eq!(*seen.lock().unwrap(), expected);
        }
    }

    #[test]
    fn a_failed_wait_stops_the_stream_and_everyone_behind_it() {
        let (a, b) = (Stream::new(true), Stream::new(false));
        let (gate, after) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
        a.wait(&gate, 1);
        queue(&a, || panic!("work behind a failed wait must not run"));
        a.record(&after, 1);
        b.wait(&after, 1);
        gate.signal(0, DS_DEVICE_LOST);
        assert_eq!(a.synchronize().unwrap_err().status(), DS_DEVICE_LOST);
        assert_eq!(b.synchronize().unwrap_err().status(), DS_DEVICE_LOST);
        assert_eq!(
            after.wait(1, DS_FOREVER).unwrap_err().status(),
            DS_DEVICE_LOST
        );
    }

    #[test]
    fn a_dropped_stream_still_finishes_its_queue() {
        let stream = Stream::new(false);
        let (gate, done) = (Arc::new(Timeline::default()), Arc::new(Timeline::default()));
        stream.wait(&gate, 1);
        stream.record(&done, 1);
        drop(stream);
        gate.signal(1, DS_OK);
        done.wait(1, DS_FOREVER).unwrap();
    }
}
