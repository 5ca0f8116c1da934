//! Matrix products.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("matmul", reference::matmul)];

static MATMUL: OpCell = OpCell::new("matmul");

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
    op::launch(MATMUL.op()?, stream, &[&[a], &[b], &[&c]], &[], &[])?;
    Ok(c)
}
