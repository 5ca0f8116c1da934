//! Lists of tensors as one row and back, and tensors as bytes.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};

use crate::{OpCell, movement::contiguous};

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("flatten", reference::flatten)];

/// The elements of all tensors, one behind the other.
///
/// # Shapes
/// Tensors of any shapes and one dtype; the result has one dimension. Strided ones are copied first. Of no
/// tensor nothing is known, so there has to be one.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for no tensor, or dtypes that differ.
///
/// # Upstream
/// `_flatten_dense_tensors`, which the utils op builder had in C++.
pub fn flatten(stream: &Stream, tensors: &[&Tensor]) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("flatten");
    let Some(first) = tensors.first() else {
        return Err(invalid("flatten", "no tensor was given".to_owned()));
    };
    let elements = tensors.iter().map(|tensor| tensor.elements()).sum();
    let flat = Tensor::empty(stream, first.dtype(), &[elements])?;
    let in_order = tensors.iter().map(|tensor| contiguous(stream, tensor));
    let in_order = in_order.collect::<Result<Vec<_>>>()?;
    let in_order: Vec<&Tensor> = in_order.iter().collect();
    op::launch(OP.op()?, stream, &[&in_order, &[&flat]], &[], &[])?;
    Ok(flat)
}

/// Views of `flat`, one behind the other, with the shapes of `like`; nothing is copied.
///
/// # Shapes
/// `flat` has one dimension, is contiguous and has at least as many elements as they together.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when it does not.
///
/// # Upstream
/// `_unflatten_dense_tensors`.
pub fn unflatten(flat: &Tensor, like: &[&Tensor]) -> Result<Vec<Tensor>> {
    if flat.shape().len() != 1 || !flat.is_contiguous() {
        return Err(invalid(
            "unflatten",
            format!("{flat:?} is no contiguous row"),
        ));
    }
    let mut start = 0;
    let view = |like: &&Tensor| {
        let part = flat.narrow(0, start, like.elements())?;
        start += like.elements();
        part.reshape(like.shape())
    };
    like.iter().map(view).collect()
}

/// The bytes of a tensor, as a view: one dimension of u8.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when its elements are not contiguous.
///
/// # Upstream
/// `csrc/utils/tensor_cast.cpp`; unlike there, the view keeps the memory alive, a strided tensor is
/// refused, and a tensor of one byte becomes u8 too.
pub fn cast_to_byte_tensor(tensor: &Tensor) -> Result<Tensor> {
    tensor.view_bytes()
}

fn invalid(op: &'static str, text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text)
}
