//! `ds_report cache`: what was built and kept on this machine, and its upkeep.

mod entry;

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf, absolute},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use ds_core::build::{self, Cache, JitMode, PruneRules, Settings};
use serde::Serialize;

use crate::{
    sizes::{parse_size, size},
    view::{BAD, DOUBTFUL, FAILED, GOOD, HEADING, Outcome, Refusal, View, count, show},
};
use entry::{Entry, Total};

const DIR: &str = "DS_CACHE_DIR";

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Where the cache is, and every entry of it; what `cache` alone does.
    List,
    /// Remove damaged entries, what dead builds left, and what the options say.
    Prune(Prune),
    /// Copy every artefact into FOLDER, for machines with the same compilers: to import there, or
    /// for `DS_CACHE_SHARED` to name.
    Export {
        /// Where to; made when there is none.
        folder: PathBuf,
    },
    /// Take over the artefacts of a FOLDER that `export` wrote, each after a check.
    Import {
        /// One that only you or root can write to.
        folder: PathBuf,
    },
}

#[derive(Args)]
struct Prune {
    /// Remove artefacts and failures that were built more than this many days ago.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Forget builds that failed: the next use tries them again.
    #[arg(long)]
    failed: bool,
    /// Remove the oldest artefacts until the others take no more than this, such as 500M or 2G.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Only tell what would be removed.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(json: bool, options: &Options) -> Result<ExitCode, Outcome> {
    match &options.action {
        None | Some(Action::List) => show(json, &list(&Settings::from_environment()?)),
        Some(Action::Prune(asked)) => show(json, &prune(&Cache::from_environment()?, asked)?),
        Some(Action::Export { folder }) => show(json, &export(folder)?),
        Some(Action::Import { folder }) => show(json, &import(folder)?),
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct List {
    /// Whether kernels are built here: the value of `DS_JIT`, or what it is without one.
    jit: &'static str,
    /// The user's first.
    folders: Vec<Folder>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Folder {
    /// `own` or `shared`.
    level: &'static str,
    path: String,
    /// The variable that names it, or would.
    variable: &'static str,
    /// Whether the variable does.
    is_set: bool,
    exists: bool,
    /// Whether this process adds to it.
    writable: bool,
    /// Why it is not used.
    #[serde(flatten)]
    refusal: Option<Refusal>,
    total: Total,
    entries: Vec<Entry>,
}

fn list(settings: &Settings) -> List {
    let is_set = env::var_os(DIR).is_some_and(|value| !value.is_empty());
    let folder = |folder: build::CacheFolder| {
        let (exists, refusal, entries) = match &folder.entries {
            Ok(None) => (false, None, &[][..]),
            Ok(Some(entries)) => (true, None, entries.as_slice()),
            Err(e) => (true, Some(Refusal::short(e)), &[][..]),
        };
        let (level, variable) = if folder.is_shared {
            ("shared", "DS_CACHE_SHARED")
        } else {
            ("own", DIR)
        };
        Folder {
            level,
            path: folder.path.display().to_string(),
            variable,
            is_set: folder.is_shared || is_set,
            exists,
            writable: folder.is_writable && !folder.is_shared,
            refusal,
            total: Total::of(entries),
            entries: entry::gather(entries),
        }
    };
    List {
        jit: settings.jit.name(),
        folders: build::folders(settings).into_iter().map(folder).collect(),
    }
}

impl View for List {
    fn text(&self) -> String {
        let mut text = String::new();
        for folder in &self.folders {
            folder.print(&mut text);
        }
        if self.jit != JitMode::On.name() {
            let what = match self.jit {
                "off" => "none of this is used, and nothing is built",
                _ => "what is here is used, and nothing is built",
            };
            let _ = writeln!(text, "{DOUBTFUL}DS_JIT={}{DOUBTFUL:#}: {what}", self.jit);
        }
        text
    }

    /// A shared folder that cannot be used is left out; without an own one nothing can be built.
    fn failure(&self) -> Option<Outcome> {
        let own = self.folders.iter().filter(|folder| folder.level == "own");
        let refused = own.filter(|folder| folder.refusal.is_some()).count();
        (refused > 0).then(|| Outcome::new(FAILED, ""))
    }
}

impl Folder {
    fn print(&self, text: &mut String) {
        let is_own = self.level == "own";
        let how = match (is_own, self.is_set) {
            (true, true) => "set by DS_CACHE_DIR",
            (true, false) => "DS_CACHE_DIR moves it",
            _ => "DS_CACHE_SHARED; only read",
        };
        let (level, path) = (self.level, &self.path);
        let _ = writeln!(text, "{HEADING}{level:<6} {path}{HEADING:#}  ({how})");
        let state = match &self.refusal {
            Some(why) => {
                let _ = writeln!(text, "  {BAD}not used{BAD:#}: {}", why.reason);
                why.hint_below(text, 2);
                return;
            }
            None if !self.exists && is_own && !self.writable => format!(
                "{BAD}not there, and cannot be made{BAD:#}: nothing can be built\n  \
                 hint: set DS_CACHE_DIR to a folder that you can write to"
            ),
            None if !self.exists && is_own => "not there yet: the first build makes it".to_owned(),
            None if !self.exists => format!("{DOUBTFUL}not there{DOUBTFUL:#}"),
            None => self.total.words(),
        };
        let _ = writeln!(text, "  {state}");
        if is_own && self.exists && !self.writable {
            let _ = writeln!(
                text,
                "  {DOUBTFUL}cannot be written to{DOUBTFUL:#}: what is here is used, nothing is added"
            );
        }
        entry::table(text, &self.entries);
        if is_own && self.total.is_flawed() {
            text.push_str(
                "  hint: `ds_report cache prune` removes what is damaged, with --failed what failed\n",
            );
        }
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PruneDone {
    path: String,
    dry_run: bool,
    /// Whether anything but damaged entries was asked for.
    #[serde(skip)]
    has_rules: bool,
    removed: Vec<Entry>,
    freed_bytes: u64,
    /// Folders that dead builds left, removed too.
    leftovers: usize,
    left: Total,
}

fn prune(cache: &Cache, asked: &Prune) -> Result<PruneDone, Outcome> {
    const DAY: Duration = Duration::from_hours(24);
    let rules = PruneRules {
        older_than: asked.older_than.map(|days| DAY * days),
        max_bytes: asked.max_size,
        failed: asked.failed,
    };
    let (removed, leftovers) = if asked.dry_run {
        (cache.prunable(&rules)?, 0)
    } else {
        let pruned = cache.prune(&rules)?;
        (pruned.removed, pruned.leftovers)
    };
    let mut left = cache.entries()?;
    left.retain(|entry| !removed.contains(entry));
    let mut gone = entry::gather(&removed);
    if !asked.dry_run {
        gone.iter_mut().for_each(Entry::forget_log);
    }
    Ok(PruneDone {
        path: cache.settings().dir.display().to_string(),
        dry_run: asked.dry_run,
        has_rules: rules != PruneRules::default(),
        freed_bytes: removed.iter().map(|entry| entry.size_bytes).sum(),
        removed: gone,
        leftovers,
        left: Total::of(&left),
    })
}

impl View for PruneDone {
    fn text(&self) -> String {
        let (path, freed) = (&self.path, size(self.freed_bytes));
        let entries = entry::entries(self.removed.len());
        let mut text = match (self.removed.is_empty(), self.dry_run) {
            (true, true) => format!("would remove nothing from {path}\n"),
            (true, false) => format!("removed nothing from {path}\n"),
            (false, true) => format!("would remove {entries}, {freed}, from {path}\n"),
            (false, false) => {
                format!("{GOOD}removed{GOOD:#} {entries}, {freed}, from {path}\n")
            }
        };
        entry::table(&mut text, &self.removed);
        if self.leftovers > 0 {
            let folders = count(self.leftovers, "folder");
            let _ = writeln!(text, "removed {folders} that dead builds left");
        }
        let _ = writeln!(text, "left: {}", self.left.words());
        if !self.has_rules && self.removed.is_empty() && !self.left.is_empty() {
            text.push_str("hint: --failed, --older-than DAYS and --max-size SIZE remove more\n");
        }
        text
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Copied {
    /// `export` or `import`.
    action: &'static str,
    from: String,
    to: String,
    added: Vec<Entry>,
    added_bytes: u64,
    /// How many were there before.
    present: usize,
    refused: Vec<Refused>,
    /// Why nobody can import what was exported, as its folder is now.
    #[serde(flatten)]
    untrusted: Option<Refusal>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Refused {
    path: String,
    reason: String,
}

fn export(to: &Path) -> Result<Copied, Outcome> {
    let cache = Cache::from_environment()?;
    let to = complete(to)?;
    let done = cache.export(None, &to)?;
    let as_shared = Settings {
        shared: vec![to.clone()],
        ..cache.settings().clone()
    };
    let untrusted = build::folders(&as_shared)
        .into_iter()
        .filter(|folder| folder.is_shared)
        .find_map(|folder| folder.entries.err());
    let mut copied = Copied::new("export", &cache.settings().dir, &to, done);
    copied.untrusted = untrusted.as_ref().map(Refusal::short);
    Ok(copied)
}

fn import(from: &Path) -> Result<Copied, Outcome> {
    let cache = Cache::from_environment()?;
    let from = complete(from)?;
    let done = cache.import(&from)?;
    Ok(Copied::new("import", &from, &cache.settings().dir, done))
}

/// What is printed is of use in another folder too.
fn complete(folder: &Path) -> Result<PathBuf, Outcome> {
    absolute(folder).map_err(|e| {
        let name = folder.display();
        Outcome::new(FAILED, format!("{BAD}error{BAD:#}: folder '{name}': {e}\n"))
    })
}

impl Copied {
    fn new(action: &'static str, from: &Path, to: &Path, done: build::Copied) -> Self {
        let refused = |(path, reason): (PathBuf, String)| Refused {
            path: path.display().to_string(),
            reason,
        };
        Self {
            action,
            from: from.display().to_string(),
            to: to.display().to_string(),
            added_bytes: done.added.iter().map(|entry| entry.size_bytes).sum(),
            added: entry::gather(&done.added),
            present: done.present,
            refused: done.refused.into_iter().map(refused).collect(),
            untrusted: None,
        }
    }
}

impl View for Copied {
    fn text(&self) -> String {
        let (from, to) = (&self.from, &self.to);
        let mut text = match self.added.len() {
            0 => format!("copied nothing from {from} to {to}\n"),
            n => format!(
                "{GOOD}copied{GOOD:#} {}, {}, from {from} to {to}\n",
                count(n, "artefact"),
                size(self.added_bytes)
            ),
        };
        entry::table(&mut text, &self.added);
        if self.present > 0 {
            let artefacts = count(self.present, "artefact");
            let _ = writeln!(text, "there before: {artefacts}");
        }
        if self.added.is_empty() && self.present == 0 && self.refused.is_empty() {
            let _ = writeln!(text, "{from} holds no artefacts");
        }
        for Refused { path, reason } in &self.refused {
            let _ = writeln!(text, "{BAD}refused{BAD:#} {path}\n        {reason}");
        }
        if let Some(why) = &self.untrusted {
            let _ = writeln!(
                text,
                "{DOUBTFUL}nobody can use it as it is{DOUBTFUL:#}: {}",
                why.reason
            );
            why.hint_below(&mut text, 0);
        } else if self.action == "export" && self.added.len() + self.present > 0 {
            let _ = writeln!(
                text,
                "hint: `ds_report cache import {to}` takes it over, DS_CACHE_SHARED={to} reads it"
            );
        }
        text
    }

    /// Who asked for all of it has not got all of it.
    fn failure(&self) -> Option<Outcome> {
        (!self.refused.is_empty()).then(|| Outcome::new(FAILED, ""))
    }
}
