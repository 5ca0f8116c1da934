//! Root mean square normalisation over the last dimension, alone and of a sum with a residual,
//! forward and backward.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("rms_norm", reference::rms_norm),
    ("rms_norm_backward", reference::rms_norm_backward),
    ("add_rms_norm", reference::add_rms_norm),
    ("add_rms_norm_backward", reference::add_rms_norm_backward),
];

static RMS_NORM: OpCell = OpCell::new("rms_norm");
static RMS_NORM_BACKWARD: OpCell = OpCell::new("rms_norm_backward");
static ADD_RMS_NORM: OpCell = OpCell::new("add_rms_norm");
static ADD_RMS_NORM_BACKWARD: OpCell = OpCell::new("add_rms_norm_backward");

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
    let rstd = Tensor::empty(stream, DType::F32, rows(x))?;
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

/// What [`add_rms_norm`] adds and normalises with.
#[derive(Clone, Copy, Debug)]
pub struct AddRmsNorm<'a> {
    /// What a block of the model gives.
    pub x: &'a Tensor,
    /// What goes past the block.
    pub residual: &'a Tensor,
    /// The bias of the block's last projection, if it is still to be added.
    pub bias: Option<&'a Tensor>,
    /// The norm's weight.
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

/// `sum = x + bias + residual`, and [`rms_norm`] of it, bit for bit, without reading it again: `(sum,
/// y, rstd)`.
///
/// # Shapes
/// `x`, `residual`: `[.., D]`, `bias`, `weight`: `[D]`; gives `sum`, `y`: `[.., D]` of `x`'s dtype and
/// `rstd`: `[..]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `rms_pre_norm` and `pre_rms_norm`, `csrc/transformer/inference/csrc/rms_norm.cu`, which write the
/// new residual over the old one; here it is a tensor of its own.
pub fn add_rms_norm(stream: &Stream, call: AddRmsNorm<'_>) -> Result<(Tensor, Tensor, Tensor)> {
    let x = call.x;
    let sum = Tensor::empty(stream, x.dtype(), x.shape())?;
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    let rstd = Tensor::empty(stream, DType::F32, rows(x))?;
    op::launch(
        ADD_RMS_NORM.op()?,
        stream,
        &[
            &[x],
            &[call.residual],
            call.bias.as_slice(),
            &[call.weight],
            &[&sum],
            &[&y],
            &[&rstd],
        ],
        &[],
        &[Attr::F64(call.eps)],
    )?;
    Ok((sum, y, rstd))
}

/// Gradients of [`add_rms_norm`], where `dsum` is that of its `sum`: `(dx, dweight)`, with `dx` that
/// of `x` and of `residual` alike. Where `sum` was not used further, they are those of
/// [`rms_norm_backward`]. The gradient of `bias` is the sum of `dx` over its rows.
///
/// # Shapes
/// `dy`, `dsum`, `sum`: `[.., D]`, `weight`: `[D]`, `rstd`: `[..]`; gives `dx`: `[.., D]` and
/// `dweight`: `[D]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn add_rms_norm_backward(
    stream: &Stream,
    dy: &Tensor,
    dsum: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    rstd: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let dx = Tensor::empty(stream, sum.dtype(), sum.shape())?;
    let dweight = Tensor::empty(stream, weight.dtype(), weight.shape())?;
    let args: [&[&Tensor]; 7] = [
        &[dy],
        &[dsum],
        &[sum],
        &[weight],
        &[rstd],
        &[&dx],
        &[&dweight],
    ];
    op::launch(ADD_RMS_NORM_BACKWARD.op()?, stream, &args, &[], &[])?;
    Ok((dx, dweight))
}

/// The shape of what each row has one of.
fn rows(x: &Tensor) -> &[i64] {
    x.shape().split_last().map_or(x.shape(), |(_, rows)| rows)
}
