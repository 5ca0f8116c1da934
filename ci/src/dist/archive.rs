//! The prefix as one file, for machines without Rust: the same bytes from the same prefix, whoever
//! packs it and when.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::stage::LISTING;
use crate::step::Outcome;

const ENDING: &str = ".tar.gz";

/// 2000-01-01: tar warns of times near 1970 when it unpacks them.
const TIME: &str = "@946684800";

/// What was packed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) bytes: u64,
    /// The oldest glibc that has all symbols that its programs and libraries ask for, as in 2.34.
    pub(crate) glibc: Option<(u32, u32)>,
}

/// Packs what [`super::build`] put into `prefix`, and nothing that users added, into `archive`. It
/// unpacks into a folder of the archive's name.
pub(crate) fn write(prefix: &Path, archive: &Path) -> Result<Packed, String> {
    let at = |error| format!("cannot write {}: {error}", archive.display());
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let Some(folder) = name.strip_suffix(ENDING).filter(|name| is_plain(name)) else {
        return Err(format!(
            "an archive is named NAME{ENDING} with letters, digits and any of -_.+, not `{name}`"
        ));
    };
    let listing = fs::read_to_string(prefix.join(LISTING)).map_err(at)?;
    let new = archive.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let done = pack(prefix, folder, &listing, &new).and_then(|()| {
        let bytes = fs::metadata(&new).map_err(at)?.len();
        let glibc = glibc(prefix, &listing)?;
        fs::rename(&new, archive).map_err(at)?;
        Ok(Packed { bytes, glibc })
    });
    if done.is_err() {
        // The error that matters is being reported already.
        let _ = fs::remove_file(&new);
    }
    done
}

/// Neither tar's expression nor a shell sees anything special in it.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(plain)
}

/// Every file of the listing and every folder above one, in order.
fn entries(listing: &str) -> BTreeSet<&str> {
    let mut entries = BTreeSet::new();
    for file in listing.lines().filter(|line| !line.is_empty()) {
        entries.insert(file);
        let slashes = file.match_indices('/').map(|(at, _)| &file[..at]);
        entries.extend(slashes);
    }
    entries
}

/// GNU tar, which every system has that this runs on: no library of ours for one command.
fn pack(prefix: &Path, folder: &str, listing: &str, to: &Path) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| format!("cannot run tar: {error}");
    let to = std::path::absolute(to).map_err(|e| failed(&e))?;
    let mut tar = Command::new("tar")
        .args(["--create", "--format=gnu", "--no-recursion"])
        .arg("--use-compress-program=gzip --no-name")
        .args(["--owner=root:0", "--group=root:0", "--numeric-owner"])
        .arg(format!("--mtime={TIME}"))
        .arg(format!("--transform=s,^,{folder}/,"))
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(prefix)
        .args(["--verbatim-files-from", "--files-from=-"])
        .env_remove("GZIP")
        .env_remove("TAR_OPTIONS")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e))?;
    let names: Vec<_> = entries(listing).into_iter().collect();
    if let Some(mut input) = tar.stdin.take() {
        // What tar says when it stops reading is worth more than that it did.
        let _ = input.write_all((names.join("\n") + "\n").as_bytes());
    }
    let done = tar.wait_with_output().map_err(|e| failed(&e))?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(failed(&format!("{}: {words}", done.status)))
}

/// The newest `GLIBC_` version that a program or library of the prefix names.
fn glibc(prefix: &Path, listing: &str) -> Result<Option<(u32, u32)>, String> {
    let mut newest = None;
    for file in listing.lines().filter(|file| !file.is_empty()) {
        let path = prefix.join(file);
        let bytes = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        if bytes.starts_with(b"\x7fELF") {
            newest = newest.max(newest_version(&bytes));
        }
    }
    Ok(newest)
}

/// Versions are strings between zeros, wherever the linker put them.
fn newest_version(bytes: &[u8]) -> Option<(u32, u32)> {
    let version = |word: &[u8]| {
        let word = std::str::from_utf8(word).ok()?;
        let mut parts = word.strip_prefix("GLIBC_")?.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    bytes.split(|byte| *byte == 0).filter_map(version).max()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::dist::stage::{Access, Stage};

    fn prefix(folder: &Path, age: Duration) -> std::path::PathBuf {
        let source = folder.join("source");
        fs::write(
            &source,
            b"\x7fELF\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.4.1\0GLIBC_PRIVATE\0",
        )
        .expect("written");
        let prefix = folder.join("prefix");
        let mut stage = Stage::new(&prefix).expect("a stage");
        for (file, access) in [
            ("share/doc/b", Access::Data),
            ("bin/z", Access::Program),
            ("share/a", Access::Data),
        ] {
            stage.add(&source, file, access).expect("added");
        }
        stage.publish().expect("published");
        let file = fs::File::open(prefix.join("share/a")).expect("there");
        file.set_modified(SystemTime::UNIX_EPOCH + age)
            .expect("aged");
        prefix
    }

    fn tar(arguments: &[&str], archive: &Path) -> String {
        let done = Command::new("tar")
            .args(arguments)
            .arg(archive)
            .env("TZ", "UTC")
            .output()
            .expect("tar runs");
        assert!(done.status.success());
        String::from_utf8(done.stdout).expect("text")
    }

    #[test]
    fn an_archive_holds_what_is_installed_and_tells_nothing_of_who_packed_it() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let name = "deepspeed-1.tar.gz";
        let mut archives = Vec::new();
        for (folder, age) in [(&one, 1_000_000_000), (&two, 1_500_000_000)] {
            let prefix = prefix(folder.path(), Duration::from_secs(age));
            fs::write(prefix.join("bin/mine"), "added").expect("written");
            let archive = folder.path().join(name);
            let packed = write(&prefix, &archive).expect("packed");
            let bytes = fs::read(&archive).expect("there");
            assert_eq!(
                packed,
                Packed {
                    bytes: bytes.len() as u64,
                    glibc: Some((2, 34))
                }
            );
            archives.push(bytes);
        }
        assert_eq!(archives[0], archives[1]);
        assert_eq!(archives[0][4..8], [0; 4], "the time in gzip's head");

        let listed = tar(&["--list", "--verbose", "--file"], &one.path().join(name));
        let expected = "\
            drwxr-xr-x 0/0 2000-01-01 00:00 deepspeed-1/bin/\n\
            -rwxr-xr-x 0/0 2000-01-01 00:00 deepspeed-1/bin/z\n\
            drwxr-xr-x 0/0 2000-01-01 00:00 deepspeed-1/share/\n\
            -rw-r--r-- 0/0 2000-01-01 00:00 deepspeed-1/share/a\n\
            drwxr-xr-x 0/0 2000-01-01 00:00 deepspeed-1/share/deepspeed/\n\
            -rw-r--r-- 0/0 2000-01-01 00:00 deepspeed-1/share/deepspeed/files.txt\n\
            drwxr-xr-x 0/0 2000-01-01 00:00 deepspeed-1/share/doc/\n\
            -rw-r--r-- 0/0 2000-01-01 00:00 deepspeed-1/share/doc/b\n";
        let without_size = |line: &str| {
            let mut words: Vec<_> = line.split_whitespace().collect();
            words.remove(2);
            words.join(" ") + "\n"
        };
        assert_eq!(
            listed.lines().map(without_size).collect::<String>(),
            expected
        );

        let unpacked = one.path().join("there");
        fs::create_dir(&unpacked).expect("made");
        let into = unpacked.to_str().expect("text");
        tar(
            &["--directory", into, "--extract", "--file"],
            &one.path().join(name),
        );
        let program = fs::metadata(unpacked.join("deepspeed-1/bin/z")).expect("there");
        assert_eq!(program.permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_name_that_tar_would_read_as_something_else_is_refused() {
        for name in [
            "dist",
            ".tar.gz",
            "-x.tar.gz",
            "a,b.tar.gz",
            "a b.tar.gz",
            "dist.tgz",
        ] {
            let refused = write(Path::new("."), Path::new(name)).expect_err("refused");
            assert!(refused.contains("an archive is named"), "{name}: {refused}");
        }
    }

    #[test]
    fn an_archive_that_cannot_be_made_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = prefix(folder.path(), Duration::ZERO);
        fs::remove_file(prefix.join("share/a")).expect("removed");
        let refused = write(&prefix, &folder.path().join("a.tar.gz")).expect_err("refused");
        assert!(refused.contains("share/a"), "{refused}");
        let left = fs::read_dir(folder.path()).expect("listed").count();
        assert_eq!(left, 2, "the prefix and its source");
    }
}
