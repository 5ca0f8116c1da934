//! Inference on ragged batches: tokens of several sequences behind one another, whose keys and values
//! lie in a cache of blocks.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};

use crate::{
    OpCell,
    flash_attn::{AttentionConfig, check_heads},
};

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] =
    &[("paged_attention", reference::paged_attention)];

static PAGED_ATTENTION: OpCell = OpCell::new("paged_attention");

/// The sequences of a batch, told in tensors on the device, all of i32 or all of i64.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// `[N + 1]`: the first token of each sequence, and the end of the last.
    pub starts: &'a Tensor,
    /// `[N]`: tokens that each has in the cache, before those of the batch.
    pub seen: &'a Tensor,
    /// `[N, P]`: the blocks of each in their order; -1 where it has none.
    pub blocks: &'a Tensor,
}

impl Sequences<'_> {
    /// That there is a start for each sequence and an end; no rule of a schema can say so.
    fn check(&self, op: &'static str) -> Result<()> {
        let extent = |t: &Tensor| t.shape().first().copied().unwrap_or(0);
        let (starts, sequences) = (extent(self.starts), extent(self.seen));
        if starts == sequences + 1 {
            return Ok(());
        }
        let text = format!(
            "{sequences} sequences have {starts} starts, and need {}: one each, and the end",
            sequences + 1
        );
        Err(Error::new(ErrorKind::InvalidArgument, op, text))
    }
}

/// Attention of the queries of each sequence over all its keys in a cache of blocks, into which those of
/// the batch itself have been written before.
///
/// Of a sequence with `S` queries that has seen `L - S` tokens, [`AttentionConfig`] tells which of the
/// `L` keys a query sees. Queries may be views; only the elements of a head have to be neighbours.
///
/// What lies on the device is never followed unheld: a query that sees a key whose block is none gives
/// NaN, and so does a whole sequence that has more tokens than its row of blocks has room for. Where
/// starts descend or leave `q` all is NaN. Padding, which is in no sequence, gives zero.
///
/// # Shapes
/// `q`: `[S, H, D]`, `cache`: `[B, K, 2, G, D]` with `H` a multiple of `G`, keys before values; gives
/// `[S, H, D]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for heads that do not divide, starts that are not one more than the
/// sequences, or naming the argument and the rule that it breaks.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/blocked_flash`: `flash_attn_by_atoms`, for f16 and bf16, always
/// causal in use, and without windows. It follows whatever block number it is given; atoms, its pieces of
/// work, are the kernel's own business here ([`crate::ragged_batch`] has them for those who want them).
///
/// # Source
/// Kwon and others 2023, arXiv 2309.06180.
pub fn paged_attention(
    stream: &Stream,
    q: &Tensor,
    cache: &Tensor,
    sequences: Sequences<'_>,
    config: &AttentionConfig<'_>,
) -> Result<Tensor> {
    check_heads("paged_attention", q, cache)?;
    sequences.check("paged_attention")?;
    let o = Tensor::empty(stream, q.dtype(), q.shape())?;
    op::launch(
        PAGED_ATTENTION.op()?,
        stream,
        &[
            &[q],
            &[cache],
            &[sequences.starts],
            &[sequences.seen],
            &[sequences.blocks],
            config.alibi.as_slice(),
            &[&o],
        ],
        &config.attributes(),
        &[config.scale(q)],
    )?;
    Ok(o)
}
