//! Activation functions, with a bias before them and gated, forward and backward; and the sums of a
//! residual connection.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;
pub(crate) use reference::function;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("activation", reference::activation),
    ("activation_backward", reference::activation_backward),
    ("gated_activation", reference::gated_activation),
    (
        "gated_activation_backward",
        reference::gated_activation_backward,
    ),
    ("bias_backward", reference::bias_backward),
    ("residual_add", reference::residual_add),
];

static ACTIVATION: OpCell = OpCell::new("activation");
static ACTIVATION_BACKWARD: OpCell = OpCell::new("activation_backward");
static GATED_ACTIVATION: OpCell = OpCell::new("gated_activation");
static GATED_ACTIVATION_BACKWARD: OpCell = OpCell::new("gated_activation_backward");
static BIAS_BACKWARD: OpCell = OpCell::new("bias_backward");
static RESIDUAL_ADD: OpCell = OpCell::new("residual_add");

/// A function that an activation applies: the numbers of the schema's `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`: with a bias, its addition alone.
    Identity = 0,
    /// `max(x, 0)`; NaN stays.
    Relu = 1,
    /// `x * (1 + erf(x / sqrt(2))) / 2`.
    Gelu = 2,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
    GeluTanh = 3,
    /// `x * sigmoid(x)`.
    Silu = 4,
    /// The hyperbolic tangent.
    Tanh = 5,
    /// `1 / (1 + exp(-x))`.
    Sigmoid = 6,
}

impl Activation {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Identity,
        Self::Relu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Silu,
        Self::Tanh,
        Self::Sigmoid,
    ];

    /// The schema's attribute.
    pub(crate) fn attribute(self) -> Attr {
        Attr::I64(self as i64)
    }
}

/// `f(x + bias)`.
///
/// # Shapes
/// `x`: `[.., D]`, `bias`: `[D]`; the result is as `x`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `bias_activation` of the inference kernels; `bias_add`, `bias_relu` and `bias_gelu` of
/// `csrc/transformer/inference`, whose gelu is [`Activation::GeluTanh`]. They write over `x`; pass it
/// as `y` to the op for that.
///
/// # Source
/// gelu: Hendrycks and Gimpel 2016, arXiv 1606.08415.
pub fn activation(
    stream: &Stream,
    x: &Tensor,
    bias: Option<&Tensor>,
    kind: Activation,
) -> Result<Tensor> {
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    let args: [&[&Tensor]; 3] = [&[x], bias.as_slice(), &[&y]];
    op::launch(ACTIVATION.op()?, stream, &args, &[kind.attribute()], &[])?;
    Ok(y)
}

/// The gradient of [`activation`] with respect to `x`; that of `bias` is [`bias_backward`] of it.
///
/// # Shapes
/// `dy`, `x`: `[.., D]`, `bias`: `[D]`; the result is as `x`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn activation_backward(
    stream: &Stream,
    dy: &Tensor,
    x: &Tensor,
    bias: Option<&Tensor>,
    kind: Activation,
) -> Result<Tensor> {
    let dx = Tensor::empty(stream, x.dtype(), x.shape())?;
    let args: [&[&Tensor]; 4] = [&[dy], &[x], bias.as_slice(), &[&dx]];
    let attributes = [kind.attribute()];
    op::launch(ACTIVATION_BACKWARD.op()?, stream, &args, &attributes, &[])?;
    Ok(dx)
}

/// What [`gated_activation`] works on.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// What the function is applied to; `swiglu` with [`Activation::Silu`], `geglu` with
    /// [`Activation::Gelu`] or [`Activation::GeluTanh`].
    pub kind: Activation,
    /// The gate. The halves of one tensor are two views of it ([`Tensor::narrow`]).
    pub gate: &'a Tensor,
    /// What is gated.
    pub up: &'a Tensor,
    /// Added to the gate.
    pub gate_bias: Option<&'a Tensor>,
    /// Added to what is gated.
    pub up_bias: Option<&'a Tensor>,
}

/// `f(gate + gate_bias) * (up + up_bias)`.
///
/// # Shapes
/// `gate`, `up`: `[.., D]`, the biases: `[D]`; the result is as `gate`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `gated_activation`: the first half of the last dimension is what is gated, the second the gate;
/// there the product is rounded to the dtype on the way, here once.
///
/// # Source
/// Shazeer 2020, arXiv 2002.05202.
pub fn gated_activation(stream: &Stream, call: Gated<'_>) -> Result<Tensor> {
    let y = Tensor::empty(stream, call.gate.dtype(), call.gate.shape())?;
    op::launch(
        GATED_ACTIVATION.op()?,
        stream,
        &[
            &[call.gate],
            &[call.up],
            call.gate_bias.as_slice(),
            call.up_bias.as_slice(),
            &[&y],
        ],
        &[call.kind.attribute()],
        &[],
    )?;
    Ok(y)
}

/// The gradients of [`gated_activation`] with respect to `gate` and `up`; those of the biases are
/// [`bias_backward`] of them.
///
/// # Shapes
/// `dy`: `[.., D]`; the results are as `gate` and `up`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn gated_activation_backward(
    stream: &Stream,
    dy: &Tensor,
    call: Gated<'_>,
) -> Result<(Tensor, Tensor)> {
    let dgate = Tensor::empty(stream, call.gate.dtype(), call.gate.shape())?;
    let dup = Tensor::empty(stream, call.up.dtype(), call.up.shape())?;
    op::launch(
        GATED_ACTIVATION_BACKWARD.op()?,
        stream,
        &[
            &[dy],
            &[call.gate],
            &[call.up],
            call.gate_bias.as_slice(),
            call.up_bias.as_slice(),
            &[&dgate],
            &[&dup],
        ],
        &[call.kind.attribute()],
        &[],
    )?;
    Ok((dgate, dup))
}

/// The gradient of a bias that every row had added: the sum of `dy` over its rows.
///
/// # Shapes
/// `dy`: `[.., D]`; gives `[D]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn bias_backward(stream: &Stream, dy: &Tensor) -> Result<Tensor> {
    let columns = dy.shape().last().map_or(&[][..], std::slice::from_ref);
    let dbias = Tensor::empty(stream, dy.dtype(), columns)?;
    op::launch(BIAS_BACKWARD.op()?, stream, &[&[dy], &[&dbias]], &[], &[])?;
    Ok(dbias)
}

/// What [`residual_add`] adds.
#[derive(Clone, Copy, Debug)]
pub struct ResidualAdd<'a> {
    /// What a block of the model gives.
    pub x: &'a Tensor,
    /// What goes past the block.
    pub residual: &'a Tensor,
    /// What the attention before it gave, where it still is to be added.
    pub attention: Option<&'a Tensor>,
    /// The bias of the block's last projection.
    pub bias: Option<&'a Tensor>,
    /// That of the attention's.
    pub attention_bias: Option<&'a Tensor>,
    /// What `residual` and the biases are multiplied with; 1 where the model is not split.
    pub residual_scale: f64,
    /// What `attention` is multiplied with.
    pub attention_scale: f64,
}

/// `x + (residual + bias + attention_bias) * residual_scale + attention * attention_scale`.
///
/// # Shapes
/// `x`, `residual`, `attention`: `[.., D]`, the biases: `[D]`; the result is as `x`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `bias_residual` is it without `attention`; `residual_add_bias` with `mlp_after_attn` before a norm
/// has both scales `1 / mp_size`; behind a norm neither `attention` nor scales; without
/// `mlp_after_attn` (GPT-J) only `residual_scale` is `1 / mp_size`. They write over `residual`.
pub fn residual_add(stream: &Stream, call: ResidualAdd<'_>) -> Result<Tensor> {
    let y = Tensor::empty(stream, call.x.dtype(), call.x.shape())?;
    op::launch(
        RESIDUAL_ADD.op()?,
        stream,
        &[
            &[call.x],
            &[call.residual],
            call.attention.as_slice(),
            call.bias.as_slice(),
            call.attention_bias.as_slice(),
            &[&y],
        ],
        &[],
        &[
            Attr::F64(call.residual_scale),
            Attr::F64(call.attention_scale),
        ],
    )?;
    Ok(y)
}
