//! Who could have written a file that is about to be run as code.
//!
//! A file is trusted if it and every folder above it belongs to root or to the user of this
//! process, and nobody else can write to any of them. Says nothing about what the file does.

#![forbid(unsafe_code)]

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Checks `path` and every folder above it, and returns the path without links: the one to open.
///
/// # Errors
///
/// `Untrusted`, with the exact path, its owner and mode, and the command that makes it right; `Io`
/// if something cannot be read.
pub fn check(path: &Path) -> Result<PathBuf> {
    let real = canonical(path)?;
    let euid = rustix::process::geteuid().as_raw();
    for part in real.ancestors() {
        let meta = part.symlink_metadata().map_err(|e| unreadable(part, e))?;
        judge(part, &Standing::of(&meta, part != real), euid)?;
    }
    Ok(real)
}

/// As [`check`], and refuses a `path` that a link leads out of `folder`.
///
/// # Errors
///
/// As [`check`].
pub fn check_inside(path: &Path, folder: &Path) -> Result<PathBuf> {
    let (real, home) = (canonical(path)?, canonical(folder)?);
    if !real.starts_with(&home) {
        return Err(Error::new(
            ErrorKind::Untrusted,
            "check trust",
            format!(
                "{} is a link that leaves its folder: it leads to {}",
                path.display(),
                real.display()
            ),
        )
        .with_hint("put the file itself into the folder"));
    }
    check(&real)
}

/// Which file it is, and whether it is still the same: compare before and after it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device that holds it.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its size.
    pub size_bytes: u64,
    /// When its content changed, since the epoch.
    pub modified_ns: i128,
}

impl FileIdentity {
    /// The identity behind `meta`.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.len(),
            modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        }
    }
}

/// What decides about one path.
struct Standing {
    owner: u32,
    mode: u32,
    /// A folder above the file: there the sticky bit keeps others from replacing what they do not
    /// own, and what lies in it is checked for its owner anyway.
    above: bool,
    /// Neither file nor folder, such as a FIFO: reading it may never end.
    special: bool,
}

impl Standing {
    fn of(meta: &Metadata, above: bool) -> Self {
        let kind = meta.file_type();
        Self {
            owner: meta.uid(),
            mode: meta.mode() & 0o7777,
            above,
            special: kind.is_fifo()
                || kind.is_socket()
                || kind.is_block_device()
                || kind.is_char_device(),
        }
    }
}

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

fn judge(path: &Path, standing: &Standing, euid: u32) -> Result<()> {
    let Standing {
        owner,
        mode,
        above,
        special,
    } = *standing;
    let refuse = |what: String, hint: String| {
        Err(Error::new(
            ErrorKind::Untrusted,
            "check trust",
            format!("{} {what} (owner {owner}, mode {mode:04o})", path.display()),
        )
        .with_hint(hint))
    };
    let shown = path.display();
    if special {
        return refuse(
            "is a FIFO, socket or device".to_owned(),
            format!("replace {shown} with a regular file"),
        );
    }
    if owner != 0 && owner != euid {
        return refuse(
            format!("belongs to another user than root and {euid}"),
            format!("if its content is known to be good: chown {euid} {shown}"),
        );
    }
    if mode & WRITABLE_BY_OTHERS != 0 && !(above && mode & STICKY != 0) {
        let who = match mode & WRITABLE_BY_OTHERS {
            0o020 => "its group",
            0o002 => "everybody",
            _ => "its group and everybody",
        };
        return refuse(
            format!("can be written to by {who}"),
            format!("chmod go-w {shown}"),
        );
    }
    Ok(())
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        "check trust",
        format!("cannot look at {}", path.display()),
    )
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A folder `plugin` with a file `lib.so`, in a fresh folder.
    fn plugin() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("plugin");
        let file = folder.join("lib.so");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "code").unwrap();
        chmod(&folder, 0o755);
        chmod(&file, 0o644);
        (home, folder, file)
    }

    #[test]
    fn judges_by_owner_and_mode() {
        let above = |owner, mode| Standing {
            owner,
            mode,
            above: true,
            special: false,
        };
        let file = |owner, mode| Standing {
            owner,
            mode,
            above: false,
            special: false,
        };
        for (standing, euid, good) in [
            (file(0, 0o644), 1000, true),
            (file(1000, 0o600), 1000, true),
            (file(1001, 0o644), 1000, false),
            (file(1000, 0o644), 0, false),
            (file(1000, 0o664), 1000, false),
            (file(1000, 0o646), 1000, false),
            (file(0, 0o1666), 1000, false),
            (above(0, 0o1777), 1000, true),
            (above(0, 0o777), 1000, false),
            (above(0, 0o775), 1000, false),
            (above(1001, 0o1777), 1000, false),
            (
                Standing {
                    special: true,
                    ..file(0, 0o644)
                },
                0,
                false,
            ),
        ] {
            let answer = judge(Path::new("/x"), &standing, euid);
            assert_eq!(
                answer.is_ok(),
                good,
                "owner {} mode {:o} euid {euid}",
                standing.owner,
                standing.mode
            );
        }
    }

    #[test]
    fn takes_a_file_of_ones_own_even_below_tmp() {
        let (_home, folder, file) = plugin();
        assert_eq!(
            check_inside(&file, &folder).unwrap(),
            file.canonicalize().unwrap()
        );
    }

    #[test]
    fn names_what_is_writable_and_the_command_that_helps() {
        let (home, folder, file) = plugin();
        chmod(&file, 0o666);
        let error = check(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(
            error
                .context()
                .contains("lib.so can be written to by its group and everybody")
        );
        assert!(error.context().contains("mode 0666"));
        assert!(error.hint().unwrap().starts_with("chmod go-w /"));

        chmod(&file, 0o644);
        chmod(&folder, 0o775);
        let error = check(&file).unwrap_err();
        assert!(
            error
                .context()
                .contains("/plugin can be written to by its group (")
        );

        chmod(&folder, 0o755);
        chmod(home.path(), 0o777);
        assert!(check(&file).is_err());
        chmod(home.path(), 0o1777);
        assert!(check(&file).is_ok());
    }

    #[test]
    fn refuses_a_link_out_of_the_folder_but_not_within() {
        let (home, folder, file) = plugin();
        let outside = home.path().join("outside.so");
        fs::write(&outside, "code").unwrap();
        chmod(&outside, 0o644);
        symlink(&outside, folder.join("out.so")).unwrap();
        symlink("lib.so", folder.join("in.so")).unwrap();
        let error = check_inside(&folder.join("out.so"), &folder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.context().contains("leaves its folder"));
        assert_eq!(
            check_inside(&folder.join("in.so"), &folder).unwrap(),
            file.canonicalize().unwrap()
        );
    }

    #[test]
    fn the_folder_itself_may_be_a_link() {
        let (home, folder, file) = plugin();
        let link = home.path().join("link");
        symlink(&folder, &link).unwrap();
        assert_eq!(
            check_inside(&link.join("lib.so"), &link).unwrap(),
            file.canonicalize().unwrap()
        );
    }

    #[test]
    fn another_users_file_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!(
                "skipped: only root can give a file away; judges_by_owner_and_mode covers it"
            );
            return;
        }
        let (_home, _folder, file) = plugin();
        std::os::unix::fs::chown(&file, Some(4321), None).unwrap();
        let error = check(&file).unwrap_err();
        assert!(
            error
                .context()
                .contains("belongs to another user than root and 0 (owner 4321")
        );
        assert!(error.hint().unwrap().contains("chown 0 /"));
    }

    #[test]
    fn what_is_not_there_is_an_io_error() {
        assert_eq!(
            check(Path::new("/nowhere/at/all")).unwrap_err().kind(),
            ErrorKind::Io
        );
    }

    #[test]
    fn identity_changes_with_the_content() {
        let (_home, _folder, file) = plugin();
        let before = FileIdentity::of(&file.metadata().unwrap());
        assert_eq!(before, FileIdentity::of(&file.metadata().unwrap()));
        fs::write(&file, "longer code").unwrap();
        assert_ne!(before, FileIdentity::of(&file.metadata().unwrap()));
    }
}
