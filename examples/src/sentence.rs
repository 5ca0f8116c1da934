//! A sentence encoder as `sentence-transformers` packs them: a tokenizer, BERT, the mean of the
//! tokens' vectors, at length 1.
//!
//! Only the numbers of tokens go to the device, and only the vectors of texts come back.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor};
use ds_ops::{
    elementwise::{clamp, div},
    movement::scatter_add,
    reduce::norm_last,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    bert::{Batch, Bert, Config},
    read_json,
    tokens::{TextTokenizer, Tokens},
    unfit,
    weights::Weights,
};

/// The model that [`default_folder`] is for, in its own folder of the cache.
const NAME: &str = "all-MiniLM-L6-v2";
/// Gets it.
pub const FETCH: &str = "examples/sentence_encoder/fetch.sh";
/// Texts that are computed at a time: more of them make no product faster.
const BATCH: usize = 32;

/// A tokenizer and a model on a device.
#[derive(Debug)]
pub struct SentenceEncoder {
    tokenizer: TextTokenizer,
    model: Bert,
    longest: usize,
}

/// An embedding of a text.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Of length 1, so that a product of two is the cosine of their angle.
    pub vector: Vec<f32>,
    /// How many tokens it was made of.
    pub tokens: usize,
    /// Whether the text had more than the model takes: the rest was left out.
    pub is_cut: bool,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize)]
struct TextConfig {
    max_seq_length: usize,
}

/// A line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

impl SentenceEncoder {
    /// Reads the model in `folder` and puts it on the device of `stream`.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] without such a folder, [`ErrorKind::Io`] when a file of it cannot
    /// be read, [`ErrorKind::Incompatible`] when one is damaged or of another kind of model.
    pub fn open(stream: &Stream, folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let what = format!("there is no model in {}", folder.display());
            return Err(
                Error::new(ErrorKind::NotInstalled, "open a sentence encoder", what)
                    .with_hint(format!("run {FETCH}, which fetches {NAME} (90 MB)")),
            );
        }
        check_modules(folder)?;
        let config = Config::read(&folder.join("config.json"))?;
        let path = folder.join("sentence_bert_config.json");
        let longest = read_json::<TextConfig>(&path)?.max_seq_length;
        let places = config.max_position_embeddings;
        if i64::try_from(longest).map_or(true, |longest| longest > places) {
            let why = format!("max_seq_length {longest} is beyond the model's {places} places");
            return Err(unfit(&path, why));
        }
        let path = folder.join("tokenizer.json");
        let tokenizer = TextTokenizer::read(&path, config.vocab_size, longest)?;
        let weights = Weights::read(&folder.join("model.safetensors"))?;
        let model = Bert::new(stream, &weights, &config)?;
        // A copy that fails is told of here, not by the first text.
        stream.synchronize()?;
        Ok(Self {
            tokenizer,
            model,
            longest,
        })
    }

    /// The sizes of the model.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Tokens of a text that the model takes at most.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens of `text`, as the model takes them.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokens`].
    pub fn tokens(&self, text: &str) -> Result<Tokens> {
        self.tokenizer.tokens(text)
    }

    /// The embedding of each text.
    ///
    /// # Errors
    /// As [`TextTokenizer::tokens`] for the first text that has none, or an op's.
    ///
    /// # Upstream
    /// `SentenceTransformer.encode` of sentence-transformers; a text without tokens has an embedding
    /// there.
    pub fn encode(&self, stream: &Stream, texts: &[&str]) -> Result<Vec<Embedding>> {
        let tokens: Vec<Tokens> = texts
            .iter()
            .map(|text| self.tokens(text))
            .collect::<Result<_>>()?;
        let mut embeddings = Vec::with_capacity(texts.len());
        for tokens in tokens.chunks(BATCH) {
            let ids: Vec<&[i32]> = tokens.iter().map(|tokens| &tokens.ids[..]).collect();
            let vectors = self.encode_tokens(stream, &ids)?.to_vec::<f32>(stream)?;
            let each = vectors.chunks(vectors.len() / tokens.len());
            embeddings.extend(each.zip(tokens).map(|(vector, tokens)| Embedding {
                vector: vector.to_vec(),
                tokens: tokens.ids.len(),
                is_cut: tokens.is_cut,
            }));
        }
        Ok(embeddings)
    }

    /// The embeddings of a batch of texts in tokens, on the device: `[texts, hidden]`.
    ///
    /// # Errors
    /// As [`Batch::new`], or an op's.
    pub fn encode_tokens(&self, stream: &Stream, texts: &[&[i32]]) -> Result<Tensor> {
        let batch = Batch::new(stream, texts)?;
        let tokens = self.model.forward(stream, &batch)?;
        pooled(stream, &tokens, &batch)
    }
}

/// Where the fetched model lies: in the cache that `DS_CACHE_DIR`, `XDG_CACHE_HOME` or `HOME` names.
///
/// # Errors
/// As [`ds_core::build::Settings::from_environment`].
pub fn default_folder() -> Result<PathBuf> {
    let cache = ds_core::build::Settings::from_variables(|name| env::var_os(name))?.dir;
    Ok(cache.join("models").join(NAME))
}

/// The direction of the mean of each text's vectors, which is that of their sum.
///
/// # Upstream
/// `Pooling` and `Normalize` of sentence-transformers, whose length is at least 1e-12, too.
fn pooled(stream: &Stream, tokens: &Tensor, batch: &Batch) -> Result<Tensor> {
    let texts = batch.sequence_count();
    let sums = Tensor::empty(stream, DType::F32, &[texts, tokens.shape()[1]])?;
    sums.buffer().fill(stream, 0)?;
    scatter_add(stream, &sums, &batch.sequences, tokens)?;
    let lengths = norm_last(stream, &sums, DType::F32)?;
    let lengths = clamp(stream, &lengths, 1e-12, f64::from(f32::MAX))?;
    div(stream, &sums, &lengths.reshape(&[texts, 1])?)
}

/// Refuses a model that makes something else of BERT's vectors than [`pooled`] does.
fn check_modules(folder: &Path) -> Result<()> {
    let path = folder.join("modules.json");
    let modules: Vec<Module> = read_json(&path)?;
    let kinds: Vec<&str> = modules
        .iter()
        .map(|module| module.kind.rsplit('.').next().unwrap_or_default())
        .collect();
    let runs = ["Transformer", "Pooling", "Normalize"];
    if kinds != runs {
        return Err(unfit(
            &path,
            format!("its modules are {kinds:?}; only {runs:?} run here"),
        ));
    }
    let path = folder.join("1_Pooling/config.json");
    let pooling: BTreeMap<String, Value> = read_json(&path)?;
    let modes: Vec<_> = pooling
        .iter()
        .filter(|(name, value)| name.starts_with("pooling_mode_") && **value == Value::Bool(true))
        .map(|(name, _)| name.as_str())
        .collect();
    let mean = ["pooling_mode_mean_tokens"];
    if modes != mean {
        return Err(unfit(
            &path,
            format!("it asks for {modes:?}; only {mean:?} runs here"),
        ));
    }
    Ok(())
}
