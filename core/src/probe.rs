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
    child::{End, Run},
    discovery::CheckedLibrary,
    error::one_line,
    footprint::Footprint,
    jit,
    manifest::Manifest,
    trust::FileIdentity,
};

/// Names the library in a child that is to answer; the others say as what, and where to.
const LIBRARY: &str = "DS_PROBE_LIBRARY";
const ACCELERATOR: &str = "DS_PROBE_ACCELERATOR";
const ANSWER: &str = "DS_PROBE_ANSWER";
/// The file that was checked, as JSON, and whether the manifest says that it creates threads. A host
/// of another version may leave both out.
const IDENTITY: &str = "DS_PROBE_IDENTITY";
const THREADS: &str = "DS_PROBE_THREADS";

/// How long a plugin may take to count and describe its devices when nobody says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
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
    /// What is no reason against it, and yet not as it should be.
    #[serde(default)]
    pub remarks: Vec<String>,
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
    let path = PathBuf::from(library);
    let identity = env::var(IDENTITY)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    let may_thread = env::var_os(THREADS).is_none_or(|value| value != "no");
    let mut remarks = Vec::new();
    let devices = open(&name, &path, identity, may_thread, &mut remarks);
    let written = serde_json::to_vec(&ProbeRecord { devices, remarks })
        .map_err(io::Error::other)
        .and_then(|text| fs::write(PathBuf::from(to), text));
    if let Err(e) = written {
        say(&format!("{WRITING}{e}"));
    }
    true
}

/// Opens the library in this process, and looks what that did to the process.
fn open(
    name: &str,
    path: &Path,
    identity: Option<FileIdentity>,
    may_thread: bool,
    remarks: &mut Vec<String>,
) -> Result<Vec<DeviceInfo>, ProbeFailure> {
    let before = Footprint::take();
    say(OPENING);
    let loaded = fs::metadata(path)
        .map_err(|e| Error::new(ErrorKind::Io, "probe", path.display().to_string()).with_source(e))
        .and_then(|meta| {
            let checked = identity.unwrap_or_else(|| FileIdentity::of(&meta));
            Accelerator::load(name, Source::File(path, checked), [])
        });
    say(LOOKING);
    let opened = Footprint::take();
    let changes = before.changes(&opened);
    if !changes.is_empty() {
        return Err(broken(format!("opening it changed {}", changes.join(", "))));
    }
    if let Some(threads) = left_running(&before, &opened) {
        return Err(broken(format!("opening it left {threads}")));
    }
    let devices = loaded.and_then(|accelerator| {
        say("`count`");
        let count = accelerator.device_count()?.min(MAX_DEVICES);
        (0..count)
            .map(|index| {
                say(&format!("`describe` of device {index}"));
                accelerator.device_info(index)
            })
            .collect()
    });
    say(LOOKING);
    let counted = Footprint::take();
    // From `count` on it is the driver that acts, whose ways a plugin may not be able to change.
    let changes = opened.changes(&counted);
    if !changes.is_empty() {
        remarks.push(format!(
            "counting its devices changed {}",
            changes.join(", ")
        ));
    }
    if let Some(threads) = left_running(&opened, &counted).filter(|_| !may_thread) {
        return Err(broken(format!(
            "counting its devices left {threads}, and its manifest says that it creates none"
        )));
    }
    devices.map_err(|e| ProbeFailure {
        quarantined: false,
        kind: e.kind(),
        reason: e.to_string(),
        hint: e.hint().map(str::to_owned),
    })
}

fn left_running(before: &Footprint, after: &Footprint) -> Option<String> {
    match before.threads_more(after) {
        0 => None,
        1 => Some("a thread running".to_owned()),
        threads => Some(format!("{threads} threads running")),
    }
}

const OPENING: &str = "opening the library or `ds_plugin_v1`";
const LOOKING: &str = "looking at what it changed";
/// Before the reason why there is no answer, which is no fault of the plugin.
const WRITING: &str = "writing the answer: ";

/// The last words of a plugin that crashes or hangs without any.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "in {what}");
}

/// Whether a line is one of [`say`].
fn is_own(line: &str) -> bool {
    line.strip_prefix("in ")
        .is_some_and(|what| what == OPENING || what == LOOKING || what.starts_with('`'))
}

/// The failure of a plugin that broke the child, or would break the process that opens it.
fn broken(reason: String) -> ProbeFailure {
    ProbeFailure {
        quarantined: true,
        kind: ErrorKind::PluginBug,
        reason,
        hint: Some(
            "report it to whoever made the plugin; it is asked again when its file changes, and by \
             `ds_report --live`"
                .to_owned(),
        ),
    }
}

/// What `helper` finds in the library of a plugin: kept from before, or asked now. With `live` it
/// is asked now, and kept.
pub(crate) fn probe(
    helper: &Path,
    manifest: &Manifest,
    library: &CheckedLibrary,
    live: bool,
    timeout: Duration,
) -> ProbeRecord {
    let key = key(manifest, library);
    let kept = Kept::read();
    let known = kept.as_ref().and_then(|kept| kept.records.get(&key));
    if let Some(record) = known.filter(|record| !live && record.lasts()) {
        return record.clone();
    }
    let record = ask(helper, manifest, library, timeout).unwrap_or_else(|failure| ProbeRecord {
        devices: Err(failure),
        remarks: Vec::new(),
    });
    for remark in &record.remarks {
        log::warn!("{}: {remark}", library.path.display());
    }
    if record.lasts() || known.is_some() {
        Kept::add(kept.unwrap_or_default(), key, &record);
    }
    record
}

impl ProbeRecord {
    /// Whether it is good for the next time: a library or device that is missing may be there at
    /// any moment, while a plugin that crashes or does not fit would do so again. What was said of
    /// another file than the one that was checked says nothing of that, nor does a full disk.
    pub(crate) fn lasts(&self) -> bool {
        match &self.devices {
            Ok(devices) => !devices.is_empty(),
            Err(failure) => !matches!(
                failure.kind,
                ErrorKind::LibraryNotFound
                    | ErrorKind::NoDevice
                    | ErrorKind::Untrusted
                    | ErrorKind::Io
            ),
        }
    }
}

/// Runs `helper` on a library; the failure when it gives no answer.
fn ask(
    helper: &Path,
    manifest: &Manifest,
    library: &CheckedLibrary,
    timeout: Duration,
) -> Result<ProbeRecord, ProbeFailure> {
    let told = |what: &str, e: &dyn std::fmt::Display| ProbeFailure {
        quarantined: true,
        kind: ErrorKind::Io,
        reason: format!("it could not be probed: {what}: {e}"),
        hint: None,
    };
    let folder = folder().map_err(|e| told("make a folder for the answer", &e))?;
    let to = folder.path().join("answer.json");
    let mut variables: Vec<(OsString, OsString)> = env::vars_os().collect();
    variables.extend([
        (LIBRARY.into(), library.path.clone().into()),
        (ACCELERATOR.into(), manifest.accelerator.as_str().into()),
        (ANSWER.into(), to.clone().into()),
        (THREADS.into(), threads(manifest).into()),
    ]);
    let identity = serde_json::to_string(&library.identity);
    variables.extend(identity.ok().map(|text| (IDENTITY.into(), text.into())));
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
        End::TimedOut => Err(broken(format!(
            "it did not answer within {} s{last}",
            timeout.as_secs_f64()
        ))),
        End::Signalled(signal) => Err(broken(format!("it crashed with signal {signal}{last}"))),
        End::Exited(code) => {
            let unwritten = words
                .lines()
                .find_map(|line| line.strip_prefix("in ")?.strip_prefix(WRITING));
            if let Some(e) = unwritten {
                return Err(told("write the answer", &e));
            }
            let fits = fs::metadata(&to).is_ok_and(|meta| meta.len() <= MAX_BYTES);
            let text = if fits { fs::read(&to).ok() } else { None };
            let mut record: ProbeRecord = text
                .and_then(|text| serde_json::from_slice(&text).ok())
                .ok_or_else(|| broken(format!("it ended the process with code {code}{last}")))?;
            let printed = words.lines().find(|l| !l.trim().is_empty() && !is_own(l));
            let remark = printed.map(|line| format!("it prints: {}", one_line(line.trim())));
            record.remarks.extend(remark);
            Ok(record)
        }
    }
}

/// Where the child works and answers: below the cache, where it is swept when this process is killed
/// before it can remove it; anywhere, if the cache cannot be used.
fn folder() -> io::Result<tempfile::TempDir> {
    let swept = || -> Result<_> {
        let cache = jit::cache()?;
        cache.make_folders()?;
        cache.sweep_leftovers();
        cache.temporary_folder("probe")
    };
    swept().or_else(|_| tempfile::tempdir())
}

/// Whether the manifest says that it creates threads, as [`THREADS`] has it.
fn threads(manifest: &Manifest) -> &'static str {
    if manifest.behaviour.creates_threads {
        "yes"
    } else {
        "no"
    }
}

/// Everything that decides about an answer: the file, this host, the machine as it is since it
/// started, the drivers that are loaded, and the variables that hide devices.
fn key(manifest: &Manifest, library: &CheckedLibrary) -> String {
    let mut text = format!(
        "{} {:?} {} {DS_ABI_MAJOR}.{DS_ABI_MINOR} {} ",
        library.path.display(),
        library.identity,
        threads(manifest),
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
        text += name;
        // An empty one hides every device; none hides nothing.
        if let Some(value) = env::var_os(name) {
            text.push('=');
            text += &value.to_string_lossy();
        }
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
        // The cache makes its folders itself, so that whatever the process's mask leaves, nobody else
        // can write to them: one that others could write to is no cache any more.
        let written = serde_json::to_vec(&kept)
            .map_err(|e| Error::new(ErrorKind::Internal, "keep an answer", e.to_string()))
            .and_then(|text| {
                let cache = jit::cache()?;
                cache.make_folders()?;
                cache.replace(&path, &text)
            });
        if let Err(e) = written {
            log::debug!("what the plugin said is not kept: {e}");
        }
    }
}
