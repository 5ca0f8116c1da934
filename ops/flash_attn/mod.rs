//! Attention that never holds the matrix of scores, of batches and of packed sequences.

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::{OpCell, attend};

pub(crate) use cases::{CAUSAL, Heads, cases, heads, mask};
pub(crate) use reference::Mask;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("flash_attn", reference::flash_attn),
    ("flash_attn_varlen", reference::flash_attn_varlen),
    ("flash_attn_backward", reference::flash_attn_backward),
    (
        "flash_attn_varlen_backward",
        reference::flash_attn_varlen_backward,
    ),
];

static FLASH_ATTN: OpCell = OpCell::new("flash_attn");
static FLASH_ATTN_VARLEN: OpCell = OpCell::new("flash_attn_varlen");
static FLASH_ATTN_BACKWARD: OpCell = OpCell::new("flash_attn_backward");
static FLASH_ATTN_VARLEN_BACKWARD: OpCell = OpCell::new("flash_attn_varlen_backward");

/// What attention is to see, and how much of it; by default all.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionConfig<'a> {
    /// Factor of the products of queries and keys; else `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// Query `i` of `S` sees no key after `i + L - S`, of `L`.
    pub causal: bool,
    /// It sees no key before `i + L - S - window_left`.
    pub window_left: Option<u32>,
    /// It sees no key after `i + L - S + window_right`.
    pub window_right: Option<u32>,
    /// For each head, what a score loses for each token between query and key: `[H]` of f32.
    pub alibi: Option<&'a Tensor>,
}

impl AttentionConfig<'_> {
    pub(crate) fn attributes(&self) -> [Attr; 3] {
        let window = |end: Option<u32>| Attr::I64(end.map_or(-1, i64::from));
        let (left, right) = (window(self.window_left), window(self.window_right));
        [Attr::Bool(self.causal), left, right]
    }

    pub(crate) fn scale(&self, q: &Tensor) -> Attr {
        attend::scale(self.scale, q)
    }
}

/// What attention gives.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Of the queries' shape and dtype.
    pub o: Tensor,
    /// The logarithm of the sum of each row's exponentials, in f32: what a gradient needs, and what
    /// results over parts of the keys are put together with.
    pub lse: Tensor,
}

impl Attention {
    /// Room for the results of queries `[.., S, H, D]`. What else they may be `launch` refuses, and says why.
    pub(crate) fn empty(stream: &Stream, q: &Tensor) -> Result<Self> {
        let mut rows = q.shape().to_vec();
        rows.pop();
        if let [.., tokens, heads] = &mut rows[..] {
            std::mem::swap(tokens, heads);
        }
        Ok(Self {
            o: Tensor::empty(stream, q.dtype(), q.shape())?,
            lse: Tensor::empty(stream, DType::F32, &rows)?,
        })
    }
}

/// `o = softmax(scale * q k' - alibi * distance) v` for each head of each sequence of a batch.
///
/// Fewer heads of keys and values than of queries are shared by as many neighbours each. Queries,
/// keys and values may be views of one tensor; only the elements of a head have to be neighbours. A
/// row that sees no key has `o = 0` and `lse = -infinity`.
///
/// # Shapes
/// `q`: `[B, S, H, D]`, `k` and `v`: `[B, L, G, D]` with `H` a multiple of `G`; gives `o`:
/// `[B, S, H, D]`, `lse`: `[B, H, S]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for heads that do not divide, or naming the argument and the rule
/// that it breaks.
///
/// # Upstream
/// `FlashAttentionBuilder` hands the call to `PyTorch`, whose `is_causal` lets query `i` see keys up
/// to `i` however many more there are; here as in flash-attn from 2.1 on, the last query sees the last
/// key. There is no dropout of weights.
///
/// # Source
/// Dao 2023, arXiv 2307.08691.
pub fn flash_attn(
    stream: &Stream,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    config: &AttentionConfig<'_>,
) -> Result<Attention> {
    check_heads("flash_attn", q, k)?;
    let to = Attention::empty(stream, q)?;
    let alibi = config.alibi.as_slice();
    op::launch(
        FLASH_ATTN.op()?,
        stream,
        &[&[q], &[k], &[v], alibi, &[&to.o], &[&to.lse]],
        &config.attributes(),
        &[config.scale(q)],
    )?;
    Ok(to)
}

/// Gradients of queries, keys and values, each of its tensor's shape and dtype.
#[derive(Clone, Debug)]
pub struct AttentionGradients {
    /// Of the queries.
    pub dq: Tensor,
    /// Of the keys: where heads share them, the sum over those heads.
    pub dk: Tensor,
    /// Of the values, likewise.
    pub dv: Tensor,
}

impl AttentionGradients {
    pub(crate) fn empty(stream: &Stream, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Self> {
        let like = |t: &Tensor| Tensor::empty(stream, t.dtype(), t.shape());
        Ok(Self {
            dq: like(q)?,
            dk: like(k)?,
            dv: like(v)?,
        })
    }
}

/// Gradient of [`flash_attn`] with respect to `q`, `k` and `v`, from the results `of` the same call.
///
/// Weights are computed again from `of.lse`. Sums have one order, so equal calls give equal bits
/// whatever the threads.
///
/// # Shapes
/// `d_o`: `[B, S, H, D]`, the others as in [`flash_attn`].
///
/// # Errors
/// As [`flash_attn`].
///
/// # Source
/// Dao 2023, arXiv 2307.08691.
pub fn flash_attn_backward(
    stream: &Stream,
    d_o: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    of: &Attention,
    config: &AttentionConfig<'_>,
) -> Result<AttentionGradients> {
    check_heads("flash_attn_backward", q, k)?;
    let to = AttentionGradients::empty(stream, q, k, v)?;
    op::launch(
        FLASH_ATTN_BACKWARD.op()?,
        stream,
        &[
            &[d_o],
            &[q],
            &[k],
            &[v],
            &[&of.o],
            &[&of.lse],
            config.alibi.as_slice(),
            &[&to.dq],
            &[&to.dk],
            &[&to.dv],
        ],
        &config.attributes(),
        &[config.scale(q)],
    )?;
    Ok(to)
}

/// Where packed sequences begin and end.
#[derive(Clone, Copy, Debug)]
pub struct Starts<'a> {
    /// `[N + 1]` of i32 or i64: the first query of each of `N` sequences, and the end of the last.
    pub q: &'a Tensor,
    /// The same of keys and values.
    pub kv: &'a Tensor,
}

/// [`flash_attn`] of each of several sequences that lie behind one another.
///
/// Starts are read on the device. Where they descend or leave their tensor, every result is NaN; a
/// token that is in no sequence is a row that sees no key.
///
/// # Shapes
/// `q`: `[S, H, D]`, `k` and `v`: `[L, G, D]`; gives `o`: `[S, H, D]`, `lse`: `[H, S]`.
///
/// # Errors
/// As [`flash_attn`].
pub fn flash_attn_varlen(
    stream: &Stream,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: Starts<'_>,
    config: &AttentionConfig<'_>,
) -> Result<Attention> {
    check_heads("flash_attn_varlen", q, k)?;
    let to = Attention::empty(stream, q)?;
    let alibi = config.alibi.as_slice();
    op::launch(
        FLASH_ATTN_VARLEN.op()?,
        stream,
        &[
            &[q],
            &[k],
            &[v],
            &[starts.q],
            &[starts.kv],
            alibi,
            &[&to.o],
            &[&to.lse],
        ],
        &config.attributes(),
        &[config.scale(q)],
    )?;
    Ok(to)
}

/// Gradient of [`flash_attn_varlen`], from the results `of` the same call. Keys that are in no
/// sequence have a gradient of zero; where starts are wrong, every gradient is NaN.
///
/// # Shapes
/// `d_o`: `[S, H, D]`, the others as in [`flash_attn_varlen`].
///
/// # Errors
/// As [`flash_attn`].
#[allow(
    clippy::too_many_arguments,
    reason = "those of the forward call and two"
)]
pub fn flash_attn_varlen_backward(
    stream: &Stream,
    d_o: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    of: &Attention,
    starts: Starts<'_>,
    config: &AttentionConfig<'_>,
) -> Result<AttentionGradients> {
    check_heads("flash_attn_varlen_backward", q, k)?;
    let to = AttentionGradients::empty(stream, q, k, v)?;
    op::launch(
        FLASH_ATTN_VARLEN_BACKWARD.op()?,
        stream,
        &[
            &[d_o],
            &[q],
            &[k],
            &[v],
            &[&of.o],
            &[&of.lse],
            &[starts.q],
            &[starts.kv],
            config.alibi.as_slice(),
            &[&to.dq],
            &[&to.dk],
            &[&to.dv],
        ],
        &config.attributes(),
        &[config.scale(q)],
    )?;
    Ok(to)
}

/// That every head of keys serves as many of the queries; no rule of a schema can say so.
pub(crate) fn check_heads(op: &'static str, q: &Tensor, k: &Tensor) -> Result<()> {
    let heads = |t: &Tensor| t.shape().iter().rev().nth(1).copied().unwrap_or(0);
    let (h, g) = (heads(q), heads(k));
    if h == 0 || (g > 0 && h % g == 0) {
        return Ok(());
    }
    let text = format!("{h} heads of queries cannot share {g} of keys and values evenly");
    Err(Error::new(ErrorKind::InvalidArgument, op, text))
}
