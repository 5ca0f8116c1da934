//! The lock per key. It spares work and nothing else: without it builds are as correct, only more.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::record;

/// Waiting starts at the first and doubles up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(100)];

/// Held until it is dropped, or until its process dies. Holds nothing when the file system has no
/// locks or the wait was given up.
#[derive(Debug)]
pub(super) struct KeyLock(Option<File>);

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Closing is not enough: a child of `fork` may hold the file open for as long as it lives.
        if let Some(Err(error)) = self.0.as_ref().map(File::unlock) {
            log::debug!("a build lock stays until its file is closed: {error}");
        }
    }
}

impl KeyLock {
    /// Takes the lock in `path` for the build named `subject`; gives up after `timeout` and goes on.
    pub(super) fn acquire(path: &Path, subject: &str, timeout: Duration) -> Self {
        // Two processes that lock different files for one key (one removed by a cleaner) both build.
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => {
                log::debug!("no lock for {subject}: {}: {error}", path.display());
                return Self(None);
            }
        };
        let started = Instant::now();
        let mut pause = PAUSES[0];
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    sign(&mut file);
                    return Self(Some(file));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    log::debug!("no lock for {subject}: {}: {error}", path.display());
                    return Self(None);
                }
            }
            let waited = started.elapsed();
            if waited >= timeout {
                log::warn!(
                    "waited {waited:.0?} for the build of {subject} by {}; building it here too",
                    holder(&mut file)
                );
                return Self(None);
            }
            if !told {
                log::info!("{subject} is being built by {}; waiting", holder(&mut file));
                told = true;
            }
            thread::sleep(pause.min(timeout.saturating_sub(waited)));
            pause = (pause * 2).min(PAUSES[1]);
        }
    }
}

/// Writes who holds the lock, for those who wait; not being able to is no reason not to build.
fn sign(file: &mut File) {
    let text = format!(
        "process {} on {} since {} s after 1970\n",
        std::process::id(),
        record::host_name(),
        record::unix_now_s()
    );
    let signed = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text.as_bytes()));
    if let Err(error) = signed {
        log::debug!("a build lock stays unsigned: {error}");
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(256).read_to_string(&mut text));
    match (read, text.trim()) {
        (Err(_), _) | (_, "") => "a process that has not signed yet".into(),
        (_, signed) => signed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_until_the_timeout_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let held = KeyLock::acquire(&path, "a", Duration::ZERO);
        assert!(held.0.is_some());
        let signed = std::fs::read_to_string(&path).unwrap();
        assert!(
            signed.starts_with(&format!("process {} on ", std::process::id())),
            "{signed}"
        );

        let timeout = Duration::from_millis(20);
        let started = Instant::now();
        assert!(KeyLock::acquire(&path, "a", timeout).0.is_none());
        assert!(started.elapsed() >= timeout);
        drop(held);
        assert!(KeyLock::acquire(&path, "a", Duration::ZERO).0.is_some());
    }

    #[test]
    fn no_place_for_a_lock_means_no_lock() {
        assert!(
            KeyLock::acquire(Path::new("/proc/self/no/key"), "a", Duration::MAX)
                .0
                .is_none()
        );
    }
}
