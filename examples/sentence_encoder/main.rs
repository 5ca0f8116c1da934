//! Embeddings of sentences, by a small BERT, on whatever `DS_ACCELERATOR` selects: texts that mean alike have
//! a similarity near 1.
//!
//! ```sh
//! examples/sentence_encoder/fetch.sh # the model, 90 MB, once
//! cargo run --release --example sentence_encoder -- "A cat sleeps." "A kitten naps." "Rust compiles."
//! cargo run --release --example sentence_encoder -- --profile "A cat sleeps."
//! DS_PLUGIN_PATH=~/my-plugins DS_ACCELERATOR=sim cargo run --release --example sentence_encoder -- "A cat sleeps."
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod profile;

use std::{path::PathBuf, time::Instant};

use clap::Parser;
// Linked in; every other accelerator is a file.
use ds_accelerator_cpu as _;
use ds_core::{Error, ErrorKind, Result, default_device};
use ds_examples::sentence::{Embedding, SentenceEncoder, default_folder};

/// Embeds each text, and compares them.
#[derive(Parser)]
struct Options {
    /// The texts.
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    /// A folder with a sentence-transformers model [default: the one that fetch.sh fetched].
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Print the vectors as JSON, a line a text.
    #[arg(long, conflicts_with = "profile")]
    json: bool,
    /// Print how long each op took when the texts are embedded a second time, and on which kernel.
    #[arg(long)]
    profile: bool,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("DS_LOG", "warn")).init();
    let options = Options::parse();
    if options.profile && !profile::is_traced() {
        return profile::run_traced();
    }
    let folder = options.model.map_or_else(default_folder, Ok)?;
    let device = default_device()?;
    let stream = device.default_stream()?;
    let start = Instant::now();
    let encoder = SentenceEncoder::open(stream, &folder)?;
    let opened = start.elapsed();
    let texts: Vec<&str> = options.texts.iter().map(String::as_str).collect();
    let start = Instant::now();
    let mut embeddings = encoder.encode(stream, &texts)?;
    let mut took = start.elapsed();
    if options.profile {
        // The first time, kernels were built and chosen.
        let start = Instant::now();
        let _range = ds_core::range(profile::RANGE);
        embeddings = encoder.encode(stream, &texts)?;
        took = start.elapsed();
    }
    if options.json {
        return print_json(&embeddings);
    }
    println!(
        "{device}: {} ({}); {} opened in {:.1} s",
        device.info().name,
        device.info().target,
        folder.display(),
        opened.as_secs_f64()
    );
    let tokens: usize = embeddings.iter().map(|e| e.tokens).sum();
    println!(
        "{} texts of {tokens} tokens in {:.2} ms",
        texts.len(),
        took.as_secs_f64() * 1e3
    );
    for (number, (text, embedding)) in texts.iter().zip(&embeddings).enumerate() {
        print_text(number, text, embedding, &encoder);
    }
    if embeddings.len() > 1 {
        print_similarities(&embeddings);
    }
    Ok(())
}

fn print_text(number: usize, text: &str, embedding: &Embedding, encoder: &SentenceEncoder) {
    let first: Vec<_> = embedding
        .vector
        .iter()
        .take(4)
        .map(|v| format!("{v:+.4}"))
        .collect();
    println!("\n{number}: {text:?}");
    if embedding.is_cut {
        println!(
            "   cut after {} tokens, the most that the model takes",
            encoder.longest()
        );
    }
    println!(
        "   {} tokens, {} numbers: {}, ..",
        embedding.tokens,
        embedding.vector.len(),
        first.join(", ")
    );
}

/// The cosine of each pair.
fn print_similarities(embeddings: &[Embedding]) {
    println!("\nsimilarity");
    for (number, one) in embeddings.iter().enumerate() {
        let row = embeddings.iter().map(|other| {
            let products = one.vector.iter().zip(&other.vector).map(|(a, b)| a * b);
            format!(" {:6.3}", products.sum::<f32>())
        });
        println!("{number:>4}: {}", row.collect::<String>());
    }
}

fn print_json(embeddings: &[Embedding]) -> Result<()> {
    for embedding in embeddings {
        let line = serde_json::to_string(&embedding.vector)
            .map_err(|e| Error::new(ErrorKind::Internal, "print an embedding", e.to_string()))?;
        println!("{line}");
    }
    Ok(())
}
