//! The report as data: gathered here, printed by `text.rs` or as JSON.

use std::collections::{BTreeMap, BTreeSet};

use ds_core::{
    Accelerator, DeviceInfo, Error, Host,
    discovery::{Candidate, Discovery, Place},
    op,
    probe::ProbeRecord,
    selection::{AcceleratorStatus, Chosen, State},
};
use serde::Serialize;

/// Names of DeepSpeed's op sets; for one that is here in part, what upstream has beside it.
const UPSTREAM: &str = include_str!("../../ops/upstream.json");

/// Everything that `ds_report` shows.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of the host.
    pub(crate) version: &'static str,
    /// What `DS_ACCELERATOR` chooses, or why nothing.
    pub(crate) selection: Result<Chosen, Refusal>,
    /// How each accelerator stands.
    pub(crate) accelerators: Vec<AcceleratorStatus>,
    /// The devices of those that can be used.
    pub(crate) devices: Vec<Device>,
    /// Op sets, with their state on each of these devices, in the same order.
    pub(crate) op_sets: Vec<OpSet>,
    /// Every plugin that was found.
    pub(crate) plugins: Vec<Candidate>,
    /// Every place that was searched.
    pub(crate) places: Vec<Place>,
}

/// An error: what was found, and what to do.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

/// A device.
#[derive(Debug, Serialize)]
pub(crate) struct Device {
    /// Such as `cpu:0`.
    pub(crate) name: String,
    pub(crate) info: DeviceInfo,
}

/// An op set.
#[derive(Debug, Serialize)]
pub(crate) struct OpSet {
    pub(crate) name: String,
    /// The ops of it that this version knows.
    pub(crate) ops: Vec<String>,
    /// What upstream's set has beside them.
    pub(crate) lacking: Vec<String>,
    pub(crate) states: Vec<OpState>,
}

/// How an op set stands on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum OpState {
    /// Every op has a kernel whose artefact is there, or that needs none.
    Ready,
    /// Every op has a kernel, and the toolchain works.
    Buildable,
    /// Some ops have a kernel; the others run on the reference implementation.
    Partly { on_reference: Vec<String> },
    /// Every op runs on the reference implementation, through host memory.
    Reference { reason: String },
    /// No kernel, and no reference implementation.
    Unsupported { reason: String },
    /// This version has no op of the set.
    NotHere,
}

/// Gathers the report.
pub(crate) fn gather(host: &Host) -> Report {
    let accelerators = host.statuses();
    let selection = host.select().map_err(|e| refusal(&e));
    let discovery = host.discovery();
    let mut devices = Vec::new();
    let mut columns = Vec::new();
    for status in &accelerators {
        if !matches!(status.state, State::Usable { .. }) {
            continue;
        }
        let Ok(accelerator) = host.accelerator(status.name.as_str()) else {
            continue;
        };
        for (index, info) in (0..).zip(describe(host, discovery, accelerator)) {
            columns.push((accelerator, info.target.clone()));
            devices.push(Device {
                name: format!("{}:{index}", accelerator.name()),
                info,
            });
        }
    }
    Report {
        version: env!("CARGO_PKG_VERSION"),
        selection,
        accelerators,
        op_sets: op_sets(&columns),
        devices,
        plugins: discovery.candidates.clone(),
        places: discovery.places.clone(),
    }
}

/// The devices of an accelerator, from the probe's answer where there is one.
fn describe(host: &Host, discovery: &Discovery, accelerator: Accelerator) -> Vec<DeviceInfo> {
    let serving = discovery.accelerators();
    let candidate = serving.iter().find(|c| {
        c.manifest
            .as_ref()
            .is_some_and(|m| m.accelerator.as_str() == accelerator.name())
    });
    if let Some(ProbeRecord {
        devices: Ok(devices),
    }) = candidate.and_then(|c| host.probe(c))
    {
        return devices;
    }
    let count = accelerator.device_count().unwrap_or(0);
    (0..count)
        .filter_map(|index| accelerator.device_info(index).ok())
        .collect()
}

fn op_sets(columns: &[(Accelerator, String)]) -> Vec<OpSet> {
    let upstream: BTreeMap<String, Option<Vec<String>>> =
        serde_json::from_str(UPSTREAM).unwrap_or_default();
    let mut ops: BTreeMap<&str, Vec<&'static op::Op>> = BTreeMap::new();
    for op in op::ops() {
        for set in op.sets() {
            ops.entry(set).or_default().push(op);
        }
    }
    let names: BTreeSet<&str> = upstream
        .keys()
        .map(String::as_str)
        .chain(ops.keys().copied())
        .collect();
    names
        .into_iter()
        .map(|name| {
            let own = ops.get(name).map_or(&[][..], Vec::as_slice);
            OpSet {
                name: name.to_owned(),
                ops: own.iter().map(|op| op.name().to_owned()).collect(),
                lacking: upstream.get(name).cloned().flatten().unwrap_or_default(),
                states: columns
                    .iter()
                    .map(|(a, target)| state(*a, target, own))
                    .collect(),
            }
        })
        .collect()
}

/// How the ops of a set stand on a device of `target`.
fn state(accelerator: Accelerator, target: &str, ops: &[&'static op::Op]) -> OpState {
    if ops.is_empty() {
        return OpState::NotHere;
    }
    let mut on_reference = Vec::new();
    let mut ready = true;
    let mut reason = format!("{} has no kernel for it", accelerator.name());
    for op in ops {
        let mut admitted = accelerator
            .kernels()
            .iter()
            .filter(|k| k.op == op.name() && k.admit_target(target).is_ok());
        match admitted.next() {
            None => on_reference.push(op.name().to_owned()),
            Some(kernel) => match ds_core::jit::is_ready(accelerator.plugin(), kernel, target) {
                Ok(done) => ready &= done,
                Err(e) => {
                    reason = e.to_string();
                    on_reference.push(op.name().to_owned());
                }
            },
        }
    }
    let nowhere = |op: &&&op::Op| {
        op.reference().is_none() && on_reference.iter().any(|name| name == op.name())
    };
    if ops.iter().any(|op| nowhere(&op)) {
        return OpState::Unsupported { reason };
    }
    match on_reference.len() {
        0 if ready => OpState::Ready,
        0 => match ds_core::jit::smoke(accelerator.plugin(), target) {
            Ok(_) => OpState::Buildable,
            Err(e) => OpState::Reference {
                reason: refusal(&e).text(),
            },
        },
        n if n == ops.len() => OpState::Reference { reason },
        _ => OpState::Partly { on_reference },
    }
}

/// An error as data.
pub(crate) fn refusal(error: &Error) -> Refusal {
    Refusal {
        reason: error.to_string(),
        hint: error.hint().map(str::to_owned),
    }
}

impl Refusal {
    fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.reason),
            None => self.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_upstream_parse_and_cover_the_catalogue() {
        let upstream: BTreeMap<String, Option<Vec<String>>> =
            serde_json::from_str(UPSTREAM).unwrap();
        assert_eq!(upstream.len(), 28);
        for op in op::ops() {
            for set in op.sets().iter().filter(|set| upstream.contains_key(*set)) {
                assert!(upstream[set].is_some(), "{set} is here: say what it lacks");
            }
        }
    }
}
