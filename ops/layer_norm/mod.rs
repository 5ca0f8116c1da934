//! Layer normalisation over the last dimension, alone and of a sum with a residual, forward and
//! backward.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("layer_norm", reference::layer_norm),
    ("add_layer_norm", reference::add_layer_norm),
    ("layer_norm_backward", reference::layer_norm_backward),
    (
        "add_layer_norm_backward",
        reference::add_layer_norm_backward,
    ),
];

static LAYER_NORM: OpCell = OpCell::new("layer_norm");
static ADD_LAYER_NORM: OpCell = OpCell::new("add_layer_norm");
static LAYER_NORM_BACKWARD: OpCell = OpCell::new("layer_norm_backward");
static ADD_LAYER_NORM_BACKWARD: OpCell = OpCell::new("add_layer_norm_backward");

/// What [`layer_norm`] gives: the result, and what its backward pass needs of each row.
#[derive(Debug)]
pub struct LayerNorm {
    /// The normalised rows.
    pub y: Tensor,
    /// The mean of each row, in f32.
    pub mean: Tensor,
    /// `1 / sqrt(variance + eps)` of each row, in f32.
    pub rstd: Tensor,
}

/// The gradients of [`layer_norm`] or [`add_layer_norm`].
#[derive(Debug)]
pub struct LayerNormGradients {
    /// Of what was normalised; behind [`add_layer_norm`] of `x` and of `residual` alike.
    pub dx: Tensor,
    /// Of the weight, also where there was none.
    pub dweight: Tensor,
    /// Of the bias, also where there was none.
    pub dbias: Tensor,
}

/// `y = (x - mean) * rstd * weight + bias`, with the mean of each row and `rstd = 1 / sqrt(variance +
/// eps)`; a missing `weight` is 1, a missing `bias` 0. A row with an infinity or a NaN is all NaN.
///
/// # Shapes
/// `x`: `[.., D]`, `weight`, `bias`: `[D]`; gives `y`: `[.., D]` of `x`'s dtype, `mean` and `rstd`:
/// `[..]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/transformer/inference/csrc/layer_norm.cu`; gives mean and rstd for a backward pass, too.
///
/// # Source
/// Ba, Kiros and Hinton 2016, arXiv 1607.06450.
pub fn layer_norm(
    stream: &Stream,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<LayerNorm> {
    let norm = empty(stream, x)?;
    op::launch(
        LAYER_NORM.op()?,
        stream,
        &[
            &[x],
            weight.as_slice(),
            bias.as_slice(),
            &[&norm.y],
            &[&norm.mean],
            &[&norm.rstd],
        ],
        &[],
        &[Attr::F64(eps)],
    )?;
    Ok(norm)
}

/// What [`add_layer_norm`] adds and normalises with.
#[derive(Clone, Copy, Debug)]
pub struct AddLayerNorm<'a> {
    /// What a block of the model gives.
    pub x: &'a Tensor,
    /// What goes past the block.
    pub residual: &'a Tensor,
    /// The bias of the block's last projection, if it is still to be added.
    pub add_bias: Option<&'a Tensor>,
    /// The norm's weight.
    pub weight: Option<&'a Tensor>,
    /// The norm's bias.
    pub bias: Option<&'a Tensor>,
    /// Added to the variance.
    pub eps: f64,
}

/// `sum = x + add_bias + residual`, and [`layer_norm`] of it, bit for bit, without reading it again.
///
/// # Shapes
/// `x`, `residual`: `[.., D]`, `add_bias`, `weight`, `bias`: `[D]`; gives `sum`: `[.., D]` and the
/// norm of it.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `pre_layer_norm`, whose new residual is `sum`; `post_layer_norm`, which keeps `y` only; and the
/// `fused_residual_ln` forms of `csrc/transformer/inference`.
pub fn add_layer_norm(stream: &Stream, call: AddLayerNorm<'_>) -> Result<(Tensor, LayerNorm)> {
    let norm = empty(stream, call.x)?;
    let sum = Tensor::empty(stream, call.x.dtype(), call.x.shape())?;
    op::launch(
        ADD_LAYER_NORM.op()?,
        stream,
        &[
            &[call.x],
            &[call.residual],
            call.add_bias.as_slice(),
            call.weight.as_slice(),
            call.bias.as_slice(),
            &[&sum],
            &[&norm.y],
            &[&norm.mean],
            &[&norm.rstd],
        ],
        &[],
        &[Attr::F64(call.eps)],
    )?;
    Ok((sum, norm))
}

/// Gradients of [`layer_norm`], from the `mean` and `rstd` that it gave.
///
/// # Shapes
/// `dy`, `x`: `[.., D]`, `weight`: `[D]`, `mean`, `rstd`: `[..]`; gives `dx`: `[.., D]`, `dweight`
/// and `dbias`: `[D]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn layer_norm_backward(
    stream: &Stream,
    dy: &Tensor,
    x: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    let to = gradients(stream, x)?;
    op::launch(
        LAYER_NORM_BACKWARD.op()?,
        stream,
        &[
            &[dy],
            &[x],
            weight.as_slice(),
            &[mean],
            &[rstd],
            &[&to.dx],
            &[&to.dweight],
            &[&to.dbias],
        ],
        &[],
        &[],
    )?;
    Ok(to)
}

/// Gradients of [`add_layer_norm`] where its `sum` was used further, with the gradient `dsum`; where
/// it was not, they are those of [`layer_norm_backward`]. The gradient of `add_bias` is the sum of
/// `dx` over its rows.
///
/// # Shapes
/// `dy`, `dsum`, `sum`: `[.., D]`, `weight`: `[D]`, `mean`, `rstd`: `[..]`; gives `dx`: `[.., D]`,
/// `dweight` and `dbias`: `[D]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn add_layer_norm_backward(
    stream: &Stream,
    dy: &Tensor,
    dsum: &Tensor,
    sum: &Tensor,
    weight: Option<&Tensor>,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    let to = gradients(stream, sum)?;
    op::launch(
        ADD_LAYER_NORM_BACKWARD.op()?,
        stream,
        &[
            &[dy],
            &[dsum],
            &[sum],
            weight.as_slice(),
            &[mean],
            &[rstd],
            &[&to.dx],
            &[&to.dweight],
            &[&to.dbias],
        ],
        &[],
        &[],
    )?;
    Ok(to)
}

/// Room for the norm of `x`.
fn empty(stream: &Stream, x: &Tensor) -> Result<LayerNorm> {
    let rows = x.shape().split_last().map_or(x.shape(), |(_, rows)| rows);
    Ok(LayerNorm {
        y: Tensor::empty(stream, x.dtype(), x.shape())?,
        mean: Tensor::empty(stream, DType::F32, rows)?,
        rstd: Tensor::empty(stream, DType::F32, rows)?,
    })
}

/// Room for the gradients of the norm of `x`.
fn gradients(stream: &Stream, x: &Tensor) -> Result<LayerNormGradients> {
    let columns = x.shape().last().map_or(&[][..], std::slice::from_ref);
    Ok(LayerNormGradients {
        dx: Tensor::empty(stream, x.dtype(), x.shape())?,
        dweight: Tensor::empty(stream, x.dtype(), columns)?,
        dbias: Tensor::empty(stream, x.dtype(), columns)?,
    })
}
