//! A bit for an element: signs and flags, packed and unpacked.

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("packbits", reference::packbits),
    ("unpackbits", reference::unpackbits),
];

static PACKBITS: OpCell = OpCell::new("packbits");
static UNPACKBITS: OpCell = OpCell::new("unpackbits");

/// Eight elements a byte, the first one in its highest bit: of floats, whether they are not less than
/// 0 (zeros of both signs and NaN count so); of others, whether they are not 0.
///
/// # Shapes
/// `x` contiguous, of a multiple of 8 elements; gives `[elements / 8]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for another number of elements, or a dtype that the schema does not
/// list.
///
/// # Upstream
/// `packbits` of the op builder of that name (`packbits/packing.cpp`), and `cupy.packbits` of `sign(x) + 1` in
/// `deepspeed/runtime/compression/cupy.py`.
pub fn packbits(stream: &Stream, x: &Tensor) -> Result<Tensor> {
    let n = x.elements();
    if n % 8 != 0 {
        let text = format!("x has {n} elements, which is no multiple of 8");
        return Err(Error::new(ErrorKind::InvalidArgument, "packbits", text));
    }
    let bits = Tensor::empty(stream, DType::U8, &[n / 8])?;
    op::launch(
        PACKBITS.op()?,
        stream,
        &[&[&x.reshape(&[n / 8, 8])?], &[&bits]],
        &[],
        &[],
    )?;
    Ok(bits)
}

/// An element a bit, from the highest bit of each byte on: 1 or 0, or where `signs` 1 or -1, which
/// floats can be.
///
/// # Shapes
/// `bits` contiguous, of any shape; gives `[8 * elements]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a dtype that the schema does not list, or signs of one that has
/// none.
///
/// # Upstream
/// `unpackbits` of the op builder `packbits` (`packbits/packing.cpp`).
pub fn unpackbits(stream: &Stream, bits: &Tensor, dtype: DType, signs: bool) -> Result<Tensor> {
    let n = bits.elements();
    if signs && !dtype.is_float() {
        let text = format!("{dtype} has no -1; signs are for floats");
        return Err(Error::new(ErrorKind::InvalidArgument, "unpackbits", text));
    }
    let x = Tensor::empty(stream, dtype, &[n, 8])?;
    let args: [op::Args<'_>; 2] = [&[&bits.reshape(&[n])?], &[&x]];
    op::launch(UNPACKBITS.op()?, stream, &args, &[Attr::Bool(signs)], &[])?;
    x.reshape(&[8 * n])
}
