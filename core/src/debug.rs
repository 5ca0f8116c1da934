//! `DS_DEBUG=sync`: work is waited for where it is queued, so that a failure is told by the call
//! that it is of, and not by a later one that has nothing to do with it.
//!
//! A program that queues work behind a point which it signals itself afterwards waits for ever so.

use std::borrow::Cow;

use crate::{Error, Result, stream::Stream};

/// Queues work on `stream`; under `sync` also waits for it. `what` is told of a failure. Off, it
/// costs a load and a branch.
#[inline]
pub(crate) fn queue(
    stream: &Stream,
    op: &'static str,
    what: impl FnOnce() -> String,
    queue: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if !stream.device().settings().debug.sync {
        return queue();
    }
    before(stream, op)?;
    through(stream, op, what, queue)
}

/// Waits for what was queued on `stream` before, which is not to be blamed on `op`.
#[cold]
pub(crate) fn before(stream: &Stream, op: impl Into<Cow<'static, str>>) -> Result<()> {
    stream.synchronize().map_err(|e| {
        let text = format!(
            "not queued, because earlier work on {} failed",
            stream.device()
        );
        blame(op, text, e)
    })
}

/// Queues work on `stream` and waits for it.
#[cold]
pub(crate) fn through(
    stream: &Stream,
    op: impl Into<Cow<'static, str>>,
    what: impl FnOnce() -> String,
    queue: impl FnOnce() -> Result<()>,
) -> Result<()> {
    queue()
        .and_then(|()| stream.synchronize())
        .map_err(|e| blame(op, what(), e))
}

/// The failure `source`, told of `op`.
fn blame(op: impl Into<Cow<'static, str>>, what: String, source: Error) -> Error {
    let error = Error::new(source.kind(), op, what);
    let error = match source.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    };
    error.with_source(source)
}
