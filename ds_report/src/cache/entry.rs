//! Entries of the cache as lines: what they are of, how large, how old, whether they are of use.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use ds_core::build::{self, EntryState, Stats, ToolchainIdentity};
use serde::Serialize;

use crate::{
    sizes::size,
    view::{BAD, DOUBTFUL, GOOD, count},
};

/// Digits of a key that are shown; the folder has all of them.
const KEY_DIGITS: usize = 8;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Entry {
    /// `good`, `failed` or `damaged`.
    state: &'static str,
    key: String,
    path: String,
    size_bytes: u64,
    age_s: Option<u64>,
    /// Why it is of no use.
    reason: Option<String>,
    /// What the compiler said, of one that failed.
    log: Option<String>,
    /// What it is of, unless it is damaged.
    build: Option<Build>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Build {
    /// `op_set/kernel`, `op_set`, or `smoke compile`.
    subject: String,
    op_set: String,
    kernel: String,
    signature: Option<String>,
    target: String,
    toolchain: Toolchain,
    /// Name of the machine that built it.
    host: String,
    created_unix_s: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Toolchain {
    name: String,
    /// Empty for a library.
    path: String,
    version: String,
}

/// How many entries, and their size.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Total {
    good: usize,
    failed: usize,
    damaged: usize,
    size_bytes: u64,
}

/// The entries by target and compiler, then by what they are of, the damaged ones last.
pub(super) fn gather(entries: &[build::Entry]) -> Vec<Entry> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let mut gathered: Vec<_> = entries.iter().map(|entry| Entry::new(entry, now)).collect();
    gathered.sort_by(|a, b| a.order().cmp(&b.order()));
    gathered
}

/// The entries in lines, below a heading for each target and each compiler.
pub(super) fn table(text: &mut String, entries: &[Entry]) {
    let width = |entry: &Entry| entry.build.as_ref().map_or(0, |b| b.subject.len());
    let width = entries.iter().map(width).max().unwrap_or(0);
    let mut above = None;
    for group in entries.chunk_by(|a, b| a.group() == b.group()) {
        if let Some((target, toolchain)) = group.first().and_then(Entry::group) {
            if above != Some(target) {
                let _ = writeln!(text, "  for {target}");
                above = Some(target);
            }
            let _ = writeln!(text, "  by {}", toolchain.words());
        }
        for entry in group {
            entry.print(text, width);
        }
    }
}

impl Entry {
    fn new(entry: &build::Entry, now: u64) -> Self {
        let created = entry.created_unix_s();
        let (state, reason, log, build) = match &entry.state {
            EntryState::Built(record) => {
                let build = Build {
                    subject: record.subject(),
                    op_set: record.op_set.clone(),
                    kernel: record.kernel.clone(),
                    signature: record.signature.clone(),
                    target: record.target.clone(),
                    toolchain: Toolchain::from(&record.toolchain),
                    host: record.host.clone(),
                    created_unix_s: record.created_unix_s,
                };
                ("good", None, None, Some(build))
            }
            EntryState::Failed(failed) => {
                let build = Build {
                    subject: failed.subject(),
                    op_set: failed.op_set.clone(),
                    kernel: failed.kernel.clone(),
                    signature: None,
                    target: failed.target.clone(),
                    toolchain: Toolchain::from(&failed.toolchain),
                    host: failed.host.clone(),
                    created_unix_s: failed.created_unix_s,
                };
                let log = failed.log.display().to_string();
                (
                    "failed",
                    Some(failed.reason.clone()),
                    Some(log),
                    Some(build),
                )
            }
            EntryState::Damaged(what) => ("damaged", Some(what.clone()), None, None),
        };
        Self {
            state,
            key: entry.key.hex(),
            path: entry.folder.display().to_string(),
            size_bytes: entry.size_bytes,
            age_s: created.map(|then| now.saturating_sub(then)),
            reason,
            log,
            build,
        }
    }

    /// For one that was removed, and its log with it.
    pub(super) fn forget_log(&mut self) {
        self.log = None;
    }

    /// What it has in common with its neighbours; nothing for a damaged one.
    fn group(&self) -> Option<(&str, &Toolchain)> {
        let build = self.build.as_ref()?;
        Some((build.target.as_str(), &build.toolchain))
    }

    fn order(&self) -> impl Ord {
        let subject = self.build.as_ref().map(|build| build.subject.as_str());
        (
            self.build.is_none(),
            self.group(),
            subject,
            self.age_s,
            &self.key,
        )
    }

    fn print(&self, text: &mut String, width: usize) {
        let style = match self.state {
            "good" => GOOD,
            "failed" => DOUBTFUL,
            _ => BAD,
        };
        let state = format!("{style}{:<7}{style:#}", self.state);
        let size = size(self.size_bytes);
        let _ = match &self.build {
            Some(Build { subject, .. }) => writeln!(
                text,
                "    {state}  {subject:<width$}  {size:>10}  {:>6}  {}",
                age(self.age_s.unwrap_or(0)),
                self.key.get(..KEY_DIGITS).unwrap_or(&self.key)
            ),
            None => writeln!(text, "    {state}  {}", self.path),
        };
        if let Some(reason) = &self.reason {
            let _ = writeln!(text, "{:13}{reason}", "");
        }
        if let Some(log) = &self.log {
            let _ = writeln!(text, "{:13}log: {log}", "");
        }
    }
}

impl From<&ToolchainIdentity> for Toolchain {
    fn from(identity: &ToolchainIdentity) -> Self {
        Self {
            name: identity.name.clone(),
            path: identity.path.clone(),
            version: identity.version.clone(),
        }
    }
}

impl Toolchain {
    /// Its name, and its path and the first line of its version where there are any.
    fn words(&self) -> String {
        let mut words = self.name.clone();
        if !self.path.is_empty() {
            words = format!("{words} {}", self.path);
        }
        match self.version.lines().next() {
            Some(version) => format!("{words}: {version}"),
            None => words,
        }
    }
}

impl Total {
    pub(super) fn of(entries: &[build::Entry]) -> Self {
        let stats = Stats::of(entries);
        Self {
            good: stats.built,
            failed: stats.failed,
            damaged: stats.damaged,
            size_bytes: stats.size_bytes,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.good + self.failed + self.damaged == 0
    }

    /// Whether some of it is of no use.
    pub(super) fn is_flawed(&self) -> bool {
        self.failed + self.damaged > 0
    }

    pub(super) fn words(&self) -> String {
        let kinds = [
            (self.good, count(self.good, "artefact")),
            (self.failed, count(self.failed, "failed build")),
            (self.damaged, format!("{} damaged", self.damaged)),
        ];
        let there: Vec<_> = kinds
            .into_iter()
            .filter_map(|(n, words)| (n > 0).then_some(words))
            .collect();
        if there.is_empty() {
            return "empty".to_owned();
        }
        format!("{}: {}", there.join(", "), size(self.size_bytes))
    }
}

pub(super) fn entries(n: usize) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_whole_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7199, "1 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
