//! Preparing: the artefact of a kernel, loaded, and the kernel made ready for one signature.

use std::{
    collections::HashMap,
    fmt, ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ds_abi::{
    DsArgument, DsArtefact, DsBytes, DsModule, DsNode, DsPrepared, DsPreparedHandle, DsSignature,
    DsStr, DsTensorSignature, DsValue, DsValueBits,
};
use ds_schema::{ArtefactKind, Attr, Kernel, TensorView};

use super::{Op, unready::Stage};
use crate::{
    Device, Error, ErrorKind, Result, device::sized, fork, jit, plugin::call::call,
    tensor::dl_dtype,
};

/// A kernel ready for one signature on one device.
#[derive(Debug)]
pub(crate) struct Prepared {
    device: Device,
    kernel: &'static Kernel,
    handle: DsPreparedHandle,
    workspace_bytes: u64,
}

// SAFETY: the boundary lets a prepared kernel be launched from several threads at the same time.
unsafe impl Send for Prepared {}
// SAFETY: as for `Send`.
unsafe impl Sync for Prepared {}

impl Prepared {
    /// Prepares `kernel`, building and loading its artefact first where it needs one. A failure comes
    /// with how far that went.
    pub(super) fn new(
        device: Device,
        op: &Op,
        kernel: &'static Kernel,
        args: &[&[TensorView<'_>]],
        attributes: &[Attr],
    ) -> Result<Self, (Stage, Error)> {
        let signature = RawSignature::new(op, args, attributes);
        let module = match kernel.artefact() {
            ArtefactKind::None => ptr::null_mut(),
            kind => module(device, kernel, kind, &signature)?,
        };
        let node = DsNode {
            struct_size: sized::<DsNode>(),
            flags: 0,
            kernel: DsStr::new(&kernel.name),
            signature: signature.as_ptr(),
            module,
        };
        let mut made = DsPrepared {
            struct_size: sized::<DsPrepared>(),
            flags: 0,
            handle: ptr::null_mut(),
            workspace_bytes: 0,
            workspace_alignment: 0,
        };
        // SAFETY: the handle is open for ever, the module stays loaded, the signature's arrays live
        // past the call, and `made` states its size.
        unsafe {
            call!(
                device.plugin(),
                op.prepare(
                    device.handle(),
                    &raw const node,
                    1,
                    sized::<DsNode>(),
                    &raw mut made
                )
            )
        }
        .map_err(|e| (Stage::Prepare, e))?;
        let workspace_bytes = made.workspace_bytes;
        let prepared = Self {
            device,
            kernel,
            handle: made.handle,
            workspace_bytes,
        };
        if made.workspace_alignment > u64::from(device.info().alignment_bytes) {
            let text = format!(
                "kernel '{}' wants its workspace aligned to {} bytes, memory of {device} to {}",
                kernel.name,
                made.workspace_alignment,
                device.info().alignment_bytes
            );
            let error = Error::new(ErrorKind::PluginBug, op.name().to_owned(), text);
            return Err((Stage::Prepare, error));
        }
        Ok(prepared)
    }

    pub(super) fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    #[inline]
    pub(super) fn handle(&self) -> DsPreparedHandle {
        self.handle
    }

    #[inline]
    pub(super) fn workspace_bytes(&self) -> u64 {
        self.workspace_bytes
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        if let Some(release) = self.device.plugin().tables().op.release {
            // SAFETY: the last owner is gone; the cache waits for the device before it evicts.
            unsafe { release(self.handle) };
        }
    }
}

/// The loaded artefact of `kernel`; one that all signatures share is loaded once a device.
fn module(
    device: Device,
    kernel: &'static Kernel,
    kind: ArtefactKind,
    signature: &RawSignature<'_>,
) -> Result<DsModule, (Stage, Error)> {
    let shared = kind == ArtefactKind::Shared;
    if shared && let Some(module) = device.modules().find(&kernel.name) {
        return Ok(module);
    }
    let (raw, described) = if shared {
        (ptr::null(), None)
    } else {
        (signature.as_ptr(), Some(signature.to_string()))
    };
    let target = &device.info().target;
    // SAFETY: null, or a signature whose arrays live past the call.
    let artefact = unsafe { jit::artefact(device.plugin(), kernel, target, raw, described) }
        .map_err(|e| (Stage::Build, e))?;
    // Nothing is lost: a cache whose path is not UTF-8 is refused.
    let path = artefact.path.to_string_lossy();
    let raw = DsArtefact {
        struct_size: sized::<DsArtefact>(),
        flags: 0,
        kernel: DsStr::new(&kernel.name),
        path: DsStr::new(&path),
        content: DsBytes {
            data: artefact.bytes.as_ptr(),
            len: artefact.bytes.len(),
        },
    };
    let mut module: DsModule = ptr::null_mut();
    // SAFETY: the handle is open for ever; the artefact lives past the call.
    unsafe {
        call!(
            device.plugin(),
            jit.load(device.handle(), &raw const raw, &raw mut module)
        )
    }
    .map_err(|e| (Stage::Load, e))?;
    if shared {
        device.modules().add(&kernel.name, module);
    }
    Ok(module)
}

/// The loaded artefacts of a device, by the name of the kernel that they hold.
#[derive(Default)]
pub(crate) struct Modules(Mutex<HashMap<String, Loaded>>);

#[derive(Clone, Copy)]
struct Loaded(DsModule);
// SAFETY: the boundary allows any call on a module from any thread.
unsafe impl Send for Loaded {}

impl Modules {
    fn find(&self, kernel: &str) -> Option<DsModule> {
        self.lock().get(kernel).map(|loaded| loaded.0)
    }

    fn add(&self, kernel: &str, module: DsModule) {
        self.lock().insert(kernel.to_owned(), Loaded(module));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A signature in the boundary's form, with the arrays that it points into.
pub(crate) struct RawSignature<'a> {
    raw: DsSignature,
    // Kept for `raw`, which points at their heap blocks.
    _arguments: Vec<DsArgument>,
    _tensors: Vec<DsTensorSignature>,
    _attributes: Vec<DsValue>,
    op: &'a Op,
    args: Vec<&'a [TensorView<'a>]>,
    statics: Vec<Attr>,
}

impl<'a> RawSignature<'a> {
    pub(crate) fn new(op: &'a Op, args: &[&'a [TensorView<'a>]], attributes: &[Attr]) -> Self {
        let mut first = 0;
        let arguments: Vec<DsArgument> = args
            .iter()
            .map(|arg| {
                let count = u32::try_from(arg.len()).unwrap_or(u32::MAX);
                let argument = DsArgument { first, count };
                first += count;
                argument
            })
            .collect();
        let tensors: Vec<_> = args
            .iter()
            .copied()
            .flatten()
            .map(tensor_signature)
            .collect();
        let values: Vec<DsValue> = attributes.iter().copied().map(value).collect();
        Self {
            raw: DsSignature {
                struct_size: sized::<DsSignature>(),
                flags: 0,
                op: DsStr::new(op.name()),
                schema_hash: op.schema().hash().0,
                arguments: arguments.as_ptr(),
                argument_count: u32::try_from(arguments.len()).unwrap_or(u32::MAX),
                tensor_count: first,
                tensors: tensors.as_ptr(),
                tensor_stride: sized::<DsTensorSignature>(),
                attribute_count: u32::try_from(values.len()).unwrap_or(u32::MAX),
                attributes: values.as_ptr(),
            },
            _arguments: arguments,
            _tensors: tensors,
            _attributes: values,
            op,
            args: args.to_vec(),
            statics: attributes.to_vec(),
        }
    }

    pub(crate) fn as_ptr(&self) -> *const DsSignature {
        &raw const self.raw
    }
}

/// One line that tells everything a signature does; part of cache keys.
impl fmt::Display for RawSignature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op.name(), self.op.schema().hash())?;
        for arg in &self.args {
            f.write_str(" (")?;
            for t in *arg {
                write!(
                    f,
                    "{}{:?}{:?}@{}",
                    t.dtype, t.shape, t.strides, t.alignment_log2
                )?;
                if let Some(other) = t.alias_of {
                    write!(f, "={other}")?;
                }
            }
            f.write_str(")")?;
        }
        write!(f, " {:?}", self.statics)
    }
}

fn tensor_signature(tensor: &TensorView<'_>) -> DsTensorSignature {
    DsTensorSignature {
        dtype: dl_dtype(tensor.dtype),
        ndim: i32::try_from(tensor.shape.len()).unwrap_or(i32::MAX),
        shape: tensor.shape.as_ptr(),
        strides: tensor.strides.as_ptr(),
        layout: tensor.layout() as u8,
        alignment_log2: tensor.alignment_log2,
        reserved: 0,
        alias_of: tensor
            .alias_of
            .and_then(|index| i32::try_from(index).ok())
            .unwrap_or(-1),
    }
}

/// A scalar in the boundary's form.
#[inline]
pub(super) fn value(attribute: Attr) -> DsValue {
    let (kind, value) = match attribute {
        Attr::Bool(b) => (
            ds_abi::DS_VALUE_BOOL,
            DsValueBits {
                integer: i64::from(b),
            },
        ),
        Attr::I64(i) => (ds_abi::DS_VALUE_I64, DsValueBits { integer: i }),
        Attr::F64(f) => (ds_abi::DS_VALUE_F64, DsValueBits { real: f }),
    };
    DsValue {
        kind,
        reserved: 0,
        value,
    }
}
