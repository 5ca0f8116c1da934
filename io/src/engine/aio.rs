//! The engine on Linux AIO: `io_submit` and `io_getevents`, by the kernel's own interface
//! (`linux/aio_abi.h`) and without libaio.
//!
//! Only direct I/O is asynchronous here; buffered I/O happens inside `io_submit`.

use std::{collections::VecDeque, io, ptr};

use rustix::io::Errno;

use super::{Action, Completion, Engine, Patience, Request, Seam};
use crate::bell::Bell;

/// The bell's control block, and what its completions are told by.
const BELL: u64 = u64::MAX;

/// `struct iocb` of a little-endian machine.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    address: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    second_result: i64,
}

const _: () = {
    assert!(
        cfg!(target_endian = "little"),
        "`key` and `rw_flags` change places"
    );
    assert!(size_of::<ControlBlock>() == 64 && size_of::<Event>() == 32);
    assert!(std::mem::offset_of!(ControlBlock, opcode) == 16);
    assert!(std::mem::offset_of!(ControlBlock, address) == 24);
    assert!(std::mem::offset_of!(ControlBlock, flags) == 56);
};

// `IOCB_CMD_*` of linux/aio_abi.h.
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const POLL: u16 = 5;

pub(super) struct Aio {
    context: libc::c_ulong,
    bell: Bell,
    seam: Seam,
    patience: Patience,
    /// By the requests' ids, the bell's last: the kernel may look at one until it has completed.
    blocks: Box<[ControlBlock]>,
    /// Queued and not yet taken by the kernel.
    queued: VecDeque<usize>,
    /// Taken by the kernel, without the bell.
    in_kernel: usize,
    listens: bool,
    events: Vec<Event>,
}

impl Aio {
    pub(super) fn open(depth: u32, bell: Bell, seam: Seam) -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        let room = depth as usize + 1;
        // SAFETY: `context` is 0 and writable for the call.
        unsafe {
            system_call(
                libc::SYS_io_setup,
                [room, ptr::from_mut(&mut context).addr(), 0, 0, 0],
            )
        }?;
        Ok(Self {
            context,
            bell,
            seam,
            patience: Patience::default(),
            blocks: vec![ControlBlock::default(); room].into(),
            queued: VecDeque::with_capacity(room),
            in_kernel: 0,
            listens: false,
            events: vec![Event::default(); room],
        })
    }

    /// Hands what is queued to the kernel, as far as it takes it.
    fn submit(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        while !self.queued.is_empty() {
            let mut pointers: Vec<*mut ControlBlock> = Vec::with_capacity(self.queued.len());
            for &index in &self.queued {
                pointers.push(&raw mut self.blocks[index]);
            }
            let arguments = [
                usize::try_from(self.context).unwrap_or(0),
                pointers.len(),
                pointers.as_ptr().addr(),
                0,
                0,
            ];
            let taken = self.seam.submit(pointers.len()).and_then(|()| {
                // SAFETY: the blocks live as long as `self`, and `queue`'s caller promises as much
                // of the memory that they name.
                unsafe { system_call(libc::SYS_io_submit, arguments) }
            });
            match taken {
                Ok(count) => {
                    self.patience.renew();
                    for index in self.queued.drain(..count.min(pointers.len())) {
                        let is_bell = self.blocks[index].data == BELL;
                        self.in_kernel += usize::from(!is_bell);
                    }
                    if count == 0 {
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                // The kernel is short of memory: what is queued stays so.
                Err(Errno::AGAIN) => return Ok(()),
                // No context, or its memory is not ours: nothing will be taken any more.
                Err(e @ (Errno::FAULT | Errno::NOSYS | Errno::PERM)) => return Err(e.into()),
                // It looked at the first one only.
                Err(errno) => {
                    let Some(index) = self.queued.pop_front() else {
                        return Ok(());
                    };
                    let Ok(id) = u32::try_from(self.blocks[index].data) else {
                        // The bell cannot be listened to before Linux 4.18.
                        return Err(errno.into());
                    };
                    done.push(self.seam.completion(Completion {
                        id,
                        result: Err(errno),
                    }));
                }
            }
        }
        Ok(())
    }

    /// Adds what has completed, when that or the bell has come to `wait_for`.
    fn reap(&mut self, wait_for: usize, done: &mut Vec<Completion>) -> io::Result<()> {
        let room = self.events.len();
        let arguments = [
            usize::try_from(self.context).unwrap_or(0),
            wait_for,
            room,
            self.events.as_mut_ptr().addr(),
            0,
        ];
        let count = loop {
            let timeout = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let mut arguments = arguments;
            if wait_for == 0 {
                arguments[4] = ptr::from_ref(&timeout).addr();
            }
            // SAFETY: there is room for as many events as are asked for.
            match unsafe { system_call(libc::SYS_io_getevents, arguments) } {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        for event in &self.events[..count.min(room)] {
            if event.data == BELL {
                self.listens = false;
                self.bell.clear();
                continue;
            }
            self.in_kernel = self.in_kernel.saturating_sub(1);
            let result = u32::try_from(event.result).map_err(|_| {
                let code = i32::try_from(-event.result).unwrap_or(libc::EIO);
                Errno::from_raw_os_error(code)
            });
            let id = u32::try_from(event.data).unwrap_or(u32::MAX);
            done.push(self.seam.completion(Completion { id, result }));
        }
        Ok(())
    }

    fn listen(&mut self) {
        if !self.listens {
            let last = self.blocks.len() - 1;
            self.blocks[last] = ControlBlock {
                data: BELL,
                opcode: POLL,
                file: self.bell.descriptor().cast_unsigned(),
                address: u64::from(libc::POLLIN.cast_unsigned()),
                ..ControlBlock::default()
            };
            self.queued.push_back(last);
            self.listens = true;
        }
    }
}

impl Engine for Aio {
    unsafe fn queue(&mut self, request: Request) {
        let request = self.seam.request(request);
        let index = request.id as usize;
        self.blocks[index] = ControlBlock {
            data: u64::from(request.id),
            opcode: match request.action {
                Action::Read => PREAD,
                Action::Write => PWRITE,
                Action::Sync => FSYNC,
            },
            file: request.file.cast_unsigned(),
            address: request.address.addr() as u64,
            bytes: u64::from(request.bytes),
            offset: request.offset.cast_signed(),
            ..ControlBlock::default()
        };
        self.queued.push_back(index);
    }

    fn turn(&mut self, wait_for: usize, done: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            if wait_for > 0 && done.is_empty() {
                self.listen();
            }
            self.submit(done)?;
            if !self.queued.is_empty() && self.in_kernel == 0 && done.is_empty() {
                // Nothing of ours will make room; others may.
                self.patience.pause(Errno::AGAIN)?;
                if wait_for > 0 {
                    continue;
                }
            }
            // What the kernel has not taken cannot complete.
            let wait_for = wait_for.min(self.in_kernel.max(1));
            let wait_for = if done.is_empty() { wait_for } else { 0 };
            if wait_for > 0 || self.in_kernel > 0 {
                self.reap(wait_for, done)?;
            }
            return Ok(());
        }
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // It waits until the kernel is done with every request that it took.
        let arguments = [usize::try_from(self.context).unwrap_or(0), 0, 0, 0, 0];
        // SAFETY: the context is ours, and not used after this.
        if let Err(e) = unsafe { system_call(libc::SYS_io_destroy, arguments) } {
            log::error!("io_destroy: {e}");
        }
    }
}

/// A system call that libc has no function for.
///
/// # Safety
/// As the call demands of its arguments.
unsafe fn system_call(number: libc::c_long, arguments: [usize; 5]) -> Result<usize, Errno> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    usize::try_from(result).map_err(|_| {
        let error = io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}
