//! `config.json`: the sizes of a model, and whether it is one that this code runs.

use std::path::Path;

use ds_core::Result;
use serde::Deserialize;

use crate::{read_json, unfit};

/// No size of a model is beyond it, so that products of two are far from overflow.
const MOST: i64 = 1 << 24;

/// The sizes of a model, in the names of its `config.json`.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// Always `bert`.
    pub model_type: String,
    /// Between the two products of a layer's feed-forward part; always `gelu`.
    pub hidden_act: String,
    /// How places get into the sum of embeddings; always `absolute`.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
    /// Elements of a token's vector.
    pub hidden_size: i64,
    /// Elements between the two products of the feed-forward part.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads of attention, which share a vector's elements.
    pub num_attention_heads: i64,
    /// Rows of the table of words.
    pub vocab_size: i64,
    /// Rows of the table of places: tokens of the longest sequence.
    pub max_position_embeddings: i64,
    /// Rows of the table of segments.
    pub type_vocab_size: i64,
    /// Added to the variance in each norm.
    pub layer_norm_eps: f64,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Config {
    /// Reads `path`, a `config.json`.
    ///
    /// # Errors
    /// [`ds_core::ErrorKind::Io`] when it cannot be read, `Incompatible` when it is of another model.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = read_json(path)?;
        let told = [
            ("model_type", &config.model_type, "bert"),
            ("hidden_act", &config.hidden_act, "gelu"),
            (
                "position_embedding_type",
                &config.position_embedding_type,
                "absolute",
            ),
        ];
        for (name, found, wanted) in told {
            if found != wanted {
                let why = format!("{name} is {found:?}; only {wanted:?} runs here");
                return Err(unfit(path, why));
            }
        }
        let sizes = [
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ];
        for (name, size) in sizes {
            if !(1..=MOST).contains(&size) {
                return Err(unfit(
                    path,
                    format!("{name} is {size}; it must be 1 to {MOST}"),
                ));
            }
        }
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if hidden % heads != 0 {
            return Err(unfit(
                path,
                format!("{heads} heads cannot share hidden_size {hidden}"),
            ));
        }
        if !(0.0..1.0).contains(&config.layer_norm_eps) {
            let why = format!("layer_norm_eps is {}", config.layer_norm_eps);
            return Err(unfit(path, why));
        }
        Ok(config)
    }
}
