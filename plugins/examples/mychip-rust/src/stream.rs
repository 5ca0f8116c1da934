//! Streams: a queue and a thread that takes its items one after another. The thread stands in for
//! the device: it may wait for a point as long as it likes, and nobody who queues waits with it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use ds_plugin::{
    Error, Result,
    abi::{DS_ERROR_STREAM_POISONED, DS_FOREVER, DS_OK, DS_PLUGIN_BUG},
};

use crate::event::Timeline;

/// A queue of work. Dropped, its thread finishes what is queued, and ends.
pub(crate) struct Stream {
    queue: Sender<Work>,
    queued: AtomicU64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Stands at the number of items that are done.
    done: Timeline,
    /// The first failure. It stays, and no work is done after it.
    failure: OnceLock<Error>,
}

enum Work {
    /// A launch, copy or fill.
    Run(Box<dyn FnOnce() + Send>),
    /// Raise the timeline, or fail it when the work before has failed.
    Record(Arc<Timeline>, u64),
    /// Hold the queue until the timeline stands at the value.
    Wait(Arc<Timeline>, u64),
}

impl Stream {
    pub(crate) fn new() -> Result<Self> {
        let (queue, work) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("mychip-stream".to_owned())
            .spawn(move || own.serve(work))
            .map_err(|e| Error::io("start a thread for the stream", &e))?;
        Ok(Self {
            queue,
            queued: AtomicU64::new(0),
            shared,
        })
    }

    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        self.push(Work::Run(Box::new(work)))
    }

    pub(crate) fn record(&self, timeline: &Arc<Timeline>, value: u64) -> Result<()> {
        self.push(Work::Record(Arc::clone(timeline), value))
    }

    pub(crate) fn wait(&self, timeline: &Arc<Timeline>, value: u64) -> Result<()> {
        self.push(Work::Wait(Arc::clone(timeline), value))
    }

    /// Blocks until everything queued so far is done; gives the first failure.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let queued = self.queued.load(Ordering::Acquire);
        self.shared.done.wait(queued, DS_FOREVER)?;
        self.shared.failure.get().cloned().map_or(Ok(()), Err)
    }

    /// `not_ready` while anything is pending, else as `synchronize`.
    pub(crate) fn query(&self) -> Result<()> {
        let (queued, done) = (
            self.queued.load(Ordering::Acquire),
            self.shared.done.state().value,
        );
        if done < queued {
            let text = format!("{} items are pending", queued - done);
            return Err(Error::not_ready(text));
        }
        self.synchronize()
    }

    fn push(&self, work: Work) -> Result<()> {
        self.queue
            .send(work)
            .map_err(|_| Error::internal("the stream's thread has ended"))?;
        self.queued.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

impl Shared {
    /// The thread of the stream.
    fn serve(&self, queue: Receiver<Work>) {
        for (done, work) in (1..).zip(queue) {
            match work {
                Work::Record(timeline, value) => {
                    timeline.raise(value, self.failure.get().map_or(DS_OK, Error::status));
                }
                // Nothing else is done any more.
                _ if self.failure.get().is_some() => {}
                Work::Run(run) => {
                    // No panic may end the thread: whoever waits for it would wait for ever.
                    if catch_unwind(AssertUnwindSafe(run)).is_err() {
                        self.fail(Error::new(DS_PLUGIN_BUG, "work of the stream panicked"));
                    }
                }
                Work::Wait(timeline, value) => {
                    if let Err(error) = timeline.wait(value, DS_FOREVER) {
                        self.fail(error);
                    }
                }
            }
            self.done.raise(done, DS_OK);
        }
    }

    fn fail(&self, error: Error) {
        let _ = self.failure.set(error.with_flags(DS_ERROR_STREAM_POISONED));
    }
}
