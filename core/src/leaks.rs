//! `DS_DEBUG=leaks`: what is alive when the process ends, a line a device on standard error.
//!
//! The report is an `atexit` handler, which runs after `main` or in `exit`, while other threads may
//! still be at work. It reads the host's own counts, waits for no lock and calls no plugin.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Device, fork};

static OPEN: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// Has what is alive of `device` told at the end.
pub(crate) fn watch(device: Device) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handler is a function of this library, and it does not unwind: it neither
        // indexes nor unwraps, and a write that fails is given up.
        let code = unsafe { libc::atexit(report) };
        if code != 0 {
            log::warn!("leaks will not be told: atexit gives {code}");
        }
    });
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.push(device);
}

extern "C" fn report() {
    // What a child of `fork` has is its parent's.
    if fork::is_child() {
        return;
    }
    let Ok(open) = OPEN.try_lock() else { return };
    let mut text = String::new();
    for device in open.iter() {
        let _ = match Alive::of(*device) {
            Some(alive) => writeln!(text, "leaks: {device}: {alive}"),
            None => writeln!(text, "leaks: {device}: not known, a thread is at work"),
        };
    }
    // Past the log: a logger may be gone already.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What a program has of a device.
#[derive(Clone, Copy)]
struct Alive {
    buffers: u64,
    /// Those of the pool count as the blocks that they are.
    bytes: u64,
    /// Beside the default one, which stays.
    streams: usize,
}

impl Alive {
    /// Nothing while another thread holds a lock.
    fn of(device: Device) -> Option<Self> {
        let pool = device.pool().try_stats()?;
        let (buffers, bytes) = device.unpooled().count();
        Some(Self {
            buffers: pool.allocations + buffers,
            bytes: pool.allocated_bytes + bytes,
            streams: device
                .streams()
                .try_count()?
                .saturating_sub(usize::from(device.has_default_stream())),
        })
    }
}

impl fmt::Display for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            buffers,
            bytes,
            streams,
        } = self;
        let plural = |one| if one { "" } else { "s" };
        match (buffers, streams) {
            (0, 0) => f.write_str("nothing is alive"),
            _ => write!(
                f,
                "{buffers} buffer{} ({bytes} bytes) and {streams} stream{} are alive",
                plural(*buffers == 1),
                plural(*streams == 1)
            ),
        }
    }
}

/// The live buffers of a device that are not its pool's.
#[derive(Default)]
pub(crate) struct Unpooled {
    buffers: AtomicU64,
    bytes: AtomicU64,
}

impl Unpooled {
    pub(crate) fn add(&self, bytes: u64) {
        self.buffers.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: u64) {
        self.buffers.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn count(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.buffers), of(&self.bytes))
    }
}
