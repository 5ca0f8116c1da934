//! Mixture of experts: which experts a token goes to, its row among theirs, and back.
//!
//! A gate gives each token K places: an expert, a weight, and an offset among the expert's rows.
//! [`moe_slots`] makes rows of them, [`moe_dispatch`] puts tokens there, and [`moe_combine`] takes what
//! the experts made of them back.

mod cases;
mod gate;
mod reference;
mod reference_gate;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;
pub use gate::{
    DropPolicy, Gate, GateResult, TopKGating, capacity, moe_gate, moe_gate_backward, top_k_gating,
};

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("top_k_gating", reference_gate::top_k_gating),
    ("moe_gate", reference_gate::moe_gate),
    ("moe_gate_backward", reference_gate::moe_gate_backward),
    ("moe_slots", reference::moe_slots),
    ("moe_dispatch", reference::moe_dispatch),
    ("moe_combine", reference::moe_combine),
    ("moe_combine_backward", reference::moe_combine_backward),
];

/// Where the rows of each expert lie in a tensor of all experts' rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// As many as the expert has tokens, without a gap.
    Counted,
    /// So many for each, of which some may be empty.
    Capacity(i64),
}

/// The row of each place of a token (`slots`, -1 for none), and the row behind each expert's last
/// (`ends`).
///
/// # Shapes
/// `assignments`, `offsets`: `[S, K]` of i32; `expert_counts`: `[E]` of i32 or i64; gives `slots`
/// `[S, K]` of i32 and `ends` `[E]` of i64.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `mapped_slots` and `expert_count_cumsums` of `inference/v2/kernels/ragged_ops/moe_scatter`, which is
/// this with [`Rows::Counted`] and [`moe_dispatch`]; `_route_slots` of `moe/sharded_moe.py` with
/// [`Rows::Capacity`]. Unlike there, what is no expert, or beyond its rows, is no slot.
pub fn moe_slots(
    stream: &Stream,
    assignments: &Tensor,
    offsets: &Tensor,
    expert_counts: &Tensor,
    rows: Rows,
) -> Result<(Tensor, Tensor)> {
    static OP: OpCell = OpCell::new("moe_slots");
    let capacity = match rows {
        Rows::Counted => -1,
        Rows::Capacity(rows) if rows >= 0 => rows,
        Rows::Capacity(rows) => {
            let text = format!("{rows} rows for each expert");
            return Err(invalid("moe_slots", text));
        }
    };
    let slots = Tensor::empty(stream, DType::I32, assignments.shape())?;
    let ends = Tensor::empty(stream, DType::I64, expert_counts.shape())?;
    let args: [op::Args<'_>; 5] = [
        &[assignments],
        &[offsets],
        &[expert_counts],
        &[&slots],
        &[&ends],
    ];
    op::launch(OP.op()?, stream, &args, &[], &[Attr::I64(capacity)])?;
    Ok((slots, ends))
}

/// `rows` rows with each token in its slots, and zeros in those that no slot names. Where two slots are
/// one row, the last one stays.
///
/// Its gradient is [`moe_combine`] without weights.
///
/// # Shapes
/// `x`: `[S, D]`, `slots`: `[S, K]` of i32; gives `[rows, D]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `moe_scatter` of `inference/v2/kernels/ragged_ops` for half types of at most 24 KiB a row, and
/// `_sparse_encode` or the einsum `sec,sm->ecm` of `moe/sharded_moe.py`. Unlike the first, rows that
/// nobody has are zeros.
pub fn moe_dispatch(stream: &Stream, x: &Tensor, slots: &Tensor, rows: i64) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("moe_dispatch");
    let Some(&d) = x.shape().last() else {
        return Err(invalid("moe_dispatch", format!("x is {x:?}, not [S, D]")));
    };
    let y = Tensor::empty(stream, x.dtype(), &[rows, d])?;
    op::launch(OP.op()?, stream, &[&[x], &[slots], &[&y]], &[], &[])?;
    Ok(y)
}

/// The sum of each token's rows, times their weights if there are any. With `normalize` the weights of a
/// token, those of places without a slot among them, are divided by their sum, where that is positive.
///
/// Its gradients are [`moe_combine_backward`], or without weights [`moe_dispatch`].
///
/// # Shapes
/// `y`: `[P, D]`, `weights`: `[S, K]` of f32, `slots`: `[S, K]` of i32; gives `[S, D]`, zeros for a
/// token without slots.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/moe_gather` for half types, which leaves the row of a token without
/// slots as it was and clears the experts' counts; `_sparse_decode` or the einsum `sec,ecm->sm` of
/// `moe/sharded_moe.py`.
pub fn moe_combine(
    stream: &Stream,
    y: &Tensor,
    weights: Option<&Tensor>,
    slots: &Tensor,
    normalize: bool,
) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("moe_combine");
    let (&[_, d], &[tokens, _]) = (y.shape(), slots.shape()) else {
        let text = format!("y is {y:?} and slots are {slots:?}, not [P, D] and [S, K]");
        return Err(invalid("moe_combine", text));
    };
    let x = Tensor::empty(stream, y.dtype(), &[tokens, d])?;
    let args: [op::Args<'_>; 4] = [&[y], weights.as_slice(), &[slots], &[&x]];
    op::launch(OP.op()?, stream, &args, &[], &[Attr::Bool(normalize)])?;
    Ok(x)
}

/// The gradients of [`moe_combine`] with respect to its rows and its weights, where no two slots are one
/// row, as those of a gate are not.
///
/// # Shapes
/// `dx`: `[S, D]`, the others as in [`moe_combine`]; gives `dy` as `y` and `dweights` as `weights`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn moe_combine_backward(
    stream: &Stream,
    dx: &Tensor,
    y: &Tensor,
    weights: &Tensor,
    slots: &Tensor,
    normalize: bool,
) -> Result<(Tensor, Tensor)> {
    static OP: OpCell = OpCell::new("moe_combine_backward");
    let dy = Tensor::empty(stream, y.dtype(), y.shape())?;
    let dweights = Tensor::empty(stream, DType::F32, weights.shape())?;
    let args: [op::Args<'_>; 6] = [&[dx], &[y], &[weights], &[slots], &[&dy], &[&dweights]];
    op::launch(OP.op()?, stream, &args, &[], &[Attr::Bool(normalize)])?;
    Ok((dy, dweights))
}

fn invalid(op: &'static str, text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text)
}
