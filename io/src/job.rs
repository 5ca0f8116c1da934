//! A job: one operation, cut into pieces that any lane may take, until it has ended.

use std::{
    io::{self, Read, Seek, SeekFrom},
    mem::ManuallyDrop,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ds_core::ErrorKind;

use crate::{
    checksum::{self, Part},
    config::PAGE_BYTES,
    ending::{Done, Ending, Tally},
    failure::Failure,
    file::{Failed, OpenFile},
    memory::Memory,
};

/// A range of a file and the range of a tensor that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file, in bytes.
    pub file_offset: u64,
    /// Where it begins in the tensor, in bytes.
    pub memory_offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// The operation's name in errors.
    pub(crate) fn op(self) -> &'static str {
        match self {
            Self::Read => "read a file",
            Self::Write => "write a file",
        }
    }
}

/// What is done beside moving bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    pub(crate) checksum: bool,
    pub(crate) expect: Option<u64>,
    pub(crate) validate: bool,
    pub(crate) sync: bool,
}

pub(crate) struct Job {
    pub(crate) direction: Direction,
    pub(crate) file: OpenFile,
    pub(crate) memory: ManuallyDrop<Memory>,
    extents: Vec<Extent>,
    bytes: u64,
    extras: Extras,
    progress: Mutex<Progress>,
    pub(crate) ending: Arc<Ending>,
}

struct Progress {
    /// The extent that the next piece is of, and how far into it.
    extent: usize,
    within: u64,
    /// Bytes that pieces were cut from so far.
    cut: u64,
    /// Pieces that lanes have, and one more until a lane has seen that there are no others.
    open: usize,
    exhausted: bool,
    syncing: bool,
    failure: Option<Failure>,
    sums: Vec<Part>,
}

/// A part of an operation that one request may move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) file_offset: u64,
    pub(crate) memory_offset: u64,
    pub(crate) bytes: u32,
    /// Where it begins among the operation's bytes.
    pub(crate) at: u64,
    /// Whole pages of the file, for direct I/O.
    pub(crate) direct: bool,
}

/// What a lane does after it gave a piece back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing: others have pieces of it, or there are more.
    Nothing,
    /// Have the file's data brought to the disk, and give that back, too.
    Sync,
    /// End it.
    Finish,
}

impl Job {
    pub(crate) fn new(
        direction: Direction,
        file: OpenFile,
        memory: Memory,
        extents: Vec<Extent>,
        extras: Extras,
        tally: &Arc<Tally>,
    ) -> Self {
        let ending = Arc::new(Ending::new(memory.device(), tally));
        Self {
            direction,
            file,
            memory: ManuallyDrop::new(memory),
            bytes: extents.iter().map(|extent| extent.bytes).sum(),
            extents,
            extras,
            progress: Mutex::new(Progress {
                extent: 0,
                within: 0,
                cut: 0,
                open: 1,
                exhausted: false,
                syncing: false,
                failure: None,
                sums: Vec::new(),
            }),
            ending,
        }
    }

    /// How many requests it comes to, at least.
    pub(crate) fn requests(&self, block_bytes: u64) -> u64 {
        self.bytes
            .div_ceil(block_bytes)
            .max(self.extents.len() as u64)
    }

    /// Whether the bytes of each piece are summed as they pass.
    pub(crate) fn sums(&self) -> bool {
        let Extras {
            checksum,
            expect,
            validate,
            ..
        } = self.extras;
        checksum || validate || expect.is_some()
    }

    /// The next piece, of at most `block_bytes`; none when there are no more, or need not be.
    pub(crate) fn take(&self, block_bytes: u64) -> Option<Piece> {
        let mut progress = self.progress();
        // A lane that comes late finds a job that has ended, which no failure tells any more.
        if progress.exhausted || progress.failure.is_some() {
            return None;
        }
        let extent = loop {
            let extent = self.extents.get(progress.extent)?;
            if progress.within < extent.bytes {
                break extent;
            }
            progress.extent += 1;
            progress.within = 0;
        };
        let file_offset = extent.file_offset + progress.within;
        let left = extent.bytes - progress.within;
        let (bytes, direct) = match self.file.direct() {
            None => (left.min(block_bytes), false),
            // Up to the next page, and what is left of the last one, through the page cache: a page
            // that is another operation's, too, is not ours to move whole.
            Some(_) => match file_offset % PAGE_BYTES {
                0 if left < PAGE_BYTES => (left, false),
                0 => (block_bytes.min(left - left % PAGE_BYTES), true),
                past => (left.min(PAGE_BYTES - past), false),
            },
        };
        let piece = Piece {
            file_offset,
            memory_offset: extent.memory_offset + progress.within,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            at: progress.cut,
            direct,
        };
        progress.within += bytes;
        progress.cut += bytes;
        progress.open += 1;
        Some(piece)
    }

    /// Notes that there are no more pieces.
    pub(crate) fn exhaust(&self) -> After {
        let mut progress = self.progress();
        if progress.exhausted {
            return After::Nothing;
        }
        progress.exhausted = true;
        self.close(progress)
    }

    /// Notes how a piece ended: with its sum if [`Job::sums`].
    pub(crate) fn give(&self, piece: &Piece, ended: Result<Option<u64>, Failure>) -> After {
        let mut progress = self.progress();
        match ended {
            Ok(sum) => progress.sums.extend(sum.map(|sum| Part {
                at: piece.at,
                bytes: u64::from(piece.bytes),
                sum,
            })),
            Err(failure) => _ = progress.failure.get_or_insert(failure),
        }
        self.close(progress)
    }

    /// Notes that the data is on the disk, or is not.
    pub(crate) fn synced(&self, ended: Result<(), Failure>) -> After {
        let mut progress = self.progress();
        if let Err(failure) = ended {
            progress.failure.get_or_insert(failure);
        }
        self.close(progress)
    }

    /// Gives it up before anything was done.
    pub(crate) fn cancel(&self, failure: Failure) {
        self.progress().failure.get_or_insert(failure);
        self.finish();
    }

    fn close(&self, mut progress: MutexGuard<'_, Progress>) -> After {
        progress.open -= 1;
        if progress.open > 0 {
            return After::Nothing;
        }
        let syncs = self.extras.sync && self.direction == Direction::Write;
        if syncs && !progress.syncing && progress.failure.is_none() {
            progress.syncing = true;
            progress.open = 1;
            return After::Sync;
        }
        After::Finish
    }

    /// Ends it: what is left to do is done, and whoever waits is told.
    pub(crate) fn finish(&self) {
        let failure = self.progress().failure.take();
        let outcome = match failure {
            Some(failure) => Err(failure),
            None => self.complete(),
        };
        if outcome.is_err() {
            // Now rather than when the last lane lets go of the job: an engine that broke never does.
            self.file.abandon();
        }
        self.ending.tell(outcome);
    }

    fn complete(&self) -> Result<Done, Failure> {
        let sums = std::mem::take(&mut self.progress().sums);
        let checksum = self.sums().then(|| checksum::whole(sums));
        if let (Some(expected), Some(found)) = (self.extras.expect, checksum)
            && expected != found
        {
            return Err(self.mismatch(&format!(
                "CRC-64/NVME of {} bytes is {found:016x}, {expected:016x} is expected",
                self.bytes
            )));
        }
        if self.extras.validate
            && let Some(moved) = checksum
        {
            let again = self
                .sum_of_file()
                .map_err(|e| self.failed(("read it again", e)))?;
            if again != moved {
                return Err(self.mismatch(&format!(
                    "the file has other bytes than were moved: CRC-64/NVME {again:016x}, \
                     {moved:016x}"
                )));
            }
        }
        self.file.settle().map_err(|failed| self.failed(failed))?;
        Ok(Done {
            bytes: self.bytes,
            checksum: checksum.filter(|_| self.extras.checksum),
        })
    }

    /// The checksum of what the file has now, through the page cache.
    fn sum_of_file(&self) -> io::Result<u64> {
        let mut file = self.file.read_back()?;
        let mut sums = Vec::new();
        let mut block = vec![0; 1 << 20];
        let mut at = 0;
        for extent in &self.extents {
            file.seek(SeekFrom::Start(extent.file_offset))?;
            let mut left = extent.bytes;
            while left > 0 {
                let bytes = left.min(block.len() as u64);
                let block = &mut block[..usize::try_from(bytes).unwrap_or(0)];
                file.read_exact(block)?;
                let sum = checksum::crc64_nvme(block);
                sums.push(Part { at, bytes, sum });
                at += bytes;
                left -= bytes;
            }
        }
        Ok(checksum::whole(sums))
    }

    fn mismatch(&self, what: &str) -> Failure {
        let context = format!("{}: {what}", self.file.name().display());
        Failure::new(ErrorKind::Io, self.direction.op(), context)
    }

    /// A failure of the engine, as this operation's.
    pub(crate) fn befallen(&self, failure: &Failure) -> Failure {
        let name = self.file.name().display().to_string();
        failure.befalls(self.direction.op(), &name)
    }

    pub(crate) fn failed(&self, (what, error): Failed) -> Failure {
        let what = format!("{}: cannot {what}", self.file.name().display());
        Failure::of_kernel(self.direction.op(), &what, &error)
    }

    /// What the kernel said of a piece.
    pub(crate) fn refused(&self, bytes: u32, offset: u64, error: &io::Error) -> Failure {
        let what = format!(
            "{bytes} bytes at {offset} of {}",
            self.file.name().display()
        );
        Failure::of_kernel(self.direction.op(), &what, error)
    }

    /// A piece of which the file has only `moved` bytes.
    pub(crate) fn cut_short(&self, bytes: u32, offset: u64) -> Failure {
        let name = self.file.name().display();
        let context = match self.direction {
            Direction::Read => format!(
                "{bytes} bytes at {offset} of {name}: the file ends there; it was truncated after \
                 the read began"
            ),
            Direction::Write => format!(
                "{bytes} bytes at {offset} of {name}: the kernel takes none of them and says not why"
            ),
        };
        Failure::new(ErrorKind::Io, self.direction.op(), context)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and the job is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        self.ending.leave(memory);
    }
}
