//! Steps of Adam behind the caller's back: `ZenFlow`'s worker, which is a stream of its own.

use ds_core::{Device, Point, Result, Stream, Tensor};

use super::{AdamConfig, AdamTensors, adam_step};

/// Takes steps of Adam on a stream of its own, one after the other, while the caller goes on.
///
/// A step that was submitted is a [`Point`]: [`Point::wait`] waits for it, for some time or for ever,
/// [`Point::is_reached`] asks, and [`Stream::wait`] holds another stream until then. The tensors of a
/// step belong to it until its point is reached; dropping them earlier is safe, their memory stays.
///
/// A step that fails, or waits for a point that does, ends the worker: its point tells the failure, and
/// so does each later step's, or its [`AdamWorker::submit`]. Dropping the worker waits for what was
/// submitted.
///
/// # Upstream
/// `ZenFlowAdam` of `csrc/adam/cpu_adam_impl.cpp`: `zenflow_adam_submit` and `_wait`, which speak to
/// another process through shared memory. Threads, their cores and their memory are the device's.
#[derive(Debug)]
pub struct AdamWorker {
    stream: Stream,
}

impl AdamWorker {
    /// A worker on `device`.
    ///
    /// # Errors
    /// When the device has no more queues.
    pub fn new(device: Device) -> Result<Self> {
        Ok(Self {
            stream: Stream::new(device)?,
        })
    }

    /// Queues one [`adam_step`], whose bits are those of a call that waits, and gives the point at
    /// which it is done. It begins when the steps before it are done and `ready` is reached, such as
    /// the point behind the copy of the gradients.
    ///
    /// Where no kernel takes the step, the reference implementation does, and this call waits for it.
    ///
    /// # Errors
    /// As [`adam_step`], which leaves the worker as it was; and that of an earlier step.
    pub fn submit(
        &self,
        ready: Option<&Point>,
        tensors: AdamTensors<'_>,
        found_inf: Option<&Tensor>,
        step: i64,
        config: &AdamConfig,
    ) -> Result<Point> {
        if let Some(ready) = ready {
            self.stream.wait(ready)?;
        }
        adam_step(&self.stream, tensors, found_inf, step, config)?;
        self.stream.record()
    }
}
