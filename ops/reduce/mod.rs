//! Sums, extremes and norms: over the last dimension, over all others, over everything.
//!
//! Over everything means over one long row: give `x.reshape(&[x.elements()])`, as [`sum_all`] does.
//! Long rows are shared by threads, so that costs nothing.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("sum_last", reference::sum_last),
    ("mean_last", reference::mean_last),
    ("norm_last", reference::norm_last),
    ("max_last", reference::max_last),
    ("min_last", reference::min_last),
    ("argmax_last", reference::argmax_last),
    ("sum_leading", reference::sum_leading),
];

/// Typed calls over the last dimension whose result may be f32 instead of `x`'s dtype.
macro_rules! summed {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Shapes
        /// `x`: `[.., D]`; the result is `[..]` of `dtype`, which is `x`'s or f32.
        ///
        /// # Errors
        /// [`ds_core::ErrorKind::InvalidArgument`] for another dtype, or an `x` without dimensions.
        pub fn $name(stream: &Stream, x: &Tensor, dtype: DType) -> Result<Tensor> {
            static OP: OpCell = OpCell::new(stringify!($name));
            over_last(&OP, stream, x, dtype)
        }
    )*};
}

summed! {
    /// The sum of each row.
    sum_last;
    /// The mean of each row; NaN of a row without elements.
    mean_last;
    /// The Euclidean norm of each row; infinite where a square exceeds f32.
    norm_last;
}

/// Typed calls over the last dimension whose result has a dtype of its own.
macro_rules! picked {
    ($($(#[$doc:meta])* $name:ident -> $dtype:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Shapes
        /// `x`: `[.., D]`; the result is `[..]`.
        ///
        /// # Errors
        /// [`ds_core::ErrorKind::InvalidArgument`] for a dtype that the schema does not list, or an `x`
        /// without dimensions.
        pub fn $name(stream: &Stream, x: &Tensor) -> Result<Tensor> {
            static OP: OpCell = OpCell::new(stringify!($name));
            let dtype: fn(&Tensor) -> DType = $dtype;
            over_last(&OP, stream, x, dtype(x))
        }
    )*};
}

picked! {
    /// The greatest of each row; NaN where there is one, minus infinity of a row without elements.
    max_last -> Tensor::dtype;
    /// The least of each row; NaN where there is one, infinity of a row without elements.
    min_last -> Tensor::dtype;
    /// Where the greatest of each row is, as i64: the first of equal ones, the first NaN where there is
    /// one, -1 for a row without elements.
    argmax_last -> |_| DType::I64;
}

fn over_last(cell: &'static OpCell, stream: &Stream, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let rows = x.shape().split_last().map_or(x.shape(), |(_, rows)| rows);
    let y = Tensor::empty(stream, dtype, rows)?;
    op::launch(cell.op()?, stream, &[&[x], &[&y]], &[], &[])?;
    Ok(y)
}

/// The sum of all elements.
///
/// # Shapes
/// `x` of any shape, contiguous; the result has no dimensions and is of `dtype`, `x`'s or f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] for another dtype, or a strided `x`.
pub fn sum_all(stream: &Stream, x: &Tensor, dtype: DType) -> Result<Tensor> {
    sum_last(stream, &x.reshape(&[x.elements()])?, dtype)
}

/// The sum of all rows: the gradient of a row that was repeated, such as a bias.
///
/// # Shapes
/// `x`: `[.., D]`; the result is `[D]` of `dtype`, which is `x`'s or f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] for another dtype, or an `x` without dimensions.
pub fn sum_leading(stream: &Stream, x: &Tensor, dtype: DType) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("sum_leading");
    let width = x.shape().last().map_or(&[][..], std::slice::from_ref);
    let y = Tensor::empty(stream, dtype, width)?;
    op::launch(OP.op()?, stream, &[&[x], &[&y]], &[], &[])?;
    Ok(y)
}
