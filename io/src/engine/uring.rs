//! The engine on `io_uring`: one system call hands over what is queued and waits for what is done.

use std::{io, os::fd::RawFd};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;

use super::{Action, Completion, Engine, Patience, Request, Seam};
use crate::bell::Bell;

/// Completions of the bell are told by it.
const BELL: u64 = u64::MAX;
/// How many files it keeps registered.
const FILES: u32 = 16;

pub(super) struct Uring {
    ring: IoUring,
    bell: Bell,
    seam: Seam,
    patience: Patience,
    /// Whether the ring watches the bell.
    listens: bool,
    /// Requests that were queued and have not completed.
    in_flight: usize,
    /// Which slots for files are free; none where the kernel has no such table.
    free_files: Vec<u32>,
}

impl Uring {
    pub(super) fn open(depth: u32, bell: Bell, seam: Seam) -> io::Result<Self> {
        // One more for the bell.
        let entries = depth.saturating_add(1).next_power_of_two();
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp();
        // Only this thread uses it, and it has the kernel's part done when it waits (Linux 6.1);
        // older kernels refuse the flags.
        let modern = builder
            .clone()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries);
        let ring = modern.or_else(|_| builder.build(entries))?;
        if ring.params().sq_entries() <= depth {
            let text = format!("the kernel makes no ring of {entries} entries");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !ring.params().is_feature_nodrop() {
            let text = "this kernel's io_uring may lose completions; Linux 5.6 does not";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let files = ring.submitter().register_files_sparse(FILES).is_ok();
        let mut uring = Self {
            ring,
            bell,
            seam,
            patience: Patience::default(),
            listens: false,
            in_flight: 0,
            free_files: if files {
                (0..FILES).collect()
            } else {
                Vec::new()
            },
        };
        // A filter of system calls may allow the ring and forbid its use.
        uring.push(&opcode::Nop::new().build().user_data(BELL));
        uring.ring.submit_and_wait(1)?;
        uring.reap(&mut Vec::new());
        Ok(uring)
    }

    /// Adds what has completed; gives whether anything had, the bell included.
    fn reap(&mut self, done: &mut Vec<Completion>) -> bool {
        let mut any = false;
        for entry in self.ring.completion() {
            any = true;
            if entry.user_data() == BELL {
                self.listens = false;
                self.bell.clear();
                continue;
            }
            let Ok(id) = u32::try_from(entry.user_data()) else {
                continue;
            };
            self.in_flight = self.in_flight.saturating_sub(1);
            let result = u32::try_from(entry.result())
                .map_err(|_| Errno::from_raw_os_error(-entry.result()));
            done.push(self.seam.completion(Completion { id, result }));
        }
        any
    }

    fn listen(&mut self) {
        if !self.listens {
            let entry = opcode::PollAdd::new(types::Fd(self.bell.descriptor()), POLLIN);
            self.push(&entry.build().user_data(BELL));
            self.listens = true;
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: `queue`'s caller promises that the memory lives; the bell's entry has none. There
        // is room: requests are at most the depth, and the bell is the one more.
        let pushed = unsafe { self.ring.submission().push(entry) };
        debug_assert!(pushed.is_ok(), "more requests than the engine was made for");
    }
}

#[allow(clippy::cast_sign_loss, reason = "a bit mask")]
const POLLIN: u32 = libc::POLLIN as u32;

impl Engine for Uring {
    unsafe fn queue(&mut self, request: Request) {
        let request = self.seam.request(request);
        self.push(&entry(&request));
        self.in_flight += 1;
    }

    fn turn(&mut self, wait_for: usize, done: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            let heard = self.reap(done);
            let idle = !heard && done.is_empty();
            let wait_for = if idle { wait_for } else { 0 };
            if wait_for > 0 {
                self.listen();
            }
            let queued = self.ring.submission().len();
            if queued == 0 && wait_for == 0 {
                return Ok(());
            }
            let entered = (self.seam.submit(queued).map_err(io::Error::from))
                .and_then(|()| self.ring.submit_and_wait(wait_for));
            match entered {
                // Where it was waited for, something has completed or the bell rang.
                Ok(_) => {
                    self.patience.renew();
                    self.reap(done);
                    return Ok(());
                }
                Err(e) => match Errno::from_io_error(&e) {
                    Some(Errno::INTR) => {}
                    // Short of memory, or completions wait to be taken: what is queued stays so.
                    Some(errno @ (Errno::AGAIN | Errno::BUSY)) => {
                        if !self.reap(done) {
                            self.patience.pause(errno)?;
                        }
                    }
                    _ => return Err(e),
                },
            }
        }
    }

    fn register_file(&mut self, file: RawFd) -> Option<u32> {
        let slot = self.free_files.pop()?;
        let registered = self.ring.submitter().register_files_update(slot, &[file]);
        if registered.is_err() {
            self.free_files.push(slot);
            return None;
        }
        Some(slot)
    }

    fn unregister_file(&mut self, slot: u32) {
        // What stays behind on a failure is one entry of the table.
        let given_up = self.ring.submitter().register_files_update(slot, &[-1]);
        if given_up.is_ok() {
            self.free_files.push(slot);
        }
    }

    unsafe fn register_memory(&mut self, ranges: &[(*mut u8, usize)]) -> bool {
        let vectors: Vec<libc::iovec> = ranges
            .iter()
            .map(|&(address, bytes)| libc::iovec {
                iov_base: address.cast(),
                iov_len: bytes,
            })
            .collect();
        // SAFETY: the caller's promise. The kernel pins the pages until the ring is gone.
        unsafe { self.ring.submitter().register_buffers(&vectors) }.is_ok()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.in_flight > 0 {
            if let Err(e) = self.turn(1, &mut done) {
                // The lane keeps the memory of what is in flight alive in this case.
                log::error!("wait for {} requests to end: {e}", self.in_flight);
                return;
            }
            done.clear();
        }
    }
}

/// The entry of the ring for a request.
fn entry(request: &Request) -> squeue::Entry {
    let Request {
        address,
        bytes,
        offset,
        ..
    } = *request;
    let (number, flags) = match request.file_slot {
        Some(slot) => (slot.cast_signed(), squeue::Flags::FIXED_FILE),
        None => (request.file, squeue::Flags::empty()),
    };
    let file = types::Fd(number);
    let entry = match (request.action, request.memory_slot) {
        (Action::Sync, _) => opcode::Fsync::new(file).build(),
        (Action::Read, None) => opcode::Read::new(file, address, bytes)
            .offset(offset)
            .build(),
        (Action::Read, Some(slot)) => opcode::ReadFixed::new(file, address, bytes, slot)
            .offset(offset)
            .build(),
        (Action::Write, None) => opcode::Write::new(file, address, bytes)
            .offset(offset)
            .build(),
        (Action::Write, Some(slot)) => opcode::WriteFixed::new(file, address, bytes, slot)
            .offset(offset)
            .build(),
    };
    entry.flags(flags).user_data(u64::from(request.id))
}
