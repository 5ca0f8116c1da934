//! Inference on ragged batches: tokens of several sequences behind one another, whose keys and values
//! lie in a cache of blocks.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::{
    OpCell,
    embedding::embedding,
    flash_attn::{AttentionConfig, check_heads},
    rope::RopeTables,
};

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("paged_attention", reference::paged_attention),
    ("kv_append", reference::kv_append),
    ("ragged_embed", reference::ragged_embed),
    ("logits_gather", reference::logits_gather),
];

static PAGED_ATTENTION: OpCell = OpCell::new("paged_attention");
static KV_APPEND: OpCell = OpCell::new("kv_append");
static RAGGED_EMBED: OpCell = OpCell::new("ragged_embed");
static LOGITS_GATHER: OpCell = OpCell::new("logits_gather");

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
        Err(invalid(op, text))
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

/// Writes keys and values of a batch's tokens to their places in the cache, and with `tables` turns them and
/// the queries on the way, each by the angles of its position in its sequence.
///
/// `qkv` is what one product of all three gives: the heads of queries, of keys and of values behind one
/// another. Queries are turned where they lie; the result is a view of them, for [`paged_attention`].
///
/// Of a token without a block or without angles nothing is written, and its queries become NaN; so do all
/// where starts descend or leave `qkv`. Padding stays as it is.
///
/// # Shapes
/// `qkv`: `[S, H + 2 G, D]`, `cache`: `[B, K, 2, G, D]`, `tables`: `[M, R]` with `2 R <= D`; gives
/// `[S, H, D]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/linear_blocked_kv_rotary`: `linear_kv_copy` without tables, else
/// `kv_rotary_embeddings` and `kv_trained_rotary_embeddings`, which have no interleaved layout. There are
/// twelve ratios of heads and four lengths of a head there, and any other does nothing where assertions
/// are off; a block that is none is written through. Tables here
/// are those of [`crate::rope::rope_tables`].
pub fn kv_append(
    stream: &Stream,
    qkv: &Tensor,
    cache: &Tensor,
    sequences: Sequences<'_>,
    tables: Option<&RopeTables>,
    interleaved: bool,
) -> Result<Tensor> {
    const OP: &str = "kv_append";
    sequences.check(OP)?;
    let (&[_, heads, d], &[_, _, _, groups, _]) = (qkv.shape(), cache.shape()) else {
        let text = format!(
            "qkv {:?} and the cache {:?} are not of 3 and 5 dimensions",
            qkv.shape(),
            cache.shape()
        );
        return Err(invalid(OP, text));
    };
    let queries = heads - 2 * groups;
    if queries < 0 {
        let text = format!("qkv has {heads} heads, and {groups} each of keys and of values");
        return Err(invalid(OP, text));
    }
    if let Some(points) = tables.and_then(|t| t.cos.shape().last())
        && points * 2 > d
    {
        let text = format!("the tables turn {} elements, a head has {d}", points * 2);
        return Err(invalid(OP, text));
    }
    op::launch(
        KV_APPEND.op()?,
        stream,
        &[
            &[qkv],
            &[cache],
            &[sequences.starts],
            &[sequences.seen],
            &[sequences.blocks],
            tables.map(|t| &t.cos).as_slice(),
            tables.map(|t| &t.sin).as_slice(),
        ],
        &[Attr::Bool(interleaved)],
        &[],
    )?;
    qkv.narrow(1, 0, queries)
}

/// `y = weight[ids]`, and with `positions` the row of each token's position added: `offset` and the tokens
/// before it in its sequence. Without, this is [`embedding`].
///
/// A row that a table lacks gives NaN; padding, where there are positions, zero.
///
/// # Shapes
/// `weight`: `[V, D]`, `ids`: `[S]` of i64 or i32, `positions`: `[M, D]`; gives `[S, D]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/embed`, which leaves the row of an id that is none unwritten, and takes
/// the last row for positions behind it.
pub fn ragged_embed(
    stream: &Stream,
    weight: &Tensor,
    ids: &Tensor,
    sequences: Sequences<'_>,
    positions: Option<(&Tensor, i64)>,
) -> Result<Tensor> {
    let Some((positions, offset)) = positions else {
        return embedding(stream, weight, ids);
    };
    sequences.check("ragged_embed")?;
    let width = weight.shape().last().copied();
    let shape: Vec<i64> = ids.shape().iter().copied().chain(width).collect();
    let y = Tensor::empty(stream, weight.dtype(), &shape)?;
    op::launch(
        RAGGED_EMBED.op()?,
        stream,
        &[
            &[weight],
            &[ids],
            &[positions],
            &[sequences.starts],
            &[sequences.seen],
            &[&y],
        ],
        &[],
        &[Attr::I64(offset)],
    )?;
    Ok(y)
}

/// The last row of each sequence, of which the next token comes. One without tokens, or outside of `x`,
/// gives NaN.
///
/// # Shapes
/// `x`: `[S, D]`, `starts`: `[N + 1]` of i32 or i64; gives `[N, D]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/logits_gather`, where a sequence without tokens has the last row of the
/// one before it.
pub fn logits_gather(stream: &Stream, x: &Tensor, starts: &Tensor) -> Result<Tensor> {
    let (d, bounds) = match (x.shape(), starts.shape()) {
        (&[_, d], &[bounds]) if bounds > 0 => (d, bounds),
        (x, starts) => {
            let text = format!("x {x:?} and starts {starts:?} are not [S, D] and [N + 1]");
            return Err(invalid("logits_gather", text));
        }
    };
    let sequences = bounds - 1;
    let y = Tensor::empty(stream, x.dtype(), &[sequences, d])?;
    let (first, end) = (
        starts.narrow(0, 0, sequences)?,
        starts.narrow(0, 1, sequences)?,
    );
    op::launch(
        LOGITS_GATHER.op()?,
        stream,
        &[&[x], &[&first], &[&end], &[&y]],
        &[],
        &[],
    )?;
    Ok(y)
}

fn invalid(op: &'static str, text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text)
}
