//! What a check is, and how it ends.

use std::{fmt, str::FromStr};

use ds_core::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::{l0, l1, l2, l3, subject::Subject};

/// How far a plugin is looked into; each level stands on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// The folder, without running any of it.
    L0,
    /// The entry.
    L1,
    /// Devices, memory, streams.
    L2,
    /// Ops.
    L3,
}

impl Level {
    /// Every level, in order.
    pub const ALL: [Self; 4] = [Self::L0, Self::L1, Self::L2, Self::L3];

    /// What it looks at.
    pub fn about(self) -> &'static str {
        match self {
            Self::L0 => "folder",
            Self::L1 => "entry",
            Self::L2 => "devices, memory, streams",
            Self::L3 => "ops",
        }
    }

    /// Its checks of `subject`, the same ones in the same order in every process.
    pub(crate) fn checks(self, subject: &Subject) -> Result<Vec<Check>, String> {
        match self {
            Self::L0 => Ok(l0::checks(subject)),
            Self::L1 => l1::checks(subject),
            Self::L2 => l2::checks(subject),
            Self::L3 => l3::checks(subject),
        }
    }

    /// Whether each check needs a process of its own: an entry is called once in one.
    pub(crate) fn is_isolated(self) -> bool {
        self == Self::L1
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|l| l.to_string() == text);
        found.ok_or_else(|| format!("'{text}' is no level; there are L0, L1, L2 and L3"))
    }
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The contract holds.
    Passed,
    /// The plugin does not provide what is looked at, and need not.
    Skipped {
        /// What it does not provide.
        why: String,
    },
    /// The contract is broken.
    Failed {
        /// What was expected, and what was found.
        why: String,
    },
    /// The contract is broken, and the plugin's manifest says so.
    KnownGap {
        /// What was expected, and what was found.
        why: String,
        /// What the manifest says.
        reason: String,
    },
}

/// One thing that has to hold.
pub(crate) struct Check {
    pub(crate) name: String,
    run: Box<dyn FnOnce() -> Held>,
}

/// Nothing, or why not.
pub(crate) type Held = Result<(), Problem>;

/// Why a check did not pass.
#[derive(Debug)]
pub(crate) enum Problem {
    /// What is looked at is not there, and need not be.
    Unavailable(String),
    /// The contract is broken.
    Wrong(String),
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce() -> Held + 'static) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }

    pub(crate) fn outcome(self) -> Outcome {
        match (self.run)() {
            Ok(()) => Outcome::Passed,
            Err(Problem::Unavailable(why)) => Outcome::Skipped { why },
            Err(Problem::Wrong(why)) => Outcome::Failed { why },
        }
    }
}

/// What a plugin does not have is no failure; anything else is.
impl From<ds_core::Error> for Problem {
    fn from(error: ds_core::Error) -> Self {
        match error.kind() {
            ErrorKind::Unimplemented | ErrorKind::Unsupported => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Wrong(error.to_string()),
        }
    }
}

/// Ends the check as a failure with these words unless the condition holds.
macro_rules! hold {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::check::Problem::Wrong(format!($($words)+)));
        }
    };
}
pub(crate) use hold;
