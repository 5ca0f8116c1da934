//! The models that the examples run, built of the op catalogue: [`weights`] reads their files,
//! [`bert`] is the encoder, [`tokens`] its tokenizer, and [`sentence`] goes from texts to vectors.
//!
//! Nothing here is installed, and nothing that is installed needs it.
#![forbid(unsafe_code)]

pub mod bert;
pub mod sentence;
pub mod tokens;
pub mod weights;

use std::path::Path;

use ds_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

/// The content of a file of a model.
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::new(
            ErrorKind::Io,
            "read a model",
            format!("{}: {e}", path.display()),
        )
    })
}

/// A file of a model that is JSON.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path)?).map_err(|e| unfit(path, e))
}

/// A file of a model says something that this program cannot run.
fn unfit(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Incompatible,
        "read a model",
        format!("{}: {why}", path.display()),
    )
}
