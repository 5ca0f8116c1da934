//! Attention of the Evoformer, with a bias of keys and one of pairs.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};

use crate::{OpCell, attend};

pub(crate) use cases::cases;

pub use crate::flash_attn::Attention;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("evoformer_attn", reference::evoformer_attn),
    (
        "evoformer_attn_backward",
        reference::evoformer_attn_backward,
    ),
];

static EVOFORMER_ATTN: OpCell = OpCell::new("evoformer_attn");
static EVOFORMER_ATTN_BACKWARD: OpCell = OpCell::new("evoformer_attn_backward");

/// What is added to scores, of the queries' dtype.
#[derive(Clone, Copy, Debug, Default)]
pub struct Biases<'a> {
    /// For each key of a sequence, `[B, N, 1, 1, L]`: mostly a mask.
    pub keys: Option<&'a Tensor>,
    /// For each pair of query and key of a head, `[B, 1, H, S, L]`: all sequences of a batch share it.
    pub pairs: Option<&'a Tensor>,
}

/// `o = softmax(q k' / sqrt(D) + biases) v` for each head of each of `N` sequences of a batch.
///
/// Queries, keys and values may be views of one tensor; only the elements of a head have to be
/// neighbours. A row whose scores are all -infinity has `o = 0` and `lse = -infinity`.
///
/// # Shapes
/// `q`: `[B, N, S, H, D]`, `k` and `v`: `[B, N, L, H, D]`; gives `o`: `[B, N, S, H, D]`, `lse`:
/// `[B, N, H, S]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument, a bias among them, and the rule that it breaks.
///
/// # Upstream
/// `DS4Sci_EvoformerAttention` has as many queries as keys, 17 at least, and heads of at most 64
/// numbers where there are gradients; here any. Its `lse` has rows of multiples of 32. It takes no
/// f32. Where a mask leaves a row nothing, it gives what rounding leaves; here 0.
///
/// # Source
/// Jumper and others 2021, doi 10.1038/s41586-021-03819-2, algorithms 7 and 8.
pub fn evoformer_attn(
    stream: &Stream,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    biases: Biases<'_>,
) -> Result<Attention> {
    check("evoformer_attn", q, k, biases)?;
    let to = Attention::empty(stream, q)?;
    op::launch(
        EVOFORMER_ATTN.op()?,
        stream,
        &[
            &[q],
            &[k],
            &[v],
            biases.keys.as_slice(),
            biases.pairs.as_slice(),
            &[&to.o],
            &[&to.lse],
        ],
        &[],
        &[attend::scale(None, q)],
    )?;
    Ok(to)
}

/// Gradients of queries, keys, values and biases, each of its tensor's shape and dtype.
#[derive(Clone, Debug)]
pub struct EvoformerGradients {
    /// Of the queries.
    pub dq: Tensor,
    /// Of the keys.
    pub dk: Tensor,
    /// Of the values.
    pub dv: Tensor,
    /// Of the bias of keys, where it was asked for: the sum over heads and queries.
    pub keys: Option<Tensor>,
    /// Of the bias of pairs, where it was asked for: the sum over sequences.
    pub pairs: Option<Tensor>,
}

/// Gradient of [`evoformer_attn`], from the results `of` the same call. `wants` says which biases are to
/// have one, keys and pairs; one that the call lacks has none.
///
/// Weights are computed again from `of.lse`. Sums are in f32 and have one order, so equal calls give
/// equal bits whatever the threads.
///
/// # Shapes
/// `d_o`: `[B, N, S, H, D]`, the others as in [`evoformer_attn`].
///
/// # Errors
/// As [`evoformer_attn`].
///
/// # Upstream
/// Sums of the biases' gradients are atomic there, and so differ from run to run.
#[allow(
    clippy::too_many_arguments,
    reason = "those of the forward call and three"
)]
pub fn evoformer_attn_backward(
    stream: &Stream,
    d_o: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    of: &Attention,
    biases: Biases<'_>,
    wants: [bool; 2],
) -> Result<EvoformerGradients> {
    check("evoformer_attn_backward", q, k, biases)?;
    let like = |t: &Tensor| Tensor::empty(stream, t.dtype(), t.shape());
    let wanted = |bias: Option<&Tensor>, wants: bool| bias.filter(|_| wants).map(like).transpose();
    let to = EvoformerGradients {
        dq: like(q)?,
        dk: like(k)?,
        dv: like(v)?,
        keys: wanted(biases.keys, wants[0])?,
        pairs: wanted(biases.pairs, wants[1])?,
    };
    op::launch(
        EVOFORMER_ATTN_BACKWARD.op()?,
        stream,
        &[
            &[d_o],
            &[q],
            &[k],
            &[v],
            &[&of.o],
            &[&of.lse],
            biases.keys.as_slice(),
            biases.pairs.as_slice(),
            to.keys.as_ref().as_slice(),
            to.pairs.as_ref().as_slice(),
            &[&to.dq],
            &[&to.dk],
            &[&to.dv],
        ],
        &[],
        &[attend::scale(None, q)],
    )?;
    Ok(to)
}

/// Says what a bias should be in the words of this call: a schema would tell of variables only.
fn check(op: &'static str, q: &Tensor, k: &Tensor, biases: Biases<'_>) -> Result<()> {
    let (&[b, n, s, h, _], &[_, _, l, _, _]) = (q.shape(), k.shape()) else {
        return Ok(()); // `launch` refuses it
    };
    let expected = [
        ("keys", biases.keys, [b, n, 1, 1, l]),
        ("pairs", biases.pairs, [b, 1, h, s, l]),
    ];
    for (name, bias, want) in expected {
        if let Some(found) = bias.map(Tensor::shape).filter(|found| *found != want) {
            let text = format!(
                "the bias of {name} is {found:?}; with these q and k it has to be {want:?}"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, op, text));
        }
    }
    Ok(())
}
