//! Tensors to and from a file, in turns with fio and with `DeepSpeed`'s aio handle.
//!
//! All go to the same blocks of one file, by direct I/O. fio has a buffer of its own for each request,
//! which stays in a cache; ours and upstream's move a tensor as large as the file.

mod beside;
mod disk;
mod fio;
mod turns;
mod upstream;

use std::{env, str::FromStr};

use ds_core::{Device, Tensor};
use ds_io::{EngineKind, Extent};

use self::{
    disk::{Disk, Draws, Ours},
    turns::{Contender, Limits},
    upstream::{Memory, Upstream},
};
use crate::{Result, peer::Heap};

pub(crate) use self::beside::{CHILD, child, figure as beside};

/// Operations of a turn of small ones.
const RANDOM_OPERATIONS: u64 = 100_000;
const PAGE_BYTES: u64 = 4096;
const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Write, Self::Read];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How a file is gone through.
#[derive(Clone, Copy)]
struct Shape {
    direction: Direction,
    random: bool,
    block_bytes: u64,
    depth: u32,
}

impl Shape {
    fn name(&self) -> String {
        let (direction, depth) = (self.direction.name(), self.depth);
        if self.random {
            return format!("{direction} 4 KiB anywhere x {depth}");
        }
        format!("{direction} {} MiB x {depth}", self.block_bytes / MIB)
    }
}

/// Pinned memory: as fast as the best of those that move nothing else.
pub(crate) fn pinned() -> Result<()> {
    let device = ds_tests::cpu()?;
    let disk = Disk::new(device)?;
    let tensor = disk::pinned(device, disk.bytes())?;
    // As it is installed, and at its best.
    let mut upstream = [
        ("DeepSpeed", upstream_or_skipped(Heap::Default)),
        ("DeepSpeed in huge pages", upstream_or_skipped(Heap::Huge)),
    ];
    for block_bytes in [MIB, 8 * MIB] {
        for depth in [8, 32] {
            for direction in Direction::BOTH {
                let shape = Shape {
                    direction,
                    random: false,
                    block_bytes,
                    depth,
                };
                pinned_case(device, &disk, shape, &tensor, &mut upstream)?;
            }
        }
    }
    Ok(())
}

fn pinned_case(
    device: Device,
    disk: &Disk,
    shape: Shape,
    tensor: &Tensor,
    upstream: &mut [(&str, Option<Upstream>)],
) -> Result<()> {
    let bytes = disk.bytes();
    let all = [disk::whole(tensor)];
    let ours = both_engines(device, shape)?;
    let mut contenders: Vec<_> = ours
        .iter()
        .map(|ours| {
            let turn = || ours.run(shape.direction, tensor, disk.file(), &all);
            Contender::new(ours.name(), turn)
        })
        .collect();
    for engine in fio_or_skipped() {
        let turn = move || fio::run(engine, disk.file(), shape, bytes, bytes, 1);
        contenders.push(Contender::new(format!("fio {engine}"), turn));
    }
    for (name, upstream) in upstream {
        contenders.extend(upstream.as_mut().map(|upstream| {
            let turn = || upstream.run(Memory::Pinned, disk.file(), shape, bytes);
            Contender::new(*name, turn)
        }));
    }
    let turns = turns::alternate(rounds()?, contenders)?;
    let limits = Limits {
        speed: 0.95,
        cpu: None,
    };
    let case = format!("{}, pinned", shape.name());
    turns::rows(&case, bytes as f64 / 1e9, "GB/s", &turns, Some(limits));
    Ok(())
}

/// Memory that is not locked, where a page begins and where none does.
pub(crate) fn ordinary() -> Result<()> {
    let device = ds_tests::cpu()?;
    let disk = Disk::new(device)?;
    let bytes = disk.bytes();
    let tensor = disk::ordinary(device, bytes + PAGE_BYTES)?;
    let size = i64::try_from(bytes)?;
    let aligned = tensor.narrow(0, 0, size)?;
    let odd = tensor.narrow(0, 1, size)?;
    // As it is installed, and at its best: a heap that keeps the pages of its bounce buffer.
    let mut installed = upstream_or_skipped(Heap::Default);
    let mut kept = upstream_or_skipped(Heap::Kept);
    for direction in Direction::BOTH {
        let shape = Shape {
            direction,
            random: false,
            block_bytes: MIB,
            depth: 32,
        };
        let by_place = [
            ("ours", &aligned, Ours::new(device, None, shape, false)?),
            (
                "ours, at an odd address",
                &odd,
                Ours::new(device, None, shape, true)?,
            ),
        ];
        let all = [disk::whole(&aligned)];
        let mut contenders: Vec<_> = by_place
            .iter()
            .map(|(name, tensor, ours)| {
                let turn = || ours.run(direction, tensor, disk.file(), &all);
                Contender::new(*name, turn)
            })
            .collect();
        for (name, upstream) in [
            ("DeepSpeed", &mut installed),
            ("DeepSpeed, its heap kept", &mut kept),
        ] {
            contenders.extend(upstream.as_mut().map(|upstream| {
                let turn = || upstream.run(Memory::Ordinary, disk.file(), shape, bytes);
                Contender::new(name, turn)
            }));
        }
        let turns = turns::alternate(rounds()?, contenders)?;
        let limits = Limits {
            speed: 3.0,
            cpu: Some(0.5),
        };
        let case = format!("{}, ordinary memory", shape.name());
        turns::rows(&case, bytes as f64 / 1e9, "GB/s", &turns, Some(limits));
    }
    Ok(())
}

/// Single pages of the file in any order. Ours are extents of one operation.
pub(crate) fn random() -> Result<()> {
    let device = ds_tests::cpu()?;
    let disk = Disk::new(device)?;
    let pages = disk.bytes() / PAGE_BYTES;
    let operations = RANDOM_OPERATIONS.min(pages);
    let bytes = operations * PAGE_BYTES;
    let tensor = disk::pinned(device, bytes)?;
    for direction in Direction::BOTH {
        let shape = Shape {
            direction,
            random: true,
            block_bytes: PAGE_BYTES,
            depth: 64,
        };
        let ours = both_engines(device, shape)?;
        let mut contenders = Vec::new();
        for (ours, seed) in ours.iter().zip(1..) {
            let mut draws = Draws::new(seed);
            let (disk, tensor) = (&disk, &tensor);
            contenders.push(Contender::new(ours.name(), move || {
                // Other places in each turn: what was read may be in a cache of the host's.
                let extents: Vec<_> = (0..operations)
                    .map(|index| Extent {
                        file_offset: draws.draw() % pages * PAGE_BYTES,
                        memory_offset: index * PAGE_BYTES,
                        bytes: PAGE_BYTES,
                    })
                    .collect();
                ours.run(direction, tensor, disk.file(), &extents)
            }));
        }
        for (engine, first_seed) in fio_or_skipped().zip([1000, 2000]) {
            let (disk, mut seed) = (&disk, first_seed);
            contenders.push(Contender::new(format!("fio {engine}"), move || {
                seed += 1;
                fio::run(engine, disk.file(), shape, disk.bytes(), bytes, seed)
            }));
        }
        let turns = turns::alternate(rounds()?, contenders)?;
        let limits = Limits {
            speed: 0.95,
            cpu: None,
        };
        let thousands = operations as f64 / 1e3;
        turns::rows(&shape.name(), thousands, "1000/s", &turns, Some(limits));
    }
    Ok(())
}

/// The default engine, and Linux AIO unless that is it.
fn both_engines(device: Device, shape: Shape) -> Result<Vec<Ours>> {
    let default = Ours::new(device, None, shape, false)?;
    let mut engines = vec![default];
    if engines[0].name() != "ours, aio" {
        engines.push(Ours::new(device, Some(EngineKind::Aio), shape, false)?);
    }
    Ok(engines)
}

/// fio's engines, or a word that there are none.
fn fio_or_skipped() -> impl Iterator<Item = &'static str> {
    let there = fio::is_there();
    if !there {
        eprintln!("skipped: fio is not installed");
    }
    fio::ENGINES.into_iter().filter(move |_| there)
}

/// Upstream's handle, or a word why there is none.
fn upstream_or_skipped(heap: Heap) -> Option<Upstream> {
    let no_python = || "neither DS_PEERS nor DS_PEERS_PYTHON names a Python".into();
    let started = Upstream::start(heap).and_then(|started| started.ok_or_else(no_python));
    started
        .inspect_err(|e| eprintln!("skipped: DeepSpeed: {e}"))
        .ok()
}

/// `DS_BENCH_IO_ROUNDS`, else 7, after one that is not counted.
fn rounds() -> Result<usize> {
    setting("DS_BENCH_IO_ROUNDS", 7)
}

fn setting<T: FromStr>(name: &str, default: T) -> Result<T> {
    match env::var(name) {
        Ok(text) => (text.parse()).map_err(|_| format!("{name} is {text:?}, no number").into()),
        Err(_) => Ok(default),
    }
}
