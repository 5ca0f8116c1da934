//! The caching pool of a device: blocks by size and by the stream that may use them next.
//!
//! A free block belongs to the stream that used it last. That stream takes it again without any
//! wait; another one waits for a point recorded when it takes the block, unless the first has
//! nothing pending. A failed stream does no more work, so its blocks are as good as any. Small
//! blocks are cut from slabs, large ones are allocated one by one and taken again by best fit.

use std::{
    collections::BTreeMap,
    ffi::c_void,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ds_abi::DS_MEMORY_DEVICE;
use serde::Serialize;

use triomphe::UniqueArc;

use super::{
    buffer::{Memory, Owner},
    size::{self, CLASSES, Class},
};
use crate::{
    Device, Error, ErrorKind, Result, fork,
    stream::{Point, Queue, Stream},
};

/// A large block may be given to a request of at least this share of it.
const LARGE_FIT: (u64, u64) = (3, 4);

/// What the pool knows of a block beside its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    bytes: u64,
    /// Index of the slab it is cut from, `NO_SLAB` for a large one and for the empty block.
    slab: u32,
    /// Slot of the stream that used it last, or uses it now.
    home: u32,
}

/// A block that nobody uses, as the buffer that it will be.
type FreeBlock = UniqueArc<Memory>;

const NO_SLAB: u32 = u32::MAX;

impl Block {
    pub(super) fn home(self) -> usize {
        self.home as usize
    }
}

impl Memory {
    fn free(device: Device, address: usize, bytes: u64, slab: u32) -> FreeBlock {
        UniqueArc::new(Self {
            device,
            address: std::ptr::with_exposed_provenance_mut(address),
            bytes,
            owner: Owner::Free {
                block: Block {
                    bytes,
                    slab,
                    home: 0,
                },
            },
        })
    }

    /// What the pool knows of it.
    fn block(&self) -> Block {
        match self.owner {
            Owner::Free { block } | Owner::Pool { block, .. } => block,
            Owner::Raw { .. } | Owner::Foreign { .. } => Block {
                bytes: 0,
                slab: NO_SLAB,
                home: 0,
            },
        }
    }
}

/// The streams, by slot, that used a block beside the one it is home on.
#[derive(Debug, Default)]
pub(super) struct Guests(AtomicU64);

impl Guests {
    /// Slots from this one on share the last bit.
    const SHARED: usize = u64::BITS as usize - 1;

    pub(crate) fn add(&self, slot: usize) {
        self.0
            .fetch_or(1 << slot.min(Self::SHARED), Ordering::Relaxed);
    }

    /// Whether the stream in `slot` may be one of them.
    fn may_have(&mut self, slot: usize) -> bool {
        *self.0.get_mut() & (1 << slot.min(Self::SHARED)) != 0
    }

    fn are_none(&mut self) -> bool {
        *self.0.get_mut() == 0
    }
}

/// What a pool holds and has done; upstream's `memory_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Bytes in live buffers, rounded up to blocks (`memory_allocated`).
    pub allocated_bytes: u64,
    /// The most that ever were, since the last reset (`max_memory_allocated`).
    pub peak_allocated_bytes: u64,
    /// Bytes taken from the device (`memory_reserved`).
    pub reserved_bytes: u64,
    /// The most that ever were, since the last reset (`max_memory_reserved`).
    pub peak_reserved_bytes: u64,
    /// The most that may be taken from the device, if there is a cap.
    pub cap_bytes: Option<u64>,
    /// Live buffers.
    pub allocations: u64,
    /// Buffers made since the start.
    pub total_allocations: u64,
    /// Of those, how many took a block that was free already.
    pub cache_hits: u64,
    /// Of those, how many took it from another stream and had to wait for it.
    pub cross_stream_hits: u64,
    /// Calls to the device's own allocator.
    pub device_allocations: u64,
    /// How often free blocks were given back to make room.
    pub trims: u64,
}

/// The caching pool of one device.
pub(crate) struct Pool {
    alignment: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Free blocks by stream slot.
    free: Vec<Free>,
    /// Free blocks that no work uses any more: anybody's, without a wait.
    idle: Free,
    /// Blocks whose last use on other streams is not over, with the stream they go home to.
    pending: Vec<(FreeBlock, usize, Vec<Point>)>,
    /// The last uses of live buffers, by address, on each stream of another device.
    abroad: Vec<(usize, Point)>,
    slabs: Vec<Slab>,
    stats: MemoryStats,
}

struct Free {
    small: Vec<Vec<FreeBlock>>,
    /// Large blocks by size.
    large: BTreeMap<u64, Vec<FreeBlock>>,
}

impl Default for Free {
    fn default() -> Self {
        Self {
            small: (0..CLASSES).map(|_| Vec::new()).collect(),
            large: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy)]
struct Slab {
    address: usize,
    bytes: u64,
    live: u32,
}

impl Pool {
    pub(crate) fn new(alignment_bytes: u32) -> Self {
        Self {
            alignment: u64::from(alignment_bytes).max(1),
            state: Mutex::default(),
        }
    }

    /// Memory of at least `bytes`, ready for work on `stream`.
    #[inline]
    pub(super) fn take(&self, stream: &Stream, bytes: u64) -> Result<UniqueArc<Memory>> {
        let home = u32::try_from(stream.slot()).unwrap_or(u32::MAX);
        if bytes == 0 {
            return Ok(Memory::free(stream.device(), 0, 0, NO_SLAB));
        }
        // Before the lock, which a thread that the child has not may hold.
        if fork::is_child() {
            return Err(fork::refusal("allocate memory"));
        }
        let class = size::class(bytes);
        let mut state = self.lock();
        let own = state.free.get_mut(stream.slot());
        let mut memory = if let Some(memory) = own.and_then(|free| free.take(class, bytes)) {
            state.stats.cache_hits += 1;
            state.note_taken(memory.block());
            drop(state);
            memory
        } else {
            drop(state);
            self.take_elsewhere(stream, class, bytes)?
        };
        let block = Block {
            home,
            ..memory.block()
        };
        memory.bytes = bytes;
        memory.owner = Owner::Pool {
            block,
            guests: Guests::default(),
        };
        Ok(memory)
    }

    /// From pending blocks that are done, from another stream, or from the device.
    #[cold]
    fn take_elsewhere(
        &self,
        stream: &Stream,
        class: Option<Class>,
        bytes: u64,
    ) -> Result<FreeBlock> {
        // Goes after the lock: the last one gives the handle up.
        let mut other = None;
        let mut state = self.lock();
        let taken = self.find_elsewhere(&mut state, stream, class, bytes, &mut other)?;
        state.note_taken(taken.block());
        Ok(taken)
    }

    /// As it says; the stream that had the block before is then in `other`.
    fn find_elsewhere(
        &self,
        state: &mut State,
        stream: &Stream,
        class: Option<Class>,
        bytes: u64,
        other: &mut Option<Arc<Queue>>,
    ) -> Result<FreeBlock> {
        state.settle_pending();
        if let Some(block) = state.take_own(stream.slot(), class, bytes) {
            state.stats.cache_hits += 1;
            return Ok(block);
        }
        if let Some((slot, block)) = state.take_other(stream.slot(), class, bytes) {
            // The stream that freed it may still be using it: whatever it has queued comes first.
            *other = stream.device().streams().queue(slot);
            let over = other.as_ref().map_or(Ok(true), |queue| queue.is_over());
            let waits = matches!(over, Ok(false));
            let ordered = match &other {
                Some(busy) if waits => busy.record().and_then(|point| stream.wait(&point)),
                _ => over.map(drop),
            };
            if ordered.is_ok() {
                state.stats.cache_hits += 1;
                state.stats.cross_stream_hits += u64::from(waits);
                return Ok(block);
            }
            state.put_back(slot, block);
        }
        match self.take_new(state, stream.device(), stream.slot(), class, bytes) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory => {
                if let Err(e) = state.trim(stream.device()) {
                    log::warn!("make room on {}: {e}", stream.device());
                }
                self.take_new(state, stream.device(), stream.slot(), class, bytes)
                    .map_err(|e| state.explain(stream.device(), bytes, &e))
            }
            taken => taken,
        }
    }

    fn take_new(
        &self,
        state: &mut State,
        device: Device,
        slot: usize,
        class: Option<Class>,
        bytes: u64,
    ) -> Result<FreeBlock> {
        let Some(class) = class else {
            let too_large = || {
                let text = format!("{bytes} bytes are more than an address can count");
                Error::new(ErrorKind::OutOfMemory, "allocate memory", text)
            };
            let bytes = size::large(bytes).ok_or_else(too_large)?;
            let address = self.reserve(state, device, bytes)?;
            return Ok(Memory::free(device, address, bytes, NO_SLAB));
        };
        // Blocks keep the device's alignment: the class is a multiple of it, or is rounded up.
        let step = class.bytes.next_multiple_of(self.alignment);
        let slab_bytes = (size::slab_bytes(class) / class.bytes * step).max(step);
        let address = self.reserve(state, device, slab_bytes)?;
        let slab = u32::try_from(state.slabs.len()).unwrap_or(NO_SLAB);
        state.slabs.push(Slab {
            address,
            bytes: slab_bytes,
            live: 0,
        });
        let count = slab_bytes / step;
        let block = |index: u64| {
            let offset = usize::try_from(index * step).unwrap_or(0);
            Memory::free(device, address + offset, class.bytes, slab)
        };
        for index in (1..count).rev() {
            state.put_back(slot, block(index));
        }
        Ok(block(0))
    }

    fn reserve(&self, state: &mut State, device: Device, bytes: u64) -> Result<usize> {
        let after = state.stats.reserved_bytes.saturating_add(bytes);
        if let Some(cap) = state.stats.cap_bytes
            && after > cap
        {
            let text = format!("{after} bytes would exceed the cap of {cap}");
            return Err(Error::new(ErrorKind::OutOfMemory, "allocate memory", text));
        }
        let address = device.allocate(bytes, self.alignment, DS_MEMORY_DEVICE)?;
        state.stats.reserved_bytes = after;
        state.stats.peak_reserved_bytes = state.stats.peak_reserved_bytes.max(after);
        state.stats.device_allocations += 1;
        Ok(address.expose_provenance())
    }

    /// Takes back what nobody uses any more; memory that is not the pool's goes its own way.
    #[inline]
    pub(super) fn give(&self, mut memory: UniqueArc<Memory>) {
        if fork::is_child() {
            return;
        }
        let device = memory.device;
        let Owner::Pool { block, guests } = &mut memory.owner else {
            return;
        };
        let block = *block;
        // Recorded outside the lock: it is a call into the plugin.
        let mut last_uses = if guests.are_none() {
            Vec::new()
        } else {
            last_uses(device, std::mem::take(guests))
        };
        memory.owner = Owner::Free { block };
        let mut state = self.lock();
        state.note_given(block);
        last_uses.extend(state.take_abroad(memory.address.addr()));
        if last_uses.is_empty() {
            state.put_back(block.home(), memory);
        } else {
            state.pending.push((memory, block.home(), last_uses));
        }
    }

    /// Notes that the buffer at `address` is in use until `point`, on a stream of another device.
    pub(crate) fn use_abroad(&self, address: *mut c_void, point: Point) {
        let mut state = self.lock();
        let used =
            |(at, last): &&mut (usize, Point)| *at == address.addr() && last.precedes(&point);
        match state.abroad.iter_mut().find(used) {
            Some((_, last)) => *last = point,
            None => state.abroad.push((address.addr(), point)),
        }
    }

    /// Waits for the uses on other devices of a buffer that is not the pool's.
    pub(crate) fn wait_abroad(&self, address: *mut c_void) -> Result<()> {
        let points = self.lock().take_abroad(address.addr());
        let over = |point: Point| point.finish();
        points.into_iter().map(over).fold(Ok(()), Result::and)
    }

    /// Forgets the stream in `slot`, whose work is done: its blocks are anybody's.
    pub(crate) fn retire(&self, slot: usize) {
        let mut state = self.lock();
        let Some(free) = state.free.get_mut(slot).map(std::mem::take) else {
            return;
        };
        for block in free.into_blocks() {
            state.idle.put(block);
        }
    }

    /// Gives free memory back to the device; upstream's `empty_cache`.
    ///
    /// # Errors
    /// When the device cannot finish its work first, or does not take memory back.
    pub(crate) fn trim(&self, device: Device) -> Result<()> {
        device.synchronize()?;
        self.lock().trim(device)
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        self.lock().stats
    }

    /// As [`Pool::stats`]; nothing while another thread holds the lock.
    pub(crate) fn try_stats(&self) -> Option<MemoryStats> {
        self.state.try_lock().ok().map(|state| state.stats)
    }

    pub(crate) fn reset_peaks(&self) {
        let stats = &mut self.lock().stats;
        stats.peak_allocated_bytes = stats.allocated_bytes;
        stats.peak_reserved_bytes = stats.reserved_bytes;
    }

    pub(crate) fn set_cap(&self, bytes: Option<u64>) {
        self.lock().stats.cap_bytes = bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The points behind the last use of a block by each of `guests`.
#[cold]
fn last_uses(device: Device, mut guests: Guests) -> Vec<Point> {
    let mut points = Vec::new();
    for queue in device.streams().queues() {
        let slot = queue.slot();
        if !guests.may_have(slot) {
            continue;
        }
        match queue.record() {
            Ok(point) => points.push(point),
            // What cannot be noted is over when this returns.
            Err(e) => {
                let done = queue.finish();
                log::debug!(
                    "a block was in use on stream {slot} of {device}: {e}; waited: {done:?}"
                );
            }
        }
    }
    points
}

impl State {
    #[inline]
    fn note_taken(&mut self, block: Block) {
        let stats = &mut self.stats;
        stats.allocated_bytes += block.bytes;
        stats.peak_allocated_bytes = stats.peak_allocated_bytes.max(stats.allocated_bytes);
        stats.allocations += 1;
        stats.total_allocations += 1;
        if let Some(slab) = self.slabs.get_mut(block.slab as usize) {
            slab.live += 1;
        }
    }

    #[inline]
    fn note_given(&mut self, block: Block) {
        self.stats.allocated_bytes -= block.bytes;
        self.stats.allocations -= 1;
        if let Some(slab) = self.slabs.get_mut(block.slab as usize) {
            slab.live -= 1;
        }
    }

    fn put_back(&mut self, slot: usize, block: FreeBlock) {
        if self.free.len() <= slot {
            self.free.resize_with(slot + 1, Free::default);
        }
        self.free[slot].put(block);
    }

    fn take_own(&mut self, slot: usize, class: Option<Class>, bytes: u64) -> Option<FreeBlock> {
        let own = self
            .free
            .get_mut(slot)
            .and_then(|free| free.take(class, bytes));
        own.or_else(|| self.idle.take(class, bytes))
    }

    fn take_other(
        &mut self,
        slot: usize,
        class: Option<Class>,
        bytes: u64,
    ) -> Option<(usize, FreeBlock)> {
        let others = self
            .free
            .iter_mut()
            .enumerate()
            .filter(|(other, _)| *other != slot);
        others
            .into_iter()
            .find_map(|(other, free)| Some((other, free.take(class, bytes)?)))
    }

    /// Sends pending blocks home whose other users are done.
    fn settle_pending(&mut self) {
        for (block, home, points) in std::mem::take(&mut self.pending) {
            if points.iter().all(Point::is_over) {
                self.put_back(home, block);
            } else {
                self.pending.push((block, home, points));
            }
        }
    }

    /// Takes out the uses of the block at `address` on other devices.
    fn take_abroad(&mut self, address: usize) -> Vec<Point> {
        // Nearly always there are none of any buffer.
        if self.abroad.is_empty() {
            return Vec::new();
        }
        let own = |(at, _): &mut (usize, Point)| *at == address;
        let taken = self.abroad.extract_if(.., own);
        taken.map(|(_, point)| point).collect()
    }

    /// Frees every large block that is free, and every slab of which all blocks are.
    ///
    /// # Errors
    /// The device's, when its work cannot be waited for, and nothing is freed; else the first failure
    /// to free: what nobody knows to be freed is not used again.
    fn trim(&mut self, device: Device) -> Result<()> {
        // Blocks may still be in use by work queued before they were freed.
        device.synchronize()?;
        self.stats.trims += 1;
        self.settle_pending();
        let held = |slab| self.pending.iter().any(|(m, ..)| m.block().slab == slab);
        let held: Vec<bool> = (0u32..).zip(&self.slabs).map(|(i, _)| held(i)).collect();
        let mut dead = Vec::new();
        for (slab, held) in self.slabs.iter_mut().zip(held) {
            if slab.live == 0 && slab.bytes > 0 && !held {
                dead.push((slab.address, std::mem::take(&mut slab.bytes)));
            }
        }
        let slabs = &self.slabs;
        for free in self.free.iter_mut().chain([&mut self.idle]) {
            for blocks in &mut free.small {
                blocks.retain(|memory| slabs[memory.block().slab as usize].bytes > 0);
            }
            dead.extend(
                std::mem::take(&mut free.large)
                    .into_values()
                    .flatten()
                    .map(|memory| (memory.address.addr(), memory.block().bytes)),
            );
        }
        let mut done = Ok(());
        for (address, bytes) in dead {
            let pointer = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: reserved with these numbers; no block of it is live, free or pending any
            // more, and the device has just finished all work.
            match unsafe { device.free(pointer, bytes, DS_MEMORY_DEVICE) } {
                Ok(()) => self.stats.reserved_bytes -= bytes,
                Err(e) => {
                    log::error!("free memory of {device}: {bytes} bytes are lost: {e}");
                    done = done.and(Err(e));
                }
            }
        }
        done
    }

    fn explain(&self, device: Device, bytes: u64, cause: &Error) -> Error {
        let MemoryStats {
            allocated_bytes,
            reserved_bytes,
            ..
        } = self.stats;
        Error::new(
            ErrorKind::OutOfMemory,
            "allocate memory",
            format!(
                "{bytes} bytes on {device}: {} ({allocated_bytes} bytes are in live buffers, \
                 {reserved_bytes} reserved)",
                cause.context()
            ),
        )
        .with_hint("free buffers, raise the device's cap, or use a smaller batch")
    }
}

impl Free {
    #[inline]
    fn take(&mut self, class: Option<Class>, bytes: u64) -> Option<FreeBlock> {
        if let Some(class) = class {
            return self.small[class.index].pop();
        }
        let wanted = size::large(bytes)?;
        let (&size, blocks) = self.large.range_mut(wanted..).next()?;
        if wanted < size / LARGE_FIT.1 * LARGE_FIT.0 {
            return None;
        }
        let block = blocks.pop();
        if blocks.is_empty() {
            self.large.remove(&size);
        }
        block
    }

    fn put(&mut self, memory: FreeBlock) {
        let Block { bytes, slab, .. } = memory.block();
        match size::class(bytes).filter(|_| slab != NO_SLAB) {
            Some(class) => self.small[class.index].push(memory),
            None => self.large.entry(bytes).or_default().push(memory),
        }
    }

    fn into_blocks(self) -> impl Iterator<Item = FreeBlock> {
        self.small
            .into_iter()
            .flatten()
            .chain(self.large.into_values().flatten())
    }
}
