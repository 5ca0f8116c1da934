//! Stochastic gradient descent, one step over a list of parameters.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("sgd_step", reference::sgd_step),
    ("sgd_momentum_step", reference::sgd_momentum_step),
];

static SGD_STEP: OpCell = OpCell::new("sgd_step");
static SGD_MOMENTUM_STEP: OpCell = OpCell::new("sgd_momentum_step");

/// What a step of SGD depends on beside the tensors; the defaults are `PyTorch`'s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the momentum buffer; needs the buffers where it is not 0.
    pub momentum: f64,
    /// What a gradient lacks when it joins the buffer, from the second step on.
    pub dampening: f64,
    /// Weight decay (L2), which joins the gradient.
    pub weight_decay: f64,
    /// Look ahead: the update is the gradient with `momentum` times the buffer.
    pub nesterov: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        }
    }
}

/// The lists that a step reads and writes, of equal length.
#[derive(Clone, Copy, Debug)]
pub struct SgdTensors<'a> {
    /// Parameters, updated in place.
    pub params: &'a [&'a Tensor],
    /// Their gradients.
    pub grads: &'a [&'a Tensor],
    /// Momentum buffers, updated in place; none without momentum. The first step writes them
    /// whatever they held.
    pub momentum_buffer: Option<&'a [&'a Tensor]>,
}

/// One step of SGD, in place.
///
/// With `found_inf`, a value other than 0 on the device leaves everything as it is: a first step that
/// was left out has to be made again with `step` 1, or on buffers of zeros.
///
/// # Shapes
/// Two or three lists of equal length; the tensors at one index have equal shapes. `params` and
/// `grads` share a dtype: (f32, f32), (f16, f16), (f16, f32), (bf16, bf16) or (bf16, f32) with the
/// buffers. `step` counts from 1.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks, for momentum
/// without buffers, and for what `PyTorch` refuses: Nesterov's look ahead without momentum or with
/// dampening.
///
/// # Upstream
/// `torch.optim.SGD`, which `DeepSpeed` takes as it is.
pub fn sgd_step(
    stream: &Stream,
    tensors: SgdTensors<'_>,
    found_inf: Option<&Tensor>,
    step: i64,
    config: &SgdConfig,
) -> Result<()> {
    if config.nesterov && (config.momentum <= 0.0 || config.dampening != 0.0) {
        let text = format!(
            "nesterov takes momentum and no dampening, but has {} and {}",
            config.momentum, config.dampening
        );
        return Err(Error::new(ErrorKind::InvalidArgument, "sgd_step", text));
    }
    let Some(buffers) = tensors.momentum_buffer else {
        if config.momentum != 0.0 {
            let text = format!("momentum {} has no buffers", config.momentum);
            return Err(Error::new(ErrorKind::InvalidArgument, "sgd_step", text)
                .with_hint("give `momentum_buffer`"));
        }
        return op::launch(
            SGD_STEP.op()?,
            stream,
            &[tensors.params, tensors.grads, found_inf.as_slice()],
            &[],
            &[Attr::F64(config.lr), Attr::F64(config.weight_decay)],
        );
    };
    op::launch(
        SGD_MOMENTUM_STEP.op()?,
        stream,
        &[tensors.params, tensors.grads, buffers, found_inf.as_slice()],
        &[Attr::Bool(config.nesterov)],
        &[
            Attr::F64(config.lr),
            Attr::F64(config.momentum),
            Attr::F64(config.dampening),
            Attr::F64(config.weight_decay),
            Attr::I64(step),
        ],
    )
}
