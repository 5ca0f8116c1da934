//! From storage to a device's own memory, without the host between: DeepSpeed's `gds`.
//!
//! The boundary has no table for it yet, so no plugin can offer it and no handle can be made: each
//! method here says what it will do, and none can be called.

use ds_core::{DType, Device, DeviceInfo, Error, ErrorKind, Result, Stream, Tensor};

use crate::{AioConfig, Done, Extent, Operation, ReadOptions, Target, WriteOptions};

/// A device's way to storage. There is none.
#[derive(Debug)]
enum DirectPath {}

/// Reads and writes tensors of a device that reaches storage by itself; upstream's `gds_handle`.
///
/// # Upstream
/// `csrc/gds/py_lib/py_ds_gds.cpp`.
#[derive(Debug)]
pub struct GdsHandle {
    path: DirectPath,
}

impl GdsHandle {
    /// A handle for tensors of `device`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with [`GdsHandle::missing`], on every device so far.
    pub fn new(device: Device, _config: &AioConfig) -> Result<Self> {
        Err(refusal("make a gds handle", Self::missing(device)))
    }

    /// Why `device` has no way to storage of its own.
    pub fn missing(device: Device) -> &'static str {
        Self::missing_by(device.info())
    }

    /// [`GdsHandle::missing`] of a device that is described and not open.
    pub fn missing_by(info: &DeviceInfo) -> &'static str {
        if info.host_visible_memory || info.unified_memory {
            "the device's memory is the host's own, which async_io moves without a copy"
        } else {
            NO_TABLE
        }
    }

    /// Begins to read extents of a file into `tensor`: [`crate::AioHandle::read_extents`].
    ///
    /// # Errors
    /// As there.
    pub fn read_extents(
        &self,
        _stream: &Stream,
        _tensor: &Tensor,
        _target: Target<'_>,
        _extents: &[Extent],
        _options: &ReadOptions,
    ) -> Result<Operation> {
        match self.path {}
    }

    /// Begins to write extents of `tensor` to a file: [`crate::AioHandle::write_extents`].
    ///
    /// # Errors
    /// As there.
    pub fn write_extents(
        &self,
        _stream: &Stream,
        _tensor: &Tensor,
        _target: Target<'_>,
        _extents: &[Extent],
        _options: &WriteOptions,
    ) -> Result<Operation> {
        match self.path {}
    }

    /// Reads all of `tensor` from `file_offset` on.
    ///
    /// # Errors
    /// As [`GdsHandle::read_extents`], and those of the operation.
    pub fn sync_pread(&self, _: &Stream, _: &Tensor, _: Target<'_>, _offset: u64) -> Result<Done> {
        match self.path {}
    }

    /// Writes all of `tensor` from `file_offset` on.
    ///
    /// # Errors
    /// As [`GdsHandle::write_extents`], and those of the operation.
    pub fn sync_pwrite(&self, _: &Stream, _: &Tensor, _: Target<'_>, _offset: u64) -> Result<Done> {
        match self.path {}
    }

    /// Begins to read all of `tensor` from `file_offset` on.
    ///
    /// # Errors
    /// As [`GdsHandle::read_extents`].
    pub fn async_pread(
        &self,
        _stream: &Stream,
        _tensor: &Tensor,
        _target: Target<'_>,
        _offset: u64,
    ) -> Result<Operation> {
        match self.path {}
    }

    /// Begins to write all of `tensor` from `file_offset` on.
    ///
    /// # Errors
    /// As [`GdsHandle::write_extents`].
    pub fn async_pwrite(
        &self,
        _stream: &Stream,
        _tensor: &Tensor,
        _target: Target<'_>,
        _offset: u64,
    ) -> Result<Operation> {
        match self.path {}
    }

    /// Waits until every operation has ended: [`crate::AioHandle::wait`].
    ///
    /// # Errors
    /// The first failure.
    pub fn wait(&self) -> Result<usize> {
        match self.path {}
    }

    /// A tensor in device memory that storage reaches.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`].
    pub fn new_pinned_device_tensor(&self, _elements: u64, _dtype: DType) -> Result<Tensor> {
        match self.path {}
    }

    /// Lets go of such a tensor, and gives whether it was one.
    pub fn free_pinned_device_tensor(&self, _tensor: Tensor) -> bool {
        match self.path {}
    }

    /// Lets storage reach a tensor's memory.
    ///
    /// # Errors
    /// When the device has no more room for that.
    pub fn pin_device_tensor(&self, _tensor: &Tensor) -> Result<()> {
        match self.path {}
    }

    /// Takes that back, and gives whether it was so.
    pub fn unpin_device_tensor(&self, _tensor: &Tensor) -> bool {
        match self.path {}
    }
}

const NO_TABLE: &str = "its plugin has no way between storage and the device's memory: boundary 1.0 \
                        has no table for one";

/// Why a handle with `use_gds` is refused.
pub(crate) fn refused_by_config(op: &'static str) -> Error {
    refusal(
        op,
        "no accelerator has a way between storage and its memory: boundary 1.0 has no table for one",
    )
}

fn refusal(op: &'static str, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, op, format!("gds is missing: {why}")).with_hint(
        "leave `use_gds` out of the `aio` block: async_io does the same by way of the host",
    )
}
