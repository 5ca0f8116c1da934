//! The host: finds plugins, owns devices, memory, streams, op dispatch and the build cache.
//!
//! Names no vendor: what it knows of names comes from the plugins' manifests.

pub mod discovery;
pub mod elf;
mod error;
pub mod manifest;
pub mod selection;
pub mod trust;

pub use error::{Error, ErrorKind, Result};
