//! Whether a kernel's artefact is there, can be built, or cannot.

use ds_core::{
    Accelerator, Error,
    build::JitMode,
    jit::{self, SharedBuild},
};
use ds_schema::{ArtefactKind, Kernel};
use serde::Serialize;

use crate::view::Refusal;

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "artefact", rename_all = "kebab-case")]
pub(crate) enum Ready {
    /// It comes with the plugin.
    NeedsNone,
    /// The cache holds it.
    Cached,
    /// The cache does not hold it, and the toolchain works.
    AtFirstUse,
    /// The toolchain works, and builds one for each signature.
    PerSignature,
    /// One for each signature, and `DS_JIT` allows only those that the cache holds.
    PerSignatureCached,
    /// It cannot be had, so that another kernel or the host reference takes the kernel's place.
    Not(Refusal),
}

impl Ready {
    pub(crate) fn of(accelerator: Accelerator, kernel: &Kernel, target: &str) -> Self {
        let judged = match kernel.artefact() {
            ArtefactKind::None => Ok(Self::NeedsNone),
            ArtefactKind::PerSignature => per_signature(accelerator, target),
            ArtefactKind::Shared => shared(accelerator, kernel, target),
        };
        judged.unwrap_or_else(|e| Self::Not(Refusal::short(&e)))
    }

    /// In words; `Not` in that one.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::NeedsNone => "needs no build",
            Self::Cached => "built, in the cache",
            Self::AtFirstUse => "built at first use",
            Self::PerSignature => "built per signature, at first use",
            Self::PerSignatureCached => "taken where the cache holds it for the signature",
            Self::Not(_) => "cannot be built",
        }
    }
}

fn shared(accelerator: Accelerator, kernel: &Kernel, target: &str) -> ds_core::Result<Ready> {
    let Some(build) = SharedBuild::of(accelerator.plugin(), kernel, target)? else {
        return Ok(Ready::NeedsNone);
    };
    let mode = jit::cache()?.settings().jit;
    if mode != JitMode::Off && build.find()?.is_some() {
        return Ok(Ready::Cached);
    }
    if mode != JitMode::On {
        return Err(forbidden(mode));
    }
    match build.failure()? {
        Some(failed) => Err(failed.to_error()),
        None => jit::smoke(accelerator.plugin(), target).map(|_| Ready::AtFirstUse),
    }
}

fn per_signature(accelerator: Accelerator, target: &str) -> ds_core::Result<Ready> {
    match jit::cache()?.settings().jit {
        JitMode::On => jit::smoke(accelerator.plugin(), target).map(|_| Ready::PerSignature),
        JitMode::CacheOnly => Ok(Ready::PerSignatureCached),
        JitMode::Off => Err(forbidden(JitMode::Off)),
    }
}

fn forbidden(mode: JitMode) -> Error {
    let what = match mode {
        JitMode::Off => "nothing is built or taken from the cache",
        _ => "it is not in the cache, and nothing is built",
    };
    let what = format!("DS_JIT={}: {what}", mode.name());
    Error::new(
        ds_core::ErrorKind::BuildFailed,
        "look for an artefact",
        what,
    )
    .with_hint("set DS_JIT=on, or fill the cache with `ds_report build` beforehand")
}
