//! The report: every check with its outcome, as text and as JSON.

use std::fmt::Write as _;

use ds_core::manifest::KnownGap;
use serde::Serialize;

use crate::{
    check::{Level, Outcome},
    subject::Subject,
};

/// A check that was run.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Its level.
    pub level: Level,
    /// Its name, unique in the level; what `known_gaps` of a manifest calls it by.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What was found of a plugin.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this suite.
    pub suite: &'static str,
    /// What was checked.
    pub plugin: String,
    /// The plugin's id; empty where its manifest cannot be read.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Every check, in order.
    pub checks: Vec<Checked>,
}

impl Report {
    pub(crate) fn of(subject: &Subject) -> Self {
        let manifest = subject.manifest();
        Self {
            suite: env!("CARGO_PKG_VERSION"),
            plugin: subject.candidate().label(),
            id: manifest.map_or_else(String::new, |m| m.id.to_string()),
            version: manifest.map_or_else(String::new, |m| m.version.clone()),
            checks: Vec::new(),
        }
    }

    /// What the manifest says to be broken is known to be; what it says so of without need, or
    /// without there being such a check, is a failure.
    pub(crate) fn hold_against(&mut self, gaps: &[KnownGap]) {
        for gap in gaps {
            let found = self.checks.iter_mut().find(|c| c.name == gap.test);
            let Some(checked) = found else { continue };
            checked.outcome = match &checked.outcome {
                Outcome::Failed { why } => Outcome::KnownGap {
                    why: why.clone(),
                    reason: gap.reason.clone(),
                },
                Outcome::Passed => Outcome::Failed {
                    why: "it passes, but `known_gaps` of the manifest has it: take it out".into(),
                },
                other => other.clone(),
            };
        }
    }

    /// Whether nothing failed.
    pub fn is_passed(&self) -> bool {
        let failed = |c: &Checked| matches!(c.outcome, Outcome::Failed { .. });
        !self.checks.iter().any(failed)
    }

    /// A line a level, then every check that did not pass, with its reason.
    pub fn text(&self) -> String {
        let mut text = match &*self.id {
            "" => format!("{}\n", self.plugin),
            id => format!("{id} {} ({})\n", self.version, self.plugin),
        };
        for level in Level::ALL {
            let of = |is: fn(&Outcome) -> bool| {
                let here = |c: &&Checked| c.level == level && is(&c.outcome);
                self.checks.iter().filter(here).count()
            };
            let counts = [
                (of(|o| matches!(o, Outcome::Passed)), "passed"),
                (of(|o| matches!(o, Outcome::Failed { .. })), "FAILED"),
                (
                    of(|o| matches!(o, Outcome::KnownGap { .. })),
                    "known to fail",
                ),
                (of(|o| matches!(o, Outcome::Skipped { .. })), "skipped"),
            ];
            let counts: Vec<_> = counts
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            if !counts.is_empty() {
                let _ = writeln!(text, "{level}  {:<25} {}", level.about(), counts.join(", "));
            }
        }
        let mut skipped: Vec<(Level, &str, Vec<&str>)> = Vec::new();
        for checked in &self.checks {
            let (word, why) = match &checked.outcome {
                Outcome::Passed => continue,
                Outcome::Skipped { why } => {
                    let alike = |s: &&mut (Level, &str, _)| s.0 == checked.level && s.1 == why;
                    match skipped.iter_mut().find(alike) {
                        Some(one) => one.2.push(&checked.name),
                        None => skipped.push((checked.level, why, vec![&checked.name])),
                    }
                    continue;
                }
                Outcome::Failed { why } => ("FAILED", why.clone()),
                Outcome::KnownGap { why, reason } => ("known", format!("{reason} ({why})")),
            };
            let why = why.replace('\n', "\n    ");
            let _ = writeln!(
                text,
                "\n{word} {} {}\n    {why}",
                checked.level, checked.name
            );
        }
        for (level, why, names) in skipped {
            let more = match names.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let _ = writeln!(text, "\nskipped {level} {}{more}\n    {why}", names[0]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome) -> Report {
        Report {
            suite: "0",
            plugin: "here".into(),
            id: "org.example.a".into(),
            version: "1.0.0".into(),
            checks: vec![Checked {
                level: Level::L2,
                name: "points tell the time".into(),
                outcome,
            }],
        }
    }

    fn gap(test: &str) -> KnownGap {
        KnownGap {
            test: test.into(),
            reason: "the driver has no clock".into(),
        }
    }

    #[test]
    fn a_known_gap_is_no_failure_until_it_is_closed() {
        let failed = Outcome::Failed { why: "no".into() };
        let mut known = report(failed.clone());
        known.hold_against(&[gap("points tell the time")]);
        assert!(known.is_passed());
        assert!(known.text().contains("the driver has no clock (no)"));

        let mut unknown = report(failed);
        unknown.hold_against(&[]);
        assert!(!unknown.is_passed());

        let mut closed = report(Outcome::Passed);
        closed.hold_against(&[gap("points tell the time")]);
        assert!(!closed.is_passed());
        assert!(closed.text().contains("take it out"));
    }
}
