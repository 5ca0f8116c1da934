//! What a handle has done, in bytes, and by which ways.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::job::Direction;

/// What a handle has asked the kernel for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AioStats {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Of both, bytes moved by direct I/O.
    pub direct_bytes: u64,
    /// Of both, bytes that went through the page cache: parts of pages, and files on filesystems
    /// without direct I/O.
    pub cached_bytes: u64,
    /// Of both, bytes that were copied through staging memory: a device's own, and host memory that
    /// is not aligned as the disk wants it.
    pub staged_bytes: u64,
    /// Size of the staging memory that is locked.
    pub pinned_staging_bytes: u64,
    /// Size of the staging memory that could not be locked.
    pub pageable_staging_bytes: u64,
    /// Requests that the disk refused as direct I/O and the page cache took.
    pub refused_direct: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    read: AtomicU64,
    written: AtomicU64,
    direct: AtomicU64,
    staged: AtomicU64,
    pinned_staging: AtomicU64,
    pageable_staging: AtomicU64,
    refused_direct: AtomicU64,
}

impl Counters {
    pub(crate) fn moves(&self, direction: Direction, bytes: u32, direct: bool, staged: bool) {
        let moved = match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.written,
        };
        add(moved, bytes.into());
        if direct {
            add(&self.direct, bytes.into());
        }
        if staged {
            add(&self.staged, bytes.into());
        }
    }

    pub(crate) fn staging(&self, bytes: u64, pinned: bool) {
        let size = if pinned {
            &self.pinned_staging
        } else {
            &self.pageable_staging
        };
        add(size, bytes);
    }

    /// The disk refused `bytes` bytes as direct I/O; the page cache takes them.
    pub(crate) fn refused_direct(&self, bytes: u32) {
        add(&self.refused_direct, 1);
        self.direct.fetch_sub(bytes.into(), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> AioStats {
        let [read, written, direct] = [&self.read, &self.written, &self.direct].map(load);
        AioStats {
            read_bytes: read,
            written_bytes: written,
            direct_bytes: direct,
            cached_bytes: (read + written).saturating_sub(direct),
            staged_bytes: load(&self.staged),
            pinned_staging_bytes: load(&self.pinned_staging),
            pageable_staging_bytes: load(&self.pageable_staging),
            refused_direct: load(&self.refused_direct),
        }
    }
}

fn add(counter: &AtomicU64, bytes: u64) {
    counter.fetch_add(bytes, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
