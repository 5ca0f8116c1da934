//! The one error type of the host: what was tried, what was found, and what to do.

use std::{borrow::Cow, error::Error as StdError, fmt};

use serde::{Deserialize, Serialize};

/// What kind of failure it is; decides what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument breaks a rule that the message names.
    InvalidArgument,
    /// The device or driver cannot do it, and never will.
    Unsupported,
    /// The plugin does not provide the function.
    Unimplemented,
    /// No plugin of that name is known or built.
    NotInstalled,
    /// A library or driver was not found; the message names every place tried.
    LibraryNotFound,
    /// The library answers, but there is no such device.
    NoDevice,
    /// The allocation does not fit.
    OutOfMemory,
    /// The device is gone.
    DeviceLost,
    /// The point in time has not been reached.
    NotReady,
    /// The wait ended before the point was reached.
    Timeout,
    /// A file operation failed.
    Io,
    /// No compiler, or it refused the source.
    BuildFailed,
    /// A manifest, plugin, artefact or record cannot be used with this host.
    Incompatible,
    /// A file or folder that would be run as code could have been written by somebody else.
    Untrusted,
    /// No kernel takes this call; the message names the constraint of each candidate.
    NoKernel,
    /// A plugin broke its contract.
    PluginBug,
    /// Work was given up because work before it failed.
    Cancelled,
    /// The process is ending, or it is a child of `fork`.
    ShuttingDown,
    /// None of the others; a defect of the host or an unknown code of a plugin.
    Internal,
}

impl ErrorKind {
    /// Whether another kernel, or the reference implementation, may well do what failed: it was
    /// refused or could not be built. A lost device or a defect is no reason to go on elsewhere.
    pub(crate) fn is_of_the_kernel(self) -> bool {
        matches!(
            self,
            Self::Unsupported
                | Self::Unimplemented
                | Self::LibraryNotFound
                | Self::Io
                | Self::BuildFailed
                | Self::Incompatible
                | Self::Untrusted
                | Self::NoKernel
        )
    }

    /// The field's short name, as it appears in logs and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid-argument",
            Self::Unsupported => "unsupported",
            Self::Unimplemented => "unimplemented",
            Self::NotInstalled => "not-installed",
            Self::LibraryNotFound => "library-not-found",
            Self::NoDevice => "no-device",
            Self::OutOfMemory => "out-of-memory",
            Self::DeviceLost => "device-lost",
            Self::NotReady => "not-ready",
            Self::Timeout => "timeout",
            Self::Io => "io",
            Self::BuildFailed => "build-failed",
            Self::Incompatible => "incompatible",
            Self::Untrusted => "untrusted",
            Self::NoKernel => "no-kernel",
            Self::PluginBug => "plugin-bug",
            Self::Cancelled => "cancelled",
            Self::ShuttingDown => "shutting-down",
            Self::Internal => "internal",
        }
    }
}

/// A failure: kind, operation, message, and where they help a hint and a source.
///
/// `Display` is one line, lower case, without the hint; [`Error::hint`] is for the user's next step.
/// `Debug`, which `main` prints, is both. What a file, a variable or a plugin put into it is shown
/// with its control characters escaped, so that nobody else writes to the user's terminal.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    op: Cow<'static, str>,
    context: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The host's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` in the operation `op` (`"load plugin"`), with what was found.
    pub fn new(
        kind: ErrorKind,
        op: impl Into<Cow<'static, str>>,
        context: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            op: match op.into() {
                Cow::Owned(op) => one_line(op).into(),
                constant @ Cow::Borrowed(_) => constant,
            },
            context: one_line(context),
            hint: None,
            source: None,
        }))
    }

    /// Adds what the user can do, as a sentence; one that points into a text has two lines.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(escaped(hint.into(), |c| c.is_control() && c != '\n'));
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed.
    pub fn op(&self) -> &str {
        &self.0.op
    }

    /// What was tried and found, without the operation.
    pub fn context(&self) -> &str {
        &self.0.context
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.op, self.0.context)?;
        match &self.0.source {
            Some(source) => write!(f, ": {}", one_line(source.to_string())),
            None => Ok(()),
        }
    }
}

/// `text` as it can be shown on one line of a terminal: control characters are escaped.
pub(crate) fn one_line(text: impl Into<String>) -> String {
    escaped(text.into(), char::is_control)
}

fn escaped(text: String, wrong: impl Fn(char) -> bool) -> String {
    if !text.contains(&wrong) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if wrong(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        match &self.0.hint {
            // What follows a line break lines up below the hint's first line.
            Some(hint) => write!(f, "\nhint: {}", hint.replace('\n', "\n      ")),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_reaches_the_terminal_as_it_is() {
        let error = Error::new(ErrorKind::Io, format!("read {}", "\t"), "a\u{1b}[31mb\nc é")
            .with_hint("two\nlines\r")
            .with_source(std::io::Error::other("x\u{7}"));
        assert_eq!(error.to_string(), "read \\t: a\\u{1b}[31mb\\nc é: x\\u{7}");
        assert_eq!(error.hint(), Some("two\nlines\\r"));
    }
}
