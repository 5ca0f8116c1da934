//! The cache: finds artefacts, builds what is missing, publishes it whole. Compiles nothing itself:
//! how is a closure, and running a program is one of them.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustix::io::Errno;
use tempfile::TempDir;

use super::{
    BuildKey, BuildSpec, CompileFailure, FailedBuild, JitMode, Record, Settings, Toolchain,
    ToolchainIdentity, files, lock::KeyLock, record,
};
use crate::{Error, ErrorKind, Result};

/// What lies in `tmp/` for longer is nobody's any more, unless builds may take longer still.
const LEFTOVER_AGE: Duration = Duration::from_hours(1);

/// Artefacts on disk: the user's folder, and read-only ones behind it.
///
/// Opening one touches nothing, and folders appear with the first build. Any call from any thread
/// and any number of processes.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(super) settings: Settings,
}

/// A validated artefact.
#[derive(Clone, Debug)]
pub struct Artefact {
    /// Its key.
    pub key: BuildKey,
    /// Its file.
    pub path: PathBuf,
    /// Its bytes, as they were checked.
    pub bytes: Vec<u8>,
    /// What it was built from.
    pub record: Record,
    /// Where it was found.
    pub level: Level,
    /// Keeps the folder of an artefact that could not be published.
    unpublished: Option<Arc<TempDir>>,
}

/// Where an artefact came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Built by this call.
    Built,
    /// Found in the user's cache.
    User,
    /// Found in a read-only cache.
    Shared,
}

impl Cache {
    /// Opens the cache that `settings` describe. Makes nothing.
    ///
    /// # Errors
    /// `Untrusted` when somebody else could write to the user's folder; `Io` when it cannot be
    /// looked at. A shared folder with such a flaw is left out, with a warning.
    pub fn open(mut settings: Settings) -> Result<Self> {
        files::check_cache_folder(&settings.dir, false)?;
        settings
            .shared
            .retain(|dir| match files::check_cache_folder(dir, true) {
                Ok(exists) => exists,
                Err(error) => {
                    log::warn!("a shared cache is left out: {error}");
                    false
                }
            });
        Ok(Self { settings })
    }

    /// Opens the cache that the process's variables ask for.
    ///
    /// # Errors
    /// As [`Settings::from_environment`] and [`Cache::open`].
    pub fn from_environment() -> Result<Self> {
        Self::open(Settings::from_environment()?)
    }

    /// Where it is and what it may do.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Finds a valid artefact; runs nothing, writes nothing. A damaged entry counts as none.
    pub fn lookup(&self, key: &BuildKey) -> Option<Artefact> {
        match self.lookup_user(key) {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(what) => log::warn!("damaged entry {}: {what}", self.entry(key).display()),
        }
        self.settings.shared.iter().find_map(|root| {
            let folder = entry_folder(root, key);
            match record::read_entry(&folder, key) {
                Ok(found) => found.map(|entry| Artefact::new(*key, entry, Level::Shared)),
                Err(what) => {
                    log::warn!("damaged entry {}: {what}", folder.display());
                    None
                }
            }
        })
    }

    /// The failure that is remembered for a key.
    pub fn failure(&self, key: &BuildKey) -> Option<FailedBuild> {
        record::read_failure(&self.failed_folder(key), key)
    }

    /// Removes what the user's cache holds of a key, an artefact or a failure, so that the next build
    /// is a new one. An artefact that is loaded stays loaded. Where `DS_JIT` forbids to build,
    /// nothing is removed.
    ///
    /// # Errors
    /// `Io` when the cache cannot be written to.
    pub fn forget(&self, key: &BuildKey) -> Result<()> {
        if self.settings.jit != JitMode::On {
            return Ok(());
        }
        self.make_folders()?;
        self.put_aside(&self.entry(key))?;
        self.put_aside(&self.failed_folder(key))
    }

    /// Finds the artefact of `spec`, or builds it with a compiler that is a program.
    ///
    /// # Errors
    /// As [`Cache::build_with`].
    pub fn build(&self, spec: &BuildSpec, toolchain: &Toolchain) -> Result<Artefact> {
        self.build_with(spec, toolchain.identity(), |folder| {
            toolchain.compile(&spec.request, folder, self.settings.timeout)
        })
    }

    /// Finds the artefact of `spec`, or has `compile` make it.
    ///
    /// `compile` is called at most once, in a folder that holds the sources and nothing else, and
    /// leaves the request's output there. It gives its log.
    ///
    /// # Errors
    /// - `BuildFailed`: the compiler refused the sources, now or before; or nothing is there and
    ///   `DS_JIT` forbids to build.
    /// - `Io`: the cache cannot be written to. Hits do not need that.
    /// - `Untrusted`: somebody else could write to the cache.
    /// - `PluginBug`: a request that breaks its rules.
    /// - Whatever `compile` gives.
    pub fn build_with(
        &self,
        spec: &BuildSpec,
        identity: &ToolchainIdentity,
        compile: impl FnOnce(&Path) -> Result<Vec<u8>, CompileFailure>,
    ) -> Result<Artefact> {
        spec.request.check()?;
        if spec.request.toolchain != identity.name {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("build {}", spec.subject()),
                format!(
                    "needs `{}`, and was given `{}`",
                    spec.request.toolchain, identity.name
                ),
            ));
        }
        let key = BuildKey::new(spec, identity);
        if self.settings.jit != JitMode::Off
            && let Some(found) = self.lookup(&key)
        {
            return Ok(found);
        }
        if self.settings.jit != JitMode::On {
            return Err(self.forbidden(spec));
        }
        if let Some(failed) = self.failure(&key) {
            return Err(failed.to_error());
        }

        self.make_folders()?;
        self.sweep_leftovers();
        let lock = self.settings.dir.join("lock").join(key.hex());
        let _lock = KeyLock::acquire(&lock, &spec.subject(), self.settings.timeout);
        // Somebody may have been faster.
        match self.lookup_user(&key) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(what) => {
                log::warn!("building {} again: {what}", spec.subject());
                self.put_aside(&self.entry(&key))?;
            }
        }
        if let Some(failed) = self.failure(&key) {
            return Err(failed.to_error());
        }
        self.build_now(spec, identity, key, compile)
    }

    fn build_now(
        &self,
        spec: &BuildSpec,
        identity: &ToolchainIdentity,
        key: BuildKey,
        compile: impl FnOnce(&Path) -> Result<Vec<u8>, CompileFailure>,
    ) -> Result<Artefact> {
        let op = "prepare a build";
        let folder = self.temporary_folder(&key.hex()[..8])?;
        let work = folder.path().join("work");
        let entry = folder.path().join("entry");
        files::make_private_folder(op, &work)?;
        files::make_private_folder(op, &entry)?;
        for (name, content) in &spec.request.sources {
            let path = work.join(name);
            fs::write(&path, &**content).map_err(|error| files::io_error(op, &path, error))?;
        }

        log::info!(
            "building {} for {} with {}",
            spec.subject(),
            spec.target,
            identity.path
        );
        let started = Instant::now();
        let output = work.join(&spec.request.output);
        let compiled = compile(&work).and_then(|log| match fs::symlink_metadata(&output) {
            Ok(metadata) if metadata.is_file() && metadata.len() > 0 => Ok(log),
            Ok(metadata) if metadata.is_file() => Err(CompileFailure::refused(
                &format!("`{}` is empty", spec.request.output),
                log,
            )),
            Ok(_) => Err(CompileFailure::refused(
                &format!("`{}` is no file", spec.request.output),
                log,
            )),
            // Somebody tidied the cache away under the compiler.
            Err(error) if !work.is_dir() => Err(CompileFailure {
                error: files::io_error(op, &work, error),
                log,
                lasting: false,
            }),
            Err(_) => Err(CompileFailure::missing(&spec.request.output, log)),
        });
        let build_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let log = match compiled {
            Ok(log) => log,
            Err(failure) => {
                let failure = failure.with_room(files::free_bytes(&work));
                return Err(self.remember(spec, identity, &key, &entry, failure));
            }
        };

        let op = "store an artefact";
        let path = entry.join(&spec.request.output);
        fs::rename(&output, &path).map_err(|error| files::io_error(op, &path, error))?;
        files::seal(op, &path)?;
        let bytes = fs::read(&path).map_err(|error| files::io_error(op, &path, error))?;
        let record = Record::new(&key, spec, identity, &bytes, build_ms);
        files::write_durably(op, &entry.join(record::LOG_FILE), &log)?;
        let text = sealed(&record)?;
        files::write_durably(op, &entry.join(record::RECORD_FILE), &text)?;
        files::sync_folder(op, &entry)?;

        let built = record::ValidEntry {
            record,
            path,
            bytes,
        };
        Ok(self.publish(key, &entry, built, folder))
    }

    /// Moves a finished entry to its place. Who lost the race uses the winner's; who cannot move it
    /// uses their own.
    fn publish(
        &self,
        key: BuildKey,
        entry: &Path,
        mut built: record::ValidEntry,
        folder: TempDir,
    ) -> Artefact {
        let target = self.entry(&key);
        let mut moved = move_to(entry, &target);
        if moved.as_ref().is_err_and(is_taken) {
            match record::read_entry(&target, &key) {
                Ok(Some(winner)) => return Artefact::new(key, winner, Level::User),
                Ok(None) => moved = move_to(entry, &target),
                Err(what) => {
                    log::warn!("damaged entry {}: {what}", target.display());
                    if self.put_aside(&target).is_ok() {
                        moved = move_to(entry, &target);
                    }
                }
            }
        }
        match moved {
            Ok(()) => {
                let _ = fs::remove_dir_all(self.failed_folder(&key));
                built.path = target.join(&built.record.artefact);
                Artefact::new(key, built, Level::Built)
            }
            Err(error) => {
                log::warn!(
                    "an artefact stays unpublished: {}: {error}",
                    target.display()
                );
                let mut artefact = Artefact::new(key, built, Level::Built);
                artefact.unpublished = Some(Arc::new(folder));
                artefact
            }
        }
    }

    /// Turns a compiler's failure into the caller's error, and keeps it when it is a lasting one.
    fn remember(
        &self,
        spec: &BuildSpec,
        identity: &ToolchainIdentity,
        key: &BuildKey,
        entry: &Path,
        failure: CompileFailure,
    ) -> Error {
        let op = format!("build {}", spec.subject());
        let CompileFailure {
            error,
            log,
            lasting,
        } = failure;
        if !lasting {
            let again = Error::new(error.kind(), op, error.to_string());
            return match error.hint() {
                Some(hint) => again.with_hint(hint),
                None => again,
            };
        }
        let failed = FailedBuild::new(key, spec, identity, error.context().to_owned());
        let kept = || -> Result<PathBuf> {
            let op = "keep a build's log";
            files::write_durably(op, &entry.join(record::LOG_FILE), &log)?;
            files::write_durably(op, &entry.join(record::FAILED_FILE), &sealed(&failed)?)?;
            let target = self.failed_folder(key);
            match move_to(entry, &target) {
                Err(error) if !is_taken(&error) => Err(files::io_error(op, &target, error)),
                _ => Ok(target.join(record::LOG_FILE)),
            }
        };
        let hint = match kept() {
            Ok(log) => format!("the log is {}", log.display()),
            Err(error) => {
                log::warn!("{error}");
                "the log could not be kept".into()
            }
        };
        Error::new(ErrorKind::BuildFailed, op, failed.reason).with_hint(hint)
    }

    fn forbidden(&self, spec: &BuildSpec) -> Error {
        let jit = self.settings.jit.name();
        let context = match self.settings.jit {
            JitMode::Off => format!("DS_JIT={jit}: nothing is built or taken from the cache"),
            _ => format!("not in {}, and DS_JIT={jit}", self.settings.dir.display()),
        };
        Error::new(
            ErrorKind::BuildFailed,
            format!("build {}", spec.subject()),
            context,
        )
        .with_hint("set DS_JIT=on, or fill the cache with `ds_report build` beforehand")
    }

    fn lookup_user(&self, key: &BuildKey) -> Result<Option<Artefact>, String> {
        let entry = record::read_entry(&self.entry(key), key)?;
        Ok(entry.map(|entry| Artefact::new(*key, entry, Level::User)))
    }

    pub(super) fn entry(&self, key: &BuildKey) -> PathBuf {
        entry_folder(&self.settings.dir, key)
    }

    pub(super) fn failed_folder(&self, key: &BuildKey) -> PathBuf {
        entry_folder(&self.settings.dir, key).with_extension("failed")
    }

    pub(super) fn toolchain_records(&self) -> PathBuf {
        self.settings.dir.join("v1").join("toolchains.json")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.settings.dir.join("tmp")
    }

    /// Makes what a build needs, and checks again: the folder may be new, or somebody else's.
    pub(crate) fn make_folders(&self) -> Result<()> {
        for name in ["v1", "lock", "tmp"] {
            files::make_private_folder("make the build cache", &self.settings.dir.join(name))?;
        }
        files::check_cache_folder(&self.settings.dir, false)?;
        Ok(())
    }

    pub(crate) fn temporary_folder(&self, prefix: &str) -> Result<TempDir> {
        let tmp = self.tmp();
        tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&tmp)
            .map_err(|error| files::io_error("prepare a build", &tmp, error))
    }

    /// Replaces a file of the cache as a whole.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        files::replace("write to the build cache", path, &self.tmp(), content)
    }

    /// Moves a folder out of the way as a whole and removes it; readers never see a part of it.
    pub(super) fn put_aside(&self, folder: &Path) -> Result<()> {
        let op = "put an entry aside";
        let aside = self.temporary_folder("aside")?;
        match fs::rename(folder, aside.path().join("entry")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(files::io_error(op, folder, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what builds that died left behind. Gives how many folders.
    pub(crate) fn sweep_leftovers(&self) -> usize {
        self.sweep(&self.tmp())
    }

    /// Removes the lock files that nobody has taken for long: who holds one is done by then, and who
    /// comes makes a new one.
    pub(super) fn sweep_locks(&self) {
        self.sweep(&self.settings.dir.join("lock"));
    }

    /// Removes what lies in a folder for longer than any build takes. Gives how much.
    fn sweep(&self, folder: &Path) -> usize {
        let age = LEFTOVER_AGE.max(self.settings.timeout * 2);
        let Ok(items) = fs::read_dir(folder) else {
            return 0;
        };
        let is_old = |item: &fs::DirEntry| {
            let modified = item.metadata().and_then(|metadata| metadata.modified());
            // As far in the future it is from before the clock was set back, and would stay for ever.
            modified.is_ok_and(|then| match SystemTime::now().duration_since(then) {
                Ok(since) => since > age,
                Err(ahead) => ahead.duration() > age,
            })
        };
        items
            .flatten()
            .filter(is_old)
            .filter(|item| remove_all(&item.path()).is_ok())
            .count()
    }
}

impl Artefact {
    fn new(key: BuildKey, entry: record::ValidEntry, level: Level) -> Self {
        let record::ValidEntry {
            record,
            path,
            bytes,
        } = entry;
        Self {
            key,
            path,
            bytes,
            record,
            level,
            unpublished: None,
        }
    }
}

pub(super) fn entry_folder(root: &Path, key: &BuildKey) -> PathBuf {
    let hex = key.hex();
    root.join("v1").join(&hex[..2]).join(hex)
}

/// Renames a folder, first making the one above its new place.
pub(super) fn move_to(folder: &Path, target: &Path) -> io::Result<()> {
    let above = target.parent().unwrap_or(target);
    // Not with the mode that the process's mask leaves: others could put folders into it.
    match fs::DirBuilder::new().mode(0o700).create(above) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::rename(folder, target)?;
    // Whether the name survives a power failure; the entry is whole or absent either way.
    if let Err(error) = files::sync_folder("store an artefact", above) {
        log::debug!("{error}");
    }
    Ok(())
}

/// Whether a rename failed because something is there already.
pub(super) fn is_taken(error: &io::Error) -> bool {
    files::is(error, &[Errno::NOTEMPTY, Errno::EXIST, Errno::NOTDIR])
}

pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let is_folder = fs::symlink_metadata(path)?.is_dir();
    if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

pub(super) fn sealed<T: serde::Serialize + Clone>(record: &T) -> Result<Vec<u8>> {
    record::to_sealed_json(record).map_err(|error| {
        Error::new(ErrorKind::Internal, "write a record", "no JSON").with_source(error)
    })
}
