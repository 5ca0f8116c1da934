//! The place to measure: a file without a name in a folder that has room, so that nothing that is
//! there is touched and nothing is left, whatever ends this process.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    process::{Resource, getrlimit},
};

use super::engines::reason;
use crate::{sizes::size, view::Outcome};

/// What is taken without `--size`: larger than what is in flight, and soon written.
const USUAL_BYTES: u64 = 256 << 20;
/// The least that says anything of a disk.
const LEAST_BYTES: u64 = 2 << 20;
/// The least without `--size`; who wants a figure of less can say so.
const USUAL_LEAST_BYTES: u64 = 16 << 20;
/// Direct I/O moves whole pages.
const PAGE_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) file: File,
    /// Such as `ext4 on /dev/nvme0n1`, where it is known.
    pub(super) filesystem: Option<String>,
    /// The most that the file may take.
    pub(super) most_bytes: u64,
}

impl Place {
    /// # Errors
    /// When `folder` is none, is not writable or has no room for `asked` bytes.
    pub(super) fn open(folder: &Path, asked: Option<u64>) -> Result<Self, Outcome> {
        let shown = folder.display();
        let folder = folder.canonicalize().map_err(|e| {
            let what = format!("{shown} cannot be measured: {}", reason(&e));
            Outcome::wrong(&what, "name a folder that is there, on the disk to measure")
        })?;
        if !folder.is_dir() {
            let parent = folder.parent().unwrap_or(&folder);
            let hint = match fs::metadata(&folder) {
                Ok(found) if found.is_file() => format!(
                    "so that no file is overwritten only folders are taken: --measure {}",
                    parent.display()
                ),
                _ => "a disk is measured by a folder of its filesystem".to_owned(),
            };
            return Err(Outcome::wrong(&format!("{shown} is not a folder"), &hint));
        }
        let room = statvfs(&folder).map_err(|e| refused(&folder, "ask for its room", &e.into()))?;
        if room.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let error = io::Error::from(rustix::io::Errno::ROFS);
            return Err(refused(&folder, "make a file in it", &error));
        }
        let most_bytes = fitting(&folder, room.f_bavail.saturating_mul(room.f_frsize), asked)?;
        if let Some(limit) = getrlimit(Resource::Fsize).current
            && most_bytes > limit
        {
            // The kernel would end a process that goes beyond it.
            let limit = size(limit);
            let what = format!("this process may write files of at most {limit} (`ulimit -f`)");
            let hint = format!(
                "raise that limit, or take less than {}: --size",
                size(most_bytes)
            );
            return Err(Outcome::refused(&what, &hint));
        }
        let file = tempfile::tempfile_in(&folder)
            .map_err(|e| refused(&folder, "make a file in it", &e))?;
        Ok(Self {
            filesystem: filesystem(&folder),
            folder,
            file,
            most_bytes,
        })
    }
}

/// How large the file becomes where so many bytes are free: in whole pages, and never so large that
/// others find a full disk.
fn fitting(folder: &Path, free: u64, asked: Option<u64>) -> Result<u64, Outcome> {
    let spare = free - free / 10;
    let shown = folder.display();
    let hint = match (spare / 2) >> 20 {
        0 | 1 => "make room on that filesystem, or name a folder on another one".to_owned(),
        less => format!("make room, or take less: --size {less}M"),
    };
    let Some(wanted) = asked else {
        let wanted = USUAL_BYTES.min(free / 2);
        if wanted < USUAL_LEAST_BYTES {
            let what = format!(
                "{shown} has {} free, too little to measure with",
                size(free)
            );
            return Err(Outcome::refused(&what, &hint));
        }
        return Ok(in_pages(wanted));
    };
    if wanted < LEAST_BYTES {
        let what = format!("--size {}: too small to tell anything", size(wanted));
        return Err(Outcome::wrong(&what, "the least is 2M; 256M is usual"));
    }
    if wanted > spare {
        let what = format!(
            "{shown} has {} free, too little for {} and a tenth for others",
            size(free),
            size(wanted),
        );
        return Err(Outcome::refused(&what, &hint));
    }
    Ok(in_pages(wanted))
}

fn in_pages(bytes: u64) -> u64 {
    bytes / PAGE_BYTES * PAGE_BYTES
}

fn refused(folder: &Path, what: &str, error: &io::Error) -> Outcome {
    let text = format!("{}: cannot {what}: {}", folder.display(), reason(error));
    let hint = match error.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            "it is mounted read-only: name a folder on the disk that tensors will be written to"
        }
        ErrorKind::PermissionDenied => "name a folder that this user may write to",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room, or name another folder",
        _ => "name a folder on the disk that tensors will be written to",
    };
    Outcome::refused(&text, hint)
}

/// The filesystem that `folder` is on and what holds it, as `/proc/self/mountinfo` tells.
fn filesystem(folder: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let Some((mount, told)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some((kind, rest))) = (mount.split(' ').nth(4), told.split_once(' '))
        else {
            continue;
        };
        let point = unescaped(point);
        let depth = Path::new(OsStr::from_bytes(&point)).components().count();
        let within = folder.starts_with(OsStr::from_bytes(&point));
        // The last one of a point is the one that is seen.
        if within && best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            let source = rest.split(' ').next().unwrap_or_default();
            let on = if source.starts_with('/') {
                format!(" on {source}")
            } else {
                String::new()
            };
            best = Some((depth, format!("{kind}{on}")));
        }
    }
    best.map(|(_, told)| told)
}

/// A path of `mountinfo`, which writes blanks and the like as `\040`.
fn unescaped(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = behind
            .get(..3)
            .and_then(|digits| str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, behind) = match (first, code) {
            (b'\\', Some(code)) => (code, &behind[3..]),
            _ => (*first, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(free: u64, asked: Option<u64>) -> Result<u64, String> {
        fitting(Path::new("/disk"), free, asked).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn a_disk_is_never_filled() {
        assert_eq!(fits(100 << 30, None), Ok(256 << 20));
        assert_eq!(fits(100 << 20, None), Ok(50 << 20));
        assert_eq!(fits(100 << 30, Some((2 << 30) + 5)), Ok(2 << 30));
        assert_eq!(fits(100 << 20, Some(90 << 20)), Ok(90 << 20));
        for (free, asked, says) in [
            (100 << 20, Some(91 << 20), "--size 45M"),
            (20 << 20, None, "--size 9M"),
            (1 << 20, None, "make room"),
            (0, Some(4 << 20), "/disk has 0 B free"),
            (100 << 20, Some(4096), "the least is 2M"),
        ] {
            let refused = fits(free, asked).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn the_filesystem_of_a_folder_is_known() {
        assert_eq!(filesystem(Path::new("/proc/self")).as_deref(), Some("proc"));
        assert_eq!(unescaped(r"/mnt/my\040disk\134"), br"/mnt/my disk\");
    }
}
