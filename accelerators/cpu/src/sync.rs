//! What streams and timelines are made of: std's, or loom's where a model of them runs every order of
//! events ([`crate::models`]).

#[cfg(not(all(loom, test)))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

#[cfg(all(loom, test))]
pub(crate) use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

#[cfg(not(all(loom, test)))]
pub(crate) use crate::pool::spin_until;

/// In a model nobody is worth a look more: who is not done sleeps.
#[cfg(all(loom, test))]
pub(crate) fn spin_until(done: impl Fn() -> bool) -> bool {
    done()
}
