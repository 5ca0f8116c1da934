//! Opens plugin files: the one module of the host that does.
//!
//! What it opens has been checked before (manifest, owner, symbols), by path; before and
//! after opening, the file at the path is compared with the one that was checked. Nothing is ever closed.

use std::{error::Error as _, fs, path::Path};

use ds_abi::{DS_PLUGIN_ENTRY_V1, DsPluginEntry};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::{Error, ErrorKind, Result, trust::FileIdentity};

/// Opens the library at `path`, which was `checked`, and finds its entry. It stays open.
///
/// # Errors
/// [`ErrorKind::LibraryNotFound`] with the system's words when it or something that it needs cannot
/// be opened, [`ErrorKind::Incompatible`] when it calls what nobody has, [`ErrorKind::Untrusted`]
/// when the file is another one than was checked.
pub fn open(path: &Path, checked: FileIdentity) -> Result<DsPluginEntry> {
    let op = "load a plugin";
    // Before, so that nothing of another file runs; after, because there is time between the two.
    same_file(op, path, checked)?;
    // SAFETY: opening runs the library's constructors. It was checked before, and in a child
    // process first where it was not known; this is the point where the host decides to run it.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| {
        let words = words(&e);
        // The system's loader has no codes. Words that it does not use cost the better hint only.
        if words.contains("undefined symbol") {
            return Error::new(ErrorKind::Incompatible, op, words).with_hint(
                "link everything that it calls: `ldd -r` on that file lists what is missing",
            );
        }
        Error::new(ErrorKind::LibraryNotFound, op, words).with_hint(format!(
            "install what it needs; `ldd {}` lists it",
            path.display()
        ))
    })?;
    // Leaked: thread-local destructors and vendor runtimes make unloading unsound in general.
    let library: &'static Library = Box::leak(Box::new(library));
    same_file(op, path, checked)?;
    // SAFETY: the symbol of this name has this type, as `ds_plugin.h` says.
    let entry = unsafe { library.get::<DsPluginEntry>(DS_PLUGIN_ENTRY_V1) }.map_err(|e| {
        Error::new(
            ErrorKind::Incompatible,
            op,
            format!("{}: {}", path.display(), words(&e)),
        )
    })?;
    Ok(*entry)
}

fn same_file(op: &'static str, path: &Path, checked: FileIdentity) -> Result<()> {
    let now = fs::metadata(path)
        .map_err(|e| Error::new(ErrorKind::Io, op, path.display().to_string()).with_source(e))?;
    if FileIdentity::of(&now) == checked {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Untrusted,
        op,
        format!(
            "{} was replaced between the check and the load",
            path.display()
        ),
    ))
}

/// What the system said; the error itself says only which function failed.
fn words(error: &libloading::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
