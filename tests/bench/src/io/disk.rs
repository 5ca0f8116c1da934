//! The file that is measured on, and our way to it.

use std::{
    env,
    path::{Path, PathBuf},
};

use ds_core::{Buffer, DType, Device, MemoryKind, Stream, Tensor};
use ds_io::{AioConfig, AioHandle, EngineKind, Extent, ReadOptions, WriteOptions};
use rustix::fs::statfs;
use tempfile::TempDir;

use super::{Direction, Shape, turns::Cost};
use crate::Result;

/// `TMPFS_MAGIC` of linux/magic.h: memory, and no disk.
const TMPFS: i64 = 0x0102_1994;
/// What memory and file are filled with, again and again, in bytes.
const PATTERN: usize = 1 << 20;

/// A file of numbers without a pattern that a disk could make less of.
pub(super) struct Disk {
    _folder: TempDir,
    file: PathBuf,
    bytes: u64,
}

impl Disk {
    /// In the folder that `DS_BENCH_IO_DIR` names, else in that for temporary files; of
    /// `DS_BENCH_IO_GIB` GiB, else 2.
    pub(super) fn new(device: Device) -> Result<Self> {
        let given = env::var_os("DS_BENCH_IO_DIR").map(PathBuf::from);
        let folder = tempfile::tempdir_in(given.unwrap_or_else(env::temp_dir))?;
        let on = statfs(folder.path())?.f_type;
        if i128::from(on) == i128::from(TMPFS) {
            let place = folder.path().display();
            return Err(format!("{place} is in memory; name a disk by DS_BENCH_IO_DIR").into());
        }
        let gib: f64 = super::setting("DS_BENCH_IO_GIB", 2.0)?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size of a file; whole blocks of 8 MiB are at most 8 MiB off"
        )]
        let bytes = ((gib * 128.0) as u64).max(8) << 23;
        let disk = Self {
            file: folder.path().join("ds-bench"),
            _folder: folder,
            bytes,
        };
        // Blocks that were never written are not read from the disk, and written more slowly.
        let tensor = pinned(device, bytes)?;
        let stream = Stream::new(device)?;
        let handle = AioHandle::new(&AioConfig::default())?;
        let options = WriteOptions {
            fsync: true,
            ..WriteOptions::default()
        };
        let extents = [whole(&tensor)];
        handle
            .write_extents(&stream, &tensor, &disk.file, &extents, &options)?
            .wait()?;
        Ok(disk)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A handle of ours, and what it moves.
pub(super) struct Ours {
    handle: AioHandle,
    stream: Stream,
    /// What has to go through memory of the handle's own: staged bytes of all that are moved.
    staged: bool,
}

impl Ours {
    pub(super) fn new(
        device: Device,
        engine: Option<EngineKind>,
        shape: Shape,
        staged: bool,
    ) -> Result<Self> {
        let config = AioConfig {
            block_size: shape.block_bytes,
            queue_depth: shape.depth,
            ..AioConfig::default()
        };
        Ok(Self {
            handle: match engine {
                Some(engine) => AioHandle::with_engine(&config, engine)?,
                None => AioHandle::new(&config)?,
            },
            stream: Stream::new(device)?,
            staged,
        })
    }

    /// `ours, io_uring`.
    pub(super) fn name(&self) -> String {
        format!("ours, {}", self.handle.engine())
    }

    /// Moves `extents` and waits.
    pub(super) fn run(
        &self,
        direction: Direction,
        tensor: &Tensor,
        file: &Path,
        extents: &[Extent],
    ) -> Result<Cost> {
        let before = self.handle.stats();
        let cost = Cost::of(|| {
            let Self { handle, stream, .. } = self;
            let operation = match direction {
                Direction::Read => {
                    handle.read_extents(stream, tensor, file, extents, &ReadOptions::default())
                }
                Direction::Write => {
                    handle.write_extents(stream, tensor, file, extents, &WriteOptions::default())
                }
            }?;
            operation.wait()?;
            Ok(())
        })?;
        let after = self.handle.stats();
        let bytes: u64 = extents.iter().map(|extent| extent.bytes).sum();
        let direct = after.direct_bytes - before.direct_bytes;
        let staged = after.staged_bytes - before.staged_bytes;
        // A figure of another way than its row says is none.
        if (direct, staged) != (bytes, if self.staged { bytes } else { 0 }) {
            let text = format!("of {bytes} bytes {direct} went directly and {staged} were staged");
            return Err(text.into());
        }
        Ok(cost)
    }
}

/// All of a tensor at the beginning of a file.
pub(super) fn whole(tensor: &Tensor) -> Extent {
    Extent {
        file_offset: 0,
        memory_offset: 0,
        bytes: tensor.bytes(),
    }
}

/// A tensor of locked memory.
pub(super) fn pinned(device: Device, bytes: u64) -> Result<Tensor> {
    let buffer = Buffer::of_kind(device, bytes, MemoryKind::Pinned)?;
    let tensor = Tensor::view_of(&buffer, 0, DType::U8, &[i64::try_from(bytes)?], &[1])?;
    filled(device, tensor)
}

/// A tensor as any op has it.
pub(super) fn ordinary(device: Device, bytes: u64) -> Result<Tensor> {
    let stream = device.default_stream()?;
    filled(
        device,
        Tensor::empty(stream, DType::U8, &[i64::try_from(bytes)?])?,
    )
}

fn filled(device: Device, tensor: Tensor) -> Result<Tensor> {
    let stream = device.default_stream()?;
    let mut draws = Draws::new(1);
    let pattern: Vec<u8> = (0..PATTERN)
        .map(|_| draws.draw().to_le_bytes()[7])
        .collect();
    let mut at = 0;
    while at < tensor.bytes() {
        let left = usize::try_from(tensor.bytes() - at)?.min(PATTERN);
        tensor.buffer().write(stream, at, &pattern[..left])?;
        at += PATTERN as u64;
    }
    stream.synchronize()?;
    Ok(tensor)
}

/// Numbers from a seed: `SplitMix64`, <https://prng.di.unimi.it/splitmix64.c>.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
