//! The encoder of BERT, of ops of the catalogue: tokens in, a vector for each of them out.
//!
//! The sequences of a batch lie one behind the other, `[tokens, hidden]`, and nothing is padded; only
//! attention looks at where one ends.
//!
//! # Source
//! Devlin et al. 2018, arXiv 1810.04805; tensor names are those of Hugging Face's `BertModel`.

mod config;
mod layer;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor};
use ds_ops::{elementwise::add, embedding::embedding};

use crate::weights::Weights;

pub use config::Config;
use layer::{Layer, Norm};

/// The model on a device.
#[derive(Debug)]
pub struct Bert {
    /// A row a token.
    words: Tensor,
    /// A row a place in a sequence; the row of the first segment is in it already.
    places: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    config: Config,
}

impl Bert {
    /// Puts the weights of a model on the device of `stream`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn new(stream: &Stream, weights: &Weights, config: &Config) -> Result<Self> {
        let hidden = config.hidden_size;
        let table = |name: &str, rows: i64| {
            let name = format!("embeddings.{name}_embeddings.weight");
            weights.tensor(stream, &name, &[rows, hidden])
        };
        let places = table("position", config.max_position_embeddings)?;
        let segments = table("token_type", config.type_vocab_size)?;
        let layers = 0..config.num_hidden_layers;
        Ok(Self {
            words: table("word", config.vocab_size)?,
            places: add(stream, &places, &segments.narrow(0, 0, 1)?)?,
            norm: Norm::new(stream, weights, "embeddings.LayerNorm", config)?,
            layers: layers
                .map(|index| Layer::new(stream, weights, index, config))
                .collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// What it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The vector of each token of the batch: `[tokens, hidden]`.
    ///
    /// # Errors
    /// The first one of an op.
    pub fn forward(&self, stream: &Stream, batch: &Batch) -> Result<Tensor> {
        let words = embedding(stream, &self.words, &batch.ids)?;
        let places = embedding(stream, &self.places, &batch.places)?;
        let x = self.norm.of_sum(stream, &words, &places)?;
        let mut layers = self.layers.iter();
        layers.try_fold(x, |x, layer| layer.forward(stream, &x, batch))
    }
}

/// Sequences of tokens one behind the other, on a device.
#[derive(Debug)]
pub struct Batch {
    /// `[tokens]`: rows of the table of words.
    ids: Tensor,
    /// `[tokens]`: where in its sequence each one is.
    places: Tensor,
    /// `[tokens]`: which sequence each one is of.
    pub(crate) sequences: Tensor,
    /// `[sequences + 1]`: where each one begins, and where the last one ends.
    starts: Tensor,
}

impl Batch {
    /// Puts the tokens of `sequences` on the device of `stream`, in one copy.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a batch or a sequence without tokens, or more than fit an
    /// i32; else as [`Tensor::from_slice`].
    pub fn new(stream: &Stream, sequences: &[&[i32]]) -> Result<Self> {
        let refuse = |why: String| Error::new(ErrorKind::InvalidArgument, "make a batch", why);
        if sequences.is_empty() {
            return Err(refuse("it has no sequence".to_owned()));
        }
        if let Some(empty) = sequences.iter().position(|ids| ids.is_empty()) {
            return Err(refuse(format!("sequence {empty} has no token")));
        }
        let tokens: usize = sequences.iter().map(|ids| ids.len()).sum();
        if i32::try_from(tokens).is_err() {
            return Err(refuse(format!("{tokens} tokens are too many")));
        }
        let mut rows = sequences.concat();
        rows.extend(sequences.iter().flat_map(|ids| (0..).take(ids.len())));
        let numbered = (0_i32..).zip(sequences);
        rows.extend(numbered.flat_map(|(number, ids)| std::iter::repeat_n(number, ids.len())));
        let ends = sequences.iter().scan(0, |end, ids| {
            *end += i32::try_from(ids.len()).unwrap_or(i32::MAX);
            Some(*end)
        });
        rows.push(0);
        rows.extend(ends);
        let length = |of: usize| i64::try_from(of).unwrap_or(i64::MAX);
        let (tokens, all) = (length(tokens), length(rows.len()));
        let rows = Tensor::from_slice(stream, &[all], &rows)?;
        Ok(Self {
            ids: rows.narrow(0, 0, tokens)?,
            places: rows.narrow(0, tokens, tokens)?,
            sequences: rows.narrow(0, 2 * tokens, tokens)?,
            starts: rows.narrow(0, 3 * tokens, all - 3 * tokens)?,
        })
    }

    /// How many sequences it has.
    pub(crate) fn sequence_count(&self) -> i64 {
        self.starts.elements() - 1
    }
}
