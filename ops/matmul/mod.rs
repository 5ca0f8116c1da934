//! Matrix products, and layers made of one.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};

use crate::{OpCell, activation::Activation};

pub(crate) use cases::cases;
pub(crate) use reference::{grouped, layer};

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("matmul", reference::matmul),
    ("linear", reference::linear),
    ("grouped_matmul", reference::grouped_matmul),
];

static MATMUL: OpCell = OpCell::new("matmul");
static LINEAR: OpCell = OpCell::new("linear");
static GROUPED_MATMUL: OpCell = OpCell::new("grouped_matmul");

/// `c = a b` for each matrix of the batch. A transposed operand is a view with its strides
/// exchanged ([`Tensor::transpose`]); nothing is copied.
///
/// # Shapes
/// `a`: `[.., M, K]`, `b`: `[.., K, N]`; gives `c`: `[.., M, N]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn matmul(stream: &Stream, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut shape = a.shape().to_vec();
    if let (Some(columns), Some(n)) = (shape.last_mut(), b.shape().last()) {
        *columns = *n;
    }
    let c = Tensor::empty(stream, a.dtype(), &shape)?;
    matmul_into(stream, a, b, &c)?;
    Ok(c)
}

/// [`matmul`] into a `c` that is there, of any strides.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn matmul_into(stream: &Stream, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<()> {
    op::launch(MATMUL.op()?, stream, &[&[a], &[b], &[c]], &[], &[])
}

/// A layer: `f(x w^T + bias) + residual`, in one pass over what the product gives.
///
/// Weights that lie as `[K, N]` in memory, passed as their transposed view, are read as they are where few
/// rows meet them; those of `[N, K]` are turned first, but for up to eight rows.
///
/// # Shapes
/// `x`: `[.., K]`, contiguous or of two dimensions; `w`: `[N, K]`, `bias`: `[N]`, `residual`: as the result,
/// `[.., N]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `vector_matmul`, `linear_layer`, `mlp_gemm` and `fused_gemm_gelu` of `csrc/transformer/inference`,
/// `blas_linear` of the inference kernels.
pub fn linear(
    stream: &Stream,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (Some(&k), Some(&n)) = (x.shape().last(), w.shape().first()) else {
        let text = format!(
            "x is {:?} and w is {:?}: neither may be a scalar",
            x.shape(),
            w.shape()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, "run linear", text));
    };
    let mut shape = x.shape().to_vec();
    shape.pop();
    let rows = shape.iter().product();
    shape.push(n);
    let flat = |tensor: &Tensor, columns| match tensor.shape() {
        [_, _] => Ok(tensor.clone()),
        _ => tensor.reshape(&[rows, columns]),
    };
    let (x, residual) = (flat(x, k)?, residual.map(|r| flat(r, n)).transpose()?);
    let y = Tensor::empty(stream, x.dtype(), &[rows, n])?;
    let (bias, residual) = (bias.as_slice(), residual.as_ref());
    let args = &[&[&x][..], &[w], bias, residual.as_slice(), &[&y]];
    op::launch(LINEAR.op()?, stream, args, &[activation.attribute()], &[])?;
    y.reshape(&shape)
}

/// Layers of experts: `f(x w[e]^T + bias[e])` for the rows of each expert, which lie one after the other.
///
/// Rows before the first expert's and behind the last one's are 0. `starts` is read on the device, when the
/// call runs: where its numbers descend or leave the rows there are, all of the result is NaN.
///
/// The gradient of `x` is this op with `w.transpose(1, 2)` of the gradient of what `f` is applied to.
///
/// # Shapes
/// `x`: `[R, K]`, `w`: `[E, N, K]`, with any strides; `starts`: `[E + 1]`, i32 or i64; `bias`: `[E, N]`. Gives
/// `[R, N]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `moe_gemm` of the cutlass ops, which has f16 and bf16, takes where experts end, and follows whatever it
/// reads there.
pub fn grouped_matmul(
    stream: &Stream,
    x: &Tensor,
    w: &Tensor,
    starts: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (&[rows, _], &[experts, n, _]) = (x.shape(), w.shape()) else {
        let text = format!(
            "x is {:?} and w is {:?}: they have to be [R, K] and [E, N, K]",
            x.shape(),
            w.shape()
        );
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "run grouped_matmul",
            text,
        ));
    };
    if starts.elements() != experts + 1 {
        let text = format!(
            "starts is {:?} for {experts} experts, it has to be [{}]",
            starts.shape(),
            experts + 1
        );
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "run grouped_matmul",
            text,
        ));
    }
    let y = Tensor::empty(stream, x.dtype(), &[rows, n])?;
    let args = &[&[x][..], &[w], &[starts], bias.as_slice(), &[&y]];
    let attributes = [activation.attribute()];
    op::launch(GROUPED_MATMUL.op()?, stream, args, &attributes, &[])?;
    Ok(y)
}
