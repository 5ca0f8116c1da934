//! Block-sparse attention, and the layouts that say which blocks see which.

mod cases;
mod layout;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::{OpCell, attend};

pub(crate) use cases::cases;

pub use crate::flash_attn::{Attention, AttentionGradients};
pub use layout::{Layout, Sparsity, SparsityConfig};

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("sparse_attn", reference::sparse_attn),
    ("sparse_attn_backward", reference::sparse_attn_backward),
];

static SPARSE_ATTN: OpCell = OpCell::new("sparse_attn");
static SPARSE_ATTN_BACKWARD: OpCell = OpCell::new("sparse_attn_backward");

/// What block-sparse attention is to see, within the blocks of its layout; by default all.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseConfig<'a> {
    /// Factor of the products of queries and keys; else `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// Query `i` sees no key after `i`: layouts alone leave blocks on the diagonal full.
    pub causal: bool,
    /// Added to the scores of each key: `[B, S]` of f32.
    pub key_padding_mask: Option<&'a Tensor>,
    /// Added to the score of each query and key: `[S, S]` of f32.
    pub attn_mask: Option<&'a Tensor>,
}

/// `o = softmax(scale * q k' + masks) v` over the blocks that `layout` has, for each head.
///
/// Time is that of the blocks that are seen. Queries, keys and values may be views of one tensor; only
/// the elements of a head have to be neighbours. A row that sees no key has `o = 0` and
/// `lse = -infinity`.
///
/// # Shapes
/// `q`, `k`, `v`: `[B, S, H, D]`, `layout`: `[H, M, M]` of i64, i32, u8 or bool, where `M` divides `S`: a
/// block has `S / M` tokens, and is seen where the layout is not 0. Gives `o`: `[B, S, H, D]`, `lse`:
/// `[B, H, S]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a layout whose blocks do not tile the sequence, or naming the
/// argument and the rule that it breaks.
///
/// # Upstream
/// `SparseSelfAttention` takes f16 and blocks of 16, 32, 64 or 128 only, with tokens behind heads. Its
/// masks of mode `mul` are those that are 0 where nothing is to be seen: -infinity there and 0 elsewhere
/// is the same as a mask to add. There are no relative positions, `rpe`; the same for all heads, they can
/// be part of `attn_mask`. A `unidirectional` layout leaves the blocks on the diagonal full, there as here:
/// `causal` does what there takes a mask.
///
/// # Source
/// Child and others 2019, arXiv 1904.10509; Dao 2023, arXiv 2307.08691.
pub fn sparse_attn(
    stream: &Stream,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    layout: &Tensor,
    config: &SparseConfig<'_>,
) -> Result<Attention> {
    check_layout("sparse_attn", q, layout)?;
    let to = Attention::empty(stream, q)?;
    op::launch(
        SPARSE_ATTN.op()?,
        stream,
        &[
            &[q],
            &[k],
            &[v],
            &[layout],
            config.key_padding_mask.as_slice(),
            config.attn_mask.as_slice(),
            &[&to.o],
            &[&to.lse],
        ],
        &[Attr::Bool(config.causal)],
        &[attend::scale(config.scale, q)],
    )?;
    Ok(to)
}

/// Gradient of [`sparse_attn`] with respect to `q`, `k` and `v`, from the results `of` the same call.
/// Masks have none.
///
/// Weights are computed again from `of.lse`. Sums have one order, so equal calls give equal bits
/// whatever the threads.
///
/// # Shapes
/// `d_o`: `[B, S, H, D]`, the others as in [`sparse_attn`].
///
/// # Errors
/// As [`sparse_attn`].
#[allow(
    clippy::too_many_arguments,
    reason = "those of the forward call and two"
)]
pub fn sparse_attn_backward(
    stream: &Stream,
    d_o: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    of: &Attention,
    layout: &Tensor,
    config: &SparseConfig<'_>,
) -> Result<AttentionGradients> {
    check_layout("sparse_attn_backward", q, layout)?;
    let to = AttentionGradients::empty(stream, q, k, v)?;
    op::launch(
        SPARSE_ATTN_BACKWARD.op()?,
        stream,
        &[
            &[d_o],
            &[q],
            &[k],
            &[v],
            &[&of.o],
            &[&of.lse],
            &[layout],
            config.key_padding_mask.as_slice(),
            config.attn_mask.as_slice(),
            &[&to.dq],
            &[&to.dk],
            &[&to.dv],
        ],
        &[Attr::Bool(config.causal)],
        &[attend::scale(config.scale, q)],
    )?;
    Ok(to)
}

/// That the blocks of a layout tile the sequence; the ops themselves would let the last block be shorter,
/// which nobody means.
fn check_layout(op: &'static str, q: &Tensor, layout: &Tensor) -> Result<()> {
    let (&[_, tokens, _, _], &[_, blocks, _]) = (q.shape(), layout.shape()) else {
        return Ok(()); // `launch` refuses it
    };
    if tokens == 0 || (blocks > 0 && tokens % blocks == 0) {
        return Ok(());
    }
    let text = format!(
        "a layout of {blocks} blocks does not tile {tokens} tokens: the blocks have to be of equal length"
    );
    Err(Error::new(ErrorKind::InvalidArgument, op, text))
}
