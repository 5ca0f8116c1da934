//! How much memory this process may lock.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};
use serde::Serialize;

use crate::sizes::size;

/// Where the limit is raised.
pub(crate) const RAISE: &str =
    "raise it there, by memlock in /etc/security/limits.conf or a container's --ulimit memlock=-1";

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Locking {
    /// Nothing where there is no limit.
    pub(crate) limit_bytes: Option<u64>,
    /// Whether a limit is set that `CAP_IPC_LOCK` lifts.
    is_lifted: bool,
}

impl Locking {
    pub(crate) fn of_this_process() -> Self {
        let limit = getrlimit(Resource::Memlock).current;
        let is_lifted = limit.is_some() && may_lock_all();
        Self {
            limit_bytes: limit.filter(|_| !is_lifted),
            is_lifted,
        }
    }

    /// Such as `up to 8.0 MiB (`ulimit -l`)`.
    pub(crate) fn words(&self) -> String {
        match self.limit_bytes {
            Some(0) => "nothing (`ulimit -l` is 0)".to_owned(),
            Some(limit) => format!("up to {} (`ulimit -l`)", size(limit)),
            None if self.is_lifted => "without a limit (CAP_IPC_LOCK)".to_owned(),
            None => "without a limit".to_owned(),
        }
    }
}

/// Whether the process has `CAP_IPC_LOCK` where the kernel asks for it: in the first user namespace.
/// What a container without root calls its root has it in its own one only.
fn may_lock_all() -> bool {
    /// The map of the first user namespace: all numbers, as they are.
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
        && map.split_whitespace().eq(ALL)
}
