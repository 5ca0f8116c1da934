//! What was built, for a person: a line for each artefact, kernel and op, what became of it first.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Build, Built, ForTarget, Kernel, LeftOut, Missing, State};
use crate::view::{BAD, DOUBTFUL, GOOD, HEADING, count};

/// Width of what became of something, in front of its name.
const STATE_WIDTH: usize = 16;

pub(super) fn print(build: &Build) -> String {
    let mut text = String::new();
    for target in &build.targets {
        target.print(&mut text);
    }
    let mut by_variable: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for LeftOut { op_set, by, kept } in &build.left_out {
        let kept = match kept.as_slice() {
            [] => String::new(),
            kept => format!(" (another set has its {} too)", kept.join(", ")),
        };
        let sets = by_variable.entry(by).or_default();
        sets.push(format!("{op_set}{kept}"));
    }
    for (by, sets) in by_variable {
        let _ = writeln!(text, "left out by {by}: {}", sets.join(", "));
    }
    for line in &build.without_ops {
        let _ = writeln!(text, "{line}");
    }
    let all = || build.targets.iter().flat_map(|target| &target.artefacts);
    let built = all().filter(|built| matches!(built.state, State::Built { .. }));
    let (built, failed) = (built.count(), build.failed().count());
    let cached = all().count() - built - failed;
    let _ = write!(text, "{built} built, {cached} cached, {failed} failed");
    match &build.cache {
        Some(cache) => writeln!(text, "; kept in {cache}"),
        None => writeln!(text),
    }
    .unwrap_or_default();
    text
}

impl ForTarget {
    fn print(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "{HEADING}{}{HEADING:#}, target {}",
            self.accelerator, self.target
        );
        let kernels = self.per_signature.iter().chain(&self.without_build);
        let names = (self.artefacts.iter().map(|built| &built.name))
            .chain(kernels.map(|kernel| &kernel.name))
            .chain(self.without_kernel.iter().map(|missing| &missing.op));
        let width = names.map(String::len).max().unwrap_or(0);
        let mut line = |style: anstyle::Style, state: &str, name: &str, rest: &str| {
            let _ = writeln!(
                text,
                "  {style}{state:<STATE_WIDTH$}{style:#} {name:<width$}  {rest}"
            );
        };
        let mut told: Option<String> = None;
        for built in &self.artefacts {
            let held = built.held();
            match &built.state {
                State::Built { build_ms, .. } => {
                    line(
                        GOOD,
                        &format!("built in {}", seconds(*build_ms)),
                        &built.name,
                        &held,
                    );
                }
                State::Cached { is_shared, .. } => {
                    let state = if *is_shared {
                        "cached (shared)"
                    } else {
                        "cached"
                    };
                    line(GOOD, state, &built.name, &held);
                }
                State::Failed(why) => {
                    line(BAD, "failed", &built.name, &held);
                    let reason = why.line();
                    // One compiler that is missing is one complaint.
                    if told.as_ref() == Some(&reason) {
                        line(BAD, "", "", "as above");
                    } else {
                        line(BAD, "", "", &why.reason);
                        if let Some(hint) = &why.hint {
                            line(BAD, "", "", &format!("hint: {hint}"));
                        }
                        told = Some(reason);
                    }
                }
            }
        }
        for Kernel { name, op } in &self.per_signature {
            let rest = format!("{op}: built per signature, at first use");
            line(DOUBTFUL, "at first use", name, &rest);
        }
        for Kernel { name, op } in &self.without_build {
            line(GOOD, "needs no build", name, op);
        }
        for Missing { op, reason } in &self.without_kernel {
            line(DOUBTFUL, "no kernel", op, reason);
        }
    }
}

impl Built {
    /// The ops whose kernels it holds.
    fn held(&self) -> String {
        let mut ops: Vec<&str> = self.kernels.iter().map(|k| k.op.as_str()).collect();
        ops.dedup();
        format!(
            "{} of {}",
            count(self.kernels.len(), "kernel"),
            ops.join(", ")
        )
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
