//! What the gates mean, in f64.

use std::cmp::Ordering;

use ds_core::{Result, op::HostCall};

use super::reference::extent;

/// `top_k_gating(logits, n_tokens, scores, assignments, offsets) -> expert_counts`.
pub(super) fn top_k_gating(call: &mut HostCall) -> Result<()> {
    let (rows, width) = (extent(call.one(0)?, 0), extent(call.one(0)?, 1));
    let places = extent(call.one(3)?, 1);
    let tokens = match call.args[1].first() {
        Some(tokens) => usize::try_from(tokens.to_i64()?[0]).unwrap_or(0),
        None => rows,
    };
    let logits = call.one(0)?.to_f64()?;
    let mut counts = vec![0.0; width];
    let (mut scores, mut assignments, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for token in 0..rows {
        let row = &logits[token * width..][..width];
        let gates = softmax(row);
        let order = in_order(row);
        for place in 0..places {
            if let Some(&expert) = order.get(place).filter(|_| token < tokens) {
                scores.push(gates[expert]);
                assignments.push(number(expert));
                offsets.push(counts[expert]);
                counts[expert] += 1.0;
            } else {
                scores.push(0.0);
                assignments.push(-1.0);
                offsets.push(-1.0);
            }
        }
    }
    call.one_mut(2)?.set_f64(&scores)?;
    call.one_mut(3)?.set_f64(&assignments)?;
    call.one_mut(4)?.set_f64(&offsets)?;
    call.one_mut(5)?.set_f64(&counts)
}

/// A place of a token that chose an expert.
struct Place {
    token: usize,
    choice: usize,
    expert: usize,
    gate: f64,
    offset: Option<usize>,
}

/// `moe_gate(logits, noise, used, priority, weights, assignments, offsets, capacity, choice_major,
/// by_probability, normalize) -> expert_counts, load, l_aux`.
pub(super) fn moe_gate(call: &mut HostCall) -> Result<()> {
    let (choice_major, by_probability, normalize) = (call.flag(0)?, call.flag(1)?, call.flag(2)?);
    let capacity = usize::try_from(HostCall::integer(&call.scalars, 0)?).unwrap_or(0);
    let (tokens, width) = (extent(call.one(0)?, 0), extent(call.one(0)?, 1));
    let count = extent(call.one(4)?, 1);
    let mut places = chosen(call, choice_major)?;

    let mut counts = vec![0.0; width];
    let mut load = vec![0.0; width];
    let choices = if choice_major { tokens } else { tokens * count };
    for place in &places {
        counts[place.expert] += 1.0;
        if !choice_major || place.choice == 0 {
            load[place.expert] += number(width) / number(choices);
        }
    }
    let mut l_aux = 0.0;
    let logits = call.one(0)?.to_f64()?;
    for row in logits.chunks_exact(width.max(1)) {
        let gates = softmax(row);
        let terms = gates.iter().zip(&load).map(|(gate, load)| gate * load);
        l_aux += terms.sum::<f64>() / number(tokens);
    }

    let priority = match call.args[3].first() {
        Some(priority) => Some(priority.to_f64()?),
        None => None,
    };
    for expert in 0..width {
        let mut of: Vec<&mut Place> = places.iter_mut().filter(|p| p.expert == expert).collect();
        let position = |p: &&mut Place| (if choice_major { p.choice } else { 0 }, p.token);
        of.sort_by_key(position);
        // Stable sorts: of equal ones the first is kept.
        if let Some(priority) = &priority {
            of.sort_by(|a, b| first(priority[a.token], priority[b.token]));
        } else if by_probability {
            of.sort_by(|a, b| first(a.gate, b.gate));
        }
        of.truncate(capacity);
        of.sort_by_key(position);
        for (offset, place) in of.into_iter().enumerate() {
            place.offset = Some(offset);
        }
    }

    let (mut weights, mut assignments, mut offsets) = (
        vec![0.0; tokens * count],
        vec![-1.0; tokens * count],
        vec![-1.0; tokens * count],
    );
    for place in &places {
        let Some(offset) = place.offset else { continue };
        let at = place.token * count + place.choice;
        weights[at] = place.gate;
        assignments[at] = number(place.expert);
        offsets[at] = number(offset);
    }
    if normalize {
        for weights in weights.chunks_exact_mut(count.max(1)) {
            let by = divisor(weights.iter().sum());
            for weight in weights {
                *weight /= by;
            }
        }
    }
    call.one_mut(4)?.set_f64(&weights)?;
    call.one_mut(5)?.set_f64(&assignments)?;
    call.one_mut(6)?.set_f64(&offsets)?;
    call.one_mut(7)?.set_f64(&counts)?;
    call.one_mut(8)?.set_f64(&load)?;
    call.one_mut(9)?.set_f64(&[l_aux])
}

/// The choices of all tokens, token by token.
fn chosen(call: &HostCall, choice_major: bool) -> Result<Vec<Place>> {
    let (logits, width) = (call.one(0)?.to_f64()?, extent(call.one(0)?, 1));
    let count = extent(call.one(4)?, 1);
    let mut noisy = logits.clone();
    if let Some(noise) = call.args[1].first() {
        let noise = noise.to_f64()?;
        // The sum is that of f32, of which equal ones are to be equal here.
        #[allow(clippy::cast_possible_truncation, reason = "both are f32")]
        let add = |(x, noise): (&mut f64, f64)| *x = f64::from(*x as f32 + noise as f32);
        noisy.iter_mut().zip(noise).for_each(add);
    }
    let used = match call.args[2].first() {
        Some(used) => Some(used.to_f64()?),
        None => None,
    };
    let mut places = Vec::new();
    for token in 0..extent(call.one(0)?, 0) {
        if used.as_ref().is_some_and(|used| used[token] == 0.0) {
            continue;
        }
        let row = |of: &[f64]| of[token * width..][..width].to_vec();
        let gates = softmax(&row(&logits));
        let mut order = in_order(&row(&noisy));
        if choice_major && let Some(&best) = in_order(&row(&logits)).first() {
            order.retain(|expert| *expert != best);
            order.insert(0, best);
        }
        for (choice, &expert) in order.iter().take(count).enumerate() {
            let gate = gates[expert];
            places.push(Place {
                token,
                choice,
                expert,
                gate,
                offset: None,
            });
        }
    }
    Ok(places)
}

/// `moe_gate_backward(dweights, dl_aux, logits, assignments, load, normalize) -> dlogits`.
pub(super) fn moe_gate_backward(call: &mut HostCall) -> Result<()> {
    let normalize = call.flag(0)?;
    let (dweights, dl_aux) = (call.one(0)?.to_f64()?, call.one(1)?.to_f64()?[0]);
    let (logits, experts) = (call.one(2)?.to_f64()?, call.one(3)?.to_i64()?);
    let load = call.one(4)?.to_f64()?;
    let (tokens, width) = (extent(call.one(2)?, 0), extent(call.one(2)?, 1));
    let count = extent(call.one(3)?, 1);
    let mut dlogits = Vec::new();
    for token in 0..tokens {
        let gates = softmax(&logits[token * width..][..width]);
        let mut dgates: Vec<f64> = load
            .iter()
            .map(|load| dl_aux * load / number(tokens))
            .collect();
        let kept: Vec<(usize, f64)> = (token * count..(token + 1) * count)
            .filter_map(|at| Some((usize::try_from(experts[at]).ok()?, dweights[at])))
            .filter(|(expert, _)| *expert < width)
            .collect();
        let sum: f64 = kept.iter().map(|(expert, _)| gates[*expert]).sum();
        let product: f64 = kept.iter().map(|(expert, dw)| gates[*expert] * dw).sum();
        let (by, shared) = match normalize {
            true if sum >= EPSILON || sum.is_nan() => (sum, product / sum),
            true => (EPSILON, 0.0),
            false => (1.0, 0.0),
        };
        for (expert, dweight) in kept {
            dgates[expert] += (dweight - shared) / by;
        }
        let shared: f64 = gates.iter().zip(&dgates).map(|(gate, d)| gate * d).sum();
        let terms = gates.iter().zip(&dgates);
        dlogits.extend(terms.map(|(gate, dgate)| gate * (dgate - shared)));
    }
    call.one_mut(5)?.set_f64(&dlogits)
}

/// That of f32: the least sum of weights that they are divided by.
const EPSILON: f64 = f32::EPSILON as f64;

fn divisor(sum: f64) -> f64 {
    if sum < EPSILON { EPSILON } else { sum }
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|x| (x - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// The elements' numbers from the greatest on, NaN first, of equal ones the lowest.
fn in_order(row: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| first(row[*a], row[*b]));
    order
}

/// The greater before the lesser, NaN before both.
fn first(a: f64, b: f64) -> Ordering {
    let nan_first = b.is_nan().cmp(&a.is_nan());
    nan_first.then(b.partial_cmp(&a).unwrap_or(Ordering::Equal))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of tokens are below 2^53"
)]
fn number(count: usize) -> f64 {
    count as f64
}
