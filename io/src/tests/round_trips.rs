//! What is written comes back, byte for byte, with all options; partitions, queues, and several users.
//!
//! Options are combined so that every two values of every two options meet in some case: the cases
//! are chosen one by one, each the best of a few at random.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    os::fd::AsFd,
    thread,
};

use ds_core::{ErrorKind, Tensor};

use super::{
    Folder, Guarded, Place, chance, engines, on_each_engine, patiently, pattern, stream, tensor,
};
use crate::{
    AioConfig, AioHandle, EngineKind, Extent, ReadOptions, Target, WriteOptions, crc64_nvme,
};

const BLOCKS: [u64; 3] = [4096, 65536, 1 << 20];
const DEPTHS: [u32; 3] = [1, 3, 32];
const LANES: [u32; 3] = [1, 2, 3];
const SIZES: [usize; 8] = [0, 1, 511, 4096, 4097, 100_000, (1 << 20) + 13, 3 << 20];
const OFFSETS: [u64; 4] = [0, 1, 4096, 5000];

#[derive(Clone, Copy, Debug)]
enum Wish {
    Nothing,
    Fsync,
    Replace,
    Checksum,
    Validate,
}

const WISHES: [Wish; 5] = [
    Wish::Nothing,
    Wish::Fsync,
    Wish::Replace,
    Wish::Checksum,
    Wish::Validate,
];

/// An index into the values of each option.
type Case = [usize; 12];

/// Cases in which every pair of values meets.
fn cases(counts: Case) -> Vec<Case> {
    let pairs_of = |case: &Case| -> Vec<(usize, usize, usize, usize)> {
        let mut pairs = Vec::new();
        for a in 0..case.len() {
            for b in a + 1..case.len() {
                pairs.push((a, case[a], b, case[b]));
            }
        }
        pairs
    };
    let mut missing = HashSet::new();
    for a in 0..counts.len() {
        for b in a + 1..counts.len() {
            for x in 0..counts[a] {
                missing.extend((0..counts[b]).map(|y| (a, x, b, y)));
            }
        }
    }
    let (mut state, mut chosen) = (1, Vec::new());
    while !missing.is_empty() {
        let candidates = (0..20).map(|_| {
            counts.map(|count| usize::try_from(chance(&mut state) % count as u64).unwrap())
        });
        let new = |case: &Case| {
            let pairs = pairs_of(case);
            pairs.iter().filter(|pair| missing.contains(pair)).count()
        };
        let best = candidates.max_by_key(new).unwrap();
        for pair in pairs_of(&best) {
            missing.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

#[test]
fn every_pair_of_options_moves_every_byte() {
    let engines = engines();
    let counts = [
        engines.len(),
        BLOCKS.len(),
        DEPTHS.len(),
        2,
        2,
        LANES.len(),
        Place::ALL.len(),
        SIZES.len(),
        OFFSETS.len(),
        2,
        WISHES.len(),
        2,
    ];
    let cases = cases(counts);
    println!("{} cases", cases.len());
    patiently(move || {
        for (seed, case) in cases.into_iter().enumerate() {
            round_trip(&engines, case, seed as u64);
        }
    });
}

fn round_trip(engines: &[EngineKind], case: Case, seed: u64) {
    let [
        engine,
        block,
        depth,
        single,
        overlap,
        lanes,
        place,
        size,
        offset,
        by,
        wish,
        disk,
    ] = case;
    let config = AioConfig {
        block_size: BLOCKS[block],
        queue_depth: DEPTHS[depth],
        single_submit: single == 1,
        overlap_events: overlap == 1,
        intra_op_parallelism: LANES[lanes],
        use_gds: false,
    };
    let (place, size, offset, wish) = (
        Place::ALL[place],
        SIZES[size],
        OFFSETS[offset],
        WISHES[wish],
    );
    let what = format!(
        "{} {config:?} {place:?} {size} at {offset} {wish:?}",
        engines[engine]
    );
    let handle = AioHandle::with_engine(&config, engines[engine]).unwrap();
    let stream = stream();
    let folder = if disk == 1 {
        Folder::on_disk()
    } else {
        Folder::new()
    };
    // Part of it is there already, and something behind it may be.
    let old = pattern(size / 2 + 3000, seed + 1000);
    let path = folder.file("file", &old);
    let bytes = pattern(size, seed);
    let source = Guarded::new(&stream, place, &bytes);
    let extents = [Extent {
        file_offset: offset,
        memory_offset: 0,
        bytes: size as u64,
    }];
    let options = WriteOptions {
        checksum: matches!(wish, Wish::Checksum),
        validate: matches!(wish, Wish::Validate),
        fsync: matches!(wish, Wish::Fsync),
        replace: matches!(wish, Wish::Replace),
    };
    let opened = OpenOptions::new().write(true).open(&path).unwrap();
    let by_descriptor = Target::from(opened.as_fd());
    let target = match (by, wish) {
        (1, Wish::Replace) => {
            let error =
                handle.write_extents(&stream, &source.tensor, by_descriptor, &extents, &options);
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
            Target::from(&path)
        }
        (1, _) => by_descriptor,
        _ => Target::from(&path),
    };
    let done = handle
        .write_extents(&stream, &source.tensor, target, &extents, &options)
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(done.bytes, size as u64, "{what}");
    let sum = options.checksum.then(|| crc64_nvme(&bytes));
    assert_eq!(done.checksum, sum, "{what}");
    let mut wanted = if options.replace { Vec::new() } else { old };
    let start = usize::try_from(offset).unwrap();
    if size > 0 {
        wanted.resize(wanted.len().max(start + size), 0);
        wanted[start..start + size].copy_from_slice(&bytes);
    }
    assert!(std::fs::read(&path).unwrap() == wanted, "the file: {what}");
    assert!(source.bytes(&stream) == bytes, "the source: {what}");
    assert_eq!(folder.names(), ["file"], "{what}");

    if size == 0 && start > wanted.len() {
        return;
    }
    let read = Guarded::new(&stream, place, &pattern(size, seed + 1));
    let options = ReadOptions {
        checksum: matches!(wish, Wish::Checksum),
        expect: matches!(wish, Wish::Fsync).then(|| crc64_nvme(&bytes)),
        validate: matches!(wish, Wish::Validate),
    };
    let opened = File::open(&path).unwrap();
    let target = match by {
        1 => Target::from(opened.as_fd()),
        _ => Target::from(&path),
    };
    let done = handle
        .read_extents(&stream, &read.tensor, target, &extents, &options)
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!((done.bytes, done.checksum), (size as u64, sum), "{what}");
    assert!(read.bytes(&stream) == bytes, "what was read: {what}");
    let stats = handle.stats();
    assert_eq!(stats.read_bytes, size as u64, "{what}");
    assert_eq!(stats.written_bytes, size as u64, "{what}");
    assert_eq!(
        stats.direct_bytes + stats.cached_bytes,
        2 * size as u64,
        "{what}"
    );
}

/// The partitions of upstream's `tests/unit/ops/aio/test_aio.py`, `TestAsyncFileOffset`.
#[test]
fn parts_of_a_file_are_written_and_read_together() {
    on_each_engine(|kind| {
        let config = AioConfig {
            block_size: 65536,
            intra_op_parallelism: 2,
            ..AioConfig::default()
        };
        let handle = AioHandle::with_engine(&config, kind).unwrap();
        let (stream, folder) = (stream(), Folder::on_disk());
        for parts in [[1, 1, 1], [1, 1, 2], [1, 2, 1], [2, 1, 1]] {
            for by_descriptor in [false, true] {
                // No multiple of anything.
                let unit = 50_013;
                let path = folder.file("file", &[]);
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .unwrap();
                let target = || {
                    if by_descriptor {
                        Target::from(file.as_fd())
                    } else {
                        Target::from(&path)
                    }
                };
                let (mut start, mut whole, mut tensors) = (0, Vec::new(), Vec::new());
                for (seed, part) in (0..).zip(parts) {
                    let bytes = pattern(part * unit, seed);
                    tensors.push((tensor(&stream, &bytes), start as u64));
                    whole.extend(bytes);
                    start += part * unit;
                }
                for (x, offset) in &tensors {
                    drop(handle.async_pwrite(&stream, x, target(), *offset).unwrap());
                }
                assert_eq!(handle.wait().unwrap(), 3);
                assert!(std::fs::read(&path).unwrap() == whole, "{parts:?}");
                let read: Vec<(Tensor, u64)> = tensors
                    .iter()
                    .map(|(x, at)| {
                        (
                            tensor(&stream, &vec![0; usize::try_from(x.bytes()).unwrap()]),
                            *at,
                        )
                    })
                    .collect();
                // Two of them first, then three with the last.
                for (x, offset) in &read[..2] {
                    drop(handle.async_pread(&stream, x, target(), *offset).unwrap());
                }
                assert_eq!(handle.wait().unwrap(), 2);
                drop(
                    handle
                        .async_pread(&stream, &read[2].0, target(), read[2].1)
                        .unwrap(),
                );
                assert_eq!(handle.wait().unwrap(), 1);
                for ((x, _), (wanted, _)) in read.iter().zip(&tensors) {
                    assert!(x.to_bytes(&stream).unwrap() == wanted.to_bytes(&stream).unwrap());
                }
            }
        }
    });
}

#[test]
fn many_threads_use_one_handle_and_two_handles_one_file() {
    on_each_engine(|kind| {
        let config = AioConfig {
            block_size: 16384,
            queue_depth: 3,
            intra_op_parallelism: 2,
            ..AioConfig::default()
        };
        let handles = [0, 1].map(|_| AioHandle::with_engine(&config, kind).unwrap());
        let folder = Folder::new();
        let part = 60_001;
        let whole = pattern(8 * part, 5);
        let path = folder.path("file");
        thread::scope(|scope| {
            for (index, bytes) in whole.chunks(part).enumerate() {
                let (handle, path) = (&handles[index % 2], &path);
                scope.spawn(move || {
                    let stream = stream();
                    let x = tensor(&stream, bytes);
                    let at = (index * part) as u64;
                    for _ in 0..4 {
                        handle.sync_pwrite(&stream, &x, path, at).unwrap();
                        let read = tensor(&stream, &vec![0; part]);
                        handle.sync_pread(&stream, &read, path, at).unwrap();
                        assert!(read.to_bytes(&stream).unwrap() == bytes);
                    }
                });
            }
        });
        assert!(std::fs::read(&path).unwrap() == whole);
        for handle in &handles {
            assert_eq!(handle.wait().unwrap(), 32);
            assert_eq!(handle.wait().unwrap(), 0);
        }
    });
}
