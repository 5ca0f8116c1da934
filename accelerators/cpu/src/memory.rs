//! Memory: the host's allocator, with huge pages for large blocks and locked pages on request.

use std::{ffi::c_void, ptr};

use ds_plugin::{
    Error, Result,
    abi::{DS_MEMORY_DEVICE, DS_MEMORY_PINNED, DS_MEMORY_SHARED},
};
use rustix::{
    mm::{Advice, madvise, mlock, munlock},
    process::{Resource, getrlimit},
};

use crate::probe;

/// Alignment of every block: a cache line, and a full vector register.
pub(crate) const ALIGNMENT_BYTES: usize = 64;
/// Size of a transparent huge page on x86-64, and from where on one is worth its alignment.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// From this size on a block is held against the memory that is available: Linux would hand out
/// addresses for more than there is and kill the process when they are touched.
const CHECKED_BYTES: usize = 64 << 20;

/// Allocates a block; its pages come when they are touched.
pub(crate) fn allocate(bytes: u64, alignment: u64, kind: u32) -> Result<*mut c_void> {
    let pinned = match kind {
        DS_MEMORY_DEVICE | DS_MEMORY_SHARED => false,
        DS_MEMORY_PINNED => true,
        other => {
            return Err(Error::unsupported(format!(
                "memory of kind {other} is not known here"
            )));
        }
    };
    let too_large =
        || Error::invalid_argument(format!("{bytes} bytes aligned to {alignment} is no block"));
    let size = usize::try_from(bytes)
        .ok()
        .filter(|n| n.cast_signed() > 0)
        .ok_or_else(too_large)?;
    // Pages are locked whole, so no two locked blocks may share one.
    let page = rustix::param::page_size();
    let size = if pinned {
        size.checked_next_multiple_of(page).ok_or_else(too_large)?
    } else {
        size
    };
    let least = match size {
        _ if size >= 2 * HUGE_PAGE_BYTES => HUGE_PAGE_BYTES,
        _ if pinned => page,
        _ => ALIGNMENT_BYTES,
    };
    let alignment = usize::try_from(alignment)
        .map_err(|_| too_large())?
        .max(least);
    if size >= CHECKED_BYTES {
        let (_, available) = probe::memory_bytes()?;
        if bytes > available {
            return Err(Error::out_of_memory(bytes, available));
        }
    }
    let mut address = ptr::null_mut();
    // SAFETY: `address` is writable; the alignment is a power of two of at least a pointer's size.
    if unsafe { libc::posix_memalign(&raw mut address, alignment, size) } != 0 {
        return Err(Error::out_of_memory(
            bytes,
            probe::memory_bytes().map_or(0, |(_, free)| free),
        ));
    }
    if alignment >= HUGE_PAGE_BYTES {
        // SAFETY: the range is the block just allocated. Only a hint: a refusal changes nothing.
        let _ = unsafe { madvise(address, size, Advice::LinuxHugepage) };
    }
    if pinned {
        // SAFETY: the range is the block just allocated.
        if let Err(errno) = unsafe { mlock(address, size) } {
            // SAFETY: allocated above, and given to nobody.
            unsafe { libc::free(address) };
            let what = format!("lock {size} bytes in memory: {}", lock_limit(size));
            return Err(Error::io(what, &errno.into()));
        }
    }
    Ok(address)
}

/// What keeps this process from locking `size` bytes more, with the number that it would take.
fn lock_limit(size: usize) -> String {
    let Some(limit) = getrlimit(Resource::Memlock).current else {
        return "no limit is set".to_owned();
    };
    let locked = probe::locked_bytes().unwrap_or(0);
    let needed_kib = (locked + size as u64).div_ceil(1024);
    format!(
        "{locked} are locked already, and this process may lock {limit}; raise the limit with \
         `ulimit -l {needed_kib}` (KiB), memlock in /etc/security/limits.conf or a container's \
         --ulimit memlock={}",
        needed_kib * 1024
    )
}

/// Frees a block.
///
/// # Safety
/// `address` came from [`allocate`] with the same size and kind and is not used any more.
pub(crate) unsafe fn free(address: *mut c_void, bytes: u64, kind: u32) {
    if kind == DS_MEMORY_PINNED {
        // SAFETY: the block is still ours. Freeing unlocks pages only when they go back to the
        // system, which the allocator need not do.
        let _ = unsafe { munlock(address, usize::try_from(bytes).unwrap_or(0)) };
    }
    // SAFETY: the caller's promise.
    unsafe { libc::free(address) };
}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each block frees what it just allocated"
)]
mod tests {
    use ds_plugin::abi::{DS_INVALID_ARGUMENT, DS_OUT_OF_MEMORY, DS_UNSUPPORTED};

    use super::*;

    #[test]
    fn blocks_are_aligned_and_writable_to_the_last_byte() {
        for (bytes, alignment) in [(1, 1), (65, 256), (8 << 20, 64), (100, 4096)] {
            let address = allocate(bytes, alignment, DS_MEMORY_DEVICE).unwrap();
            assert_eq!(
                address.addr() % usize::try_from(alignment.max(64)).unwrap(),
                0
            );
            let last = usize::try_from(bytes).unwrap() - 1;
            unsafe { address.cast::<u8>().add(last).write(7) };
            unsafe { free(address, bytes, DS_MEMORY_DEVICE) };
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_kind() {
        let status = |bytes, kind| allocate(bytes, 64, kind).unwrap_err().status();
        assert_eq!(status(1 << 60, DS_MEMORY_DEVICE), DS_OUT_OF_MEMORY);
        assert_eq!(status(u64::MAX, DS_MEMORY_DEVICE), DS_INVALID_ARGUMENT);
        assert_eq!(status(64, 99), DS_UNSUPPORTED);
    }
}
