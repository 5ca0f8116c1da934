//! What the ops mean: the arithmetic that the schema tells, in f32.

use ds_core::{
    Error, ErrorKind, Result, RngState,
    op::{HostCall, HostTensor},
};

/// What quantised values of a group stand for.
#[derive(Clone, Copy)]
struct Params {
    scale: f32,
    step: f32,
    offset: f32,
}

impl Params {
    fn of(group: &[f32], levels: f32, symmetric: bool) -> Self {
        if group.iter().any(|v| !v.is_finite()) {
            let (scale, step, offset) = (f32::NAN, f32::NAN, f32::NAN);
            return Self {
                scale,
                step,
                offset,
            };
        }
        let low = group.iter().copied().reduce(f32::min).unwrap_or(0.0);
        let high = group.iter().copied().reduce(f32::max).unwrap_or(0.0);
        let (reach, offset) = if symmetric {
            (low.abs().max(high.abs()), 0.0)
        } else {
            (0.5 * high - 0.5 * low, 0.5 * high + 0.5 * low + 0.0)
        };
        let scale = if reach == 0.0 { 1.0 } else { levels / reach };
        Self {
            scale,
            step: 1.0 / scale,
            offset,
        }
    }

    fn kept(pair: &[f64]) -> Self {
        let (step, offset) = (narrow(pair[0]), narrow(pair[1]));
        Self {
            scale: f32::NAN,
            step,
            offset,
        }
    }

    /// Before rounding.
    fn scaled(self, x: f32, levels: f32) -> f32 {
        let v = (x - self.offset) * self.scale;
        if v >= -levels {
            v.min(levels - 1.0)
        } else {
            -levels
        }
    }

    fn quantize(self, x: f32, levels: f32) -> f32 {
        self.scaled(x, levels).round_ties_even()
    }

    fn value(self, q: f32) -> f32 {
        q * self.step + self.offset
    }
}

/// Bytes, params, and the errors that are left, group after group.
struct Quantized {
    bytes: Vec<f64>,
    params: Vec<f64>,
    left: Vec<f32>,
}

/// Quantises groups of `length` values, `per_byte` in a byte.
fn quantize_groups(
    values: &[f32],
    length: usize,
    per_byte: usize,
    symmetric: bool,
    groups: usize,
) -> Result<Quantized> {
    let levels = match per_byte {
        1 => 128.0,
        2 => 8.0,
        other => {
            return Err(refuse(format!(
                "{other} values in a byte; there are 1 of 8 bits or 2 of 4 bits"
            )));
        }
    };
    let mut all = Quantized {
        bytes: Vec::new(),
        params: Vec::new(),
        left: Vec::new(),
    };
    for index in 0..groups {
        let group = &values[index * length..][..length];
        let params = Params::of(group, levels, symmetric);
        let q: Vec<f32> = group.iter().map(|&x| params.quantize(x, levels)).collect();
        all.left
            .extend(group.iter().zip(&q).map(|(x, &q)| x - params.value(q)));
        all.bytes.extend(q.chunks(per_byte).map(pack));
        all.params
            .extend([f64::from(params.step), f64::from(params.offset)]);
    }
    Ok(all)
}

/// A byte of one value, or of two with the first one in the lower half.
#[allow(
    clippy::cast_possible_truncation,
    reason = "whole numbers of a byte or half of one"
)]
fn pack(values: &[f32]) -> f64 {
    match *values {
        [low, high] => f64::from((low as i8 & 0xf) | ((high as i8) << 4)),
        [one, ..] => f64::from(one),
        [] => 0.0,
    }
}

/// The values in a byte.
fn unpack(byte: i64, per_byte: usize) -> Vec<f32> {
    let nibble = |half: i64| narrow_int(((half & 0xf) ^ 8) - 8);
    if per_byte == 1 {
        vec![narrow_int(byte)]
    } else {
        vec![nibble(byte), nibble(byte >> 4)]
    }
}

/// `quantize(x, symmetric) -> (q, params)`, and `swizzle_quantize` alike.
pub(super) fn quantize(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?;
    let values = in_order(x)?;
    let (groups, length, per_byte) = groups(x);
    let done = quantize_groups(&values, length, per_byte, call.flag(0)?, groups)?;
    call.one_mut(1)?.set_f64(&done.bytes)?;
    call.one_mut(2)?.set_f64(&done.params)
}

/// `loco_swizzle_quantize(x, err, err_beta, symmetric) -> (q, params)`.
pub(super) fn loco_swizzle_quantize(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?;
    let err = f32s(call.one(1)?)?;
    let values: Vec<f32> = in_order(x)?.iter().zip(&err).map(|(v, e)| v + e).collect();
    let (groups, length, per_byte) = groups(x);
    let done = quantize_groups(&values, length, per_byte, call.flag(0)?, groups)?;
    let err = feed_back(&err, &done.left, call.scalar(0)?);
    call.one_mut(1)?.set_f64(&err)?;
    call.one_mut(2)?.set_f64(&done.bytes)?;
    call.one_mut(3)?.set_f64(&done.params)
}

/// `dequantize(q, params, y)`.
pub(super) fn dequantize(call: &mut HostCall) -> Result<()> {
    let (_, length, per_byte) = groups(call.one(2)?);
    let y = values_of(
        &call.one(0)?.to_i64()?,
        &call.one(1)?.to_f64()?,
        length / per_byte.max(1),
        per_byte,
    );
    call.one_mut(2)?
        .set_f64(&y.into_iter().map(f64::from).collect::<Vec<_>>())
}

/// `quantized_reduction(q, params, bits, symmetric) -> (out, out_params)`.
pub(super) fn quantized_reduction(call: &mut HostCall) -> Result<()> {
    let per_byte = match HostCall::integer(&call.attributes, 0)? {
        8 => 1,
        4 => 2,
        other => return Err(refuse(format!("bits is {other}, it can be 8 or 4"))),
    };
    let sum = sum(call, per_byte)?;
    let (groups, bytes) = reduced(call)?;
    let done = quantize_groups(&sum, bytes * per_byte, per_byte, call.flag(1)?, groups)?;
    call.one_mut(2)?.set_f64(&done.bytes)?;
    call.one_mut(3)?.set_f64(&done.params)
}

/// `loco_quantized_reduction(q, params, err, err_beta, symmetric) -> (out, out_params)`.
pub(super) fn loco_quantized_reduction(call: &mut HostCall) -> Result<()> {
    let err = f32s(call.one(2)?)?;
    let (groups, length, per_byte) = groups(call.one(2)?);
    let sum = sum(call, per_byte)?;
    let values: Vec<f32> = sum.iter().zip(&err).map(|(v, e)| v + e).collect();
    let done = quantize_groups(&values, length, per_byte, call.flag(0)?, groups)?;
    let err = feed_back(&err, &done.left, call.scalar(0)?);
    call.one_mut(2)?.set_f64(&err)?;
    call.one_mut(3)?.set_f64(&done.bytes)?;
    call.one_mut(4)?.set_f64(&done.params)
}

/// `fake_quantize(x, seed, offset, bits, symmetric, stochastic) -> y`.
pub(super) fn fake_quantize(call: &mut HostCall) -> Result<()> {
    let [seed, offset] = [0, 1].map(|index| HostCall::integer(&call.scalars, index));
    let state = RngState {
        seed: seed?.cast_unsigned(),
        offset: offset?.cast_unsigned(),
    };
    let bits = HostCall::integer(&call.attributes, 0)?;
    if !(2..=16).contains(&bits) {
        return Err(refuse(format!("bits is {bits}, it can be 2 to 16")));
    }
    let levels = narrow_int(1 << (bits - 1));
    let (symmetric, stochastic) = (call.flag(1)?, call.flag(2)?);
    let x = f32s(call.one(0)?)?;
    let length = extent(call.one(0)?, 1);
    let mut y = Vec::with_capacity(x.len());
    for group in x.chunks(length.max(1)) {
        let params = Params::of(group, levels, symmetric);
        for &v in group {
            let q = if stochastic {
                let scaled = params.scaled(v, levels);
                let up = state.uniform(y.len() as u64) < scaled - scaled.floor();
                scaled.floor() + f32::from(u8::from(up))
            } else {
                params.quantize(v, levels)
            };
            y.push(f64::from(params.value(q)));
        }
    }
    call.one_mut(1)?.set_f64(&y)
}

/// The sum of the shards `q[D, G, H]`, the first one first.
fn sum(call: &HostCall, per_byte: usize) -> Result<Vec<f32>> {
    let (groups, bytes) = reduced(call)?;
    let values = values_of(
        &call.one(0)?.to_i64()?,
        &call.one(1)?.to_f64()?,
        bytes,
        per_byte,
    );
    let length = groups * bytes * per_byte;
    let mut shards = values.chunks(length.max(1));
    let mut sum = shards
        .next()
        .map_or_else(|| vec![0.0; length], <[f32]>::to_vec);
    for shard in shards {
        for (sum, value) in sum.iter_mut().zip(shard) {
            *sum += value;
        }
    }
    Ok(sum)
}

/// Groups of a shard, and bytes of a group.
fn reduced(call: &HostCall) -> Result<(usize, usize)> {
    let q = call.one(0)?;
    Ok((extent(q, 1), extent(q, 2)))
}

fn values_of(q: &[i64], params: &[f64], bytes: usize, per_byte: usize) -> Vec<f32> {
    let groups = q.chunks(bytes.max(1)).zip(params.chunks(2));
    let values = groups.flat_map(|(q, pair)| {
        let params = Params::kept(pair);
        q.iter().flat_map(move |&byte| {
            unpack(byte, per_byte)
                .into_iter()
                .map(move |q| params.value(q))
        })
    });
    values.collect()
}

/// `err = beta * err + (1 - beta) * left`.
fn feed_back(err: &[f32], left: &[f32], beta: f64) -> Vec<f64> {
    let beta = narrow(beta);
    let one = |(err, left): (&f32, &f32)| f64::from(beta * err + (1.0 - beta) * left);
    err.iter().zip(left).map(one).collect()
}

/// The elements of `x[.., H, P]`; those of `x[M, D, L, C, H, P]` in the order `[L, D, M, C, H, P]`.
fn in_order(x: &HostTensor) -> Result<Vec<f32>> {
    let values = f32s(x)?;
    if x.shape.len() != 6 {
        return Ok(values);
    }
    let [nodes, devices, slices] = [0, 1, 2].map(|dimension| extent(x, dimension));
    let rest: usize = (3..6).map(|dimension| extent(x, dimension)).product();
    let mut ordered = Vec::with_capacity(values.len());
    for slice in 0..slices {
        for device in 0..devices {
            for node in 0..nodes {
                let at = ((node * devices + device) * slices + slice) * rest;
                ordered.extend_from_slice(&values[at..at + rest]);
            }
        }
    }
    Ok(ordered)
}

/// Groups of `[.., H, P]`, the length of each, and P.
fn groups(x: &HostTensor) -> (usize, usize, usize) {
    let rank = x.shape.len();
    let groups = (0..rank - 2)
        .map(|dimension| extent(x, dimension))
        .product();
    let per_byte = extent(x, rank - 1);
    (groups, extent(x, rank - 2) * per_byte, per_byte)
}

fn extent(x: &HostTensor, dimension: usize) -> usize {
    usize::try_from(x.shape[dimension]).unwrap_or(0)
}

fn f32s(x: &HostTensor) -> Result<Vec<f32>> {
    Ok(x.to_f64()?.into_iter().map(narrow).collect())
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "what comes is f32 or narrower, or rounds to it"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[allow(clippy::cast_precision_loss, reason = "at most 2^15")]
fn narrow_int(value: i64) -> f32 {
    value as f32
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "quantize", why)
}
