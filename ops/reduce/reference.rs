//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

/// `op(x) -> y`, a result a row.
fn of_rows(call: &mut HostCall, f: impl Fn(&[f64]) -> f64) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let width = width(call)?;
    let rows = call.one(1)?.zeros().len();
    let y: Vec<f64> = (0..rows)
        .map(|row| f(&x[row * width..(row + 1) * width]))
        .collect();
    call.one_mut(1)?.set_f64(&y)
}

fn width(call: &HostCall) -> Result<usize> {
    let last = call.one(0)?.shape.last().copied().unwrap_or(1);
    Ok(usize::try_from(last).unwrap_or(0))
}

/// `sum_last(x) -> y`.
pub(super) fn sum_last(call: &mut HostCall) -> Result<()> {
    of_rows(call, |row| row.iter().sum())
}

/// `mean_last(x) -> y`.
#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
pub(super) fn mean_last(call: &mut HostCall) -> Result<()> {
    of_rows(call, |row| row.iter().sum::<f64>() / row.len() as f64)
}

/// `norm_last(x) -> y`.
pub(super) fn norm_last(call: &mut HostCall) -> Result<()> {
    of_rows(call, |row| row.iter().map(|v| v * v).sum::<f64>().sqrt())
}

fn greatest(row: &[f64]) -> f64 {
    let greater = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    row.iter().fold(f64::NEG_INFINITY, |most, &v| {
        if most.is_nan() {
            most
        } else {
            greater(most, v)
        }
    })
}

/// `max_last(x) -> y`.
pub(super) fn max_last(call: &mut HostCall) -> Result<()> {
    of_rows(call, greatest)
}

/// `min_last(x) -> y`.
pub(super) fn min_last(call: &mut HostCall) -> Result<()> {
    of_rows(call, |row| {
        let negated: Vec<f64> = row.iter().map(|v| -v).collect();
        -greatest(&negated)
    })
}

/// `argmax_last(x) -> y`.
#[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
pub(super) fn argmax_last(call: &mut HostCall) -> Result<()> {
    of_rows(call, |row| {
        let most = greatest(row);
        let found = |v: &f64| *v == most || v.is_nan() && most.is_nan();
        row.iter()
            .position(found)
            .map_or(-1.0, |index| index as f64)
    })
}

/// `sum_leading(x) -> y`.
pub(super) fn sum_leading(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let mut y = vec![0.0; width(call)?];
    for row in x.chunks_exact(y.len().max(1)) {
        y.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
    }
    call.one_mut(1)?.set_f64(&y)
}
