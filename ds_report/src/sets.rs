//! Op sets: DeepSpeed's names for groups of ops, and the ops that each has here.

use std::collections::BTreeMap;

use ds_core::op::{self, Op};

use crate::{report, view::Outcome};

/// Every op set that is known, with the ops of it that are here; none for one of upstream's that
/// this version lacks, or that is a service. A plugin's own are known once it is loaded.
pub(crate) struct Sets {
    ops: BTreeMap<String, Vec<&'static Op>>,
    /// Those of the host's services, with the command that tells more.
    services: BTreeMap<String, String>,
}

impl Sets {
    pub(crate) fn known() -> Self {
        let upstream = report::upstream();
        let services = upstream.iter().filter_map(|(name, set)| {
            let view = set.as_ref()?.service.clone()?;
            Some((name.clone(), view))
        });
        let services = services.collect();
        let names = upstream.into_keys();
        let mut sets: BTreeMap<_, _> = names.map(|name| (name, Vec::new())).collect();
        for op in op::ops() {
            for set in op.sets() {
                sets.entry(set.clone()).or_default().push(op);
            }
        }
        Self {
            ops: sets,
            services,
        }
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[&'static Op])> {
        let sets = self.ops.iter();
        sets.map(|(name, ops)| (name.as_str(), ops.as_slice()))
    }

    /// The ops of the set of that name.
    pub(crate) fn here(&self, set: &str) -> &[&'static Op] {
        self.ops.get(set).map_or(&[], Vec::as_slice)
    }

    /// The ops of the set, or the op, of that name; none for a set that this version lacks.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<&'static Op>> {
        let op = || op::find(name).ok().map(|op| vec![op]);
        self.ops.get(name).cloned().or_else(op)
    }

    /// The command that tells of a set which is a service of the host.
    pub(crate) fn service(&self, set: &str) -> Option<String> {
        let view = self.services.get(set)?;
        Some(format!("ds_report {view}"))
    }

    /// As [`Sets::ops`], at least one.
    ///
    /// # Errors
    /// As there, and for a set that has no ops here, with what there is of it.
    pub(crate) fn some_ops(&self, name: &str) -> Result<Vec<&'static Op>, Outcome> {
        let ops = self.ops(name)?;
        if !ops.is_empty() {
            return Ok(ops);
        }
        Err(match self.service(name) {
            Some(command) => Outcome::refused(
                &format!("'{name}' has no ops: it is a service of the host"),
                &format!("`{command}` tells how it stands"),
            ),
            None => Outcome::failed(&format!("op set '{name}' is not in this version")),
        })
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
