//! Operations that wait for a point: a thread that passes them on when it is reached, so that nobody
//! else has to wait.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use ds_core::{ErrorKind, Point};

use crate::{failure::Failure, job::Job};

/// How long one point is waited for while there are others.
const TURN: Duration = Duration::from_millis(1);

/// Dropping it waits until everything has been passed on.
pub(crate) struct Waiter {
    sender: Option<mpsc::Sender<(Point, Arc<Job>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiter {
    /// Starts it; what waits no more goes to `ready`.
    pub(crate) fn start(ready: impl Fn(Arc<Job>) + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let builder = thread::Builder::new().name("ds-io-waiter".to_owned());
        let thread = builder.spawn(move || run(&receiver, ready))?;
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// Passes `job` on when `point` is reached.
    pub(crate) fn push(&self, point: Point, job: Arc<Job>) {
        if let Some(sender) = &self.sender
            && let Err(mpsc::SendError((_, job))) = sender.send((point, job))
        {
            // The thread panicked.
            let context = "the thread that waits for points has ended".to_owned();
            job.cancel(Failure::new(
                ErrorKind::Internal,
                job.direction.op(),
                context,
            ));
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that waits for points panicked");
        }
    }
}

fn run(receiver: &mpsc::Receiver<(Point, Arc<Job>)>, ready: impl Fn(Arc<Job>)) {
    let mut pending: Vec<(Point, Arc<Job>)> = Vec::new();
    loop {
        if pending.is_empty() {
            match receiver.recv() {
                Ok(first) => pending.push(first),
                Err(mpsc::RecvError) => return,
            }
        }
        pending.extend(receiver.try_iter());
        let before = pending.len();
        let mut waiting = Vec::with_capacity(before);
        for (point, job) in pending {
            match point.is_reached() {
                Ok(true) => ready(job),
                Ok(false) => waiting.push((point, job)),
                Err(e) => {
                    let name = job.file.name().display();
                    let context = format!("{name}: it was to come after other work: {e}");
                    job.cancel(Failure::new(
                        ErrorKind::Cancelled,
                        job.direction.op(),
                        context,
                    ));
                }
            }
        }
        pending = waiting;
        if pending.len() == before
            && let Some((first, _)) = pending.first()
        {
            // An error is told by the next look at it.
            let _ = first.wait(Some(TURN));
        }
    }
}
