//! The report itself: what is selected, devices, and how every op set stands on each of them.

mod column;
mod service;
mod text;

pub(crate) use service::missing_everywhere;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic, thread,
};

use ds_core::{
    Accelerator, DeviceInfo, Error, Host, op,
    probe::ProbeRecord,
    selection::{AcceleratorStatus, State},
};
use serde::{Deserialize, Serialize};

use self::{
    column::Column,
    service::{Service, Services},
};
use crate::{
    io::lock_a_page,
    view::{Outcome, Refusal, UNMET, View},
};

/// Names of DeepSpeed's op sets; for one that is here in part, what upstream has beside it.
const UPSTREAM: &str = include_str!("../../ops/upstream.json");

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fail unless all of this op set, or this op, is ready or buildable on the selected accelerator,
    /// or on the one named behind `@`; may be repeated.
    #[arg(long, value_name = "NAME[@ACCELERATOR]", value_parser = requirement)]
    require: Vec<String>,
    /// Upstream's: leave the op sets out.
    #[arg(long = "hide_operator_status")]
    hide_operator_status: bool,
}

impl Options {
    /// An option that was given, if one was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        if self.require.is_empty() {
            return self
                .hide_operator_status
                .then_some("--hide_operator_status");
        }
        Some("--require")
    }
}

/// Everything that `ds_report` shows without a command.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Report {
    /// Version of the host.
    version: &'static str,
    /// What `DS_ACCELERATOR` chooses, or why nothing.
    selection: Selected,
    /// How each accelerator stands.
    accelerators: Vec<AcceleratorState>,
    /// The devices of those that can be used.
    devices: Vec<Device>,
    /// Op sets, with their state on each of these devices, in the same order.
    op_sets: Vec<OpSet>,
    /// What --require asked for and is not there; empty when all of it is.
    unmet: Vec<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Selected {
    Chosen {
        /// The accelerator whose device a program gets that asks for nothing.
        accelerator: String,
        /// Why, in words.
        why: String,
    },
    Nothing(Refusal),
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct AcceleratorState {
    name: String,
    /// 0 when it cannot be used.
    device_count: u32,
    /// Why it cannot be used.
    #[serde(flatten)]
    refusal: Option<Refusal>,
    /// What was not as it should be when its plugin was opened by a child process first.
    remarks: Vec<String>,
}

/// A device.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Device {
    /// Such as `cpu:0`.
    name: String,
    accelerator: String,
    /// Marketing name.
    model: String,
    /// What kernels are built for.
    target: String,
    memory_bytes: u64,
    /// Version of the driver, where there is one.
    driver: Option<String>,
    /// Vendor's unique name, where there is one.
    uuid: Option<String>,
    /// PCI address, where there is one.
    pci: Option<String>,
}

/// An op set.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OpSet {
    name: String,
    /// The ops of it that this version knows.
    ops: Vec<String>,
    /// What there is of it that is no op, but calls of others: of these.
    decomposed: BTreeMap<String, Vec<String>>,
    /// What upstream's set has beside them.
    lacking: Vec<String>,
    states: Vec<OpState>,
}

/// How an op set stands on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
enum OpState {
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
    /// A service, which has no ops: it is there.
    Served {
        /// How, in words.
        how: String,
    },
    /// A service that is not to be had on the device.
    Unserved { reason: String },
    /// A service of which only the open device can tell.
    Untried { reason: String },
    /// This version has no op of the set.
    NotHere,
}

/// Gathers the report.
pub(crate) fn view(host: &Host, options: &Options) -> Report {
    let mut statuses = host.statuses();
    // The kernel may take its time to take an engine back; meanwhile the rest is looked at.
    let services = thread::spawn(Services::of_this_process);
    let mut devices = Vec::new();
    let mut infos = Vec::new();
    let mut places: Vec<(Accelerator, String)> = Vec::new();
    for status in &mut statuses {
        if !matches!(status.state, State::Usable { .. }) {
            continue;
        }
        let Ok(accelerator) = host.accelerator(status.name.as_str()) else {
            continue;
        };
        let described = match describe(host, accelerator) {
            Ok(described) => described,
            // It counts devices and cannot describe them: none would open.
            Err(e) => {
                let Refusal { reason, hint } = Refusal::from(&e);
                status.state = State::Unusable { reason, hint };
                continue;
            }
        };
        for (index, info) in (0..).zip(described) {
            // Devices that are alike stand alike.
            let place = (accelerator, info.target.clone());
            if !places.contains(&place) {
                places.push(place);
            }
            infos.push(info.clone());
            devices.push(Device::new(accelerator.name(), index, info));
        }
    }
    let columns = Column::all(&places, &op::ops());
    let services = services.join().unwrap_or_else(|p| panic::resume_unwind(p));
    let served = devices.iter().zip(&infos);
    let served: Vec<_> = served
        .map(|(device, info)| services.on(&device.name, info))
        .collect();
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        selection: match host.select() {
            Ok(chosen) => Selected::Chosen {
                accelerator: chosen.primary.accelerator.to_string(),
                why: chosen.why,
            },
            Err(e) => Selected::Nothing(Refusal::from(&e)),
        },
        accelerators: statuses
            .iter()
            .map(|status| AcceleratorState::new(status, record(host, status.name.as_str())))
            .collect(),
        op_sets: op_sets(&devices, &columns, &served),
        devices,
        unmet: Vec::new(),
    };
    report.unmet = options
        .require
        .iter()
        .filter_map(|asked| Some(format!("{asked}: {}", report.unmet(host, asked, &columns)?)))
        .collect();
    if options.hide_operator_status {
        report.op_sets.clear();
    }
    report
}

impl Report {
    /// Why what is `asked` for (`NAME` or `NAME@ACCELERATOR`) cannot be had; nothing when it can.
    fn unmet(&self, host: &Host, asked: &str, columns: &[Column]) -> Option<String> {
        let (name, on) = match (asked.split_once('@'), &self.selection) {
            (Some((name, on)), _) => (name, on),
            (None, Selected::Chosen { accelerator, .. }) => (asked, accelerator.as_str()),
            (None, Selected::Nothing(why)) => return Some(why.line()),
        };
        let Some(device) = self.devices.iter().position(|d| d.accelerator == on) else {
            return Some(self.no_device(on));
        };
        if let Some(set) = self.op_sets.iter().find(|set| set.name == name) {
            if let OpState::Untried { .. } = set.states[device] {
                // Who needs it has it tried, on the first device as all else here.
                let tried = host.accelerator(on).and_then(|a| a.device(0));
                let refused = tried.and_then(lock_a_page).err();
                return refused.map(|e| Refusal::short(&e).line());
            }
            return set.states[device].why_not(&set.ops).or_else(|| {
                let (ops, lacking) = (set.ops.join(", "), set.lacking.join(", "));
                (!set.lacking.is_empty())
                    .then(|| format!("not in this version: {lacking}; there are {ops}"))
            });
        }
        match op::find(name) {
            Ok(op) => {
                let state = state(&self.devices[device], columns, &[op]);
                state.why_not(&[name.to_owned()])
            }
            Err(_) => Some(format!("there is no op set and no op '{name}'")),
        }
    }

    /// Why there is no device of the accelerator of that name.
    fn no_device(&self, name: &str) -> String {
        let known = self.accelerators.iter().find(|a| a.name == name);
        match known.map(|a| &a.refusal) {
            Some(Some(refusal)) => refusal.line(),
            Some(None) => format!("{name} has no device here"),
            None => {
                let known: Vec<&str> = self.accelerators.iter().map(|a| &*a.name).collect();
                format!("no plugin serves '{name}'; known are {}", known.join(", "))
            }
        }
    }
}

/// A requirement as it was written, once it names what it needs.
fn requirement(text: &str) -> Result<String, String> {
    match text.split_once('@').unwrap_or((text, "any")) {
        ("", _) => Err("no op set and no op is named".to_owned()),
        (_, "") => Err("no accelerator is named behind `@`".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

impl Device {
    fn new(accelerator: &str, index: u32, info: DeviceInfo) -> Self {
        let known = |text: String| (!text.is_empty()).then_some(text);
        Self {
            name: format!("{accelerator}:{index}"),
            accelerator: accelerator.to_owned(),
            model: info.name,
            target: info.target,
            memory_bytes: info.memory_bytes,
            driver: known(info.driver_version),
            uuid: known(info.uuid),
            pci: known(info.pci),
        }
    }
}

impl AcceleratorState {
    fn new(status: &AcceleratorStatus, record: Option<ProbeRecord>) -> Self {
        let (device_count, refusal) = match &status.state {
            State::Usable { device_count } => (*device_count, None),
            State::Unusable { reason, hint } => (
                0,
                Some(Refusal {
                    reason: reason.clone(),
                    hint: hint.clone(),
                }),
            ),
        };
        Self {
            name: status.name.to_string(),
            device_count,
            refusal,
            remarks: record.map_or_else(Vec::new, |record| record.remarks),
        }
    }
}

impl OpState {
    /// Why it is neither ready nor buildable; nothing when it is.
    fn why_not(&self, ops: &[String]) -> Option<String> {
        match self {
            Self::Ready | Self::Buildable | Self::Served { .. } => None,
            Self::Partly { on_reference } => Some(format!(
                "{} of {} ops run on the host reference: {}",
                on_reference.len(),
                ops.len(),
                on_reference.join(", ")
            )),
            Self::Reference { reason } => Some(format!("host reference only: {reason}")),
            Self::Unsupported { reason } | Self::Unserved { reason } | Self::Untried { reason } => {
                Some(reason.clone())
            }
            Self::NotHere => Some("not in this version".to_owned()),
        }
    }
}

impl View for Report {
    fn text(&self) -> String {
        text::print(self)
    }

    fn failure(&self) -> Option<Outcome> {
        let lines = || self.unmet.iter().map(|line| format!("{line}\n"));
        (!self.unmet.is_empty()).then(|| Outcome::new(UNMET, lines().collect::<String>()))
    }
}

/// What the plugin of the accelerator of that name said to a child process, if there was one.
fn record(host: &Host, accelerator: &str) -> Option<ProbeRecord> {
    let serving = host.discovery().accelerators();
    let candidate = serving.into_iter().find(|c| {
        let manifest = c.manifest.as_ref();
        manifest.is_some_and(|m| m.accelerator.as_str() == accelerator)
    });
    host.probe(candidate?)
}

/// The devices of an accelerator, from the probe's answer where there is one.
fn describe(host: &Host, accelerator: Accelerator) -> Result<Vec<DeviceInfo>, Error> {
    if let Some(ProbeRecord {
        devices: Ok(devices),
        ..
    }) = record(host, accelerator.name())
    {
        return Ok(devices);
    }
    (0..accelerator.device_count()?)
        .map(|index| accelerator.device_info(index))
        .collect()
}

/// What is here of one of upstream's op sets, beside the ops that name it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpstreamSet {
    /// What upstream's has and this one has not.
    lacks: Vec<String>,
    /// What is made of calls of other ops, and of which.
    decomposed: BTreeMap<String, Vec<String>>,
    /// The command that tells more of it, where it is a service of the host: it has no ops.
    pub(crate) service: Option<String>,
}

/// Upstream's op sets; none where nothing is here.
pub(crate) fn upstream() -> BTreeMap<String, Option<UpstreamSet>> {
    serde_json::from_str(UPSTREAM).unwrap_or_default()
}

/// How `ops` stand on `device`.
fn state(device: &Device, columns: &[Column], ops: &[&'static op::Op]) -> OpState {
    let column = columns.iter().find(|column| column.is_of(device));
    column.map_or(OpState::NotHere, |column| column.state(ops))
}

fn op_sets(
    devices: &[Device],
    columns: &[Column],
    served: &[BTreeMap<Service, OpState>],
) -> Vec<OpSet> {
    let upstream = upstream();
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
            let here = upstream.get(name).cloned().flatten().unwrap_or_default();
            // A set stands as the worst op does that a call of it may come to.
            let parts = here.decomposed.values().flatten();
            let mut needed = own.to_vec();
            needed.extend(parts.filter_map(|name| op::find(name).ok()));
            needed.sort_by_key(|op| op.name());
            needed.dedup_by_key(|op| op.name());
            let service = here.service.as_ref().and_then(|_| Service::named(name));
            OpSet {
                name: name.to_owned(),
                ops: own.iter().map(|op| op.name().to_owned()).collect(),
                decomposed: here.decomposed,
                lacking: here.lacks,
                states: (devices.iter().zip(served))
                    .map(|(device, served)| {
                        let served = service.and_then(|service| served.get(&service));
                        served
                            .cloned()
                            .unwrap_or_else(|| state(device, columns, &needed))
                    })
                    .collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_upstream_parse_and_cover_the_catalogue() {
        let upstream: BTreeMap<String, Option<UpstreamSet>> =
            serde_json::from_str(UPSTREAM).unwrap();
        assert_eq!(upstream.len(), 28);
        for op in op::ops() {
            for set in op.sets().iter().filter(|set| upstream.contains_key(*set)) {
                assert!(upstream[set].is_some(), "{set} is here: say what it lacks");
            }
        }
        for (name, set) in &upstream {
            let is_service = set.as_ref().is_some_and(|set| set.service.is_some());
            assert_eq!(is_service, Service::named(name).is_some(), "{name}");
        }
        let parts = upstream
            .values()
            .flatten()
            .flat_map(|set| set.decomposed.values());
        for name in parts.flatten() {
            assert!(
                op::find(name).is_ok(),
                "{name} is no op, but something is said to be made of it"
            );
        }
    }
}
