//! Layers whose weights stay quantised: what few rows meet is read as its codes, which are fewer bytes.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};

use crate::{OpCell, activation::Activation, fp_quantizer, quantizer};

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("quantized_linear", reference::quantized_linear),
    ("fp_linear", reference::fp_linear),
    (
        "quantized_grouped_matmul",
        reference::quantized_grouped_matmul,
    ),
];

static QUANTIZED_LINEAR: OpCell = OpCell::new("quantized_linear");
static FP_LINEAR: OpCell = OpCell::new("fp_linear");
static QUANTIZED_GROUPED_MATMUL: OpCell = OpCell::new("quantized_grouped_matmul");

/// A layer with integer weights: `f(x w^T + bias) + residual`, where `w` is what
/// [`quantize`](quantizer::quantize) made of a weight `[N, K]`, whose groups divide its rows.
///
/// # Shapes
/// `x`: `[.., K]`, contiguous; `bias`: `[N]`, `residual`: as the result, `[.., N]`, contiguous. Groups of any
/// size; those of 32, 64 and multiples of 128 values are read fastest.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `mixed_gemm` of the cutlass ops, weights of 8 and 4 bits with a scale a column there;
/// `quantized_linear` of `deepspeed/inference/quantization`, which makes whole weights before the product.
pub fn quantized_linear(
    stream: &Stream,
    x: &Tensor,
    w: &quantizer::Quantized,
    bits: i64,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (layer, per_byte) = Layer::of_integers(x, residual, w, bits)?;
    let bytes = layer.k.checked_div(layer.groups * per_byte).unwrap_or(0);
    let Layer {
        rows, n, groups, ..
    } = layer;
    let x = layer.x.reshape(&[rows, groups, bytes, per_byte])?;
    let q = w.q.reshape(&[n, groups, bytes])?;
    let params = w.params.reshape(&[n, groups, 2])?;
    let y = Tensor::empty(stream, x.dtype(), &[rows, n])?;
    let (bias, residual) = (bias.as_slice(), layer.residual.as_ref());
    let args: [op::Args<'_>; 6] = [&[&x], &[&q], &[&params], bias, residual.as_slice(), &[&y]];
    let attributes = [activation.attribute()];
    op::launch(QUANTIZED_LINEAR.op()?, stream, &args, &attributes, &[])?;
    y.reshape(&layer.shape)
}

/// The products of experts with integer weights: `f(x w[e]^T + bias[e])` for the rows of each, where `w` is
/// what [`quantize`](quantizer::quantize) made of weights `[E, N, K]`, whose groups divide rows.
///
/// Expert `e` has the rows from `starts[e]` up to `starts[e + 1]`, read on the device; rows of none give 0, and
/// where starts descend or leave `x` all is NaN. [`moe_slots`](crate::moe::moe_slots) makes them.
///
/// # Shapes
/// `x`: `[R, K]`, contiguous, `starts`: `[E + 1]` of i32 or i64, `bias`: `[E, N]`; gives `[R, N]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `mixed_moe_gemm` of the cutlass ops, weights of 8 and 4 bits with a scale a column there.
pub fn quantized_grouped_matmul(
    stream: &Stream,
    x: &Tensor,
    w: &quantizer::Quantized,
    bits: i64,
    starts: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    if x.shape().len() != 2 {
        return Err(refuse(format!("x is {:?}, it has to be [R, K]", x.shape())));
    }
    let experts = starts.elements() - 1;
    let (layer, per_byte) = Layer::of_integers(x, None, w, bits)?;
    if experts < 0 || (layer.n > 0 && layer.n.checked_rem(experts) != Some(0)) {
        let text = format!(
            "starts is {:?}, and {} rows of weights do not divide among as many experts",
            starts.shape(),
            layer.n
        );
        return Err(refuse(text));
    }
    let n = layer.n.checked_div(experts).unwrap_or(0);
    let Layer {
        rows, groups, k, ..
    } = layer;
    let bytes = k.checked_div(groups * per_byte).unwrap_or(0);
    let x = layer.x.reshape(&[rows, groups, bytes, per_byte])?;
    let q = w.q.reshape(&[experts, n, groups, bytes])?;
    let params = w.params.reshape(&[experts, n, groups, 2])?;
    let y = Tensor::empty(stream, x.dtype(), &[rows, n])?;
    let args: [op::Args<'_>; 6] = [&[&x], &[&q], &[&params], &[starts], bias.as_slice(), &[&y]];
    let attributes = [activation.attribute()];
    op::launch(
        QUANTIZED_GROUPED_MATMUL.op()?,
        stream,
        &args,
        &attributes,
        &[],
    )?;
    Ok(y)
}

/// A layer with weights of narrow floats: `f(x w^T + bias) + residual`, where `w` is what
/// [`fp_quantize`](fp_quantizer::fp_quantize) made of a weight `[N, K]`, whose groups divide its rows.
///
/// # Shapes
/// As of [`quantized_linear`]; groups of a multiple of 16 values are read fastest.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// The FP6 layer of the inference core ops, which has E3M2 with a scale a column and f16; and
/// `matmul_fp8` of `deepspeed/ops/fp_quantizer`, which has E4M3 and E5M2 with bf16.
pub fn fp_linear(
    stream: &Stream,
    x: &Tensor,
    w: &fp_quantizer::Quantized,
    format: fp_quantizer::Format,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (per, bytes) = format.packing();
    let layer = Layer::of(
        x,
        residual,
        w.codes.elements() / bytes * per,
        w.step.elements(),
    )?;
    let Layer { n, groups, k, .. } = layer;
    if groups != 0 && k % (groups * per) != 0 {
        let text = format!("groups of {k} / {groups} values fill no whole bytes of {format:?}");
        return Err(refuse(text));
    }
    let parts = k.checked_div(groups * per).unwrap_or(0);
    let x = layer.x.reshape(&[layer.rows, groups, parts, per])?;
    let codes = w.codes.reshape(&[n, groups, parts, bytes])?;
    let step = w.step.reshape(&[n, groups])?;
    let y = Tensor::empty(stream, x.dtype(), &[layer.rows, n])?;
    let (bias, residual) = (bias.as_slice(), layer.residual.as_ref());
    let args: [op::Args<'_>; 6] = [&[&x], &[&codes], &[&step], bias, residual.as_slice(), &[&y]];
    let attributes = [activation.attribute(), format.mantissa()];
    op::launch(FP_LINEAR.op()?, stream, &args, &attributes, &[])?;
    y.reshape(&layer.shape)
}

/// The extents of a call.
struct Layer {
    x: Tensor,
    residual: Option<Tensor>,
    /// Of the result.
    shape: Vec<i64>,
    rows: i64,
    n: i64,
    k: i64,
    /// Of a row of weights.
    groups: i64,
}

impl Layer {
    /// For weights of integers, and how many of them are in a byte.
    fn of_integers(
        x: &Tensor,
        residual: Option<&Tensor>,
        w: &quantizer::Quantized,
        bits: i64,
    ) -> Result<(Self, i64)> {
        let per_byte = match bits {
            8 => 1,
            4 => 2,
            other => return Err(refuse(format!("bits is {other}, it can be 8 or 4"))),
        };
        let (values, groups) = (w.q.elements() * per_byte, w.params.elements() / 2);
        let layer = Self::of(x, residual, values, groups)?;
        let (k, of_row) = (layer.k, layer.groups * per_byte);
        if of_row != 0 && k % of_row != 0 {
            let groups = layer.groups;
            let text = format!(
                "groups of {k} / {groups} values fill no whole bytes of {bits} bits a value"
            );
            return Err(refuse(text));
        }
        Ok((layer, per_byte))
    }

    /// For weights of so many values and groups in all.
    fn of(x: &Tensor, residual: Option<&Tensor>, values: i64, groups: i64) -> Result<Self> {
        let Some((&k, outer)) = x.shape().split_last() else {
            return Err(refuse("x has no dimensions, it has to have K".into()));
        };
        let n = values.checked_div(k).unwrap_or(0);
        if n * k != values {
            return Err(refuse(format!(
                "the weights are {values} values, which are no rows of K = {k}"
            )));
        }
        let of_row = groups.checked_div(n).unwrap_or(0);
        if of_row * n != groups {
            return Err(refuse(format!(
                "{groups} groups do not divide among {n} rows of weights"
            )));
        }
        let rows = outer.iter().product();
        Ok(Self {
            x: x.reshape(&[rows, k])?,
            residual: residual.map(|r| r.reshape(&[rows, n])).transpose()?,
            shape: [outer, &[n]].concat(),
            rows,
            n,
            k,
            groups: of_row,
        })
    }
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "run a quantized layer", why)
}
