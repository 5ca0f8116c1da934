//! Op sets: DeepSpeed's names for groups of ops, and the ops that each has here.

use std::collections::BTreeMap;

use ds_core::op::{self, Op};

use crate::{report, view::Outcome};

/// Every op set that is known, with the ops of it that are here; none for one of upstream's that
/// this version lacks. A plugin's own are known once it is loaded.
pub(crate) struct Sets(BTreeMap<String, Vec<&'static Op>>);

impl Sets {
    pub(crate) fn known() -> Self {
        let upstream = report::upstream().into_keys();
        let mut sets: BTreeMap<_, _> = upstream.map(|name| (name, Vec::new())).collect();
        for op in op::ops() {
            for set in op.sets() {
                sets.entry(set.clone()).or_default().push(op);
            }
        }
        Self(sets)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[&'static Op])> {
        let sets = self.0.iter();
        sets.map(|(name, ops)| (name.as_str(), ops.as_slice()))
    }

    /// The ops of the set of that name.
    pub(crate) fn here(&self, set: &str) -> &[&'static Op] {
        self.0.get(set).map_or(&[], Vec::as_slice)
    }

    /// The ops of the set, or the op, of that name; none for a set that this version lacks.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<&'static Op>> {
        let op = || op::find(name).ok().map(|op| vec![op]);
        self.0.get(name).cloned().or_else(op)
    }

    /// As [`Sets::find`].
    ///
    /// # Errors
    /// When there is neither: ends the command with the names that there are.
    pub(crate) fn ops(&self, name: &str) -> Result<Vec<&'static Op>, Outcome> {
        self.find(name).ok_or_else(|| {
            let here = self.iter().filter(|(_, ops)| !ops.is_empty());
            let sets: Vec<&str> = here.map(|(name, _)| name).collect();
            let ops: Vec<&str> = op::ops().iter().map(|op| op.name()).collect();
            let hint = format!(
                "op sets are {}; ops are {}",
                sets.join(", "),
                ops.join(", ")
            );
            Outcome::wrong(&format!("there is no op set and no op '{name}'"), &hint)
        })
    }
}
