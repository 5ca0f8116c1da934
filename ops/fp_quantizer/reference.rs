//! What the ops mean: the arithmetic that the schema tells, in f32.

use ds_core::{
    Error, ErrorKind, Result, RngState,
    op::{HostCall, HostTensor, MiniFloat, Top},
};

/// A format, and how its codes lie in bytes.
#[derive(Clone, Copy)]
struct Layout {
    format: MiniFloat,
    greatest: f32,
    /// Codes that fill `bytes` bytes.
    codes: usize,
    bytes: usize,
}

impl Layout {
    /// Of `wide[.., H, P]` and `packed[.., H, B]`.
    fn of(wide: &HostTensor, packed: &HostTensor, mantissa: i64) -> Result<Self> {
        let [codes, bytes] = [wide, packed].map(|t| extent(t, t.shape.len() - 1));
        let (exponent, mantissa, greatest) = match (codes, bytes, mantissa) {
            (2, 1, 1) => (2, 1, 6.0),
            (4, 3, 2) => (3, 2, 28.0),
            (1, 1, 3) => (4, 3, 480.0),
            (1, 1, 2) => (5, 2, 114_688.0),
            (2, 3, 7) => (4, 7, 510.0),
            (2, 3, 4) => (7, 4, 510.0),
            _ => {
                let text = format!(
                    "{codes} codes in {bytes} bytes with {mantissa} bits of mantissa; there are 2 in 1 with 1, \
                     4 in 3 with 2, 1 in 1 with 3 or 2, 2 in 3 with 7 or 4"
                );
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "quantize to narrow floats",
                    text,
                ));
            }
        };
        let format = MiniFloat::new(exponent, mantissa, Top::Numbers);
        Ok(Self {
            format,
            greatest,
            codes,
            bytes,
        })
    }

    /// The code of `v`; `uniform` decides where there is one.
    fn encode(self, v: f32, uniform: Option<f32>) -> u32 {
        if v.is_nan() {
            return 0;
        }
        let v = v.clamp(-self.greatest, self.greatest);
        let nearest = self.format.from_f64(f64::from(v));
        let Some(uniform) = uniform else {
            return nearest;
        };
        let size = f64::from(v.abs());
        let of = |code| self.format.to_f64(code).abs();
        let below = if of(nearest) > size {
            nearest - 1
        } else {
            nearest
        };
        let rest = (size - of(below)) / (of(below + 1) - of(below));
        // All codes are numbers, and the greatest one has no rest.
        below + u32::from(f64::from(uniform) < rest)
    }

    fn pack(self, codes: &[u32]) -> Vec<f64> {
        let bits = self.format.bits();
        let chunk = |codes: &[u32]| {
            let all = codes.iter().rev().fold(0, |all, code| (all << bits) | code);
            (0..self.bytes)
                .map(move |byte| f64::from((all >> (8 * byte)) & 0xff))
                .collect::<Vec<_>>()
        };
        codes.chunks(self.codes).flat_map(chunk).collect()
    }

    fn unpack(self, bytes: &[u8]) -> Vec<f32> {
        let bits = self.format.bits();
        let chunk = |bytes: &[u8]| {
            let all = bytes
                .iter()
                .rev()
                .fold(0, |all, &byte| (all << 8) | u32::from(byte));
            let code = move |at| (all >> (bits * at)) & ((1 << bits) - 1);
            (0..self.codes)
                .map(move |at| narrow(self.format.to_f64(code(u32::try_from(at).unwrap_or(0)))))
                .collect::<Vec<_>>()
        };
        bytes.chunks(self.bytes).flat_map(chunk).collect()
    }
}

/// The numbers that the codes of `packed[.., H, B]` stand for, as many of a part as `wide[.., H, P]` has.
pub(crate) fn numbers(wide: &HostTensor, packed: &HostTensor, mantissa: i64) -> Result<Vec<f32>> {
    Ok(Layout::of(wide, packed, mantissa)?.unpack(&packed.bytes))
}

/// `fp_quantize(x, codes, seed, offset, mantissa, stochastic) -> step`.
pub(super) fn fp_quantize(call: &mut HostCall) -> Result<()> {
    let mantissa = HostCall::integer(&call.attributes, 0)?;
    let layout = Layout::of(call.one(0)?, call.one(1)?, mantissa)?;
    let stochastic = call.flag(1)?;
    let [seed, offset] = [0, 1].map(|index| HostCall::integer(&call.scalars, index));
    let state = RngState {
        seed: seed?.cast_unsigned(),
        offset: offset?.cast_unsigned(),
    };
    let x: Vec<f32> = call.one(0)?.to_f64()?.into_iter().map(narrow).collect();
    let length = extent(call.one(0)?, 1) * layout.codes;
    let (mut codes, mut steps) = (Vec::with_capacity(x.len()), Vec::new());
    for group in 0..extent(call.one(0)?, 0) {
        let group = &x[group * length..][..length];
        let most = group.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        let (scale, step) = if group.iter().any(|v| !v.is_finite()) {
            (f32::NAN, f32::NAN)
        } else if most == 0.0 {
            (1.0, 1.0)
        } else {
            (layout.greatest / most, most / layout.greatest)
        };
        steps.push(f64::from(step));
        for v in group {
            let uniform = stochastic.then(|| state.uniform(codes.len() as u64));
            codes.push(layout.encode(v * scale, uniform));
        }
    }
    let bytes = layout.pack(&codes);
    call.one_mut(1)?.set_f64(&bytes)?;
    call.one_mut(2)?.set_f64(&steps)
}

/// `fp_dequantize(codes, step, y, mantissa)`.
pub(super) fn fp_dequantize(call: &mut HostCall) -> Result<()> {
    let groups = (0..extent(call.one(1)?, 0)).map(Some).collect::<Vec<_>>();
    expand(call, 2, &groups)
}

/// `fp_selective_dequantize(codes, step, index, y, mantissa)`.
pub(super) fn fp_selective_dequantize(call: &mut HostCall) -> Result<()> {
    let [rows, groups] = [0, 1].map(|at| call.one(1).map(|step| extent(step, at)));
    let (rows, groups) = (rows?, groups?);
    let index = call.one(2)?.to_i64()?;
    let row = |&row: &i64| usize::try_from(row).ok().filter(|&row| row < rows);
    let sources = index.iter().map(row);
    let sources: Vec<_> = sources
        .flat_map(|row| (0..groups).map(move |group| row.map(|row| row * groups + group)))
        .collect();
    expand(call, 3, &sources)
}

/// Writes argument `y`: group after group of the codes, NaN where there is none.
fn expand(call: &mut HostCall, y: usize, groups: &[Option<usize>]) -> Result<()> {
    let mantissa = HostCall::integer(&call.attributes, 0)?;
    let layout = Layout::of(call.one(y)?, call.one(0)?, mantissa)?;
    let packed = call.one(0)?;
    let steps = call.one(1)?.to_f64()?;
    let bytes = extent(packed, packed.shape.len() - 2) * layout.bytes;
    let length = bytes / layout.bytes * layout.codes;
    let mut values = Vec::new();
    for &group in groups {
        match group {
            Some(group) => {
                let codes = &packed.bytes[group * bytes..][..bytes];
                let step = narrow(steps[group]);
                values.extend(
                    layout
                        .unpack(codes)
                        .into_iter()
                        .map(|v| f64::from(v * step)),
                );
            }
            None => values.extend(std::iter::repeat_n(f64::NAN, length)),
        }
    }
    call.one_mut(y)?.set_f64(&values)
}

fn extent(x: &HostTensor, dimension: usize) -> usize {
    usize::try_from(x.shape[dimension]).unwrap_or(0)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "what comes is f32 or narrower"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}
