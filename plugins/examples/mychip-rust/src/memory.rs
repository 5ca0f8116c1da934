//! Memory: the host's allocator stands in for the driver's. No caching here: the host's pool asks
//! for large pieces, and seldom.

use std::{
    alloc::{Layout, alloc, dealloc},
    ffi::c_void,
    sync::atomic::{AtomicU64, Ordering},
};

use ds_plugin::{
    Error, MemoryInfo, Result,
    abi::{DS_MEMORY_DEVICE, DS_OUT_OF_HOST_MEMORY},
};

/// How much the device pretends to have.
pub(crate) const TOTAL_BYTES: u64 = 1 << 30;
/// What every allocation is aligned to; the device's description says so, and the host asks for it.
pub(crate) const ALIGNMENT_BYTES: u32 = 256;

/// The memory of the device.
#[derive(Default)]
pub(crate) struct Memory {
    used_bytes: AtomicU64,
}

impl Memory {
    pub(crate) fn allocate(&self, bytes: u64, alignment: u64, kind: u32) -> Result<*mut c_void> {
        if kind != DS_MEMORY_DEVICE || alignment > u64::from(ALIGNMENT_BYTES) {
            return Err(Error::unsupported(format!(
                "memory of kind {kind} aligned to {alignment} bytes; mychip has its own, aligned \
                 to {ALIGNMENT_BYTES}"
            )));
        }
        let layout = layout(bytes)?;
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= TOTAL_BYTES);
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|used| Error::out_of_memory(bytes, TOTAL_BYTES - used))?;
        // SAFETY: `bytes` is never 0; `ds-plugin` refuses that before it calls.
        let address = unsafe { alloc(layout) };
        if address.is_null() {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let text = format!("the host has no {bytes} bytes");
            return Err(Error::new(DS_OUT_OF_HOST_MEMORY, text));
        }
        Ok(address.cast())
    }

    /// # Safety
    /// `address` came from `allocate` with the same size, and no work uses it any more.
    pub(crate) unsafe fn free(&self, address: *mut c_void, bytes: u64) -> Result<()> {
        // SAFETY: allocated with this layout, as the caller says.
        unsafe { dealloc(address.cast(), layout(bytes)?) };
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn info(&self) -> MemoryInfo {
        MemoryInfo {
            total_bytes: TOTAL_BYTES,
            free_bytes: TOTAL_BYTES - self.used_bytes.load(Ordering::Relaxed),
        }
    }
}

fn layout(bytes: u64) -> Result<Layout> {
    Layout::from_size_align(size(bytes)?, ALIGNMENT_BYTES as usize)
        .map_err(|e| Error::invalid_argument(format!("{bytes} bytes: {e}")))
}

pub(crate) fn size(bytes: u64) -> Result<usize> {
    usize::try_from(bytes)
        .map_err(|_| Error::invalid_argument(format!("{bytes} bytes exceed the address space")))
}

/// An address on its way to the thread of a stream.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) *mut c_void);
// SAFETY: the host keeps what lies there valid until the stream has passed the work that uses it.
unsafe impl Send for Address {}

impl Address {
    // A method takes the whole of it into a closure; the field alone could not be sent.
    pub(crate) fn get<T>(self) -> *mut T {
        self.0.cast()
    }
}
