//! What the ops mean.

use std::cmp::Reverse;

use ds_core::{Result, op::HostCall};

/// `copy(x) -> y`.
pub(super) fn copy(call: &mut HostCall) -> Result<()> {
    let (x, y) = (call.one(0)?, call.one(1)?);
    if x.dtype == y.dtype {
        call.one_mut(1)?.bytes = x.bytes.clone();
        return Ok(());
    }
    let values = x.to_f64()?; // into the wider float that a result is held against
    call.one_mut(1)?.set_f64(&values)
}

/// `index_select(x, index) -> y`.
pub(super) fn index_select(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let width = width(&call.one(0)?.shape);
    let mut y = Vec::new();
    for index in call.one(1)?.to_i64()? {
        match row_of(&x, index, width) {
            Some(row) => y.extend_from_slice(row),
            None => y.extend(std::iter::repeat_n(0.0, width)),
        }
    }
    call.one_mut(2)?.set_f64(&y)
}

/// `scatter_add(y, index, x)`.
pub(super) fn scatter_add(call: &mut HostCall) -> Result<()> {
    let mut y = call.one(0)?.to_f64()?;
    let x = call.one(2)?.to_f64()?;
    let width = width(&call.one(2)?.shape);
    for (at, index) in call.one(1)?.to_i64()?.into_iter().enumerate() {
        let start = usize::try_from(index)
            .ok()
            .and_then(|i| i.checked_mul(width));
        let Some(row) = start.and_then(|start| y.get_mut(start..start.checked_add(width)?)) else {
            continue;
        };
        let terms = &x[at * width..];
        row.iter_mut().zip(terms).for_each(|(sum, v)| *sum += v);
    }
    call.one_mut(0)?.set_f64(&y)
}

/// `top_k(x, values, indices)`.
#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
pub(super) fn top_k(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let (d, k) = (last(&call.one(0)?.shape), last(&call.one(1)?.shape));
    let rows = call.one(1)?.zeros().len() / k.max(1);
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let row = &x[row * d..(row + 1) * d];
        let mut order: Vec<usize> = (0..d).collect();
        // A stable sort: of equal ones, the zeros of both signs among them, the lowest index is first.
        order.sort_by(|&a, &b| {
            let nan = Reverse(row[a].is_nan()).cmp(&Reverse(row[b].is_nan()));
            nan.then(
                row[b]
                    .partial_cmp(&row[a])
                    .unwrap_or(std::cmp::Ordering::Equal),
            )
        });
        for place in 0..k {
            let index = order.get(place);
            values.push(index.map_or(f64::NEG_INFINITY, |&index| row[index]));
            indices.push(index.map_or(-1.0, |&index| index as f64));
        }
    }
    call.one_mut(1)?.set_f64(&values)?;
    call.one_mut(2)?.set_f64(&indices)
}

/// Extent of the last dimension.
fn last(shape: &[i64]) -> usize {
    usize::try_from(*shape.last().unwrap_or(&0)).unwrap_or(0)
}

/// Elements of a row: all dimensions behind the first.
fn width(shape: &[i64]) -> usize {
    usize::try_from(shape[1..].iter().product::<i64>()).unwrap_or(0)
}

fn row_of(x: &[f64], index: i64, width: usize) -> Option<&[f64]> {
    let start = usize::try_from(index).ok()?.checked_mul(width)?;
    x.get(start..start.checked_add(width)?)
}
