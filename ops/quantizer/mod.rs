//! Integer quantisation in groups: weights in memory, gradients on their way (`ZeRO`++, `LoCo`).

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("quantize", reference::quantize),
    ("dequantize", reference::dequantize),
    ("fake_quantize", reference::fake_quantize),
    ("swizzle_quantize", reference::quantize),
    ("loco_swizzle_quantize", reference::loco_swizzle_quantize),
    ("quantized_reduction", reference::quantized_reduction),
    (
        "loco_quantized_reduction",
        reference::loco_quantized_reduction,
    ),
];

static QUANTIZE: OpCell = OpCell::new("quantize");
static DEQUANTIZE: OpCell = OpCell::new("dequantize");
static FAKE_QUANTIZE: OpCell = OpCell::new("fake_quantize");
static SWIZZLE_QUANTIZE: OpCell = OpCell::new("swizzle_quantize");
static LOCO_SWIZZLE_QUANTIZE: OpCell = OpCell::new("loco_swizzle_quantize");
static QUANTIZED_REDUCTION: OpCell = OpCell::new("quantized_reduction");
static LOCO_QUANTIZED_REDUCTION: OpCell = OpCell::new("loco_quantized_reduction");

/// Quantised values of groups.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// Bytes, `i8`: a value of 8 bits each, or two of 4 bits with the first one in the lower half.
    pub q: Tensor,
    /// Step and offset of each group, `f32[.., 2]`: a value is `q * step + offset`.
    pub params: Tensor,
}

/// How a tensor is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of a value: 8 or 4.
    pub bits: i64,
    /// Around zero; else around the middle of the group's range.
    pub symmetric: bool,
}

impl Format {
    /// Values in a byte.
    fn per_byte(self) -> Result<i64> {
        match self.bits {
            8 => Ok(1),
            4 => Ok(2),
            other => Err(refuse(format!("bits is {other}, it can be 8 or 4"))),
        }
    }

    /// `x` as `[outer.., H, P]`, P values in a byte.
    fn split(self, x: &Tensor, outer: &[i64]) -> Result<Tensor> {
        let per_byte = self.per_byte()?;
        let groups = outer.iter().product::<i64>();
        let bytes = x.elements().checked_div(groups * per_byte).unwrap_or(0);
        if bytes * per_byte * groups != x.elements() {
            return Err(refuse(format!(
                "x has {} elements, which are no {groups} groups of equal length in whole bytes of {} bits a value",
                x.elements(),
                self.bits
            )));
        }
        x.reshape(&[outer, &[bytes, per_byte]].concat())
    }

    fn symmetric(self) -> Attr {
        Attr::Bool(self.symmetric)
    }
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "quantize", why)
}

/// How shards go to other devices: those of a node first, then between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swizzle {
    /// Groups of the whole tensor, a multiple of the product of all others.
    pub groups: i64,
    /// Nodes.
    pub nodes: i64,
    /// Devices of a node.
    pub devices: i64,
    /// Slices of a device's share that go one after the other; upstream's pipeline size.
    pub slices: i64,
}

impl Swizzle {
    /// The extents of the groups as they are, `[nodes, devices, slices, groups]`.
    fn extents(self) -> Result<[i64; 4]> {
        let parts = self.nodes * self.devices * self.slices;
        if parts <= 0 || self.groups % parts != 0 {
            let Self {
                groups,
                nodes,
                devices,
                slices,
            } = self;
            return Err(refuse(format!(
                "{groups} groups do not divide among {nodes} nodes of {devices} devices with {slices} slices"
            )));
        }
        Ok([self.nodes, self.devices, self.slices, self.groups / parts])
    }
}

fn swizzled(stream: &Stream, x: &Tensor) -> Result<Quantized> {
    let [m, d, l, c, h, _] = *x.shape() else {
        return Err(refuse(format!("{x:?} has not 6 dimensions")));
    };
    Ok(Quantized {
        q: Tensor::empty(stream, DType::I8, &[l, d, m, c, h])?,
        params: Tensor::empty(stream, DType::F32, &[l, d, m, c, 2])?,
    })
}

/// `x` as integers, in `groups` groups of equal length.
///
/// A group with an infinity or a NaN comes back as NaN.
///
/// # Shapes
/// `x` contiguous, of any shape with a multiple of `groups` elements; gives `q`: `[groups, bytes]`,
/// `params`: `[groups, 2]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/quantize.cu`, `quantize`: f16 only there, and params of one number a group
/// where symmetric. Here the offset is always there, and groups are of any size.
pub fn quantize(stream: &Stream, x: &Tensor, groups: i64, format: Format) -> Result<Quantized> {
    let x = format.split(x, &[groups])?;
    let done = Quantized {
        q: Tensor::empty(stream, DType::I8, &x.shape()[..2])?,
        params: Tensor::empty(stream, DType::F32, &[groups, 2])?,
    };
    let args: [op::Args<'_>; 3] = [&[&x], &[&done.q], &[&done.params]];
    op::launch(QUANTIZE.op()?, stream, &args, &[format.symmetric()], &[])?;
    Ok(done)
}

/// The values of quantised groups as `dtype`: `q * step + offset`.
///
/// # Shapes
/// `[.., groups, bytes]` and `[.., groups, 2]`; gives `[all groups, values]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/dequantize.cu`, `dequantize` and `dequantize_fp32`.
pub fn dequantize(stream: &Stream, from: &Quantized, bits: i64, dtype: DType) -> Result<Tensor> {
    let per_byte = Format {
        bits,
        symmetric: true,
    }
    .per_byte()?;
    let groups = from.params.elements() / 2;
    let bytes = from.q.shape().last().copied().unwrap_or(0);
    let q = from.q.reshape(&[groups, bytes])?;
    let params = from.params.reshape(&[groups, 2])?;
    let y = Tensor::empty(stream, dtype, &[groups, bytes, per_byte])?;
    op::launch(
        DEQUANTIZE.op()?,
        stream,
        &[&[&q], &[&params], &[&y]],
        &[],
        &[],
    )?;
    y.reshape(&[groups, bytes * per_byte])
}

/// How [`fake_quantize`] rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    /// Up or down at random, so that the expectation is the value: element `i` by word `i` of the
    /// generator's draw.
    Stochastic(ds_core::RngState),
}

/// `x` quantised in `groups` groups and back, into `y`, which may be `x` itself.
///
/// # Shapes
/// `x` and `y` contiguous, of one shape with a multiple of `groups` elements.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/fake_quantizer.cu`, `ds_quantize_*` and `ds_sr_quantize_*`, which leave a group
/// of more than a million elements as it is. Here the result is that of [`quantize`] and
/// [`dequantize`]; upstream adds 1e-5 to the range, and does not clamp where asymmetric.
pub fn fake_quantize(
    stream: &Stream,
    x: &Tensor,
    y: &Tensor,
    groups: i64,
    format: Format,
    rounding: Rounding,
) -> Result<()> {
    let length = x.elements().checked_div(groups).unwrap_or(0);
    let (x, y) = (x.reshape(&[groups, length])?, y.reshape(&[groups, length])?);
    let (stochastic, seed, offset) = match rounding {
        Rounding::Nearest => (false, 0, 0),
        Rounding::Stochastic(state) => (true, state.seed, state.offset),
    };
    op::launch(
        FAKE_QUANTIZE.op()?,
        stream,
        &[&[&x], &[&y]],
        &[
            Attr::I64(format.bits),
            format.symmetric(),
            Attr::Bool(stochastic),
        ],
        &[
            Attr::I64(seed.cast_signed()),
            Attr::I64(offset.cast_signed()),
        ],
    )
}

/// [`quantize`], with the groups in the order in which they are sent: what lies node by node in `x`
/// leaves device by device, slice by slice.
///
/// # Shapes
/// `x` contiguous; gives `q`: `[slices, devices, nodes, groups, bytes]`, `params` with 2 for the bytes.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/swizzled_quantize.cu`, `swizzle_quant`; what does not divide is refused here.
pub fn swizzle_quantize(
    stream: &Stream,
    x: &Tensor,
    swizzle: Swizzle,
    format: Format,
) -> Result<Quantized> {
    let x = format.split(x, &swizzle.extents()?)?;
    let done = swizzled(stream, &x)?;
    let args: [op::Args<'_>; 3] = [&[&x], &[&done.q], &[&done.params]];
    op::launch(
        SWIZZLE_QUANTIZE.op()?,
        stream,
        &args,
        &[format.symmetric()],
        &[],
    )?;
    Ok(done)
}

/// [`swizzle_quantize`] of `x + err`; `err` keeps what got lost, `beta` of what it was.
///
/// # Shapes
/// As [`swizzle_quantize`]; `err` has as many elements as `x`, in the order of the result.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/swizzled_quantize.cu`, `loco_swizzle_quant`; sums are f32 here, f16 there.
pub fn loco_swizzle_quantize(
    stream: &Stream,
    x: &Tensor,
    err: &Tensor,
    err_beta: f64,
    swizzle: Swizzle,
    format: Format,
) -> Result<Quantized> {
    let [m, d, l, c] = swizzle.extents()?;
    let (x, err) = (
        format.split(x, &[m, d, l, c])?,
        format.split(err, &[l, d, m, c])?,
    );
    let done = swizzled(stream, &x)?;
    let args: [op::Args<'_>; 4] = [&[&x], &[&err], &[&done.q], &[&done.params]];
    let beta = [Attr::F64(err_beta)];
    op::launch(
        LOCO_SWIZZLE_QUANTIZE.op()?,
        stream,
        &args,
        &[format.symmetric()],
        &beta,
    )?;
    Ok(done)
}

/// The sum of the shards of `devices` devices, quantised again.
///
/// # Shapes
/// The shards lie one after the other, in groups of one length, which is that of the result's.
/// Gives `q`: `[groups, bytes]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/quant_reduce.cu`, `quantized_reduction`, which can change the groups' length,
/// and sums in f16; its callers keep the length.
pub fn quantized_reduction(
    stream: &Stream,
    from: &Quantized,
    devices: i64,
    format: Format,
) -> Result<Quantized> {
    let (shards, done) = Shards::of(stream, from, devices)?;
    let args: [op::Args<'_>; 4] = [&[&shards.q], &[&shards.params], &[&done.q], &[&done.params]];
    let attributes = [Attr::I64(format.bits), format.symmetric()];
    op::launch(QUANTIZED_REDUCTION.op()?, stream, &args, &attributes, &[])?;
    Ok(done)
}

/// [`quantized_reduction`] with `err` added to the sum; `err` keeps what got lost, `beta` of what it
/// was.
///
/// # Shapes
/// As [`quantized_reduction`]; `err` has the elements of one shard.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/quantization/quant_reduce.cu`, `loco_quantized_reduction`.
pub fn loco_quantized_reduction(
    stream: &Stream,
    from: &Quantized,
    err: &Tensor,
    err_beta: f64,
    devices: i64,
    format: Format,
) -> Result<Quantized> {
    let (shards, done) = Shards::of(stream, from, devices)?;
    let err = format.split(err, &[done.q.shape()[0]])?;
    let args: [op::Args<'_>; 5] = [
        &[&shards.q],
        &[&shards.params],
        &[&err],
        &[&done.q],
        &[&done.params],
    ];
    let beta = [Attr::F64(err_beta)];
    op::launch(
        LOCO_QUANTIZED_REDUCTION.op()?,
        stream,
        &args,
        &[format.symmetric()],
        &beta,
    )?;
    Ok(done)
}

/// Quantised tensors of several devices, one behind the other.
struct Shards {
    q: Tensor,
    params: Tensor,
}

impl Shards {
    /// `from` as shards, and room for their sum.
    fn of(stream: &Stream, from: &Quantized, devices: i64) -> Result<(Self, Quantized)> {
        let all = from.params.elements() / 2;
        let groups = all.checked_div(devices).unwrap_or(0);
        if groups * devices != all {
            return Err(refuse(format!(
                "{all} groups do not divide among {devices} devices"
            )));
        }
        let bytes = from.q.elements().checked_div(all).unwrap_or(0);
        let shards = Self {
            q: from.q.reshape(&[devices, groups, bytes])?,
            params: from.params.reshape(&[devices, groups, 2])?,
        };
        let done = Quantized {
            q: Tensor::empty(stream, DType::I8, &[groups, bytes])?,
            params: Tensor::empty(stream, DType::F32, &[groups, 2])?,
        };
        Ok((shards, done))
    }
}
