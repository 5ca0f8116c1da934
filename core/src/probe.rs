//! Probing: a plugin file that this host has not seen is opened in a child process first, because
//! opening a library runs its code. What the child found is kept, so that a warm start runs none.
//!
//! The child is a program that calls [`answer`] first thing in `main`: `ds_report` does, and any
//! program may. A plugin that crashes, hangs or talks nonsense there is never opened here.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ds_abi::{DS_ABI_MAJOR, DS_ABI_MINOR};
use serde::{Deserialize, Serialize};

use crate::{
    Accelerator, DeviceInfo, Error, ErrorKind, Result,
    accelerator::Source,
    build::Cache,
    child::{End, Run},
    discovery::CheckedLibrary,
    error::one_line,
    jit,
    manifest::Manifest,
    trust::FileIdentity,
};

/// Names the library in a child that is to answer; the others say as what, and where to.
const LIBRARY: &str = "DS_PROBE_LIBRARY";
const ACCELERATOR: &str = "DS_PROBE_ACCELERATOR";
const ANSWER: &str = "DS_PROBE_ANSWER";

/// How long a plugin may take to count and describe its devices.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Devices that are described; a machine has fewer.
const MAX_DEVICES: u32 = 64;
/// Answers and the file of kept ones are read up to this size.
const MAX_BYTES: u64 = 4 << 20;
/// Kept answers; the oldest keys of machines that changed are dropped all at once.
const MAX_KEPT: usize = 256;

/// What a plugin said in a child process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// Its devices, or why there are none.
    pub devices: Result<Vec<DeviceInfo>, ProbeFailure>,
}

/// Why a plugin has no devices to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// Whether the plugin broke the child, rather than telling an error: it is not opened here.
    pub quarantined: bool,
    /// What kind of failure it is: missing hardware is no fault of the plugin.
    pub kind: ErrorKind,
    /// What happened.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Answers, when this process was started as a probe's child; call it first in `main` and end
/// when it is true.
#[must_use]
pub fn answer() -> bool {
    let (Some(library), Some(name), Some(to)) = (
        env::var_os(LIBRARY),
        env::var(ACCELERATOR).ok(),
        env::var_os(ANSWER),
    ) else {
        return false;
    };
    // The last words of a plugin that crashes or hangs without any.
    let say = |what: &str| drop(writeln!(io::stderr(), "in {what}"));
    let path = PathBuf::from(library);
    say("opening the library or `ds_plugin_v1`");
    let devices = fs::metadata(&path)
        .map_err(|e| Error::new(ErrorKind::Io, "probe", path.display().to_string()).with_source(e))
        .and_then(|meta| Accelerator::load(&name, Source::File(&path, FileIdentity::of(&meta)), []))
        .and_then(|accelerator| {
            say("`count`");
            let count = accelerator.device_count()?.min(MAX_DEVICES);
            (0..count)
                .map(|index| {
                    say(&format!("`describe` of device {index}"));
                    accelerator.device_info(index)
                })
                .collect()
        })
        .map_err(|e| ProbeFailure {
            quarantined: false,
            kind: e.kind(),
            reason: e.to_string(),
            hint: e.hint().map(str::to_owned),
        });
    // Who asked finds no answer when this fails, and says so.
    let _ =
        serde_json::to_vec(&ProbeRecord { devices }).map(|text| fs::write(PathBuf::from(to), text));
    true
}

/// What `helper` finds in the library of a plugin: kept from before, or asked now. With `live` it
/// is asked now, and kept.
pub(crate) fn probe(
    helper: &Path,
    manifest: &Manifest,
    library: &CheckedLibrary,
    live: bool,
) -> ProbeRecord {
    let key = key(manifest, library);
    let kept = Kept::read();
    let known = kept.as_ref().and_then(|kept| kept.records.get(&key));
    if let Some(record) = known.filter(|record| !live && record.lasts()) {
        return record.clone();
    }
    let record = ask(
        helper,
        manifest.accelerator.as_str(),
        &library.path,
        TIMEOUT,
    )
    .unwrap_or_else(|reason| ProbeRecord {
        devices: Err(ProbeFailure {
            quarantined: true,
            kind: ErrorKind::PluginBug,
            reason,
            hint: Some(
                "report it to whoever made the plugin; it is asked again when its file changes, \
                 and by `ds_report --live`"
                    .to_owned(),
            ),
        }),
    });
    if record.lasts() || known.is_some() {
        Kept::add(kept.unwrap_or_default(), key, &record);
    }
    record
}

impl ProbeRecord {
    /// Whether it is good for the next time: a library or device that is missing may be there at
    /// any moment, while a plugin that crashes or does not fit would do so again.
    fn lasts(&self) -> bool {
        match &self.devices {
            Ok(devices) => !devices.is_empty(),
            Err(failure) => !matches!(
                failure.kind,
                ErrorKind::LibraryNotFound | ErrorKind::NoDevice
            ),
        }
    }
}

/// Runs `helper` on a library; the reason when it gives no answer.
fn ask(
    helper: &Path,
    accelerator: &str,
    library: &Path,
    timeout: Duration,
) -> Result<ProbeRecord, String> {
    let told =
        |what: &str, e: &dyn std::fmt::Display| format!("it could not be probed: {what}: {e}");
    let folder = tempfile::tempdir().map_err(|e| told("make a folder for the answer", &e))?;
    let to = folder.path().join("answer.json");
    let mut variables: Vec<(OsString, OsString)> = env::vars_os().collect();
    variables.extend([
        (LIBRARY.into(), library.into()),
        (ACCELERATOR.into(), accelerator.into()),
        (ANSWER.into(), to.clone().into()),
    ]);
    let run = Run {
        program: helper,
        arguments: Vec::new(),
        folder: folder.path(),
        variables,
        timeout,
    };
    let done = run
        .finish()
        .map_err(|e| told(&helper.display().to_string(), &e))?;
    let words = String::from_utf8_lossy(&done.log);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.map_or_else(String::new, |line| {
        format!("; its last words: {}", one_line(line.trim()))
    });
    match done.end {
        End::TimedOut => Err(format!(
            "it did not answer within {} s{last}",
            timeout.as_secs_f64()
        )),
        End::Signalled(signal) => Err(format!("it crashed with signal {signal}{last}")),
        End::Exited(code) => {
            let fits = fs::metadata(&to).is_ok_and(|meta| meta.len() <= MAX_BYTES);
            let text = if fits { fs::read(&to).ok() } else { None };
            text.and_then(|text| serde_json::from_slice(&text).ok())
                .ok_or_else(|| format!("it ended the process with code {code}{last}"))
        }
    }
}

/// Everything that decides about an answer: the file, this host, the machine as it is since it
/// started, the drivers that are loaded, and the variables that hide devices.
fn key(manifest: &Manifest, library: &CheckedLibrary) -> String {
    let mut text = format!(
        "{} {:?} {DS_ABI_MAJOR}.{DS_ABI_MINOR} {} ",
        library.path.display(),
        library.identity,
        env!("CARGO_PKG_VERSION")
    );
    text += &fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    for module in modules.lines().filter_map(|line| line.split(' ').next()) {
        text += module;
        text.push(' ');
    }
    let visible = manifest.environment.visible.iter().map(String::as_str);
    for name in visible.chain(["LD_LIBRARY_PATH"]) {
        let value = env::var_os(name).unwrap_or_default();
        text += name;
        text.push('=');
        text += &value.to_string_lossy();
        text.push(' ');
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// The answers of before, by key; in the build cache's folder, whose owner and mode are checked.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    records: BTreeMap<String, ProbeRecord>,
}

impl Kept {
    fn path() -> Option<PathBuf> {
        Some(jit::cache().ok()?.settings().dir.join("v1/probes.json"))
    }

    fn read() -> Option<Self> {
        let path = Self::path()?;
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_BYTES);
        let text = if small {
            fs::read(path).ok()?
        } else {
            return None;
        };
        serde_json::from_slice(&text).ok()
    }

    /// Keeps an answer that lasts, in the place of an earlier one. Losing one in a race costs a
    /// probe, so there is no lock.
    fn add(mut kept: Self, key: String, record: &ProbeRecord) {
        let Some(path) = Self::path() else { return };
        if kept.records.len() >= MAX_KEPT {
            kept.records.clear();
        }
        if record.lasts() {
            kept.records.insert(key, record.clone());
        } else {
            kept.records.remove(&key);
        }
        let Some(folder) = path.parent() else { return };
        // The cache makes its folders itself, so that whatever the process's mask leaves, nobody else
        // can write to them: one that others could write to is no cache any more.
        let written = jit::cache()
            .and_then(Cache::make_folders)
            .map_err(io::Error::other)
            .and_then(|()| tempfile::NamedTempFile::new_in(folder))
            .and_then(|mut file| {
                serde_json::to_writer(&mut file, &kept)?;
                file.persist(&path).map_err(|e| e.error)
            });
        if let Err(e) = written {
            log::debug!("what the plugin said is not kept: {}: {e}", path.display());
        }
    }
}
