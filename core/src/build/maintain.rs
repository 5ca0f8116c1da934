//! Upkeep of the cache: list, prune, export, import. What `ds_report cache` shows and does.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    BuildKey, Cache, FailedBuild, Record,
    cache::{entry_folder, is_taken, move_to},
    files, record,
};
use crate::Result;

/// One entry of the user's cache.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Artefacts, failures and damaged entries.
    pub entries: usize,
    /// Their size.
    pub freed_bytes: u64,
    /// Folders that dead builds left.
    pub leftovers: usize,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Entries that are new.
    pub added: usize,
    /// Entries that were there before.
    pub present: usize,
    /// Entries that were not taken, and why.
    pub refused: Vec<(PathBuf, String)>,
}

/// The cache in numbers.
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
        let mut stats = Stats::default();
        for entry in self.entries()? {
            stats.size_bytes += entry.size_bytes;
            match entry.state {
                EntryState::Built(_) => stats.built += 1,
                EntryState::Failed(_) => stats.failed += 1,
                EntryState::Damaged(_) => stats.damaged += 1,
            }
        }
        Ok(stats)
    }

    /// Removes what the rules say, damaged entries, and what dead builds left. An artefact that is
    /// loaded stays loaded.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read or written to.
    pub fn prune(&self, rules: &PruneRules) -> Result<Pruned> {
        let mut pruned = Pruned::default();
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
        if !doomed.is_empty() {
            self.make_folders()?;
        }
        for entry in doomed {
            self.put_aside(&entry.folder)?;
            pruned.entries += 1;
            pruned.freed_bytes += entry.size_bytes;
        }
        pruned.leftovers = self.sweep_leftovers();
        Ok(pruned)
    }

    /// Copies valid artefacts (`keys`, or all of them) into a folder with the layout of a cache, for
    /// another machine to import or for `DS_CACHE_SHARED` to name. Gives how many it holds of them.
    ///
    /// # Errors
    /// `Io`, with the path that could not be read or written.
    pub fn export(&self, keys: Option<&[BuildKey]>, to: &Path) -> Result<usize> {
        let mut exported = 0;
        for entry in self.entries()? {
            let EntryState::Built(record) = &entry.state else {
                continue;
            };
            if keys.is_some_and(|keys| !keys.contains(&entry.key)) {
                continue;
            }
            let target = entry_folder(to, &entry.key);
            copy_entry(&entry.folder, record, to, &target, 0o755)?;
            exported += 1;
        }
        Ok(exported)
    }

    /// Takes over the valid entries of an exported folder.
    ///
    /// # Errors
    /// `Untrusted` when somebody else could have written to the folder, `Io` when it or the cache
    /// cannot be used. An entry that is not valid is reported, not an error.
    pub fn import(&self, from: &Path) -> Result<Imported> {
        const OP: &str = "import a cache";
        if !files::check_cache_folder(from, true)? {
            return Err(files::io_error(
                OP,
                from,
                std::io::ErrorKind::NotFound.into(),
            ));
        }
        self.make_folders()?;
        let mut imported = Imported::default();
        for entry in entries_of(from)? {
            match entry.state {
                EntryState::Failed(_) => {}
                EntryState::Damaged(what) => imported.refused.push((entry.folder, what)),
                EntryState::Built(_) if self.lookup(&entry.key).is_some() => imported.present += 1,
                EntryState::Built(record) => {
                    let staging = self.temporary_folder("import")?;
                    let target = self.entry(&entry.key);
                    if fs::symlink_metadata(&target).is_ok() {
                        self.put_aside(&target)?;
                    }
                    copy_entry(&entry.folder, &record, staging.path(), &target, 0o700)?;
                    // The copy counts, not what was read before it.
                    match record::read_entry(&target, &entry.key) {
                        Ok(Some(_)) => imported.added += 1,
                        Ok(None) => imported.refused.push((entry.folder, "it vanished".into())),
                        Err(what) => {
                            self.put_aside(&target)?;
                            imported.refused.push((entry.folder, what));
                        }
                    }
                }
            }
        }
        Ok(imported)
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
    let half = tempfile::Builder::new()
        .prefix(".half")
        .tempdir_in(staging)
        .map_err(|error| files::io_error(OP, staging, error))?;
    let copy = half.path().join("entry");
    make(&copy)?;
    for name in [
        record.artefact.as_str(),
        record::LOG_FILE,
        record::RECORD_FILE,
    ] {
        let from = folder.join(name);
        let to = copy.join(name);
        fs::copy(&from, &to).map_err(|error| files::io_error(OP, &from, error))?;
        files::seal(OP, &to)?;
    }
    match move_to(&copy, target) {
        // It is content addressed: what is there is the same.
        Err(error) if !is_taken(&error) => Err(files::io_error(OP, target, error)),
        _ => Ok(()),
    }
}
