//! Softmax over the last dimension, its logarithm, and their gradients.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("softmax", reference::softmax),
    ("softmax_backward", reference::softmax_backward),
    ("log_softmax", reference::log_softmax),
    ("log_softmax_backward", reference::log_softmax_backward),
];

static SOFTMAX: OpCell = OpCell::new("softmax");
static SOFTMAX_BACKWARD: OpCell = OpCell::new("softmax_backward");
static LOG_SOFTMAX: OpCell = OpCell::new("log_softmax");
static LOG_SOFTMAX_BACKWARD: OpCell = OpCell::new("log_softmax_backward");

/// What a softmax is taken of; by default of `x` alone.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxConfig<'a> {
    /// Factor of `x`.
    pub scale: f64,
    /// Added to the scaled `x`, of its shape and dtype; repeat a smaller one with
    /// [`Tensor::expand`]. Minus infinity hides an element.
    pub mask: Option<&'a Tensor>,
    /// Row `q` of the last but one dimension, of `Q`, sees the first `D - Q + q + 1` columns only.
    pub causal: bool,
}

impl Default for SoftmaxConfig<'_> {
    fn default() -> Self {
        Self {
            scale: 1.0,
            mask: None,
            causal: false,
        }
    }
}

/// `y = exp(scale * x + mask) / sum(exp(scale * x + mask))` over the last dimension.
///
/// A row that the mask or `causal` leaves nothing of is 0. Without a mask, a row whose every visible
/// `x` is minus infinity is NaN, and with one or without, so is a row with an infinity or a NaN.
///
/// # Shapes
/// `x`: `[.., D]`; gives the same shape and dtype.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/transformer/inference/csrc/softmax.cu`; unlike there, a mask of any shape repeats, hidden
/// elements are exactly 0, and rows have any length. Rows left nothing are those of `PyTorch`'s
/// `scaled_dot_product_attention`.
pub fn softmax(stream: &Stream, x: &Tensor, config: &SoftmaxConfig<'_>) -> Result<Tensor> {
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    op::launch(
        SOFTMAX.op()?,
        stream,
        &[&[x], config.mask.as_slice(), &[&y]],
        &[Attr::Bool(config.causal)],
        &[Attr::F64(config.scale)],
    )?;
    Ok(y)
}

/// Gradient of [`softmax`] with respect to `x`, from the `y` that it gave and its `scale`.
///
/// # Shapes
/// `dy`, `y`: `[.., D]`; gives the same shape and dtype.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn softmax_backward(stream: &Stream, dy: &Tensor, y: &Tensor, scale: f64) -> Result<Tensor> {
    let dx = Tensor::empty(stream, y.dtype(), y.shape())?;
    op::launch(
        SOFTMAX_BACKWARD.op()?,
        stream,
        &[&[dy], &[y], &[&dx]],
        &[],
        &[Attr::F64(scale)],
    )?;
    Ok(dx)
}

/// `y = x - log(sum(exp(x)))` over the last dimension.
///
/// # Shapes
/// `x`: `[.., D]`; gives the same shape and dtype.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn log_softmax(stream: &Stream, x: &Tensor) -> Result<Tensor> {
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    op::launch(LOG_SOFTMAX.op()?, stream, &[&[x], &[&y]], &[], &[])?;
    Ok(y)
}

/// Gradient of [`log_softmax`], from the `y` that it gave.
///
/// # Shapes
/// `dy`, `y`: `[.., D]`; gives the same shape and dtype.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn log_softmax_backward(stream: &Stream, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    let dx = Tensor::empty(stream, y.dtype(), y.shape())?;
    op::launch(
        LOG_SOFTMAX_BACKWARD.op()?,
        stream,
        &[&[dy], &[y], &[&dx]],
        &[],
        &[],
    )?;
    Ok(dx)
}
