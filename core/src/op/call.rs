//! A call: check what can change from launch to launch, find or make what is prepared, launch it.

use std::{
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ds_abi::{DLDevice, DLTensor, DsLaunch, DsTensor, DsValue};
use ds_schema::{Attr, Role, Signature, SignatureView, TensorView};
use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;

use super::{
    Op,
    choose::{candidates, refused},
    prepare::{Prepared, value},
    reference,
};
use crate::{
    Buffer, Device, Error, ErrorKind, Result,
    device::sized,
    plugin::call::call,
    settings::{Fallback, settings},
    stream::Stream,
    tensor::{Tensor, dl_dtype},
    trace,
};

/// The tensors of one argument: none for a missing optional, any number for a list.
pub type Args<'a> = &'a [&'a Tensor];

/// Calls with up to this many tensors are laid out on the stack.
const STACK_TENSORS: usize = 8;
/// Signatures that a device keeps prepared; a training step has a few hundred.
const MAX_PREPARED: usize = 2048;
/// Alignments that signatures tell apart, as binary logarithms: elements up to 8 bytes, a vector
/// register of 16, a cache line of 64, the 256 that some devices want.
const ALIGNMENT_CLASSES: [u8; 7] = [8, 6, 4, 3, 2, 1, 0];

/// Queues `op` on `stream`. `args` are in schema order, inputs before outputs; `attributes` and
/// `scalars` in schema order, with nothing left out.
///
/// # Ordering
/// After the work queued on `stream` before. Tensors last used on another stream need a
/// [`Stream::wait`] first.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks;
/// [`ErrorKind::NoKernel`] when nothing takes the call; the failure of a build.
pub fn launch(
    op: &'static Op,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<()> {
    let tensors: SmallVec<[&Tensor; STACK_TENSORS]> =
        args.iter().flat_map(|arg| arg.iter().copied()).collect();
    let device = stream.device();
    if let Some(index) = tensors.iter().position(|t| t.device() != device) {
        return Err(wrong_device(op, args, index, device));
    }
    op.schema()
        .check_scalars(scalars)
        .map_err(|e| refused(op, &e))?;
    let aliases = aliases(op, args, &tensors)?;
    let views: SmallVec<[TensorView<'_>; STACK_TENSORS]> = tensors
        .iter()
        .enumerate()
        .map(|(index, tensor)| {
            let alias = aliases.as_ref().and_then(|aliases| aliases[index]);
            tensor.view(alignment_class(tensor), alias)
        })
        .collect();
    let mut rest = views.as_slice();
    let arg_views: SmallVec<[&[TensorView<'_>]; STACK_TENSORS]> = args
        .iter()
        .map(|arg| {
            let (own, others) = rest.split_at(arg.len());
            rest = others;
            own
        })
        .collect();
    let signature = SignatureView {
        op: op.name(),
        schema_hash: op.schema().hash(),
        args: &arg_views,
        attributes,
    };
    let entry = match device.prepared().find(&signature) {
        Some(entry) => entry,
        None => prepare(op, device, &signature)?,
    };
    let span = trace::begin(op.name());
    let done = match &entry.plan {
        Plan::Kernel(prepared) => launch_kernel(prepared, stream, &tensors, scalars),
        Plan::Reference(why) => {
            note_fallback(op, device, why)?;
            reference::run(op, stream, args, attributes, scalars)
        }
        Plan::Nothing => Ok(()),
    };
    trace::end(span, || entry.plan.name());
    done
}

fn launch_kernel(
    prepared: &Prepared,
    stream: &Stream,
    tensors: &[&Tensor],
    scalars: &[Attr],
) -> Result<()> {
    let device = stream.device();
    let dl_device = DLDevice {
        device_type: device.info().dlpack_type,
        device_id: device.index().cast_signed(),
    };
    let raw: SmallVec<[DsTensor; STACK_TENSORS]> = tensors
        .iter()
        .map(|tensor| raw_tensor(tensor, dl_device))
        .collect();
    let values: SmallVec<[DsValue; STACK_TENSORS]> = scalars.iter().copied().map(value).collect();
    let workspace = match prepared.workspace_bytes() {
        0 => None,
        bytes => Some(Buffer::new(stream, bytes)?),
    };
    let (handle, turn) = stream.queue();
    let launch = DsLaunch {
        struct_size: sized::<DsLaunch>(),
        flags: 0,
        stream: handle,
        tensors: raw.as_ptr(),
        tensor_count: u32::try_from(raw.len()).unwrap_or(u32::MAX),
        tensor_stride: sized::<DsTensor>(),
        scalars: values.as_ptr(),
        scalar_count: u32::try_from(values.len()).unwrap_or(u32::MAX),
        reserved: 0,
        workspace: workspace
            .as_ref()
            .map_or(std::ptr::null_mut(), Buffer::address),
        workspace_bytes: prepared.workspace_bytes(),
        correlation: trace::correlation(),
    };
    // SAFETY: the tensors were bound to the signature that the kernel was prepared for; their
    // buffers, and the workspace, are not given to others before the stream has passed the launch:
    // the pool reuses a block only behind its own stream, and `record_use` tells it of this one.
    let queued = unsafe {
        call!(
            device.plugin(),
            op.launch(prepared.handle(), &raw const launch)
        )
    };
    drop(turn);
    for tensor in tensors {
        tensor.buffer().record_use(stream);
    }
    queued
}

#[inline]
fn raw_tensor(tensor: &Tensor, device: DLDevice) -> DsTensor {
    DsTensor {
        struct_size: sized::<DsTensor>(),
        flags: 0,
        dl: DLTensor {
            data: tensor.address(),
            device,
            ndim: i32::try_from(tensor.shape().len()).unwrap_or(0),
            dtype: dl_dtype(tensor.dtype()),
            shape: tensor.shape().as_ptr(),
            strides: tensor.strides().as_ptr(),
            byte_offset: 0,
        },
    }
}

/// The first call of a signature: bind, choose, build, load, prepare.
#[cold]
fn prepare(op: &'static Op, device: Device, signature: &SignatureView<'_>) -> Result<Arc<Entry>> {
    let binding = op
        .schema()
        .bind(signature.args)
        .map_err(|e| refused(op, &e))?;
    op.schema()
        .check_attributes(signature.attributes)
        .map_err(|e| refused(op, &e))?;
    let plan = if binding.written_elements() == 0 {
        Plan::Nothing
    } else {
        choose(op, device, &binding, signature)?
    };
    let entry = Entry {
        signature: signature.to_signature(),
        plan,
        used: AtomicU64::new(0),
    };
    Ok(device.prepared().add(device, entry))
}

fn choose(
    op: &'static Op,
    device: Device,
    binding: &ds_schema::Binding<'_>,
    signature: &SignatureView<'_>,
) -> Result<Plan> {
    let mut reasons = Vec::new();
    let found = candidates(device, op, binding, signature.args, signature.attributes);
    for (kernel, score) in found {
        if let Err(refusal) = score {
            reasons.push(refusal);
            continue;
        }
        match Prepared::new(device, op, kernel, signature.args, signature.attributes) {
            Ok(prepared) => return Ok(Plan::Kernel(prepared)),
            Err(e) if e.kind().is_of_the_kernel() => {
                reasons.push(format!("kernel {}: {e}", kernel.name));
            }
            Err(e) => return Err(e),
        }
    }
    if reasons.is_empty() {
        reasons.push(format!("{} has no kernel for it", device.accelerator()));
    }
    let why = reasons.join("; ");
    if op.reference().is_none() {
        return Err(Error::new(ErrorKind::NoKernel, op.name().to_owned(), why)
            .with_hint("the op has no reference implementation to fall back to"));
    }
    Ok(Plan::Reference(why))
}

/// What a signature runs on.
enum Plan {
    Kernel(Prepared),
    /// The reference implementation, and why no kernel runs.
    Reference(String),
    /// No element is written.
    Nothing,
}

impl Plan {
    fn name(&self) -> &str {
        match self {
            Self::Kernel(prepared) => &prepared.kernel().name,
            Self::Reference(_) => "reference",
            Self::Nothing => "nothing",
        }
    }
}

struct Entry {
    signature: Signature,
    plan: Plan,
    /// Tick of the last use.
    used: AtomicU64,
}

/// A device's prepared signatures, bounded: the longest unused go first.
#[derive(Default)]
pub(crate) struct PreparedCache {
    hasher: DefaultHashBuilder,
    entries: Mutex<HashTable<Arc<Entry>>>,
    tick: AtomicU64,
}

impl PreparedCache {
    #[inline]
    fn find(&self, signature: &SignatureView<'_>) -> Option<Arc<Entry>> {
        let hash = self.hasher.hash_one(signature);
        let entries = self.lock();
        let entry = entries.find(hash, |entry| entry.signature == *signature)?;
        entry
            .used
            .store(self.tick.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(entry))
    }

    fn add(&self, device: Device, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        entry
            .used
            .store(self.tick.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut evicted = Vec::new();
        let mut entries = self.lock();
        if entries.len() >= MAX_PREPARED {
            let mut ages: Vec<_> = entries
                .iter()
                .map(|e| e.used.load(Ordering::Relaxed))
                .collect();
            ages.sort_unstable();
            let limit = ages[ages.len() / 4];
            entries.retain(|e| {
                let keep = e.used.load(Ordering::Relaxed) > limit;
                if !keep {
                    evicted.push(Arc::clone(e));
                }
                keep
            });
        }
        let hash = self.hasher.hash_one(&entry.signature);
        entries.insert_unique(hash, Arc::clone(&entry), |e| {
            self.hasher.hash_one(&e.signature)
        });
        drop(entries);
        if !evicted.is_empty()
            && let Err(e) = device.synchronize()
        {
            // Launches of what goes may be pending on a device that failed: leak rather than risk.
            log::warn!("{} prepared kernels stay: {e}", evicted.len());
            evicted.into_iter().for_each(std::mem::forget);
        }
        entry
    }

    fn lock(&self) -> MutexGuard<'_, HashTable<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The class of the first element's alignment.
#[inline]
fn alignment_class(tensor: &Tensor) -> u8 {
    let address = tensor.address().addr();
    if address == 0 {
        return ALIGNMENT_CLASSES[0];
    }
    let log2 = address.trailing_zeros();
    ALIGNMENT_CLASSES
        .into_iter()
        .find(|class| u32::from(*class) <= log2)
        .unwrap_or(0)
}

type Aliases = SmallVec<[Option<u32>; STACK_TENSORS]>;

/// For each tensor the first other one that is the same memory, `None` when there are none.
///
/// A written tensor may be exactly the memory of another one; whether a kernel takes that is its
/// constraint. Overlapping in part is refused: no kernel could get it right.
fn aliases(op: &Op, args: &[Args<'_>], tensors: &[&Tensor]) -> Result<Option<Aliases>> {
    let mut written: SmallVec<[bool; STACK_TENSORS]> = SmallVec::new();
    for (argument, arg) in op.schema().arguments().iter().zip(args) {
        written.extend(arg.iter().map(|_| argument.role != Role::In));
    }
    written.resize(tensors.len(), false);
    let ranges: SmallVec<[(usize, usize); STACK_TENSORS]> =
        tensors.iter().map(|t| range(t)).collect();
    let mut order: SmallVec<[usize; STACK_TENSORS]> = (0..tensors.len()).collect();
    order.sort_unstable_by_key(|&index| ranges[index]);
    let mut found: Option<Aliases> = None;
    // In order of their start, a tensor that overlaps any earlier one overlaps the one among them
    // that reaches furthest, so one look at each is enough to find that there is an overlap.
    let mut furthest: Option<usize> = None;
    for &index in &order {
        let (start, end) = ranges[index];
        if start == end {
            continue;
        }
        if let Some(other) = furthest
            && start < ranges[other].1
            && (written[index] || written[other])
        {
            let same = ranges[index] == ranges[other]
                && tensors[index].shape() == tensors[other].shape()
                && tensors[index].strides() == tensors[other].strides()
                && tensors[index].dtype() == tensors[other].dtype();
            if !same {
                return Err(overlap(op, args, index, other));
            }
            let aliases =
                found.get_or_insert_with(|| std::iter::repeat_n(None, tensors.len()).collect());
            let (low, high) = (index.min(other), index.max(other));
            aliases[high] = u32::try_from(low).ok();
        }
        // A written one is kept where both reach equally far: it is the one that matters.
        if furthest.is_none_or(|other| {
            end > ranges[other].1 || (end == ranges[other].1 && !written[other])
        }) {
            furthest = Some(index);
        }
    }
    Ok(found)
}

/// The addresses that a tensor's elements span.
fn range(tensor: &Tensor) -> (usize, usize) {
    let base = tensor.buffer().address().addr();
    let (low, high) = tensor.span_bytes().unwrap_or((0, 0));
    let at = |bytes: i64| base.wrapping_add_signed(isize::try_from(bytes).unwrap_or(0));
    (at(low), at(high))
}

/// `weight`, or `grads[3]` of a list.
fn name_of(op: &Op, args: &[Args<'_>], mut index: usize) -> String {
    for (argument, arg) in op.schema().arguments().iter().zip(args) {
        if index < arg.len() {
            return match argument.multiplicity {
                ds_schema::Multiplicity::List => format!("{}[{index}]", argument.name),
                _ => argument.name.clone(),
            };
        }
        index -= arg.len();
    }
    format!("tensor {index}")
}

#[cold]
fn wrong_device(op: &Op, args: &[Args<'_>], index: usize, device: Device) -> Error {
    let tensor = args.iter().copied().flatten().nth(index);
    let place = tensor.map_or_else(String::new, |t| t.device().to_string());
    let name = name_of(op, args, index);
    Error::new(
        ErrorKind::InvalidArgument,
        op.name().to_owned(),
        format!("argument '{name}' is on {place}, but the stream is on {device}"),
    )
    .with_hint("copy the tensor to the stream's device first")
}

#[cold]
fn overlap(op: &Op, args: &[Args<'_>], a: usize, b: usize) -> Error {
    let (a, b) = (name_of(op, args, a.min(b)), name_of(op, args, a.max(b)));
    Error::new(
        ErrorKind::InvalidArgument,
        op.name().to_owned(),
        format!("arguments '{a}' and '{b}' overlap in memory, and one of them is written"),
    )
}

/// Says once per op and device that it runs on the reference implementation, or refuses.
fn note_fallback(op: &Op, device: Device, why: &str) -> Result<()> {
    static SAID: OnceLock<Mutex<Vec<(Device, String)>>> = OnceLock::new();
    match settings()?.fallback {
        Fallback::Allow => return Ok(()),
        Fallback::Deny => {
            return Err(Error::new(ErrorKind::NoKernel, op.name().to_owned(), why)
                .with_hint("DS_FALLBACK=deny keeps it off the reference implementation"));
        }
        Fallback::Warn => {}
    }
    let said = SAID.get_or_init(Mutex::default);
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if !said
        .iter()
        .any(|(d, name)| *d == device && name == op.name())
    {
        said.push((device, op.name().to_owned()));
        log::warn!(
            "{} on {device} runs on the reference implementation: {why}",
            op.name()
        );
    }
    Ok(())
}
