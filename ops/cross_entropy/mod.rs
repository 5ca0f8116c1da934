//! Cross entropy of logits and classes: whole, or by tiles of the vocabulary, so that nobody has to
//! hold all logits at once.

mod cases;
mod reference;

use ds_core::{DType, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("cross_entropy", reference::cross_entropy),
    ("cross_entropy_tile", reference::cross_entropy_tile),
    ("cross_entropy_finish", reference::cross_entropy_finish),
    ("cross_entropy_mean", reference::cross_entropy_mean),
    ("cross_entropy_backward", reference::cross_entropy_backward),
];

static CROSS_ENTROPY: OpCell = OpCell::new("cross_entropy");
static CROSS_ENTROPY_TILE: OpCell = OpCell::new("cross_entropy_tile");
static CROSS_ENTROPY_FINISH: OpCell = OpCell::new("cross_entropy_finish");
static CROSS_ENTROPY_MEAN: OpCell = OpCell::new("cross_entropy_mean");
static CROSS_ENTROPY_BACKWARD: OpCell = OpCell::new("cross_entropy_backward");

/// What a loss depends on beside its tensors; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropyConfig {
    /// The loss and the gradient of rows with this target are 0.
    pub ignore_index: i64,
    /// Share of the target that is spread evenly over all classes.
    pub label_smoothing: f64,
}

impl Default for CrossEntropyConfig {
    fn default() -> Self {
        Self {
            ignore_index: -100,
            label_smoothing: 0.0,
        }
    }
}

/// Columns of the state that [`cross_entropy_tile`] keeps of a row.
pub const STATE_COLUMNS: i64 = 4;

/// The loss of each row and the logarithm of its sum of exponentials (`lse`), which the gradient
/// takes.
///
/// A target that is no class makes the loss of its row NaN; nothing is read there.
///
/// # Shapes
/// `logits`: `[N, V]`, `targets`: `[N]` of i64; gives `loss` and `lse`: `[N]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `torch.nn.functional.cross_entropy` with `reduction="none"`; a target out of range is NaN here and
/// an error, or out of bounds, there.
pub fn cross_entropy(
    stream: &Stream,
    logits: &Tensor,
    targets: &Tensor,
    config: CrossEntropyConfig,
) -> Result<(Tensor, Tensor)> {
    let (loss, lse) = two_like(stream, targets)?;
    op::launch(
        CROSS_ENTROPY.op()?,
        stream,
        &[&[logits], &[targets], &[&loss], &[&lse]],
        &[],
        &[
            Attr::I64(config.ignore_index),
            Attr::F64(config.label_smoothing),
        ],
    )?;
    Ok((loss, lse))
}

/// Adds a tile of the vocabulary to the `state` of each row: classes from `offset` on. With `first`
/// the state is written without being read.
///
/// # Shapes
/// `logits`: `[N, W]`, `targets`: `[N]` of i64, `state`: `[N, 4]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `deepspeed/sequence/cross_entropy.py` and the tiled loss of `runtime/sequence_parallel`, which
/// tile rows; here columns are tiled, too.
///
/// # Source
/// Milakov and Gimelshein 2018, arXiv 1805.02867.
pub fn cross_entropy_tile(
    stream: &Stream,
    logits: &Tensor,
    targets: &Tensor,
    state: &Tensor,
    offset: i64,
    first: bool,
) -> Result<()> {
    op::launch(
        CROSS_ENTROPY_TILE.op()?,
        stream,
        &[&[logits], &[targets], &[state]],
        &[],
        &[Attr::I64(offset), Attr::Bool(first)],
    )
}

/// What [`cross_entropy`] gives, from the states of parts of a `vocabulary`: one, when tiles were
/// added to one state; one a rank, gathered, when ranks hold parts of the vocabulary.
///
/// # Shapes
/// `states`: `[P, N, 4]` of f32, `targets`: `[N]` of i64; gives `loss` and `lse`: `[N]` of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn cross_entropy_finish(
    stream: &Stream,
    states: &Tensor,
    targets: &Tensor,
    vocabulary: i64,
    config: CrossEntropyConfig,
) -> Result<(Tensor, Tensor)> {
    let (loss, lse) = two_like(stream, targets)?;
    op::launch(
        CROSS_ENTROPY_FINISH.op()?,
        stream,
        &[&[states], &[targets], &[&loss], &[&lse]],
        &[],
        &[
            Attr::I64(vocabulary),
            Attr::I64(config.ignore_index),
            Attr::F64(config.label_smoothing),
        ],
    )?;
    Ok((loss, lse))
}

/// The mean loss of the rows that are not ignored, NaN where all are; and its gradient with respect
/// to each, `1 / count`, which [`Tensor::expand`] makes the `dloss` of [`cross_entropy_backward`].
///
/// # Shapes
/// `loss`: `[N]` of f32, `targets`: `[N]` of i64; gives two scalars of f32.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
pub fn cross_entropy_mean(
    stream: &Stream,
    loss: &Tensor,
    targets: &Tensor,
    ignore_index: i64,
) -> Result<(Tensor, Tensor)> {
    let mean = Tensor::empty(stream, DType::F32, &[])?;
    let weight = Tensor::empty(stream, DType::F32, &[])?;
    op::launch(
        CROSS_ENTROPY_MEAN.op()?,
        stream,
        &[&[loss], &[targets], &[&mean], &[&weight]],
        &[],
        &[Attr::I64(ignore_index)],
    )?;
    Ok((mean, weight))
}

/// Which part of the classes logits hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VocabularyPart {
    /// The class of the first column.
    pub offset: i64,
    /// The number of all classes.
    pub vocabulary: i64,
}

/// Gradient of [`cross_entropy`] with respect to `logits`, or to the tile `part` of them, from the
/// `lse` that it gave; `scale` multiplies `dloss`. `dlogits` may be `logits` itself.
///
/// # Shapes
/// `dloss`, `lse`: `[N]` of f32, `logits`, `dlogits`: `[N, W]`, `targets`: `[N]` of i64.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
#[allow(
    clippy::too_many_arguments,
    reason = "tensors, by their names in the formula"
)]
pub fn cross_entropy_backward(
    stream: &Stream,
    dloss: &Tensor,
    logits: &Tensor,
    targets: &Tensor,
    lse: &Tensor,
    dlogits: &Tensor,
    part: VocabularyPart,
    config: CrossEntropyConfig,
    scale: f64,
) -> Result<()> {
    op::launch(
        CROSS_ENTROPY_BACKWARD.op()?,
        stream,
        &[&[dloss], &[logits], &[targets], &[lse], &[dlogits]],
        &[],
        &[
            Attr::I64(part.vocabulary),
            Attr::I64(part.offset),
            Attr::I64(config.ignore_index),
            Attr::F64(config.label_smoothing),
            Attr::F64(scale),
        ],
    )
}

fn two_like(stream: &Stream, targets: &Tensor) -> Result<(Tensor, Tensor)> {
    let one = || Tensor::empty(stream, DType::F32, targets.shape());
    Ok((one()?, one()?))
}
