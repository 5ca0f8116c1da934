//! Calls over the boundary: one sink on the stack, one macro, one place where statuses become
//! errors.

use std::ffi::c_char;

use ds_abi::{
    DS_BUILD_FAILED, DS_CANCELLED, DS_CONSTRAINT, DS_DEVICE_LOST, DS_ERROR_TRUNCATED, DS_FORKED,
    DS_INCOMPATIBLE_ABI, DS_INVALID_ARGUMENT, DS_IO, DS_NO_DEVICE, DS_NOT_READY, DS_OK,
    DS_OUT_OF_HOST_MEMORY, DS_OUT_OF_MEMORY, DS_PLUGIN_BUG, DS_SHUTTING_DOWN, DS_STALE, DS_TIMEOUT,
    DS_UNAVAILABLE, DS_UNIMPLEMENTED, DS_UNSUPPORTED, DsErrorSink, DsStatus,
};

use crate::error::{Error, ErrorKind};

/// Calls `$plugin.tables().$table.$slot(args…, sink)` and turns the status into a `Result`. A slot
/// that the plugin left empty is an `unimplemented` error with the slot's name, so that no caller
/// ever meets a null function. In a child of `fork` nothing is called.
///
/// Expands to an `unsafe` call: the caller's `// SAFETY:` comment belongs in front of it.
macro_rules! call {
    ($plugin:expr, $table:ident.$slot:ident($($argument:expr),* $(,)?)) => {{
        let plugin: &$crate::plugin::Plugin = $plugin;
        match plugin.tables().$table.$slot {
            _ if $crate::fork::is_child() => Err($crate::fork::refusal(stringify!($slot))),
            Some(function) => {
                let mut text = $crate::plugin::call::buffer();
                let mut sink = $crate::plugin::call::sink(&mut text);
                let status = function($($argument,)* &raw mut sink);
                if status == ds_abi::DS_OK {
                    Ok(())
                } else {
                    Err($crate::plugin::call::failure(
                        plugin.accelerator(), stringify!($slot), status, &sink, &text,
                    ))
                }
            }
            None => Err($crate::plugin::call::empty_slot(
                plugin.accelerator(), stringify!($table), stringify!($slot),
            )),
        }
    }};
}
pub(crate) use call;

/// Longest message that is kept, in bytes.
const MESSAGE_BYTES: usize = 512;

pub(crate) type Buffer = [u8; MESSAGE_BYTES];

/// A message buffer. Zeros, so that nothing of this process shows where a plugin claims to have
/// written more than it has.
#[inline]
pub(crate) fn buffer() -> Buffer {
    [0; MESSAGE_BYTES]
}

/// A sink over `text`.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both are small constants")]
pub(crate) fn sink(text: &mut Buffer) -> DsErrorSink {
    DsErrorSink {
        struct_size: size_of::<DsErrorSink>() as u32,
        code: DS_OK,
        vendor_code: 0,
        flags: 0,
        a: 0,
        b: 0,
        reason: 0,
        message_len: 0,
        message_capacity: MESSAGE_BYTES as u32,
        reserved: 0,
        message: text.as_mut_ptr().cast::<c_char>(),
    }
}

/// Room for a struct that a plugin fills, with a guard behind it: who fills more than the size that
/// they were given writes there, and is found out.
#[repr(C)]
pub(crate) struct Guarded<T> {
    value: T,
    guard: [u8; GUARD_BYTES],
}

const GUARD_BYTES: usize = 256;
/// Neither zeros nor ones, nor half of an address: what a struct might end with.
const GUARD: u8 = 0xa5;

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value,
            guard: [GUARD; GUARD_BYTES],
        }
    }

    /// For the plugin. Derived from the whole, so that the compiler expects writes to the guard.
    pub(crate) fn pointer(&mut self) -> *mut T {
        (&raw mut *self).cast()
    }

    /// What `function` of the plugin filled.
    ///
    /// # Errors
    /// [`ErrorKind::PluginBug`] when it filled more than that.
    pub(crate) fn filled(self, accelerator: &str, function: &str) -> Result<T, Error> {
        if self.guard == [GUARD; GUARD_BYTES] {
            return Ok(self.value);
        }
        Err(Error::new(
            ErrorKind::PluginBug,
            format!("{accelerator} {function}"),
            format!(
                "it wrote past the end of the {} bytes that it was given",
                size_of::<T>()
            ),
        ))
    }
}

/// The error that `status` and the sink describe. A plugin that fails without filling the sink
/// still gives an error with the function's name.
#[cold]
pub(crate) fn failure(
    accelerator: &str,
    function: &'static str,
    status: DsStatus,
    sink: &DsErrorSink,
    text: &Buffer,
) -> Error {
    let len = (sink.message_len as usize).min(MESSAGE_BYTES);
    let written = text[..len].split(|&byte| byte == 0).next().unwrap_or(&[]);
    let mut message = String::from_utf8_lossy(written).into_owned();
    if message.is_empty() {
        message = format!("{function} failed with status {status} and no message");
    }
    if sink.flags & DS_ERROR_TRUNCATED != 0 {
        message.push('…');
    }
    if sink.vendor_code != 0 && !message.contains(&sink.vendor_code.to_string()) {
        message = format!("{message} (code {})", sink.vendor_code);
    }
    Error::new(kind(status), format!("{accelerator} {function}"), message)
}

#[cold]
pub(crate) fn empty_slot(accelerator: &str, table: &'static str, slot: &'static str) -> Error {
    Error::new(
        ErrorKind::Unimplemented,
        format!("{accelerator} {slot}"),
        format!("the plugin has no '{slot}' in its {table} table"),
    )
}

/// What kind of error a status is.
pub(crate) fn kind(status: DsStatus) -> ErrorKind {
    match status {
        DS_INVALID_ARGUMENT => ErrorKind::InvalidArgument,
        DS_UNSUPPORTED => ErrorKind::Unsupported,
        DS_UNIMPLEMENTED => ErrorKind::Unimplemented,
        DS_UNAVAILABLE => ErrorKind::LibraryNotFound,
        DS_NO_DEVICE => ErrorKind::NoDevice,
        DS_OUT_OF_MEMORY | DS_OUT_OF_HOST_MEMORY => ErrorKind::OutOfMemory,
        DS_DEVICE_LOST => ErrorKind::DeviceLost,
        DS_NOT_READY => ErrorKind::NotReady,
        DS_TIMEOUT => ErrorKind::Timeout,
        DS_IO => ErrorKind::Io,
        DS_BUILD_FAILED => ErrorKind::BuildFailed,
        DS_INCOMPATIBLE_ABI | DS_STALE => ErrorKind::Incompatible,
        DS_CONSTRAINT => ErrorKind::NoKernel,
        DS_PLUGIN_BUG => ErrorKind::PluginBug,
        DS_CANCELLED => ErrorKind::Cancelled,
        DS_SHUTTING_DOWN | DS_FORKED => ErrorKind::ShuttingDown,
        _ => ErrorKind::Internal,
    }
}

/// The status that stands for an error when the host signals a failed point.
pub(crate) fn status_of(kind: ErrorKind) -> DsStatus {
    match kind {
        ErrorKind::InvalidArgument => DS_INVALID_ARGUMENT,
        ErrorKind::Unsupported => DS_UNSUPPORTED,
        ErrorKind::OutOfMemory => DS_OUT_OF_MEMORY,
        ErrorKind::DeviceLost => DS_DEVICE_LOST,
        ErrorKind::Io => DS_IO,
        ErrorKind::Timeout => DS_TIMEOUT,
        _ => DS_CANCELLED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_was_written_whatever_its_length_claims() {
        let mut text = buffer();
        let mut sink = sink(&mut text);
        text[..2].copy_from_slice(b"no");
        for claimed in [2, 400, u32::MAX] {
            sink.message_len = claimed;
            let error = failure("sim", "open", DS_IO, &sink, &text);
            assert_eq!(error.to_string(), "sim open: no");
        }
        sink.message_len = 0;
        let error = failure("sim", "open", DS_IO, &sink, &text);
        assert!(error.to_string().ends_with("status 10 and no message"));
    }
}
