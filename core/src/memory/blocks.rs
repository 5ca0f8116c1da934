//! The blocks of a pool: which are free, for whom, and the numbers of it all. This is the state that
//! is under the pool's lock: nothing in here calls a plugin or waits.

use std::{collections::BTreeMap, mem, sync::Arc};

use serde::Serialize;

use super::{
    backing::Backing,
    size::{self, CLASSES, Class},
};
use crate::{Error, ErrorKind, Result};

/// A large block may be given to a request of at least this share of it.
const LARGE_FIT: (u64, u64) = (3, 4);

/// What a pool knows of a block beside its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    bytes: u64,
    /// Index of the slab it is cut from, `NO_SLAB` for a large one and for the empty block.
    slab: u32,
    /// Slot of the stream that used it last, or uses it now.
    home: u32,
}

const NO_SLAB: u32 = u32::MAX;

impl Block {
    /// That of memory which is no pool's.
    pub(super) const NONE: Self = Self {
        bytes: 0,
        slab: NO_SLAB,
        home: 0,
    };

    pub(super) fn home(self) -> usize {
        self.home as usize
    }

    /// The same block, used by the stream in `slot` from now on.
    #[inline]
    pub(super) fn at_home(self, slot: usize) -> Self {
        let home = u32::try_from(slot).unwrap_or(u32::MAX);
        Self { home, ..self }
    }
}

/// How much somebody wants.
#[derive(Clone, Copy)]
pub(super) struct Request {
    class: Option<Class>,
    bytes: u64,
}

impl Request {
    #[inline]
    pub(super) fn of(bytes: u64) -> Self {
        Self {
            class: size::class(bytes),
            bytes,
        }
    }

    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }

    /// What is asked of the device for it.
    pub(super) fn chunk(self, alignment: u64) -> Result<Chunk> {
        if let Some(class) = self.class {
            // Blocks keep the device's alignment: the class is a multiple of it, or is rounded up.
            let step = class.bytes.next_multiple_of(alignment);
            return Ok(Chunk {
                bytes: (size::slab_bytes(class) / class.bytes * step).max(step),
                block: class.bytes,
                step,
                is_slab: true,
            });
        }
        let too_large = || {
            let text = format!("{} bytes are more than an address can count", self.bytes);
            Error::new(ErrorKind::OutOfMemory, "allocate memory", text)
        };
        let bytes = size::large(self.bytes).ok_or_else(too_large)?;
        Ok(Chunk {
            bytes,
            block: bytes,
            step: bytes,
            is_slab: false,
        })
    }
}

/// Memory of the device and how it is cut: into blocks of `block` bytes, one every `step` bytes.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) bytes: u64,
    block: u64,
    step: u64,
    is_slab: bool,
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

/// The blocks of one device that are not in use, and the numbers of all.
pub(super) struct Blocks<D: Backing> {
    /// Free blocks by stream slot.
    free: Vec<Free<D>>,
    /// Those that were free when the trim began which now waits for the device. They may still be
    /// taken; the ones that were not when it has waited are out of use.
    leaving: Vec<Free<D>>,
    /// Free blocks that no work uses any more: anybody's, without a wait.
    idle: Free<D>,
    /// Blocks whose last use on streams beside their home may not be over, in the order in which
    /// they were given.
    pending: BTreeMap<u64, Pending<D>>,
    /// The number that the next pending block gets.
    next_pending: u64,
    /// The last uses of live buffers, by address, on each stream of another device.
    abroad: Vec<(usize, D::Point)>,
    slabs: Vec<Slab>,
    stats: MemoryStats,
}

struct Pending<D: Backing> {
    memory: D::Memory,
    uses: Uses<D>,
}

/// What a block waits for. Shared, so that it can be asked for, and dropped, outside the lock.
pub(super) type Uses<D> = Arc<[<D as Backing>::Point]>;

#[derive(Clone, Copy)]
struct Slab {
    address: usize,
    /// Nothing of one that was given back.
    bytes: u64,
    blocks: u32,
}

impl<D: Backing> Blocks<D> {
    pub(super) fn new() -> Self {
        Self {
            free: Vec::new(),
            leaving: Vec::new(),
            idle: Free::default(),
            pending: BTreeMap::new(),
            next_pending: 0,
            abroad: Vec::new(),
            slabs: Vec::new(),
            stats: MemoryStats::default(),
        }
    }

    pub(super) fn stats(&self) -> MemoryStats {
        self.stats
    }

    pub(super) fn stats_mut(&mut self) -> &mut MemoryStats {
        &mut self.stats
    }

    /// A block that the stream in `slot` used last.
    #[inline]
    pub(super) fn take_again(&mut self, slot: usize, request: Request) -> Option<D::Memory> {
        let memory = self.free.get_mut(slot)?.take(request)?;
        self.note_hit(&memory);
        Some(memory)
    }

    /// A block that needs no wait on the stream in `slot`.
    pub(super) fn take_own(&mut self, slot: usize, request: Request) -> Option<D::Memory> {
        if let Some(memory) = self.take_again(slot, request) {
            return Some(memory);
        }
        let leaving = self.leaving.get_mut(slot);
        let leaving = leaving.and_then(|free| free.take(request));
        let memory = leaving.or_else(|| self.idle.take(request))?;
        self.note_hit(&memory);
        Some(memory)
    }

    /// A block that a stream in another slot used last, with that slot. It is nobody's now, and noted
    /// as taken when the caller has put itself behind that stream.
    pub(super) fn take_other(
        &mut self,
        slot: usize,
        request: Request,
    ) -> Option<(usize, D::Memory)> {
        let free = self.free.iter_mut().enumerate();
        free.chain(self.leaving.iter_mut().enumerate())
            .filter(|(other, _)| *other != slot)
            .find_map(|(other, free)| Some((other, free.take(request)?)))
    }

    #[inline]
    pub(super) fn note_hit(&mut self, memory: &D::Memory) {
        self.stats.cache_hits += 1;
        self.note_taken(memory);
    }

    #[inline]
    fn note_taken(&mut self, memory: &D::Memory) {
        let stats = &mut self.stats;
        stats.allocated_bytes += D::block(memory).bytes;
        stats.peak_allocated_bytes = stats.peak_allocated_bytes.max(stats.allocated_bytes);
        stats.allocations += 1;
        stats.total_allocations += 1;
    }

    /// Has `block` back, which is in use until `uses`, beside the work on its home.
    #[inline]
    pub(super) fn give(&mut self, memory: D::Memory, block: Block, uses: Vec<D::Point>) {
        self.stats.allocated_bytes -= block.bytes;
        self.stats.allocations -= 1;
        // Nearly always nobody else has used it, and no buffer is in use abroad.
        if uses.is_empty() && self.abroad.is_empty() {
            self.put(block.home(), memory, block);
        } else {
            self.give_in_use(memory, block, uses);
        }
    }

    #[cold]
    fn give_in_use(&mut self, memory: D::Memory, block: Block, mut uses: Vec<D::Point>) {
        uses.extend(self.take_abroad(D::address(&memory)));
        if uses.is_empty() {
            self.put(block.home(), memory, block);
            return;
        }
        let uses = uses.into();
        self.pending
            .insert(self.next_pending, Pending { memory, uses });
        self.next_pending += 1;
    }

    /// Puts a block among those that the stream in `slot` has without a wait.
    #[inline]
    pub(super) fn put(&mut self, slot: usize, memory: D::Memory, block: Block) {
        if self.free.len() <= slot {
            self.free.resize_with(slot + 1, Free::default);
        }
        self.free[slot].put(memory, block);
    }

    /// What the pending blocks wait for, by their numbers.
    pub(super) fn pending(&self) -> Vec<(u64, Uses<D>)> {
        let uses = |(number, pending): (&u64, &Pending<D>)| (*number, Arc::clone(&pending.uses));
        self.pending.iter().map(uses).collect()
    }

    /// Sends pending blocks home whose other uses are over; the work of the home is over, too, for
    /// numbers below `finished`.
    pub(super) fn settle(&mut self, over: impl Iterator<Item = u64>, finished: u64) {
        for number in over {
            // Another thread may have asked, too, and been faster.
            if let Some(Pending { memory, .. }) = self.pending.remove(&number) {
                let block = D::block(&memory);
                if number < finished {
                    self.idle.put(memory, block);
                } else {
                    self.put(block.home(), memory, block);
                }
            }
        }
    }

    /// Notes that the buffer at `address` is in use until `point`, on a stream of another device.
    pub(super) fn use_abroad(&mut self, address: usize, point: D::Point) {
        let used =
            |(at, last): &&mut (usize, D::Point)| *at == address && D::precedes(last, &point);
        match self.abroad.iter_mut().find(used) {
            Some((_, last)) => *last = point,
            None => self.abroad.push((address, point)),
        }
    }

    /// Takes out the uses of the block at `address` on other devices.
    pub(super) fn take_abroad(&mut self, address: usize) -> Vec<D::Point> {
        let own = |(at, _): &mut (usize, D::Point)| *at == address;
        let taken = self.abroad.extract_if(.., own);
        taken.map(|(_, point)| point).collect()
    }

    /// Makes the blocks of a stream, whose work is over, anybody's.
    pub(super) fn retire(&mut self, slot: usize) {
        for free in [&mut self.free, &mut self.leaving] {
            if let Some(free) = free.get_mut(slot).map(mem::take) {
                for (memory, block) in free.into_blocks() {
                    self.idle.put(memory, block);
                }
            }
        }
    }

    /// Refuses what would exceed the cap.
    pub(super) fn check_cap(&self, bytes: u64) -> Result<()> {
        let after = self.stats.reserved_bytes.saturating_add(bytes);
        match self.stats.cap_bytes {
            Some(cap) if after > cap => {
                let text = format!("{after} bytes would exceed the cap of {cap}");
                Err(Error::new(ErrorKind::OutOfMemory, "allocate memory", text))
            }
            _ => Ok(()),
        }
    }

    /// Cuts memory that the device just gave; the first block is taken, the stream in `slot` has the
    /// others.
    pub(super) fn add(
        &mut self,
        device: &D,
        slot: usize,
        address: usize,
        chunk: Chunk,
    ) -> D::Memory {
        self.reserve(chunk.bytes);
        self.stats.device_allocations += 1;
        let count = u32::try_from(chunk.bytes / chunk.step).unwrap_or(u32::MAX);
        let mut slab = NO_SLAB;
        if chunk.is_slab {
            slab = u32::try_from(self.slabs.len()).unwrap_or(NO_SLAB);
            self.slabs.push(Slab {
                address,
                bytes: chunk.bytes,
                blocks: count,
            });
        }
        let block = Block {
            bytes: chunk.block,
            slab,
            home: 0,
        };
        let block = block.at_home(slot);
        let memory = |index: u32| {
            let offset = usize::try_from(u64::from(index) * chunk.step).unwrap_or(0);
            device.memory(address + offset, block)
        };
        for index in (1..count).rev() {
            self.put(slot, memory(index), block);
        }
        let first = memory(0);
        self.note_taken(&first);
        first
    }

    fn reserve(&mut self, bytes: u64) {
        let stats = &mut self.stats;
        stats.reserved_bytes += bytes;
        stats.peak_reserved_bytes = stats.peak_reserved_bytes.max(stats.reserved_bytes);
    }

    /// Begins a trim: what is free now may leave when the device has finished its work. Pending
    /// blocks with numbers below the one that it gives were given before.
    pub(super) fn begin_trim(&mut self) -> u64 {
        self.leaving = mem::take(&mut self.free);
        self.next_pending
    }

    /// Ends a trim: every block is where it was.
    pub(super) fn stay(&mut self) {
        for (slot, free) in mem::take(&mut self.leaving).into_iter().enumerate() {
            for (memory, block) in free.into_blocks() {
                self.put(slot, memory, block);
            }
        }
    }

    /// Ends a trim, now that the device has finished the work from before it: takes out large blocks
    /// and slabs that no work uses, by address and size. The other blocks are where they were.
    pub(super) fn leave(&mut self) -> Vec<(usize, u64)> {
        let mut unused = vec![0; self.slabs.len()];
        let free = || self.leaving.iter().chain([&self.idle]);
        for memory in free().flat_map(|free| free.small.iter().flatten()) {
            unused[D::block(memory).slab as usize] += 1;
        }
        let mut left = Vec::new();
        for (slab, unused) in self.slabs.iter_mut().zip(unused) {
            if slab.bytes > 0 && slab.blocks == unused {
                left.push((slab.address, mem::take(&mut slab.bytes)));
            }
        }
        let slabs = &self.slabs;
        for free in self.leaving.iter_mut().chain([&mut self.idle]) {
            for blocks in &mut free.small {
                blocks.retain(|memory| slabs[D::block(memory).slab as usize].bytes > 0);
            }
            let large = mem::take(&mut free.large).into_values().flatten();
            left.extend(large.map(|memory| (D::address(&memory), D::block(&memory).bytes)));
        }
        self.stay();
        // From here on it is the device's: another thread may get it before this one is told so.
        self.stats.reserved_bytes -= left.iter().map(|(_, bytes)| bytes).sum::<u64>();
        left
    }

    /// Notes that the device has had back what left, but for so much.
    pub(super) fn note_trim(&mut self, lost: u64) {
        self.reserve(lost);
        self.stats.trims += 1;
    }
}

/// Free blocks by size.
struct Free<D: Backing> {
    small: Vec<Vec<D::Memory>>,
    large: BTreeMap<u64, Vec<D::Memory>>,
}

impl<D: Backing> Default for Free<D> {
    fn default() -> Self {
        Self {
            small: (0..CLASSES).map(|_| Vec::new()).collect(),
            large: BTreeMap::new(),
        }
    }
}

impl<D: Backing> Free<D> {
    #[inline]
    fn take(&mut self, request: Request) -> Option<D::Memory> {
        if let Some(class) = request.class {
            return self.small[class.index].pop();
        }
        let wanted = size::large(request.bytes)?;
        let (&size, blocks) = self.large.range_mut(wanted..).next()?;
        if wanted < size / LARGE_FIT.1 * LARGE_FIT.0 {
            return None;
        }
        let memory = blocks.pop();
        if blocks.is_empty() {
            self.large.remove(&size);
        }
        memory
    }

    #[inline]
    fn put(&mut self, memory: D::Memory, block: Block) {
        match size::class(block.bytes).filter(|_| block.slab != NO_SLAB) {
            Some(class) => self.small[class.index].push(memory),
            None => self.large.entry(block.bytes).or_default().push(memory),
        }
    }

    fn into_blocks(self) -> impl Iterator<Item = (D::Memory, Block)> {
        let small = self.small.into_iter().flatten();
        let all = small.chain(self.large.into_values().flatten());
        all.map(|memory| {
            let block = D::block(&memory);
            (memory, block)
        })
    }
}
