//! What the ops mean, in f64.

use ds_core::{Error, ErrorKind, Result, op::HostCall};

use crate::{
    fp_quantizer::numbers,
    matmul::{grouped, layer},
};

/// `quantized_linear(x, q, params, bias, residual; kind) -> y`.
pub(super) fn quantized_linear(call: &mut HostCall) -> Result<()> {
    let (x, w, k) = widened(call)?;
    layer(call, 3, &x, &w, k)
}

/// `quantized_grouped_matmul(x, q, params, starts, bias; kind) -> y`.
pub(super) fn quantized_grouped_matmul(call: &mut HostCall) -> Result<()> {
    let (x, w, k) = widened(call)?;
    grouped(call, 3, &x, &w, k)
}

/// x, the weights that the codes stand for, and K.
fn widened(call: &HostCall) -> Result<(Vec<f64>, Vec<f64>, usize)> {
    let x = call.one(0)?;
    let [_, groups, bytes, per_byte] = x.shape[..] else {
        return Err(refuse(format!("x is {:?}", x.shape)));
    };
    if per_byte != 1 && per_byte != 2 {
        let text = format!("{per_byte} values in a byte; there are 1 of 8 bits or 2 of 4 bits");
        return Err(refuse(text));
    }
    let params = call.one(2)?.to_f64()?;
    let of = |byte: i64| {
        let nibble = |half: i64| number(((half & 0xf) ^ 8) - 8);
        if per_byte == 1 {
            vec![number(byte)]
        } else {
            vec![nibble(byte), nibble(byte >> 4)]
        }
    };
    let codes: Vec<f64> = call.one(1)?.to_i64()?.into_iter().flat_map(of).collect();
    let length = usize::try_from(bytes * per_byte).unwrap_or(0);
    let w = codes
        .chunks(length.max(1))
        .zip(params.chunks(2))
        .flat_map(|(group, params)| group.iter().map(|q| q * params[0] + params[1]))
        .collect();
    let k = usize::try_from(groups).unwrap_or(0) * length;
    Ok((x.to_f64()?, w, k))
}

/// `fp_linear(x, codes, step, bias, residual; kind, mantissa) -> y`.
pub(super) fn fp_linear(call: &mut HostCall) -> Result<()> {
    let (x, codes) = (call.one(0)?, call.one(1)?);
    let numbers = numbers(x, codes, HostCall::integer(&call.attributes, 1)?)?;
    let [_, groups, parts, per] = x.shape[..] else {
        return Err(refuse(format!("x is {:?}", x.shape)));
    };
    let length = usize::try_from(parts * per).unwrap_or(0);
    let (x, step) = (x.to_f64()?, call.one(2)?.to_f64()?);
    let w: Vec<f64> = numbers
        .chunks(length.max(1))
        .zip(&step)
        .flat_map(|(group, step)| group.iter().map(move |number| f64::from(*number) * step))
        .collect();
    let k = usize::try_from(groups).unwrap_or(0) * length;
    layer(call, 3, &x, &w, k)
}

#[allow(clippy::cast_precision_loss, reason = "bytes")]
fn number(value: i64) -> f64 {
    value as f64
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "run a quantized layer", why)
}
