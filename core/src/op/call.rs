//! A call: check what can change from launch to launch, find or make what is prepared, launch it.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use ds_abi::{DLDevice, DLTensor, DsLaunch, DsTensor, DsValue};
use ds_schema::{Attr, TensorView};
use smallvec::SmallVec;

use super::{
    Op,
    alias::{Aliases, aliases},
    choose::{candidates, refused},
    key::{self, alignment_class},
    plans::{Plan, Way},
    prepare::{Prepared, value},
    reference,
    unready::Unready,
    watch,
};
use crate::{
    Buffer, Device, Error, ErrorKind, Result,
    device::sized,
    fork,
    plugin::call::call,
    settings::Fallback,
    stream::Stream,
    tensor::{Tensor, dl_dtype},
    trace,
};

/// The tensors of one argument: none for a missing optional, any number for a list.
pub type Args<'a> = &'a [&'a Tensor];

/// Calls with up to this many tensors are laid out on the stack.
const STACK_TENSORS: usize = 8;

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
    let plan = plan(op, stream.device(), args, attributes, scalars)?;
    let span = trace::begin(op.name());
    let done = match &plan.way {
        Way::Kernel(prepared) => launch_kernel(prepared, stream, args, scalars),
        Way::Watched(prepared) => watch::launch(op, prepared, stream, args, attributes, scalars),
        Way::Reference(why) => {
            note_fallback(op, stream.device(), why)?;
            reference::run(op, stream, args, attributes, scalars)
        }
        Way::Nothing => Ok(()),
    };
    trace::end(span, || plan.name());
    done
}

/// What a call runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunsOn {
    /// The kernel of that name.
    Kernel(&'static str),
    /// The reference implementation, through host memory, and why no kernel.
    Reference(String),
    /// Nothing: no element is written.
    Nothing,
}

/// What [`launch`] of this call runs on. Builds, loads and prepares it, so that the launch finds it
/// ready, but queues nothing.
///
/// # Errors
/// As [`launch`].
pub fn resolve(
    op: &'static Op,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<RunsOn> {
    Ok(plan(op, stream.device(), args, attributes, scalars)?.runs_on())
}

/// The plan of a call, made at the first one of its signature.
#[inline]
pub(super) fn plan(
    op: &'static Op,
    device: Device,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<Arc<Plan>> {
    // Before any lock, which a thread that the child has not may hold.
    if fork::is_child() {
        return Err(fork::refusal("launch an op"));
    }
    op.schema()
        .check_scalars(scalars)
        .map_err(|e| refused(op, &e))?;
    let aliases = aliases(op, args, device)?;
    let mut room = key::Room::new();
    let key = room.key(op, args, attributes, aliases.as_ref());
    match device.plans().find(key) {
        Some(plan) => Ok(plan),
        None => prepare(op, device, args, attributes, aliases.as_ref(), key),
    }
}

pub(super) fn launch_kernel(
    prepared: &Prepared,
    stream: &Stream,
    args: &[Args<'_>],
    scalars: &[Attr],
) -> Result<()> {
    let device = stream.device();
    let dl_device = DLDevice {
        device_type: device.info().dlpack_type,
        device_id: device.index().cast_signed(),
    };
    let mut raw: SmallVec<[DsTensor; STACK_TENSORS]> = SmallVec::new();
    for arg in args {
        for tensor in *arg {
            raw.push(raw_tensor(tensor, dl_device));
            tensor.buffer().record_use(stream);
        }
    }
    let mut values: SmallVec<[DsValue; STACK_TENSORS]> = SmallVec::new();
    for scalar in scalars {
        values.push(value(*scalar));
    }
    let workspace = match prepared.workspace_bytes() {
        0 => None,
        bytes => Some(Buffer::new(stream, bytes)?),
    };
    let (handle, _turn) = stream.queue();
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
    unsafe {
        call!(
            device.plugin(),
            op.launch(prepared.handle(), &raw const launch)
        )
    }
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
fn prepare(
    op: &'static Op,
    device: Device,
    args: &[Args<'_>],
    attributes: &[Attr],
    aliases: Option<&Aliases>,
    key: &[u64],
) -> Result<Arc<Plan>> {
    let views: Vec<TensorView<'_>> = (args.iter().copied().flatten().enumerate())
        .map(|(index, tensor)| {
            let alias = aliases.and_then(|aliases| aliases[index]);
            tensor.view(alignment_class(tensor), alias)
        })
        .collect();
    let mut rest = views.as_slice();
    let views: Vec<&[TensorView<'_>]> = (args.iter())
        .map(|arg| {
            let (own, others) = rest.split_at(arg.len());
            rest = others;
            own
        })
        .collect();
    let binding = op.schema().bind(&views).map_err(|e| refused(op, &e))?;
    op.schema()
        .check_attributes(attributes)
        .map_err(|e| refused(op, &e))?;
    let plan = if binding.written_elements() == 0 {
        Plan {
            way: Way::Nothing,
            unready: Vec::new(),
        }
    } else {
        choose(op, device, &binding, &views, attributes)?
    };
    Ok(device.plans().add(device, key, plan))
}

fn choose(
    op: &'static Op,
    device: Device,
    binding: &ds_schema::Binding<'_>,
    args: &[&[TensorView<'_>]],
    attributes: &[Attr],
) -> Result<Plan> {
    let (mut reasons, mut unready) = (Vec::new(), Vec::new());
    let found = candidates(device, op, binding, args, attributes);
    for (kernel, score) in found {
        if let Err(refusal) = score {
            reasons.push(refusal);
            continue;
        }
        match Prepared::new(device, op, kernel, args, attributes) {
            Ok(prepared) => {
                let way = if device.is_watched() {
                    Way::Watched(prepared)
                } else {
                    Way::Kernel(prepared)
                };
                return Ok(Plan { way, unready });
            }
            Err((stage, e)) if e.kind().is_of_the_kernel() => {
                reasons.push(format!("kernel {}: {e}", kernel.name));
                unready.push(Unready::new(&kernel.name, stage, &e));
            }
            Err((_, e)) => return Err(e),
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
    let way = Way::Reference(why);
    Ok(Plan { way, unready })
}

/// Says once per op and device that it runs on the reference implementation, or refuses.
fn note_fallback(op: &Op, device: Device, why: &str) -> Result<()> {
    static SAID: OnceLock<Mutex<Vec<(Device, String)>>> = OnceLock::new();
    match device.settings().fallback {
        Fallback::Allow => return Ok(()),
        Fallback::Deny => {
            return Err(
                Error::new(ErrorKind::NoKernel, op.name().to_owned(), why).with_hint(
                    "mend that, or let the reference implementation run: DS_FALLBACK is deny",
                ),
            );
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
        let words = format!(
            "{} on {device} runs on the reference implementation: {why}",
            op.name()
        );
        warn(&words);
    }
    Ok(())
}

/// Warns a program that has no logger, too: what is slow or not done without a word is no service.
pub(super) fn warn(words: &str) {
    if log::max_level() == log::LevelFilter::Off {
        let _ = writeln!(io::stderr(), "warning: {words}");
    } else {
        log::warn!("{words}");
    }
}
