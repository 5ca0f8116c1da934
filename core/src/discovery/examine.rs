//! Judges one candidate after the other; knows which accelerators are taken.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    Candidate, CheckedLibrary, LinkedManifest, Origin, Place, Refusal, Verdict, presence::Machine,
    search::PLUGIN_PATH,
};
use crate::{
    Error, ErrorKind, Result, elf,
    manifest::{self, LibraryVariant, Manifest},
    trust::{self, FileIdentity},
};

/// More entries than any folder of plugins has: the path is a mistake, such as `/usr/lib`.
const MAX_ENTRIES: usize = 256;

pub(super) struct Examiner {
    machine: Machine,
    candidates: Vec<Candidate>,
}

impl Examiner {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            machine: Machine::new(root),
            candidates: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Vec<Candidate> {
        self.candidates
    }

    /// Examines a plugin that is part of the program: there is no file to check.
    pub(super) fn linked(&mut self, linked: &LinkedManifest) {
        let (manifest, verdict) = match Manifest::parse(linked.text.as_bytes()) {
            Err(error) => (None, Verdict::BadManifest(error.into())),
            Ok(manifest) => {
                let verdict = check_abi(&manifest)
                    .err()
                    .or_else(|| self.shadowed(&manifest))
                    .unwrap_or_else(|| self.hardware(&manifest));
                (Some(manifest), verdict)
            }
        };
        self.candidates.push(Candidate {
            origin: Origin::Linked,
            path: None,
            manifest,
            library: None,
            verdict,
        });
    }

    /// Examines what lies in a place of the search.
    pub(super) fn place(&mut self, place: &Place) {
        let (Some(path), None) = (&place.path, &place.skipped) else {
            return;
        };
        let origin = place.origin;
        if !path.is_absolute() {
            let reason = if path.as_os_str().is_empty() {
                "an empty path stands for no folder"
            } else {
                "the path is relative, and plugins are never taken from the current folder"
            };
            let hint = match origin {
                Origin::PluginPath => format!("write absolute paths into {PLUGIN_PATH}"),
                _ => "name an absolute path".to_owned(),
            };
            self.refuse(origin, path, Verdict::BadPath(Refusal::new(reason, hint)));
            return;
        }
        if path.join(manifest::FILE_NAME).symlink_metadata().is_ok() {
            self.folder(origin, path);
            return;
        }
        match entries(path) {
            Ok(names) => {
                for name in names {
                    self.entry(origin, &path.join(name));
                }
            }
            Err(refusal) => self.refuse(origin, path, Verdict::BadPath(refusal)),
        }
    }

    fn entry(&mut self, origin: Origin, path: &Path) {
        let refusal = if path.join(manifest::FILE_NAME).symlink_metadata().is_ok() {
            return self.folder(origin, path);
        } else if path.is_dir() {
            Refusal::new(
                format!("the folder has no {}", manifest::FILE_NAME),
                "copy the plugin again, or remove the folder",
            )
        } else {
            Refusal::new(
                "it is a lone file, and a plugin is a folder with plugin.json and its library",
                "put it into a folder of its own with its manifest, or remove it",
            )
        };
        self.refuse(origin, path, Verdict::BadManifest(refusal));
    }

    /// Examines the plugin in `folder`.
    fn folder(&mut self, origin: Origin, folder: &Path) {
        let file = folder.join(manifest::FILE_NAME);
        let manifest = match read("manifest", &file, manifest::MAX_BYTES)
            .and_then(|bytes| Manifest::parse(&bytes))
        {
            Ok(manifest) => manifest,
            Err(error) => {
                self.refuse(origin, folder, Verdict::BadManifest(error.into()));
                return;
            }
        };
        let (library, verdict) = match self.library(&manifest, folder) {
            Err(verdict) if !verdict.holds_place() => (None, verdict),
            Err(verdict) => (None, self.shadowed(&manifest).unwrap_or(verdict)),
            Ok(library) => {
                let verdict = self
                    .shadowed(&manifest)
                    .unwrap_or_else(|| self.hardware(&manifest));
                (Some(library), verdict)
            }
        };
        self.candidates.push(Candidate {
            origin,
            path: Some(folder.to_owned()),
            manifest: Some(manifest),
            library,
            verdict,
        });
    }

    /// The library of a plugin, after all checks that need no code of it.
    fn library(&self, manifest: &Manifest, folder: &Path) -> Result<CheckedLibrary, Verdict> {
        let variant = self.variant(manifest)?;
        check_abi(manifest)?;
        trust::check_inside(&folder.join(manifest::FILE_NAME), folder).map_err(by_trust)?;
        let path = folder.join(variant.path.as_path());
        let real = trust::check_inside(&path, folder).map_err(by_trust)?;
        check_sizes(manifest, folder).map_err(Verdict::BadLibrary)?;
        // Before it is read: a file that changes in between is then found out when it is opened.
        let identity = real
            .metadata()
            .map(|meta| FileIdentity::of(&meta))
            .map_err(|e| Verdict::BadLibrary(Refusal::new(e.to_string(), REINSTALL)))?;
        let found = elf::check_plugin(&real).map_err(|error| {
            let mut refusal = Refusal::from(error);
            refusal.reason = format!("{}: {}", variant.path, refusal.reason);
            Verdict::BadLibrary(refusal)
        })?;
        Ok(CheckedLibrary {
            path: real,
            identity,
            needed: found.needed,
        })
    }

    /// The first build of the library that this machine can run.
    fn variant<'a>(&self, manifest: &'a Manifest) -> Result<&'a LibraryVariant, Verdict> {
        let Some(platforms) = &manifest.library else {
            let reason = manifest.not_built.clone().unwrap_or_default();
            return Err(Verdict::NotBuilt(Refusal { reason, hint: None }));
        };
        let host = platform();
        let Some(variants) = platforms.get(&host) else {
            let built: Vec<&str> = platforms.keys().map(String::as_str).collect();
            return Err(Verdict::WrongPlatform(Refusal::new(
                format!(
                    "it is built for {}, and this machine is {host}",
                    built.join(", ")
                ),
                "take the plugin's build for this machine",
            )));
        };
        let mut lacking = Vec::new();
        for variant in variants {
            lacking = self.machine.lacks(&variant.cpu);
            if lacking.is_empty() {
                return Ok(variant);
            }
        }
        Err(Verdict::WrongPlatform(Refusal::new(
            format!("this processor lacks {}", lacking.join(", ")),
            "take a build of the plugin for older processors",
        )))
    }

    /// The verdict if another plugin serves the accelerator, or has the id.
    fn shadowed(&self, manifest: &Manifest) -> Option<Verdict> {
        let other = self.candidates.iter().find(|other| {
            other.verdict.holds_place()
                && other.manifest.as_ref().is_some_and(|taken| {
                    taken.id == manifest.id || taken.accelerator == manifest.accelerator
                })
        })?;
        let by = other.label();
        let fate = match other.verdict.refusal() {
            Some(refusal) => format!(", which is not usable: {}", refusal.reason),
            None => String::new(),
        };
        let same = match &other.manifest {
            Some(taken) if taken.accelerator != manifest.accelerator => {
                format!("has the same id, {},", manifest.id)
            }
            _ => format!("serves {}", manifest.accelerator),
        };
        let refusal = Refusal::new(
            format!("{by} {same} and comes first{fate}"),
            format!("to use this one, name its folder in {PLUGIN_PATH} before the other"),
        );
        Some(Verdict::Shadowed { by, refusal })
    }

    fn hardware(&self, manifest: &Manifest) -> Verdict {
        match &manifest.presence {
            Some(signs) if !self.machine.shows(signs) => Verdict::NoHardware(Refusal::new(
                format!(
                    "this machine shows no sign of it: {}",
                    signs_looked_for(manifest)
                ),
                "if the hardware is there, install its driver; in a container, pass the device in",
            )),
            _ => Verdict::Found,
        }
    }

    fn refuse(&mut self, origin: Origin, path: &Path, verdict: Verdict) {
        self.candidates.push(Candidate {
            origin,
            path: Some(path.to_owned()),
            manifest: None,
            library: None,
            verdict,
        });
    }
}

const REINSTALL: &str = "copy or build the plugin again";

/// This machine, as the keys of a manifest's `library` name it.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

fn check_abi(manifest: &Manifest) -> Result<(), Verdict> {
    let (major, minor) = (ds_abi::DS_ABI_MAJOR, ds_abi::DS_ABI_MINOR);
    if manifest.abi.major == major && manifest.abi.min_minor <= minor {
        return Ok(());
    }
    Err(Verdict::WrongAbi(Refusal::new(
        format!(
            "it needs version {}.{} of the plugin boundary, and this host has {major}.{minor}",
            manifest.abi.major, manifest.abi.min_minor
        ),
        "update the older of the two: DeepSpeed, or the plugin",
    )))
}

/// Finds out a half-copied folder. Hashes would mean reading every byte.
fn check_sizes(manifest: &Manifest, folder: &Path) -> Result<(), Refusal> {
    for file in &manifest.files {
        let found = match folder.join(file.path.as_path()).metadata() {
            Ok(meta) if meta.len() == file.size_bytes => continue,
            Ok(meta) => format!("has {} bytes", meta.len()),
            Err(error) => format!("cannot be looked at ({error})"),
        };
        return Err(Refusal::new(
            format!(
                "{} {found}, and the manifest says {} bytes",
                file.path, file.size_bytes
            ),
            REINSTALL,
        ));
    }
    Ok(())
}

/// Compares the files in `folder` with the hashes in its manifest, reading every byte of them.
///
/// # Errors
///
/// `Incompatible` for the first file that differs, `Io` if one cannot be read.
pub fn verify_files(manifest: &Manifest, folder: &Path) -> Result<()> {
    const OP: &str = "verify files";
    for file in &manifest.files {
        let mut hasher = blake3::Hasher::new();
        File::open(folder.join(file.path.as_path()))
            .and_then(|source| hasher.update_reader(source).map(drop))
            .map_err(|e| {
                Error::new(ErrorKind::Io, OP, format!("cannot read {}", file.path)).with_source(e)
            })?;
        let found = hasher.finalize().to_hex();
        if found.as_str() != file.blake3 {
            return Err(Error::new(
                ErrorKind::Incompatible,
                OP,
                format!(
                    "{} is not the file that the manifest describes: its hash is {found}",
                    file.path
                ),
            )
            .with_hint(REINSTALL));
        }
    }
    Ok(())
}

/// A file that is not there is a bad library; one that somebody else could have written is worse.
fn by_trust(error: Error) -> Verdict {
    if error.kind() == ErrorKind::Untrusted {
        Verdict::Untrusted(error.into())
    } else {
        let mut refusal = Refusal::from(error);
        refusal.hint.get_or_insert_with(|| REINSTALL.to_owned());
        Verdict::BadLibrary(refusal)
    }
}

fn signs_looked_for(manifest: &Manifest) -> String {
    let signs = manifest.presence.iter().flatten().map(|sign| {
        let device = sign.device.as_ref().map(ToString::to_string);
        let file = sign.file.as_ref().map(ToString::to_string);
        let pci = sign
            .pci
            .as_ref()
            .map(|pci| format!("PCI vendor {}", pci.vendor));
        [device, file, pci]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" with ")
    });
    let signs: Vec<String> = signs.filter(|sign| !sign.is_empty()).collect();
    if signs.is_empty() {
        "its manifest names none for this system".to_owned()
    } else {
        format!("looked for {}", signs.join(", "))
    }
}

/// Names in a folder, sorted; those that begin with a dot are being put together or put away.
fn entries(path: &Path) -> Result<Vec<OsString>, Refusal> {
    let unreadable =
        |e: std::io::Error| Refusal::new(format!("it cannot be read: {e}"), "correct the path");
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
        if names.len() > MAX_ENTRIES {
            return Err(Refusal::new(
                format!("it has more than {MAX_ENTRIES} entries: this is no folder of plugins"),
                "name the folder whose subfolders are plugins, or one plugin's own folder",
            ));
        }
    }
    names.sort();
    Ok(names)
}

/// The bytes of a file in a plugin's folder, and not many more than the `most` that it may have.
pub(crate) fn read(what: &'static str, path: &Path, most: usize) -> Result<Vec<u8>> {
    let op = || format!("read {what}");
    let failed = |e: std::io::Error| {
        Error::new(
            ErrorKind::Io,
            op(),
            format!("cannot read {}", path.display()),
        )
        .with_source(e)
    };
    // Opening a FIFO would wait for a writer.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::new(
            ErrorKind::Incompatible,
            op(),
            format!("{} is not a regular file", path.display()),
        ));
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
