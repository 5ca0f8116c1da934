//! What lies beside an artefact: what it was built from, and the hashes that a reader checks.

use std::{
    borrow::Cow,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{BuildKey, BuildSpec, SourceText, ToolchainIdentity, files};
use crate::{Error, ErrorKind, error::one_line};

/// Describes the artefact of an entry.
pub(super) const RECORD_FILE: &str = "record.json";
/// Describes a build that failed.
pub(super) const FAILED_FILE: &str = "failed.json";
/// What the compiler said.
pub(super) const LOG_FILE: &str = "build.log";

/// Largest record that is read, in bytes; one names a few sources and arguments.
pub(super) const MAX_RECORD_BYTES: u64 = 4 << 20;
/// Largest artefact that is read, in bytes. A file with holes can claim any size.
const MAX_ARTEFACT_BYTES: u64 = 1 << 30;

/// What an artefact was built from, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The entry's key, in hexadecimal.
    pub key: String,
    /// The op set that it belongs to; empty for a smoke compile.
    pub op_set: String,
    /// The kernel that it is for; empty when it serves the whole set.
    pub kernel: String,
    /// The signature that it depends on.
    pub signature: Option<String>,
    /// What it runs on.
    pub target: String,
    /// What built it.
    pub toolchain: ToolchainIdentity,
    /// The arguments of the build.
    pub arguments: Vec<String>,
    /// The source files.
    pub sources: Vec<SourceRecord>,
    /// Name of the machine that built it.
    pub host: String,
    /// When, in seconds after 1970.
    pub created_unix_s: u64,
    /// How long the build took, in milliseconds.
    pub build_ms: u64,
    /// Name of the artefact's file in the entry's folder.
    pub artefact: String,
    /// Size of the artefact.
    pub artefact_bytes: u64,
    /// BLAKE3 of the artefact, in hexadecimal.
    pub artefact_blake3: String,
}

/// A source file of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// BLAKE3 of its content, in hexadecimal.
    pub blake3: String,
}

/// A build that its compiler refused, remembered until its key changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedBuild {
    /// The key, in hexadecimal.
    pub key: String,
    /// The op set; empty for a smoke compile.
    pub op_set: String,
    /// The kernel; empty for the whole set.
    pub kernel: String,
    /// What it was for.
    pub target: String,
    /// What refused it.
    pub toolchain: ToolchainIdentity,
    /// The arguments of the build.
    pub arguments: Vec<String>,
    /// Name of the machine.
    pub host: String,
    /// When, in seconds after 1970.
    pub created_unix_s: u64,
    /// What went wrong, in one line.
    pub reason: String,
    /// Where the log is; not part of the file.
    #[serde(skip)]
    pub log: PathBuf,
}

impl Record {
    pub(super) fn new(
        key: &BuildKey,
        spec: &BuildSpec,
        identity: &ToolchainIdentity,
        artefact: &[u8],
        build_ms: u64,
    ) -> Self {
        let source = |(name, text): &(String, SourceText)| SourceRecord {
            name: name.clone(),
            blake3: text.hash().to_hex().to_string(),
        };
        Self {
            key: key.hex(),
            op_set: spec.op_set.clone(),
            kernel: spec.kernel.clone(),
            signature: spec.signature.clone(),
            target: spec.target.clone(),
            toolchain: identity.clone(),
            arguments: spec.request.arguments.clone(),
            sources: spec.request.sources.iter().map(source).collect(),
            host: host_name(),
            created_unix_s: unix_now_s(),
            build_ms,
            artefact: spec.request.output.clone(),
            artefact_bytes: artefact.len() as u64,
            artefact_blake3: hash(artefact),
        }
    }

    /// The build's name in messages: `op_set/kernel`.
    pub fn subject(&self) -> String {
        subject(&self.op_set, &self.kernel)
    }
}

impl FailedBuild {
    pub(super) fn new(
        key: &BuildKey,
        spec: &BuildSpec,
        identity: &ToolchainIdentity,
        reason: String,
    ) -> Self {
        Self {
            key: key.hex(),
            op_set: spec.op_set.clone(),
            kernel: spec.kernel.clone(),
            target: spec.target.clone(),
            toolchain: identity.clone(),
            arguments: spec.request.arguments.clone(),
            host: host_name(),
            created_unix_s: unix_now_s(),
            reason,
            log: PathBuf::new(),
        }
    }

    /// The build's name in messages: `op_set/kernel`.
    pub fn subject(&self) -> String {
        subject(&self.op_set, &self.kernel)
    }

    /// The failure as an error that says that it is an old one, and how to forget it.
    pub fn to_error(&self) -> Error {
        Error::new(
            ErrorKind::BuildFailed,
            format!("build {}", self.subject()),
            format!(
                "{} (remembered: it failed {} s ago, and nothing that it depends on has changed)",
                self.reason,
                unix_now_s().saturating_sub(self.created_unix_s)
            ),
        )
        .with_hint(format!(
            "the log is {}; after a repair outside the sources, such as a header installed, forget \
             the failure with `ds_report cache prune --failed`",
            self.log.display()
        ))
    }
}

/// A record with the hash of its own text, so that a damaged one is not believed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a, T: Clone> {
    format: u32,
    record: Cow<'a, T>,
    blake3: String,
}

/// Grows when fields change their meaning; other formats are built again.
const FORMAT: u32 = 1;

/// The text of a record's file.
pub(super) fn to_sealed_json<T: Serialize + Clone>(record: &T) -> serde_json::Result<Vec<u8>> {
    let blake3 = hash(&serde_json::to_vec(record)?);
    let mut text = serde_json::to_vec_pretty(&Sealed {
        format: FORMAT,
        record: Cow::Borrowed(record),
        blake3,
    })?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a record's file; the message says what is wrong with it.
pub(super) fn from_sealed_json<T>(text: &[u8]) -> Result<T, String>
where
    T: Serialize + DeserializeOwned + Clone,
{
    let sealed: Sealed<'_, T> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let again = serde_json::to_vec(&sealed.record).map_err(|e| e.to_string())?;
    if sealed.format != FORMAT {
        return Err(format!("format {} instead of {FORMAT}", sealed.format));
    }
    if hash(&again) != sealed.blake3 {
        return Err("the hash of its text differs".into());
    }
    Ok(sealed.record.into_owned())
}

/// An entry that may be used: its record, and the artefact's bytes as they were checked.
#[derive(Debug)]
pub(super) struct ValidEntry {
    pub(super) record: Record,
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// Reads and checks the entry in `folder`; `None` when there is none.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read_entry(folder: &Path, key: &BuildKey) -> Result<Option<ValidEntry>, String> {
    // Names in a record are whatever somebody wrote there.
    read(folder, key).map_err(one_line)
}

fn read(folder: &Path, key: &BuildKey) -> Result<Option<ValidEntry>, String> {
    let Some(text) = read_trusted(&folder.join(RECORD_FILE), MAX_RECORD_BYTES)? else {
        return match fs::symlink_metadata(folder) {
            Ok(_) => Err(format!("{RECORD_FILE} is missing")),
            Err(_) => Ok(None),
        };
    };
    let record: Record =
        from_sealed_json(&text).map_err(|what| format!("{RECORD_FILE}: {what}"))?;
    if record.key != key.hex() {
        return Err(format!("{RECORD_FILE} is that of {}", record.key));
    }
    if !files::is_plain_name(&record.artefact) {
        return Err(format!(
            "`{}` is not a plain file name",
            record.artefact.escape_debug()
        ));
    }
    let path = folder.join(&record.artefact);
    let bytes = read_trusted(&path, MAX_ARTEFACT_BYTES)?
        .ok_or_else(|| format!("{} is missing", record.artefact))?;
    if bytes.len() as u64 != record.artefact_bytes {
        return Err(format!(
            "{} has {} bytes instead of {}",
            record.artefact,
            bytes.len(),
            record.artefact_bytes
        ));
    }
    if hash(&bytes) != record.artefact_blake3 {
        return Err(format!("the content of {} has changed", record.artefact));
    }
    Ok(Some(ValidEntry {
        record,
        path,
        bytes,
    }))
}

/// Reads the remembered failure in `folder`; one that cannot be read is as good as none.
pub(super) fn read_failure(folder: &Path, key: &BuildKey) -> Option<FailedBuild> {
    let text = read_trusted(&folder.join(FAILED_FILE), MAX_RECORD_BYTES).ok()??;
    let mut failed: FailedBuild = from_sealed_json(&text).ok()?;
    failed.log = folder.join(LOG_FILE);
    (failed.key == key.hex()).then_some(failed)
}

/// Reads a regular file that nobody else could have written; `None` when it does not exist.
fn read_trusted(path: &Path, most_bytes: u64) -> Result<Option<Vec<u8>>, String> {
    let describe = |error: io::Error| format!("{}: {error}", path.display());
    let mut file = match files::open_plain(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(describe(error)),
    };
    let metadata = file.metadata().map_err(describe)?;
    if !metadata.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    if let Some(what) = files::distrust(&metadata) {
        return Err(format!("{} {what}", path.display()));
    }
    if metadata.len() > most_bytes {
        return Err(format!(
            "{} has {} bytes, the limit is {most_bytes}",
            path.display(),
            metadata.len()
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.read_to_end(&mut bytes).map_err(describe)?;
    Ok(Some(bytes))
}

pub(super) fn subject(op_set: &str, kernel: &str) -> String {
    match (op_set, kernel) {
        ("", "") => "smoke compile".into(),
        (op_set, "") => op_set.into(),
        (op_set, kernel) => format!("{op_set}/{kernel}"),
    }
}

/// BLAKE3 in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

pub(super) fn unix_now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed_or_harmless() {
        let failed = FailedBuild {
            key: "k".into(),
            op_set: "norm".into(),
            kernel: "rms_norm".into(),
            target: "x86-64".into(),
            toolchain: ToolchainIdentity::in_process("library", "13.0"),
            arguments: vec!["-O3".into()],
            host: "h".into(),
            created_unix_s: 7,
            reason: "a.c:1: error".into(),
            log: PathBuf::new(),
        };
        let text = to_sealed_json(&failed).unwrap();
        assert_eq!(from_sealed_json::<FailedBuild>(&text).unwrap(), failed);
        let mut refused = 0;
        for index in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[index] ^= 1 << bit;
                match from_sealed_json::<FailedBuild>(&damaged) {
                    // Blanks between tokens may become other blanks.
                    Ok(read) => assert_eq!(read, failed),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > text.len() * 6, "{refused} of {}", text.len() * 8);
    }
}
