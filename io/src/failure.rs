//! How an operation failed, so that more than one can be told.

use std::{io, sync::Arc};

use ds_core::{Error, ErrorKind};

/// A failure that several ask for: the operation's owner, and whoever waits for the handle.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    op: &'static str,
    context: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, op: &'static str, context: String) -> Self {
        Self(Arc::new(Parts {
            kind,
            op,
            context,
            hint: None,
        }))
    }

    /// The same, with what there is to do about it.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self(Arc::new(Parts {
            kind: self.0.kind,
            op: self.0.op,
            context: self.0.context.clone(),
            hint: Some(hint.to_owned()),
        }))
    }

    /// What the kernel said, with what there is to do about it.
    pub(crate) fn of_kernel(op: &'static str, what: &str, error: &io::Error) -> Self {
        Self(Arc::new(Parts {
            kind: ErrorKind::Io,
            op,
            context: format!("{what}: {error}"),
            hint: hint(error).map(str::to_owned),
        }))
    }

    /// The same, as it befell one operation.
    pub(crate) fn befalls(&self, op: &'static str, what: &str) -> Self {
        Self(Arc::new(Parts {
            kind: self.0.kind,
            op,
            context: format!("{what}: {}", self.0.context),
            hint: self.0.hint.clone(),
        }))
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub(crate) fn error(&self) -> Error {
        let error = Error::new(self.0.kind, self.0.op, self.0.context.clone());
        match &self.0.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        }
    }
}

fn hint(error: &io::Error) -> Option<&'static str> {
    Some(match error.raw_os_error()? {
        libc::ENOSPC => "make room on that filesystem, or name a path on another one",
        libc::EDQUOT => "the user's quota on that filesystem is used up",
        libc::EFBIG => "the file would exceed the limit of the process (`ulimit -f`) or filesystem",
        libc::EROFS => "the filesystem is mounted read-only",
        libc::EMFILE => "raise the limit of open files (`ulimit -n`) or wait for operations first",
        libc::EIO => "the disk reported an error; the kernel's log (`dmesg`) has its side of it",
        _ => return None,
    })
}
