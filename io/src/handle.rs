//! The handle: DeepSpeed's `aio_handle`.

use std::{
    mem::ManuallyDrop,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use ds_core::{DType, Error, ErrorKind, Point, Result, Stream, Tensor};

use crate::{
    config::AioConfig,
    ending::{Done, Ending, Tally},
    engine::{EngineKind, Seam},
    failure::Failure,
    file::{Failed, OpenFile, Target},
    job::{Direction, Extent, Extras, Job},
    lane::Lane,
    memory::Memory,
    pin::PinHandle,
    stats::{AioStats, Counters},
    waiter::Waiter,
};

/// Reads and writes tensors, many at a time; upstream's `aio_handle`.
///
/// Every operation takes the tensor's stream, as ops do: it begins after the work queued there so
/// far, without anybody waiting for that. What follows it waits for its [`Operation::point`]. Between
/// two operations there is no order but that of points.
///
/// Until an operation has ended, nobody else writes its tensor or the range of the file, nor, for a
/// read, reads them. The tensor may be dropped; its memory stays, and if nobody else has it, goes with
/// the next wait: freeing memory of no pool waits for the device, which a lane must not.
///
/// Dropping the handle waits for its operations. A child of `fork` must not use it.
///
/// # Upstream
/// `csrc/aio/py_lib/py_ds_aio.cpp`. Getters go without `get_`. Where upstream returns -1, aborts or
/// says nothing, there is an error; sizes need not be divisible by anything; a tensor of any device
/// may be read and written.
pub struct AioHandle {
    // Before the lanes: what waits is passed on to them first.
    waiter: Mutex<Option<Waiter>>,
    lanes: Arc<Lanes>,
    config: AioConfig,
    engine: EngineKind,
    tally: Arc<Tally>,
    counters: Arc<Counters>,
    pins: PinHandle,
}

struct Lanes {
    all: Vec<Lane>,
    /// Which one has the next operation that one block is enough for.
    next: AtomicUsize,
    block_bytes: u64,
    tally: Arc<Tally>,
}

/// How a file is read, beside where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Tell the checksum of what was read: [`Done::checksum`].
    pub checksum: bool,
    /// Fail unless CRC-64/NVME of what was read is this.
    pub expect: Option<u64>,
    /// Read it again through the page cache and fail unless it is the same; upstream's `validate`.
    pub validate: bool,
}

/// How a file is written, beside where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent wishes")]
pub struct WriteOptions {
    /// Tell the checksum of what was written: [`Done::checksum`].
    pub checksum: bool,
    /// Read it through the page cache and fail unless it is the same; upstream's `validate`.
    pub validate: bool,
    /// The operation has ended when the data is on the disk.
    pub fsync: bool,
    /// Write a new file beside the one of that path, and put it in its place when all of it is on the
    /// disk: whoever opens the path finds the old file or the new one, also after a crash. Only what
    /// is written is in the new file. A crash may leave a `.ds-io-*.partial` behind.
    pub replace: bool,
}

/// An operation that was begun. Dropping it changes nothing.
#[derive(Clone)]
#[must_use = "its failure is told by `wait`, of this or of the handle"]
pub struct Operation(Arc<Ending>);

impl Operation {
    /// Waits until it has ended.
    ///
    /// # Errors
    /// Its failure, with path and offset.
    pub fn wait(&self) -> Result<Done> {
        self.0.wait().map_err(|failure| failure.error())
    }

    /// Whether it has ended, well or not.
    pub fn is_done(&self) -> bool {
        self.0.outcome().is_some()
    }

    /// A point on the tensor's device that is reached when it has ended, and fails if it does:
    /// `stream.wait(&operation.point()?)`.
    ///
    /// # Errors
    /// When the device has no more events.
    pub fn point(&self) -> Result<Point> {
        self.0.point()
    }
}

impl AioHandle {
    /// A handle on the best engine that the kernel allows, or the one that `DS_IO_ENGINE` names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a configuration that makes no sense,
    /// [`ErrorKind::Unsupported`] for `use_gds`, [`ErrorKind::Io`] when the kernel has no more.
    pub fn new(config: &AioConfig) -> Result<Self> {
        if let Some(named) = named_engine()? {
            return Self::with_engine(config, named);
        }
        Self::best(config, &Seam::default())
    }

    /// A handle on the engine of that kind.
    ///
    /// # Errors
    /// As [`AioHandle::new`], and when the kernel does not allow it.
    pub fn with_engine(config: &AioConfig, engine: EngineKind) -> Result<Self> {
        Self::through(config, engine, &Seam::default())
    }

    pub(crate) fn best(config: &AioConfig, seam: &Seam) -> Result<Self> {
        let mut refused = None;
        for kind in EngineKind::ALL {
            match Self::through(config, kind, seam) {
                Err(e) if e.kind() == ErrorKind::Io => {
                    log::debug!("{e}");
                    refused = Some(e);
                }
                made => return made,
            }
        }
        Err(refused
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, MAKE, "there are no engines")))
    }

    pub(crate) fn through(config: &AioConfig, engine: EngineKind, seam: &Seam) -> Result<Self> {
        config.check()?;
        if config.use_gds {
            return Err(crate::gds::refused_by_config(MAKE));
        }
        let counters = Arc::new(Counters::default());
        let lane = |_| Lane::start(config, engine, seam.clone(), &counters);
        let lanes: Result<Vec<_>, _> = (0..config.intra_op_parallelism).map(lane).collect();
        let lanes = lanes.map_err(|e| {
            let text = format!("the kernel does not allow the engine {engine}");
            Error::new(ErrorKind::Io, MAKE, text)
                .with_source(e)
                .with_hint("`ds_report io` tells which engines it allows, and why not the others")
        })?;
        let tally = Arc::new(Tally::new());
        Ok(Self {
            waiter: Mutex::default(),
            lanes: Arc::new(Lanes {
                all: lanes,
                next: AtomicUsize::new(0),
                block_bytes: config.block_size,
                tally: Arc::clone(&tally),
            }),
            config: config.clone(),
            engine,
            tally,
            counters,
            pins: PinHandle::new(),
        })
    }

    /// The engine behind it.
    pub fn engine(&self) -> EngineKind {
        self.engine
    }

    /// How much one request moves at most, in bytes.
    #[doc(alias = "get_block_size")]
    pub fn block_size(&self) -> u64 {
        self.config.block_size
    }

    /// How many requests each lane has with the kernel at most.
    #[doc(alias = "get_queue_depth")]
    pub fn queue_depth(&self) -> u32 {
        self.config.queue_depth
    }

    /// Whether requests are handed to the kernel one by one.
    #[doc(alias = "get_single_submit")]
    pub fn single_submit(&self) -> bool {
        self.config.single_submit
    }

    /// Whether more is asked for as soon as something has completed.
    #[doc(alias = "get_overlap_events")]
    pub fn overlap_events(&self) -> bool {
        self.config.overlap_events
    }

    /// How many lanes share an operation.
    #[doc(alias = "get_intra_op_parallelism")]
    pub fn intra_op_parallelism(&self) -> u32 {
        self.config.intra_op_parallelism
    }

    /// Of how many bytes sizes must be multiples: 1. Upstream pads to 512 times the parallelism.
    #[doc(alias = "get_alignment")]
    pub fn alignment(&self) -> u64 {
        1
    }

    /// What it has done so far.
    pub fn stats(&self) -> AioStats {
        self.counters.read()
    }

    /// Begins to read `extents` of a file into `tensor`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for ranges that the tensor or the file does not have,
    /// [`ErrorKind::Io`] when the file cannot be opened. What happens later is told by
    /// [`Operation::wait`].
    pub fn read_extents<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        extents: &[Extent],
        options: &ReadOptions,
    ) -> Result<Operation> {
        let direction = Direction::Read;
        let memory = self.memory(direction, stream, tensor, extents)?;
        let target = target.into();
        let file = OpenFile::to_read(target).map_err(|e| not_opened(direction, target, e))?;
        let failed = |e| not_opened(direction, target, e);
        if let Some(size) = file.size().map_err(failed)?
            && let Some(last) = extents
                .iter()
                .max_by_key(|extent| extent.file_offset + extent.bytes)
            && last.file_offset + last.bytes > size
        {
            let text = format!(
                "{} has {size} bytes, and {} bytes at {} were asked for",
                file.name().display(),
                last.bytes,
                last.file_offset,
            );
            return Err(Error::new(ErrorKind::InvalidArgument, direction.op(), text));
        }
        let extras = Extras {
            checksum: options.checksum,
            expect: options.expect,
            validate: options.validate,
            sync: false,
        };
        self.begin(stream, direction, file, memory, extents, extras)
    }

    /// Begins to write `extents` of `tensor` to a file, which is made if it is missing. Room for all
    /// of it is reserved before the first byte. A write that fails leaves some of its range written,
    /// unless [`WriteOptions::replace`] is set.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for ranges that the tensor does not have, [`ErrorKind::Io`]
    /// when the file cannot be opened or there is no room for it. What happens later is told by
    /// [`Operation::wait`].
    pub fn write_extents<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        extents: &[Extent],
        options: &WriteOptions,
    ) -> Result<Operation> {
        let direction = Direction::Write;
        let memory = self.memory(direction, stream, tensor, extents)?;
        let target = target.into();
        let failed = |e| not_opened(direction, target, e);
        let file = match target {
            Target::Path(path) if options.replace => OpenFile::to_replace(path),
            Target::Descriptor(_) if options.replace => {
                let text = "an open descriptor cannot be replaced, only a path";
                return Err(Error::new(ErrorKind::InvalidArgument, direction.op(), text));
            }
            target => OpenFile::to_write(target),
        }
        .map_err(failed)?;
        let ranges = extents.iter().filter(|extent| extent.bytes > 0);
        let first = ranges.clone().map(|extent| extent.file_offset).min();
        let end = ranges.map(|extent| extent.file_offset + extent.bytes).max();
        if let (Some(first), Some(end)) = (first, end) {
            file.reserve(first, end).map_err(failed)?;
        }
        let extras = Extras {
            checksum: options.checksum,
            expect: None,
            validate: options.validate,
            // What takes another's place must be there after a crash.
            sync: options.fsync || options.replace,
        };
        self.begin(stream, direction, file, memory, extents, extras)
    }

    /// Begins to read all of `tensor` from `file_offset` on.
    ///
    /// # Errors
    /// As [`AioHandle::read_extents`].
    pub fn async_pread<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        file_offset: u64,
    ) -> Result<Operation> {
        self.pread(stream, tensor, target, false, true, file_offset)
    }

    /// Begins to write all of `tensor` from `file_offset` on.
    ///
    /// # Errors
    /// As [`AioHandle::write_extents`].
    pub fn async_pwrite<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        file_offset: u64,
    ) -> Result<Operation> {
        self.pwrite(stream, tensor, target, false, true, file_offset)
    }

    /// Reads all of `tensor` from `file_offset` on. Unlike upstream's it waits for this operation
    /// only.
    ///
    /// # Errors
    /// As [`AioHandle::read_extents`], and those of the operation.
    pub fn sync_pread<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        file_offset: u64,
    ) -> Result<Done> {
        self.read(stream, tensor, target, false, file_offset)
    }

    /// Writes all of `tensor` from `file_offset` on. Unlike upstream's it waits for this operation
    /// only.
    ///
    /// # Errors
    /// As [`AioHandle::write_extents`], and those of the operation.
    pub fn sync_pwrite<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        file_offset: u64,
    ) -> Result<Done> {
        self.write(stream, tensor, target, false, file_offset)
    }

    /// As [`AioHandle::async_pread`]; with `validate` what was read is held against the file, and
    /// unless `asynchronous` the operation has ended when this returns.
    ///
    /// # Errors
    /// As [`AioHandle::read_extents`], and those of the operation unless it is asynchronous.
    pub fn pread<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        validate: bool,
        asynchronous: bool,
        file_offset: u64,
    ) -> Result<Operation> {
        let options = ReadOptions {
            validate,
            ..ReadOptions::default()
        };
        let extents = [all(tensor, file_offset)];
        let operation = self.read_extents(stream, tensor, target, &extents, &options)?;
        if !asynchronous {
            operation.wait()?;
        }
        Ok(operation)
    }

    /// As [`AioHandle::async_pwrite`]; with `validate` the file is held against what was written, and
    /// unless `asynchronous` the operation has ended when this returns.
    ///
    /// # Errors
    /// As [`AioHandle::write_extents`], and those of the operation unless it is asynchronous.
    pub fn pwrite<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        validate: bool,
        asynchronous: bool,
        file_offset: u64,
    ) -> Result<Operation> {
        let options = WriteOptions {
            validate,
            ..WriteOptions::default()
        };
        let extents = [all(tensor, file_offset)];
        let operation = self.write_extents(stream, tensor, target, &extents, &options)?;
        if !asynchronous {
            operation.wait()?;
        }
        Ok(operation)
    }

    /// [`AioHandle::pread`], waited for. Upstream's is not parallel, this one is.
    ///
    /// # Errors
    /// As there.
    pub fn read<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        validate: bool,
        file_offset: u64,
    ) -> Result<Done> {
        (self.pread(stream, tensor, target, validate, true, file_offset)?).wait()
    }

    /// [`AioHandle::pwrite`], waited for. Upstream's is not parallel, this one is.
    ///
    /// # Errors
    /// As there.
    pub fn write<'a>(
        &self,
        stream: &Stream,
        tensor: &Tensor,
        target: impl Into<Target<'a>>,
        validate: bool,
        file_offset: u64,
    ) -> Result<Done> {
        (self.pwrite(stream, tensor, target, validate, true, file_offset)?).wait()
    }

    /// Waits until every operation begun so far has ended, and gives how many ended well since the
    /// last time.
    ///
    /// # Errors
    /// The first failure since the last time, also one that its [`Operation`] has told; all of them
    /// have ended nevertheless.
    pub fn wait(&self) -> Result<usize> {
        self.check_process("wait for file operations")?;
        self.tally.wait().map_err(|failure| failure.error())
    }

    /// A tensor in locked host memory: [`PinHandle::new_cpu_locked_tensor`].
    ///
    /// # Errors
    /// As there.
    pub fn new_cpu_locked_tensor(
        &self,
        device: ds_core::Device,
        elements: u64,
        dtype: DType,
    ) -> Result<Tensor> {
        self.pins.new_cpu_locked_tensor(device, elements, dtype)
    }

    /// Lets go of a locked tensor: [`PinHandle::free_cpu_locked_tensor`].
    pub fn free_cpu_locked_tensor(&self, tensor: Tensor) -> bool {
        self.pins.free_cpu_locked_tensor(tensor)
    }

    /// Whether all of a tensor lies in locked memory: [`PinHandle::is_pinned`].
    pub fn is_pinned(&self, tensor: &Tensor) -> bool {
        self.pins.is_pinned(tensor)
    }

    fn memory(
        &self,
        direction: Direction,
        stream: &Stream,
        tensor: &Tensor,
        extents: &[Extent],
    ) -> Result<Memory> {
        let op = direction.op();
        self.check_process(op)?;
        let memory = Memory::of(op, tensor)?;
        if stream.device() != memory.device() {
            let text = format!(
                "the tensor is on {}, the stream on {}",
                memory.device(),
                stream.device()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, op, text));
        }
        for extent in extents {
            let end = extent.memory_offset.checked_add(extent.bytes);
            if end.is_none_or(|end| end > memory.bytes()) {
                let text = format!(
                    "{} bytes at {} exceed the tensor's {} bytes",
                    extent.bytes,
                    extent.memory_offset,
                    memory.bytes()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, op, text));
            }
            // The kernel counts in signed 64 bits.
            let end = extent.file_offset.checked_add(extent.bytes);
            if end.is_none_or(|end| i64::try_from(end).is_err()) {
                let text = format!(
                    "{} bytes at {} of a file end behind 2^63",
                    extent.bytes, extent.file_offset
                );
                return Err(Error::new(ErrorKind::InvalidArgument, op, text));
            }
        }
        Ok(memory)
    }

    fn begin(
        &self,
        stream: &Stream,
        direction: Direction,
        file: OpenFile,
        memory: Memory,
        extents: &[Extent],
        extras: Extras,
    ) -> Result<Operation> {
        // Whose work has failed is not idle: the point tells the failure.
        let after = match stream.is_idle() {
            Ok(true) => None,
            _ => Some(stream.record()?),
        };
        let extents = extents.to_vec();
        let job = Job::new(direction, file, memory, extents, extras, &self.tally);
        self.tally.left().clear_if_much();
        let operation = Operation(Arc::clone(&job.ending));
        let job = Arc::new(job);
        match after {
            None => self.lanes.push(job),
            Some(point) => self.push_after(point, job),
        }
        Ok(operation)
    }

    fn push_after(&self, point: Point, job: Arc<Job>) {
        let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        if waiter.is_none() {
            let lanes = Arc::clone(&self.lanes);
            match Waiter::start(move |job| lanes.push(job)) {
                Ok(started) => *waiter = Some(started),
                Err(e) => {
                    let what = "start a thread that waits for a point";
                    job.cancel(Failure::of_kernel(job.direction.op(), what, &e));
                    return;
                }
            }
        }
        if let Some(waiter) = &*waiter {
            waiter.push(point, job);
        }
    }

    fn check_process(&self, op: &'static str) -> Result<()> {
        self.tally
            .check_process(op)
            .map_err(|failure| failure.error())
    }
}

const MAKE: &str = "make an aio handle";

impl Lanes {
    fn push(&self, job: Arc<Job>) {
        // What is one request is one lane's; the others need not wake for it.
        if job.requests(self.block_bytes) <= 1 {
            let lane = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len();
            self.all[lane].push(job);
            return;
        }
        for lane in &self.all {
            lane.push(Arc::clone(&job));
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // The last jobs leave their memory.
        self.all.clear();
        self.tally.left().clear();
    }
}

impl Drop for AioHandle {
    fn drop(&mut self) {
        if self.check_process("drop an aio handle").is_err() {
            // The threads are the parent's: to wait for them would be for ever.
            let _ = ManuallyDrop::new(self.waiter.get_mut().ok().and_then(Option::take));
            let _ = ManuallyDrop::new(Arc::clone(&self.lanes));
        }
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Operation({:?})", self.0.outcome())
    }
}

impl std::fmt::Debug for AioHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AioHandle({} {:?})", self.engine, self.config)
    }
}

/// The engine that `DS_IO_ENGINE` names.
fn named_engine() -> Result<Option<EngineKind>> {
    let parsed = EngineKind::named().map(|named| named.parse()).transpose();
    parsed.map_err(|why: String| {
        let text = format!("{}: {why}", EngineKind::VARIABLE);
        Error::new(ErrorKind::InvalidArgument, MAKE, text)
    })
}

fn all(tensor: &Tensor, file_offset: u64) -> Extent {
    Extent {
        file_offset,
        memory_offset: 0,
        bytes: tensor.bytes(),
    }
}

fn not_opened(direction: Direction, target: Target<'_>, (what, error): Failed) -> Error {
    let name = match target {
        Target::Path(path) => path.display().to_string(),
        Target::Descriptor(descriptor) => format!("{descriptor:?}"),
    };
    let what = format!("{name}: cannot {what}");
    Failure::of_kernel(direction.op(), &what, &error).error()
}

/// Reads all of a file into `tensor`, which is as long; upstream's `aio_read`.
///
/// # Errors
/// As [`AioHandle::new`] and [`AioHandle::sync_pread`].
pub fn aio_read(
    stream: &Stream,
    tensor: &Tensor,
    path: &Path,
    config: &AioConfig,
    validate: bool,
) -> Result<Done> {
    AioHandle::new(config)?.read(stream, tensor, path, validate, 0)
}

/// Writes all of `tensor` to a file; upstream's `aio_write`.
///
/// # Errors
/// As [`AioHandle::new`] and [`AioHandle::sync_pwrite`].
pub fn aio_write(
    stream: &Stream,
    tensor: &Tensor,
    path: &Path,
    config: &AioConfig,
    validate: bool,
) -> Result<Done> {
    AioHandle::new(config)?.write(stream, tensor, path, validate, 0)
}
