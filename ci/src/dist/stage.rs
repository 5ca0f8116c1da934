//! A prefix in the making: filled beside its place, then put there by renames, so that nobody ever
//! sees half of one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::step::Outcome;

/// Lists the files of a prefix, so that the next build tells its own from what a user added.
pub(crate) const LISTING: &str = "share/deepspeed/files.txt";

/// What a file is installed for; the permissions follow, whatever the user's mask.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Program,
    Data,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Program => 0o755,
            Self::Data => 0o644,
        }
    }
}

const FOLDER_MODE: u32 = 0o755;

/// A prefix in the making. Dropped before [`Stage::publish`], it leaves nothing behind.
pub(crate) struct Stage {
    prefix: PathBuf,
    folder: PathBuf,
    files: BTreeSet<String>,
}

impl Stage {
    /// Starts a prefix. Refuses a folder that holds something else.
    pub(crate) fn new(prefix: &Path) -> Result<Self, String> {
        let at = |error| format!("cannot build into {}: {error}", prefix.display());
        let prefix = std::path::absolute(prefix).map_err(at)?;
        let occupied = fs::read_dir(&prefix).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !prefix.join(LISTING).is_file() {
            return Err(format!(
                "{} was not made by this command, which would replace it; name an empty folder",
                prefix.display()
            ));
        }
        let folder = beside(&prefix, "new");
        // A build that was killed left it; its process is gone, or the number would not be ours.
        remove(&folder).map_err(at)?;
        fs::create_dir_all(&folder).map_err(at)?;
        Ok(Self {
            prefix,
            folder,
            files: BTreeSet::new(),
        })
    }

    /// Copies a file to a path below the prefix.
    pub(crate) fn add(&mut self, from: &Path, to: &str, access: Access) -> Outcome {
        self.copy(from, to, access.mode())
            .map_err(|error| format!("cannot install {} as {to}: {error}", from.display()))?;
        self.files.insert(to.to_owned());
        Ok(())
    }

    /// As [`Stage::add`], for a text that is no file yet.
    pub(crate) fn add_text(&mut self, text: &str, to: &str) -> Outcome {
        let at = |error| format!("cannot install {to}: {error}");
        let path = self.folder.join(to);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(at)?;
        fs::write(&path, text).map_err(at)?;
        set_mode(&path, Access::Data.mode()).map_err(at)?;
        self.files.insert(to.to_owned());
        Ok(())
    }

    /// Puts the prefix in its place and gives the number of its files. What a user added to the one
    /// before, a plugin for instance, moves along.
    pub(crate) fn publish(mut self) -> Result<usize, String> {
        let at = |error| format!("cannot install the prefix: {error}");
        self.keep_additions()?;
        self.files.insert(LISTING.to_owned());
        let mut listing: Vec<_> = self.files.iter().map(String::as_str).collect();
        listing.push("");
        let path = self.folder.join(LISTING);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(at)?;
        fs::write(&path, listing.join("\n")).map_err(at)?;
        set_mode(&path, Access::Data.mode()).map_err(at)?;
        open_folders(&self.folder).map_err(at)?;

        let old = beside(&self.prefix, "old");
        remove(&old).map_err(at)?;
        match fs::rename(&self.prefix, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
        fs::rename(&self.folder, &self.prefix).map_err(at)?;
        remove(&old).map_err(at)?;
        Ok(self.files.len())
    }

    fn keep_additions(&self) -> Outcome {
        let listing = fs::read_to_string(self.prefix.join(LISTING)).unwrap_or_default();
        let ours: BTreeSet<_> = listing.lines().collect();
        for file in files_below(&self.prefix)? {
            if ours.contains(file.as_str()) || self.files.contains(&file) {
                continue;
            }
            let from = self.prefix.join(&file);
            self.keep(&from, &file)
                .map_err(|error| format!("cannot keep {}: {error}", from.display()))?;
        }
        Ok(())
    }

    fn keep(&self, from: &Path, to: &str) -> io::Result<()> {
        let metadata = fs::symlink_metadata(from)?;
        if !metadata.is_symlink() {
            return self.copy(from, to, metadata.permissions().mode());
        }
        let path = self.folder.join(to);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        symlink(fs::read_link(from)?, path)
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> io::Result<()> {
        let path = self.folder.join(to);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        fs::copy(from, &path)?;
        set_mode(&path, mode)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After `publish` it is no longer there. Elsewhere an error is being reported already.
        let _ = remove(&self.folder);
    }
}

/// Paths of the files below a folder, in order; none when the folder does not exist.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let here = folder.join(&below);
        let entries = match fs::read_dir(&here) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => {
                entries.map_err(|error| format!("cannot list {}: {error}", here.display()))?
            }
        };
        for entry in entries {
            let entry =
                entry.map_err(|error| format!("cannot list {}: {error}", here.display()))?;
            let path = below.join(entry.file_name());
            // A link counts as a file, also one to a folder.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path);
            } else {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A name in the folder of the prefix, so that renames stay within one file system.
fn beside(prefix: &Path, what: &str) -> PathBuf {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    prefix.with_file_name(format!(".{name}.{}.{what}", std::process::id()))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_folders(folder: &Path) -> io::Result<()> {
    set_mode(folder, FOLDER_MODE)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(prefix: &Path, source: &Path, to: &[(&str, Access)]) -> Result<usize, String> {
        let mut stage = Stage::new(prefix)?;
        for (to, access) in to {
            stage.add(source, to, *access)?;
        }
        stage.publish()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("file").permissions().mode() & 0o7777
    }

    #[test]
    fn a_prefix_is_replaced_whole_and_keeps_what_users_added() {
        let scratch = tempfile::tempdir().expect("a folder");
        let source = scratch.path().join("source");
        fs::write(&source, "text").expect("written");
        set_mode(&source, 0o600).expect("private");
        let prefix = scratch.path().join("prefix");

        let first = [("bin/a", Access::Program), ("share/gone", Access::Data)];
        assert_eq!(publish(&prefix, &source, &first), Ok(3));
        assert_eq!(mode(&prefix.join("bin/a")), 0o755);
        assert_eq!(mode(&prefix.join("share/gone")), 0o644);
        assert_eq!(mode(&prefix.join("share")), 0o755);

        let added = prefix.join("lib/deepspeed/plugins/mine/plugin.json");
        fs::create_dir_all(added.parent().expect("a folder")).expect("made");
        fs::write(&added, "mine").expect("written");
        symlink("mine", prefix.join("lib/deepspeed/plugins/link")).expect("linked");
        assert_eq!(
            publish(&prefix, &source, &[("bin/b", Access::Program)]),
            Ok(2)
        );
        assert_eq!(
            files_below(&prefix),
            Ok([
                "bin/b",
                "lib/deepspeed/plugins/link",
                "lib/deepspeed/plugins/mine/plugin.json",
                "share/deepspeed/files.txt"
            ]
            .map(str::to_owned)
            .to_vec())
        );
        assert_eq!(fs::read_to_string(&added).expect("kept"), "mine");

        // A second time, the addition is still the user's.
        assert_eq!(
            publish(&prefix, &source, &[("bin/b", Access::Program)]),
            Ok(2)
        );
        assert!(added.is_file());
        let names: BTreeSet<_> = fs::read_dir(scratch.path())
            .expect("scratch")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, BTreeSet::from(["prefix".into(), "source".into()]));
    }

    #[test]
    fn somebody_elses_folder_is_refused() {
        let scratch = tempfile::tempdir().expect("a folder");
        let file = scratch.path().join("usr/bin/ls");
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, "theirs").expect("written");
        let refused = publish(&scratch.path().join("usr"), &file, &[]);
        assert!(refused.is_err_and(|message| message.contains("was not made by this command")));
        assert!(file.is_file());
    }
}
