//! The user's own folder of plugins: where it is, what lies in it, and how it changes.
//!
//! One command at a time changes it, and every change is a rename within it: a program that looks
//! sees a plugin whole or not at all. Names that begin with a dot are skipped by the search.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ds_core::{
    Error, ErrorKind, Result,
    discovery::{Candidate, Origin, Search, discover},
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tempfile::TempDir;

/// Folders that are being put together or put away; what a crash left of them goes the next time.
const PASSING: &str = ".passing-";

pub(super) struct Place {
    path: PathBuf,
}

/// The folder, held by this process alone.
pub(super) struct Held<'a> {
    place: &'a Place,
    /// It was not there before.
    is_new: bool,
    /// Gives the folder back when it is closed.
    _lock: File,
}

impl Place {
    /// # Errors
    /// When the process has no such folder, and why.
    pub(super) fn find() -> Result<Self> {
        let places = search().places();
        let own = places
            .into_iter()
            .find(|place| place.origin == Origin::UserData);
        let (path, skipped) = own.map_or((None, None), |place| (place.path, place.skipped));
        path.map(|path| Self { path }).ok_or_else(|| {
            let why = skipped.unwrap_or_default();
            Error::new(
                ErrorKind::NotInstalled,
                "find your folder of plugins",
                format!("there is no folder for them: {why}"),
            )
            .with_hint("set HOME, or XDG_DATA_HOME to an absolute path")
        })
    }

    /// What lies in it, judged as the search does.
    pub(super) fn plugins(&self) -> Vec<Candidate> {
        let mut candidates = discover(&search()).candidates;
        candidates.retain(|candidate| self.holds(candidate));
        candidates
    }

    pub(super) fn holds(&self, candidate: &Candidate) -> bool {
        let folder = candidate.path.as_deref().and_then(Path::parent);
        folder == Some(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder if need be, and holds it; waits while another command does.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub(super) fn hold(&self) -> Result<Held<'_>> {
        let is_new = !self.path.exists();
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path);
        let lock = made
            .and_then(|()| File::open(&self.path))
            .map_err(|e| failed("open", &self.path, e))?;
        match lock.lock() {
            Ok(()) => sweep(&self.path),
            // Some network file systems have no locks; the renames hold there all the same.
            Err(e) => log::debug!("{} is not locked: {e}", self.path.display()),
        }
        Ok(Held {
            place: self,
            is_new,
            _lock: lock,
        })
    }
}

impl Held<'_> {
    /// A folder that only this user reads, and that no search sees. It goes when it is dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn stage(&self) -> Result<TempDir> {
        let folder = &self.place.path;
        tempfile::Builder::new()
            .prefix(PASSING)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)
            .map_err(|e| failed("write to", folder, e))
    }

    /// Gives what is staged the name `name`; what has the name already is deleted.
    ///
    /// # Errors
    /// When it cannot be renamed; then all is as before.
    pub(super) fn publish(&self, staged: TempDir, name: &str) -> Result<PathBuf> {
        let path = self.place.path.join(name);
        let fail = |e: io::Error| failed("put the plugin at", &path, e);
        if path.symlink_metadata().is_err() {
            fs::rename(staged.path(), &path).map_err(fail)?;
            // It is the plugin now.
            let _ = staged.keep();
        } else {
            match renameat_with(CWD, staged.path(), CWD, &path, RenameFlags::EXCHANGE) {
                Ok(()) => {}
                // Not every file system exchanges in one step.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    let away = self.put_away(&path)?;
                    if let Err(e) = fs::rename(staged.path(), &path) {
                        let _ = fs::rename(away.path().join(name), &path);
                        return Err(fail(e));
                    }
                    let _ = staged.keep();
                }
                Err(e) => return Err(fail(e.into())),
            }
        }
        self.sync();
        Ok(path)
    }

    /// Takes a plugin out of the folder, and deletes it. Programs keep what they have opened.
    ///
    /// # Errors
    /// When it cannot be renamed; then all is as before.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let away = self.put_away(path)?;
        self.sync();
        let left = away.path().to_owned();
        // It is gone for every search; what cannot be deleted is tried again the next time.
        if let Err(e) = away.close() {
            log::warn!("delete {} by hand: {e}", left.display());
        }
        Ok(())
    }

    /// After a refusal nothing is left, not even a folder.
    pub(super) fn leave(self) {
        if self.is_new {
            let _ = fs::remove_dir(&self.place.path);
            let _ = self.place.path.parent().map(fs::remove_dir);
        }
    }

    fn put_away(&self, path: &Path) -> Result<TempDir> {
        let away = self.stage()?;
        let name = path.file_name().unwrap_or_default();
        fs::rename(path, away.path().join(name)).map_err(|e| failed("put away", path, e))?;
        Ok(away)
    }

    /// Has the names reach the disk. Where that cannot be asked for, they do so by themselves.
    fn sync(&self) {
        let _ = File::open(&self.place.path).and_then(|folder| folder.sync_all());
    }
}

/// The process's search, but for all places other than the user's.
fn search() -> Search {
    Search {
        plugin_path: None,
        executable: None,
        system: Vec::new(),
        ..Search::from_process()
    }
}

/// Deletes what a crash left behind.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PASSING.as_bytes())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn failed(what: &str, path: &Path, source: io::Error) -> Error {
    let text = format!("cannot {what} {}", path.display());
    Error::new(ErrorKind::Io, "change your plugins", text).with_source(source)
}
