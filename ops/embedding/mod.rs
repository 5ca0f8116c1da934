//! Rows of a table by their indices, and the gradient of the table.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("embedding", reference::embedding),
    ("embedding_backward", reference::embedding_backward),
];

static EMBEDDING: OpCell = OpCell::new("embedding");
static EMBEDDING_BACKWARD: OpCell = OpCell::new("embedding_backward");

/// `y = weight[indices]`; an index that is no row of the table gives a row of NaN.
///
/// # Shapes
/// `weight`: `[V, D]`, `indices`: `[..]` of i64 or i32; gives `[.., D]` of `weight`'s dtype.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/embed`; a bad index reads out of bounds there.
pub fn embedding(stream: &Stream, weight: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let width = weight.shape().last().copied();
    let shape: Vec<i64> = indices.shape().iter().copied().chain(width).collect();
    let y = Tensor::empty(stream, weight.dtype(), &shape)?;
    op::launch(
        EMBEDDING.op()?,
        stream,
        &[&[weight], &[indices], &[&y]],
        &[],
        &[],
    )?;
    Ok(y)
}

/// Gradient of [`embedding`] with respect to `weight`, into `dweight`: each row is the sum of the
/// rows of `dy` at its places, in their order, so equal calls give equal bits. With `accumulate` it
/// is added to what is there, and rows that no index names are not touched.
///
/// The row `padding_idx` gets no gradient, and an index that is no row of the table adds to none.
///
/// # Shapes
/// `dy`: `[.., D]`, `indices`: `[..]` of i64 or i32, `dweight`: `[V, D]`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn embedding_backward(
    stream: &Stream,
    dy: &Tensor,
    indices: &Tensor,
    dweight: &Tensor,
    padding_idx: Option<i64>,
    accumulate: bool,
) -> Result<()> {
    op::launch(
        EMBEDDING_BACKWARD.op()?,
        stream,
        &[&[dy], &[indices], &[dweight]],
        &[],
        &[Attr::I64(padding_idx.unwrap_or(-1)), Attr::Bool(accumulate)],
    )
}
