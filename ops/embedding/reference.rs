//! What the ops mean.

use ds_core::{Result, op::HostCall};

/// `embedding(weight, indices) -> y`.
pub(super) fn embedding(call: &mut HostCall) -> Result<()> {
    let (weight, indices) = (call.one(0)?.to_f64()?, call.one(1)?.to_i64()?);
    let (rows, d) = (call.one(0)?.shape[0], extent(call.one(0)?.shape[1]));
    let mut y = Vec::with_capacity(indices.len() * d);
    for index in indices {
        match row(index, rows) {
            Some(row) => y.extend_from_slice(&weight[row * d..][..d]),
            None => y.extend(std::iter::repeat_n(f64::NAN, d)),
        }
    }
    call.one_mut(2)?.set_f64(&y)
}

/// `embedding_backward(dy, indices, dweight, padding_idx, accumulate)`.
pub(super) fn embedding_backward(call: &mut HostCall) -> Result<()> {
    let padding = HostCall::integer(&call.scalars, 0)?;
    let accumulate = call.scalar(1)? != 0.0;
    let (dy, indices) = (call.one(0)?.to_f64()?, call.one(1)?.to_i64()?);
    let (rows, d) = (call.one(2)?.shape[0], extent(call.one(2)?.shape[1]));
    let mut dweight = if accumulate {
        call.one(2)?.to_f64()?
    } else {
        call.one(2)?.zeros()
    };
    for (place, index) in indices.into_iter().enumerate() {
        let Some(row) = row(index, rows).filter(|_| index != padding) else {
            continue;
        };
        let sums = &mut dweight[row * d..][..d];
        for (sum, gradient) in sums.iter_mut().zip(&dy[place * d..]) {
            *sum += gradient;
        }
    }
    call.one_mut(2)?.set_f64(&dweight)
}

/// The index, where the table has such a row.
fn row(index: i64, rows: i64) -> Option<usize> {
    (0..rows).contains(&index).then(|| extent(index))
}

fn extent(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}
