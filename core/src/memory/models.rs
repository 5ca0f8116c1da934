//! The pool in every order in which its threads can go on, by loom: a block has one owner, each use
//! of it comes behind the last one, and nobody fails or waits who need not. `cargo xtask loom` runs
//! these.
//!
//! The device of the models remembers which work comes behind which, and does none of it before
//! somebody waits: whoever forgets to order two uses of a block is caught by the second one.

use std::{
    array,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use loom::{sync::Condvar, thread};

use super::{
    backing::Backing,
    blocks::{Block, Request},
    pool::{Guests, Pool},
    sync::{Mutex, MutexGuard},
};
use crate::{Error, ErrorKind, Result};

const STREAMS: usize = 2;
const A: usize = 0;
const B: usize = 1;

/// The granule of large blocks.
const UNIT: u64 = 2 << 20;
/// A block that is cut from a slab, and what the slab takes.
const SMALL: u64 = 512;
const SLAB: u64 = 16 * SMALL;

/// How much of each stream's work.
type Work = [usize; STREAMS];

#[derive(Clone)]
struct Model(Arc<Inner>);

struct Inner {
    world: Mutex<World>,
    opened: Condvar,
}

#[derive(Default)]
struct World {
    /// For each stream, what its next work comes behind; of itself, all that was queued.
    behind: [Work; STREAMS],
    over: Work,
    ended: [bool; STREAMS],
    /// Whether the device's work waits for the host.
    held: bool,
    room: u64,
    /// What was allocated, by address.
    chunks: BTreeMap<usize, u64>,
    next_address: usize,
    /// Addresses of live buffers, and the last work that used an address.
    live: BTreeSet<usize>,
    uses: BTreeMap<usize, Work>,
}

#[derive(Clone)]
struct Queue {
    device: Model,
    slot: usize,
}

struct Point {
    device: Model,
    slot: usize,
    behind: Work,
}

struct Memory {
    address: usize,
    block: Block,
}

impl Model {
    fn new(room: u64) -> (Self, Arc<Pool<Self>>) {
        let world = World {
            room,
            next_address: 1,
            ..World::default()
        };
        let inner = Inner {
            world: Mutex::new(world),
            opened: Condvar::new(),
        };
        (Self(Arc::new(inner)), Arc::new(Pool::new(1)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap()
    }

    fn stream(&self, slot: usize) -> Queue {
        let device = self.clone();
        Queue { device, slot }
    }

    /// Lets the work go on that waits for the host.
    fn open(&self) {
        self.world().held = false;
        self.0.opened.notify_all();
    }

    /// Empties the pool: everything is as it was at the start.
    fn close(&self, pool: &Pool<Self>, room: u64) {
        pool.trim(self).unwrap();
        let stats = pool.stats();
        assert_eq!((stats.allocations, stats.allocated_bytes), (0, 0));
        assert_eq!(stats.reserved_bytes, 0);
        assert_eq!(self.world().room, room);
    }
}

impl Queue {
    fn take(&self, pool: &Pool<Model>, bytes: u64) -> Result<Memory> {
        let mut memory = pool.take_block(self, Request::of(bytes))?;
        memory.block = memory.block.at_home(self.slot);
        let free = self.device.world().live.insert(memory.address);
        assert!(free, "a block has two owners");
        Ok(memory)
    }

    /// Queues work that uses the memory.
    fn work(&self, memory: &Memory) {
        let mut world = self.device.world();
        let (behind, over) = (world.behind[self.slot], world.over);
        let last = world.uses.entry(memory.address).or_default();
        for stream in 0..STREAMS {
            let ordered = last[stream] <= behind[stream].max(over[stream]);
            assert!(ordered, "work uses a block beside earlier work");
        }
        last[self.slot] = behind[self.slot] + 1;
        world.behind[self.slot][self.slot] += 1;
    }

    fn give(&self, pool: &Pool<Model>, memory: Memory, guest: Option<usize>) {
        let mut guests = Guests::default();
        if let Some(slot) = guest {
            guests.add(slot);
        }
        self.device.world().live.remove(&memory.address);
        let block = memory.block;
        let uses = guests.last_uses(&self.device);
        pool.give_block(memory, block, uses);
    }

    /// Takes memory, works with it and gives it back.
    fn use_some(&self, pool: &Pool<Model>, bytes: u64) {
        let memory = self.take(pool, bytes).unwrap();
        self.work(&memory);
        self.give(pool, memory, None);
    }

    /// What the last owner of a stream does.
    fn end(&self, pool: &Pool<Model>) {
        Model::finish(self).unwrap();
        pool.retire(self.slot);
        self.device.world().ended[self.slot] = true;
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("model")
    }
}

impl Backing for Model {
    type Queue = Queue;
    type Point = Point;
    type Memory = Memory;

    fn memory(&self, address: usize, block: Block) -> Memory {
        Memory { address, block }
    }

    fn address(memory: &Memory) -> usize {
        memory.address
    }

    fn block(memory: &Memory) -> Block {
        memory.block
    }

    fn of(queue: &Queue) -> Self {
        queue.device.clone()
    }

    fn slot(queue: &Queue) -> usize {
        queue.slot
    }

    fn precedes(_: &Point, _: &Point) -> bool {
        false
    }

    fn queue(&self, slot: usize) -> Option<Queue> {
        let ended = self.world().ended[slot];
        (!ended).then(|| self.stream(slot))
    }

    fn queues(&self) -> Vec<Queue> {
        (0..STREAMS).filter_map(|slot| self.queue(slot)).collect()
    }

    fn is_over(queue: &Queue) -> Result<bool> {
        let (world, slot) = (queue.device.world(), queue.slot);
        Ok(world.over[slot] >= world.behind[slot][slot])
    }

    fn record(queue: &Queue) -> Result<Point> {
        Ok(Point {
            device: queue.device.clone(),
            slot: queue.slot,
            behind: queue.device.world().behind[queue.slot],
        })
    }

    fn wait(queue: &Queue, point: &Point) -> Result<()> {
        let behind = &mut queue.device.world().behind[queue.slot];
        *behind = array::from_fn(|stream| behind[stream].max(point.behind[stream]));
        Ok(())
    }

    fn finish(queue: &Queue) -> Result<()> {
        let mut world = queue.device.world();
        // What it waited for is over, too.
        let behind = world.behind[queue.slot];
        world.over = array::from_fn(|stream| world.over[stream].max(behind[stream]));
        Ok(())
    }

    fn is_past(point: &Point) -> bool {
        point.device.world().over[point.slot] >= point.behind[point.slot]
    }

    fn allocate(&self, bytes: u64, _: u64) -> Result<usize> {
        let mut world = self.world();
        let left = world.room.checked_sub(bytes);
        let full = || Error::new(ErrorKind::OutOfMemory, "allocate", "the model is full");
        world.room = left.ok_or_else(full)?;
        let address = world.next_address;
        world.next_address += usize::try_from(bytes).unwrap();
        world.chunks.insert(address, bytes);
        Ok(address)
    }

    unsafe fn free(&self, address: usize, bytes: u64) -> Result<()> {
        let mut world = self.world();
        assert_eq!(world.chunks.remove(&address), Some(bytes));
        let range = address..address + usize::try_from(bytes).unwrap();
        assert!(world.live.range(range.clone()).next().is_none());
        for (_, last) in world.uses.range(range) {
            let over = (0..STREAMS).all(|stream| last[stream] <= world.over[stream]);
            assert!(over, "memory is freed that work still uses");
        }
        world.room += bytes;
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        let mut world = self.world();
        let queued: Work = array::from_fn(|stream| world.behind[stream][stream]);
        while world.held {
            world = self.0.opened.wait(world).unwrap();
        }
        world.over = array::from_fn(|stream| world.over[stream].max(queued[stream]));
        Ok(())
    }
}

/// Two threads beside each other. Neither is the model's first one, of whose steps loom tries fewer
/// orders.
fn beside(one: impl FnOnce() + Send + 'static, other: impl FnOnce() + Send + 'static) {
    let (one, other) = (thread::spawn(one), thread::spawn(other));
    one.join().unwrap();
    other.join().unwrap();
}

#[test]
fn two_streams_that_want_one_block_have_it_one_behind_the_other() {
    loom::model(|| {
        let (device, pool) = Model::new(2 * UNIT);
        let (a, b) = (device.stream(A), device.stream(B));
        a.use_some(&pool, UNIT);
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        beside(
            move || a.use_some(&of_a, UNIT),
            move || b.use_some(&of_b, UNIT),
        );
        device.close(&pool, 2 * UNIT);
    });
}

#[test]
fn the_blocks_of_a_stream_that_ends_come_behind_its_work() {
    loom::model(|| {
        let (device, pool) = Model::new(UNIT);
        let (a, b) = (device.stream(A), device.stream(B));
        a.use_some(&pool, UNIT);
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        beside(move || a.end(&of_a), move || b.use_some(&of_b, UNIT));
        device.close(&pool, UNIT);
    });
}

#[test]
fn a_guest_that_ends_keeps_a_block_until_its_work_is_over() {
    loom::model(|| {
        let (device, pool) = Model::new(2 * UNIT);
        let (a, b) = (device.stream(A), device.stream(B));
        let memory = a.take(&pool, UNIT).unwrap();
        b.work(&memory);
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        let gives = move || {
            a.give(&of_a, memory, Some(B));
            a.use_some(&of_a, UNIT);
        };
        beside(gives, move || b.end(&of_b));
        device.close(&pool, 2 * UNIT);
    });
}

#[test]
fn a_pending_block_goes_home_once_whoever_looks() {
    loom::model(|| {
        let (device, pool) = Model::new(2 * UNIT);
        let (a, b) = (device.stream(A), device.stream(B));
        let memory = a.take(&pool, UNIT).unwrap();
        b.work(&memory);
        Model::wait(&a, &Model::record(&b).unwrap()).unwrap();
        a.work(&memory);
        a.give(&pool, memory, Some(B));
        // The guest is done, the home is not.
        Model::finish(&b).unwrap();
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        beside(
            move || a.use_some(&of_a, UNIT),
            move || b.use_some(&of_b, UNIT),
        );
        device.close(&pool, 2 * UNIT);
    });
}

/// A thread that uses a block beside one that trims.
fn trim_beside_use(bytes: u64, room: u64) {
    loom::model(move || {
        let (device, pool) = Model::new(room);
        let (a, b) = (device.stream(A), device.stream(B));
        a.use_some(&pool, bytes);
        let (of_b, trims) = (Arc::clone(&pool), Arc::clone(&pool));
        let trimmed = device.clone();
        beside(
            move || b.use_some(&of_b, bytes),
            move || trims.trim(&trimmed).unwrap(),
        );
        device.close(&pool, room);
    });
}

#[test]
fn a_trim_frees_no_large_block_that_is_in_use() {
    trim_beside_use(UNIT, UNIT);
}

#[test]
fn a_trim_frees_no_slab_of_which_a_block_is_in_use() {
    trim_beside_use(SMALL, SLAB);
}

#[test]
fn a_slab_that_one_thread_has_cut_serves_the_next() {
    loom::model(|| {
        let (device, pool) = Model::new(2 * SLAB);
        pool.set_cap(Some(SLAB));
        let (a, b) = (device.stream(A), device.stream(B));
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        let keeps = |stream: Queue, pool: Arc<Pool<Model>>| {
            let memory = stream.take(&pool, SMALL).unwrap();
            stream.work(&memory);
            memory
        };
        let one = thread::spawn(move || keeps(a, of_a));
        let other = thread::spawn(move || keeps(b, of_b));
        let memory = [(A, one.join()), (B, other.join())];
        // Nobody had to wait for the device.
        let stats = pool.stats();
        assert_eq!((stats.device_allocations, stats.trims), (1, 0));
        assert_eq!(stats.peak_reserved_bytes, SLAB);
        for (slot, memory) in memory {
            device.stream(slot).give(&pool, memory.unwrap(), None);
        }
        device.close(&pool, 2 * SLAB);
    });
}

#[test]
fn two_threads_that_run_out_share_the_room_that_a_trim_makes() {
    loom::model(|| {
        let (device, pool) = Model::new(4 * UNIT);
        let (a, b) = (device.stream(A), device.stream(B));
        // Too large for what follows, so it has to go.
        a.use_some(&pool, 4 * UNIT);
        let keeps = |stream: Queue, pool: Arc<Pool<Model>>| stream.take(&pool, 2 * UNIT).unwrap();
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        let one = thread::spawn(move || keeps(a, of_a));
        let other = thread::spawn(move || keeps(b, of_b));
        for (slot, memory) in [(A, one.join()), (B, other.join())] {
            device.stream(slot).give(&pool, memory.unwrap(), None);
        }
        assert_eq!(pool.stats().peak_reserved_bytes, 4 * UNIT);
        device.close(&pool, 4 * UNIT);
    });
}

#[test]
fn who_needs_memory_before_it_signals_has_it_while_another_waits_for_the_signal() {
    loom::model(|| {
        let (device, pool) = Model::new(4 * UNIT);
        let (a, b) = (device.stream(A), device.stream(B));
        a.use_some(&pool, UNIT);
        device.world().held = true;
        let (of_a, of_b) = (Arc::clone(&pool), Arc::clone(&pool));
        let runs_out = move || {
            // It has the memory if the other one has given it back by then.
            if let Ok(memory) = a.take(&of_a, 4 * UNIT) {
                a.give(&of_a, memory, None);
            }
        };
        let signals = move || {
            // A block that is free, and one of the device's.
            b.use_some(&of_b, UNIT);
            b.use_some(&of_b, 2 * UNIT);
            b.device.open();
        };
        beside(runs_out, signals);
        device.close(&pool, 4 * UNIT);
    });
}
