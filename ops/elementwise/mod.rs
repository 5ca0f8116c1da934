//! Arithmetic element by element: of two tensors, of one, and choices by a mask.
//!
//! The calls of two tensors repeat them to their common shape, as NumPy and `PyTorch` do; both have one
//! dtype. What a gradient of a repeated tensor is then follows from [`crate::reduce`]: its sum over the
//! dimensions that were repeated.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("add", reference::add),
    ("sub", reference::sub),
    ("mul", reference::mul),
    ("div", reference::div),
    ("maximum", reference::maximum),
    ("minimum", reference::minimum),
    ("add_scaled", reference::add_scaled),
    ("scale", reference::scale),
    ("clamp", reference::clamp),
    ("neg", reference::neg),
    ("abs", reference::abs),
    ("exp", reference::exp),
    ("log", reference::log),
    ("sqrt", reference::sqrt),
    ("rsqrt", reference::rsqrt),
    ("square", reference::square),
    ("reciprocal", reference::reciprocal),
    ("select", reference::select),
    ("masked_fill", reference::masked_fill),
];

/// Typed calls of two tensors: a line of documentation, the function.
macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Shapes
        /// `a` and `b` are repeated to their common shape, which the result has.
        ///
        /// # Errors
        /// [`ErrorKind::InvalidArgument`] when there is no common shape, or the dtypes differ.
        pub fn $name(stream: &Stream, a: &Tensor, b: &Tensor) -> Result<Tensor> {
            static OP: OpCell = OpCell::new(stringify!($name));
            launch_two(&OP, stream, a, b, &[])
        }
    )*};
}

binary! {
    /// `a + b`.
    add;
    /// `a - b`.
    sub;
    /// `a * b`.
    mul;
    /// `a / b`.
    div;
    /// The greater of `a` and `b`, NaN where one of them is; of two zeros either one.
    maximum;
    /// The lesser of `a` and `b`, NaN where one of them is; of two zeros either one.
    minimum;
}

/// `a + alpha * b`, with `alpha` rounded to f32. A product beyond f32 may be infinite before it is added.
///
/// # Shapes
/// `a` and `b` are repeated to their common shape, which the result has.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when there is no common shape, or the dtypes differ.
pub fn add_scaled(stream: &Stream, a: &Tensor, b: &Tensor, alpha: f64) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("add_scaled");
    launch_two(&OP, stream, a, b, &[Attr::F64(alpha)])
}

/// Typed calls of one tensor: a line of documentation, the function.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident($($scalar:ident),*);)*) => {$(
        $(#[$doc])*
        ///
        /// # Shapes
        /// `x` of any shape; the result has the same.
        ///
        /// # Errors
        /// [`ErrorKind::InvalidArgument`] for a dtype that the schema does not list.
        pub fn $name(stream: &Stream, x: &Tensor, $($scalar: f64),*) -> Result<Tensor> {
            static OP: OpCell = OpCell::new(stringify!($name));
            let y = Tensor::empty(stream, x.dtype(), x.shape())?;
            op::launch(OP.op()?, stream, &[&[x], &[&y]], &[], &[$(Attr::F64($scalar)),*])?;
            Ok(y)
        }
    )*};
}

unary! {
    /// `-x`.
    neg();
    /// The magnitude of `x`.
    abs();
    /// e to the power of `x`.
    exp();
    /// The natural logarithm of `x`: minus infinity at zero, NaN below.
    log();
    /// The square root of `x`, NaN below zero.
    sqrt();
    /// `1 / sqrt(x)`.
    rsqrt();
    /// `x * x`.
    square();
    /// `1 / x`.
    reciprocal();
    /// `factor * x + shift`, with both rounded to f32. A product beyond f32 may be infinite before it is
    /// added to.
    scale(factor, shift);
    /// `x`, but at least `min` and then at most `max`, both rounded to f32; NaN stays NaN.
    clamp(min, max);
}

/// `a` where the condition holds, `b` elsewhere, bit for bit; `PyTorch`'s `where`, JAX's `select`.
///
/// # Shapes
/// `condition`, of booleans, `a` and `b` are repeated to their common shape, which the result has.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when there is no common shape, or the dtypes do not fit.
pub fn select(stream: &Stream, condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("select");
    let shape = common_shape("select", a.shape(), b.shape())?;
    let shape = common_shape("select", condition.shape(), &shape)?;
    let (condition, a, b) = (
        condition.expand(&shape)?,
        a.expand(&shape)?,
        b.expand(&shape)?,
    );
    let y = Tensor::empty(stream, a.dtype(), &shape)?;
    let args: [op::Args<'_>; 4] = [&[&condition], &[&a], &[&b], &[&y]];
    op::launch(OP.op()?, stream, &args, &[], &[])?;
    Ok(y)
}

/// `value`, rounded to f32 and then to the dtype, where the mask is set, `x` elsewhere.
///
/// # Shapes
/// `mask`, of booleans, is repeated to the shape of `x`, which the result has.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when the mask does not repeat to that shape.
pub fn masked_fill(stream: &Stream, x: &Tensor, mask: &Tensor, value: f64) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("masked_fill");
    let mask = mask.expand(x.shape())?;
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    let args: [op::Args<'_>; 3] = [&[x], &[&mask], &[&y]];
    op::launch(OP.op()?, stream, &args, &[], &[Attr::F64(value)])?;
    Ok(y)
}

fn launch_two(
    cell: &'static OpCell,
    stream: &Stream,
    a: &Tensor,
    b: &Tensor,
    scalars: &[Attr],
) -> Result<Tensor> {
    let op = cell.op()?;
    if a.shape() == b.shape() {
        let y = Tensor::empty(stream, a.dtype(), a.shape())?;
        op::launch(op, stream, &[&[a], &[b], &[&y]], &[], scalars)?;
        return Ok(y);
    }
    let shape = common_shape(op.name(), a.shape(), b.shape())?;
    let (a, b) = (a.expand(&shape)?, b.expand(&shape)?);
    let y = Tensor::empty(stream, a.dtype(), &shape)?;
    op::launch(op, stream, &[&[&a], &[&b], &[&y]], &[], scalars)?;
    Ok(y)
}

/// The shape that both repeat to: dimensions are matched from the last one, and of two extents one is
/// 1, or missing, or they are equal.
fn common_shape(op: &str, a: &[i64], b: &[i64]) -> Result<Vec<i64>> {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    let missing = long.len() - short.len();
    let mut shape = long.to_vec();
    for (extent, &other) in shape[missing..].iter_mut().zip(short) {
        if *extent == 1 {
            *extent = other;
        } else if other != 1 && other != *extent {
            let text = format!("{a:?} and {b:?} have no common shape");
            return Err(
                Error::new(ErrorKind::InvalidArgument, op.to_owned(), text).with_hint(
                    "extents are matched from the last one, and differ only where one of them is 1",
                ),
            );
        }
    }
    Ok(shape)
}
