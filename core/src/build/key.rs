//! The cache key: a hash of everything that decides about an artefact, and of nothing else.

use std::{fmt, str::FromStr};

use ds_abi::DS_ABI_MAJOR;

use super::{BuildSpec, ToolchainIdentity};
use crate::{Error, ErrorKind, Result};

/// Separates these hashes from every other use of BLAKE3; a new encoding gets a new text.
const CONTEXT: &str = "ds-core 2026 build cache key v2";

/// Names one build: equal keys mean equal artefacts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildKey([u8; 32]);

impl BuildKey {
    /// The key of building `spec` with the toolchain `identity`.
    pub fn new(spec: &BuildSpec, identity: &ToolchainIdentity) -> Self {
        let mut encoder = Encoder::default();
        encoder.number("abi major", DS_ABI_MAJOR.into());
        encoder.text("op set", &spec.op_set);
        encoder.text("kernel", &spec.kernel);
        encoder.text("target", &spec.target);
        match &spec.signature {
            Some(signature) => encoder.text("signature", signature),
            None => encoder.number("no signature", 0),
        }

        encoder.text("toolchain name", &identity.name);
        encoder.text("toolchain path", &identity.path);
        encoder.text("toolchain version", &identity.version);
        encoder.texts("toolchain arguments", &identity.arguments);
        encoder.number("environment", identity.environment.len() as u64);
        for (name, value) in &identity.environment {
            encoder.text("variable", name);
            encoder.text("value", value);
        }

        encoder.number("sources", spec.request.sources.len() as u64);
        for (name, text) in &spec.request.sources {
            encoder.text("source", name);
            encoder.bytes("content", text.hash().as_bytes());
        }
        encoder.texts("arguments", &spec.request.arguments);
        encoder.text("output", &spec.request.output);
        Self(blake3::derive_key(CONTEXT, &encoder.0))
    }

    /// The 64 hexadecimal digits, as in folder names.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildKey({})", self.hex())
    }
}

impl FromStr for BuildKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hash = blake3::Hash::from_hex(text).ok();
        // Folder names are compared as text, so that only the spelling we write is a key.
        match hash.filter(|hash| hash.to_hex().as_str() == text) {
            Some(hash) => Ok(Self(*hash.as_bytes())),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                "read build key",
                format!(
                    "`{}` is not 64 lower-case hexadecimal digits",
                    text.escape_debug()
                ),
            )),
        }
    }
}

/// Writes `tag, value` pairs, each with its length first, so that no two inputs share an encoding. All of
/// it is hashed at once: in small pieces the hash takes several times as long.
#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn raw(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn bytes(&mut self, tag: &str, bytes: &[u8]) {
        self.raw(tag.as_bytes());
        self.raw(bytes);
    }

    fn text(&mut self, tag: &str, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    fn number(&mut self, tag: &str, number: u64) {
        self.bytes(tag, &number.to_le_bytes());
    }

    fn texts(&mut self, tag: &str, texts: &[String]) {
        self.number(tag, texts.len() as u64);
        for text in texts {
            self.raw(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::BuildRequest, *};

    fn spec() -> BuildSpec {
        BuildSpec {
            request: BuildRequest {
                toolchain: "cc".into(),
                sources: vec![
                    ("a.c".into(), "int f;".into()),
                    ("a.h".into(), "extern int f;".into()),
                ],
                arguments: vec!["-O3".into(), "a.c".into()],
                output: "a.so".into(),
            },
            target: "x86-64-v3".into(),
            op_set: "norm".into(),
            kernel: "rms_norm".into(),
            signature: None,
        }
    }

    fn identity() -> ToolchainIdentity {
        ToolchainIdentity {
            name: "cc".into(),
            path: "/usr/bin/gcc-14".into(),
            version: "gcc 14.2.0".into(),
            arguments: Vec::new(),
            environment: [("CPATH".to_owned(), "/opt/include".to_owned())].into(),
        }
    }

    /// The digest was computed by an independent program from the documented encoding; a change here
    /// makes every cache cold and needs a new `CONTEXT`.
    #[test]
    fn the_encoding_does_not_drift() {
        let key = BuildKey::new(&spec(), &identity());
        assert_eq!(key, BuildKey::new(&spec(), &identity()));
        assert_eq!(
            key.hex(),
            "9a4694bcc2976d4e5e97a0bc08d4c3a00df1c73d5ade2c6585b139fcb08b6394"
        );
        assert_eq!(key.hex().parse::<BuildKey>().unwrap(), key);
    }

    #[test]
    fn every_input_changes_the_key() {
        type Change = fn(&mut BuildSpec, &mut ToolchainIdentity);
        let changes: &[(&str, Change)] = &[
            ("nothing", |_, _| {}),
            ("source text", |s, _| {
                s.request.sources[0].1 = "Int f;".into();
            }),
            ("source name", |s, _| s.request.sources[0].0 = "b.c".into()),
            ("header text", |s, _| {
                s.request.sources[1].1 = "extern int f; ".into();
            }),
            ("one source less", |s, _| drop(s.request.sources.pop())),
            ("bytes move between files", |s, _| {
                s.request.sources[0].1 = "int f".into();
                s.request.sources[1].1 = ";extern int f;".into();
            }),
            ("argument", |s, _| s.request.arguments[0] = "-O2".into()),
            ("argument order", |s, _| s.request.arguments.reverse()),
            ("arguments joined", |s, _| {
                s.request.arguments = vec!["-O3a.c".into()];
            }),
            ("output", |s, _| s.request.output = "b.so".into()),
            ("target", |s, _| s.target = "x86-64-v4".into()),
            ("op set", |s, _| s.op_set = "adam".into()),
            ("kernel", |s, _| s.kernel = "layer_norm".into()),
            ("signature", |s, _| s.signature = Some("f32[N,D]".into())),
            ("empty signature", |s, _| s.signature = Some(String::new())),
            ("toolchain name", |_, t| t.name = "clang".into()),
            ("toolchain path", |_, t| t.path = "/usr/bin/gcc-13".into()),
            ("toolchain version", |_, t| t.version = "gcc 14.3.0".into()),
            ("toolchain argument", |_, t| t.arguments.push("-m32".into())),
            ("variable's value", |_, t| {
                t.environment.insert("CPATH".into(), "/opt/other".into());
            }),
            ("variable gone", |_, t| t.environment.clear()),
            ("a part moves from target to kernel", |s, _| {
                s.target = "x86-64-v".into();
                s.kernel = "3rms_norm".into();
            }),
        ];
        let mut seen = HashSet::new();
        for (what, change) in changes {
            let (mut spec, mut identity) = (spec(), identity());
            change(&mut spec, &mut identity);
            assert!(
                seen.insert(BuildKey::new(&spec, &identity)),
                "{what} keeps the key"
            );
        }
    }

    #[test]
    fn only_the_written_form_is_a_key() {
        let hex = "0af".repeat(22)[..64].to_owned();
        assert_eq!(hex.parse::<BuildKey>().unwrap().to_string(), hex);
        for text in [
            "",
            "00",
            &hex.to_uppercase(),
            &hex[..63],
            &format!("{hex}0"),
        ] {
            assert!(text.parse::<BuildKey>().is_err(), "{text}");
        }
    }
}
