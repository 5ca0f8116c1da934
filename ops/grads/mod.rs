//! What is done to gradients before a step: their norm, whether they are finite, scale and clip.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("grad_norm", reference::grad_norm),
    ("grad_scale", reference::grad_scale),
    ("grad_clip", reference::grad_clip),
];

static GRAD_NORM: OpCell = OpCell::new("grad_norm");
static GRAD_SCALE: OpCell = OpCell::new("grad_scale");
static GRAD_CLIP: OpCell = OpCell::new("grad_clip");

/// What one pass over gradients tells, on the device.
#[derive(Clone, Debug)]
pub struct GradNorm {
    /// The L2 norm of all of them together: f32, infinite where it is beyond f32.
    pub norm: Tensor,
    /// 1 where an element is infinite or NaN, else 0: f32, as the optimizers' `found_inf` takes it.
    pub found_inf: Tensor,
}

/// The L2 norm of all gradients together, and whether they are finite, in one pass.
///
/// Squares beyond the range of f32 are no matter, large or small: finite gradients have
/// `found_inf` 0 even where their norm is infinite.
///
/// # Shapes
/// Any number of tensors of one dtype: f32, f16 or bf16. Norms of several lists, or of ranks, make
/// one as the root of the sum of their squares.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `get_global_norm_of_tensors` and `CheckOverflow` of `deepspeed/runtime/utils.py`; unlike there,
/// both together, in f32 whatever the gradients are, and without the host waiting.
pub fn grad_norm(stream: &Stream, grads: &[&Tensor]) -> Result<GradNorm> {
    let norm = Tensor::empty(stream, DType::F32, &[])?;
    let found_inf = Tensor::empty(stream, DType::F32, &[])?;
    op::launch(
        GRAD_NORM.op()?,
        stream,
        &[grads, &[&norm], &[&found_inf]],
        &[],
        &[],
    )?;
    Ok(GradNorm { norm, found_inf })
}

/// Multiplies tensors in place by `factor`, and by the value of `by` on the device where there is
/// one. A product of 1 leaves them alone.
///
/// # Shapes
/// Any number of tensors of one dtype; `by` is f32 without dimensions.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn grad_scale(
    stream: &Stream,
    grads: &[&Tensor],
    by: Option<&Tensor>,
    factor: f64,
) -> Result<()> {
    op::launch(
        GRAD_SCALE.op()?,
        stream,
        &[grads, by.as_slice()],
        &[],
        &[Attr::F64(factor)],
    )
}

/// Multiplies gradients in place by `factor * min(1, max_norm / (factor * norm + 1e-6))`.
///
/// `factor` is 1, or the inverse loss scale of gradients that still carry it, whose norm is `norm`:
/// one pass unscales and clips. A product of 1 leaves them alone, a norm that is NaN makes all NaN.
///
/// # Shapes
/// Any number of tensors of one dtype; `norm` is f32 without dimensions, as [`grad_norm`] gives it.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `torch.nn.utils.clip_grad_norm_`, and `unscale_and_clip_grads` of `DeepSpeed`'s `ZeRO` optimizers.
pub fn grad_clip(
    stream: &Stream,
    grads: &[&Tensor],
    norm: &Tensor,
    max_norm: f64,
    factor: f64,
) -> Result<()> {
    op::launch(
        GRAD_CLIP.op()?,
        stream,
        &[grads, &[norm]],
        &[],
        &[Attr::F64(max_norm), Attr::F64(factor)],
    )
}
