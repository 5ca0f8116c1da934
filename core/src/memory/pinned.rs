//! Which addresses are page-locked: upstream's `is_pinned`, which has to answer for any pointer.

use std::{
    collections::BTreeMap,
    ffi::c_void,
    sync::{PoisonError, RwLock},
};

/// First address and size of every live block of pinned memory, of all devices.
static BLOCKS: RwLock<BTreeMap<usize, u64>> = RwLock::new(BTreeMap::new());

/// Whether all of these bytes lie in one live buffer of [`super::MemoryKind::Pinned`].
pub fn is_pinned(address: *const c_void, bytes: u64) -> bool {
    let blocks = BLOCKS.read().unwrap_or_else(PoisonError::into_inner);
    let Some((start, size)) = blocks.range(..=address.addr()).next_back() else {
        return false;
    };
    let offset = (address.addr() - start) as u64;
    offset.checked_add(bytes).is_some_and(|end| end <= *size)
}

pub(super) fn add(address: *mut c_void, bytes: u64) {
    let mut blocks = BLOCKS.write().unwrap_or_else(PoisonError::into_inner);
    blocks.insert(address.addr(), bytes);
}

pub(super) fn remove(address: *mut c_void) {
    let mut blocks = BLOCKS.write().unwrap_or_else(PoisonError::into_inner);
    blocks.remove(&address.addr());
}
