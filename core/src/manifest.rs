//! What a plugin says of itself in `plugin.json`: read first, so that nothing of it has to run.
//!
//! Types that can only hold what the rules allow, and the parser. Whether the files it names are
//! there and can be trusted is for [`crate::discovery`].

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{Error, ErrorKind, Result, kernels::KernelEntry};

/// Name of the manifest in a plugin's folder.
pub const FILE_NAME: &str = "plugin.json";
/// The format that this host reads.
pub const FORMAT: u32 = 1;
/// Largest manifest that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Keys that this host understands; what `must` names has to be among them.
const KEYS: &[&str] = &[
    "format",
    "must",
    "id",
    "version",
    "vendor",
    "license",
    "accelerator",
    "aliases",
    "priority",
    "description",
    "library",
    "not_built",
    "abi",
    "tables",
    "dlpack_type",
    "environment",
    "communication_backend",
    "match",
    "needs",
    "kernels",
    "schemas",
    "behaviour",
    "known_gaps",
    "seen_on",
    "files",
];

/// A plugin's manifest. Keys that are not listed here are ignored, unless `must` names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the manifest: [`FORMAT`].
    pub format: u32,
    /// Keys without which the manifest cannot be understood.
    #[serde(default)]
    pub must: Vec<String>,
    /// Who the plugin is, for all time.
    pub id: PluginId,
    /// The plugin's own version.
    pub version: String,
    /// Who makes the plugin.
    pub vendor: String,
    /// SPDX expression.
    pub license: String,
    /// Canonical name of the accelerator that it serves.
    pub accelerator: AcceleratorName,
    /// Other names that users may write.
    #[serde(default)]
    pub aliases: Vec<AcceleratorName>,
    /// Rank in the choice without `DS_ACCELERATOR`: the highest usable one wins, and 0 is only taken
    /// by name.
    pub priority: u32,
    /// One sentence for the report.
    pub description: String,
    /// Libraries by platform (`linux-x86_64`), best first. Missing together with a reason in
    /// `not_built`.
    #[serde(default)]
    pub library: Option<BTreeMap<String, Vec<LibraryVariant>>>,
    /// Why there is no library, in words for users.
    #[serde(default)]
    pub not_built: Option<String>,
    /// The versions of the boundary that it speaks.
    pub abi: AbiRange,
    /// Tables that it fills (`device`, `memory`, `stream`, `op`, `jit`).
    #[serde(default)]
    pub tables: Vec<String>,
    /// `DLDeviceType` of its tensors; 12 is DLPack's extension device.
    pub dlpack_type: i32,
    /// Variables that belong to the vendor.
    #[serde(default)]
    pub environment: Environment,
    /// Name of its collectives as DeepSpeed calls them, such as `nccl`.
    #[serde(default)]
    pub communication_backend: Option<String>,
    /// Signs of the hardware that can be seen without code: one that holds is enough. Missing
    /// means that only the plugin can tell.
    #[serde(default, rename = "match")]
    pub presence: Option<Vec<Presence>>,
    /// Libraries of the vendor that it opens. For the report: nothing is refused for their sake.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Its kernels, in the shape of the entries of `kernel.json`.
    #[serde(default)]
    pub kernels: Vec<KernelEntry>,
    /// Files with schemas of ops that the catalogue lacks.
    #[serde(default)]
    pub schemas: Vec<RelativePath>,
    /// How it behaves in a process.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// Conformance tests that it is known to fail.
    #[serde(default)]
    pub known_gaps: Vec<KnownGap>,
    /// What it was run on.
    pub seen_on: SeenOn,
    /// What the folder holds, so that a half-copied one is found out.
    #[serde(default)]
    pub files: Vec<FileEntry>,
}

/// One build of the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryVariant {
    /// Where it lies in the plugin's folder.
    pub path: RelativePath,
    /// CPU features that it cannot do without, as `/proc/cpuinfo` spells them.
    #[serde(default)]
    pub cpu: Vec<String>,
}

/// Versions of the C boundary that a plugin works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbiRange {
    /// Major; the entry symbol carries it.
    pub major: u32,
    /// The oldest minor of the host that it accepts.
    pub min_minor: u32,
    /// The newest minor that it was tested with. A newer host is no reason to refuse.
    pub max_minor: u32,
}

/// Variables of the environment that belong to the vendor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Variables that hide devices, in the order in which they apply.
    #[serde(default)]
    pub visible: Vec<String>,
    /// Prefixes of variables that a launcher passes to other machines.
    #[serde(default)]
    pub export: Vec<String>,
}

/// A sign of the hardware. Every part that is given has to hold; one with no part never does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Holds on every machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// A node under `/dev`; `*` stands for any run of characters of one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<AbsolutePath>,
    /// A file anywhere, with the same `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<AbsolutePath>,
    /// A function on the PCI bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<Pci>,
}

/// Which PCI functions count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pci {
    /// Vendor, such as `0x1234`.
    pub vendor: HexDigits,
    /// First digits of the class, such as `0x03` for display controllers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<HexDigits>,
}

/// A library of the vendor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Names under which it is tried, in order.
    pub sonames: Vec<String>,
    /// What it is for.
    pub purpose: String,
    /// The plugin works without it, with less.
    #[serde(default)]
    pub optional: bool,
    /// How to get it.
    pub hint: String,
}

/// How a plugin behaves in a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behaviour {
    /// It, or a library under it, starts threads.
    #[serde(default)]
    pub creates_threads: bool,
    /// It works in a child of `fork`.
    #[serde(default)]
    pub fork_safe: bool,
    /// What a panic does.
    #[serde(default)]
    pub panic: PanicStrategy,
}

/// What a panic in a plugin does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PanicStrategy {
    /// There are none: C.
    #[default]
    None,
    /// It unwinds and is caught at the boundary.
    Unwind,
    /// It ends the process; the host refuses such a plugin.
    Abort,
}

/// A conformance test that a plugin is known to fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownGap {
    /// Name of the test.
    pub test: String,
    /// Why it fails.
    pub reason: String,
}

/// What a plugin was run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenOn {
    /// The most real thing that it ran on.
    pub on: Evidence,
    /// Which machine, versions and date.
    pub note: String,
}

/// How real the machine was that a plugin ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The device itself.
    Hardware,
    /// The vendor's own software without the device.
    VendorSoftware,
    /// A simulator below or instead of the vendor's software.
    Simulator,
    /// It never ran.
    Nothing,
}

/// A file of the plugin's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it lies.
    pub path: RelativePath,
    /// Its size.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// BLAKE3 of its bytes, 64 hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    ///
    /// `Incompatible`, with the place in the text and the rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(refuse(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            refuse(format!("byte {} is not UTF-8", e.valid_up_to()))
                .with_hint("save the file as UTF-8 without a byte order mark")
        })?;
        let read = from_json::<Self>(text);
        // A manifest of a later format is told so, rather than which of its keys looks odd to this one.
        let envelope = match &read {
            Ok(manifest) => Envelope {
                format: manifest.format,
                must: manifest.must.clone(),
            },
            Err(_) => from_json(text)?,
        };
        if envelope.format != FORMAT {
            return Err(refuse(format!(
                "format: it is {}, and this host reads format {FORMAT}",
                envelope.format
            ))
            .with_hint("update DeepSpeed, or take the plugin's build for this version"));
        }
        if let Some(key) = envelope
            .must
            .iter()
            .find(|key| !KEYS.contains(&key.as_str()))
        {
            return Err(refuse(format!(
                "must: this host does not understand the key `{key}`"
            ))
            .with_hint("update DeepSpeed, or take the plugin's build for this version"));
        }
        let manifest = read?;
        manifest.check()?;
        // All of it is shown in terminals, sooner or later. Few manifests have what could be a control
        // character: an escape, or one that JSON takes as it is, from U+007F on.
        let is_doubtful = |c: char| c == '\\' || (c.is_control() && !c.is_ascii_whitespace());
        if text.contains(is_doubtful) {
            let tree = serde_json::to_value(&manifest).map_err(|e| refuse(e.to_string()))?;
            if let Some(path) = control_character_in(&tree) {
                return Err(refuse(format!("{path}: it has control characters")));
            }
        }
        Ok(manifest)
    }

    /// Whether `name` is the accelerator's name or one of its aliases.
    pub fn answers_to(&self, name: &str) -> bool {
        self.accelerator.as_str() == name || self.aliases.iter().any(|alias| alias.as_str() == name)
    }

    /// The rules that bind several keys.
    fn check(&self) -> Result<()> {
        match (&self.library, &self.not_built) {
            (None, None) => {
                return Err(refuse(
                    "library: it is missing, and `not_built` gives no reason",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(refuse(
                    "not_built: it is given although there is a `library`",
                ));
            }
            (Some(platforms), None) => {
                for (platform, variants) in platforms {
                    if variants.is_empty() {
                        return Err(refuse(format!("library.{platform}: it lists no file")));
                    }
                }
            }
            (None, Some(reason)) if reason.trim().is_empty() => {
                return Err(refuse("not_built: the reason is empty"));
            }
            (None, Some(_)) => {}
        }
        if self.abi.min_minor > self.abi.max_minor {
            return Err(refuse(format!(
                "abi: min_minor {} is above max_minor {}",
                self.abi.min_minor, self.abi.max_minor
            )));
        }
        for (index, alias) in self.aliases.iter().enumerate() {
            if *alias == self.accelerator || self.aliases[..index].contains(alias) {
                return Err(refuse(format!(
                    "aliases[{index}]: `{alias}` is named twice"
                )));
            }
        }
        for (index, sign) in self.presence.iter().flatten().enumerate() {
            if let Some(device) = &sign.device
                && !device.as_str().starts_with("/dev/")
            {
                return Err(refuse(format!(
                    "match[{index}].device: `{device}` is not in /dev"
                )));
            }
        }
        for (index, file) in self.files.iter().enumerate() {
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if file.blake3.len() != 64 || !file.blake3.chars().all(hex) {
                return Err(refuse(format!(
                    "files[{index}].blake3: it is not 64 lower-case hexadecimal digits"
                )));
            }
        }
        for (key, text) in [
            ("version", &self.version),
            ("vendor", &self.vendor),
            ("license", &self.license),
            ("description", &self.description),
        ] {
            if text.is_empty() {
                return Err(refuse(format!("{key}: it is empty")));
            }
        }
        Ok(())
    }
}

/// The path to a text in `tree` that has control characters.
fn control_character_in(tree: &Value) -> Option<String> {
    let has = |text: &str| text.chars().any(char::is_control);
    let below = |key: &str, inner: &Value| {
        let rest = control_character_in(inner)?;
        let dot = if rest.is_empty() || rest.starts_with('[') {
            ""
        } else {
            "."
        };
        Some(format!("{key}{dot}{rest}"))
    };
    match tree {
        Value::String(text) => has(text).then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, inner)| below(&format!("[{index}]"), inner)),
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            has(key)
                .then(|| key.escape_debug().to_string())
                .or_else(|| below(key, inner))
        }),
        _ => None,
    }
}

/// What every format has.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
    #[serde(default)]
    must: Vec<String>,
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    // Only a text that is wrong is read again, with a look at where it is.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        // `?` is where a text breaks between two keys, and `.` the whole.
        let path = path.trim_end_matches(['?', '.']);
        let inner = error.into_inner();
        if path.is_empty() {
            refuse(inner.to_string())
        } else {
            refuse(format!("{path}: {inner}"))
        }
    })?;
    reader.end().map_err(|error| refuse(error.to_string()))?;
    Ok(value)
}

fn refuse(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Incompatible, "read manifest", context)
}

/// A string type that holds only what its rule lets through.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                let rule: fn(&str) -> Result<(), &'static str> = $rule;
                match rule(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(Error::new(
                        ErrorKind::InvalidArgument,
                        concat!("read ", stringify!($name)),
                        format!("\"{}\" {why}", text.escape_debug()),
                    )),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                // The key is in front already; what was being done would stand between.
                let text = String::deserialize(from)?;
                Self::try_from(text).map_err(|e| D::Error::custom(e.context()))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_string!(
    /// Who a plugin is: a domain name backwards, such as `org.example.sim`.
    PluginId,
    |text| {
        let label = |label: &str| {
            label.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if text.len() <= 128 && text.contains('.') && text.split('.').all(label) {
            Ok(())
        } else {
            Err("is no id: write a domain name backwards, such as org.example.sim")
        }
    }
);

checked_string!(
    /// An accelerator's name or alias: a lower-case letter, then letters, digits, `_` and `-`.
    AcceleratorName,
    |text| {
        let inner =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(inner)
        {
            Ok(())
        } else {
            Err("is no name: use a lower-case letter, then up to 31 of a-z, 0-9, _ and -")
        }
    }
);

checked_string!(
    /// A path inside the plugin's folder: relative, and never upwards.
    RelativePath,
    |text| {
        if text.contains('\0') {
            Err("has a zero byte")
        } else if text.starts_with('/') {
            Err("is absolute: write it relative to the plugin's folder")
        } else if text.split('/').any(|part| part == "..") {
            Err("leaves the plugin's folder: `..` is not allowed")
        } else if text.split('/').any(|part| part.is_empty() || part == ".") {
            Err("is no path to a file: it has an empty part or `.`")
        } else {
            Ok(())
        }
    }
);

checked_string!(
    /// An absolute path, in which `*` stands for any run of characters of one name.
    AbsolutePath,
    |text| {
        if text.contains('\0') {
            Err("has a zero byte")
        } else if !text.starts_with('/') {
            Err("is relative: write the whole path")
        } else if text[1..].split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            Err("has an empty part, `.` or `..`")
        } else {
            Ok(())
        }
    }
);

checked_string!(
    /// `0x` and up to eight lower-case hexadecimal digits, as sysfs writes them.
    HexDigits,
    |text| match text.strip_prefix("0x") {
        Some(digits)
            if (1..=8).contains(&digits.len())
                && digits.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) =>
        {
            Ok(())
        }
        _ => Err("is no number: write 0x and lower-case hexadecimal digits"),
    }
);

impl RelativePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{
        "format": 1, "id": "org.example.sim", "version": "0.1.0", "vendor": "Example",
        "license": "MIT", "accelerator": "sim", "priority": 5, "description": "A simulator.",
        "library": { "linux-x86_64": [ { "path": "libsim.so" } ] },
        "abi": { "major": 1, "min_minor": 0, "max_minor": 0 }, "dlpack_type": 12,
        "seen_on": { "on": "nothing", "note": "" }
    }"#;

    /// `SMALL` with `key` set to the JSON text `value`.
    fn with(key: &str, value: &str) -> String {
        let mut object: serde_json::Map<String, Value> = serde_json::from_str(SMALL).unwrap();
        object.insert(key.to_owned(), serde_json::from_str(value).unwrap());
        Value::Object(object).to_string()
    }

    fn context(text: &str) -> String {
        let error = Manifest::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        error.context().to_owned()
    }

    #[test]
    fn takes_the_least_and_fills_in_the_rest() {
        let manifest = Manifest::parse(SMALL.as_bytes()).unwrap();
        assert_eq!(manifest.accelerator.as_str(), "sim");
        assert!(manifest.presence.is_none() && manifest.aliases.is_empty());
        assert_eq!(manifest.behaviour.panic, PanicStrategy::None);
    }

    #[test]
    fn round_trips_and_lists_every_key() {
        let manifest = Manifest::parse(SMALL.as_bytes()).unwrap();
        let value = serde_json::to_value(&manifest).unwrap();
        let mut keys: Vec<_> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut known = KEYS.to_vec();
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
        assert_eq!(
            Manifest::parse(value.to_string().as_bytes()).unwrap(),
            manifest
        );
    }

    #[test]
    fn ignores_unknown_keys_unless_they_must_be_understood() {
        assert!(Manifest::parse(with("colour", "3").as_bytes()).is_ok());
        assert!(Manifest::parse(with("must", r#"["abi", "match"]"#).as_bytes()).is_ok());
        assert!(context(&with("must", r#"["colour"]"#)).contains("the key `colour`"));
    }

    #[test]
    fn says_first_that_a_format_is_later() {
        let text = r#"{ "format": 2, "library": "a new shape" }"#;
        assert!(context(text).contains("it is 2, and this host reads format 1"));
    }

    #[test]
    fn errors_name_path_and_line() {
        let text = SMALL.replace("\"libsim.so\"", "\n\"../libsim.so\"");
        let context = context(&text);
        assert!(
            context.starts_with("library.linux-x86_64[0].path: "),
            "{context}"
        );
        assert!(context.contains("`..` is not allowed"), "{context}");
        assert!(context.contains("at line 5 column "), "{context}");
        let cut = self::context("{ \"format\": 1,");
        assert!(cut.starts_with("EOF while parsing"), "{cut}");
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        for (key, value, expected) in [
            ("id", r#""sim""#, "id: "),
            ("id", r#""Org.Example""#, "is no id"),
            (
                "accelerator",
                r#""9sim""#,
                "accelerator: \"9sim\" is no name",
            ),
            ("aliases", r#"["a", "a"]"#, "aliases[1]: `a` is named twice"),
            ("aliases", r#"["sim"]"#, "aliases[0]: `sim` is named twice"),
            ("library", "null", "`not_built` gives no reason"),
            ("library", r#"{"linux-x86_64": []}"#, "lists no file"),
            ("not_built", r#""no time""#, "although there is a `library`"),
            (
                "abi",
                r#"{"major": 1, "min_minor": 2, "max_minor": 1}"#,
                "is above max_minor",
            ),
            (
                "match",
                r#"[{"device": "/etc/passwd"}]"#,
                "match[0].device: ",
            ),
            ("match", r#"[{"file": "etc"}]"#, "match[0].file: "),
            (
                "match",
                r#"[{"pci": {"vendor": "10de"}}]"#,
                "match[0].pci.vendor: ",
            ),
            ("schemas", r#"["/etc/passwd"]"#, "schemas[0]: "),
            ("schemas", r#"["a\u0000b"]"#, "has a zero byte"),
            ("schemas", r#"["a//b"]"#, "empty part"),
            (
                "files",
                r#"[{"path": "a", "size": 1, "blake3": "00"}]"#,
                "files[0].blake3",
            ),
            ("version", r#""""#, "version: it is empty"),
            (
                "vendor",
                "\"a name\u{7f}\"",
                "vendor: it has control characters",
            ),
            (
                "description",
                r#""\u001b[2J""#,
                "description: it has control characters",
            ),
            (
                "library",
                r#"{"linux-x86_64": [{"path": "a.so", "cpu": ["avx\u0007"]}]}"#,
                "library.linux-x86_64[0].cpu[0]: it has control characters",
            ),
            (
                "library",
                r#"{"linux\u001b[2J": [{"path": "a.so"}]}"#,
                "library.linux\\u{1b}[2J: it has control characters",
            ),
            ("must", r#"["\u001b"]"#, "the key `\\u{1b}`"),
            (
                "seen_on",
                r#"{"on": "dreams", "note": ""}"#,
                "seen_on.on: unknown variant",
            ),
            ("priority", "-1", "priority: "),
        ] {
            let context = context(&with(key, value));
            assert!(context.contains(expected), "{key} = {value}: {context}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_small_json_document() {
        assert!(context(&format!("{SMALL} 1")).contains("trailing characters"));
        assert!(context(&SMALL[..SMALL.len() - 1]).contains("EOF"));
        assert!(context("").contains("EOF"));
        let broken = |old, new| context(&SMALL.replace(old, new));
        assert!(broken("\"priority\": 5,", "\"priority\": 5").starts_with("expected `,`"));
        assert!(broken("\"major\": 1,", "\"major\": 1").starts_with("abi: expected `,`"));
        assert!(context(&format!("{SMALL}{}", " ".repeat(MAX_BYTES))).contains("larger than"));
        let error = Manifest::parse(b"{ \"format\": \xff }").unwrap_err();
        assert!(error.context().contains("byte 12 is not UTF-8"));
        // Kernels stay unread here, unless a text may have what no terminal should be given.
        let deep = with("colour", r#""\n""#).replace(
            "\"colour\":",
            &format!(
                "\"kernels\":[{}{}],\"colour\":",
                "[".repeat(100_000),
                "]".repeat(100_000)
            ),
        );
        assert!(context(&deep).contains("recursion limit"));
    }

    #[test]
    fn knows_its_names() {
        let manifest = Manifest::parse(with("aliases", r#"["simulator"]"#).as_bytes()).unwrap();
        assert!(manifest.answers_to("sim") && manifest.answers_to("simulator"));
        assert!(!manifest.answers_to("Sim"));
    }
}
