//! Engines: three ways of asking the kernel for file I/O, behind one trait.
//!
//! An engine moves bytes between one range of memory and one range of a file, many at a time. It
//! knows no tensors, splits nothing and repeats nothing: that is the lane's. Each belongs to the one
//! thread that made it; others wake that thread by its [`Bell`].

mod aio;
pub(crate) mod seam;
mod threads;
mod uring;

use std::{env, fmt, io, os::fd::RawFd, str::FromStr, thread, time::Duration};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(crate) use self::seam::Seam;
use crate::bell::Bell;

/// A way of asking the kernel for file I/O; they are listed best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Rings shared with the kernel, since Linux 5.6. Containers often forbid it.
    IoUring,
    /// `io_submit` and `io_getevents` of Linux AIO: asynchronous for direct I/O only.
    Aio,
    /// `pread` and `pwrite` in threads: works everywhere.
    Threads,
}

impl EngineKind {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::IoUring, Self::Aio, Self::Threads];

    /// The variable that names the engine of programs that ask for none.
    pub const VARIABLE: &str = "DS_IO_ENGINE";

    /// What [`EngineKind::VARIABLE`] says, if it is set.
    pub fn named() -> Option<String> {
        let named = env::var_os(Self::VARIABLE).filter(|named| !named.is_empty());
        named.map(|named| named.to_string_lossy().into_owned())
    }

    /// Its name, as `DS_IO_ENGINE` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Aio => "aio",
            Self::Threads => "threads",
        }
    }

    /// Whether the kernel lets this process use it, or why not.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn probe(self) -> io::Result<()> {
        open(self, 1, &Bell::new()?, Seam::default()).map(drop)
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no engine '{name}'; there are {names}")
        })
    }
}

/// What the kernel is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write,
    /// Bring the file's data to the disk; moves no bytes.
    Sync,
}

/// One thing asked of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Comes back with the completion: below the engine's depth, and of one request at a time.
    pub(crate) id: u32,
    pub(crate) action: Action,
    pub(crate) file: RawFd,
    /// Where the engine has the file registered, if it has.
    pub(crate) file_slot: Option<u32>,
    pub(crate) address: *mut u8,
    pub(crate) bytes: u32,
    pub(crate) offset: u64,
    /// Which registered range the memory lies in, if it does.
    pub(crate) memory_slot: Option<u16>,
}

/// How a request ended: bytes moved, which may be fewer than were asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) id: u32,
    pub(crate) result: Result<u32, Errno>,
}

/// One way of asking the kernel. Dropping it waits until the kernel has let go of all memory.
pub(crate) trait Engine {
    /// Queues a request. There are never more in flight than the depth that it was made with.
    ///
    /// # Safety
    /// The memory stays valid, and nobody else writes it or (for a read) reads it, until the
    /// completion has come or the engine is dropped.
    unsafe fn queue(&mut self, request: Request);

    /// Hands what is queued to the kernel and adds what has completed to `done`. Where nothing has,
    /// waits until about `wait_for` requests have, or the bell rings; with 0 it waits for nothing.
    ///
    /// # Errors
    /// What makes the engine unusable. The kernel may own memory for ever then.
    fn turn(&mut self, wait_for: usize, done: &mut Vec<Completion>) -> io::Result<()>;

    /// Registers a file, if the engine can and has room: the kernel then looks it up once.
    fn register_file(&mut self, _file: RawFd) -> Option<u32> {
        None
    }

    /// Gives a registered file up. No request with it is queued.
    fn unregister_file(&mut self, _slot: u32) {}

    /// Registers ranges of memory, once: the kernel then pins them once. Gives whether it did.
    ///
    /// # Safety
    /// The ranges stay valid until the engine is dropped.
    unsafe fn register_memory(&mut self, _ranges: &[(*mut u8, usize)]) -> bool {
        false
    }
}

/// How long a kernel that is short of memory is left alone, and how often before it is given up:
/// ten seconds in all.
const PAUSE: Duration = Duration::from_millis(1);
const MOST_PAUSES: u32 = if cfg!(test) { 20 } else { 10_000 };

/// What to do when the kernel takes no requests for want of memory: try again, for a while.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    /// Waits a little.
    ///
    /// # Errors
    /// When that was done too often since the last [`Patience::renew`].
    fn pause(&mut self, why: Errno) -> io::Result<()> {
        if self.0 == MOST_PAUSES {
            return Err(why.into());
        }
        self.0 += 1;
        thread::sleep(PAUSE);
        Ok(())
    }

    /// The kernel took something.
    fn renew(&mut self) {
        self.0 = 0;
    }
}

/// Makes an engine for at most `depth` requests at a time, in the thread that will use it.
pub(crate) fn open(
    kind: EngineKind,
    depth: u32,
    bell: &Bell,
    seam: Seam,
) -> io::Result<Box<dyn Engine>> {
    seam.open(kind)?;
    Ok(match kind {
        EngineKind::IoUring => Box::new(uring::Uring::open(depth, bell.clone(), seam)?),
        EngineKind::Aio => Box::new(aio::Aio::open(depth, bell.clone(), seam)?),
        EngineKind::Threads => Box::new(threads::Threads::open(depth, bell.clone(), seam)?),
    })
}
