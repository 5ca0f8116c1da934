//! Upkeep of the cache: list, prune, export, import. What `ds_report cache` shows and does.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::io::Errno;

use super::{
    BuildKey, Cache, FailedBuild, Record, Settings,
    cache::{entry_folder, is_taken, move_to},
    files,
    half::{self, Half},
    record,
};
use crate::{Error, ErrorKind, Result};

/// One of the folders that the cache consists of, as it stands.
#[derive(Debug)]
pub struct CacheFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is one of the read-only ones behind the user's.
    pub is_shared: bool,
    /// Whether this process may write there, or make it where there is none; of no account for a
    /// shared one.
    pub is_writable: bool,
    /// Its entries, checked, by key; `None` when there is no such folder. An error says why it is
    /// not used.
    pub entries: Result<Option<Vec<Entry>>>,
}

/// One entry of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: BuildKey,
    /// Its folder.
    pub folder: PathBuf,
    /// Size of all its files.
    pub size_bytes: u64,
    /// What it is.
    pub state: EntryState,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// A valid artefact.
    Built(Record),
    /// A remembered failure.
    Failed(FailedBuild),
    /// Of no use; says why.
    Damaged(String),
}

/// What to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneRules {
    /// Artefacts and failures that are older.
    pub older_than: Option<Duration>,
    /// The oldest artefacts, until no more than this is left.
    pub max_bytes: Option<u64>,
    /// Every remembered failure.
    pub failed: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Artefacts, failures and damaged entries, as they were.
    pub removed: Vec<Entry>,
    /// Folders that dead builds left.
    pub leftovers: usize,
}

/// What an export or an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Entries that are new there, as they were where they came from.
    pub added: Vec<Entry>,
    /// Entries that were there before.
    pub present: usize,
    /// Entries that were not taken, and why.
    pub refused: Vec<(PathBuf, String)>,
}

/// Entries in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Valid artefacts.
    pub built: usize,
    /// Remembered failures.
    pub failed: usize,
    /// Damaged entries.
    pub damaged: usize,
    /// Size of all of them.
    pub size_bytes: u64,
}

/// The folders that `settings` name, the user's first, whether they can be used or not.
pub fn folders(settings: &Settings) -> Vec<CacheFolder> {
    let shared = settings.shared.iter().map(|dir| (dir, true));
    [(&settings.dir, false)]
        .into_iter()
        .chain(shared)
        .map(|(dir, is_shared)| CacheFolder {
            path: dir.clone(),
            is_shared,
            is_writable: ["v1", "tmp"]
                .map(|name| dir.join(name))
                .iter()
                .all(|dir| files::is_writable(dir)),
            entries: files::check_cache_folder(dir, is_shared)
                .and_then(|exists| exists.then(|| entries_of(dir)).transpose()),
        })
        .collect()
}

impl Cache {
    /// Every entry of the user's cache, checked, by key.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read; one that does not exist yet is empty.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        entries_of(&self.settings.dir)
    }

    /// The user's cache in numbers.
    ///
    /// # Errors
    /// As [`Cache::entries`].
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats::of(&self.entries()?))
    }

    /// What [`Cache::prune`] would remove: what the rules say, and damaged entries.
    ///
    /// # Errors
    /// As [`Cache::entries`].
    pub fn prunable(&self, rules: &PruneRules) -> Result<Vec<Entry>> {
        let mut kept = Vec::new();
        let mut doomed = Vec::new();
        let now = record::unix_now_s();
        let is_old = |created_unix_s: u64| {
            let age = Duration::from_secs(now.saturating_sub(created_unix_s));
            rules.older_than.is_some_and(|limit| age > limit)
        };
        for entry in self.entries()? {
            match &entry.state {
                EntryState::Built(record) if !is_old(record.created_unix_s) => {
                    kept.push((record.created_unix_s, entry));
                }
                EntryState::Failed(failed) if !rules.failed && !is_old(failed.created_unix_s) => {}
                _ => doomed.push(entry),
            }
        }
        if let Some(max_bytes) = rules.max_bytes {
            kept.sort_by_key(|(created_unix_s, entry)| (*created_unix_s, entry.key));
            let mut left: u64 = kept.iter().map(|(_, entry)| entry.size_bytes).sum();
            for (_, entry) in kept {
                if left <= max_bytes {
                    break;
                }
                left -= entry.size_bytes;
                doomed.push(entry);
            }
        }
        Ok(doomed)
    }

    /// Removes what the rules say, damaged entries, and what dead builds left. An artefact that is
    /// loaded stays loaded.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read or written to.
    pub fn prune(&self, rules: &PruneRules) -> Result<Pruned> {
        let removed = self.prunable(rules)?;
        if !removed.is_empty() {
            self.make_folders()?;
        }
        for entry in &removed {
            self.put_aside(&entry.folder)?;
        }
        self.sweep_locks();
        Ok(Pruned {
            removed,
            leftovers: self.sweep_leftovers(),
        })
    }

    /// Copies valid artefacts (`keys`, or all of them) into a folder with the layout of a cache, for
    /// another machine to import or for `DS_CACHE_SHARED` to name. What an export that was killed left
    /// there is removed.
    ///
    /// # Errors
    /// `Io`, with the path that could not be read or written. A damaged entry, here or there, is
    /// reported, not an error.
    pub fn export(&self, keys: Option<&[BuildKey]>, to: &Path) -> Result<Copied> {
        half::sweep(to);
        let mut copied = Copied::default();
        for entry in self.entries()? {
            if keys.is_some_and(|keys| !keys.contains(&entry.key)) {
                continue;
            }
            let record = match &entry.state {
                EntryState::Failed(_) => continue,
                EntryState::Damaged(what) => {
                    copied.refused.push((entry.folder, what.clone()));
                    continue;
                }
                EntryState::Built(record) => record,
            };
            let target = entry_folder(to, &entry.key);
            match record::read_entry(&target, &entry.key) {
                Ok(Some(_)) => copied.present += 1,
                Ok(None) => {
                    copy_entry(&entry.folder, record, to, &target, 0o755).map_err(|error| {
                        // The hints are about the cache, and this folder is not it.
                        match error.hint() {
                            Some(_) => {
                                error.with_hint("name a folder that you can write to, with room")
                            }
                            None => error,
                        }
                    })?;
                    copied.added.push(entry);
                }
                // It is not ours to remove.
                Err(what) => copied.refused.push((
                    target,
                    format!("there is one already, damaged: {what}; remove it and export again"),
                )),
            }
        }
        Ok(copied)
    }

    /// Takes over the valid entries of an exported folder.
    ///
    /// # Errors
    /// `Untrusted` when somebody else could have written to the folder, `Io` when it or the cache
    /// cannot be used. An entry that is not valid is reported, not an error.
    pub fn import(&self, from: &Path) -> Result<Copied> {
        const OP: &str = "import a cache";
        if !files::check_cache_folder(from, true)? {
            return Err(files::io_error(OP, from, Errno::NOENT.into()));
        }
        if !from.join("v1").is_dir() {
            let what = format!("{} has no folder v1 and is no cache", from.display());
            return Err(Error::new(ErrorKind::Io, OP, what)
                .with_hint("name the folder that `ds_report cache export` wrote"));
        }
        self.make_folders()?;
        let mut copied = Copied::default();
        for entry in entries_of(from)? {
            match &entry.state {
                EntryState::Failed(_) => {}
                EntryState::Damaged(what) => copied.refused.push((entry.folder, what.clone())),
                EntryState::Built(_) if self.lookup(&entry.key).is_some() => copied.present += 1,
                EntryState::Built(record) => {
                    let staging = self.temporary_folder("import")?;
                    let target = self.entry(&entry.key);
                    if fs::symlink_metadata(&target).is_ok() {
                        self.put_aside(&target)?;
                    }
                    copy_entry(&entry.folder, record, staging.path(), &target, 0o700)?;
                    // The copy counts, not what was read before it.
                    match record::read_entry(&target, &entry.key) {
                        Ok(Some(_)) => copied.added.push(entry),
                        Ok(None) => copied.refused.push((entry.folder, "it vanished".into())),
                        Err(what) => {
                            self.put_aside(&target)?;
                            copied.refused.push((entry.folder, what));
                        }
                    }
                }
            }
        }
        Ok(copied)
    }
}

impl Stats {
    /// These entries in numbers.
    pub fn of(entries: &[Entry]) -> Self {
        let mut stats = Self::default();
        for entry in entries {
            stats.size_bytes += entry.size_bytes;
            match entry.state {
                EntryState::Built(_) => stats.built += 1,
                EntryState::Failed(_) => stats.failed += 1,
                EntryState::Damaged(_) => stats.damaged += 1,
            }
        }
        stats
    }
}

impl Entry {
    /// When it was made, in seconds after 1970; unknown for a damaged one.
    pub fn created_unix_s(&self) -> Option<u64> {
        match &self.state {
            EntryState::Built(record) => Some(record.created_unix_s),
            EntryState::Failed(failed) => Some(failed.created_unix_s),
            EntryState::Damaged(_) => None,
        }
    }
}

fn entries_of(root: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for group in folders_in(&root.join("v1"))? {
        for folder in folders_in(&group)? {
            let name = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let (hex, is_failure) = match name.strip_suffix(".failed") {
                Some(hex) => (hex, true),
                None => (name.as_str(), false),
            };
            // What nobody here named is nobody's to judge or to remove.
            let Ok(key) = hex.parse::<BuildKey>() else {
                continue;
            };
            let state = if is_failure {
                match record::read_failure(&folder, &key) {
                    Some(failed) => EntryState::Failed(failed),
                    None => EntryState::Damaged("the remembered failure cannot be read".into()),
                }
            } else {
                match record::read_entry(&folder, &key) {
                    Ok(Some(valid)) => EntryState::Built(valid.record),
                    // Somebody removed it meanwhile.
                    Ok(None) => continue,
                    Err(what) => EntryState::Damaged(what),
                }
            };
            entries.push(Entry {
                key,
                size_bytes: size_of(&folder),
                folder,
                state,
            });
        }
    }
    entries.sort_by(|a, b| (a.key, &a.folder).cmp(&(b.key, &b.folder)));
    Ok(entries)
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(files::io_error("list the build cache", folder, error)),
    };
    let is_folder = |item: &fs::DirEntry| item.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(listing
        .flatten()
        .filter(is_folder)
        .map(|item| item.path())
        .collect())
}

fn size_of(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.size())
        .sum()
}

/// Copies the files of an entry through a folder in `staging`, so that `target` appears whole.
fn copy_entry(
    folder: &Path,
    record: &Record,
    staging: &Path,
    target: &Path,
    mode: u32,
) -> Result<()> {
    const OP: &str = "copy an entry";
    let make = |dir: &Path| {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .map_err(|error| files::io_error(OP, dir, error))
    };
    make(target.parent().unwrap_or(target))?;
    make(staging)?;
    let half = Half::new(staging).map_err(|error| files::io_error(OP, staging, error))?;
    let copy = half.path().join("entry");
    make(&copy)?;
    for name in [
        record.artefact.as_str(),
        record::LOG_FILE,
        record::RECORD_FILE,
    ] {
        let from = folder.join(name);
        let to = copy.join(name);
        match files::copy_plain(&from, &to) {
            // Nothing depends on the log: somebody may have tidied it away, or put a link there.
            Err(_) if name == record::LOG_FILE => continue,
            Err(error) => return Err(files::io_error(OP, &from, error)),
            Ok(()) => {}
        }
        files::seal(OP, &to)?;
    }
    match move_to(&copy, target) {
        // It is content addressed: what is there is the same.
        Err(error) if !is_taken(&error) => Err(files::io_error(OP, target, error)),
        _ => Ok(()),
    }
}
