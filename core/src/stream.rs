//! Streams, and events as points on timelines.
//!
//! Work on one stream runs in order. A [`Point`] is a place on a timeline: a stream reaches it, the
//! host reaches it, a file or network lane reaches it, and any stream of any device can wait for it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use ds_abi::{
    DS_FOREVER, DS_NOT_READY, DS_OK, DS_STREAM_DEFAULT, DsEvent, DsEventState, DsStatus, DsStream,
};

use crate::{
    Device, Error, ErrorKind, Result,
    device::sized,
    fork,
    plugin::call::{self, call},
};

/// How long after a look at what the plugin does not let us wait for the next one follows.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// An in-order queue of work on a device. Clones are the same stream; dropping the last one waits
/// for its work.
#[derive(Clone)]
pub struct Stream {
    queue: Arc<Queue>,
    /// Goes with the last clone.
    _end: Arc<End>,
}

/// A stream without the promise to wait for its work. The device knows it until that is over: who
/// must come behind it can still put itself there while its last owner waits.
pub(crate) struct Queue {
    device: Device,
    handle: DsStream,
    /// Small number, unique among the device's live streams; the memory pool sorts by it.
    slot: usize,
    default: bool,
    /// The stream's own timeline, and the value that was handed out last. The lock is what makes
    /// calls that queue work come one at a time.
    submit: Mutex<Submit>,
}

#[derive(Default)]
struct Submit {
    timeline: Option<Timeline>,
    last: u64,
}

// SAFETY: the boundary lets a stream's handle be used from any thread, one queueing call at a
// time, which `submit` sees to.
unsafe impl Send for Queue {}
// SAFETY: as for `Send`.
unsafe impl Sync for Queue {}

/// The end of a stream, when its last owner lets go of it.
struct End(Arc<Queue>);

impl Stream {
    /// Makes a stream on `device`.
    ///
    /// # Errors
    /// When the device has no more queues.
    pub fn new(device: Device) -> Result<Self> {
        Self::make(device, false)
    }

    pub(crate) fn make(device: Device, default: bool) -> Result<Self> {
        let mut handle: DsStream = std::ptr::null_mut();
        let flags = if default { DS_STREAM_DEFAULT } else { 0 };
        // SAFETY: the device's handle is open for ever; `handle` is writable for the call.
        unsafe {
            call!(
                device.plugin(),
                stream.stream_create(device.handle(), flags, &raw mut handle)
            )
        }?;
        Ok(Self::of(device, handle, default))
    }

    fn of(device: Device, handle: DsStream, default: bool) -> Self {
        let slot = device.streams().take_slot();
        let queue = Arc::new(Queue {
            device,
            handle,
            slot,
            default,
            submit: Mutex::default(),
        });
        device.streams().add(slot, Arc::clone(&queue));
        Self {
            _end: Arc::new(End(Arc::clone(&queue))),
            queue,
        }
    }

    /// The device it belongs to.
    pub fn device(&self) -> Device {
        self.queue.device
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    /// The first failure of that work.
    pub fn synchronize(&self) -> Result<()> {
        self.queue.synchronize()
    }

    /// As [`Stream::synchronize`], and when this returns, nothing is pending: also when it was the
    /// wait that failed and not the work. Before memory that the work uses is given to others.
    ///
    /// # Errors
    /// As [`Stream::synchronize`].
    pub(crate) fn finish(&self) -> Result<()> {
        self.queue.finish()
    }

    /// Whether nothing is pending.
    ///
    /// # Errors
    /// The failure of work that is done.
    pub fn is_idle(&self) -> Result<bool> {
        self.queue.is_idle()
    }

    /// The point that is reached when the work queued so far is done.
    ///
    /// # Errors
    /// When the stream takes no more work.
    pub fn record(&self) -> Result<Point> {
        self.queue.record()
    }

    /// As [`Stream::record`], on a timeline of its own, so that the time at which it is reached stays
    /// known: [`Point::elapsed_since`].
    ///
    /// # Errors
    /// As [`Stream::record`].
    pub fn record_timed(&self) -> Result<Point> {
        let point = Timeline::new(self.queue.device)?.next();
        let _turn = self.queue.lock();
        // SAFETY: both handles live as long as their owners, which live past the call; the lock
        // keeps other queueing calls out.
        unsafe {
            call!(
                self.queue.device.plugin(),
                stream.event_record(self.queue.handle, point.timeline.handle(), point.value)
            )
        }?;
        Ok(point)
    }

    /// Holds later work until `point` is reached. If it never will be, later work fails.
    ///
    /// Points of another plugin's device are bridged: a timeline of this device is signalled when
    /// the other one gets there.
    ///
    /// # Errors
    /// When the stream takes no more work.
    pub fn wait(&self, point: &Point) -> Result<()> {
        self.queue.wait(point)
    }

    /// The vendor's own handle, for code that mixes with the vendor's libraries.
    ///
    /// # Errors
    /// [`ErrorKind::Unimplemented`] where there is none.
    pub fn native(&self) -> Result<*mut std::ffi::c_void> {
        let mut native = std::ptr::null_mut();
        // SAFETY: the handle lives as long as `self`; `native` is writable for the call.
        unsafe {
            call!(
                self.queue.device.plugin(),
                stream.stream_native(self.queue.handle, &raw mut native)
            )
        }?;
        Ok(native)
    }

    /// Makes a stream around a vendor's handle that somebody else owns.
    ///
    /// # Safety
    /// `native` is a live handle of the vendor's kind on `device`, and outlives the stream.
    ///
    /// # Errors
    /// [`ErrorKind::Unimplemented`] where there is none.
    pub unsafe fn wrap(device: Device, native: *mut std::ffi::c_void) -> Result<Self> {
        let mut handle: DsStream = std::ptr::null_mut();
        // SAFETY: the caller's promise; `handle` is writable for the call.
        unsafe {
            call!(
                device.plugin(),
                stream.stream_wrap(device.handle(), native, &raw mut handle)
            )
        }?;
        Ok(Self::of(device, handle, false))
    }

    pub(crate) fn slot(&self) -> usize {
        self.queue.slot
    }

    pub(crate) fn as_queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The handle, with the turn to queue work on it.
    pub(crate) fn queue(&self) -> (DsStream, impl Drop) {
        (self.queue.handle, self.queue.lock())
    }
}

impl Queue {
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Whether no work of it will still run: nothing is pending, or it failed.
    ///
    /// # Errors
    /// When the device does not tell.
    pub(crate) fn is_over(&self) -> Result<bool> {
        // A failure of its work stays, so it is told again; one of the question is not.
        let told = |_| match (self.is_idle(), self.is_idle()) {
            (Err(e), Err(again)) if e.kind() == again.kind() => Ok(true),
            (_, last) => last,
        };
        self.is_idle().or_else(told)
    }

    /// As [`Stream::record`].
    pub(crate) fn record(&self) -> Result<Point> {
        let mut submit = self.lock();
        let timeline = match &submit.timeline {
            Some(timeline) => timeline.clone(),
            None => submit.timeline.insert(Timeline::new(self.device)?).clone(),
        };
        let value = submit.last + 1;
        // SAFETY: both handles live as long as their owners, which live past the call; the lock
        // keeps other queueing calls out.
        unsafe {
            call!(
                self.device.plugin(),
                stream.event_record(self.handle, timeline.handle(), value)
            )
        }?;
        submit.last = value;
        Ok(Point { timeline, value })
    }

    /// As [`Stream::wait`].
    pub(crate) fn wait(&self, point: &Point) -> Result<()> {
        let own = std::ptr::eq(point.timeline.device().plugin(), self.device.plugin());
        let bridged;
        let point = if own {
            point
        } else {
            bridged = point.bridge(self.device)?;
            &bridged
        };
        let _turn = self.lock();
        // SAFETY: both handles live past the call: the plugin keeps what a queued wait needs, and
        // `event_destroy` comes only after `Timeline`'s last owner is gone.
        unsafe {
            call!(
                self.device.plugin(),
                stream.event_wait(self.handle, point.timeline.handle(), point.value)
            )
        }
    }

    fn lock(&self) -> MutexGuard<'_, Submit> {
        self.submit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn synchronize(&self) -> Result<()> {
        // SAFETY: the handle lives as long as `self`.
        unsafe { call!(self.device.plugin(), stream.stream_synchronize(self.handle)) }
            .map_err(as_end)
    }

    fn is_idle(&self) -> Result<bool> {
        // SAFETY: the handle lives as long as `self`.
        match unsafe { call!(self.device.plugin(), stream.stream_query(self.handle)) } {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotReady => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// As [`Stream::finish`].
    pub(crate) fn finish(&self) -> Result<()> {
        let done = self.synchronize();
        match &done {
            Ok(()) => {}
            // To the question whether it is over it may answer so for ever; a point behind the work
            // tells what is pending from what has failed.
            Err(e) if is_no_end(e) => {
                let _ = self.record().map(|point| point.finish());
            }
            // A stream whose work failed has nothing pending, and says so at once.
            Err(_) => {
                while matches!(self.is_idle(), Ok(false)) {
                    thread::sleep(LOOK_AGAIN);
                }
            }
        }
        done
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        let Queue { device, slot, .. } = *self.0;
        // Waits for the queue: what the stream's work uses may be given to others after this.
        if let Err(e) = self.0.finish() {
            log::debug!("a stream of {device} ends with a failure: {e}");
        }
        device.pool().retire(slot);
        device.streams().give_slot(slot);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        if let Some(destroy) = self.device.plugin().tables().stream.stream_destroy {
            // SAFETY: the last owner is gone, and so is the last use of the handle.
            unsafe { destroy(self.handle) };
        }
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }
}

impl Eq for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.queue.default {
            "default"
        } else {
            "stream"
        };
        write!(
            f,
            "Stream({} {name} {})",
            self.queue.device, self.queue.slot
        )
    }
}

/// An error of a wait, or of work. `DS_NOT_READY` is none of both, so the plugin is at fault.
fn as_end(error: Error) -> Error {
    if error.kind() != ErrorKind::NotReady {
        return error;
    }
    Error::new(ErrorKind::PluginBug, error.op().to_owned(), NO_END).with_source(error)
}

fn is_no_end(error: &Error) -> bool {
    error.kind() == ErrorKind::PluginBug && error.context() == NO_END
}

const NO_END: &str = "the plugin ends work or a wait with the status of what is pending, which \
                      `ds_plugin.h` forbids";

/// A device's streams, until their work is over.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Vec<Slot>>);

#[derive(Default)]
enum Slot {
    #[default]
    Free,
    Taken,
    Live(Arc<Queue>),
}

impl Streams {
    fn take_slot(&self) -> usize {
        let mut slots = self.lock();
        let free = slots.iter().position(|slot| matches!(slot, Slot::Free));
        let slot = free.unwrap_or_else(|| {
            slots.push(Slot::Free);
            slots.len() - 1
        });
        slots[slot] = Slot::Taken;
        slot
    }

    fn add(&self, slot: usize, queue: Arc<Queue>) {
        self.lock()[slot] = Slot::Live(queue);
    }

    fn give_slot(&self, slot: usize) {
        let ended = std::mem::take(&mut self.lock()[slot]);
        // A call into the plugin, so not under the lock.
        drop(ended);
    }

    /// The queue of the stream in `slot`; nothing when its work is over.
    pub(crate) fn queue(&self, slot: usize) -> Option<Arc<Queue>> {
        match self.lock().get(slot) {
            Some(Slot::Live(queue)) => Some(Arc::clone(queue)),
            _ => None,
        }
    }

    /// Every queue whose work may not be over.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        let live = |slot: &Slot| match slot {
            Slot::Live(queue) => Some(Arc::clone(queue)),
            _ => None,
        };
        self.lock().iter().filter_map(live).collect()
    }

    /// How many there are; nothing while another thread holds the lock.
    pub(crate) fn try_count(&self) -> Option<usize> {
        let slots = self.0.try_lock().ok()?;
        let is_live = |slot: &&Slot| matches!(slot, Slot::Live(_));
        Some(slots.iter().filter(is_live).count())
    }

    /// Waits for every stream, as [`Stream::finish`] does; gives the first failure.
    pub(crate) fn finish(&self) -> Result<()> {
        let done = |result: Result<()>, queue: Arc<Queue>| result.and(queue.finish());
        self.queues().into_iter().fold(Ok(()), done)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter that only grows, or fails. Clones are the same timeline.
#[derive(Clone)]
pub struct Timeline(Arc<TimelineInner>);

struct TimelineInner {
    device: Device,
    handle: DsEvent,
    /// What the host promised to signal next, for [`Timeline::next`].
    promised: AtomicU64,
}

// SAFETY: the boundary allows any call on an event from any thread.
unsafe impl Send for TimelineInner {}
// SAFETY: as for `Send`.
unsafe impl Sync for TimelineInner {}

impl Timeline {
    /// A timeline on `device` that stands at 0; the host raises it with [`Timeline::signal`].
    ///
    /// # Errors
    /// When the device has no more events.
    pub fn new(device: Device) -> Result<Self> {
        let mut handle: DsEvent = std::ptr::null_mut();
        // SAFETY: the device's handle is open for ever; `handle` is writable for the call.
        unsafe {
            call!(
                device.plugin(),
                stream.event_create(device.handle(), &raw mut handle)
            )
        }?;
        Ok(Self(Arc::new(TimelineInner {
            device,
            handle,
            promised: AtomicU64::new(0),
        })))
    }

    /// The device it belongs to.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// The next point that the host will signal.
    pub fn next(&self) -> Point {
        let value = self.0.promised.fetch_add(1, Ordering::Relaxed) + 1;
        Point {
            timeline: self.clone(),
            value,
        }
    }

    /// Raises the timeline to `value` from the host, at once.
    ///
    /// # Errors
    /// When the device cannot be signalled.
    pub fn signal(&self, value: u64) -> Result<()> {
        self.raise(value, DS_OK)
    }

    /// Fails the timeline: whoever waits for more than it has reached gets an error of `kind`.
    ///
    /// # Errors
    /// When the device cannot be signalled.
    pub fn fail(&self, kind: ErrorKind) -> Result<()> {
        self.raise(0, call::status_of(kind))
    }

    fn raise(&self, value: u64, status: DsStatus) -> Result<()> {
        // SAFETY: the handle lives as long as `self`.
        unsafe {
            call!(
                self.0.device.plugin(),
                stream.event_signal(self.0.handle, value, status)
            )
        }
    }

    fn handle(&self) -> DsEvent {
        self.0.handle
    }

    fn state(&self) -> Result<DsEventState> {
        let mut state = DsEventState {
            struct_size: sized::<DsEventState>(),
            status: DS_OK,
            value: 0,
            time_ns: 0,
        };
        // SAFETY: the handle lives as long as `self`; `state` states its size.
        unsafe {
            call!(
                self.0.device.plugin(),
                stream.event_query(self.0.handle, &raw mut state)
            )
        }?;
        Ok(state)
    }
}

impl Drop for TimelineInner {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        if let Some(destroy) = self.device.plugin().tables().stream.event_destroy {
            // SAFETY: the last owner is gone: every `Point` that could be waited for holds one.
            unsafe { destroy(self.handle) };
        }
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timeline({} {:p})", self.0.device, self.0.handle)
    }
}

/// A place on a timeline.
#[derive(Clone, Debug)]
pub struct Point {
    timeline: Timeline,
    value: u64,
}

impl Point {
    /// The timeline it lies on.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The value that the timeline has there.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Whether it is reached.
    ///
    /// # Errors
    /// The failure that keeps it from being reached.
    pub fn is_reached(&self) -> Result<bool> {
        let state = self.timeline.state()?;
        match state.status {
            _ if state.value >= self.value => Ok(true),
            DS_OK => Ok(false),
            DS_NOT_READY => Err(Error::new(ErrorKind::PluginBug, "wait for a point", NO_END)),
            status => Err(Error::new(
                call::kind(status),
                "wait for a point",
                format!(
                    "work before it on {} failed with status {status}",
                    self.timeline.device()
                ),
            )),
        }
    }

    /// Whether the stream that recorded it is past it: it is reached, or never will be, because a
    /// stream whose work failed does no more.
    pub(crate) fn is_over(&self) -> bool {
        self.timeline
            .state()
            .is_ok_and(|state| state.value >= self.value || state.status != DS_OK)
    }

    /// Whether `later` lies on the same timeline, and not before this one.
    pub(crate) fn precedes(&self, later: &Self) -> bool {
        Arc::ptr_eq(&self.timeline.0, &later.timeline.0) && self.value <= later.value
    }

    /// The time from `earlier` to this point on the device's clock; upstream's `elapsed_time`. Both
    /// come from [`Stream::record_timed`].
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] before both are reached, [`ErrorKind::InvalidArgument`] for points of
    /// different devices or of a timeline that has moved on, [`ErrorKind::Unsupported`] where the
    /// device does not tell the time.
    pub fn elapsed_since(&self, earlier: &Self) -> Result<Duration> {
        let op = "measure the time between points";
        let (start, end) = (earlier.timeline.device(), self.timeline.device());
        if start != end {
            let text = format!("one is on {start}, the other on {end}, and their clocks differ");
            return Err(Error::new(ErrorKind::InvalidArgument, op, text));
        }
        let (start, end) = (earlier.time_ns(op)?, self.time_ns(op)?);
        Ok(Duration::from_nanos(end.saturating_sub(start)))
    }

    fn time_ns(&self, op: &'static str) -> Result<u64> {
        if !self.is_reached()? {
            let text = "one of them is not reached yet";
            return Err(Error::new(ErrorKind::NotReady, op, text).with_hint("wait for it first"));
        }
        let state = self.timeline.state()?;
        if state.value != self.value {
            let text = "the timeline has moved on and tells only its latest time";
            return Err(Error::new(ErrorKind::InvalidArgument, op, text)
                .with_hint("record both with `record_timed`"));
        }
        match state.time_ns {
            0 => {
                let text = format!("{} does not tell the time", self.timeline.device());
                Err(Error::new(ErrorKind::Unsupported, op, text)
                    .with_hint("time with the host's clock around `synchronize`"))
            }
            time => Ok(time),
        }
    }

    /// Blocks until it is reached.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], or the failure that keeps it from being reached.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        let timeout_ns = timeout.map_or(DS_FOREVER, |t| {
            u64::try_from(t.as_nanos()).unwrap_or(DS_FOREVER - 1)
        });
        let plugin = self.timeline.device().plugin();
        // SAFETY: the handle lives as long as `self`.
        unsafe {
            call!(
                plugin,
                stream.event_synchronize(self.timeline.handle(), self.value, timeout_ns)
            )
        }
        .map_err(as_end)
    }

    /// As [`Point::wait`] without a limit, and when this returns, the point is over: also when it was
    /// the wait that failed.
    ///
    /// # Errors
    /// As [`Point::wait`].
    pub(crate) fn finish(&self) -> Result<()> {
        let done = self.wait(None);
        if done.is_err() {
            while matches!(self.is_reached(), Ok(false)) {
                thread::sleep(LOOK_AGAIN);
            }
        }
        done
    }

    /// A point on `device` that is reached, or fails, when this one does.
    fn bridge(&self, device: Device) -> Result<Self> {
        let there = Timeline::new(device)?.next();
        let (from, to) = (self.clone(), there.clone());
        // A thread a bridge: hand-offs between plugins are rare beside the copy that they go with.
        thread::Builder::new()
            .name("ds-bridge".to_owned())
            .spawn(move || {
                let told = match from.wait(None) {
                    Ok(()) => to.timeline.signal(to.value),
                    Err(e) => to.timeline.fail(e.kind()),
                };
                if let Err(e) = told {
                    log::error!("hand over to {}: {e}", to.timeline.device());
                    // Whoever waits there must not do so for ever.
                    if let Err(e) = to.timeline.fail(e.kind()) {
                        log::error!("{} waits for ever: {e}", to.timeline.device());
                    }
                }
            })
            .map_err(|e| {
                Error::new(ErrorKind::Io, "wait for a point", "start a thread").with_source(e)
            })?;
        Ok(there)
    }
}
