//! What the op means, in f64.

use ds_core::{Result, RngState, op::HostCall};

/// `sample(logits, seed, offset, temperature, top_k, top_p) -> tokens, logprobs`.
pub(super) fn sample(call: &mut HostCall) -> Result<()> {
    let state = RngState {
        seed: HostCall::integer(&call.scalars, 0)?.cast_unsigned(),
        offset: HostCall::integer(&call.scalars, 1)?.cast_unsigned(),
    };
    let top_k = usize::try_from(HostCall::integer(&call.scalars, 3)?).unwrap_or(0);
    let (temperature, top_p) = (call.scalar(2)?, call.scalar(4)?);
    let (logits, rows) = (call.one(0)?.to_f64()?, call.one(1)?.zeros().len());
    let width = logits.len() / rows.max(1);
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    for (index, row) in (0..).zip((0..rows).map(|row| &logits[row * width..][..width])) {
        let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !greatest.is_finite() || row.iter().any(|logit| logit.is_nan()) {
            tokens.push(-1.0);
            logprobs.push(f64::NAN);
            continue;
        }
        let far: Vec<f64> = row.iter().map(|logit| greatest - logit).collect();
        let (token, logprob) = if temperature > 0.0 {
            let far: Vec<f64> = far.into_iter().map(|far| far / temperature).collect();
            draw(&far, top_k, top_p, uniform(state, index))
        } else {
            (far.iter().position(|far| *far == 0.0).unwrap_or(0), 0.0)
        };
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53 classes")]
        tokens.push(token as f64);
        logprobs.push(logprob);
    }
    call.one_mut(1)?.set_f64(&tokens)?;
    call.one_mut(2)?.set_f64(&logprobs)
}

/// The token and the logarithm of its probability, from the distances to the greatest logit.
fn draw(far: &[f64], top_k: usize, top_p: f64, uniform: f64) -> (usize, f64) {
    let mut in_order = far.to_vec();
    in_order.sort_by(f64::total_cmp);
    let mut bound = f64::INFINITY;
    if (1..far.len()).contains(&top_k) {
        bound = in_order[top_k - 1];
    }
    let weight = |far: f64, bound: f64| if far <= bound { (-far).exp() } else { 0.0 };
    if top_p < 1.0 {
        let wanted = top_p * far.iter().map(|far| weight(*far, bound)).sum::<f64>();
        let mut sum = 0.0;
        let reaches = |far: &&f64| {
            sum += weight(**far, bound);
            sum >= wanted
        };
        bound = in_order.iter().find(reaches).copied().unwrap_or(bound);
    }
    let total: f64 = far.iter().map(|far| weight(*far, bound)).sum();
    let mut sum = 0.0;
    let passes = |far: &f64| {
        sum += weight(*far, bound);
        sum > uniform * total
    };
    let token = far.iter().position(passes).unwrap_or(0);
    (token, -far[token] - total.ln())
}

/// Number `index` of the draw, in [0, 1).
#[allow(clippy::cast_precision_loss, reason = "53 bits")]
fn uniform(state: RngState, index: u64) -> f64 {
    let [high, low] = [0, 1].map(|word| u64::from(state.word(2 * index + word)));
    ((high << 32 | low) >> 11) as f64 / 2.0_f64.powi(53)
}
