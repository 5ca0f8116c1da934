//! The locks of the pool: std's, or loom's where a model of it runs every order of events
//! ([`super::models`]).

#[cfg(not(all(loom, test)))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(all(loom, test))]
pub(super) use loom::sync::{Mutex, MutexGuard};
