//! Statuses, the error sink and strings: how one side tells the other what went wrong.

use core::ffi::c_char;

/// What a call returns: `DS_OK` or one of the codes below. An open set: treat an unknown
/// non-zero code as [`DS_INTERNAL`].
pub type DsStatus = i32;

/// The call did what it says.
pub const DS_OK: DsStatus = 0;
/// An argument breaks a rule that the message names; the caller is at fault.
pub const DS_INVALID_ARGUMENT: DsStatus = 1;
/// The device or driver cannot do this, and never will; the message says why.
pub const DS_UNSUPPORTED: DsStatus = 2;
/// The plugin does not provide this function (the host's stubs return it with the slot's name).
pub const DS_UNIMPLEMENTED: DsStatus = 3;
/// A library or driver that the plugin needs was not found; the message names every place tried.
pub const DS_UNAVAILABLE: DsStatus = 4;
/// The driver answers, but there is no such device.
pub const DS_NO_DEVICE: DsStatus = 5;
/// The allocation does not fit; `a` holds the bytes asked for and `b` the bytes free.
pub const DS_OUT_OF_MEMORY: DsStatus = 6;
/// The device is gone or its context is unusable; nothing on it will work again.
pub const DS_DEVICE_LOST: DsStatus = 7;
/// The point in time has not been reached yet. Only `stream_query` answers so. It is never how queued
/// work failed: a host that asks whether that is over would ask for ever.
pub const DS_NOT_READY: DsStatus = 8;
/// The wait ended before the point was reached.
pub const DS_TIMEOUT: DsStatus = 9;
/// A file or socket operation failed; `vendor_code` is the `errno`.
pub const DS_IO: DsStatus = 10;
/// A compiler ran and refused the source; the log has its words.
pub const DS_BUILD_FAILED: DsStatus = 11;
/// The two sides cannot work together; the message names the rule.
pub const DS_INCOMPATIBLE_ABI: DsStatus = 12;
/// A kernel refuses this signature; `reason` and the message name the constraint.
pub const DS_CONSTRAINT: DsStatus = 13;
/// An artefact was made for something else (target, version); build it again.
pub const DS_STALE: DsStatus = 14;
/// The plugin broke its own contract, for instance it panicked.
pub const DS_PLUGIN_BUG: DsStatus = 15;
/// Anything that has no better code.
pub const DS_INTERNAL: DsStatus = 16;
/// Work was given up because work before it failed.
pub const DS_CANCELLED: DsStatus = 17;
/// The process is ending; no new work is taken.
pub const DS_SHUTTING_DOWN: DsStatus = 18;
/// The call came from a child of `fork`, where devices do not work.
pub const DS_FORKED: DsStatus = 19;

/// The process is out of host memory; freeing device memory would not help.
pub const DS_OUT_OF_HOST_MEMORY: DsStatus = 20;

/// The kernel is for another op.
pub const DS_REASON_OP: u32 = 0;
/// The device lacks a feature of the target.
pub const DS_REASON_TARGET: u32 = 1;
/// The value of a static attribute.
pub const DS_REASON_ATTRIBUTES: u32 = 2;
/// A dtype.
pub const DS_REASON_DTYPES: u32 = 3;
/// A rank.
pub const DS_REASON_RANK: u32 = 4;
/// An extent.
pub const DS_REASON_DIMS: u32 = 5;
/// A layout.
pub const DS_REASON_LAYOUT: u32 = 6;
/// An alignment.
pub const DS_REASON_ALIGNMENT: u32 = 7;
/// The number of elements.
pub const DS_REASON_MAX_ELEMENTS: u32 = 8;
/// There are no elements.
pub const DS_REASON_ZERO_SIZE: u32 = 9;
/// A written tensor is the memory of another one.
pub const DS_REASON_IN_PLACE: u32 = 10;
/// The kernel has no score for this size.
pub const DS_REASON_SCORE: u32 = 11;

/// Trying the same call again may work.
pub const DS_ERROR_RETRYABLE: u32 = 1;
/// The device is lost.
pub const DS_ERROR_DEVICE_LOST: u32 = 1 << 1;
/// The stream takes no more work.
pub const DS_ERROR_STREAM_POISONED: u32 = 1 << 2;
/// The message was longer than the sink.
pub const DS_ERROR_TRUNCATED: u32 = 1 << 3;

/// Where a callee describes a failure. Owned by the caller, valid for the call, nothing to free.
///
/// The caller sets `struct_size`, `message` and `message_capacity`; the callee writes the rest, and
/// at most `message_capacity` bytes of UTF-8 without a terminating zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsErrorSink {
    /// Size of this struct as its owner knows it, in bytes.
    pub struct_size: u32,
    /// The same code that the call returns.
    pub code: DsStatus,
    /// The vendor's own number, 0 if there is none.
    pub vendor_code: i32,
    /// `DS_ERROR_*` bits.
    pub flags: u32,
    /// First number of the failure; its meaning belongs to the code.
    pub a: u64,
    /// Second number of the failure; its meaning belongs to the code.
    pub b: u64,
    /// Which kind of constraint failed, with [`DS_CONSTRAINT`]: one of `DS_REASON_*`.
    pub reason: u32,
    /// Bytes of `message` that were written.
    pub message_len: u32,
    /// Capacity of `message`, in bytes.
    pub message_capacity: u32,
    /// Zero.
    pub reserved: u32,
    /// The caller's buffer; may be null when the capacity is 0.
    pub message: *mut c_char,
}

/// A UTF-8 string with a length and no terminating zero; `data` may be null when `len` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsStr {
    /// First byte.
    pub data: *const c_char,
    /// Length in bytes.
    pub len: usize,
}

// SAFETY: a `DsStr` is an address and a length. It gives no access by itself: `DsStr::bytes` is
// unsafe and asks the caller for liveness, and nothing writes through it.
unsafe impl Send for DsStr {}
// SAFETY: as for `Send`.
unsafe impl Sync for DsStr {}

impl DsStr {
    /// The empty string.
    pub const EMPTY: Self = Self {
        data: core::ptr::null(),
        len: 0,
    };

    /// Points at `text`, which must outlive every use of the result.
    pub const fn new(text: &str) -> Self {
        Self {
            data: text.as_ptr().cast(),
            len: text.len(),
        }
    }

    /// The bytes pointed at; empty for a null pointer.
    ///
    /// # Safety
    /// `data` is null, or points to `len` readable bytes that stay unchanged for `'a`.
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: the caller vouches for `len` readable bytes at the non-null `data`.
        unsafe { core::slice::from_raw_parts(self.data.cast(), self.len) }
    }
}

/// Bytes with a length, such as a source file or an artefact.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsBytes {
    /// First byte; may be null when `len` is 0.
    pub data: *const u8,
    /// Length in bytes.
    pub len: usize,
}

/// Head of an extension: a struct that only some vendors know, chained from [`crate::DsHost`] or
/// [`crate::DsPlugin`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsExtension {
    /// Size of the whole extension, head included, in bytes.
    pub struct_size: u32,
    /// `DS_EXTENSION_*` bits.
    pub flags: u32,
    /// First 16 bytes of the BLAKE3 hash of the extension's name, such as `com.example.power/1`.
    pub type_id: [u8; 16],
    /// The next extension, or null.
    pub next: *const DsExtension,
}

/// A side that does not know this extension must refuse the other.
pub const DS_EXTENSION_MUST_UNDERSTAND: u32 = 1;
