//! Random operations in random order against a plain model: a file is a `Vec<u8>`. Of what was not
//! waited for, no two touch the same bytes unless both read.

use std::ops::Range;

use ds_core::Stream;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{Folder, Guarded, Place, block_for_a_while, on_each_engine, pattern, stream};
use crate::{AioConfig, AioHandle, EngineKind, Extent, Operation, ReadOptions, WriteOptions};

/// The file begins with so many bytes, and writes may make it longer.
const BYTES: usize = 50_000;
const MOST: usize = 20_000;
const CASES: u32 = 60;
/// Disks are slow when others use them.
const CASES_ON_DISK: u32 = 8;

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        len: usize,
        place: Place,
        /// Drop the tensor, and have its memory written by somebody else, before it is waited for.
        drop: bool,
    },
    Read {
        at: usize,
        len: usize,
        place: Place,
    },
    /// Parts of one range, in the order of their bytes or the other way round.
    Extents {
        at: usize,
        lens: Vec<usize>,
        write: bool,
        reversed: bool,
    },
    /// What follows waits for a point that is reached a little later.
    Block,
    WaitForFirst,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let at = prop_oneof![0..BYTES, (0..13_usize).prop_map(|page| page * 4096)];
    let len = prop_oneof![
        Just(0_usize),
        1..600_usize,
        1..MOST,
        (1..5_usize).prop_map(|pages| pages * 4096)
    ];
    let place = prop::sample::select(&Place::ALL[..]);
    let lens = prop::collection::vec(len.clone(), 2..5);
    prop_oneof![
        4 => (at.clone(), len.clone(), place.clone(), any::<bool>())
            .prop_map(|(at, len, place, drop)| Step::Write { at, len, place, drop }),
        3 => (at.clone(), len, place).prop_map(|(at, len, place)| Step::Read { at, len, place }),
        2 => (at, lens, any::<bool>(), any::<bool>())
            .prop_map(|(at, lens, write, reversed)| Step::Extents { at, lens, write, reversed }),
        2 => Just(Step::Block),
        1 => Just(Step::WaitForFirst),
        1 => Just(Step::Wait),
    ]
}

fn config() -> impl Strategy<Value = AioConfig> {
    let blocks = prop::sample::select(&[4096_u64, 8192, 65536][..]);
    (blocks, 1..5_u32, 1..4_u32, any::<bool>(), any::<bool>()).prop_map(
        |(block_size, queue_depth, intra_op_parallelism, single_submit, overlap_events)| {
            AioConfig {
                block_size,
                queue_depth,
                intra_op_parallelism,
                single_submit,
                overlap_events,
                use_gds: false,
            }
        },
    )
}

struct World {
    handle: AioHandle,
    stream: Stream,
    folder: Folder,
    model: Vec<u8>,
    /// Of operations that were not waited for: their range, and whether it is written.
    busy: Vec<(Range<usize>, bool)>,
    operations: Vec<Operation>,
    reads: Vec<(Guarded, Vec<u8>)>,
    seed: u64,
}

impl World {
    fn new(config: &AioConfig, kind: EngineKind, folder: Folder) -> Self {
        let model = pattern(BYTES, 99);
        folder.file("file", &model);
        Self {
            handle: AioHandle::with_engine(config, kind).unwrap(),
            stream: stream(),
            folder,
            model,
            busy: Vec::new(),
            operations: Vec::new(),
            reads: Vec::new(),
            seed: 0,
        }
    }

    /// Waits until nothing is in flight, and holds what was read against the model.
    fn wait(&mut self) {
        assert_eq!(self.handle.wait().unwrap(), self.operations.len());
        assert!(self.operations.iter().all(Operation::is_done));
        self.operations.clear();
        self.busy.clear();
        for (read, wanted) in self.reads.drain(..) {
            assert!(read.bytes(&stream()) == wanted, "other bytes were read");
        }
    }

    /// Takes a range; waits first if that is another's.
    fn claim(&mut self, range: &Range<usize>, write: bool) {
        let meets = |(other, written): &(Range<usize>, bool)| {
            (write || *written) && other.start < range.end && range.start < other.end
        };
        if self.busy.iter().any(meets) {
            self.wait();
        }
        self.busy.push((range.clone(), write));
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        pattern(len, self.seed)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        // Nothing written leaves a file as long as it was.
        if !bytes.is_empty() {
            self.model.resize(self.model.len().max(at + bytes.len()), 0);
            self.model[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn take(&mut self, step: Step) {
        let path = self.folder.path("file");
        match step {
            Step::Write {
                at,
                len,
                place,
                drop: dropped,
            } => {
                self.claim(&(at..at + len), true);
                let bytes = self.bytes(len);
                let source = Guarded::new(&stream(), place, &bytes);
                let begun =
                    self.handle
                        .async_pwrite(&self.stream, &source.tensor, &path, at as u64);
                self.operations.push(begun.unwrap());
                self.put(at, &bytes);
                if dropped {
                    drop(source);
                    drop(Guarded::new(&stream(), place, &vec![0xee; len]));
                } else {
                    self.reads.push((source, bytes));
                }
            }
            Step::Read { at, len, place } => {
                let end = (at + len).min(self.model.len());
                let range = at.min(end)..end;
                self.claim(&range, false);
                let read = Guarded::new(&stream(), place, &vec![0; range.len()]);
                let begun =
                    self.handle
                        .async_pread(&self.stream, &read.tensor, &path, range.start as u64);
                self.operations.push(begun.unwrap());
                self.reads.push((read, self.model[range].to_vec()));
            }
            Step::Extents {
                at,
                lens,
                write,
                reversed,
            } => self.scatter(at, &lens, write, reversed),
            Step::Block => drop(block_for_a_while(&self.stream)),
            Step::WaitForFirst => {
                if let Some(first) = self.operations.first() {
                    first.wait().unwrap();
                }
            }
            Step::Wait => self.wait(),
        }
    }

    fn scatter(&mut self, at: usize, lens: &[usize], write: bool, reversed: bool) {
        let path = self.folder.path("file");
        let whole: usize = lens.iter().sum();
        if !write && at + whole > self.model.len() {
            return;
        }
        self.claim(&(at..at + whole), write);
        let (mut extents, mut file, mut memory) = (Vec::new(), at, whole);
        // One behind the other in the file, one before the other in memory.
        for &len in lens {
            memory -= len;
            extents.push(Extent {
                file_offset: file as u64,
                memory_offset: memory as u64,
                bytes: len as u64,
            });
            file += len;
        }
        if reversed {
            extents.reverse();
        }
        let content = if write {
            self.bytes(whole)
        } else {
            vec![0; whole]
        };
        let guarded = Guarded::new(&stream(), Place::Pool, &content);
        let (stream, tensor) = (&self.stream, &guarded.tensor);
        let begun = if write {
            let options = WriteOptions::default();
            self.handle
                .write_extents(stream, tensor, &path, &extents, &options)
        } else {
            let options = ReadOptions::default();
            self.handle
                .read_extents(stream, tensor, &path, &extents, &options)
        };
        self.operations.push(begun.unwrap());
        let mut wanted = content;
        for extent in &extents {
            let [file, memory, len] = [extent.file_offset, extent.memory_offset, extent.bytes]
                .map(|value| usize::try_from(value).unwrap());
            if write {
                let bytes = wanted[memory..memory + len].to_vec();
                self.put(file, &bytes);
            } else {
                wanted[memory..memory + len].copy_from_slice(&self.model[file..file + len]);
            }
        }
        self.reads.push((guarded, wanted));
    }
}

fn hold_against_the_model(kind: EngineKind, cases: u32, folder: fn() -> Folder) {
    let settings = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(settings, chance);
    let steps = (config(), prop::collection::vec(step(), 1..40));
    let run = runner.run(&steps, |(config, steps)| {
        let mut world = World::new(&config, kind, folder());
        for step in steps {
            world.take(step);
        }
        world.wait();
        let file = std::fs::read(world.folder.path("file")).unwrap();
        prop_assert!(file == world.model, "the file has other bytes");
        Ok(())
    });
    if let Err(e) = run {
        panic!("{kind}: {e}");
    }
}

#[test]
fn any_operations_in_any_order_are_those_on_a_vector() {
    on_each_engine(|kind| hold_against_the_model(kind, CASES, Folder::new));
}

#[test]
fn on_a_disk_too_any_operations_in_any_order_are_those_on_a_vector() {
    on_each_engine(|kind| hold_against_the_model(kind, CASES_ON_DISK, Folder::on_disk));
}
