//! A layer of the encoder: attention, then two products with gelu between them, each with its input
//! added and normalised.

use ds_core::{Result, Stream, Tensor};
use ds_ops::{
    activation::Activation,
    flash_attn::{AttentionConfig, Starts, flash_attn_varlen},
    layer_norm::{AddLayerNorm, add_layer_norm, layer_norm},
    matmul::linear,
    movement::{concat, contiguous},
};

use super::{Batch, Config};
use crate::weights::Weights;

/// One of the model's layers.
#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values, in one product.
    qkv: Linear,
    attended: Linear,
    attended_norm: Norm,
    up: Linear,
    down: Linear,
    down_norm: Norm,
    heads: i64,
}

impl Layer {
    pub(super) fn new(
        stream: &Stream,
        weights: &Weights,
        index: i64,
        config: &Config,
    ) -> Result<Self> {
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let linear =
            |part: &str, from: i64, to: i64| Linear::new(stream, weights, &[name(part)], from, to);
        let norm = |part: &str| Norm::new(stream, weights, &name(part), config);
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Self {
            qkv: Linear::new(stream, weights, &qkv, hidden, hidden)?,
            attended: linear("attention.output.dense", hidden, hidden)?,
            attended_norm: norm("attention.output.LayerNorm")?,
            up: linear("intermediate.dense", hidden, inner)?,
            down: linear("output.dense", inner, hidden)?,
            down_norm: norm("output.LayerNorm")?,
            heads: config.num_attention_heads,
        })
    }

    pub(super) fn forward(&self, stream: &Stream, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let qkv = self.qkv.forward(stream, x, None, Activation::Identity)?;
        let attended = attention(stream, &qkv, self.heads, batch)?;
        let sum = self
            .attended
            .forward(stream, &attended, Some(x), Activation::Identity)?;
        let x = self.attended_norm.forward(stream, &sum)?;
        let inner = self.up.forward(stream, &x, None, Activation::Gelu)?;
        let sum = self
            .down
            .forward(stream, &inner, Some(&x), Activation::Identity)?;
        self.down_norm.forward(stream, &sum)
    }
}

/// What each token takes from those of its sequence, `[tokens, hidden]`, from queries, keys and
/// values side by side.
fn attention(stream: &Stream, qkv: &Tensor, heads: i64, batch: &Batch) -> Result<Tensor> {
    let (tokens, hidden) = (qkv.shape()[0], qkv.shape()[1] / 3);
    let qkv = qkv.reshape(&[tokens, 3 * heads, hidden / heads])?;
    let part = |first: i64| qkv.narrow(1, first * heads, heads);
    let starts = Starts {
        q: &batch.starts,
        kv: &batch.starts,
    };
    let config = AttentionConfig::default();
    let attention = flash_attn_varlen(stream, &part(0)?, &part(1)?, &part(2)?, starts, &config)?;
    attention.o.reshape(&[tokens, hidden])
}

/// A product with a weight, and a bias.
#[derive(Debug)]
struct Linear {
    /// `[out, in]`, the outputs of one input side by side in memory: so few rows meet it as it is.
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Those of these names, `[to, from]` each in the file, side by side.
    fn new(
        stream: &Stream,
        weights: &Weights,
        names: &[String],
        from: i64,
        to: i64,
    ) -> Result<Self> {
        let all = |part: &str, shape: &[i64]| {
            let read = |name: &String| weights.tensor(stream, &format!("{name}.{part}"), shape);
            let tensors = names.iter().map(read).collect::<Result<Vec<_>>>()?;
            concat(stream, &tensors.iter().collect::<Vec<_>>(), 0)
        };
        let weight = all("weight", &[to, from])?;
        Ok(Self {
            weight: contiguous(stream, &weight.transpose(0, 1)?)?.transpose(0, 1)?,
            bias: all("bias", &[to])?,
        })
    }

    /// `f(x weight^T + bias) + residual`.
    fn forward(
        &self,
        stream: &Stream,
        x: &Tensor,
        residual: Option<&Tensor>,
        f: Activation,
    ) -> Result<Tensor> {
        linear(stream, x, &self.weight, Some(&self.bias), residual, f)
    }
}

/// A layer norm's weight and bias.
#[derive(Debug)]
pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(super) fn new(
        stream: &Stream,
        weights: &Weights,
        name: &str,
        config: &Config,
    ) -> Result<Self> {
        let read =
            |part: &str| weights.tensor(stream, &format!("{name}.{part}"), &[config.hidden_size]);
        Ok(Self {
            weight: read("weight")?,
            bias: read("bias")?,
            eps: config.layer_norm_eps,
        })
    }

    fn forward(&self, stream: &Stream, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        Ok(layer_norm(stream, x, weight, bias, self.eps)?.y)
    }

    /// The norm of `x + residual`.
    pub(super) fn of_sum(&self, stream: &Stream, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let call = AddLayerNorm {
            x,
            residual,
            add_bias: None,
            weight: Some(&self.weight),
            bias: Some(&self.bias),
            eps: self.eps,
        };
        Ok(add_layer_norm(stream, call)?.1.y)
    }
}
