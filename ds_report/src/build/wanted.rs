//! What to build: the names of the command line, else what `DS_BUILD_OPS` and `DS_BUILD_<SET>` say.
//!
//! The variables are upstream's and mean what they mean there, but for one thing: upstream drops a
//! set that was asked for and cannot be built, and here that is a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
};

use ds_core::{Error, ErrorKind, op::Op};
use serde::Serialize;

use crate::{report::missing_everywhere, sets::Sets, view::Outcome};

/// The switch of every set that has none of its own.
const DEFAULT: &str = "DS_BUILD_OPS";
const PREFIX: &str = "DS_BUILD_";

/// Sets whose switch upstream calls otherwise than the set.
///
/// # Source
/// `BUILD_VAR` of the builders in `DeepSpeed/op_builder`.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("async_io", "AIO"),
    ("dc", "DEEP_COMPILE"),
    ("deepspeed_ccl_comm", "CCL_COMM"),
    ("deepspeed_shm_comm", "SHM_COMM"),
    ("flash_attn", "FlashAttention"),
    ("packbits", "PACK_BITS"),
];
/// Variables that begin alike and switch no set.
const NO_SWITCHES: [&str; 5] = [
    DEFAULT,
    "DS_BUILD_ENV",
    "DS_BUILD_NOT_IMPLEMENTED",
    "DS_BUILD_STRING",
    "DS_BUILD_TIMEOUT",
];

/// What to build, and why not the rest.
pub(super) struct Wanted {
    /// By name, each once.
    pub(super) ops: Vec<&'static Op>,
    /// What was asked for in so many words, so that it must not be left out silently.
    pub(super) asked: Vec<Asked>,
    pub(super) left_out: Vec<LeftOut>,
}

/// An op set or op that was asked for.
pub(super) struct Asked {
    /// Its name; with the variable, where it was one that asked.
    pub(super) name: String,
    /// None when this version lacks it, and for a service.
    pub(super) ops: Vec<&'static Op>,
    /// What there is to say of it, where it is a service of the host: why it cannot be had, or which
    /// command tells of it.
    pub(super) service: Option<Result<String, &'static str>>,
}

impl Asked {
    fn new(name: String, set: &str, ops: Vec<&'static Op>, sets: &Sets) -> Self {
        let service = sets.service(set);
        Self {
            name,
            ops,
            service: service.map(|command| missing_everywhere(set).map_or(Ok(command), Err)),
        }
    }
}

/// An op set that a variable leaves out.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LeftOut {
    pub(super) op_set: String,
    /// The variable and its value.
    pub(super) by: String,
    /// Ops of it that are built all the same, because a set that is not left out has them too.
    pub(super) kept: Vec<String>,
}

impl Wanted {
    /// What `names` ask for, else what `variables` leave in; all of it when they say nothing.
    ///
    /// # Errors
    /// A name that is unknown, or a switch that is neither 0 nor 1.
    pub(super) fn of(
        names: &[String],
        sets: &Sets,
        variables: &BTreeMap<String, OsString>,
    ) -> Result<Self, Outcome> {
        let mut asked = Vec::new();
        for name in names {
            asked.push(Asked::new(name.clone(), name, sets.ops(name)?, sets));
        }
        let mut left_out = Vec::new();
        let mut ops: Vec<_> = asked.iter().flat_map(|a| a.ops.iter().copied()).collect();
        if names.is_empty() {
            warn_of_strangers(sets, variables);
            let switch = |name: &str| switch(variables, name);
            let default = switch(DEFAULT)?.unwrap_or(true);
            for (set, own) in sets.iter() {
                let mut own_switch = None;
                for name in switches(set) {
                    if own_switch.is_none() {
                        own_switch = switch(&name)?.map(|on| (name, on));
                    }
                }
                match own_switch {
                    Some((name, true)) => {
                        let name = format!("{set} ({name}=1)");
                        asked.push(Asked::new(name, set, own.to_vec(), sets));
                    }
                    Some((name, false)) => left_out.push((set, format!("{name}=0"))),
                    None if !default => left_out.push((set, format!("{DEFAULT}=0"))),
                    None => {}
                }
                if left_out.last().is_none_or(|(last, _)| *last != set) {
                    ops.extend(own.iter().copied());
                }
            }
        }
        ops.sort_by_key(|op| op.name());
        ops.dedup_by_key(|op| op.name());
        let kept = |set: &str| {
            let own = sets.here(set).iter().map(|op| op.name());
            own.filter(|name| ops.iter().any(|op| op.name() == *name))
                .map(str::to_owned)
                .collect()
        };
        let left_out = left_out
            .into_iter()
            // What is not here is not left out either.
            .filter(|(set, _)| !sets.here(set).is_empty())
            .map(|(set, by)| LeftOut {
                op_set: set.to_owned(),
                by,
                kept: kept(set),
            })
            .collect();
        Ok(Self {
            ops,
            asked,
            left_out,
        })
    }
}

/// The variables that switch a set, upstream's own first.
fn switches(set: &str) -> Vec<String> {
    let other = OTHER_NAMES.iter().find(|(of, _)| *of == set);
    let upper = set
        .to_uppercase()
        .replace(|c: char| !c.is_alphanumeric(), "_");
    other
        .map(|(_, name)| (*name).to_owned())
        .into_iter()
        .chain([upper])
        .map(|name| format!("{PREFIX}{name}"))
        .collect()
}

/// Whether a switch is on; `None` for one that is unset or empty.
fn switch(variables: &BTreeMap<String, OsString>, name: &str) -> ds_core::Result<Option<bool>> {
    match variables.get(name).map(OsString::as_os_str) {
        Some(value) if value == "0" => Ok(Some(false)),
        Some(value) if value == "1" => Ok(Some(true)),
        Some(value) if !value.is_empty() => Err(Error::new(
            ErrorKind::InvalidArgument,
            "read what to build",
            format!("{name} is '{}'; it must be 0 or 1", OsStr::display(value)),
        )),
        _ => Ok(None),
    }
}

/// A switch whose name is mistyped would otherwise look like one that works.
fn warn_of_strangers(sets: &Sets, variables: &BTreeMap<String, OsString>) {
    let known: BTreeSet<String> = sets.iter().flat_map(|(set, _)| switches(set)).collect();
    for name in variables.keys() {
        if name.starts_with(PREFIX)
            && !known.contains(name)
            && !NO_SWITCHES.contains(&name.as_str())
        {
            log::warn!("{name} switches no op set that is known here, and is ignored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str], variables: &[(&str, &str)]) -> Result<Wanted, Outcome> {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).into(), value.into()))
            .collect();
        Wanted::of(&names, &Sets::known(), &variables)
    }

    fn ops(wanted: &Wanted) -> Vec<&str> {
        wanted.ops.iter().map(|op| op.name()).collect()
    }

    #[test]
    fn all_of_it_without_a_word() {
        let all = wanted(&[], &[("DS_BUILD_OPS", "")]).unwrap();
        assert_eq!(all.ops.len(), ds_core::op::ops().len());
        assert!(all.asked.is_empty() && all.left_out.is_empty());
    }

    #[test]
    fn switches_leave_sets_out_and_take_them_in() {
        let some = wanted(&[], &[("DS_BUILD_OPS", "0"), ("DS_BUILD_FUSED_ADAM", "1")]).unwrap();
        assert_eq!(ops(&some), ["adam_rollback", "adam_step"]);
        assert_eq!(some.asked[0].name, "fused_adam (DS_BUILD_FUSED_ADAM=1)");
        let cpu_adam = some.left_out.iter().find(|of| of.op_set == "cpu_adam");
        assert_eq!(cpu_adam.unwrap().kept, ["adam_rollback", "adam_step"]);

        let variables = [("DS_BUILD_FUSED_ADAM", "0"), ("DS_BUILD_CPU_ADAM", "0")];
        let rest = wanted(&[], &variables).unwrap();
        assert!(!ops(&rest).contains(&"adam_step") && ops(&rest).contains(&"cast"));
        assert!(rest.left_out.iter().all(|of| of.kept.is_empty()));
    }

    #[test]
    fn names_win_over_switches() {
        let variables = [("DS_BUILD_OPS", "0"), ("DS_BUILD_FUSED_ADAM", "0")];
        let named = wanted(&["fused_adam", "cast"], &variables).unwrap();
        assert_eq!(ops(&named), ["adam_rollback", "adam_step", "cast"]);
        assert!(named.left_out.is_empty());
        assert!(wanted(&["nonsense"], &[]).is_err());
    }

    #[test]
    fn what_has_no_ops_is_kept_in_mind() {
        for variable in ["DS_BUILD_AIO", "DS_BUILD_ASYNC_IO"] {
            let asked = wanted(&[], &[(variable, "1")]).unwrap().asked;
            assert_eq!(asked[0].name, format!("async_io ({variable}=1)"));
            assert!(asked[0].ops.is_empty());
            assert_eq!(asked[0].service, Some(Ok("ds_report io".to_owned())));
        }
        let gds = &wanted(&["gds"], &[]).unwrap().asked[0];
        assert!(matches!(gds.service, Some(Err(_))));
        let lacking = &wanted(&["deepspeed_shm_comm"], &[]).unwrap().asked[0];
        assert!(lacking.ops.is_empty() && lacking.service.is_none());
    }

    #[test]
    fn a_switch_is_0_or_1() {
        for name in ["DS_BUILD_OPS", "DS_BUILD_FUSED_ADAM", "DS_BUILD_GDS"] {
            let refused = format!("{:?}", wanted(&[], &[(name, "yes")]).err().unwrap());
            assert!(
                refused.contains(&format!("{name} is 'yes'; it must be 0 or 1")),
                "{refused}"
            );
        }
        // Neither switches a set.
        let others = [("DS_BUILD_TIMEOUT", "300"), ("DS_BUILD_STRING", ".dev1")];
        assert!(wanted(&[], &others).is_ok());
    }
}
