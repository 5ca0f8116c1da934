//! Kernels whose description takes a call, and that yet are not ready for it: whose fault that is.

use serde::{Deserialize, Serialize};

use crate::{
    Device, Error, ErrorKind,
    build::JitMode,
    jit::{cache, smoke},
};

/// A kernel that takes a call and could not be made ready for it.
#[derive(Clone, Debug)]
pub struct Unready {
    /// Its name.
    pub kernel: &'static str,
    /// What failed.
    pub stage: Stage,
    kind: ErrorKind,
    /// Why, in a line.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

/// A compiler's failure says itself where its log is.
const HINT: &str = "DS_LOG=debug shows what the plugin logs about it";

/// What has to be done before a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its artefact is built.
    Build,
    /// The artefact is loaded.
    Load,
    /// The kernel is prepared for the signature.
    Prepare,
}

impl Unready {
    pub(super) fn new(kernel: &'static str, stage: Stage, error: &Error) -> Self {
        Self {
            kernel,
            stage,
            kind: error.kind(),
            reason: error.to_string(),
            hint: error.hint().unwrap_or(HINT).to_owned(),
        }
    }

    /// Whether the kernel is at fault, and not a machine that lacks what it needs. To tell one from
    /// the other, the toolchain is tried on the smallest artefact.
    pub(super) fn is_broken(&self, device: Device) -> bool {
        use ErrorKind::{BuildFailed, Io, LibraryNotFound, NoKernel, Unsupported, Untrusted};
        match self.stage {
            // Something that is no part of the plugin: a compiler, a library.
            _ if self.kind == LibraryNotFound => false,
            Stage::Build if self.kind == BuildFailed => toolchain_works(device),
            // The cache cannot be used, or nothing is built for this target.
            Stage::Build => !matches!(self.kind, Io | Untrusted | Unsupported),
            Stage::Load => true,
            // It has the last word on what a kernel takes.
            Stage::Prepare => !matches!(self.kind, NoKernel | Unsupported),
        }
    }
}

fn toolchain_works(device: Device) -> bool {
    let may_build = cache().is_ok_and(|cache| cache.settings().jit == JitMode::On);
    may_build && smoke(device.plugin(), &device.info().target).is_ok()
}
