//! The memory table: raw allocation and copies. Caching, statistics and limits are the host's.

use core::ffi::c_void;

use crate::{DsDevice, DsErrorSink, DsStatus, DsStream};

/// Memory of the device itself.
pub const DS_MEMORY_DEVICE: u32 = 0;
/// Page-locked host memory that the device reaches without staging.
pub const DS_MEMORY_PINNED: u32 = 1;
/// Memory that host and device both reach by the same address.
pub const DS_MEMORY_SHARED: u32 = 2;

/// From host memory to the device's.
pub const DS_COPY_TO_DEVICE: u32 = 0;
/// From the device's memory to the host's.
pub const DS_COPY_TO_HOST: u32 = 1;
/// Between two places that devices of this plugin own.
pub const DS_COPY_ON_DEVICE: u32 = 2;

/// How much memory a device has, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsMemoryInfo {
    /// In: the host's size. Out: how many bytes the plugin filled.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// In all.
    pub total_bytes: u64,
    /// Free for this process right now.
    pub free_bytes: u64,
}

/// One copy of bytes. The ranges do not overlap.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsCopy {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// `DS_COPY_*`.
    pub direction: u32,
    /// Where to.
    pub destination: *mut c_void,
    /// Where from.
    pub source: *const c_void,
    /// How many bytes; never 0.
    pub bytes: u64,
    /// Where `source` lies when it is on another device of the same plugin, else null. The stream
    /// belongs to the device that `destination` is on.
    pub peer: DsDevice,
}

/// Memory. Required: `allocate`, `free`, `info`, `copy`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsMemoryTable {
    /// Size of this table as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Allocates `bytes` (never 0) of `kind` (`DS_MEMORY_*`), aligned to `alignment` (a power of
    /// two) or better. `DS_OUT_OF_MEMORY` leaves the device usable.
    pub allocate: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            bytes: u64,
            alignment: u64,
            kind: u32,
            address: *mut *mut c_void,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Frees what `allocate` gave, with the same `bytes` and `kind`. No work that uses it is pending.
    pub free: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            address: *mut c_void,
            bytes: u64,
            kind: u32,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Tells how much memory there is.
    pub info: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            info: *mut DsMemoryInfo,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Queues a copy on `stream`. Host memory stays valid until the stream has passed the copy.
    pub copy: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            stream: DsStream,
            copy: *const DsCopy,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Queues a fill of `bytes` bytes with `pattern` on `stream`.
    pub fill: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            stream: DsStream,
            address: *mut c_void,
            pattern: u8,
            bytes: u64,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
}
