//! The report for a person: plain, aligned, readable without colour.

use std::fmt::Write as _;

use ds_core::selection::State;

use crate::report::{OpState, Report};

/// Width of an op's dotted name; upstream's is 23.
const NAME_WIDTH: usize = 26;

/// The whole report.
pub(crate) fn print(report: &Report) -> String {
    let mut text = format!("DeepSpeed op report, version {}\n\n", report.version);
    selection(&mut text, report);
    accelerators(&mut text, report);
    devices(&mut text, report);
    op_sets(&mut text, report);
    text
}

/// Every plugin with its verdict, and the places of the search.
pub(crate) fn plugins(report: &Report) -> String {
    let mut text = String::from("plugins\n");
    for plugin in &report.plugins {
        let _ = writeln!(text, "  {:<12} {}", plugin.verdict.name(), plugin.label());
        if let Some(refusal) = plugin.verdict.refusal() {
            let _ = writeln!(text, "  {:<12} {}", "", refusal.reason);
            if let Some(hint) = &refusal.hint {
                let _ = writeln!(text, "  {:<12} hint: {hint}", "");
            }
        }
    }
    text.push_str("searched\n");
    for place in &report.places {
        let path = place
            .path
            .as_ref()
            .map_or("-".to_owned(), |p| p.display().to_string());
        let skipped = place
            .skipped
            .as_ref()
            .map_or(String::new(), |why| format!("  ({why})"));
        let _ = writeln!(text, "  {path}{skipped}");
    }
    text
}

fn selection(text: &mut String, report: &Report) {
    match &report.selection {
        Ok(chosen) => {
            let _ = writeln!(text, "selected  {}\n", chosen.why);
        }
        Err(refusal) => {
            let _ = writeln!(text, "selected  nothing: {}", refusal.reason);
            if let Some(hint) = &refusal.hint {
                let _ = writeln!(text, "hint: {hint}");
            }
            text.push('\n');
        }
    }
}

fn accelerators(text: &mut String, report: &Report) {
    text.push_str("accelerators\n");
    for status in &report.accelerators {
        let _ = match &status.state {
            State::Usable { device_count: 1 } => {
                writeln!(text, "  {:<6} 1 device", status.name.as_str())
            }
            State::Usable { device_count } => {
                writeln!(text, "  {:<6} {device_count} devices", status.name.as_str())
            }
            State::Unusable { reason, .. } => {
                writeln!(text, "  {:<6} no: {reason}", status.name.as_str())
            }
        };
    }
    text.push('\n');
}

fn devices(text: &mut String, report: &Report) {
    text.push_str("devices\n");
    for device in &report.devices {
        let info = &device.info;
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let gib = info.memory_bytes as f64 / f64::from(1 << 30);
        let _ = writeln!(text, "  {:<6} {}, {gib:.1} GiB", device.name, info.name);
        let _ = writeln!(text, "  {:<6} target {}", "", info.target);
        if !info.driver_version.is_empty() {
            let _ = writeln!(text, "  {:<6} driver {}", "", info.driver_version);
        }
    }
    text.push('\n');
}

fn op_sets(text: &mut String, report: &Report) {
    // Devices of one accelerator and target stand alike: one column for them.
    let mut columns: Vec<(String, usize)> = Vec::new();
    for (index, device) in report.devices.iter().enumerate() {
        let family = device.name.split(':').next().unwrap_or_default();
        let known = columns.iter().any(|(name, first)| {
            name == family && report.devices[*first].info.target == device.info.target
        });
        if !known {
            columns.push((family.to_owned(), index));
        }
    }
    for (name, index) in columns {
        let _ = writeln!(
            text,
            "{:<NAME_WIDTH$} installed .. compatible  on {name}",
            "op name"
        );
        for set in &report.op_sets {
            let dots = ".".repeat(NAME_WIDTH.saturating_sub(set.name.len() + 1));
            let ops = set.ops.join(", ");
            let (installed, compatible, mut words) = match &set.states[index] {
                OpState::Ready => ("[YES]", "[OKAY]", format!("ready: {ops}")),
                OpState::Buildable => ("[NO]", "[OKAY]", format!("built at first use: {ops}")),
                OpState::Partly { on_reference } => (
                    "[NO]",
                    "[OKAY]",
                    format!("{ops}; on the host reference: {}", on_reference.join(", ")),
                ),
                OpState::Reference { reason } => {
                    ("[NO]", "[NO]", format!("host reference only: {reason}"))
                }
                OpState::Unsupported { reason } => ("[NO]", "[NO]", format!("no: {reason}")),
                OpState::NotHere => ("[NO]", "[NO]", "not in this version".to_owned()),
            };
            if !set.lacking.is_empty() {
                words += "; not in this version: ";
                words += &set.lacking.join(", ");
            }
            let _ = writeln!(
                text,
                "{} {dots} {installed:<5} ..... {compatible:<6}  {words}",
                set.name
            );
        }
        text.push('\n');
    }
}
