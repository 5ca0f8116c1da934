//! What the calls of a device run on, kept from the first call of a signature on.

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{call::RunsOn, prepare::Prepared, unready::Unready};
use crate::Device;

/// Signatures that a device keeps prepared; a training step has a few hundred.
const MAX_PREPARED: usize = 2048;

/// What a signature runs on, and what it would rather have run on.
pub(super) struct Plan {
    pub(super) way: Way,
    /// Kernels that take the call and are not ready for it, best first.
    pub(super) unready: Vec<Unready>,
}

/// What a signature runs on.
pub(super) enum Way {
    Kernel(Prepared),
    /// A kernel under `DS_DEBUG`: waited for, or held against the reference.
    Watched(Prepared),
    /// The reference implementation, and why no kernel runs.
    Reference(String),
    /// No element is written.
    Nothing,
}

impl Plan {
    pub(super) fn name(&self) -> &str {
        match &self.way {
            Way::Kernel(prepared) | Way::Watched(prepared) => &prepared.kernel().name,
            Way::Reference(_) => "reference",
            Way::Nothing => "nothing",
        }
    }

    pub(super) fn runs_on(&self) -> RunsOn {
        match &self.way {
            Way::Kernel(prepared) | Way::Watched(prepared) => {
                RunsOn::Kernel(&prepared.kernel().name)
            }
            Way::Reference(why) => RunsOn::Reference(why.clone()),
            Way::Nothing => RunsOn::Nothing,
        }
    }
}

/// A device's plans, bounded: the longest unused go first.
#[derive(Default)]
pub(crate) struct Plans {
    hasher: DefaultHashBuilder,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashTable<Entry>,
    /// Counts look-ups.
    tick: u64,
}

struct Entry {
    key: Box<[u64]>,
    plan: Arc<Plan>,
    /// Tick of the last use.
    used: u64,
}

impl Plans {
    /// The plan of the call with this key.
    #[inline]
    pub(super) fn find(&self, key: &[u64]) -> Option<Arc<Plan>> {
        let hash = self.hasher.hash_one(key);
        let mut kept = self.lock();
        kept.tick += 1;
        let tick = kept.tick;
        let entry = kept.entries.find_mut(hash, |entry| *entry.key == *key)?;
        entry.used = tick;
        Some(Arc::clone(&entry.plan))
    }

    /// Keeps a plan of `device`.
    pub(super) fn add(&self, device: Device, key: &[u64], plan: Plan) -> Arc<Plan> {
        let plan = Arc::new(plan);
        let mut kept = self.lock();
        let evicted = if kept.entries.len() < MAX_PREPARED {
            Vec::new()
        } else {
            kept.evict()
        };
        let entry = Entry {
            key: key.into(),
            plan: Arc::clone(&plan),
            used: kept.tick,
        };
        let hash = self.hasher.hash_one(key);
        kept.entries
            .insert_unique(hash, entry, |e| self.hasher.hash_one(&*e.key));
        drop(kept);
        if !evicted.is_empty()
            && let Err(e) = device.synchronize()
        {
            // Launches of what goes may be pending on a device that failed: leak rather than risk.
            log::warn!("{} prepared kernels stay: {e}", evicted.len());
            evicted.into_iter().for_each(std::mem::forget);
        }
        plan
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Takes out the quarter that was unused for longest.
    fn evict(&mut self) -> Vec<Entry> {
        let mut ages: Vec<_> = self.entries.iter().map(|e| e.used).collect();
        ages.sort_unstable();
        let limit = ages.get(ages.len() / 4).copied().unwrap_or(0);
        self.entries.extract_if(|e| e.used <= limit).collect()
    }
}
