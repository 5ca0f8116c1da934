//! LAMB, one step over a list of parameters.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("lamb_step", reference::lamb_step)];

static LAMB_STEP: OpCell = OpCell::new("lamb_step");

/// What a step of LAMB depends on beside the tensors; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LambConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, which joins the update and so its norm.
    pub weight_decay: f64,
    /// Upper bound of the trust ratio.
    pub max_coeff: f64,
    /// Lower bound of the trust ratio.
    pub min_coeff: f64,
    /// What gradients are divided by: the loss scale, times what clipping asks for.
    pub grad_scale: f64,
    /// Add `eps` to the second moment and not to its root.
    pub eps_inside_sqrt: bool,
    /// Multiply the step by `sqrt(1 - beta2^step) / (1 - beta1^step)`.
    pub bias_correction: bool,
}

impl Default for LambConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            max_coeff: 10.0,
            min_coeff: 0.01,
            grad_scale: 1.0,
            eps_inside_sqrt: false,
            bias_correction: true,
        }
    }
}

/// The lists that a step reads and writes, of equal length.
#[derive(Clone, Copy, Debug)]
pub struct LambTensors<'a> {
    /// Parameters, updated in place.
    pub params: &'a [&'a Tensor],
    /// Their gradients.
    pub grads: &'a [&'a Tensor],
    /// First moments, updated in place.
    pub exp_avg: &'a [&'a Tensor],
    /// Second moments, updated in place.
    pub exp_avg_sq: &'a [&'a Tensor],
}

/// One step of LAMB, in place; gives the trust ratio of each tensor, f32 `[tensors]`.
///
/// With `u = m / (sqrt(v) + eps) + weight_decay * p`, the ratio of a tensor is `|p| / |u|` within its
/// bounds, and 1 where one of the norms is 0. With `found_inf`, a value other than 0 on the device
/// leaves everything as it is, and the ratios are 1.
///
/// # Shapes
/// Four lists of equal length; the tensors at one index have equal shapes. Gradients are f32, f16 or
/// bf16, everything else is f32. `step` counts from 1.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// The kernel of `csrc/lamb`; unlike there, a call takes a list, tensors may have more
/// than 2^31 elements, gradients may be bf16, and `found_inf` is honoured. The copy of the parameters
/// in the gradients' dtype is [`crate::cast::cast`].
///
/// # Source
/// You et al. 2020, arXiv 1904.00962.
pub fn lamb_step(
    stream: &Stream,
    tensors: LambTensors<'_>,
    found_inf: Option<&Tensor>,
    step: i64,
    config: &LambConfig,
) -> Result<Tensor> {
    let count = i64::try_from(tensors.params.len()).unwrap_or(i64::MAX);
    let ratios = Tensor::empty(stream, DType::F32, &[count])?;
    let each = (0..count).map(|i| ratios.narrow(0, i, 1)?.reshape(&[]));
    let each = each.collect::<Result<Vec<_>>>()?;
    let each: Vec<&Tensor> = each.iter().collect();
    op::launch(
        LAMB_STEP.op()?,
        stream,
        &[
            tensors.params,
            tensors.grads,
            tensors.exp_avg,
            tensors.exp_avg_sq,
            found_inf.as_slice(),
            &each,
        ],
        &[
            Attr::Bool(config.eps_inside_sqrt),
            Attr::Bool(config.bias_correction),
        ],
        &[
            Attr::F64(config.lr),
            Attr::F64(config.beta1),
            Attr::F64(config.beta2),
            Attr::F64(config.eps),
            Attr::F64(config.weight_decay),
            Attr::F64(config.max_coeff),
            Attr::F64(config.min_coeff),
            Attr::F64(config.grad_scale),
            Attr::I64(step),
        ],
    )?;
    Ok(ratios)
}
