//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

/// Columns of a state.
const COLUMNS: usize = 4;

/// What is known of a row of logits.
#[derive(Clone, Copy)]
struct State {
    max: f64,
    sum: f64,
    target_logit: f64,
    total: f64,
}

impl State {
    /// Of no logits; the least f32 stands for minus infinity, from which no difference can be taken.
    const NONE: Self = Self {
        max: f32::MIN as f64,
        sum: 0.0,
        target_logit: 0.0,
        total: 0.0,
    };

    fn from_columns(columns: &[f64]) -> Self {
        Self {
            max: columns[0],
            sum: columns[1],
            target_logit: columns[2],
            total: columns[3],
        }
    }

    fn columns(self) -> [f64; COLUMNS] {
        [self.max, self.sum, self.target_logit, self.total]
    }

    fn raise(&mut self, max: f64) {
        self.sum *= (self.max - max).exp();
        self.max = max;
    }

    /// With a row of logits, the first of which is class `offset`.
    fn add(mut self, logits: &[f64], offset: i64, target: i64) -> Self {
        self.raise(logits.iter().copied().fold(self.max, f64::max));
        self.sum += logits.iter().map(|x| (x - self.max).exp()).sum::<f64>();
        self.total += logits.iter().sum::<f64>();
        if let Ok(column) = usize::try_from(target - offset)
            && let Some(&logit) = logits.get(column)
        {
            self.target_logit = logit;
        }
        self
    }

    /// With that of another part of the row.
    fn merge(mut self, mut other: Self) -> Self {
        let max = self.max.max(other.max);
        self.raise(max);
        other.raise(max);
        self.sum += other.sum;
        self.target_logit += other.target_logit;
        self.total += other.total;
        self
    }

    /// `loss` and `lse`.
    #[allow(
        clippy::cast_precision_loss,
        reason = "there are fewer than 2^53 classes"
    )]
    fn finish(self, target: i64, classes: i64, ignore_index: i64, smoothing: f64) -> (f64, f64) {
        let log_sum = self.sum.ln();
        let mut loss = log_sum - (self.target_logit - self.max);
        if smoothing != 0.0 {
            let uniform = log_sum - (self.total / classes as f64 - self.max);
            loss = (1.0 - smoothing) * loss + smoothing * uniform;
        }
        if target == ignore_index {
            loss = 0.0;
        } else if !(0..classes).contains(&target) {
            loss = f64::NAN;
        }
        (loss, self.max + log_sum)
    }
}

/// `cross_entropy(logits, targets, ignore_index, label_smoothing) -> (loss, lse)`.
pub(super) fn cross_entropy(call: &mut HostCall) -> Result<()> {
    let ignore_index = HostCall::integer(&call.scalars, 0)?;
    let smoothing = call.scalar(1)?;
    let (logits, targets) = (call.one(0)?.to_f64()?, call.one(1)?.to_i64()?);
    let classes = call.one(0)?.shape[1];
    let rows = targets.iter().enumerate().map(|(row, &target)| {
        let state = State::NONE.add(row_of(&logits, classes, row), 0, target);
        state.finish(target, classes, ignore_index, smoothing)
    });
    let (loss, lse): (Vec<f64>, Vec<f64>) = rows.unzip();
    call.one_mut(2)?.set_f64(&loss)?;
    call.one_mut(3)?.set_f64(&lse)
}

/// `cross_entropy_tile(logits, targets, state, offset, first)`.
pub(super) fn cross_entropy_tile(call: &mut HostCall) -> Result<()> {
    let (offset, first) = (HostCall::integer(&call.scalars, 0)?, call.scalar(1)? != 0.0);
    let (logits, targets) = (call.one(0)?.to_f64()?, call.one(1)?.to_i64()?);
    let (width, mut states) = (call.one(0)?.shape[1], call.one(2)?.to_f64()?);
    for (row, (columns, &target)) in states.chunks_exact_mut(COLUMNS).zip(&targets).enumerate() {
        let before = if first {
            State::NONE
        } else {
            State::from_columns(columns)
        };
        let after = before.add(row_of(&logits, width, row), offset, target);
        columns.copy_from_slice(&after.columns());
    }
    call.one_mut(2)?.set_f64(&states)
}

/// `cross_entropy_finish(states, targets, vocabulary, ignore_index, label_smoothing) -> (loss, lse)`.
pub(super) fn cross_entropy_finish(call: &mut HostCall) -> Result<()> {
    let vocabulary = HostCall::integer(&call.scalars, 0)?;
    let ignore_index = HostCall::integer(&call.scalars, 1)?;
    let smoothing = call.scalar(2)?;
    let (states, targets) = (call.one(0)?.to_f64()?, call.one(1)?.to_i64()?);
    let rows = targets.iter().enumerate().map(|(row, &target)| {
        let parts = states.chunks_exact(COLUMNS * targets.len());
        let parts = parts.map(|part| State::from_columns(&part[row * COLUMNS..][..COLUMNS]));
        let state = parts.fold(State::NONE, State::merge);
        state.finish(target, vocabulary, ignore_index, smoothing)
    });
    let (loss, lse): (Vec<f64>, Vec<f64>) = rows.unzip();
    call.one_mut(2)?.set_f64(&loss)?;
    call.one_mut(3)?.set_f64(&lse)
}

/// `cross_entropy_mean(loss, targets, ignore_index) -> (mean, weight)`.
#[allow(clippy::cast_precision_loss, reason = "there are fewer than 2^53 rows")]
pub(super) fn cross_entropy_mean(call: &mut HostCall) -> Result<()> {
    let ignore_index = HostCall::integer(&call.scalars, 0)?;
    let (loss, targets) = (call.one(0)?.to_f64()?, call.one(1)?.to_i64()?);
    let kept = loss.iter().zip(targets).filter(|(_, t)| *t != ignore_index);
    let kept: Vec<f64> = kept.map(|(loss, _)| *loss).collect();
    let count = kept.len() as f64;
    call.one_mut(2)?
        .set_f64(&[kept.iter().sum::<f64>() / count])?;
    call.one_mut(3)?.set_f64(&[1.0 / count])
}

/// `cross_entropy_backward(dloss, logits, targets, lse, vocabulary, offset, ignore_index,
/// label_smoothing, scale) -> dlogits`.
#[allow(
    clippy::cast_precision_loss,
    reason = "there are fewer than 2^53 classes"
)]
pub(super) fn cross_entropy_backward(call: &mut HostCall) -> Result<()> {
    let vocabulary = HostCall::integer(&call.scalars, 0)?;
    let offset = HostCall::integer(&call.scalars, 1)?;
    let ignore_index = HostCall::integer(&call.scalars, 2)?;
    let (smoothing, scale) = (call.scalar(3)?, call.scalar(4)?);
    let (dloss, logits) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?);
    let (targets, lse) = (call.one(2)?.to_i64()?, call.one(3)?.to_f64()?);
    let width = call.one(1)?.shape[1];
    let mut dlogits = Vec::with_capacity(logits.len());
    for (row, &target) in targets.iter().enumerate() {
        let factor = scale * dloss[row];
        for (class, logit) in (offset..).zip(row_of(&logits, width, row)) {
            let hot = if class == target {
                1.0 - smoothing
            } else {
                0.0
            };
            let wanted = hot + smoothing / vocabulary as f64;
            dlogits.push(match target {
                _ if target == ignore_index => 0.0,
                _ if !(0..vocabulary).contains(&target) => f64::NAN,
                _ => factor * ((logit - lse[row]).exp() - wanted),
            });
        }
    }
    call.one_mut(4)?.set_f64(&dlogits)
}

fn row_of(values: &[f64], width: i64, row: usize) -> &[f64] {
    let width = usize::try_from(width).unwrap_or(0);
    &values[row * width..][..width]
}
