//! A whole layer of a BERT-like transformer, forward and backward, made of ops of the catalogue.

use ds_core::{Error, ErrorKind, Result, RngState, Stream, Tensor};

use crate::{
    activation::{Activation, activation, activation_backward, bias_backward},
    dropout::{Dropout, bias_dropout_add, dropout, dropout_backward},
    elementwise::add,
    layer_norm::{
        LayerNorm, LayerNormGradients, add_layer_norm_backward, layer_norm, layer_norm_backward,
    },
    matmul::{linear, matmul, matmul_into},
    softmax::{SoftmaxConfig, softmax, softmax_backward},
};

/// What a layer is, beside its weights.
///
/// # Upstream
/// `DeepSpeedTransformerConfig` of `deepspeed/ops/transformer`. What only saves memory there by computing
/// again (`normalize_invertible`, `gelu_checkpoint`, `attn_dropout_checkpoint`) has no switch: masks of
/// dropout are functions of seed and position and are never kept. `stochastic_mode` gives up equal results
/// for speed there; here results are equal and it would change nothing.
#[derive(Clone, Copy, Debug)]
pub struct TransformerConfig {
    /// Attention heads; they divide the hidden size.
    pub heads: i64,
    /// Probability that a share of attention is dropped; 0 where nothing is trained.
    pub attn_dropout_ratio: f64,
    /// Probability that an element of what attention and the feed-forward network give is dropped.
    pub hidden_dropout_ratio: f64,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// Whether norms come before attention and feed-forward network, or behind them.
    pub pre_layer_norm: bool,
}

/// The weights, by upstream's names; of hidden size H and intermediate size I. Also their gradients.
#[derive(Clone, Debug)]
pub struct TransformerWeights {
    /// Of queries, keys and values: `[3 H, H]`.
    pub attn_qkvw: Tensor,
    /// `[3 H]`.
    pub attn_qkvb: Tensor,
    /// Of what attention gives: `[H, H]`.
    pub attn_ow: Tensor,
    /// `[H]`.
    pub attn_ob: Tensor,
    /// Of the norm before the feed-forward network: `[H]`.
    pub attn_nw: Tensor,
    /// `[H]`.
    pub attn_nb: Tensor,
    /// `[I, H]`.
    pub inter_w: Tensor,
    /// `[I]`.
    pub inter_b: Tensor,
    /// `[H, I]`.
    pub output_w: Tensor,
    /// `[H]`.
    pub output_b: Tensor,
    /// Of the norm before attention, or behind all: `[H]`.
    pub norm_w: Tensor,
    /// `[H]`.
    pub norm_b: Tensor,
}

/// What [`transformer_layer`] gives, and [`transformer_layer_backward`] needs.
#[derive(Debug)]
pub struct TransformerLayer {
    /// The result, as `x`.
    pub y: Tensor,
    config: TransformerConfig,
    draws: [RngState; 3],
    x: Tensor,
    /// The norm before attention, or behind all.
    norm: LayerNorm,
    qkv: Tensor,
    probabilities: Tensor,
    context: Tensor,
    /// `x` and what attention adds to it.
    attended: Tensor,
    attn_norm: LayerNorm,
    /// Before the bias and gelu.
    inter: Tensor,
    gelu: Tensor,
    /// What the norm behind all is of.
    sum: Tensor,
}

/// A layer: attention and a feed-forward network with gelu (of tanh), each with dropout, a residual
/// connection and a norm.
///
/// `mask` is added to the scores: 0 where a token is seen, a large negative number where it is padding.
/// `draws` is where the generator stands; [`random_words`] tells how many words are drawn.
///
/// # Shapes
/// `x`: `[B, S, H]`, contiguous; `mask`: `[B, 1, 1, S]` or anything that expands to `[B, heads, S, S]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for heads that do not divide H, and naming what does not fit.
///
/// # Upstream
/// `BertTransformerLayer::Forward` of `csrc/transformer`.
pub fn transformer_layer(
    stream: &Stream,
    config: TransformerConfig,
    weights: &TransformerWeights,
    x: &Tensor,
    mask: Option<&Tensor>,
    draws: RngState,
) -> Result<TransformerLayer> {
    let [batch, tokens, hidden] = sizes(config, x)?;
    let draws = split(config, x, draws)?;
    let norm_of = |x| {
        layer_norm(
            stream,
            x,
            Some(&weights.norm_w),
            Some(&weights.norm_b),
            config.layer_norm_eps,
        )
    };

    let before = config.pre_layer_norm.then(|| norm_of(x)).transpose()?;
    let input = before.as_ref().map_or(x, |norm| &norm.y);
    let qkv = linear(
        stream,
        input,
        &weights.attn_qkvw,
        Some(&weights.attn_qkvb),
        None,
        Activation::Identity,
    )?;
    let [q, k, v] = heads_of(&qkv, config.heads)?;
    let scores = matmul(stream, &q, &k.transpose(2, 3)?)?;
    let mask = mask.map(|mask| mask.expand(scores.shape())).transpose()?;
    let soft = SoftmaxConfig {
        mask: mask.as_ref(),
        scale: scale(config, hidden),
        causal: false,
    };
    let probabilities = softmax(stream, &scores, &soft)?;
    let dropped = dropout(stream, &probabilities, attention(config, draws))?;
    let context = Tensor::empty(
        stream,
        x.dtype(),
        &[batch, tokens, config.heads, hidden / config.heads],
    )?;
    matmul_into(stream, &dropped, &v, &context.transpose(1, 2)?)?;
    let context = context.reshape(x.shape())?;

    let projected = linear(
        stream,
        &context,
        &weights.attn_ow,
        None,
        None,
        Activation::Identity,
    )?;
    let attended = bias_dropout_add(
        stream,
        &projected,
        x,
        Some(&weights.attn_ob),
        of_hidden(config, draws[1]),
    )?;
    let attn_norm = layer_norm(
        stream,
        &attended,
        Some(&weights.attn_nw),
        Some(&weights.attn_nb),
        config.layer_norm_eps,
    )?;
    let inter = linear(
        stream,
        &attn_norm.y,
        &weights.inter_w,
        None,
        None,
        Activation::Identity,
    )?;
    let gelu = activation(stream, &inter, Some(&weights.inter_b), Activation::GeluTanh)?;
    let output = linear(
        stream,
        &gelu,
        &weights.output_w,
        None,
        None,
        Activation::Identity,
    )?;
    let past = if config.pre_layer_norm {
        &attended
    } else {
        &attn_norm.y
    };
    let sum = bias_dropout_add(
        stream,
        &output,
        past,
        Some(&weights.output_b),
        of_hidden(config, draws[2]),
    )?;
    let (y, norm) = match before {
        Some(norm) => (sum.clone(), norm),
        None => norm_of(&sum).map(|norm| (norm.y.clone(), norm))?,
    };
    Ok(TransformerLayer {
        y,
        config,
        draws,
        x: x.clone(),
        norm,
        qkv,
        probabilities,
        context,
        attended,
        attn_norm,
        inter,
        gelu,
        sum,
    })
}

/// The gradients of [`transformer_layer`]: of `x`, and of the weights.
///
/// # Shapes
/// `dy` as the layer's `y`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming what does not fit.
pub fn transformer_layer_backward(
    stream: &Stream,
    layer: &TransformerLayer,
    weights: &TransformerWeights,
    dy: &Tensor,
) -> Result<(Tensor, TransformerWeights)> {
    let config = layer.config;
    let [batch, tokens, hidden] = sizes(config, &layer.x)?;
    let behind = (!config.pre_layer_norm)
        .then(|| norm_backward(stream, dy, &layer.sum, &weights.norm_w, &layer.norm))
        .transpose()?;
    let dsum = behind.as_ref().map_or(dy, |norm| &norm.dx);

    let doutput = dropout_backward(stream, dsum, of_hidden(config, layer.draws[2]))?;
    let (dgelu, output_w) = linear_backward(stream, &doutput, &layer.gelu, &weights.output_w)?;
    let dinter = activation_backward(
        stream,
        &dgelu,
        &layer.inter,
        Some(&weights.inter_b),
        Activation::GeluTanh,
    )?;
    let (dnormed, inter_w) =
        linear_backward(stream, &dinter, &layer.attn_norm.y, &weights.inter_w)?;
    // What goes past the network comes from before its norm, or from behind.
    let attn_norm = if config.pre_layer_norm {
        let LayerNorm { mean, rstd, .. } = &layer.attn_norm;
        let weight = Some(&weights.attn_nw);
        add_layer_norm_backward(stream, &dnormed, dsum, &layer.attended, weight, mean, rstd)?
    } else {
        let dnormed = add(stream, &dnormed, dsum)?;
        norm_backward(
            stream,
            &dnormed,
            &layer.attended,
            &weights.attn_nw,
            &layer.attn_norm,
        )?
    };
    let dattended = attn_norm.dx;

    let dprojected = dropout_backward(stream, &dattended, of_hidden(config, layer.draws[1]))?;
    let (dcontext, attn_ow) =
        linear_backward(stream, &dprojected, &layer.context, &weights.attn_ow)?;
    let each = [batch, tokens, config.heads, hidden / config.heads];
    let dcontext = dcontext.reshape(&each)?.transpose(1, 2)?;
    let [q, k, v] = heads_of(&layer.qkv, config.heads)?;
    let dqkv = Tensor::empty(stream, dy.dtype(), layer.qkv.shape())?;
    let [dq, dk, dv] = heads_of(&dqkv, config.heads)?;
    let dropped = dropout(stream, &layer.probabilities, attention(config, layer.draws))?;
    matmul_into(stream, &dropped.transpose(2, 3)?, &dcontext, &dv)?;
    let ddropped = matmul(stream, &dcontext, &v.transpose(2, 3)?)?;
    let dprobabilities = dropout_backward(stream, &ddropped, attention(config, layer.draws))?;
    let dscores = softmax_backward(
        stream,
        &dprobabilities,
        &layer.probabilities,
        scale(config, hidden),
    )?;
    matmul_into(stream, &dscores, &k, &dq)?;
    matmul_into(stream, &dscores.transpose(2, 3)?, &q, &dk)?;

    let input = if config.pre_layer_norm {
        &layer.norm.y
    } else {
        &layer.x
    };
    let (dinput, attn_qkvw) = linear_backward(stream, &dqkv, input, &weights.attn_qkvw)?;
    let (dx, norm_w, norm_b) = if let Some(norm) = behind {
        (add(stream, &dinput, &dattended)?, norm.dweight, norm.dbias)
    } else {
        let LayerNorm { mean, rstd, .. } = &layer.norm;
        let weight = Some(&weights.norm_w);
        let norm =
            add_layer_norm_backward(stream, &dinput, &dattended, &layer.x, weight, mean, rstd)?;
        (norm.dx, norm.dweight, norm.dbias)
    };
    let gradients = TransformerWeights {
        attn_qkvw,
        attn_qkvb: bias_backward(stream, &dqkv)?,
        attn_ow,
        attn_ob: bias_backward(stream, &dprojected)?,
        attn_nw: attn_norm.dweight,
        attn_nb: attn_norm.dbias,
        inter_w,
        inter_b: bias_backward(stream, &dinter)?,
        output_w,
        output_b: bias_backward(stream, &doutput)?,
        norm_w,
        norm_b,
    };
    Ok((dx, gradients))
}

/// Words that [`transformer_layer`] draws for an `x` of this shape, to be taken from a generator.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when the shape is not `[B, S, H]`.
pub fn random_words(config: TransformerConfig, x: &Tensor) -> Result<u64> {
    let end = split(config, x, RngState { seed: 0, offset: 0 })?[2];
    Ok(end.offset + words(x.elements()))
}

/// Where the draws of attention and of the two hidden dropouts start.
fn split(config: TransformerConfig, x: &Tensor, first: RngState) -> Result<[RngState; 3]> {
    let [batch, tokens, _] = sizes(config, x)?;
    let behind = |state: RngState, elements| RngState {
        offset: state.offset.wrapping_add(words(elements)),
        ..state
    };
    let second = behind(first, batch * config.heads * tokens * tokens);
    Ok([first, second, behind(second, x.elements())])
}

/// Words of a draw: the next one starts at a multiple of four.
fn words(elements: i64) -> u64 {
    elements.unsigned_abs().next_multiple_of(4)
}

fn attention(config: TransformerConfig, draws: [RngState; 3]) -> Dropout {
    Dropout {
        p: config.attn_dropout_ratio,
        state: draws[0],
    }
}

fn of_hidden(config: TransformerConfig, state: RngState) -> Dropout {
    Dropout {
        p: config.hidden_dropout_ratio,
        state,
    }
}

/// `[B, S, H]`.
fn sizes(config: TransformerConfig, x: &Tensor) -> Result<[i64; 3]> {
    let invalid = |text| {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "run a transformer layer",
            text,
        ))
    };
    let &[batch, tokens, hidden] = x.shape() else {
        return invalid(format!(
            "x is {:?}, it has to be [batch, tokens, hidden size]",
            x.shape()
        ));
    };
    if config.heads < 1 || hidden % config.heads != 0 {
        let text = format!(
            "{} heads do not divide a hidden size of {hidden}",
            config.heads
        );
        return invalid(text);
    }
    Ok([batch, tokens, hidden])
}

/// Scores are divided by the square root of a head's size.
#[allow(
    clippy::cast_precision_loss,
    reason = "a head has fewer than 2^53 elements"
)]
fn scale(config: TransformerConfig, hidden: i64) -> f64 {
    ((hidden / config.heads).max(1) as f64).sqrt().recip()
}

/// Queries, keys and values of `[B, S, 3 H]`, as `[B, heads, S, D]`.
fn heads_of(qkv: &Tensor, heads: i64) -> Result<[Tensor; 3]> {
    let &[batch, tokens, width] = qkv.shape() else {
        return Err(Error::new(
            ErrorKind::Internal,
            "split heads",
            format!("{:?}", qkv.shape()),
        ));
    };
    let each = qkv.reshape(&[batch, tokens, 3 * heads, width / (3 * heads)])?;
    let part = |first: i64| each.narrow(2, first * heads, heads)?.transpose(1, 2);
    Ok([part(0)?, part(1)?, part(2)?])
}

/// Of `y = x w^T`: dx, as x, and dw.
fn linear_backward(
    stream: &Stream,
    dy: &Tensor,
    x: &Tensor,
    w: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let rows = |t: &Tensor| {
        let width = t.shape().last().copied().unwrap_or(1);
        t.reshape(&[t.elements() / width.max(1), width])
    };
    let (dy, flat) = (rows(dy)?, rows(x)?);
    let dw = matmul(stream, &dy.transpose(0, 1)?, &flat)?;
    Ok((matmul(stream, &dy, w)?.reshape(x.shape())?, dw))
}

fn norm_backward(
    stream: &Stream,
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    norm: &LayerNorm,
) -> Result<LayerNormGradients> {
    layer_norm_backward(stream, dy, x, Some(weight), &norm.mean, &norm.rstd)
}
