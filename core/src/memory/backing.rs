//! What a pool asks of its device. A trait, because the models of the pool ([`super::models`]) have
//! a device of their own, whose every step loom can see.

use std::fmt;

use ds_abi::DS_MEMORY_DEVICE;
use triomphe::UniqueArc;

use super::{
    blocks::Block,
    buffer::{Memory, Owner},
    pool::Guests,
};
use crate::{
    Device, Result,
    stream::{Point, Queue},
};

/// A device as its pool sees it.
pub(crate) trait Backing: Clone + fmt::Display {
    /// A stream, as long as its work may be pending.
    type Queue;
    /// A place in a queue's work.
    type Point;
    /// Memory that nobody uses, as the buffer that it will be.
    type Memory;

    // What is known at once, also under a lock.

    fn memory(&self, address: usize, block: Block) -> Self::Memory;
    fn address(memory: &Self::Memory) -> usize;
    fn block(memory: &Self::Memory) -> Block;
    fn of(queue: &Self::Queue) -> Self;
    fn slot(queue: &Self::Queue) -> usize;
    fn precedes(point: &Self::Point, later: &Self::Point) -> bool;

    // What goes to the plugin, waits, or drops a handle of the plugin's: under no lock of the blocks.

    /// The queue in `slot`. There is none only when its work is over and the pool knows that it is.
    fn queue(&self, slot: usize) -> Option<Self::Queue>;
    fn queues(&self) -> Vec<Self::Queue>;
    /// Whether no work of the queue will still run.
    fn is_over(queue: &Self::Queue) -> Result<bool>;
    fn record(queue: &Self::Queue) -> Result<Self::Point>;
    fn wait(queue: &Self::Queue, point: &Self::Point) -> Result<()>;
    /// Waits until nothing is pending, also where it fails.
    fn finish(queue: &Self::Queue) -> Result<()>;
    fn is_past(point: &Self::Point) -> bool;
    fn allocate(&self, bytes: u64, alignment: u64) -> Result<usize>;
    /// # Safety
    /// The memory came from `allocate` with this size, and nothing uses it any more.
    unsafe fn free(&self, address: usize, bytes: u64) -> Result<()>;
    fn synchronize(&self) -> Result<()>;
}

impl Backing for Device {
    type Queue = std::sync::Arc<Queue>;
    type Point = Point;
    type Memory = UniqueArc<Memory>;

    fn memory(&self, address: usize, block: Block) -> Self::Memory {
        UniqueArc::new(Memory {
            device: *self,
            address: std::ptr::with_exposed_provenance_mut(address),
            bytes: 0,
            owner: Owner::Pool {
                block,
                guests: Guests::default(),
                live: false,
            },
        })
    }

    #[inline]
    fn address(memory: &Self::Memory) -> usize {
        memory.address.addr()
    }

    #[inline]
    fn block(memory: &Self::Memory) -> Block {
        match memory.owner {
            Owner::Pool { block, .. } => block,
            Owner::Raw { .. } | Owner::Foreign { .. } => Block::NONE,
        }
    }

    fn of(queue: &Self::Queue) -> Self {
        queue.device()
    }

    #[inline]
    fn slot(queue: &Self::Queue) -> usize {
        queue.slot()
    }

    fn precedes(point: &Self::Point, later: &Self::Point) -> bool {
        point.precedes(later)
    }

    fn queue(&self, slot: usize) -> Option<Self::Queue> {
        self.streams().queue(slot)
    }

    fn queues(&self) -> Vec<Self::Queue> {
        self.streams().queues()
    }

    fn is_over(queue: &Self::Queue) -> Result<bool> {
        queue.is_over()
    }

    fn record(queue: &Self::Queue) -> Result<Self::Point> {
        queue.record()
    }

    fn wait(queue: &Self::Queue, point: &Self::Point) -> Result<()> {
        queue.wait(point)
    }

    fn finish(queue: &Self::Queue) -> Result<()> {
        queue.finish()
    }

    fn is_past(point: &Self::Point) -> bool {
        point.is_over()
    }

    fn allocate(&self, bytes: u64, alignment: u64) -> Result<usize> {
        let address = Device::allocate(*self, bytes, alignment, DS_MEMORY_DEVICE)?;
        Ok(address.expose_provenance())
    }

    unsafe fn free(&self, address: usize, bytes: u64) -> Result<()> {
        let address = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the caller's promise; memory of this kind is all that `allocate` gives.
        unsafe { Device::free(*self, address, bytes, DS_MEMORY_DEVICE) }
    }

    fn synchronize(&self) -> Result<()> {
        Device::synchronize(*self)
    }
}
