//! The caching pool of a device: who may have a block when, and what is asked of the device.
//!
//! A free block belongs to the stream that used it last. That stream takes it again without any
//! wait; another one waits for a point recorded when it takes the block, unless the first has
//! nothing pending. A failed stream does no more work, so its blocks are as good as any. Small
//! blocks are cut from slabs, large ones are allocated one by one and taken again by best fit.
//!
//! The lock of the blocks is never held in a call into the plugin, nor in a wait: whoever finds a
//! block has it, whatever other threads ask of the device or wait for. What goes to the device has
//! its turn instead, which comes before that lock. The turn to allocate is held in the call of the
//! plugin's allocator; the turn to trim also while the device finishes its work, and only those
//! wait for it that found no memory themselves.

use std::{
    ffi::c_void,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use triomphe::UniqueArc;

use super::{
    backing::Backing,
    blocks::{Block, Blocks, MemoryStats, Request, Uses},
    buffer::{Memory, Owner},
    sync::{Mutex, MutexGuard},
};
use crate::{
    Device, Error, ErrorKind, Result, fork,
    stream::{Point, Stream},
};

/// The streams, by slot, that used a block beside the one it is home on.
#[derive(Debug, Default)]
pub(crate) struct Guests(AtomicU64);

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

    /// The points behind the last use of the block by each.
    #[inline]
    pub(super) fn last_uses<D: Backing>(&mut self, device: &D) -> Vec<D::Point> {
        if *self.0.get_mut() == 0 {
            Vec::new()
        } else {
            last_uses(device, std::mem::take(self))
        }
    }
}

/// The caching pool of one device.
pub(crate) struct Pool<D: Backing = Device> {
    alignment: u64,
    blocks: Mutex<Blocks<D>>,
    /// The turn to allocate from the device. One thread at a time, so that the next one finds what
    /// the last one has cut, and the cap is held against what is there.
    growing: Mutex<()>,
    /// The turn to trim. One thread at a time, so that the next one finds the room that the last one
    /// has made.
    trimming: Mutex<()>,
}

impl Pool {
    /// Memory of at least `bytes`, ready for work on `stream`.
    #[inline]
    pub(super) fn take(&self, stream: &Stream, bytes: u64) -> Result<UniqueArc<Memory>> {
        if bytes == 0 {
            return Ok(stream.device().memory(0, Block::NONE));
        }
        // Before the lock, which a thread that the child has not may hold.
        if fork::is_child() {
            return Err(fork::refusal("allocate memory"));
        }
        let mut memory = self.take_block(stream.as_queue(), Request::of(bytes))?;
        memory.bytes = bytes;
        if let Owner::Pool { block, live, .. } = &mut memory.owner {
            // Its own stream has it most often: what is not written can be read at once.
            if block.home() != stream.slot() {
                *block = block.at_home(stream.slot());
            }
            *live = true;
        }
        Ok(memory)
    }

    /// Takes back what nobody uses any more; memory that is not the pool's goes its own way.
    #[inline]
    pub(super) fn give(&self, mut memory: UniqueArc<Memory>) {
        if fork::is_child() {
            return;
        }
        let device = memory.device;
        let Owner::Pool {
            block,
            guests,
            live: live @ true,
        } = &mut memory.owner
        else {
            return;
        };
        *live = false;
        let block = *block;
        let uses = guests.last_uses(&device);
        self.give_block(memory, block, uses);
    }

    /// Notes that the buffer at `address` is in use until `point`, on a stream of another device.
    pub(crate) fn use_abroad(&self, address: *mut c_void, point: Point) {
        self.lock().use_abroad(address.addr(), point);
    }

    /// Waits for the uses on other devices of a buffer that is not the pool's.
    pub(crate) fn wait_abroad(&self, address: *mut c_void) -> Result<()> {
        let points = self.lock().take_abroad(address.addr());
        let over = |point: Point| point.finish();
        points.into_iter().map(over).fold(Ok(()), Result::and)
    }
}

impl<D: Backing> Pool<D> {
    pub(crate) fn new(alignment_bytes: u32) -> Self {
        Self {
            alignment: u64::from(alignment_bytes).max(1),
            blocks: Mutex::new(Blocks::new()),
            growing: Mutex::new(()),
            trimming: Mutex::new(()),
        }
    }

    #[inline]
    pub(super) fn take_block(&self, queue: &D::Queue, request: Request) -> Result<D::Memory> {
        let again = self.lock().take_again(D::slot(queue), request);
        match again {
            Some(memory) => Ok(memory),
            None => self.take_elsewhere(queue, request),
        }
    }

    /// From pending blocks that are done, from another stream, or from the device.
    #[cold]
    fn take_elsewhere(&self, queue: &D::Queue, request: Request) -> Result<D::Memory> {
        let is_out = |taken: &Result<_>| {
            let error = taken.as_ref().err();
            error.is_some_and(|e| e.kind() == ErrorKind::OutOfMemory)
        };
        let trims = self.stats().trims;
        let mut taken = self.find_or_grow(queue, request);
        if !is_out(&taken) {
            return taken;
        }
        let _turn = turn(&self.trimming);
        // Whoever had the turn before may have made room for both.
        if self.stats().trims != trims {
            taken = self.find_or_grow(queue, request);
            if !is_out(&taken) {
                return taken;
            }
        }
        let device = D::of(queue);
        if let Err(e) = self.trim_in_turn(&device) {
            log::warn!("make room on {device}: {e}");
        }
        self.find_or_grow(queue, request)
            .map_err(|e| match e.kind() {
                ErrorKind::OutOfMemory => explain(self.stats(), &device, request.bytes(), &e),
                _ => e,
            })
    }

    fn find_or_grow(&self, queue: &D::Queue, request: Request) -> Result<D::Memory> {
        loop {
            let seen = self.stats().device_allocations;
            if let Some(memory) = self.find(queue, request) {
                return Ok(memory);
            }
            let _turn = turn(&self.growing);
            // Of the slab that another thread has just cut there may be some left.
            if self.stats().device_allocations == seen {
                return self.grow(queue, request);
            }
        }
    }

    /// A free block, and `queue` behind the work that may still use it.
    fn find(&self, queue: &D::Queue, request: Request) -> Option<D::Memory> {
        self.settle(0);
        let slot = D::slot(queue);
        let mut blocks = self.lock();
        if let Some(memory) = blocks.take_own(slot, request) {
            return Some(memory);
        }
        // Out of the lists, so that nobody else has it while this one puts itself behind the stream
        // that freed it: whatever that has queued comes first.
        let (other, memory) = blocks.take_other(slot, request)?;
        drop(blocks);
        let busy = D::of(queue).queue(other);
        let over = busy.as_ref().map_or(Ok(true), D::is_over);
        let waits = matches!(over, Ok(false));
        let ordered = match &busy {
            Some(busy) if waits => D::record(busy).and_then(|point| D::wait(queue, &point)),
            _ => over.map(drop),
        };
        let mut blocks = self.lock();
        if ordered.is_err() {
            let block = D::block(&memory);
            blocks.put(other, memory, block);
            return None;
        }
        blocks.note_hit(&memory);
        blocks.stats_mut().cross_stream_hits += u64::from(waits);
        Some(memory)
    }

    /// From the device, in the turn to do so.
    fn grow(&self, queue: &D::Queue, request: Request) -> Result<D::Memory> {
        let chunk = request.chunk(self.alignment)?;
        self.lock().check_cap(chunk.bytes)?;
        let device = D::of(queue);
        let address = device.allocate(chunk.bytes, self.alignment)?;
        Ok(self.lock().add(&device, D::slot(queue), address, chunk))
    }

    /// Sends pending blocks home whose other uses are over; as [`Blocks::settle`] has it.
    fn settle(&self, finished: u64) {
        let pending = self.lock().pending();
        let over = |(number, uses): &(u64, Uses<D>)| uses.iter().all(D::is_past).then_some(*number);
        let over: Vec<u64> = pending.iter().filter_map(over).collect();
        if !over.is_empty() {
            self.lock().settle(over.into_iter(), finished);
        }
    }

    #[inline]
    pub(super) fn give_block(&self, memory: D::Memory, block: Block, uses: Vec<D::Point>) {
        self.lock().give(memory, block, uses);
    }

    /// Forgets the stream in `slot`, whose work is done: its blocks are anybody's.
    pub(crate) fn retire(&self, slot: usize) {
        self.lock().retire(slot);
    }

    /// Gives free memory back to the device; upstream's `empty_cache`.
    ///
    /// # Errors
    /// When the device cannot finish its work first, or does not take memory back.
    pub(crate) fn trim(&self, device: &D) -> Result<()> {
        // Before the locks, which a thread that the child has not may hold.
        if fork::is_child() {
            return Err(fork::refusal("give memory back"));
        }
        let _turn = turn(&self.trimming);
        self.trim_in_turn(device)
    }

    /// Frees every large block that is free, and every slab of which all blocks are.
    ///
    /// # Errors
    /// The device's, when its work cannot be waited for, and nothing is freed; else the first failure
    /// to free: what nobody knows to be freed is not used again.
    fn trim_in_turn(&self, device: &D) -> Result<()> {
        // Blocks may still be in use by work queued before they were freed. They can be taken while
        // this waits: the work may wait for a thread that needs memory first.
        let given = self.lock().begin_trim();
        if let Err(e) = device.synchronize() {
            self.lock().stay();
            return Err(e);
        }
        self.settle(given);
        let left = self.lock().leave();
        let (mut lost, mut done) = (0, Ok(()));
        for (address, bytes) in left {
            // SAFETY: allocated with this size; no block of it is live, free or pending any more,
            // and the device has finished all work from before they were free.
            if let Err(e) = unsafe { device.free(address, bytes) } {
                log::error!("free memory of {device}: {bytes} bytes are lost: {e}");
                lost += bytes;
                done = done.and(Err(e));
            }
        }
        self.lock().note_trim(lost);
        done
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        self.lock().stats()
    }

    /// As [`Pool::stats`]; nothing while another thread holds the lock.
    pub(crate) fn try_stats(&self) -> Option<MemoryStats> {
        self.blocks.try_lock().ok().map(|blocks| blocks.stats())
    }

    pub(crate) fn reset_peaks(&self) {
        let mut blocks = self.lock();
        let stats = blocks.stats_mut();
        stats.peak_allocated_bytes = stats.allocated_bytes;
        stats.peak_reserved_bytes = stats.reserved_bytes;
    }

    pub(crate) fn set_cap(&self, bytes: Option<u64>) {
        self.lock().stats_mut().cap_bytes = bytes;
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Blocks<D>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn turn(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn last_uses<D: Backing>(device: &D, mut guests: Guests) -> Vec<D::Point> {
    let mut points = Vec::new();
    for queue in device.queues() {
        let slot = D::slot(&queue);
        if !guests.may_have(slot) {
            continue;
        }
        match D::record(&queue) {
            Ok(point) => points.push(point),
            // What cannot be noted is over when this returns.
            Err(e) => {
                let done = D::finish(&queue);
                log::debug!(
                    "a block was in use on stream {slot} of {device}: {e}; waited: {done:?}"
                );
            }
        }
    }
    points
}

fn explain<D: Backing>(stats: MemoryStats, device: &D, bytes: u64, cause: &Error) -> Error {
    let MemoryStats {
        allocated_bytes,
        reserved_bytes,
        ..
    } = stats;
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
