//! What the ops mean.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

/// `token_sort_(ids)`.
#[allow(clippy::cast_precision_loss, reason = "i32")]
pub(super) fn token_sort(call: &mut HostCall) -> Result<()> {
    let mut ids = call.one(0)?.to_i64()?;
    let length = extent(call.one(0)?, call.one(0)?.shape.len() - 1).max(1);
    ids.chunks_exact_mut(length)
        .for_each(<[i64]>::sort_unstable);
    let ids: Vec<f64> = ids.into_iter().map(|id| id as f64).collect();
    call.one_mut(0)?.set_f64(&ids)
}

/// `token_gather(x, indices) -> y`.
pub(super) fn token_gather(call: &mut HostCall) -> Result<()> {
    let x = call.one(0)?.to_f64()?;
    let (tokens, channels) = (extent(call.one(0)?, 1), extent(call.one(0)?, 2));
    let kept = extent(call.one(1)?, 1);
    let mut y = Vec::new();
    for (at, index) in call.one(1)?.to_i64()?.into_iter().enumerate() {
        match token(at / kept, index, tokens) {
            Some(row) => y.extend_from_slice(&x[row * channels..(row + 1) * channels]),
            None => y.extend(std::iter::repeat_n(0.0, channels)),
        }
    }
    call.one_mut(2)?.set_f64(&y)
}

/// `token_scatter_(y, x, indices)`.
pub(super) fn token_scatter(call: &mut HostCall) -> Result<()> {
    let (mut y, x) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let (tokens, channels) = (extent(call.one(0)?, 1), extent(call.one(0)?, 2));
    let kept = extent(call.one(2)?, 1);
    for (at, index) in call.one(2)?.to_i64()?.into_iter().enumerate() {
        if let Some(row) = token(at / kept, index, tokens) {
            let from = &x[at * channels..(at + 1) * channels];
            y[row * channels..(row + 1) * channels].copy_from_slice(from);
        }
    }
    call.one_mut(0)?.set_f64(&y)
}

/// `mask_gather_bert(mask, indices) -> y`.
pub(super) fn mask_gather_bert(call: &mut HostCall) -> Result<()> {
    let mask = call.one(0)?.to_f64()?;
    let (batches, tokens) = (extent(call.one(0)?, 0), extent(call.one(0)?, 3));
    let kept = extent(call.one(1)?, 2).max(1);
    let mut y = Vec::new();
    for (sequence, indices) in call.one(1)?.to_i64()?.chunks_exact(kept).enumerate() {
        for &row in indices {
            let row = token(sequence % batches, row, tokens);
            for &column in indices {
                let column = token(0, column, tokens);
                let found = row
                    .zip(column)
                    .map(|(row, column)| mask[row * tokens + column]);
                y.push(found.unwrap_or(0.0));
            }
        }
    }
    call.one_mut(2)?.set_f64(&y)
}

/// Which of all sequences' tokens the token `index` of one is.
fn token(sequence: usize, index: i64, tokens: usize) -> Option<usize> {
    let index = usize::try_from(index)
        .ok()
        .filter(|index| *index < tokens)?;
    Some(sequence * tokens + index)
}

fn extent(tensor: &HostTensor, axis: usize) -> usize {
    tensor
        .shape
        .get(axis)
        .and_then(|extent| usize::try_from(*extent).ok())
        .unwrap_or(0)
}
