//! The per-op trace: one line of Chrome-trace JSON an op, and ranges of the user's own.
//!
//! `DS_TRACE=FILE` turns it on. Times are the host's: from the call to its return, so on an
//! asynchronous stream they are the time it took to queue. Off, it costs one load an op.

use std::{
    fs::File,
    io::{BufWriter, Write},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// An open span; `None` when the trace is off.
pub(crate) struct Span {
    name: String,
    start: Instant,
}

struct Trace {
    start: Instant,
    file: Mutex<BufWriter<File>>,
}

/// Begins a span.
#[inline]
pub(crate) fn begin(name: &str) -> Option<Span> {
    trace().map(|_| Span {
        name: name.to_owned(),
        start: Instant::now(),
    })
}

/// Ends a span; `kernel` says what ran.
#[inline]
pub(crate) fn end<'a>(span: Option<Span>, kernel: impl FnOnce() -> &'a str) {
    if let (Some(span), Some(trace)) = (span, trace()) {
        trace.write(&span, kernel());
    }
}

/// A number that ties a launch to its span; 0 when the trace is off.
#[inline]
pub(crate) fn correlation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    trace().map_or(0, |_| NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A range of the user's own in the trace, from its making to its end; upstream's `range_push` and
/// `range_pop`.
#[must_use = "the range ends when it is dropped"]
#[derive(Debug)]
pub struct Range(Option<(String, Instant)>);

/// Begins a range called `name`.
pub fn range(name: &str) -> Range {
    Range(trace().map(|_| (name.to_owned(), Instant::now())))
}

impl Drop for Range {
    fn drop(&mut self) {
        if let (Some((name, start)), Some(trace)) = (self.0.take(), trace()) {
            trace.write(&Span { name, start }, "");
        }
    }
}

#[inline]
fn trace() -> Option<&'static Trace> {
    static TRACE: OnceLock<Option<Trace>> = OnceLock::new();
    TRACE.get_or_init(Trace::open).as_ref()
}

impl Trace {
    fn open() -> Option<Self> {
        let path = std::env::var_os("DS_TRACE").filter(|path| !path.is_empty())?;
        let opened = File::create(&path).and_then(|file| {
            let mut file = BufWriter::new(file);
            // The format allows a list that never ends, so that a crash leaves a readable file.
            file.write_all(b"[\n")?;
            Ok(file)
        });
        match opened {
            Ok(file) => Some(Self {
                start: Instant::now(),
                file: Mutex::new(file),
            }),
            Err(e) => {
                log::error!("DS_TRACE: cannot write {}: {e}", path.display());
                None
            }
        }
    }

    /// # Source
    /// Chrome's Trace Event Format, complete events (`"ph": "X"`), times in microseconds.
    fn write(&self, span: &Span, kernel: &str) {
        let micros = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e6;
        let event = serde_json::json!({
            "name": span.name,
            "ph": "X",
            "ts": micros(self.start, span.start),
            "dur": micros(span.start, Instant::now()),
            "pid": std::process::id(),
            "tid": rustix::thread::gettid().as_raw_nonzero().get(),
            "args": { "kernel": kernel },
        });
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writeln!(file, "{event},").and_then(|()| file.flush());
        if let Err(e) = written {
            log::error!("DS_TRACE: {e}");
        }
    }
}
