//! The stream table: in-order queues, and events as points on timelines.

use core::ffi::c_void;

use crate::{DsDevice, DsErrorSink, DsStatus};

/// A queue of work, owned by its plugin.
#[repr(C)]
#[derive(Debug)]
pub struct DsStreamObject {
    _private: [u8; 0],
}
/// Handle of a stream. The host makes calls that queue work on one stream one at a time; waits and
/// queries may come from any thread.
pub type DsStream = *mut DsStreamObject;

/// A timeline: a counter that only grows, owned by its plugin.
#[repr(C)]
#[derive(Debug)]
pub struct DsEventObject {
    _private: [u8; 0],
}
/// Handle of an event. Any call from any thread.
pub type DsEvent = *mut DsEventObject;

/// Wait without limit.
pub const DS_FOREVER: u64 = u64::MAX;

/// The stream in which work runs when none is named; one per device.
pub const DS_STREAM_DEFAULT: u32 = 1;

/// Called once when a point is reached, or when it never will be. `status` is `DS_OK`, the failure of
/// the work before the point, or `DS_CANCELLED` when the event was destroyed first. Runs on a thread
/// of the plugin, on one that signals, or inside the call that registers it. It must not block; it
/// may signal, query and register.
pub type DsEventCallback = unsafe extern "C" fn(user: *mut c_void, status: DsStatus);

/// How far a timeline has come.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsEventState {
    /// In: the host's size. Out: how many bytes the plugin filled.
    pub struct_size: u32,
    /// `DS_OK`, or why values above `value` will never be reached; never `DS_NOT_READY`.
    pub status: DsStatus,
    /// The highest value reached.
    pub value: u64,
    /// When it was reached: nanoseconds on a clock of the device that never goes back; 0 if the
    /// device does not tell.
    pub time_ns: u64,
}

/// Streams and events. Required: all but `stream_native`, `stream_wrap` and `event_on_ready`.
///
/// A failure of queued work surfaces on every point recorded after it, and on `stream_synchronize`. It
/// stays: the stream does no more work. A call that queues more may return the failure or `DS_OK`.
/// Its status is any but `DS_NOT_READY`; a driver's error of that name becomes `DS_INTERNAL`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsStreamTable {
    /// Size of this table as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Makes a stream; `flags` are `DS_STREAM_*`. The host makes the default one once a device.
    pub stream_create: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            flags: u32,
            stream: *mut DsStream,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Gives the handle up, without waiting. Work that is queued still happens.
    pub stream_destroy: Option<unsafe extern "C" fn(stream: DsStream)>,
    /// Waits until everything queued so far is done; returns the first failure, which is never
    /// `DS_NOT_READY`.
    pub stream_synchronize:
        Option<unsafe extern "C" fn(stream: DsStream, error: *mut DsErrorSink) -> DsStatus>,
    /// `DS_NOT_READY` while anything is pending, then `DS_OK` or the first failure.
    pub stream_query:
        Option<unsafe extern "C" fn(stream: DsStream, error: *mut DsErrorSink) -> DsStatus>,
    /// Gives the vendor's own handle (`CUstream`, `hipStream_t` ...).
    pub stream_native: Option<
        unsafe extern "C" fn(
            stream: DsStream,
            native: *mut *mut c_void,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Makes a stream around a vendor's handle that somebody else owns.
    pub stream_wrap: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            native: *mut c_void,
            stream: *mut DsStream,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Makes a timeline that stands at 0.
    pub event_create: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            event: *mut DsEvent,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Gives the handle up. Records and waits that are queued already still happen: the plugin keeps
    /// what they need until then. Callbacks that still wait are called with `DS_CANCELLED`.
    pub event_destroy: Option<unsafe extern "C" fn(event: DsEvent)>,
    /// Queues: when the work so far is done, raise the timeline to `value`. A value that it has
    /// reached changes nothing.
    pub event_record: Option<
        unsafe extern "C" fn(
            stream: DsStream,
            event: DsEvent,
            value: u64,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Queues: later work waits until the timeline stands at `value`. If it never will, later work
    /// on the stream fails with that status.
    pub event_wait: Option<
        unsafe extern "C" fn(
            stream: DsStream,
            event: DsEvent,
            value: u64,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Raises the timeline from the host, at once; a value that it has reached changes nothing. A
    /// `status` other than `DS_OK` fails it: `value` is ignored, the timeline stays where it is for
    /// good, and whoever waits for more than that gets the status.
    pub event_signal: Option<
        unsafe extern "C" fn(
            event: DsEvent,
            value: u64,
            status: DsStatus,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Tells how far the timeline is, without waiting.
    pub event_query: Option<
        unsafe extern "C" fn(
            event: DsEvent,
            state: *mut DsEventState,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Blocks the calling thread until the timeline stands at `value`: `DS_OK`, `DS_TIMEOUT`, or
    /// the failure that keeps it from getting there, which is never `DS_NOT_READY`.
    pub event_synchronize: Option<
        unsafe extern "C" fn(
            event: DsEvent,
            value: u64,
            timeout_ns: u64,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Calls `callback` when the timeline stands at `value`, perhaps before this returns.
    pub event_on_ready: Option<
        unsafe extern "C" fn(
            event: DsEvent,
            value: u64,
            callback: Option<DsEventCallback>,
            user: *mut c_void,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
}
