//! Root mean square normalisation over the last dimension, forward and backward.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("rms_norm", reference::rms_norm),
    ("rms_norm_backward", reference::rms_norm_backward),
];

static RMS_NORM: OpCell = OpCell::new("rms_norm");
static RMS_NORM_BACKWARD: OpCell = OpCell::new("rms_norm_backward");

/// `y = x * rstd * weight` with `rstd = 1 / sqrt(mean(x^2) + eps)`.
///
/// # Shapes
/// `x`: `[.., D]`, `weight`: `[D]`; gives `y`: `[.., D]` of `x`'s dtype and `rstd`: `[..]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Source
/// Zhang and Sennrich 2019, arXiv 1910.07467.
pub fn rms_norm(
    stream: &Stream,
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    let rows = x.shape().split_last().map_or(x.shape(), |(_, rows)| rows);
    let rstd = Tensor::empty(stream, DType::F32, rows)?;
    op::launch(
        RMS_NORM.op()?,
        stream,
        &[&[x], &[weight], &[&y], &[&rstd]],
        &[],
        &[Attr::F64(eps)],
    )?;
    Ok((y, rstd))
}

/// Gradients of [`rms_norm`] with respect to `x` and `weight`, from the `rstd` that it gave.
///
/// # Shapes
/// `dy`, `x`: `[.., D]`, `weight`: `[D]`, `rstd`: `[..]`; gives `dx`: `[.., D]` and `dweight`: `[D]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn rms_norm_backward(
    stream: &Stream,
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let dx = Tensor::empty(stream, x.dtype(), x.shape())?;
    let dweight = Tensor::empty(stream, weight.dtype(), weight.shape())?;
    op::launch(
        RMS_NORM_BACKWARD.op()?,
        stream,
        &[&[dy], &[x], &[weight], &[rstd], &[&dx], &[&dweight]],
        &[],
        &[],
    )?;
    Ok((dx, dweight))
}
