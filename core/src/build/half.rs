//! Folders of copies under way, in a place that is not the cache's own: each is locked by who makes
//! it, and the lock dies with its owner, on whatever machine that was.

use std::{fs::File, io, path::Path};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = ".half";

/// A folder for a copy; removed with this.
pub(super) struct Half {
    folder: TempDir,
    /// Nothing on a file system without locks, where nobody sweeps either.
    _lock: Option<File>,
}

impl Half {
    pub(super) fn new(staging: &Path) -> io::Result<Self> {
        loop {
            let folder = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(staging)?;
            let lock = File::open(folder.path())
                .ok()
                .filter(|file| flock(file, FlockOperation::LockExclusive).is_ok());
            // Somebody who sweeps may have been faster, and removed it.
            if folder.path().is_dir() {
                return Ok(Self {
                    folder,
                    _lock: lock,
                });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what those left who were killed.
pub(super) fn sweep(staging: &Path) {
    let items = std::fs::read_dir(staging).into_iter().flatten().flatten();
    for item in items {
        let is_half = item.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_half || !item.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = item.path();
        let Ok(folder) = File::open(&path) else {
            continue;
        };
        // Held until the folder is gone.
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Err(e) = std::fs::remove_dir_all(&path)
        {
            log::debug!("{} stays: {e}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let staging = tempfile::tempdir().unwrap();
        let held = Half::new(staging.path()).unwrap();
        let left = Half::new(staging.path()).unwrap();
        // As a process that is killed: the lock goes, the folder stays.
        let Half {
            folder,
            _lock: lock,
        } = left;
        let left = folder.keep();
        drop(lock);
        let other = staging.path().join("v1");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(left.join("file"), "half of it").unwrap();
        sweep(staging.path());
        assert_eq!(
            [held.path(), &left, &other].map(Path::exists),
            [true, false, true]
        );
    }
}
