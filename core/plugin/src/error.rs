//! The error a plugin returns: a status, the vendor's number, and words.

use std::{ffi::c_char, fmt};

use ds_abi::{
    DS_CANCELLED, DS_CONSTRAINT, DS_DEVICE_LOST, DS_ERROR_TRUNCATED, DS_INTERNAL,
    DS_INVALID_ARGUMENT, DS_IO, DS_NO_DEVICE, DS_NOT_READY, DS_OUT_OF_MEMORY, DS_PLUGIN_BUG,
    DS_STALE, DS_TIMEOUT, DS_UNAVAILABLE, DS_UNIMPLEMENTED, DS_UNSUPPORTED, DsErrorSink, DsStatus,
};

/// A failure of a plugin's function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: DsStatus,
    vendor_code: i32,
    flags: u32,
    numbers: [u64; 2],
    reason: u32,
    message: String,
}

/// A plugin's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $status:ident;)*) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self {
            Self::new($status, message)
        })*
    };
}

impl Error {
    /// An error with one of the `DS_*` statuses; never `DS_OK`.
    pub fn new(status: DsStatus, message: impl Into<String>) -> Self {
        debug_assert_ne!(status, ds_abi::DS_OK, "an error needs an error status");
        Self {
            status,
            vendor_code: 0,
            flags: 0,
            numbers: [0; 2],
            reason: 0,
            message: message.into(),
        }
    }

    constructors! {
        /// The caller broke a rule that the message names.
        invalid_argument = DS_INVALID_ARGUMENT;
        /// The device or driver cannot do this, and never will.
        unsupported = DS_UNSUPPORTED;
        /// The plugin has no such function.
        unimplemented = DS_UNIMPLEMENTED;
        /// A library or driver was not found; name every place tried.
        unavailable = DS_UNAVAILABLE;
        /// The driver answers, but there is no such device.
        no_device = DS_NO_DEVICE;
        /// The device is gone.
        device_lost = DS_DEVICE_LOST;
        /// The point in time has not been reached.
        not_ready = DS_NOT_READY;
        /// The wait ended before the point was reached.
        timeout = DS_TIMEOUT;
        /// The kernel refuses the signature; name the constraint.
        constraint = DS_CONSTRAINT;
        /// The artefact was made for something else.
        stale = DS_STALE;
        /// Given up because work before it failed.
        cancelled = DS_CANCELLED;
        /// Anything that has no better code.
        internal = DS_INTERNAL;
    }

    /// The allocation of `asked_bytes` does not fit in `free_bytes`.
    pub fn out_of_memory(asked_bytes: u64, free_bytes: u64) -> Self {
        let mut error = Self::new(
            DS_OUT_OF_MEMORY,
            format!("{asked_bytes} bytes do not fit in the {free_bytes} bytes that are free"),
        );
        error.numbers = [asked_bytes, free_bytes];
        error
    }

    /// A file operation failed; keeps its `errno`.
    pub fn io(what: impl fmt::Display, source: &std::io::Error) -> Self {
        let mut error = Self::new(DS_IO, format!("{what}: {source}"));
        error.vendor_code = source.raw_os_error().unwrap_or(0);
        error
    }

    /// Keeps the vendor's own number.
    #[must_use]
    pub fn with_vendor_code(mut self, code: i32) -> Self {
        self.vendor_code = code;
        self
    }

    /// Adds `DS_ERROR_*` bits.
    #[must_use]
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// Says which constraint failed, by its index.
    #[must_use]
    pub fn with_reason(mut self, constraint: u32) -> Self {
        self.reason = constraint;
        self
    }

    /// The status that goes over the boundary.
    pub fn status(&self) -> DsStatus {
        self.status
    }

    /// The words.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a payload that is not text");
        Self::new(DS_PLUGIN_BUG, format!("the plugin panicked: {text}"))
    }

    /// Writes the error into the caller's sink, within the sink's own size, and gives the status.
    ///
    /// # Safety
    /// `sink` is null or points to a sink whose `struct_size` tells how much of it may be written,
    /// and whose `message` has `message_capacity` writable bytes.
    pub(crate) unsafe fn write(&self, sink: *mut DsErrorSink) -> DsStatus {
        // SAFETY: the caller passes null or a valid sink; `struct_size` is its first field.
        let Some(size) = (!sink.is_null()).then(|| unsafe { (*sink).struct_size }) else {
            return self.status;
        };
        if (size as usize) < size_of::<DsErrorSink>() {
            return self.status;
        }
        // SAFETY: non-null, at least as large as the struct, and exclusively ours for the call.
        let sink = unsafe { &mut *sink };
        let room = if sink.message.is_null() {
            0
        } else {
            sink.message_capacity as usize
        };
        let kept = floor_char_boundary(&self.message, room);
        if kept > 0 {
            let from = self.message.as_ptr().cast::<c_char>();
            // SAFETY: `kept` is within the message and within the caller's capacity, and a Rust
            // string never overlaps the caller's buffer.
            unsafe { std::ptr::copy_nonoverlapping(from, sink.message, kept) };
        }
        sink.code = self.status;
        sink.vendor_code = self.vendor_code;
        sink.flags = self.flags
            | if kept < self.message.len() {
                DS_ERROR_TRUNCATED
            } else {
                0
            };
        [sink.a, sink.b] = self.numbers;
        sink.reason = self.reason;
        sink.message_len = u32::try_from(kept).unwrap_or(u32::MAX);
        self.status
    }
}

/// The longest prefix of `text` of at most `room` bytes that ends between characters.
fn floor_char_boundary(text: &str, room: usize) -> usize {
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.vendor_code {
            0 => Ok(()),
            code => write!(f, " (code {code})"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each sink here is a local, valid one"
)]
mod tests {
    use super::*;

    fn sink(buffer: &mut [u8], struct_size: usize) -> DsErrorSink {
        DsErrorSink {
            struct_size: u32::try_from(struct_size).unwrap(),
            code: 0,
            vendor_code: 0,
            flags: 0,
            a: 0,
            b: 0,
            reason: 0,
            message_len: 0,
            message_capacity: u32::try_from(buffer.len()).unwrap(),
            reserved: 0,
            message: buffer.as_mut_ptr().cast(),
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters_and_says_so() {
        let mut buffer = [b'#'; 8];
        let mut sink = sink(&mut buffer, size_of::<DsErrorSink>());
        // Seven bytes, then a two-byte character that does not fit any more.
        let status = unsafe { Error::unsupported("sevenbyé").write(&raw mut sink) };
        assert_eq!(
            (status, sink.code, sink.message_len),
            (DS_UNSUPPORTED, DS_UNSUPPORTED, 7)
        );
        assert_eq!(sink.flags, DS_ERROR_TRUNCATED);
        assert_eq!(&buffer, b"sevenby#");
    }

    #[test]
    fn a_sink_of_an_older_size_is_left_alone() {
        let mut buffer = [b'#'; 8];
        let mut sink = sink(&mut buffer, size_of::<DsErrorSink>() - 8);
        assert_eq!(
            unsafe { Error::timeout("late").write(&raw mut sink) },
            DS_TIMEOUT
        );
        assert_eq!((sink.code, &buffer), (0, b"########"));
    }

    #[test]
    fn out_of_memory_carries_both_numbers() {
        let mut buffer = [0; 128];
        let mut sink = sink(&mut buffer, size_of::<DsErrorSink>());
        unsafe { Error::out_of_memory(10, 3).write(&raw mut sink) };
        assert_eq!((sink.a, sink.b), (10, 3));
    }
}
