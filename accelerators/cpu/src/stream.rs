//! Streams: the default one runs work where it is called, unless a wait is pending; every other
//! one owns a thread that takes its queue in order. The compute pool does the work of all.

use std::{
    collections::VecDeque,
    hint,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use ds_plugin::{
    Error, Result,
    abi::{DS_OK, DsStatus},
};

use crate::{event::Timeline, pool::SPINS};

/// A queue of work.
pub struct Stream {
    shared: Arc<Shared>,
    /// Whether work may run on the calling thread when nothing is pending.
    inline: bool,
}

struct Shared {
    /// Items queued or running; 0 means that the stream is idle.
    pending: AtomicUsize,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Work>,
    served: bool,
    closed: bool,
    /// The first failure; the stream takes no more work.
    failure: Option<Error>,
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
            queue: Mutex::default(),
            changed: Condvar::new(),
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
        if self.inline && self.shared.pending.load(Ordering::Acquire) == 0 {
            self.shared.check()?;
            now();
            return Ok(());
        }
        self.push(Work::Run(later()))
    }

    /// Queues a record, or does it at once.
    pub(crate) fn record(&self, timeline: &Arc<Timeline>, value: u64) -> Result<()> {
        if self.idle_inline() {
            timeline.signal(value, self.shared.status());
            return Ok(());
        }
        self.push(Work::Record(Arc::clone(timeline), value))
    }

    /// Queues a wait, or finds that it is over.
    pub(crate) fn wait(&self, timeline: &Arc<Timeline>, value: u64) -> Result<()> {
        if self.idle_inline() && timeline.outcome(value) == Some(DS_OK) {
            return Ok(());
        }
        self.push(Work::Wait(Arc::clone(timeline), value))
    }

    /// Blocks until everything queued so far is done; gives the first failure.
    pub(crate) fn synchronize(&self) -> Result<()> {
        for _ in 0..SPINS {
            if self.shared.pending.load(Ordering::Acquire) == 0 {
                return self.shared.check();
            }
            hint::spin_loop();
        }
        let mut queue = self.shared.lock();
        while self.shared.pending.load(Ordering::Acquire) != 0 {
            queue = self
                .shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        self.shared.check()
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

    fn idle_inline(&self) -> bool {
        self.inline && self.shared.pending.load(Ordering::Acquire) == 0
    }

    fn push(&self, work: Work) -> Result<()> {
        let mut queue = self.shared.lock();
        if !queue.served {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new()
                .name("ds-cpu-stream".to_owned())
                .spawn(move || shared.serve())
                .map_err(|e| Error::io("start a thread for the stream", &e))?;
            queue.served = true;
        }
        queue.items.push_back(work);
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The thread finishes the queue first, as the boundary promises, and holds what it needs.
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn serve(&self) {
        while let Some(work) = self.next() {
            match work {
                Work::Run(run) => {
                    if self.status() == DS_OK {
                        run();
                    }
                }
                Work::Record(timeline, value) => timeline.signal(value, self.status()),
                Work::Wait(timeline, value) => {
                    if let Err(error) = timeline.wait(value, ds_plugin::abi::DS_FOREVER) {
                        self.lock().failure.get_or_insert(error);
                    }
                }
            }
            if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
                drop(self.lock());
                self.changed.notify_all();
            }
        }
    }

    fn next(&self) -> Option<Work> {
        for _ in 0..SPINS {
            if self.pending.load(Ordering::Acquire) > 0 {
                break;
            }
            hint::spin_loop();
        }
        let mut queue = self.lock();
        loop {
            if let Some(work) = queue.items.pop_front() {
                return Some(work);
            }
            if queue.closed {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn status(&self) -> DsStatus {
        self.lock().failure.as_ref().map_or(DS_OK, Error::status)
    }

    fn check(&self) -> Result<()> {
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        stream.wait(&gate, 1).unwrap();
        queue(&stream, note);
        assert!(receive.try_recv().is_err(), "ran before the wait was over");
        assert_eq!(stream.query().unwrap_err().status(), DS_NOT_READY);
        gate.signal(1, DS_OK);
        stream.synchronize().unwrap();
        assert_ne!(receive.try_recv().unwrap(), here);
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
                a.record(&there, step + 1).unwrap();
                b.wait(&there, step + 1).unwrap();
                queue(&b, log('b'));
                b.record(&back, step + 1).unwrap();
                a.wait(&back, step + 1).unwrap();
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
        a.wait(&gate, 1).unwrap();
        queue(&a, || panic!("work behind a failed wait must not run"));
        a.record(&after, 1).unwrap();
        b.wait(&after, 1).unwrap();
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
        stream.wait(&gate, 1).unwrap();
        stream.record(&done, 1).unwrap();
        drop(stream);
        gate.signal(1, DS_OK);
        done.wait(1, DS_FOREVER).unwrap();
    }
}
