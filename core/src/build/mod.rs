//! Builds on demand: key a build, find its artefact in the cache, or run a compiler and publish what
//! it made. Knows nothing of loading artefacts, and of no particular compiler.
//!
//! # How it holds together
//!
//! ```text
//! BuildSpec + ToolchainIdentity ── key ──> Cache::lookup ── hit ─────────────────────────> Artefact
//!                                            └─ miss ── lock ── build in tmp/ ── rename ──┘
//! ```
//!
//! - What is correct comes from the rename alone: an entry appears whole or not at all, and whoever
//!   loses the race uses the winner's. The lock per key only spares work, and dies with its owner.
//! - Every hit is validated (record, size, hash, owner, mode). A damaged entry is put aside and built
//!   again, never loaded.
//! - A compiler that refused its sources is not asked again until the key changes. What may be
//!   different tomorrow (a full disk, a signal, a timeout) is not remembered.
//!
//! # Folders
//!
//! ```text
//! <cache>/v1/ab/<key>/          the artefact, record.json, build.log
//! <cache>/v1/ab/<key>.failed/   failed.json, build.log
//! <cache>/v1/toolchains.json    versions of compilers, so that a warm start runs none
//! <cache>/lock/<key>            who builds, since when
//! <cache>/tmp/                  builds under way, and what dead ones left
//! ```
//!
//! # Variables
//!
//! `DS_CACHE_DIR`, `DS_CACHE_SHARED`, `DS_JIT`, `DS_BUILD_TIMEOUT` ([`Settings`]) and `DS_BUILD_ENV`
//! ([`BuildEnvironment`]).

mod cache;
mod environment;
mod failure;
mod files;
mod half;
mod key;
mod lock;
mod maintain;
mod record;
mod settings;
mod source;
mod toolchain;

use crate::{Error, ErrorKind, Result};

pub use cache::{Artefact, Cache, Level};
pub use environment::BuildEnvironment;
pub use failure::CompileFailure;
pub use key::BuildKey;
pub use maintain::{CacheFolder, Copied, Entry, EntryState, PruneRules, Pruned, Stats, folders};
pub use record::{FailedBuild, Record, SourceRecord};
pub use settings::{JitMode, Settings};
pub use source::SourceText;
pub use toolchain::{ProgramToolchain, Toolchain, ToolchainIdentity};

/// What one build needs, owned: the host's side of `DsBuildRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRequest {
    /// Name of the toolchain.
    pub toolchain: String,
    /// File names, without folders, and their text.
    pub sources: Vec<(String, SourceText)>,
    /// Arguments in order; for a program its command line, run in the build folder.
    pub arguments: Vec<String>,
    /// Name of the file that the build makes, without folders.
    pub output: String,
}

/// What a build is of: the request and what else decides about its artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSpec {
    /// What to build, with what.
    pub request: BuildRequest,
    /// CPU features or GPU architecture, as the accelerator writes it.
    pub target: String,
    /// The op set that it belongs to; empty for a smoke compile.
    pub op_set: String,
    /// The kernel that it is for; empty when one artefact serves every kernel of the set.
    pub kernel: String,
    /// Text of the signature, when the artefact depends on it.
    pub signature: Option<String>,
}

impl BuildRequest {
    /// Checks what the host relies on before it writes a file: plain file names, each used once.
    ///
    /// # Errors
    /// `PluginBug`, with the name that breaks the rule: requests come from plugins.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| {
            Err(
                Error::new(ErrorKind::PluginBug, "check build request", what)
                    .with_hint("report it to whoever made the plugin"),
            )
        };
        let mut names: Vec<&str> = self.sources.iter().map(|(name, _)| name.as_str()).collect();
        names.push(&self.output);
        for name in &names {
            if !files::is_plain_name(name) {
                return refuse(format!(
                    "`{}` is not a plain file name",
                    name.escape_debug()
                ));
            }
        }
        if matches!(self.output.as_str(), record::RECORD_FILE | record::LOG_FILE) {
            return refuse(format!(
                "the output is named `{}`, as the cache's own",
                self.output
            ));
        }
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return refuse(format!("the file name `{name}` is used twice"));
        }
        if let Some(argument) = self.arguments.iter().find(|a| a.contains('\0')) {
            return refuse(format!(
                "argument `{}` holds a zero byte",
                argument.escape_debug()
            ));
        }
        Ok(())
    }
}

impl BuildSpec {
    /// The build's name in messages: `op_set/kernel`, or `smoke compile`.
    pub fn subject(&self) -> String {
        record::subject(&self.op_set, &self.kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sources: &[&str], output: &str) -> BuildRequest {
        BuildRequest {
            toolchain: "cc".into(),
            sources: sources
                .iter()
                .map(|name| ((*name).into(), "".into()))
                .collect(),
            arguments: Vec::new(),
            output: output.into(),
        }
    }

    #[test]
    fn plain_distinct_names_pass_and_others_are_the_plugins_fault() {
        request(&["a.c", "b.h"], "a.so").check().unwrap();
        for (sources, output, named) in [
            (&["../a.c"][..], "a.so", "`../a.c`"),
            (&["/etc/x"], "a.so", "`/etc/x`"),
            (&["a.c"], "", "``"),
            (&["a.c"], "..", "`..`"),
            (&["a\0.c"], "a.so", "not a plain"),
            (&["a.c", "a.c"], "a.so", "`a.c` is used twice"),
            (&["a.c"], "a.c", "`a.c` is used twice"),
            (&["a.c"], "record.json", "`record.json`"),
        ] {
            let error = request(sources, output).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PluginBug);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
