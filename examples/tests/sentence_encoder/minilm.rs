//! `MiniLM` itself against what sentence-transformers made of 20 texts; without the model, which a
//! script fetches, it is skipped.

use std::io::Write;

use ds_core::{ErrorKind, Stream};
use ds_examples::sentence::{FETCH, SentenceEncoder, default_folder};
use ds_tests::{cpu, sim};
use serde::Deserialize;

const FIXTURE: &str = include_str!("../../../tests/golden/models/sentence_encoder.json");

/// Six layers of products of up to 1536 terms, which both sides sum in f32 in orders of their own: tens
/// of roundings of 2^-24 on elements of about 0.05.
const TOLERANCE: f32 = 2e-6;

#[derive(Deserialize)]
struct Fixture {
    max_length: usize,
    texts: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<i32>,
    embedding: Vec<f32>,
}

fn fixture() -> Fixture {
    serde_json::from_str(FIXTURE).unwrap()
}

/// The model on the device of `stream`; `None` where it was not fetched, which is said.
fn encoder(stream: &Stream) -> Option<SentenceEncoder> {
    match SentenceEncoder::open(stream, &default_folder().unwrap()) {
        Ok(encoder) => Some(encoder),
        Err(error) if error.kind() == ErrorKind::NotInstalled => {
            // Not through `eprintln!`, whose text a passed test keeps to itself.
            let told = writeln!(std::io::stderr(), "skipped: {error}; {FETCH} fetches it");
            told.unwrap();
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Embeds these texts at once, and holds each against the fixture.
fn agrees(stream: &Stream, encoder: &SentenceEncoder, texts: &[Row]) {
    let all: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    let embeddings = encoder.encode(stream, &all).unwrap();
    for (wanted, found) in texts.iter().zip(&embeddings) {
        let text: String = wanted.text.chars().take(40).collect();
        let cosine = cosine(&found.vector, &wanted.embedding);
        assert!(cosine >= 0.9999, "a cosine of {cosine} for {text:?}");
        let pairs = found.vector.iter().zip(&wanted.embedding);
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= TOLERANCE, "{off:e} off for {text:?}");
        assert_eq!(found.vector.len(), wanted.embedding.len());
        assert_eq!(found.tokens, wanted.ids.len());
    }
}

#[test]
fn tokens_are_those_of_the_package() {
    let stream = cpu().unwrap().default_stream().unwrap();
    let Some(encoder) = encoder(stream) else {
        return;
    };
    let fixture = fixture();
    assert_eq!(encoder.longest(), fixture.max_length);
    assert_eq!(fixture.texts.len(), 20);
    let mut cut = 0;
    for text in &fixture.texts {
        let tokens = encoder.tokens(&text.text).unwrap();
        assert_eq!(tokens.ids, text.ids, "{:?}", text.text);
        cut += usize::from(tokens.is_cut);
    }
    assert_eq!(cut, 1);
}

#[test]
fn embeddings_are_those_of_the_package() {
    let stream = cpu().unwrap().default_stream().unwrap();
    let Some(encoder) = encoder(stream) else {
        return;
    };
    let texts = fixture().texts;
    agrees(stream, &encoder, &texts);
    for text in texts.chunks(1) {
        agrees(stream, &encoder, text);
    }
}

/// Its kernels are few, and all else is done by the references, so it gets short texts only.
#[test]
fn embeddings_are_the_same_on_the_example_device_in_c() {
    let Some([device, _]) = sim::devices() else {
        return;
    };
    let stream = device.default_stream().unwrap();
    let Some(encoder) = encoder(stream) else {
        return;
    };
    let mut texts = fixture().texts;
    texts.retain(|text| text.ids.len() < 10);
    assert!(texts.len() >= 5);
    agrees(stream, &encoder, &texts);
}
