//! Files and folders of the cache: whose they are, writing them durably, and errors that say what to
//! do. Knows nothing of builds.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path},
};

use rustix::{
    fs::{Access, OFlags, access},
    io::Errno,
};

use crate::{Error, ErrorKind, Result};

/// Write permission of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether `name` names a file in a folder: no folders, not `.` or `..`.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains('\0')
}

/// Why somebody else could have written a file or folder, if so: code comes out of it.
pub(super) fn distrust(metadata: &Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Some(format!(
            "belongs to user {}, not to {own} or root",
            metadata.uid()
        ));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & WRITABLE_BY_OTHERS != 0).then(|| format!("has mode {mode:04o}: others can write to it"))
}

/// Checks that a cache's top folder, when it exists, is one that only the user (or root, with
/// `or_root`) can write to. Gives whether it exists.
///
/// # Errors
/// `Untrusted` with the command that repairs it, `Io` when it cannot be looked at, is no folder, or
/// has a name that is not UTF-8.
pub(super) fn check_cache_folder(dir: &Path, or_root: bool) -> Result<bool> {
    const OP: &str = "check the build cache";
    // Which variable or argument names the folder is known for the user's own only.
    let elsewhere = if or_root {
        "name a folder that belongs to you or to root"
    } else {
        "set DS_CACHE_DIR to a folder of yours"
    };
    if dir.to_str().is_none() {
        let context = format!("{} is not UTF-8, as plugins are told paths", dir.display());
        return Err(Error::new(ErrorKind::Io, OP, context).with_hint(elsewhere));
    }
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(OP, dir, error).with_hint(elsewhere)),
    };
    if !metadata.is_dir() {
        return Err(io_error(OP, dir, Errno::NOTDIR.into()).with_hint(elsewhere));
    }
    let untrusted = |what: String, hint: String| {
        let context = format!("{} {what}, and code is loaded from it", dir.display());
        Err(Error::new(ErrorKind::Untrusted, OP, context).with_hint(hint))
    };
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && !(or_root && metadata.uid() == 0) {
        return untrusted(
            format!(
                "belongs to user {}, not to {own}{}",
                metadata.uid(),
                if or_root { " or root" } else { "" }
            ),
            elsewhere.into(),
        );
    }
    if let Some(what) = distrust(&metadata) {
        // A sticky folder, such as `/tmp`, is open to all on purpose.
        let hint = match metadata.mode() & 0o1000 {
            0 => format!("chmod go-w {}", dir.display()),
            _ => elsewhere.into(),
        };
        return untrusted(what, hint);
    }
    // Whoever can write to a folder above can put another one in this one's place. Folders above
    // that belong to a group or to a project are common and left to their owners.
    for above in fs::canonicalize(dir)
        .iter()
        .flat_map(|real| real.ancestors().skip(1))
    {
        let Ok(metadata) = fs::metadata(above) else {
            continue;
        };
        if metadata.mode() & 0o1002 == 0o0002 {
            return untrusted(
                format!(
                    "lies in {}, where everybody can replace it",
                    above.display()
                ),
                format!(
                    "chmod o-w {} (or chmod +t), or {elsewhere}",
                    above.display()
                ),
            );
        }
    }
    Ok(true)
}

/// Whether this process may write to a folder, or make it in the nearest one above that exists.
pub(super) fn is_writable(dir: &Path) -> bool {
    let nearest = dir.ancestors().find(|above| above.exists());
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    nearest.is_some_and(|above| access(above, wanted).is_ok())
}

/// Room in the file system of a folder, for this user.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(dir).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Makes a folder, and what is missing above it, that only the user can enter.
pub(super) fn make_private_folder(op: &'static str, dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| io_error(op, dir, error))
}

/// Opens a file to read it, unless it is a symbolic link.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Copies a regular file to a new one. What is none, such as a link or a FIFO that blocks whoever opens
/// it, is refused.
pub(super) fn copy_plain(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = open_plain(from)?;
    if !source.metadata()?.is_file() {
        return Err(Errno::INVAL.into());
    }
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(to)?;
    io::copy(&mut source, &mut target).map(drop)
}

/// Writes a new file and waits until it is on the disk.
pub(super) fn write_durably(op: &'static str, path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        file.write_all(content)?;
        sync(&file)
    };
    write().map_err(|error| io_error(op, path, error))
}

/// Replaces a file as a whole: readers see the old or the new content.
pub(super) fn replace(op: &'static str, path: &Path, tmp: &Path, content: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(tmp)?;
        file.write_all(content)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| io_error(op, path, error))
}

/// Takes the write permission of others from a file that a compiler made, and waits until it is on
/// the disk.
pub(super) fn seal(op: &'static str, path: &Path) -> Result<()> {
    let seal = || -> io::Result<()> {
        let file = open_plain(path)?;
        let mode = file.metadata()?.mode() & 0o777 & !WRITABLE_BY_OTHERS;
        file.set_permissions(Permissions::from_mode(mode | 0o600))?;
        sync(&file)
    };
    seal().map_err(|error| io_error(op, path, error))
}

/// Waits until a folder's names are on the disk.
pub(super) fn sync_folder(op: &'static str, dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|file| sync(&file))
        .map_err(|error| io_error(op, dir, error))
}

fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // Some file systems cannot; the rename still orders what readers on this machine see.
        Err(error) if is(&error, &[Errno::INVAL, Errno::NOTSUP, Errno::NOSYS]) => Ok(()),
        done => done,
    }
}

/// An `Io` error that names the path and what to do about it.
pub(super) fn io_error(op: &'static str, path: &Path, error: io::Error) -> Error {
    let hint = if is_full(&error) {
        Some("free some space, or set DS_CACHE_DIR to a folder on another file system")
    } else if is(
        &error,
        &[Errno::ROFS, Errno::ACCESS, Errno::PERM, Errno::NOTDIR],
    ) {
        Some("set DS_CACHE_DIR to a folder that you can write to")
    } else {
        None
    };
    let built = Error::new(ErrorKind::Io, op, path.display().to_string()).with_source(error);
    match hint {
        Some(hint) => built.with_hint(hint),
        None => built,
    }
}

/// Whether a write failed because there is no room for it.
pub(super) fn is_full(error: &io::Error) -> bool {
    is(error, &[Errno::NOSPC, Errno::DQUOT, Errno::FBIG])
}

/// Whether `error` is one of `codes`.
pub(super) fn is(error: &io::Error, codes: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused_with_the_command_that_repairs_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cache");
        assert!(!check_cache_folder(&dir, false).unwrap());
        make_private_folder("test", &dir).unwrap();
        assert!(check_cache_folder(&dir, false).unwrap());
        for mode in [0o770, 0o702] {
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            let error = check_cache_folder(&dir, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted);
            assert_eq!(
                error.hint(),
                Some(format!("chmod go-w {}", dir.display()).as_str())
            );
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        assert!(check_cache_folder(&dir, false).unwrap());

        fs::set_permissions(parent.path(), Permissions::from_mode(0o777)).unwrap();
        let error = check_cache_folder(&dir, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        fs::set_permissions(parent.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(check_cache_folder(&dir, false).unwrap());
    }

    #[test]
    fn another_users_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // Only root can give a folder away; elsewhere `/` is somebody else's already.
        let dir = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            dir.path()
        } else {
            Path::new("/")
        };
        let error = check_cache_folder(dir, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("belongs to user"), "{error}");
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_refused_before_anything_is_made() {
        use std::os::unix::ffi::OsStrExt;
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(std::ffi::OsStr::from_bytes(b"c\xffche"));
        let error = check_cache_folder(&dir, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
        assert!(error.hint().unwrap().contains("DS_CACHE_DIR"));
    }

    #[test]
    fn a_file_in_a_folders_place_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), file.path().join("cache")] {
            let error = check_cache_folder(&path, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
            assert!(error.hint().unwrap().contains("DS_CACHE_DIR"));
        }
    }
}
