//! DLPack: tensors in and out of the host without a copy.
//!
//! # Source
//! DLPack 1.1, `dlpack.h`: `DLManagedTensorVersioned`.

use std::ffi::c_void;

use ds_abi::{DLDevice, DLTensor};
use ds_schema::MAX_RANK;

use crate::{
    Buffer, Device, Error, ErrorKind, Result,
    tensor::{Tensor, dl_dtype, dtype_of, view_span},
};

/// The version of DLPack that is written, and the newest major that is read.
const VERSION: DlVersion = DlVersion { major: 1, minor: 1 };
/// The data must not be written.
const READ_ONLY: u64 = 1;

/// `DLPackVersion`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DlVersion {
    /// Changes when old readers cannot read it.
    pub major: u32,
    /// Changes when something is added.
    pub minor: u32,
}

/// `DLManagedTensorVersioned`: a tensor and how to give it back.
#[repr(C)]
#[derive(Debug)]
pub struct DlManagedTensor {
    /// Version that its maker wrote.
    pub version: DlVersion,
    /// The maker's own.
    pub manager_ctx: *mut c_void,
    /// Gives it back; called once, with the pointer to this struct.
    pub deleter: Option<unsafe extern "C" fn(*mut DlManagedTensor)>,
    /// `DLPACK_FLAG_*`.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DLTensor,
}

impl Tensor {
    /// Hands the tensor out; the memory stays until the other side calls the deleter.
    ///
    /// # Ordering
    /// The other side knows nothing of streams here: synchronise first.
    pub fn into_dlpack(self) -> *mut DlManagedTensor {
        /// The tensor, and the struct that tells of it, in one block.
        struct Owned {
            managed: DlManagedTensor,
            tensor: Tensor,
        }
        unsafe extern "C" fn deleter(managed: *mut DlManagedTensor) {
            if managed.is_null() {
                return;
            }
            // SAFETY: `manager_ctx` is the block made below, and this is called once.
            drop(unsafe { Box::from_raw((*managed).manager_ctx.cast::<Owned>()) });
        }
        let device = self.device();
        let mut owned = Box::new(Owned {
            managed: DlManagedTensor {
                version: VERSION,
                manager_ctx: std::ptr::null_mut(),
                deleter: Some(deleter),
                flags: 0,
                dl_tensor: DLTensor {
                    data: self.buffer().address(),
                    device: DLDevice {
                        device_type: device.info().dlpack_type,
                        device_id: device.index().cast_signed(),
                    },
                    ndim: i32::try_from(self.shape().len()).unwrap_or(0),
                    dtype: dl_dtype(self.dtype()),
                    shape: std::ptr::null(),
                    strides: std::ptr::null(),
                    byte_offset: (self.address().addr() - self.buffer().address().addr()) as u64,
                },
            },
            tensor: self,
        });
        // The extents live in the tensor, which stays where the box is.
        owned.managed.dl_tensor.shape = owned.tensor.shape().as_ptr();
        owned.managed.dl_tensor.strides = owned.tensor.strides().as_ptr();
        let block = Box::into_raw(owned);
        // SAFETY: the block was just made; `managed` is its field and stays valid until `deleter`.
        unsafe {
            (*block).managed.manager_ctx = block.cast();
            &raw mut (*block).managed
        }
    }

    /// Takes a tensor over; its deleter is called when the last view of it is gone and the device
    /// has finished its work. When this fails, the caller still owns it.
    ///
    /// # Safety
    /// `managed` is null or a live DLPack tensor whose data is valid memory of `device` until its
    /// deleter is called, and which nobody else writes meanwhile. Its producer's work is done.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when it lies on another device or is malformed,
    /// [`ErrorKind::Unsupported`] for a newer DLPack, a dtype that is not known, or read-only data.
    pub unsafe fn from_dlpack(device: Device, managed: *mut DlManagedTensor) -> Result<Self> {
        let op = "import a DLPack tensor";
        let invalid = |text: String| Error::new(ErrorKind::InvalidArgument, op, text);
        let unsupported = |text: String| Error::new(ErrorKind::Unsupported, op, text);
        // SAFETY: null, or live as the caller says.
        let Some(given) = (unsafe { managed.as_ref() }) else {
            return Err(invalid("the pointer is null".to_owned()));
        };
        if given.version.major != VERSION.major {
            let DlVersion { major, minor } = given.version;
            return Err(unsupported(format!(
                "it is version {major}.{minor}, this reads 1.x"
            )));
        }
        if given.flags & READ_ONLY != 0 {
            return Err(unsupported(
                "its data is read-only, which tensors here are not".to_owned(),
            ));
        }
        let dl = given.dl_tensor;
        let own = (device.info().dlpack_type, device.index().cast_signed());
        if (dl.device.device_type, dl.device.device_id) != own {
            return Err(invalid(format!(
                "it lies on device type {} number {}, {device} is type {} number {}",
                dl.device.device_type, dl.device.device_id, own.0, own.1
            )));
        }
        let dtype = dtype_of(dl.dtype).ok_or_else(|| {
            unsupported(format!("its dtype {:?} has no counterpart here", dl.dtype))
        })?;
        let rank = usize::try_from(dl.ndim)
            .ok()
            .filter(|rank| *rank <= MAX_RANK);
        let rank = rank.ok_or_else(|| {
            invalid(format!(
                "it has {} dimensions, the limit is {MAX_RANK}",
                dl.ndim
            ))
        })?;
        if rank > 0 && dl.shape.is_null() {
            return Err(invalid("its shape is null".to_owned()));
        }
        let extents = |from: *const i64| {
            // SAFETY: not null here, and `ndim` numbers long, as DLPack says.
            (0..rank)
                .map(|axis| unsafe { from.add(axis).read() })
                .collect::<Vec<_>>()
        };
        let shape = extents(dl.shape);
        // Before 1.2 null strides mean contiguous.
        let strides = if dl.strides.is_null() {
            ds_schema::TensorSpec::contiguous(dtype, shape.clone()).strides
        } else {
            extents(dl.strides)
        };
        // All of this before the buffer is made, which gives the tensor back when it goes.
        let (low, high) = view_span(op, dl.byte_offset, dtype, &shape, &strides)?;
        if low < 0 {
            return Err(invalid(format!(
                "shape {shape:?} with strides {strides:?} at byte {} reaches before its data",
                dl.byte_offset
            )));
        }
        let (start, bytes) = (dl.data.addr() as u64, high.unsigned_abs());
        if start == 0 && !shape.contains(&0) {
            return Err(invalid("its data is null".to_owned()));
        }
        if start.checked_add(bytes).is_none() {
            return Err(invalid(format!(
                "{bytes} bytes at {:p} reach out of memory",
                dl.data
            )));
        }
        let managed = Managed(managed);
        let release = move || {
            let managed = managed;
            // SAFETY: live until now, and its deleter is called this once.
            unsafe {
                if let Some(deleter) = (*managed.0).deleter {
                    deleter(managed.0);
                }
            }
        };
        // SAFETY: the caller vouches for the data until the deleter is called.
        let buffer = unsafe { Buffer::foreign(device, dl.data, bytes, release) };
        // `view_span` has made sure that this fits.
        Self::view_of(&buffer, dl.byte_offset, dtype, &shape, &strides)
    }
}

/// A DLPack tensor on its way to the thread that drops it.
struct Managed(*mut DlManagedTensor);
// SAFETY: DLPack's deleters may be called from any thread.
unsafe impl Send for Managed {}
