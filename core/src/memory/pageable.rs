//! Ordinary host memory: what the host allocates itself, for any device.

use std::{
    alloc::{self, Layout},
    ffi::c_void,
};

use crate::{Error, ErrorKind, Result};

/// Memory of the host's allocator.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`].
pub(super) fn allocate(bytes: u64, alignment: usize) -> Result<*mut c_void> {
    let layout = layout(bytes, alignment).ok_or_else(|| out_of_memory(bytes))?;
    // SAFETY: the layout has a size; the caller asks for at least a byte.
    let address = unsafe { alloc::alloc(layout) };
    if address.is_null() {
        return Err(out_of_memory(bytes));
    }
    Ok(address.cast())
}

/// Gives it back.
///
/// # Safety
/// `address` came from [`allocate`] with these numbers, and nothing uses it any more.
pub(super) unsafe fn free(address: *mut c_void, bytes: u64, alignment: usize) {
    if let Some(layout) = layout(bytes, alignment) {
        // SAFETY: the caller's promise.
        unsafe { alloc::dealloc(address.cast(), layout) };
    }
}

fn layout(bytes: u64, alignment: usize) -> Option<Layout> {
    Layout::from_size_align(usize::try_from(bytes).ok()?, alignment).ok()
}

fn out_of_memory(bytes: u64) -> Error {
    let text = format!("the host's allocator has no {bytes} bytes");
    Error::new(ErrorKind::OutOfMemory, "allocate host memory", text)
}
