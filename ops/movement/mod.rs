//! Data that moves and stays what it is.
//!
//! What is a view needs no op: slices are [`Tensor::narrow`], permutations [`Tensor::transpose`],
//! repetitions [`Tensor::expand`]. [`contiguous`] makes elements of a view lie in order.

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor, op};

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("copy", reference::copy),
    ("index_select", reference::index_select),
    ("scatter_add", reference::scatter_add),
    ("top_k", reference::top_k),
];

/// Copies the elements of `x` into `y`, bit for bit; both may have any strides, `x` may repeat.
///
/// # Shapes
/// Both have the same shape and dtype.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when they differ, or overlap in memory.
pub fn copy(stream: &Stream, x: &Tensor, y: &Tensor) -> Result<()> {
    static OP: OpCell = OpCell::new("copy");
    op::launch(OP.op()?, stream, &[&[x], &[y]], &[], &[])
}

/// `x` with its elements one after another: itself where they are, else a copy.
///
/// # Shapes
/// `x` of any shape; the result has the same.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`].
pub fn contiguous(stream: &Stream, x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() {
        return Ok(x.clone());
    }
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    copy(stream, x, &y)?;
    Ok(y)
}

/// The tensors one behind the other along dimension `axis`.
///
/// # Shapes
/// They have one dtype and differ in no extent but that of `axis`; the result's is the sum.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for no tensor, a dimension that they do not have, or others that differ.
pub fn concat(stream: &Stream, tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
    let first = tensors
        .first()
        .ok_or_else(|| invalid("concat", "no tensor was given"))?;
    let mut shape = first.shape().to_vec();
    if axis >= shape.len() {
        let text = format!("dimension {axis} of tensors with {}", shape.len());
        return Err(invalid("concat", text));
    }
    for tensor in &tensors[1..] {
        let fits = tensor.shape().len() == shape.len()
            && (0..shape.len()).all(|of| of == axis || tensor.shape()[of] == first.shape()[of]);
        if !fits || tensor.dtype() != first.dtype() {
            let text = format!("{tensor:?} beside {first:?} along dimension {axis}");
            return Err(invalid("concat", text));
        }
        shape[axis] += tensor.shape()[axis];
    }
    let y = Tensor::empty(stream, first.dtype(), &shape)?;
    let mut start = 0;
    for tensor in tensors {
        let extent = tensor.shape()[axis];
        copy(stream, tensor, &y.narrow(axis, start, extent)?)?;
        start += extent;
    }
    Ok(y)
}

/// Rows of `x`, in the order of `index`; an index that is none of `x`, a negative one among them, gives a
/// row of zeros. A row is what has one index of the first dimension.
///
/// Its gradient is [`scatter_add`] of the rows' gradients to zeros.
///
/// # Shapes
/// `x`: `[N, ..]`, `index`: `[M]` of i32 or i64; gives `[M, ..]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn index_select(stream: &Stream, x: &Tensor, index: &Tensor) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("index_select");
    let mut shape = x.shape().to_vec();
    if let (Some(rows), Some(&count)) = (shape.first_mut(), index.shape().first()) {
        *rows = count;
    }
    let y = Tensor::empty(stream, x.dtype(), &shape)?;
    op::launch(OP.op()?, stream, &[&[x], &[index], &[&y]], &[], &[])?;
    Ok(y)
}

/// Adds each row of `x` to the row of `y` that `index` says, in their order, so that equal calls give
/// equal bits; an index that is none of `y` adds nothing.
///
/// # Shapes
/// `y`: `[N, ..]` of f32, `index`: `[M]` of i32 or i64, `x`: `[M, ..]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn scatter_add(stream: &Stream, y: &Tensor, index: &Tensor, x: &Tensor) -> Result<()> {
    static OP: OpCell = OpCell::new("scatter_add");
    op::launch(OP.op()?, stream, &[&[y], &[index], &[x]], &[], &[])
}

/// The `k` greatest of each row and where they are, from the greatest on: NaN before all others, of equal
/// ones the lowest index first.
///
/// # Shapes
/// `x`: `[.., D]`; gives values `[.., k]` of `x`'s dtype and indices `[.., k]` of i64.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a `k` that is not within 0 to D, or an `x` without dimensions.
pub fn top_k(stream: &Stream, x: &Tensor, k: i64) -> Result<(Tensor, Tensor)> {
    static OP: OpCell = OpCell::new("top_k");
    let mut shape = x.shape().to_vec();
    match shape.last_mut() {
        Some(last) if (0..=*last).contains(&k) => *last = k,
        _ => return Err(invalid("top_k", format!("k = {k} for {x:?}"))),
    }
    let values = Tensor::empty(stream, x.dtype(), &shape)?;
    let indices = Tensor::empty(stream, DType::I64, &shape)?;
    op::launch(OP.op()?, stream, &[&[x], &[&values], &[&indices]], &[], &[])?;
    Ok((values, indices))
}

fn invalid(op: &'static str, text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text.into())
}
