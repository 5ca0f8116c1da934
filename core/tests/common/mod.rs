//! Plugin libraries and folders for tests, made on the spot.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "it serves tests only"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// C source of the least that passes for a plugin library.
pub(crate) const PLUGIN_C: &str = "int ds_plugin_v1(void *h, void *p, void *e) { return 0; }\n";

/// Compiles `source` with `flags` into a library in `folder`; nothing if there is no C compiler,
/// which it says.
pub(crate) fn library(folder: &Path, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let (c, so) = (folder.join("plugin.c"), folder.join("libplugin.so"));
    fs::write(&c, source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-nostartfiles", "-o"])
        .arg(&so)
        .arg(&c)
        .args(flags)
        .output();
    let Ok(built) = built else {
        eprintln!("skipped: there is no C compiler called cc");
        return None;
    };
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    fs::remove_file(&c).unwrap();
    chmod(&so, 0o755);
    Some(so)
}

/// Sets the mode of `path`, whatever the umask.
pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder in `parent`, with nobody but its owner to write to it.
pub(crate) fn folder(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir_all(&path).unwrap();
    let mut part = path.as_path();
    while part.starts_with(parent) {
        chmod(part, 0o755);
        let Some(above) = part.parent() else { break };
        part = above;
    }
    path
}

/// Writes a file that only its owner can change.
pub(crate) fn file(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
    chmod(path, 0o644);
}
