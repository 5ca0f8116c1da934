//! What the op means, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// `rope(x, cos, sin, positions, offset, inverse, interleaved) -> y`.
pub(super) fn rope(call: &mut HostCall) -> Result<()> {
    let (offset, inverse) = (HostCall::integer(&call.scalars, 0)?, call.scalar(1)? != 0.0);
    let interleaved = call.flag(0)?;
    let shape: Vec<usize> = (call.one(0)?.shape.iter())
        .map(|&extent| usize::try_from(extent).unwrap_or(0))
        .collect();
    let (tokens, heads, d) = (shape[1], shape[2], shape[3]);
    let mut y = call.one(0)?.to_f64()?;
    let (cos, sin) = (call.one(1)?.to_f64()?, call.one(2)?.to_f64()?);
    let width = usize::try_from(call.one(1)?.shape[1]).unwrap_or(0);
    let told = call.args[3].first().map(HostTensor::to_i64).transpose()?;
    let points = width.min(d / 2);
    for (index, head) in y.chunks_exact_mut(d.max(1)).enumerate() {
        let token = index / heads;
        let position = match &told {
            Some(positions) => positions[token],
            None => i64::try_from(token % tokens).unwrap_or(i64::MAX),
        };
        let row = usize::try_from(position + offset).unwrap_or(usize::MAX);
        let is_told = row < usize::try_from(call.one(1)?.shape[0]).unwrap_or(0);
        for point in 0..points {
            let (a, b) = if interleaved {
                (2 * point, 2 * point + 1)
            } else {
                (point, points + point)
            };
            let (c, s) = if is_told {
                (cos[row * width + point], sin[row * width + point])
            } else {
                (f64::NAN, f64::NAN)
            };
            let s = if inverse { -s } else { s };
            (head[a], head[b]) = (head[a] * c - head[b] * s, head[b] * c + head[a] * s);
        }
    }
    call.one_mut(4)?.set_f64(&y)
}
