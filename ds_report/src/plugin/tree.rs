//! All that lies in a plugin's folder: whether each part may be taken along, and the copy.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use ds_core::{Error, ErrorKind, Result, trust};

/// A plugin with more files than this is a source tree.
const MAX_ENTRIES: usize = 4096;

pub(super) struct Tree {
    root: PathBuf,
    /// Relative to the root, folders before what is in them.
    entries: Vec<(PathBuf, Kind)>,
}

enum Kind {
    Folder,
    File { executable: bool },
    Link(PathBuf),
}

impl Tree {
    /// Lists the folder, and checks who could have written each part of it.
    ///
    /// # Errors
    /// For the first part that somebody else could have written, that leads out of the folder, or
    /// that is no file, folder or link.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self {
            root: root.to_owned(),
            entries: Vec::new(),
        };
        let mut todo = vec![PathBuf::new()];
        while let Some(folder) = todo.pop() {
            let here = root.join(&folder);
            let fail = |e: io::Error| failed("read", &here, e);
            for entry in fs::read_dir(&here).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let path = folder.join(entry.file_name());
                let kind = tree.judge(&path)?;
                if matches!(kind, Kind::Folder) {
                    todo.push(path.clone());
                }
                tree.entries.push((path, kind));
                if tree.entries.len() > MAX_ENTRIES {
                    return Err(Error::new(
                        ErrorKind::Incompatible,
                        "copy the folder",
                        format!("{} holds more than {MAX_ENTRIES} files", root.display()),
                    )
                    .with_hint(
                        "name a folder with the manifest, the library, and what they need",
                    ));
                }
            }
        }
        Ok(tree)
    }

    fn judge(&self, path: &Path) -> Result<Kind> {
        let here = self.root.join(path);
        let meta = here
            .symlink_metadata()
            .map_err(|e| failed("read", &here, e))?;
        if meta.is_symlink() {
            let to = fs::read_link(&here).map_err(|e| failed("read", &here, e))?;
            if !stays_inside(path, &to) {
                return Err(Error::new(
                    ErrorKind::Untrusted,
                    "copy the folder",
                    format!(
                        "{} is a link that leaves its folder: it leads to {}",
                        here.display(),
                        to.display()
                    ),
                )
                .with_hint("put the file itself into the folder, or make the link relative"));
            }
            // Through other links it could still leave, or lead nowhere.
            trust::check_inside(&here, &self.root)?;
            return Ok(Kind::Link(to));
        }
        trust::check(&here)?;
        Ok(if meta.is_dir() {
            Kind::Folder
        } else {
            Kind::File {
                executable: meta.permissions().mode() & 0o100 != 0,
            }
        })
    }

    /// Copies all of it into the folder `to`, for this user's eyes alone, and onto the disk.
    ///
    /// # Errors
    /// With the file at which it stopped.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        for (path, kind) in &self.entries {
            let (from, to) = (self.root.join(path), to.join(path));
            match kind {
                Kind::Folder => DirBuilder::new().mode(0o700).create(&to),
                Kind::Link(target) => symlink(target, &to),
                Kind::File { executable } => {
                    copy_file(&from, &to, if *executable { 0o700 } else { 0o600 })
                }
            }
            .map_err(|e| failed("copy", &from, e))?;
        }
        Ok(())
    }
}

fn copy_file(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    let mut new = OpenOptions::new();
    let mut new = new.write(true).create_new(true).mode(mode).open(to)?;
    io::copy(&mut File::open(from)?, &mut new)?;
    new.sync_all()
}

/// Whether a link at `path` in the folder stays in it wherever the folder is moved to.
fn stays_inside(path: &Path, to: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    to.components().all(|part| match part {
        Component::ParentDir if depth == 0 => false,
        Component::ParentDir => {
            depth -= 1;
            true
        }
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::RootDir | Component::Prefix(_) => false,
    })
}

fn failed(what: &str, path: &Path, source: io::Error) -> Error {
    let text = format!("cannot {what} {}", path.display());
    Error::new(ErrorKind::Io, "copy the folder", text).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_inside_or_does_not() {
        for (path, to, inside) in [
            ("lib.so", "lib.so.1", true),
            ("a/lib.so", "../lib.so", true),
            ("a/lib.so", "../../lib.so", false),
            // It leads into the folder now, and out of it once that has another name.
            ("lib.so", "../folder/lib.so", false),
            ("lib.so", "a/../../folder/lib.so", false),
            ("lib.so", "/usr/lib/lib.so", false),
            ("lib.so", "./a/../lib.so.1", true),
        ] {
            assert_eq!(
                stays_inside(Path::new(path), Path::new(to)),
                inside,
                "{path} to {to}"
            );
        }
    }

    #[test]
    fn a_copy_is_whole_and_its_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b/tool"), "tool").unwrap();
        fs::set_permissions(from.join("a/b/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(from.join("a/data"), "data").unwrap();
        fs::set_permissions(from.join("a/data"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink("a/b/tool", from.join("link")).unwrap();
        Tree::read(&from).unwrap().copy(&to).unwrap();
        let mode = |path: &str| {
            to.join(path)
                .symlink_metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(mode("a/b"), 0o700);
        assert_eq!(mode("a/b/tool"), 0o700);
        assert_eq!(mode("a/data"), 0o600);
        assert_eq!(fs::read(to.join("link")).unwrap(), b"tool");
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("a/b/tool")
        );
    }
}
