//! Lion, one step over a list of parameters.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("lion_step", reference::lion_step)];

static LION_STEP: OpCell = OpCell::new("lion_step");

/// What a step of Lion depends on beside the tensors; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionConfig {
    /// Learning rate: how far every element moves.
    pub lr: f64,
    /// Weight of the moment in the direction.
    pub beta1: f64,
    /// Decay of the moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
        }
    }
}

/// The lists that a step reads and writes, of equal length.
#[derive(Clone, Copy, Debug)]
pub struct LionTensors<'a> {
    /// Parameters, updated in place.
    pub params: &'a [&'a Tensor],
    /// Their gradients.
    pub grads: &'a [&'a Tensor],
    /// Moments, updated in place.
    pub exp_avg: &'a [&'a Tensor],
}

/// One step of Lion, in place: `p = p (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g)`, then
/// `m = beta2 m + (1 - beta2) g`.
///
/// The sign of a sum that is zero is its sign bit: `+0` moves the parameter down, `-0` up. Where the
/// sum is NaN, so is the parameter. With `found_inf`, a value other than 0 on the device leaves
/// everything as it is.
///
/// # Shapes
/// Three lists of equal length; the tensors at one index have equal shapes. `params` and `grads`
/// share a dtype: (f32, f32), (f16, f16), (f16, f32), (bf16, bf16) or (bf16, f32) with `exp_avg`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/lion/cpu_lion_impl.cpp`, whose signs of zeros these are; `multi_tensor_lion.cu` moves up for
/// both, and neither shows a NaN. Strided parameters are updated, and `found_inf` is honoured.
///
/// # Source
/// Chen et al. 2023, arXiv 2302.06675.
pub fn lion_step(
    stream: &Stream,
    tensors: LionTensors<'_>,
    found_inf: Option<&Tensor>,
    config: &LionConfig,
) -> Result<()> {
    op::launch(
        LION_STEP.op()?,
        stream,
        &[
            tensors.params,
            tensors.grads,
            tensors.exp_avg,
            found_inf.as_slice(),
        ],
        &[],
        &[
            Attr::F64(config.lr),
            Attr::F64(config.beta1),
            Attr::F64(config.beta2),
            Attr::F64(config.weight_decay),
        ],
    )
}
