//! Quantisation to narrow floats in groups: weights of 4, 6, 8 and 12 bits.

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, RngState, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;
pub(crate) use reference::numbers;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("fp_quantize", reference::fp_quantize),
    ("fp_dequantize", reference::fp_dequantize),
    (
        "fp_selective_dequantize",
        reference::fp_selective_dequantize,
    ),
];

static FP_QUANTIZE: OpCell = OpCell::new("fp_quantize");
static FP_DEQUANTIZE: OpCell = OpCell::new("fp_dequantize");
static FP_SELECTIVE_DEQUANTIZE: OpCell = OpCell::new("fp_selective_dequantize");

/// A narrow float, of which every code is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 4 bits, up to 6.
    E2M1,
    /// 6 bits, up to 28.
    E3M2,
    /// 8 bits, up to 480: unlike `f8e4m3`, it has no NaN.
    E4M3,
    /// 8 bits, up to 114688: unlike `f8e5m2`, it has neither infinities nor NaN.
    E5M2,
    /// 12 bits, up to 510.
    E4M7,
    /// 12 bits, used up to 510.
    E7M4,
}

impl Format {
    /// Codes, and the bytes that they fill.
    pub(crate) fn packing(self) -> (i64, i64) {
        match self {
            Self::E2M1 => (2, 1),
            Self::E3M2 => (4, 3),
            Self::E4M3 | Self::E5M2 => (1, 1),
            Self::E4M7 | Self::E7M4 => (2, 3),
        }
    }

    pub(crate) fn mantissa(self) -> Attr {
        Attr::I64(match self {
            Self::E2M1 => 1,
            Self::E3M2 | Self::E5M2 => 2,
            Self::E4M3 => 3,
            Self::E7M4 => 4,
            Self::E4M7 => 7,
        })
    }
}

/// Narrow floats of groups: a value is that of its code times the group's step.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// `u8[.., groups, parts, bytes]`; the codes of a part fill its bytes from the least bit on.
    pub codes: Tensor,
    /// `f32[.., groups]`.
    pub step: Tensor,
}

/// `x` as narrow floats, in `groups` groups of equal length; rounded to the nearest, or at random
/// where a draw is given: element `i` by its word `i`.
///
/// A group with an infinity or a NaN comes back as NaN.
///
/// # Shapes
/// `x` contiguous, of any shape with a multiple of `groups` elements that fills whole bytes.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/fp_quantizer/fp_quantize_impl.cu`, which has the step behind the codes of each group, launches
/// nothing for groups of more than about 1536 elements, rounds ties away from zero, makes the least
/// normal number of everything below it, and takes bf16 from Python only.
pub fn fp_quantize(
    stream: &Stream,
    x: &Tensor,
    groups: i64,
    format: Format,
    stochastic: Option<RngState>,
) -> Result<Quantized> {
    let (per, bytes) = format.packing();
    let parts = x.elements().checked_div(groups * per).unwrap_or(0);
    if parts * per * groups != x.elements() {
        let n = x.elements();
        let text = format!(
            "x has {n} elements, which are no {groups} groups of equal length in whole bytes of {format:?}"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, "fp_quantize", text));
    }
    let x = x.reshape(&[groups, parts, per])?;
    let done = Quantized {
        codes: Tensor::empty(stream, DType::U8, &[groups, parts, bytes])?,
        step: Tensor::empty(stream, DType::F32, &[groups])?,
    };
    let state = stochastic.unwrap_or(RngState { seed: 0, offset: 0 });
    op::launch(
        FP_QUANTIZE.op()?,
        stream,
        &[&[&x], &[&done.codes], &[&done.step]],
        &[format.mantissa(), Attr::Bool(stochastic.is_some())],
        &[
            Attr::I64(state.seed.cast_signed()),
            Attr::I64(state.offset.cast_signed()),
        ],
    )?;
    Ok(done)
}

/// The values of narrow floats as `dtype`.
///
/// # Shapes
/// `codes`: `[groups, parts, bytes]`, as [`fp_quantize`] gives them; gives `[groups, values]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/fp_quantizer/fp_quantize_impl.cu`, `dequantize`, which rounds to the dtype before it
/// multiplies, too.
pub fn fp_dequantize(
    stream: &Stream,
    from: &Quantized,
    format: Format,
    dtype: DType,
) -> Result<Tensor> {
    let (per, _) = format.packing();
    let [groups, parts] = [0, 1].map(|at| from.codes.shape().get(at).copied().unwrap_or(0));
    let y = Tensor::empty(stream, dtype, &[groups, parts, per])?;
    let args: [op::Args<'_>; 3] = [&[&from.codes], &[&from.step], &[&y]];
    op::launch(
        FP_DEQUANTIZE.op()?,
        stream,
        &args,
        &[format.mantissa()],
        &[],
    )?;
    y.reshape(&[groups, parts * per])
}

/// [`fp_dequantize`] of the rows whose indices are given; NaN where there is no such row.
///
/// # Shapes
/// `codes`: `[rows, groups, parts, bytes]`, `step`: `[rows, groups]`, `index`: `[k]` of i32 or i64;
/// gives `[k, groups, values]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/fp_quantizer/fp_quantize_impl.cu`, `selective_dequantize`, which reads whatever memory an
/// index points to.
pub fn fp_selective_dequantize(
    stream: &Stream,
    from: &Quantized,
    index: &Tensor,
    format: Format,
    dtype: DType,
) -> Result<Tensor> {
    let (per, _) = format.packing();
    let [groups, parts] = [1, 2].map(|at| from.codes.shape().get(at).copied().unwrap_or(0));
    let y = Tensor::empty(stream, dtype, &[index.elements(), groups, parts, per])?;
    let args: [op::Args<'_>; 4] = [&[&from.codes], &[&from.step], &[index], &[&y]];
    op::launch(
        FP_SELECTIVE_DEQUANTIZE.op()?,
        stream,
        &args,
        &[format.mantissa()],
        &[],
    )?;
    y.reshape(&[index.elements(), groups, parts * per])
}
