//! What the inference layers of DeepSpeed do in a call or two, made of ops of the catalogue.

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor};

use crate::{
    activation::{Activation, Gated, gated_activation},
    flash_attn::{AttentionConfig, flash_attn},
    layer_norm::{AddLayerNorm, add_layer_norm, layer_norm},
    matmul::linear,
    movement::copy,
    rms_norm::{AddRmsNorm, add_rms_norm, rms_norm},
    rope::{RopeConfig, RopeTables, rope, rope_into},
};

/// The norm before a block of a model.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Its weight.
    pub weight: &'a Tensor,
    /// Its bias, which makes it a layer norm; without one it is an RMS norm.
    pub bias: Option<&'a Tensor>,
    /// Added to the variance, or to the mean square.
    pub eps: f64,
}

/// A product with the norm of `x`: `(norm(x) w^T + bias, norm(x))`.
///
/// # Shapes
/// `x`: `[.., K]`, `w`: `[N, K]`, `bias`: `[N]`; gives `[.., N]` and a tensor as `x`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming what does not fit.
///
/// # Upstream
/// `qkv_gemm` and `rms_qkv_gemm` of `csrc/transformer/inference`.
pub fn qkv_gemm(
    stream: &Stream,
    x: &Tensor,
    norm: Norm<'_>,
    w: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let y = match norm.bias {
        Some(_) => layer_norm(stream, x, Some(norm.weight), norm.bias, norm.eps)?.y,
        None => rms_norm(stream, x, norm.weight, norm.eps)?.0,
    };
    Ok((linear(stream, &y, w, bias, None, Activation::Identity)?, y))
}

/// A feed-forward network behind a residual connection and a norm.
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// What goes past what is before: added to the input, and so is `input_bias`.
    pub residual: &'a Tensor,
    /// The bias of the projection before.
    pub input_bias: Option<&'a Tensor>,
    /// The norm of that sum.
    pub norm: Norm<'a>,
    /// `[I, K]`, or for a gated network `[2 I, K]`: what is passed on, and behind it the gates.
    pub up: &'a Tensor,
    /// `[I]` or `[2 I]`.
    pub up_bias: Option<&'a Tensor>,
    /// Of the network, or of its gates.
    pub activation: Activation,
    /// Whether there are gates.
    pub gated: bool,
    /// `[N, I]`.
    pub down: &'a Tensor,
}

/// `(f(norm(sum) up^T + up_bias) down^T, sum)` with `sum = x + residual + input_bias`.
///
/// # Shapes
/// `x` and `residual`: `[.., K]`; gives `[.., N]` and `[.., K]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming what does not fit.
///
/// # Upstream
/// `mlp_gemm` and `rms_mlp_gemm` of `csrc/transformer/inference`, of which the second gates. The layer norm's
/// form returns the norm instead of the sum where there is no pre-layer-norm; that is [`add_layer_norm`].
pub fn mlp_gemm(stream: &Stream, x: &Tensor, call: Mlp<'_>) -> Result<(Tensor, Tensor)> {
    let Mlp { residual, norm, .. } = call;
    let (sum, y) = if norm.bias.is_some() {
        let of_sum = AddLayerNorm {
            x,
            residual,
            add_bias: call.input_bias,
            weight: Some(norm.weight),
            bias: norm.bias,
            eps: norm.eps,
        };
        let (sum, norm) = add_layer_norm(stream, of_sum)?;
        (sum, norm.y)
    } else {
        let of_sum = AddRmsNorm {
            x,
            residual,
            bias: call.input_bias,
            weight: norm.weight,
            eps: norm.eps,
        };
        let (sum, y, _) = add_rms_norm(stream, of_sum)?;
        (sum, y)
    };
    let inner = if call.gated {
        let both = linear(
            stream,
            &y,
            call.up,
            call.up_bias,
            None,
            Activation::Identity,
        )?;
        let axis = both.shape().len().saturating_sub(1);
        let half = both.shape()[axis] / 2;
        let gated = Gated {
            gate: &both.narrow(axis, half, half)?,
            up: &both.narrow(axis, 0, half)?,
            gate_bias: None,
            up_bias: None,
            kind: call.activation,
        };
        gated_activation(stream, gated)?
    } else {
        linear(stream, &y, call.up, call.up_bias, None, call.activation)?
    };
    Ok((
        linear(stream, &inner, call.down, None, None, Activation::Identity)?,
        sum,
    ))
}

/// Keys and values of the tokens that a model has seen.
#[derive(Debug)]
pub struct KvCache {
    /// `[B, tokens, G, D]` each.
    keys: Tensor,
    values: Tensor,
    seen: i64,
}

impl KvCache {
    /// Room for `tokens` tokens of `batch` sequences, of `heads` heads of `of_head` elements.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn new(
        stream: &Stream,
        dtype: DType,
        [batch, tokens, heads, of_head]: [i64; 4],
    ) -> Result<Self> {
        let room = || Tensor::empty(stream, dtype, &[batch, tokens, heads, of_head]);
        Ok(Self {
            keys: room()?,
            values: room()?,
            seen: 0,
        })
    }

    /// Tokens in it, of each sequence.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// Forgets them; upstream's `reset_cache`.
    pub fn reset(&mut self) {
        self.seen = 0;
    }
}

/// Attention of new tokens to themselves and all that `cache` has, which they are added to.
///
/// Queries and keys are turned by `tables`, where there are any, at positions that go on where the cache ends.
///
/// # Shapes
/// `qkv`: `[B, S, (H + 2 G) * D]`, a token's queries, keys and values side by side; gives `[B, S, H * D]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for tokens that the cache has no room for, which it then does not take,
/// and naming what does not fit.
///
/// # Upstream
/// `softmax_context` of `csrc/transformer/inference`. Its cache is a global of the process, and it reads
/// beyond where a prompt is longer.
pub fn softmax_context(
    stream: &Stream,
    qkv: &Tensor,
    cache: &mut KvCache,
    tables: Option<(&RopeTables, bool)>,
    config: &AttentionConfig<'_>,
) -> Result<Tensor> {
    let invalid = |text| {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "attend to a cache",
            text,
        ))
    };
    let &[_, room, groups, of_head] = cache.keys.shape() else {
        return invalid(format!("the cache is {:?}", cache.keys.shape()));
    };
    let &[batch, tokens, width] = qkv.shape() else {
        return invalid(format!(
            "qkv is {:?}, it has to be [batch, tokens, width]",
            qkv.shape()
        ));
    };
    let heads = width / of_head.max(1) - 2 * groups;
    if heads < 1 || (heads + 2 * groups) * of_head != width {
        return invalid(format!(
            "tokens of {width} elements are no queries behind which {groups} keys and values of {of_head} come"
        ));
    }
    if tokens > room - cache.seen {
        return invalid(format!(
            "{tokens} tokens behind {} are more than the {room} that the cache was made for",
            cache.seen
        ));
    }
    let qkv = qkv.reshape(&[batch, tokens, heads + 2 * groups, of_head])?;
    let part = |first, count| qkv.narrow(2, first, count);
    let (mut q, k, v) = (
        part(0, heads)?,
        part(heads, groups)?,
        part(heads + groups, groups)?,
    );
    let new = |of: &Tensor| of.narrow(1, cache.seen, tokens);
    if let Some((tables, interleaved)) = tables {
        let at = RopeConfig {
            interleaved,
            offset: cache.seen,
            ..RopeConfig::default()
        };
        q = rope(stream, &q, tables, at)?;
        rope_into(stream, &k, tables, &new(&cache.keys)?, at, false)?;
    } else {
        copy(stream, &k, &new(&cache.keys)?)?;
    }
    copy(stream, &v, &new(&cache.values)?)?;
    let seen = cache.seen + tokens;
    let all = |of: &Tensor| of.narrow(1, 0, seen);
    let attention = flash_attn(stream, &q, &all(&cache.keys)?, &all(&cache.values)?, config)?;
    cache.seen = seen;
    attention.o.reshape(&[batch, tokens, heads * of_head])
}
