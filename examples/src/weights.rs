//! A `safetensors` file as tensors of a device.
//!
//! The file is somebody else's: its header is held against its length before a byte of it is used,
//! and each tensor against the dtype and shape that the model has for its name.
//!
//! # Source
//! The format: <https://github.com/huggingface/safetensors>.

use std::path::{Path, PathBuf};

use ds_core::{DType, Result, Stream, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use crate::{read, unfit};

/// A file of weights, in the host's memory.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the tensors' bytes begin.
    data: usize,
    metadata: Metadata,
}

impl Weights {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ds_core::ErrorKind::Io`] when it cannot be read, `Incompatible` when its header is none, or
    /// tells of other bytes than are there.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            let length = bytes.len();
            unfit(
                path,
                format!("no safetensors file, or not all of it: {e}; it has {length} bytes"),
            )
            .with_hint("get the file again")
        })?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            // The length of the header comes first.
            data: size_of::<u64>() + header,
            metadata,
        })
    }

    /// The tensor `name`, which is to be f32 of this shape, on the device of `stream`.
    ///
    /// # Errors
    /// [`ds_core::ErrorKind::Incompatible`] when there is none, or it is another; else as
    /// [`Tensor::from_bytes`].
    pub fn tensor(&self, stream: &Stream, name: &str, shape: &[i64]) -> Result<Tensor> {
        let wanted = format!("the model needs f32 {shape:?}");
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| unfit(&self.path, format!("has no tensor {name}; {wanted}")))?;
        let same = info.shape.len() == shape.len()
            && info
                .shape
                .iter()
                .zip(shape)
                .all(|(&own, &other)| i64::try_from(own) == Ok(other));
        if info.dtype != Dtype::F32 || !same {
            let found = format!("{name} is {} {:?}; {wanted}", info.dtype, info.shape);
            return Err(unfit(&self.path, found));
        }
        let (start, end) = info.data_offsets;
        let bytes = self
            .bytes
            .get(self.data + start..self.data + end)
            .ok_or_else(|| unfit(&self.path, format!("{name} ends behind the file")))?;
        Tensor::from_bytes(stream, DType::F32, shape, bytes)
    }
}
