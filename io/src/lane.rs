//! A lane: a thread with an engine, which moves pieces of jobs and sees every completion.

use std::{
    collections::VecDeque,
    io, mem,
    os::fd::RawFd,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use ds_core::{Device, Error};
use rustix::io::Errno;

use crate::{
    bell::Bell,
    checksum,
    config::AioConfig,
    engine::{self, Action, Completion, Engine, EngineKind, Request, Seam},
    failure::Failure,
    job::{After, Direction, Job, Piece},
    memory::Staging,
    stats::Counters,
};

/// From this many requests on, a file is worth registering with the engine.
const REQUESTS_TO_REGISTER: u64 = 32;
/// How many requests are handed over together at most: the disk has work while more are made. Blocks
/// of 4 KiB are read a tenth faster so than all of a queue's together.
const TOGETHER: u32 = 8;
/// Smaller blocks are over so soon that the disk would run short of work.
const WORTH_GATHERING_BYTES: u64 = 128 << 10;
/// How often a request is made that the kernel says to make again.
const MOST_TRIES: u32 = 1000;

/// The other threads' side of a lane.
pub(crate) struct Lane {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

struct Inbox {
    state: Mutex<InboxState>,
    /// Whether the lane will look at its inbox only when the bell rings.
    asleep: AtomicBool,
    bell: Bell,
}

#[derive(Default)]
struct InboxState {
    jobs: VecDeque<Arc<Job>>,
    closed: bool,
}

impl Lane {
    /// Starts a lane; returns when its engine is there.
    pub(crate) fn start(
        config: &AioConfig,
        kind: EngineKind,
        seam: Seam,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let inbox = Arc::new(Inbox {
            state: Mutex::default(),
            asleep: AtomicBool::new(false),
            bell: Bell::new()?,
        });
        let (tell, told) = mpsc::sync_channel(1);
        let (own, counters, config) = (Arc::clone(&inbox), Arc::clone(counters), config.clone());
        let builder = thread::Builder::new().name("ds-io-lane".to_owned());
        let thread = builder.spawn(move || {
            // An engine belongs to the thread that made it.
            match engine::open(kind, config.queue_depth, &own.bell, seam) {
                Ok(engine) => {
                    let mut runner = Runner::new(engine, own, config, counters);
                    let _ = tell.send(Ok(()));
                    runner.run();
                }
                Err(e) => _ = tell.send(Err(e)),
            }
        })?;
        let lane = Self {
            inbox,
            thread: Some(thread),
        };
        let died = || io::Error::other("the thread ended before its engine was there");
        told.recv().map_err(|_| died())?.map(|()| lane)
    }

    /// Gives it a job, behind those that it has.
    pub(crate) fn push(&self, job: Arc<Job>) {
        self.inbox.lock().jobs.push_back(job);
        self.inbox.wake();
    }

    /// Lets it end when it has done what it was given.
    pub(crate) fn close(&self) {
        self.inbox.lock().closed = true;
        self.inbox.wake();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a thread for file I/O panicked");
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
    }
}

/// What the lane's thread has.
struct Runner {
    /// First, so that it is dropped first: the kernel lets go of the memory of all the others.
    engine: Box<dyn Engine>,
    inbox: Arc<Inbox>,
    config: AioConfig,
    counters: Arc<Counters>,
    /// Jobs that may have pieces left, in their order.
    waiting: VecDeque<Arc<Job>>,
    /// A piece that waits for a place in the staging memory.
    held: Option<(Arc<Job>, Piece)>,
    /// By the requests' ids.
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// Requests that the engine has and the kernel may not.
    queued: u32,
    /// By their devices, which are few.
    stagings: Vec<Staging>,
    files: Vec<RegisteredFile>,
    completions: Vec<Completion>,
    /// What made the engine unusable.
    broken: Option<Failure>,
}

/// A request with the kernel, or a job's wish to have its data on the disk.
struct Flight {
    job: Arc<Job>,
    work: Work,
    tries: u32,
    /// Whether its request in flight names the file by the engine's slot.
    by_slot: bool,
}

enum Work {
    Move {
        piece: Piece,
        /// How much of it was moved by requests before this one.
        moved: u32,
        direct: bool,
        /// Which staging memory, and which place in it.
        staged: Option<(usize, u16)>,
        /// The sum of what is written.
        sum: Option<u64>,
    },
    Sync,
}

struct RegisteredFile {
    job: Arc<Job>,
    slot: u32,
    in_flight: usize,
}

impl Runner {
    fn new(
        engine: Box<dyn Engine>,
        inbox: Arc<Inbox>,
        config: AioConfig,
        counters: Arc<Counters>,
    ) -> Self {
        let depth = config.queue_depth;
        Self {
            engine,
            inbox,
            counters,
            waiting: VecDeque::new(),
            held: None,
            flights: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            queued: 0,
            stagings: Vec::new(),
            files: Vec::new(),
            completions: Vec::with_capacity(depth as usize),
            broken: None,
            config,
        }
    }

    fn run(&mut self) {
        loop {
            let closed = self.collect();
            if self.config.overlap_events || self.in_flight() == 0 {
                self.refill();
            }
            if self.in_flight() == 0 && self.waiting.is_empty() && self.held.is_none() && closed {
                return;
            }
            self.turn();
            self.complete();
        }
    }

    fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Takes over what the inbox has; gives whether nothing will come any more.
    fn collect(&mut self) -> bool {
        let mut inbox = self.inbox.lock();
        self.waiting.append(&mut inbox.jobs);
        inbox.closed
    }

    /// Makes requests until the queue is full or nothing is left.
    fn refill(&mut self) {
        while let Some((job, piece)) = self.held.take().or_else(|| self.next_piece()) {
            if self.free.is_empty() || !self.start(&job, piece) {
                self.held = Some((job, piece));
                return;
            }
        }
    }

    /// The next piece of the first job that has one; none when the queue is full.
    fn next_piece(&mut self) -> Option<(Arc<Job>, Piece)> {
        while !self.free.is_empty() {
            let job = Arc::clone(self.waiting.front()?);
            if let Some(piece) = job.take(self.config.block_size) {
                return Some((job, piece));
            }
            self.waiting.pop_front();
            let after = job.exhaust();
            self.follow(&job, after);
            self.forget_files();
        }
        None
    }

    /// Makes the first request for a piece; gives whether there was a place for it.
    fn start(&mut self, job: &Arc<Job>, piece: Piece) -> bool {
        if let Some(failure) = &self.broken {
            let after = job.give(&piece, Err(job.befallen(failure)));
            self.follow(job, after);
            return true;
        }
        let direct = job.file.direct().filter(|_| piece.direct);
        let host = job.memory.host(piece.memory_offset);
        let fits = match (host, direct) {
            (Some(address), Some((_, alignment))) => address.addr() % alignment == 0,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let staged = if fits {
            None
        } else {
            match self.stage(job.memory.device()) {
                Ok(Some(place)) => Some(place),
                Ok(None) => return false,
                Err(e) => {
                    let after = job.give(&piece, Err(lost(job, piece, &e)));
                    self.follow(job, after);
                    return true;
                }
            }
        };
        let sum = match self.prepare(job, piece, staged) {
            Ok(sum) => sum,
            Err(e) => {
                self.unstage(staged);
                let after = job.give(&piece, Err(lost(job, piece, &e)));
                self.follow(job, after);
                return true;
            }
        };
        self.counters.moves(
            job.direction,
            piece.bytes,
            direct.is_some(),
            staged.is_some(),
        );
        self.request(Flight {
            job: Arc::clone(job),
            work: Work::Move {
                piece,
                moved: 0,
                direct: direct.is_some(),
                staged,
                sum,
            },
            tries: 0,
            by_slot: false,
        });
        true
    }

    /// What is done before a piece is written: it is staged, and summed.
    fn prepare(
        &mut self,
        job: &Job,
        piece: Piece,
        staged: Option<(usize, u16)>,
    ) -> Result<Option<u64>, Error> {
        if job.direction == Direction::Read {
            return Ok(None);
        }
        if let Some((staging, slot)) = staged {
            let length = piece.bytes as usize;
            self.stagings[staging].fill(slot, &job.memory, piece.memory_offset, length)?;
        }
        Ok(self.sum(job, piece, staged))
    }

    /// The sum of a piece's bytes where they are, if the job wants it.
    fn sum(&mut self, job: &Job, piece: Piece, staged: Option<(usize, u16)>) -> Option<u64> {
        if !job.sums() {
            return None;
        }
        let length = piece.bytes as usize;
        if let Some((staging, slot)) = staged {
            let bytes = self.stagings[staging].slot(slot, length);
            return Some(checksum::crc64_nvme(bytes));
        }
        let address = job.memory.host(piece.memory_offset)?;
        // SAFETY: the piece lies within the job's memory, which the host reaches; no request for it
        // is in flight, and the operation's caller lets nobody write it.
        let bytes = unsafe { slice::from_raw_parts(address, length) };
        Some(checksum::crc64_nvme(bytes))
    }

    /// A place to stage a piece of a tensor of `device` in; none when all are taken.
    fn stage(&mut self, device: Device) -> Result<Option<(usize, u16)>, Error> {
        let of_device = |staging: &Staging| staging.device() == device;
        let known = self.stagings.iter().position(of_device);
        let index = match known {
            Some(index) => index,
            None => self.new_staging(device)?,
        };
        let slot = self.stagings[index].take();
        Ok(slot.map(|slot| (index, slot)))
    }

    fn new_staging(&mut self, device: Device) -> Result<usize, Error> {
        let config = &self.config;
        let mut made = Staging::new(device, config.block_size, config.queue_depth)?;
        // An engine registers memory once.
        if self.stagings.is_empty() {
            made.register(&mut *self.engine);
        }
        self.counters.staging(made.bytes(), made.is_pinned());
        self.stagings.push(made);
        Ok(self.stagings.len() - 1)
    }

    fn unstage(&mut self, staged: Option<(usize, u16)>) {
        if let Some((staging, slot)) = staged {
            self.stagings[staging].give(slot);
        }
    }

    /// Hands a flight's next request to the engine.
    fn request(&mut self, mut flight: Flight) {
        if let Some(failure) = &self.broken {
            let failure = flight.job.befallen(failure);
            self.end(flight, Err(failure));
            return;
        }
        let Some(id) = self.free.pop() else {
            // Both callers have seen that there is one.
            return;
        };
        match self.describe(id, &flight) {
            Ok(request) => {
                flight.by_slot = request.file_slot.is_some();
                self.flights[id as usize] = Some(flight);
                // SAFETY: the memory is the job's or staging's, which the flight holds until the
                // completion has come; this thread and the kernel alone use it meanwhile, by the
                // operation's contract.
                unsafe { self.engine.queue(request) };
                self.queued += 1;
                if self.config.single_submit || self.queued == TOGETHER {
                    self.hand_over(0);
                }
            }
            Err(failure) => {
                self.free.push(id);
                self.end(flight, Err(failure));
            }
        }
    }

    fn describe(&mut self, id: u32, flight: &Flight) -> Result<Request, Failure> {
        let job = &flight.job;
        match flight.work {
            Work::Sync => Ok(Request {
                id,
                action: Action::Sync,
                file: descriptor(job, true)?,
                file_slot: None,
                address: std::ptr::null_mut(),
                bytes: 0,
                offset: 0,
                memory_slot: None,
            }),
            Work::Move {
                piece,
                moved,
                direct,
                staged,
                ..
            } => {
                let file = descriptor(job, direct)?;
                let address = match staged {
                    Some((staging, slot)) => self.stagings[staging].address(slot),
                    None => (job.memory.host(piece.memory_offset)).unwrap_or(std::ptr::null_mut()),
                };
                Ok(Request {
                    id,
                    action: match job.direction {
                        Direction::Read => Action::Read,
                        Direction::Write => Action::Write,
                    },
                    file,
                    file_slot: direct.then(|| self.registered(job, file)).flatten(),
                    address: address.wrapping_add(moved as usize),
                    bytes: piece.bytes - moved,
                    offset: piece.file_offset + u64::from(moved),
                    memory_slot: staged
                        .and_then(|(staging, slot)| self.stagings[staging].registered(slot)),
                })
            }
        }
    }

    /// The engine's slot for a job's file, if it is worth one.
    fn registered(&mut self, job: &Arc<Job>, file: RawFd) -> Option<u32> {
        let known = self
            .files
            .iter_mut()
            .find(|known| Arc::ptr_eq(&known.job, job));
        if let Some(known) = known {
            known.in_flight += 1;
            return Some(known.slot);
        }
        if job.requests(self.config.block_size) < REQUESTS_TO_REGISTER {
            return None;
        }
        let slot = self.engine.register_file(file)?;
        self.files.push(RegisteredFile {
            job: Arc::clone(job),
            slot,
            in_flight: 1,
        });
        Some(slot)
    }

    /// Gives up the registered files of jobs that have no more pieces here: they would stay open.
    fn forget_files(&mut self) {
        let Self {
            files,
            waiting,
            held,
            engine,
            ..
        } = self;
        files.retain(|file| {
            // Jobs are cut up in their order, so only the first can have pieces here and others left.
            let first = waiting.front().or(held.as_ref().map(|(job, _)| job));
            let needed = file.in_flight > 0 || first.is_some_and(|job| Arc::ptr_eq(job, &file.job));
            if !needed {
                engine.unregister_file(file.slot);
            }
            needed
        });
    }

    /// Waits for something to do, unless something is.
    fn turn(&mut self) {
        self.inbox.asleep.store(true, Ordering::SeqCst);
        let inbox = self.inbox.lock();
        let news = !inbox.jobs.is_empty() || (inbox.closed && self.in_flight() == 0);
        drop(inbox);
        match &self.broken {
            None if news => self.hand_over(0),
            None => self.hand_over(self.worth_waking()),
            Some(_) if news => {}
            Some(_) => self.inbox.bell.wait(),
        }
        self.inbox.asleep.store(false, Ordering::SeqCst);
    }

    /// How many completions are worth waking for. While one operation fills the queue nothing new can
    /// begin, and an eighth of it may come back before the disk runs short of work: whoever computes
    /// on this processor is disturbed less often.
    fn worth_waking(&self) -> usize {
        if !self.free.is_empty() || self.config.block_size < WORTH_GATHERING_BYTES {
            return 1;
        }
        let mut jobs = (self.flights.iter().flatten()).map(|flight| Arc::as_ptr(&flight.job));
        let first = jobs.next();
        if jobs.all(|job| Some(job) == first) {
            (self.flights.len() / 8).max(1)
        } else {
            1
        }
    }

    fn hand_over(&mut self, wait_for: usize) {
        self.queued = 0;
        if let Err(e) = self.engine.turn(wait_for, &mut self.completions) {
            self.give_up(&e);
        }
    }

    /// What is with the kernel when the engine breaks may be written for ever, so its memory stays.
    fn give_up(&mut self, error: &io::Error) {
        let what = "the kernel's interface for file I/O stopped working";
        let failure = Failure::of_kernel("move files", what, error);
        log::error!("{}", failure.error());
        self.broken = Some(failure.clone());
        self.completions.clear();
        let ids = 0..u32::try_from(self.flights.len()).unwrap_or(u32::MAX);
        for id in ids {
            if let Some(flight) = self.flights[id as usize].take() {
                #[allow(clippy::mem_forget, reason = "the kernel may write it at any time")]
                mem::forget(Arc::clone(&flight.job));
                self.free.push(id);
                let failure = flight.job.befallen(&failure);
                self.end(flight, Err(failure));
            }
        }
        #[allow(clippy::mem_forget, reason = "the kernel may write it at any time")]
        mem::forget(mem::take(&mut self.stagings));
    }

    fn complete(&mut self) {
        let mut completions = mem::take(&mut self.completions);
        for Completion { id, result } in completions.drain(..) {
            let Some(flight) = self.flights[id as usize].take() else {
                continue;
            };
            self.free.push(id);
            self.landed(flight, result);
        }
        // What came in meanwhile, by single submissions, is seen next time.
        completions.append(&mut self.completions);
        self.completions = completions;
    }

    fn landed(&mut self, mut flight: Flight, result: Result<u32, Errno>) {
        let job = Arc::clone(&flight.job);
        if let Some(file) = self
            .files
            .iter_mut()
            .find(|file| Arc::ptr_eq(&file.job, &job))
        {
            file.in_flight = (file.in_flight).saturating_sub(usize::from(flight.by_slot));
        }
        let again = matches!(result, Err(Errno::AGAIN | Errno::INTR));
        if again && flight.tries < MOST_TRIES {
            flight.tries += 1;
            self.request(flight);
            return;
        }
        let Work::Move {
            piece,
            ref mut moved,
            ref mut direct,
            ..
        } = flight.work
        else {
            let synced = match result {
                // The engine cannot: Linux AIO before 4.18.
                Err(Errno::INVAL) => job.file.sync(),
                told => told.map(|_| ()),
            };
            let what = format!("bring {} to the disk", job.file.name().display());
            let refused = |e: Errno| Failure::of_kernel(job.direction.op(), &what, &e.into());
            self.end(flight, synced.map_err(refused));
            return;
        };
        let (bytes, offset) = (piece.bytes - *moved, piece.file_offset + u64::from(*moved));
        match result {
            // The disk wants another alignment than it told; the page cache wants none.
            Err(Errno::INVAL) if *direct => {
                *direct = false;
                self.counters.refused_direct(bytes);
                self.request(flight);
            }
            Err(e) => self.end(flight, Err(job.refused(bytes, offset, &e.into()))),
            Ok(0) => self.end(flight, Err(job.cut_short(bytes, offset))),
            Ok(count) if count < bytes => {
                *moved += count;
                *direct &= u64::from(*moved) % crate::config::PAGE_BYTES == 0;
                flight.tries = 0;
                self.request(flight);
            }
            Ok(_) => self.end(flight, Ok(())),
        }
    }

    /// A flight has ended, well or not.
    fn end(&mut self, flight: Flight, ended: Result<(), Failure>) {
        let Flight { job, work, .. } = flight;
        let after = match work {
            Work::Sync => job.synced(ended),
            Work::Move {
                piece, staged, sum, ..
            } => {
                let ended = ended.and_then(|()| self.deliver(&job, piece, staged, sum));
                if self.broken.is_none() {
                    self.unstage(staged);
                }
                job.give(&piece, ended)
            }
        };
        self.follow(&job, after);
        self.forget_files();
    }

    /// What is done after a piece was read: it is summed, and goes where it belongs.
    fn deliver(
        &mut self,
        job: &Job,
        piece: Piece,
        staged: Option<(usize, u16)>,
        sum: Option<u64>,
    ) -> Result<Option<u64>, Failure> {
        if job.direction == Direction::Write {
            return Ok(sum);
        }
        if let Some((staging, slot)) = staged {
            let (length, staging) = (piece.bytes as usize, &mut self.stagings[staging]);
            let copied = staging.drain(slot, &job.memory, piece.memory_offset, length);
            copied.map_err(|e| lost(job, piece, &e))?;
        }
        Ok(self.sum(job, piece, staged))
    }

    fn follow(&mut self, job: &Arc<Job>, after: After) {
        match after {
            After::Nothing => {}
            After::Finish => job.finish(),
            After::Sync => self.request(Flight {
                job: Arc::clone(job),
                work: Work::Sync,
                tries: 0,
                by_slot: false,
            }),
        }
    }
}

fn descriptor(job: &Job, direct: bool) -> Result<RawFd, Failure> {
    match job.file.direct() {
        Some((file, _)) if direct => Ok(file),
        _ => job.file.cached().map_err(|failed| job.failed(failed)),
    }
}

/// The device failed, not the disk.
fn lost(job: &Job, piece: Piece, error: &Error) -> Failure {
    let Piece {
        bytes, file_offset, ..
    } = piece;
    let name = job.file.name().display();
    let context = format!("{bytes} bytes at {file_offset} of {name}: stage them: {error}");
    Failure::new(error.kind(), job.direction.op(), context)
}
