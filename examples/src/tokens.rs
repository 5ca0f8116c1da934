//! Texts as the numbers of their tokens, by a model's `tokenizer.json`.

use std::path::Path;

use ds_core::{Error, ErrorKind, Result};
use tokenizers::{Tokenizer, TruncationParams};

use crate::{read, unfit};

/// What surrounds the tokens of a text: `[CLS]` and `[SEP]`.
const SPECIAL: usize = 2;

/// A text in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Rows of the embedding table.
    pub ids: Vec<i32>,
    /// Whether there were more than the model takes.
    pub is_cut: bool,
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct TextTokenizer(Tokenizer);

impl TextTokenizer {
    /// Reads `path`, a `tokenizer.json`, for a model that knows `vocabulary` tokens and takes
    /// `longest` of them at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the file cannot be read, `Incompatible` when it is no tokenizer or one
    /// for another vocabulary.
    pub fn read(path: &Path, vocabulary: i64, longest: usize) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(read(path)?).map_err(|e| unfit(path, e))?;
        let ids = tokenizer.get_vocab(true).into_values();
        let last = ids.max().map_or(-1, i64::from);
        if last >= vocabulary {
            let why = format!(
                "it has tokens up to {last}, the model's embedding table {vocabulary} rows: a \
                 tokenizer for another model"
            );
            return Err(unfit(path, why));
        }
        if longest <= SPECIAL {
            let why = format!("at most {longest} tokens leave a text none");
            return Err(unfit(path, why));
        }
        let cut = TruncationParams {
            max_length: longest,
            ..TruncationParams::default()
        };
        // What the file says of lengths is for batches of a fixed one.
        tokenizer
            .with_padding(None)
            .with_truncation(Some(cut))
            .map_err(|e| unfit(path, e))?;
        Ok(Self(tokenizer))
    }

    /// The tokens of `text`, with those that the model puts around them; at most `longest`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a text without any token: an embedding of it would mean
    /// nothing.
    pub fn tokens(&self, text: &str) -> Result<Tokens> {
        let refuse = |why: String| Error::new(ErrorKind::InvalidArgument, "tokenize", why);
        let encoding = self
            .0
            .encode(text, true)
            .map_err(|e| refuse(format!("{text:?}: {e}")))?;
        let ids = encoding.get_ids().iter().map(|&id| i32::try_from(id));
        let ids = ids
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| refuse(format!("{text:?}: {e}")))?;
        if ids.len() <= SPECIAL {
            return Err(refuse(format!(
                "the text {text:?} has no word, sign or number"
            )));
        }
        Ok(Tokens {
            ids,
            is_cut: !encoding.get_overflowing().is_empty(),
        })
    }
}
