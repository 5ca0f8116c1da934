//! Gates: which experts a token goes to, with what weight.

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use super::invalid;
use crate::OpCell;

/// What [`top_k_gating`] gives; a row that is padding has the score 0 and else -1.
#[derive(Debug)]
pub struct TopKGating {
    /// Probabilities of the chosen experts among all: `[R, k]` of f32.
    pub scores: Tensor,
    /// The experts: `[R, k]` of i32.
    pub assignments: Tensor,
    /// How many places before this one have the expert: `[R, k]` of i32.
    pub offsets: Tensor,
    /// Places that have the expert: `[E]` of i32.
    pub expert_counts: Tensor,
}

/// The `k` most probable experts of each row, from the most probable on, of equal ones the lowest.
///
/// A NaN is before all others, and makes the scores of its row NaN; so does infinity.
///
/// # Shapes
/// `logits`: `[R, E]`; `n_tokens`: `[]` of i32, on the device, the rows that are no padding.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] for a `k` that is not within 0 to E, or what the schema does
/// not take.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/top_k_gating`, for k of 1, 2, 4 and 8 and at most 1024 experts, with
/// counts that the caller has to clear. Its offsets are in an order of atomic additions, these in that
/// of rows and places, and an expert is never chosen twice, also where logits are minus infinity.
pub fn top_k_gating(
    stream: &Stream,
    logits: &Tensor,
    n_tokens: Option<&Tensor>,
    k: i64,
) -> Result<TopKGating> {
    static OP: OpCell = OpCell::new("top_k_gating");
    let (rows, experts) = extents("top_k_gating", logits, k)?;
    let of = |dtype, shape: &[i64]| Tensor::empty(stream, dtype, shape);
    let result = TopKGating {
        scores: of(DType::F32, &[rows, k])?,
        assignments: of(DType::I32, &[rows, k])?,
        offsets: of(DType::I32, &[rows, k])?,
        expert_counts: of(DType::I32, &[experts])?,
    };
    let args: [op::Args<'_>; 6] = [
        &[logits],
        n_tokens.as_slice(),
        &[&result.scores],
        &[&result.assignments],
        &[&result.offsets],
        &[&result.expert_counts],
    ];
    op::launch(OP.op()?, stream, &args, &[], &[])?;
    Ok(result)
}

/// Which tokens of an expert that has too many are kept.
#[derive(Clone, Copy, Debug)]
pub enum DropPolicy<'a> {
    /// The first ones.
    ByPosition,
    /// Those that are most probable.
    ByProbability,
    /// Those for which these numbers, `[S]` of f32, are greatest.
    ByPriority(&'a Tensor),
}

/// How a gate of training chooses. The constructors are upstream's three gates.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Experts of a token.
    pub k: i64,
    /// Tokens of an expert; `i64::MAX` drops none.
    pub capacity: i64,
    /// Which tokens are dropped.
    pub drop: DropPolicy<'a>,
    /// What is added to the logits for choosing, `[S, E]` of f32; with `choice_major` not for the first
    /// choice.
    pub noise: Option<&'a Tensor>,
    /// Tokens that take part, `[S]` of bool; all without it.
    pub used: Option<&'a Tensor>,
    /// First choices come before all second ones, and alone make the load.
    pub choice_major: bool,
    /// The weights of the places that are kept sum to 1.
    pub normalize: bool,
}

impl<'a> Gate<'a> {
    /// `top1gating`: one expert, whose weight is its probability. Upstream's random token selection is
    /// [`DropPolicy::ByPriority`] of uniform numbers, its `RSample` is [`Gate::noise`].
    pub fn top1(capacity: i64, drop: DropPolicy<'a>) -> Self {
        Self {
            k: 1,
            capacity,
            drop,
            noise: None,
            used: None,
            choice_major: false,
            normalize: false,
        }
    }

    /// `top2gating` (`GShard`, Lepikhin et al. 2020): with noise, the second expert is drawn by it.
    pub fn top2(capacity: i64, noise: Option<&'a Tensor>) -> Self {
        Self {
            k: 2,
            noise,
            choice_major: true,
            normalize: true,
            ..Self::top1(capacity, DropPolicy::ByPosition)
        }
    }

    /// `topkgating`.
    pub fn top_k(k: i64, capacity: i64, drop: DropPolicy<'a>) -> Self {
        Self {
            k,
            normalize: true,
            ..Self::top1(capacity, drop)
        }
    }
}

/// What [`moe_gate`] gives.
#[derive(Debug)]
pub struct GateResult {
    /// `[S, k]` of f32; 0 where the token is dropped.
    pub weights: Tensor,
    /// The experts: `[S, k]` of i32; -1 where the token is dropped.
    pub assignments: Tensor,
    /// How many of the expert's tokens are before this one: `[S, k]` of i32; -1 where it is dropped.
    pub offsets: Tensor,
    /// Choices of each expert before any was dropped: `[E]` of i64.
    pub expert_counts: Tensor,
    /// For the gradient: E times each expert's share of the choices, `[E]` of f32.
    pub load: Tensor,
    /// The loss that balances experts, `[]` of f32.
    pub l_aux: Tensor,
}

/// Tokens of an expert: `factor` times what it would have if all had the same, at least `min_capacity`.
/// A gate of k choices takes k times the factor.
///
/// # Upstream
/// `_capacity` of `moe/sharded_moe.py`: the factor is rounded to f32 and so is the product.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "upstream's arithmetic; a cast saturates"
)]
pub fn capacity(tokens: i64, experts: i64, factor: f64, min_capacity: i64) -> i64 {
    let even = (tokens as f64 / experts as f64) as f32;
    ((even * factor as f32).ceil() as i64).max(min_capacity)
}

/// Experts of each token with their weights, at most [`Gate::capacity`] tokens for each expert, and the
/// loss that balances them.
///
/// Choices are of logits, the greatest first, of equal ones the lowest expert. NaN is before all others;
/// it makes the weights of its row and the loss NaN.
///
/// # Shapes
/// `logits`: `[S, E]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] for a `k` that is not within 0 to E, a negative capacity, or
/// what the schema does not take.
///
/// # Upstream
/// `top1gating`, `top2gating` and `topkgating` of `moe/sharded_moe.py` with `sparse_routes`, of which the
/// dense `combine_weights` are the expansion. Differences: which of equal probabilities is kept is left
/// open there, and the first token here, also in top-1 gating without random token selection; choices are of
/// logits, which tell apart what a rounded softmax does not; not to drop is a capacity that no expert
/// reaches, and who wants the least one takes the greatest of `expert_counts`, over all ranks.
///
/// # Source
/// Fedus et al. 2021, "Switch Transformers"; Lepikhin et al. 2020, "`GShard`".
pub fn moe_gate(stream: &Stream, logits: &Tensor, gate: Gate<'_>) -> Result<GateResult> {
    static OP: OpCell = OpCell::new("moe_gate");
    let (tokens, experts) = extents("moe_gate", logits, gate.k)?;
    if gate.capacity < 0 {
        let text = format!("a capacity of {}", gate.capacity);
        return Err(invalid("moe_gate", text));
    }
    let of = |dtype, shape: &[i64]| Tensor::empty(stream, dtype, shape);
    let result = GateResult {
        weights: of(DType::F32, &[tokens, gate.k])?,
        assignments: of(DType::I32, &[tokens, gate.k])?,
        offsets: of(DType::I32, &[tokens, gate.k])?,
        expert_counts: of(DType::I64, &[experts])?,
        load: of(DType::F32, &[experts])?,
        l_aux: of(DType::F32, &[])?,
    };
    let priority = match gate.drop {
        DropPolicy::ByPriority(priority) => Some(priority),
        DropPolicy::ByPosition | DropPolicy::ByProbability => None,
    };
    let args: [op::Args<'_>; 10] = [
        &[logits],
        gate.noise.as_slice(),
        gate.used.as_slice(),
        priority.as_slice(),
        &[&result.weights],
        &[&result.assignments],
        &[&result.offsets],
        &[&result.expert_counts],
        &[&result.load],
        &[&result.l_aux],
    ];
    let attributes = [
        Attr::Bool(gate.choice_major),
        Attr::Bool(matches!(gate.drop, DropPolicy::ByProbability)),
        Attr::Bool(gate.normalize),
    ];
    let scalars = [Attr::I64(gate.capacity)];
    op::launch(OP.op()?, stream, &args, &attributes, &scalars)?;
    Ok(result)
}

/// The gradient of [`moe_gate`]'s weights and loss with respect to its logits. Which experts are chosen
/// has none.
///
/// # Shapes
/// `dweights`: `[S, k]` of f32, `dl_aux`: `[]` of f32, `logits`: `[S, E]` of f32; `assignments` and
/// `load` are what the gate gave, and `normalize` how it was called. Gives `[S, E]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn moe_gate_backward(
    stream: &Stream,
    dweights: &Tensor,
    dl_aux: &Tensor,
    logits: &Tensor,
    of: &GateResult,
    normalize: bool,
) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("moe_gate_backward");
    let dlogits = Tensor::empty(stream, DType::F32, logits.shape())?;
    let args: [op::Args<'_>; 6] = [
        &[dweights],
        &[dl_aux],
        &[logits],
        &[&of.assignments],
        &[&of.load],
        &[&dlogits],
    ];
    op::launch(OP.op()?, stream, &args, &[Attr::Bool(normalize)], &[])?;
    Ok(dlogits)
}

/// Rows and experts of the logits, of which `k` can be chosen.
fn extents(op: &'static str, logits: &Tensor, k: i64) -> Result<(i64, i64)> {
    match logits.shape() {
        &[rows, experts] if (0..=experts).contains(&k) => Ok((rows, experts)),
        _ => Err(invalid(op, format!("k = {k} for logits {logits:?}"))),
    }
}
