//! Launch: a C kernel's plan and phases, run over the compute pool.
//!
//! The structs mirror `kernels/include/ds_cpu.h`; a test compiles both and compares.

use std::{ffi::c_void, mem::MaybeUninit, ptr, sync::Arc};

use ds_plugin::{
    Error, LaunchView, Result, SignatureView, Value,
    abi::{
        DLDataType, DS_DTYPE_BF16, DS_DTYPE_BOOL, DS_DTYPE_F8E4M3, DS_DTYPE_F8E5M2, DS_DTYPE_F16,
        DS_DTYPE_F32, DS_DTYPE_F64, DS_DTYPE_I8, DS_DTYPE_I16, DS_DTYPE_I32, DS_DTYPE_I64,
        DS_DTYPE_U8, DsArgument, DsValue,
    },
};

use crate::{pool::Pool, stream::Stream};

/// Version of `ds_cpu.h` that this file mirrors (`DS_CPU_ABI`).
pub(crate) const CPU_ABI: u32 = 1;
/// `DS_MAX_PHASES`.
const MAX_PHASES: usize = 4;
/// Calls with up to this many tensors are laid out on the stack.
const STACK_TENSORS: usize = 16;

/// `ds_tensor`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CTensor {
    data: *mut c_void,
    shape: *const i64,
    strides: *const i64,
    ndim: i32,
    dtype: u32,
}

/// `ds_call`.
#[repr(C)]
struct CCall {
    tensors: *const CTensor,
    arguments: *const DsArgument,
    attributes: *const u64,
    scalars: *const u64,
    workspace: *mut c_void,
}

/// `ds_phase`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CPhase {
    items: i64,
    grain: i64,
}

/// `ds_plan`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CPlan {
    phases: u32,
    phase: [CPhase; MAX_PHASES],
    workspace_bytes: i64,
}

/// `ds_kernel`.
#[repr(C)]
pub struct CKernel {
    pub(crate) abi: u32,
    plan: unsafe extern "C" fn(*const CCall, *mut CPlan),
    run: unsafe extern "C" fn(*const CCall, u32, i64, i64),
}

/// A kernel with everything that does not change from launch to launch.
pub(crate) struct PreparedKernel {
    kernel: &'static CKernel,
    /// The tensors without addresses; their shapes and strides point into `extents`.
    tensors: Box<[CTensor]>,
    /// Kept for `tensors`.
    _extents: Box<[i64]>,
    arguments: Box<[DsArgument]>,
    attributes: Box<[u64]>,
    plan: CPlan,
}

// SAFETY: the pointers lead into boxes that the value owns and never changes, and to a constant of
// a library that stays loaded. Addresses of tensor data are null here.
unsafe impl Send for PreparedKernel {}
// SAFETY: as for `Send`; kernels keep no state between calls (ds_cpu.h).
unsafe impl Sync for PreparedKernel {}

impl PreparedKernel {
    /// Plans `kernel` for one signature.
    pub(crate) fn new(kernel: &'static CKernel, signature: SignatureView<'_>) -> Result<Self> {
        let count = signature.tensor_count();
        let views = || (0..count).map(|index| signature.tensor(index));
        let extents: Box<[i64]> = views()
            .flat_map(|t| [t.shape(), t.strides()].concat())
            .collect();
        if extents.contains(&ds_plugin::abi::DS_DIM_DYNAMIC) {
            return Err(Error::constraint(
                "the cpu accelerator prepares for fixed extents only",
            ));
        }
        let mut at = extents.as_ptr();
        let tensors = views()
            .map(|t| {
                let rank = t.shape().len();
                let (shape, strides) = (at, at.wrapping_add(rank));
                at = strides.wrapping_add(rank);
                Ok(CTensor {
                    data: ptr::null_mut(),
                    shape,
                    strides,
                    ndim: i32::try_from(rank).map_err(|_| Error::constraint("rank"))?,
                    dtype: dtype_index(t.dtype())?,
                })
            })
            .collect::<Result<Box<[CTensor]>>>()?;
        let attributes = signature.attributes()?.iter().copied().map(bits).collect();
        let arguments: Box<[DsArgument]> = signature.arguments().into();
        let mut prepared = Self {
            kernel,
            tensors,
            _extents: extents,
            arguments,
            attributes,
            plan: CPlan::default(),
        };
        let call = prepared.call(&prepared.tensors, ptr::null(), ptr::null_mut());
        let mut plan = CPlan::default();
        // SAFETY: `plan` reads shapes, strides and attributes, all of them live (ds_cpu.h).
        unsafe { (kernel.plan)(&raw const call, &raw mut plan) };
        if plan.phases as usize > MAX_PHASES || plan.workspace_bytes < 0 {
            return Err(Error::internal("the kernel's plan is out of bounds"));
        }
        prepared.plan = plan;
        Ok(prepared)
    }

    /// Workspace of each launch, in bytes.
    pub(crate) fn workspace_bytes(&self) -> u64 {
        self.plan.workspace_bytes.unsigned_abs()
    }

    /// Queues a launch, or runs it at once where the stream does.
    ///
    /// # Safety
    /// The launch's tensors are those of the signature, and their memory and the workspace stay
    /// valid until the stream has passed the launch.
    pub(crate) unsafe fn launch(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        stream: &Stream,
        launch: LaunchView<'_>,
    ) -> Result<()> {
        if launch.tensor_count() != self.tensors.len() {
            return Err(Error::invalid_argument(format!(
                "{} tensors for a kernel prepared for {}",
                launch.tensor_count(),
                self.tensors.len()
            )));
        }
        let workspace = Address(launch.workspace());
        stream.run(
            || {
                let scalars = Scalars::new(launch.scalars());
                self.with_tensors(
                    |index| launch.tensor(index).address(),
                    |tensors| {
                        // SAFETY: the caller's promise; nothing is queued.
                        unsafe { self.run(pool, tensors, scalars.as_ptr(), workspace.0) };
                    },
                );
            },
            || {
                let prepared = Arc::clone(self);
                let pool = Arc::clone(pool);
                let addresses: Vec<_> = (0..launch.tensor_count())
                    .map(|index| Address(launch.tensor(index).address()))
                    .collect();
                let scalars = Scalars::new(launch.scalars());
                Box::new(move || {
                    let workspace = workspace;
                    prepared.with_tensors(
                        |index| addresses[index].0,
                        |tensors| {
                            // SAFETY: the caller's promise holds until the stream has passed this.
                            unsafe { prepared.run(&pool, tensors, scalars.as_ptr(), workspace.0) };
                        },
                    );
                })
            },
        )
    }

    /// Calls `body` with the tensors at their addresses, on the stack where they are few.
    fn with_tensors(&self, address: impl Fn(usize) -> *mut c_void, body: impl FnOnce(&[CTensor])) {
        let placed = |index: usize| CTensor {
            data: address(index),
            ..self.tensors[index]
        };
        let count = self.tensors.len();
        if count > STACK_TENSORS {
            body(&(0..count).map(placed).collect::<Vec<_>>());
            return;
        }
        let mut stack = [const { MaybeUninit::<CTensor>::uninit() }; STACK_TENSORS];
        for (index, slot) in stack[..count].iter_mut().enumerate() {
            slot.write(placed(index));
        }
        // SAFETY: the first `count` slots were just written.
        body(unsafe { std::slice::from_raw_parts(stack.as_ptr().cast(), count) });
    }

    fn call(&self, tensors: &[CTensor], scalars: *const u64, workspace: *mut c_void) -> CCall {
        CCall {
            tensors: tensors.as_ptr(),
            arguments: self.arguments.as_ptr(),
            attributes: self.attributes.as_ptr(),
            scalars,
            workspace,
        }
    }

    /// Runs every phase to its end before the next.
    ///
    /// # Safety
    /// The tensors, scalars and workspace are those the kernel was planned for, and live.
    unsafe fn run(
        &self,
        pool: &Pool,
        tensors: &[CTensor],
        scalars: *const u64,
        workspace: *mut c_void,
    ) {
        let call = Shared(self.call(tensors, scalars, workspace));
        for (index, phase) in (0u32..).zip(&self.plan.phase[..self.plan.phases as usize]) {
            let grain = phase.grain.max(1);
            let chunks = phase
                .items
                .max(0)
                .unsigned_abs()
                .div_ceil(grain.unsigned_abs());
            let chunks = usize::try_from(chunks).unwrap_or(usize::MAX);
            let call = &call;
            pool.for_each(chunks, &|begin, end| {
                let item = |chunk: usize| {
                    i64::try_from(chunk)
                        .unwrap_or(i64::MAX)
                        .saturating_mul(grain)
                        .min(phase.items)
                };
                // SAFETY: the caller's promise; ranges of one phase do not share output
                // (ds_cpu.h), and phases do not overlap in time.
                unsafe { (self.kernel.run)(&raw const call.0, index, item(begin), item(end)) };
            });
        }
    }
}

/// A call that the pool's threads share.
struct Shared(CCall);
// SAFETY: kernels may run one call from several threads at once (ds_cpu.h); they only read it.
unsafe impl Sync for Shared {}

/// An address on its way to the thread of a stream.
#[derive(Clone, Copy)]
struct Address(*mut c_void);
// SAFETY: the host keeps the memory behind it valid until the stream has passed the work.
unsafe impl Send for Address {}

/// Launch scalars as the kernel reads them, without a heap visit for the usual few.
struct Scalars {
    few: [u64; 8],
    many: Vec<u64>,
}

impl Scalars {
    fn new(values: &[DsValue]) -> Self {
        let mut scalars = Self {
            few: [0; 8],
            many: Vec::new(),
        };
        // SAFETY: every bit pattern is a valid integer, and both members have eight bytes.
        let of = |v: &DsValue| unsafe { v.value.integer }.cast_unsigned();
        if values.len() <= scalars.few.len() {
            for (slot, value) in scalars.few.iter_mut().zip(values) {
                *slot = of(value);
            }
        } else {
            scalars.many = values.iter().map(of).collect();
        }
        scalars
    }

    fn as_ptr(&self) -> *const u64 {
        if self.many.is_empty() {
            self.few.as_ptr()
        } else {
            self.many.as_ptr()
        }
    }
}

fn bits(value: Value) -> u64 {
    match value {
        Value::Bool(b) => u64::from(b),
        Value::I64(i) => i.cast_unsigned(),
        Value::F64(f) => f.to_bits(),
    }
}

/// `DS_DTYPE_*` of a DLPack type.
fn dtype_index(dtype: DLDataType) -> Result<u32> {
    Ok(match (dtype.code, dtype.bits, dtype.lanes) {
        (2, 32, 1) => DS_DTYPE_F32,
        (2, 16, 1) => DS_DTYPE_F16,
        (4, 16, 1) => DS_DTYPE_BF16,
        (2, 64, 1) => DS_DTYPE_F64,
        (0, 8, 1) => DS_DTYPE_I8,
        (1, 8, 1) => DS_DTYPE_U8,
        (0, 16, 1) => DS_DTYPE_I16,
        (0, 32, 1) => DS_DTYPE_I32,
        (0, 64, 1) => DS_DTYPE_I64,
        (6, 8, 1) => DS_DTYPE_BOOL,
        (10, 8, 1) => DS_DTYPE_F8E4M3,
        (12, 8, 1) => DS_DTYPE_F8E5M2,
        _ => return Err(Error::constraint(format!("{dtype:?} is not known here"))),
    })
}
