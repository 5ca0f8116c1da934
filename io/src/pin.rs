//! Locked host memory: DeepSpeed's `pin_handle`, and what is left where no more can be locked.

use std::sync::atomic::{AtomicU64, Ordering};

use ds_core::{Buffer, DType, Device, Error, ErrorKind, MemoryKind, Result, Tensor, is_pinned};
use serde::Serialize;

/// Gives tensors in page-locked host memory; upstream's `pin_handle`. What one handle locks, all
/// know: [`PinHandle::is_pinned`].
///
/// # Upstream
/// `csrc/pin_memory`. A tensor is a device's own pinned memory, which its copies reach without
/// staging. The memory goes back with the last view of it, never before.
#[derive(Debug, Default)]
pub struct PinHandle {
    locked: AtomicU64,
    pageable: AtomicU64,
    refused: AtomicU64,
}

/// What a handle has given, in bytes; what came back since is not taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PinStats {
    /// Locked.
    pub locked_bytes: u64,
    /// Not locked, since that was refused: [`PinHandle::new_cpu_tensor`].
    pub pageable_bytes: u64,
    /// How often it was refused.
    pub refused: u64,
}

impl PinHandle {
    /// A handle.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tensor of `elements` elements in one dimension, in host memory that is locked and that
    /// `device` reaches without staging. Its content is undefined.
    ///
    /// # Errors
    /// When no more may be locked, with the limit and what it would have to be;
    /// [`ErrorKind::Unsupported`] where the device has no such memory.
    pub fn new_cpu_locked_tensor(
        &self,
        device: Device,
        elements: u64,
        dtype: DType,
    ) -> Result<Tensor> {
        let tensor = tensor_of_kind(device, elements, dtype, MemoryKind::Pinned);
        match &tensor {
            Ok(tensor) => add(&self.locked, tensor.bytes()),
            Err(_) => add(&self.refused, 1),
        }
        tensor
    }

    /// As [`PinHandle::new_cpu_locked_tensor`], but where no more can be locked, a tensor in ordinary
    /// host memory: slower to copy, and counted in [`PinHandle::stats`]. Says so once in the log.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`].
    pub fn new_cpu_tensor(&self, device: Device, elements: u64, dtype: DType) -> Result<Tensor> {
        let refusal = match self.new_cpu_locked_tensor(device, elements, dtype) {
            Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Unsupported) => e,
            made => return made,
        };
        if self.refused.load(Ordering::Relaxed) == 1 {
            log::warn!("host memory is not locked, so copies are slower: {refusal}");
        }
        let tensor = tensor_of_kind(device, elements, dtype, MemoryKind::Pageable)?;
        add(&self.pageable, tensor.bytes());
        Ok(tensor)
    }

    /// Lets go of a tensor, and gives whether it was locked. Its memory goes back with the last of
    /// its views.
    pub fn free_cpu_locked_tensor(&self, tensor: Tensor) -> bool {
        let locked = self.is_pinned(&tensor);
        drop(tensor);
        locked
    }

    /// Whether all of a tensor, or view, lies in locked memory.
    pub fn is_pinned(&self, tensor: &Tensor) -> bool {
        let address = tensor.buffer().address();
        let start = usize::try_from(tensor.offset_bytes()).unwrap_or(usize::MAX);
        is_pinned(address.wrapping_byte_add(start), tensor.bytes())
    }

    /// What it has given.
    pub fn stats(&self) -> PinStats {
        PinStats {
            locked_bytes: self.locked.load(Ordering::Relaxed),
            pageable_bytes: self.pageable.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

fn tensor_of_kind(device: Device, elements: u64, dtype: DType, kind: MemoryKind) -> Result<Tensor> {
    let size = dtype.size_bytes() as u64;
    let extent = i64::try_from(elements).ok();
    let (Some(extent), Some(bytes)) = (extent, elements.checked_mul(size)) else {
        let text = format!("{elements} elements of {dtype} exceed 2^63");
        return Err(Error::new(ErrorKind::InvalidArgument, "lock memory", text));
    };
    let buffer = Buffer::of_kind(device, bytes, kind)?;
    Tensor::view_of(&buffer, 0, dtype, &[extent], &[1])
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
