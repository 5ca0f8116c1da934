//! What a disk gives: the same bytes are written and read with each setting, in rounds, because the
//! speed of a disk changes while one looks.

use std::{os::fd::AsFd, time::Instant};

use ds_core::{DType, Device, ErrorKind, MemoryKind, Stream, Tensor};
use ds_io::{
    AioConfig, AioHandle, AioStats, EngineKind, Extent, PinHandle, ReadOptions, WriteOptions,
};
use serde::Serialize;

use super::{
    engines::{Engines, Gets},
    place::Place,
    plan::{self, DEFAULT, Judged, Setting, Shape},
};
use crate::{
    progress::Progress,
    sizes::size,
    view::{BAD, FAILED, Outcome, Refusal},
};

/// Rounds at least, where the disk turns out slower than it was at first.
const LEAST_ROUNDS: usize = 3;
/// Rounds at most, where they are over before the time is.
const MOST_ROUNDS: usize = 9;
/// The file is filled in steps, so that a slow disk has a small one.
const STEP_BYTES: u64 = 16 << 20;
/// The part of the time that filling the file may take.
const FILLING: f64 = 0.2;

/// What a disk gave.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Measured {
    pub(super) folder: String,
    /// Such as `ext4 on /dev/nvme0n1`, where it is known.
    pub(super) filesystem: Option<String>,
    pub(super) file_bytes: u64,
    /// How much was written, and read, in each round with each setting.
    pub(super) sample_bytes: u64,
    pub(super) rounds: usize,
    pub(super) seconds: f64,
    /// Whose host memory was read into and written from.
    pub(super) device: String,
    /// Why that memory was not locked; nothing when it was.
    pub(super) pageable: Option<String>,
    /// Why it was memory that was measured; nothing where it was a disk.
    pub(super) not_a_disk: Option<String>,
    pub(super) settings: Vec<Row>,
    pub(super) recommended: Recommended,
}

/// A setting, and how fast it was.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Row {
    pub(super) engine: &'static str,
    pub(super) block_size: u64,
    pub(super) queue_depth: u32,
    /// Memory that the kernel has at a time.
    pub(super) in_flight_bytes: u64,
    pub(super) read: Option<Speed>,
    pub(super) write: Option<Speed>,
    /// Why it was not measured.
    #[serde(flatten)]
    pub(super) refusal: Option<Refusal>,
}

/// GB/s, of 1e9 bytes, over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(clippy::struct_field_names, reason = "each is in that unit")]
pub(super) struct Speed {
    pub(super) median_gb_per_s: f64,
    pub(super) least_gb_per_s: f64,
    pub(super) most_gb_per_s: f64,
}

/// The setting to take.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Recommended {
    /// Where it is in `settings`.
    pub(super) setting: usize,
    /// Reading and writing summed, to those of DeepSpeed's defaults on the engine that a program gets.
    pub(super) of_default: Option<f64>,
    /// What has to be set in the environment, where it is not what a program gets anyway.
    pub(super) variable: Option<String>,
    /// The `aio` block of `ds_config.json`.
    #[cfg_attr(test, schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    pub(super) aio: AioConfig,
}

/// # Errors
/// When the disk fails, or no engine is to be had.
pub(super) fn measure(
    place: Place,
    engines: &Engines,
    device: Device,
    seconds: u64,
) -> Result<Measured, Outcome> {
    let (gets, is_named) = match &engines.gets {
        Gets::Engine { kind, is_named, .. } => (*kind, *is_named),
        Gets::Nothing(refusal) => {
            let hint = refusal.hint.as_deref().unwrap_or_default();
            return Err(Outcome::refused(&refusal.reason, hint));
        }
    };
    let allowed = engines.all.iter().filter(|engine| engine.refusal.is_none());
    let kinds: Vec<EngineKind> = allowed.map(|engine| engine.kind).collect();
    let kinds = if is_named { vec![gets] } else { kinds };
    let progress = Progress::new();
    progress.announce(&format!(
        "measuring {} for about {seconds} s with a file of at most {} that has no name",
        place.folder.display(),
        size(place.most_bytes),
    ));

    #[allow(clippy::cast_precision_loss, reason = "at most an hour")]
    let seconds = seconds as f64;
    let begun = Instant::now();
    let mut bench = Bench::new(place, device)?;
    let speed = bench.fill(gets, FILLING * seconds)?;
    let rest = seconds - begun.elapsed().as_secs_f64();
    let (settings, sample_bytes) = plan::plan(&kinds, bench.file_bytes, speed, rest.max(0.0));
    bench.sample_bytes = sample_bytes;

    let mut trials: Vec<Trial> = settings.into_iter().map(Trial::new).collect();
    let (mut rounds, mut longest) = (0, 0.0_f64);
    while rounds < MOST_ROUNDS {
        let left = seconds - begun.elapsed().as_secs_f64();
        // A disk that has become much slower has fewer rounds rather than hours.
        let is_late = left < -0.5 * seconds;
        if rounds > 0 && left < longest && (rounds >= LEAST_ROUNDS || is_late) {
            break;
        }
        let start = Instant::now();
        let n = trials.len();
        for step in 0..n {
            progress.tell(&format!("round {}: {} of {n}", rounds + 1, step + 1));
            // Every other round is in the opposite order, so that a drift favours nobody.
            let at = if rounds % 2 == 0 { step } else { n - 1 - step };
            bench.sample(&mut trials[at])?;
        }
        longest = longest.max(start.elapsed().as_secs_f64());
        rounds += 1;
    }
    progress.clear();
    let recommended = recommended(&trials, gets)?;
    Ok(Measured {
        folder: bench.place.folder.display().to_string(),
        filesystem: bench.place.filesystem.clone(),
        file_bytes: bench.file_bytes,
        sample_bytes,
        rounds,
        seconds: begun.elapsed().as_secs_f64(),
        device: device.to_string(),
        not_a_disk: bench.not_a_disk(),
        settings: trials.into_iter().map(Trial::into_row).collect(),
        recommended,
        pageable: bench.pageable,
    })
}

/// The file, and the tensor that is written to it and read from it.
struct Bench {
    place: Place,
    stream: Stream,
    tensor: Tensor,
    pageable: Option<String>,
    file_bytes: u64,
    sample_bytes: u64,
    /// Where the next sample begins in the file.
    next: u64,
    /// What went through the page cache.
    cached_bytes: u64,
}

impl Bench {
    fn new(place: Place, device: Device) -> Result<Self, Outcome> {
        let bytes = plan::most_sample_bytes(place.most_bytes);
        let locked = PinHandle::new().new_cpu_locked_tensor(device, bytes, DType::U8);
        let (tensor, pageable) = match locked {
            Ok(tensor) => (tensor, None),
            Err(e) => {
                let pageable = ds_core::Buffer::of_kind(device, bytes, MemoryKind::Pageable)?;
                let tensor =
                    Tensor::view_of(&pageable, 0, DType::U8, &[bytes.cast_signed()], &[1])?;
                (tensor, Some(Refusal::short(&e).line()))
            }
        };
        let stream = Stream::new(device)?;
        let mut random = Random(0);
        let mut step = vec![0; 1 << 20];
        let mut at = 0;
        while at < bytes {
            let n = (bytes - at).min(step.len() as u64);
            let part = &mut step[..usize::try_from(n).unwrap_or_default()];
            random.fill(part);
            tensor.buffer().write(&stream, at, part)?;
            at += n;
        }
        stream.synchronize()?;
        Ok(Self {
            place,
            stream,
            tensor,
            pageable,
            file_bytes: 0,
            sample_bytes: bytes,
            next: 0,
            cached_bytes: 0,
        })
    }

    /// Writes the file once, so that its blocks are there, and gives bytes a second; then sees that a
    /// part of it is read as it was written.
    fn fill(&mut self, engine: EngineKind, seconds: f64) -> Result<f64, Outcome> {
        let handle = AioHandle::with_engine(&config(DEFAULT), engine)?;
        let begun = Instant::now();
        while self.file_bytes < self.place.most_bytes {
            let bytes = STEP_BYTES.min(self.place.most_bytes - self.file_bytes);
            self.write(&handle, self.file_bytes, bytes, WriteOptions::default())?;
            self.file_bytes += bytes;
            if begun.elapsed().as_secs_f64() > seconds {
                break;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        let bytes = STEP_BYTES.min(self.file_bytes);
        let options = WriteOptions {
            checksum: true,
            ..WriteOptions::default()
        };
        let options = ReadOptions {
            expect: self.write(&handle, 0, bytes, options)?,
            ..ReadOptions::default()
        };
        self.read(&handle, 0, bytes, options)?;
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        Ok(self.file_bytes as f64 / took)
    }

    fn not_a_disk(&self) -> Option<String> {
        let kind = self.place.filesystem.as_deref().unwrap_or_default();
        if let Some(kind) = ["tmpfs", "ramfs"]
            .into_iter()
            .find(|memory| *memory == kind)
        {
            return Some(format!("a {kind} is kept in memory"));
        }
        let why = "this filesystem has no direct I/O: the page cache took what was written";
        (self.cached_bytes > 0).then(|| why.to_owned())
    }

    /// Writes and reads once with a setting.
    fn sample(&mut self, trial: &mut Trial) -> Result<(), Outcome> {
        if trial.refusal.is_some() {
            return Ok(());
        }
        let Setting { engine, shape } = trial.setting;
        let handle = match AioHandle::with_engine(&config(shape), engine) {
            Ok(handle) => handle,
            Err(e) if e.kind() == ErrorKind::Io => {
                trial.refusal = Some(Refusal::short(&e));
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        let bytes = self.sample_bytes;
        if self.next + bytes > self.file_bytes {
            self.next = 0;
        }
        let start = Instant::now();
        self.write(&handle, self.next, bytes, WriteOptions::default())?;
        let written = start.elapsed();
        let start = Instant::now();
        self.read(&handle, self.next, bytes, ReadOptions::default())?;
        let read = start.elapsed();
        #[allow(
            clippy::cast_precision_loss,
            reason = "figures are read to three digits"
        )]
        let speed = |took: std::time::Duration| bytes as f64 / 1e9 / took.as_secs_f64();
        trial.writes.push(speed(written));
        trial.reads.push(speed(read));
        self.next += bytes;
        let AioStats { cached_bytes, .. } = handle.stats();
        self.cached_bytes += cached_bytes;
        Ok(())
    }

    fn write(
        &self,
        handle: &AioHandle,
        at: u64,
        bytes: u64,
        options: WriteOptions,
    ) -> Result<Option<u64>, Outcome> {
        let extents = [extent(at, bytes)];
        let (stream, tensor, file) = (&self.stream, &self.tensor, self.place.file.as_fd());
        let done = handle
            .write_extents(stream, tensor, file, &extents, &options)
            .and_then(|operation| operation.wait());
        done.map(|done| done.checksum).map_err(|e| self.failed(&e))
    }

    fn read(
        &self,
        handle: &AioHandle,
        at: u64,
        bytes: u64,
        options: ReadOptions,
    ) -> Result<(), Outcome> {
        let extents = [extent(at, bytes)];
        let (stream, tensor, file) = (&self.stream, &self.tensor, self.place.file.as_fd());
        let done = handle
            .read_extents(stream, tensor, file, &extents, &options)
            .and_then(|operation| operation.wait());
        done.map(drop).map_err(|e| self.failed(&e))
    }

    /// The file has no name, and its descriptor tells an operator nothing.
    fn failed(&self, error: &ds_core::Error) -> Outcome {
        let why = Refusal::from(error);
        let folder = self.place.folder.display();
        let hint = why
            .hint
            .map(|hint| format!("hint: {hint}\n"))
            .unwrap_or_default();
        let text = format!(
            "{BAD}error{BAD:#}: measuring {folder}: {}\n{hint}",
            why.reason
        );
        Outcome::new(FAILED, text)
    }
}

fn extent(file_offset: u64, bytes: u64) -> Extent {
    Extent {
        file_offset,
        memory_offset: 0,
        bytes,
    }
}

fn config(shape: Shape) -> AioConfig {
    AioConfig {
        block_size: shape.block_bytes,
        queue_depth: shape.depth,
        ..AioConfig::default()
    }
}

/// A setting while it is measured.
struct Trial {
    setting: Setting,
    /// GB/s.
    reads: Vec<f64>,
    writes: Vec<f64>,
    refusal: Option<Refusal>,
}

impl Trial {
    fn new(setting: Setting) -> Self {
        Self {
            setting,
            reads: Vec::new(),
            writes: Vec::new(),
            refusal: None,
        }
    }

    fn judged(&self) -> Option<Judged> {
        let [read, write] = [&self.reads, &self.writes].map(|speeds| Speed::of(speeds));
        let rounds = self.reads.iter().zip(&self.writes);
        Some(Judged {
            setting: self.setting,
            speed: read?.median_gb_per_s + write?.median_gb_per_s,
            rounds: rounds.map(|(read, write)| read + write).collect(),
        })
    }

    fn into_row(self) -> Row {
        let Setting { engine, shape } = self.setting;
        Row {
            engine: engine.name(),
            block_size: shape.block_bytes,
            queue_depth: shape.depth,
            in_flight_bytes: shape.in_flight_bytes(),
            read: Speed::of(&self.reads),
            write: Speed::of(&self.writes),
            refusal: self.refusal,
        }
    }
}

impl Speed {
    fn of(speeds: &[f64]) -> Option<Self> {
        let mut sorted = speeds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        Some(Self {
            median_gb_per_s: f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[half]),
            least_gb_per_s: least,
            most_gb_per_s: most,
        })
    }

    /// Between the fastest and the slowest round, to the middle one.
    pub(super) fn spread(self) -> f64 {
        (self.most_gb_per_s - self.least_gb_per_s) / self.median_gb_per_s
    }
}

fn recommended(trials: &[Trial], gets: EngineKind) -> Result<Recommended, Outcome> {
    let known = trials.iter().enumerate();
    let known = known.filter_map(|(at, trial)| Some((at, trial.judged()?)));
    let (places, measured): (Vec<usize>, Vec<Judged>) = known.unzip();
    let Some(best) = plan::recommend(&measured, gets) else {
        let refusals = trials.iter().filter_map(|trial| trial.refusal.as_ref());
        let why = refusals.map(Refusal::line).next().unwrap_or_default();
        return Err(Outcome::failed(&format!(
            "nothing could be measured: {why}"
        )));
    };
    let (at, Judged { setting, speed, .. }) = (places[best], &measured[best]);
    let usual = Setting {
        engine: gets,
        shape: DEFAULT,
    };
    let usual = measured.iter().find(|judged| judged.setting == usual);
    Ok(Recommended {
        setting: at,
        of_default: usual.map(|usual| speed / usual.speed),
        variable: (setting.engine != gets).then(|| format!("DS_IO_ENGINE={}", setting.engine)),
        aio: config(setting.shape),
    })
}

/// Bytes that no disk compresses or has already: `SplitMix64`.
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            word.copy_from_slice(&z.to_le_bytes()[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_spread_of_rounds() {
        let speed = Speed::of(&[2.0, 1.0, 4.0]).unwrap();
        assert_eq!((speed.median_gb_per_s, speed.spread()), (2.0, 1.5));
        assert_eq!(Speed::of(&[1.0, 2.0]).unwrap().median_gb_per_s, 1.5);
        assert!(Speed::of(&[]).is_none());
    }

    #[test]
    fn no_two_pages_are_alike() {
        let mut bytes = vec![0; 8192 + 3];
        Random(0).fill(&mut bytes);
        assert_ne!(bytes[..4096], bytes[4096..8192]);
        // The first number of SplitMix64 from 0, as its author publishes it.
        assert_eq!(bytes[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }
}
