//! What slots, dispatch and combination mean, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// `moe_slots(assignments, offsets, expert_counts, capacity) -> slots, ends`.
#[allow(
    clippy::cast_precision_loss,
    reason = "rows of a tensor are below 2^53"
)]
pub(super) fn moe_slots(call: &mut HostCall) -> Result<()> {
    let capacity = HostCall::integer(&call.scalars, 0)?;
    let (experts, offsets) = (call.one(0)?.to_i64()?, call.one(1)?.to_i64()?);
    let mut first = Vec::new();
    let mut last = 0;
    for count in call.one(2)?.to_i64()? {
        let rows = if capacity < 0 { count.max(0) } else { capacity };
        first.push(last..last + rows);
        last += rows;
    }
    let slot = |(&expert, &offset): (&i64, &i64)| {
        let rows = usize::try_from(expert).ok().and_then(|e| first.get(e))?;
        let slot = rows.start + offset;
        (rows.contains(&slot) && slot <= i64::from(i32::MAX)).then_some(slot)
    };
    let slots: Vec<f64> = experts
        .iter()
        .zip(&offsets)
        .map(|place| slot(place).unwrap_or(-1) as f64)
        .collect();
    let ends: Vec<f64> = first.iter().map(|rows| rows.end as f64).collect();
    call.one_mut(3)?.set_f64(&slots)?;
    call.one_mut(4)?.set_f64(&ends)
}

/// `moe_dispatch(x, slots, y)`.
pub(super) fn moe_dispatch(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let (rows, d) = (extent(call.one(2)?, 0), extent(call.one(2)?, 1));
    let mut y = vec![0.0; rows * d];
    for (token, slots) in slots(call.one(1)?, rows)?.into_iter().enumerate() {
        for row in slots.into_iter().flatten() {
            y[row * d..][..d].copy_from_slice(&x[token * d..][..d]);
        }
    }
    call.one_mut(2)?.set_f64(&y)
}

/// `moe_combine(y, weights, slots, normalize) -> x`.
pub(super) fn moe_combine(call: &mut HostCall) -> Result<()> {
    let y = call.one(0)?.to_f64()?;
    let (rows, d) = (extent(call.one(0)?, 0), extent(call.one(0)?, 1));
    let places = extent(call.one(2)?, 1);
    let given = match call.args[1].first() {
        Some(weights) => weights.to_f64()?,
        None => vec![1.0; extent(call.one(2)?, 0) * places],
    };
    let mut x = Vec::new();
    for (token, slots) in slots(call.one(2)?, rows)?.into_iter().enumerate() {
        let (weights, _) = weights(&given[token * places..][..places], call.scalar(0)?);
        let mut sum = vec![0.0; d];
        for (row, weight) in slots.into_iter().zip(weights) {
            let Some(row) = row else { continue };
            let of = &y[row * d..][..d];
            sum.iter_mut()
                .zip(of)
                .for_each(|(sum, y)| *sum += weight * y);
        }
        x.extend(sum);
    }
    call.one_mut(3)?.set_f64(&x)
}

/// `moe_combine_backward(dx, y, weights, slots, normalize) -> dy, dweights`.
pub(super) fn moe_combine_backward(call: &mut HostCall) -> Result<()> {
    let (dx, y, given) = (
        call.one(0)?.to_f64()?,
        call.one(1)?.to_f64()?,
        call.one(2)?.to_f64()?,
    );
    let (rows, d) = (extent(call.one(1)?, 0), extent(call.one(1)?, 1));
    let places = extent(call.one(3)?, 1);
    let (mut dy, mut dweights) = (vec![0.0; rows * d], Vec::new());
    for (token, slots) in slots(call.one(3)?, rows)?.into_iter().enumerate() {
        let (weights, by) = weights(&given[token * places..][..places], call.scalar(0)?);
        let dx = &dx[token * d..][..d];
        let mut products = Vec::new();
        for (row, weight) in slots.into_iter().zip(&weights) {
            let Some(row) = row else {
                products.push(0.0);
                continue;
            };
            let of = &y[row * d..][..d];
            products.push(dx.iter().zip(of).map(|(dx, y)| dx * y).sum());
            let to = &mut dy[row * d..][..d];
            to.iter_mut().zip(dx).for_each(|(dy, dx)| *dy = weight * dx);
        }
        let shared: f64 = products.iter().zip(&weights).map(|(p, w)| p * w).sum();
        dweights.extend(products.iter().map(|product| match by {
            Some(by) => (product - shared) / by,
            None => *product,
        }));
    }
    call.one_mut(4)?.set_f64(&dy)?;
    call.one_mut(5)?.set_f64(&dweights)
}

/// A token's weights, and what they were divided by, if they were.
fn weights(given: &[f64], normalize: f64) -> (Vec<f64>, Option<f64>) {
    let sum: f64 = given.iter().sum();
    if normalize == 0.0 || sum.is_nan() || sum <= 0.0 {
        return (given.to_vec(), None);
    }
    (given.iter().map(|weight| weight / sum).collect(), Some(sum))
}

/// The rows that the slots of each token are.
fn slots(slots: &HostTensor, rows: usize) -> Result<Vec<Vec<Option<usize>>>> {
    let (all, places) = (slots.to_i64()?, extent(slots, 1));
    let row = |slot: &i64| usize::try_from(*slot).ok().filter(|row| *row < rows);
    let of = |token| all[token * places..][..places].iter().map(row).collect();
    Ok((0..extent(slots, 0)).map(of).collect())
}

pub(super) fn extent(tensor: &HostTensor, axis: usize) -> usize {
    tensor
        .shape
        .get(axis)
        .and_then(|extent| usize::try_from(*extent).ok())
        .unwrap_or(0)
}
