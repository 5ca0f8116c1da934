//! `ds_report ops`: which ops there are, and by what kind of kernel each runs on each device.

use std::{collections::BTreeMap, fmt::Write as _};

use ds_core::{Host, op::Op};
use serde::Serialize;

use crate::{
    alike::Alike,
    kernels::Class,
    sets::Sets,
    view::{DOUBTFUL, GOOD, HEADING, Outcome, View},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the ops of this set, or this op.
    set: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Ops {
    /// Devices that stand alike, each group once.
    devices: Vec<Devices>,
    ops: Vec<OpRow>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Devices {
    /// Such as `cuda:0-3`.
    name: String,
    target: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OpRow {
    name: String,
    op_sets: Vec<String>,
    /// Whether it has a reference implementation, for calls that no kernel takes.
    host_reference: bool,
    /// Its kernels on each of the devices, in the same order.
    kernels: Vec<Counted>,
}

/// How many kernels of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Counted {
    native: usize,
    library: usize,
    decomposed: usize,
    /// Those that need what the devices' target lacks.
    for_other_targets: usize,
}

pub(crate) fn view(host: &Host, options: &Options) -> Result<Ops, Outcome> {
    // First, because plugins bring ops of their own.
    let devices = Alike::all(host);
    let ops = match &options.set {
        None => ds_core::op::ops(),
        Some(name) => Sets::known().some_ops(name)?,
    };
    let row = |op: &&'static Op| OpRow {
        name: op.name().to_owned(),
        op_sets: op.sets().to_vec(),
        host_reference: op.reference().is_some(),
        kernels: devices.iter().map(|d| Counted::of(d, op)).collect(),
    };
    Ok(Ops {
        ops: ops.iter().map(row).collect(),
        devices: devices
            .iter()
            .map(|devices| Devices {
                name: devices.name(),
                target: devices.target.clone(),
            })
            .collect(),
    })
}

impl Counted {
    fn of(devices: &Alike, op: &Op) -> Self {
        let mut counted = Self::default();
        for kernel in devices.accelerator.kernels_of(op) {
            let count = match Class::of(kernel) {
                _ if kernel.admit_target(&devices.target).is_err() => {
                    &mut counted.for_other_targets
                }
                Class::Native => &mut counted.native,
                Class::Library => &mut counted.library,
                Class::Decomposed => &mut counted.decomposed,
            };
            *count += 1;
        }
        counted
    }

    fn number(self, class: Class) -> usize {
        match class {
            Class::Native => self.native,
            Class::Library => self.library,
            Class::Decomposed => self.decomposed,
        }
    }

    /// The best kind that there is.
    fn best(self) -> Option<Class> {
        Class::ALL.into_iter().find(|class| self.number(*class) > 0)
    }

    fn words(self, host_reference: bool) -> String {
        let mut words: Vec<String> = Class::ALL
            .into_iter()
            .filter(|class| self.number(*class) > 0)
            .map(|class| format!("{} {}", self.number(class), class.name()))
            .collect();
        if words.is_empty() {
            let none = if host_reference { HOST } else { NOTHING };
            words.push(none.to_owned());
        }
        if self.for_other_targets > 0 {
            words.push(format!("{} for other targets", self.for_other_targets));
        }
        words.join(", ")
    }
}

/// What an op without a kernel runs on.
const HOST: &str = "host reference";
const NOTHING: &str = "cannot run";

impl View for Ops {
    fn text(&self) -> String {
        let mut text = String::new();
        let names = self.ops.iter().map(|op| op.name.len());
        let name_width = names.max().unwrap_or(0).max("op".len());
        let cell = |op: &OpRow, column: usize| op.kernels[column].words(op.host_reference);
        let widths: Vec<usize> = (0..self.devices.len())
            .map(|column| {
                let cells = self.ops.iter().map(|op| cell(op, column).len());
                cells
                    .max()
                    .unwrap_or(0)
                    .max(self.devices[column].name.len())
            })
            .collect();
        let _ = write!(text, "{HEADING}{:<name_width$}", "op");
        for (devices, width) in self.devices.iter().zip(&widths) {
            let _ = write!(text, "  {:<width$}", devices.name);
        }
        let _ = writeln!(text, "  op sets{HEADING:#}");
        for op in &self.ops {
            let _ = write!(text, "{:<name_width$}", op.name);
            for (column, width) in widths.iter().enumerate() {
                let style = match op.kernels[column].best() {
                    Some(_) => GOOD,
                    None => DOUBTFUL,
                };
                let _ = write!(text, "  {style}{:<width$}{style:#}", cell(op, column));
            }
            let _ = writeln!(text, "  {}", op.op_sets.join(", "));
        }
        text.push('\n');
        for (column, devices) in self.devices.iter().enumerate() {
            let _ = writeln!(
                text,
                "{}: ops by their best kernel: {}",
                devices.name,
                self.summary(column)
            );
        }
        let nowhere = self.ops.iter().filter(|op| !op.host_reference);
        let nowhere: Vec<&str> = nowhere.map(|op| op.name.as_str()).collect();
        if !nowhere.is_empty() {
            let _ = writeln!(text, "without a {HOST}: {}", nowhere.join(", "));
        }
        text.push_str("kinds are told by the kernels' scores\n");
        text
    }
}

impl Ops {
    /// The ops by the best kind that they have on the devices of a column.
    fn summary(&self, column: usize) -> String {
        let mut counts: BTreeMap<usize, (&str, usize)> = BTreeMap::new();
        for op in &self.ops {
            let (rank, name) = match op.kernels[column].best() {
                Some(class) => (class as usize, class.name()),
                None if op.host_reference => (Class::ALL.len(), HOST),
                None => (Class::ALL.len() + 1, NOTHING),
            };
            counts.entry(rank).or_insert((name, 0)).1 += 1;
        }
        let counts = counts.values().map(|(name, n)| format!("{n} {name}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}
