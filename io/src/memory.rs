//! The memory that an operation moves, and what stands in for it where the kernel cannot reach it.

use std::{
    mem, slice,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use ds_core::{Buffer, Device, Error, ErrorKind, MemoryKind, Result, Stream, Tensor};

use crate::engine::Engine;

/// The bytes of a tensor. It holds the tensor's buffer, so they stay.
pub(crate) struct Memory {
    buffer: Buffer,
    offset: u64,
    bytes: u64,
}

impl Memory {
    pub(crate) fn of(op: &'static str, tensor: &Tensor) -> Result<Self> {
        if !tensor.is_contiguous() {
            let text = "the tensor's elements are not contiguous";
            return Err(Error::new(ErrorKind::InvalidArgument, op, text)
                .with_hint("copy it into a contiguous one first: the op `copy`"));
        }
        Ok(Self {
            buffer: tensor.buffer().clone(),
            offset: tensor.offset_bytes(),
            bytes: tensor.bytes(),
        })
    }

    pub(crate) fn device(&self) -> Device {
        self.buffer.device()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The byte at `at`, if the host reaches it.
    pub(crate) fn host(&self, at: u64) -> Option<*mut u8> {
        let reached =
            self.buffer.kind() != MemoryKind::Device || self.device().info().host_visible_memory;
        let address: *mut u8 = self.buffer.address().cast();
        reached.then(|| address.wrapping_add(usize_of(self.offset + at)))
    }
}

/// Memory that ended operations let go of, until somebody waits anyway.
///
/// Who drops the last owner of memory that is of no pool waits for all work of its device. That work
/// may wait for other operations of the same lane, so a lane never does.
#[derive(Default)]
pub(crate) struct Left(Mutex<Vec<Memory>>);

impl Left {
    /// So many operations that nobody waited for, and a thread is worth starting.
    const MANY: usize = 64;

    pub(crate) fn push(&self, memory: Memory) {
        if !memory.buffer.is_pooled() {
            self.lock().push(memory);
        }
    }

    /// Lets go of all of it, on a thread that may wait.
    pub(crate) fn clear(&self) {
        let left = mem::take(&mut *self.lock());
        drop(left);
    }

    /// Has others let go of it if it is much.
    pub(crate) fn clear_if_much(&self) {
        let mut all = self.lock();
        if all.len() < Self::MANY {
            return;
        }
        let left = mem::take(&mut *all);
        drop(all);
        let builder = thread::Builder::new().name("ds-io-left".to_owned());
        if let Err(e) = builder.spawn(move || drop(left)) {
            log::error!("start a thread that lets go of memory: {e}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Host memory that the kernel reads and writes in place of a device's: pages of one size, pinned
/// where the device can, so that it copies them without staging of its own.
pub(crate) struct Staging {
    buffer: Buffer,
    /// What copies between it and the device; made when the host cannot.
    stream: Option<Stream>,
    slot_bytes: usize,
    free: Vec<u16>,
    registered: bool,
}

/// A lane stages no more than this at a time, unless two blocks are more.
const MOST_BYTES: u64 = 64 << 20;

impl Staging {
    pub(crate) fn new(device: Device, block_bytes: u64, depth: u32) -> Result<Self> {
        let slots = (MOST_BYTES / block_bytes).max(2).min(u64::from(depth));
        let slots = u16::try_from(slots).unwrap_or(u16::MAX);
        let bytes = u64::from(slots) * block_bytes;
        // Where nothing more can be locked, and on a device without pinned memory.
        let buffer = Buffer::of_kind(device, bytes, MemoryKind::Pinned)
            .or_else(|_| Buffer::of_kind(device, bytes, MemoryKind::Pageable))?;
        Ok(Self {
            buffer,
            stream: None,
            slot_bytes: usize_of(block_bytes),
            free: (0..slots).collect(),
            registered: false,
        })
    }

    pub(crate) fn device(&self) -> Device {
        self.buffer.device()
    }

    /// Whether its pages are locked.
    pub(crate) fn is_pinned(&self) -> bool {
        self.buffer.kind() == MemoryKind::Pinned
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.buffer.bytes()
    }

    /// Registers all of it with `engine`, which must be dropped before it.
    pub(crate) fn register(&mut self, engine: &mut dyn Engine) {
        // In order, so that a slot's number is its range's.
        let mut slots = self.free.clone();
        slots.sort_unstable();
        let ranges: Vec<_> = slots
            .into_iter()
            .map(|slot| (self.address(slot), self.slot_bytes))
            .collect();
        // SAFETY: the memory lives as long as `self`, which the caller keeps longer than the engine.
        self.registered = unsafe { engine.register_memory(&ranges) };
    }

    /// The engine's number for a slot's memory, if it has it registered.
    pub(crate) fn registered(&self, slot: u16) -> Option<u16> {
        self.registered.then_some(slot)
    }

    pub(crate) fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    pub(crate) fn give(&mut self, slot: u16) {
        self.free.push(slot);
    }

    pub(crate) fn address(&self, slot: u16) -> *mut u8 {
        let address: *mut u8 = self.buffer.address().cast();
        address.wrapping_add(usize::from(slot) * self.slot_bytes)
    }

    /// Copies `bytes` bytes of `memory` from `at` on into a slot.
    pub(crate) fn fill(&mut self, slot: u16, memory: &Memory, at: u64, bytes: usize) -> Result<()> {
        let Some(from) = memory.host(at) else {
            let stream = self.stream()?;
            return (memory.buffer).read(&stream, memory.offset + at, self.slot(slot, bytes));
        };
        // SAFETY: `Job` takes ranges of the memory only; the operation's caller lets nobody write it
        // meanwhile.
        let from = unsafe { slice::from_raw_parts(from, bytes) };
        self.slot(slot, bytes).copy_from_slice(from);
        Ok(())
    }

    /// Copies the first `bytes` bytes of a slot into `memory` from `at` on.
    pub(crate) fn drain(
        &mut self,
        slot: u16,
        memory: &Memory,
        at: u64,
        bytes: usize,
    ) -> Result<()> {
        let Some(to) = memory.host(at) else {
            let stream = self.stream()?;
            (memory.buffer).write(&stream, memory.offset + at, self.slot(slot, bytes))?;
            return stream.synchronize();
        };
        let from = self.slot(slot, bytes);
        // SAFETY: as in `fill`, and nobody reads it meanwhile.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), bytes) };
        Ok(())
    }

    fn stream(&mut self) -> Result<Stream> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Stream::new(self.device())?,
        };
        Ok(self.stream.insert(stream).clone())
    }

    /// The first `bytes` bytes of a slot that no request in flight has.
    pub(crate) fn slot(&mut self, slot: u16, bytes: usize) -> &mut [u8] {
        debug_assert!(bytes <= self.slot_bytes, "a piece is at most a block");
        let bytes = bytes.min(self.slot_bytes);
        // SAFETY: the slot lies within the buffer, which is the host's memory; `&mut self` keeps
        // others out, and the kernel has let go of it.
        unsafe { slice::from_raw_parts_mut(self.address(slot), bytes) }
    }
}

/// A byte count as an offset in memory, within what was allocated.
pub(crate) fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
