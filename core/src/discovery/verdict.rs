//! What discovery makes of a candidate.

use serde::{Deserialize, Serialize};

use crate::Error;

/// What to make of a candidate, before any of its code runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against opening it.
    Found,
    /// All is well, but the hardware does not show. Its checks are done: a user who names the
    /// accelerator may have it asked all the same.
    NoHardware(Refusal),
    /// Another one, found before, serves the accelerator.
    Shadowed {
        /// The one in front.
        by: String,
        /// Why, and what to do.
        #[serde(flatten)]
        refusal: Refusal,
    },
    /// The manifest says that there is no library.
    NotBuilt(Refusal),
    /// There is no library for this platform or processor.
    WrongPlatform(Refusal),
    /// It speaks another version of the boundary.
    WrongAbi(Refusal),
    /// Somebody else could have written it.
    Untrusted(Refusal),
    /// The library is missing, damaged or no plugin.
    BadLibrary(Refusal),
    /// The manifest is missing or breaks a rule.
    BadManifest(Refusal),
    /// The place to search cannot be searched.
    BadPath(Refusal),
}

/// Why a candidate is not used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was found.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Verdict {
    /// The verdict's short name, as it appears in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NoHardware(_) => "no-hardware",
            Self::Shadowed { .. } => "shadowed",
            Self::NotBuilt(_) => "not-built",
            Self::WrongPlatform(_) => "wrong-platform",
            Self::WrongAbi(_) => "wrong-abi",
            Self::Untrusted(_) => "untrusted",
            Self::BadLibrary(_) => "bad-library",
            Self::BadManifest(_) => "bad-manifest",
            Self::BadPath(_) => "bad-path",
        }
    }

    /// Why it is not used; nothing for what was found.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Found => None,
            Self::Shadowed { refusal, .. }
            | Self::NoHardware(refusal)
            | Self::NotBuilt(refusal)
            | Self::WrongPlatform(refusal)
            | Self::WrongAbi(refusal)
            | Self::Untrusted(refusal)
            | Self::BadLibrary(refusal)
            | Self::BadManifest(refusal)
            | Self::BadPath(refusal) => Some(refusal),
        }
    }

    /// Whether it keeps later plugins from serving its accelerator.
    pub(super) fn holds_place(&self) -> bool {
        !matches!(
            self,
            Self::Shadowed { .. }
                | Self::NotBuilt(_)
                | Self::WrongPlatform(_)
                | Self::BadManifest(_)
                | Self::BadPath(_)
        )
    }
}

impl Refusal {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: Some(hint.into()),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let reason = match std::error::Error::source(&error) {
            Some(source) => format!("{}: {source}", error.context()),
            None => error.context().to_owned(),
        };
        Self {
            reason,
            hint: error.hint().map(str::to_owned),
        }
    }
}
