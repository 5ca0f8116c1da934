//! The report for a person: aligned, in DeepSpeed's words, readable without colour.

use std::fmt::Write as _;

use super::{OpState, Report, Selected};
use crate::view::{BAD, DOUBTFUL, GOOD, HEADING};

/// Width of an op set's dotted name; upstream's is 23.
const NAME_WIDTH: usize = 26;

pub(super) fn print(report: &Report) -> String {
    let mut text = format!(
        "{HEADING}DeepSpeed op report{HEADING:#}, version {}\n\n",
        report.version
    );
    selection(&mut text, report);
    accelerators(&mut text, report);
    devices(&mut text, report);
    op_sets(&mut text, report);
    text
}

fn selection(text: &mut String, report: &Report) {
    match &report.selection {
        Selected::Chosen { why, .. } => {
            let _ = writeln!(text, "selected  {GOOD}{why}{GOOD:#}\n");
        }
        Selected::Nothing(refusal) => {
            let _ = writeln!(text, "selected  {BAD}nothing{BAD:#}: {}", refusal.reason);
            refusal.hint_below(text, 10);
            text.push('\n');
        }
    }
}

fn accelerators(text: &mut String, report: &Report) {
    let _ = writeln!(text, "{HEADING}accelerators{HEADING:#}");
    let width = widest(report.accelerators.iter().map(|a| &a.name));
    for accelerator in &report.accelerators {
        let name = &accelerator.name;
        match &accelerator.refusal {
            None => {
                let count = accelerator.device_count;
                let plural = if count == 1 { "" } else { "s" };
                let _ = writeln!(
                    text,
                    "  {name:<width$} {GOOD}{count} device{plural}{GOOD:#}"
                );
            }
            Some(refusal) => {
                let _ = writeln!(text, "  {name:<width$} no: {}", refusal.reason);
                refusal.hint_below(text, width + 3);
            }
        }
        for remark in &accelerator.remarks {
            let _ = writeln!(text, "  {:width$} {DOUBTFUL}note{DOUBTFUL:#}: {remark}", "");
        }
    }
    text.push('\n');
}

fn devices(text: &mut String, report: &Report) {
    let _ = writeln!(text, "{HEADING}devices{HEADING:#}");
    let width = widest(report.devices.iter().map(|d| &d.name));
    for device in &report.devices {
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let gib = device.memory_bytes as f64 / f64::from(1 << 30);
        let _ = writeln!(
            text,
            "  {:<width$} {}, {gib:.1} GiB",
            device.name, device.model
        );
        let _ = writeln!(text, "  {:width$} target {}", "", device.target);
        if let Some(driver) = &device.driver {
            let _ = writeln!(text, "  {:width$} driver {driver}", "");
        }
    }
    text.push('\n');
}

fn widest<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    names.map(String::len).max().unwrap_or(0)
}

fn op_sets(text: &mut String, report: &Report) {
    if report.op_sets.is_empty() {
        return;
    }
    // Devices of one accelerator and target stand alike: one column for them.
    let mut columns: Vec<usize> = Vec::new();
    for (index, device) in report.devices.iter().enumerate() {
        let alike = |first: &usize| {
            let first = &report.devices[*first];
            (&first.accelerator, &first.target) == (&device.accelerator, &device.target)
        };
        if !columns.iter().any(alike) {
            columns.push(index);
        }
    }
    for index in columns {
        let _ = writeln!(
            text,
            "{HEADING}{:<NAME_WIDTH$} installed .. compatible  on {}{HEADING:#}",
            "op name", report.devices[index].accelerator
        );
        for set in &report.op_sets {
            let dots = ".".repeat(NAME_WIDTH.saturating_sub(set.name.len() + 1));
            let decomposed: Vec<String> = set.decomposed.keys().cloned().collect();
            let all = [&set.ops[..], &decomposed[..]].concat();
            let (mut installed, compatible, mut words) = words(&set.states[index], &all);
            if !decomposed.is_empty() {
                words += "; decomposed into other ops: ";
                words += &decomposed.join(", ");
            }
            let here = set.states[index] != OpState::NotHere;
            if here && !set.lacking.is_empty() {
                words += "; not in this version: ";
                words += &set.lacking.join(", ");
                if installed == "[YES]" {
                    installed = "[PART]";
                }
            }
            let _ = writeln!(
                text,
                "{} {dots} {}..... {}  {words}",
                set.name,
                mark(installed),
                mark(compatible),
            );
        }
        text.push('\n');
    }
}

/// A word in brackets with its colour, padded outside of it because colour has no width.
fn mark(word: &str) -> String {
    let style = match word {
        "[YES]" | "[OKAY]" => GOOD,
        _ => DOUBTFUL,
    };
    format!(
        "{style}{word}{style:#}{}",
        " ".repeat(7_usize.saturating_sub(word.len()))
    )
}

/// The first of many names, so that a set stays a line: `ds_report ops SET` has them all.
fn few(names: &[&str]) -> String {
    const MOST: usize = 5;
    if names.len() <= MOST {
        return names.join(", ");
    }
    let (shown, rest) = names.split_at(MOST - 1);
    format!("{} and {} more", shown.join(", "), rest.len())
}

/// Whether it is installed, whether it is compatible, and what there is to say.
fn words(state: &OpState, ops: &[String]) -> (&'static str, &'static str, String) {
    let all: Vec<&str> = ops.iter().map(String::as_str).collect();
    match state {
        OpState::Ready => ("[YES]", "[OKAY]", format!("ready: {}", few(&all))),
        OpState::Buildable => {
            let words = format!("built at first use: {}", few(&all));
            ("[NO]", "[OKAY]", words)
        }
        OpState::Partly { on_reference } => {
            let by_kernel: Vec<&str> = ops
                .iter()
                .filter(|op| !on_reference.contains(op))
                .map(String::as_str)
                .collect();
            let on_reference: Vec<&str> = on_reference.iter().map(String::as_str).collect();
            let (kernel, host) = (few(&by_kernel), few(&on_reference));
            let words = format!("has a kernel: {kernel}; on the host reference: {host}");
            ("[NO]", "[OKAY]", words)
        }
        OpState::Served { how } => ("[YES]", "[OKAY]", format!("ready: {how}")),
        OpState::Untried { reason } => ("[YES]", "[?]", reason.clone()),
        other => ("[NO]", "[NO]", other.why_not(ops).unwrap_or_default()),
    }
}
