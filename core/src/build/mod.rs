//! Builds on demand: from a kernel to the file that the plugin loads.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ds_abi::DsSignature;
use ds_schema::Kernel;

use crate::{Device, Error, ErrorKind, Result};

/// A built artefact, validated.
#[derive(Clone, Debug)]
pub struct Artefact {
    path: PathBuf,
    bytes: Arc<[u8]>,
}

impl Artefact {
    pub(crate) unsafe fn of(
        _device: Device,
        kernel: &Kernel,
        _signature: *const DsSignature,
    ) -> Result<Self> {
        Err(Error::new(
            ErrorKind::BuildFailed,
            "build",
            format!("{}: no builds yet", kernel.name),
        ))
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
