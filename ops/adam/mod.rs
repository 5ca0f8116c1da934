//! Adam and `AdamW`: one step over a list of parameters, its inverse, and a worker that takes steps.

mod cases;
mod reference;
mod worker;

use ds_core::{Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;
pub use worker::AdamWorker;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("adam_step", reference::adam_step),
    ("adam_rollback", reference::adam_rollback),
];

static ADAM_STEP: OpCell = OpCell::new("adam_step");
static ADAM_ROLLBACK: OpCell = OpCell::new("adam_rollback");

/// What a step of Adam depends on beside the tensors; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decoupled weight decay (`AdamW`); else it is added to the gradient (L2).
    pub adamw: bool,
    /// Divide the moments by `1 - beta^step`.
    pub bias_correction: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            adamw: true,
            bias_correction: true,
        }
    }
}

/// The lists that a step reads and writes, of equal length.
#[derive(Clone, Copy, Debug)]
pub struct AdamTensors<'a> {
    /// Parameters, updated in place.
    pub params: &'a [&'a Tensor],
    /// Their gradients.
    pub grads: &'a [&'a Tensor],
    /// First moments, updated in place.
    pub exp_avg: &'a [&'a Tensor],
    /// Second moments, updated in place.
    pub exp_avg_sq: &'a [&'a Tensor],
}

/// One step of Adam, in place.
///
/// With `found_inf`, a value other than 0 on the device leaves everything as it is, without the
/// host waiting for it.
///
/// # Shapes
/// Four lists of equal length; the tensors at one index have equal shapes. `params` and `grads`
/// share a dtype, `exp_avg` and `exp_avg_sq` too: (f32, f32), (f16, f16), (f16, f32), (bf16, bf16)
/// or (bf16, f32). `step` counts from 1.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/adam/cpu_adam_impl.cpp`; unlike there, L2 mode and `bias_correction` hold on every
/// accelerator, strided parameters are updated or refused, and `found_inf` is honoured.
///
/// # Source
/// Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
pub fn adam_step(
    stream: &Stream,
    tensors: AdamTensors<'_>,
    found_inf: Option<&Tensor>,
    step: i64,
    config: &AdamConfig,
) -> Result<()> {
    launch(&ADAM_STEP, stream, tensors, found_inf, step, config)
}

/// Takes one step of Adam back, in place: the state before [`adam_step`] from the state after it and
/// from the gradients that it was made with.
///
/// What rounding lost stays lost: parameters and moments come back to a few roundings of the larger
/// of both states. A parameter that would come back infinite or NaN is 0, a second moment below
/// 0 is 0, and a moment whose beta is 0 comes back as 0.
///
/// # Shapes
/// As [`adam_step`], all of f32. `step` and `found_inf` are those of the step that is taken back.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `adamw_rollback_inplace` of `csrc/adam/cpu_adam_impl.cpp`; unlike there, L2 mode and no bias
/// correction are taken back as such, and second moments stay such that the next step has a root.
pub fn adam_rollback(
    stream: &Stream,
    tensors: AdamTensors<'_>,
    found_inf: Option<&Tensor>,
    step: i64,
    config: &AdamConfig,
) -> Result<()> {
    launch(&ADAM_ROLLBACK, stream, tensors, found_inf, step, config)
}

fn launch(
    op: &OpCell,
    stream: &Stream,
    tensors: AdamTensors<'_>,
    found_inf: Option<&Tensor>,
    step: i64,
    config: &AdamConfig,
) -> Result<()> {
    op::launch(
        op.op()?,
        stream,
        &[
            tensors.params,
            tensors.grads,
            tensors.exp_avg,
            tensors.exp_avg_sq,
            found_inf.as_slice(),
        ],
        &[Attr::Bool(config.adamw), Attr::Bool(config.bias_correction)],
        &[
            Attr::F64(config.lr),
            Attr::F64(config.beta1),
            Attr::F64(config.beta2),
            Attr::F64(config.eps),
            Attr::F64(config.weight_decay),
            Attr::I64(step),
        ],
    )
}
