//! The sentence encoder with a small model: held against the same model in plain f64, on the CPU and
//! on the example device in C; and with models and texts that it cannot take.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod minilm;
mod model;

use std::{fs, path::Path};

use ds_core::{Error, ErrorKind, Stream};
use ds_examples::sentence::SentenceEncoder;
use ds_tests::{cpu, mutate::Mutator, sim};
use model::reference;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two layers of six products of at most 40 terms, each of unit scale and rounded to 2^-24 of its size:
/// some tens of roundings on elements of a vector of length 1.
const TOLERANCE: f64 = 5e-6;

fn cpu_stream() -> &'static Stream {
    cpu().unwrap().default_stream().unwrap()
}

/// The model in a folder, with one file changed.
fn changed(file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    model::write(folder.path()).unwrap();
    let path = folder.path().join(file);
    let content = fs::read(&path).unwrap();
    fs::write(&path, change(content)).unwrap();
    folder
}

fn changed_json(file: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    changed(file, |bytes| {
        let mut value = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    })
}

fn open(folder: &Path) -> Result<SentenceEncoder, Error> {
    SentenceEncoder::open(cpu_stream(), folder)
}

/// Opening it fails, and the error has all of these words and the file's name.
fn refuses(folder: &TempDir, kind: ErrorKind, file: &str, words: &[&str]) {
    let error = open(folder.path()).unwrap_err();
    let told = error.to_string();
    assert_eq!(error.kind(), kind, "{told}");
    for word in words.iter().chain([&file]) {
        assert!(told.contains(word), "{told:?} lacks {word:?}");
    }
}

/// Sequences of all lengths up to the longest, one behind the other and each alone.
fn agrees_with_the_reference(stream: &Stream) {
    let folder = tempfile::tempdir().unwrap();
    model::write(folder.path()).unwrap();
    let encoder = SentenceEncoder::open(stream, folder.path()).unwrap();
    let tensors = model::tensors();
    let sequences: Vec<Vec<i32>> = (1..=12)
        .map(|n| (0..n).map(|i| (5 * i + n) % 12).collect())
        .collect();
    let together: Vec<&[i32]> = sequences.iter().rev().map(Vec::as_slice).collect();
    let mut batches: Vec<Vec<&[i32]>> = together.iter().map(|ids| vec![*ids]).collect();
    batches.push(together);
    for batch in batches {
        let vectors = encoder.encode_tokens(stream, &batch).unwrap();
        assert_eq!(vectors.shape(), [i64::try_from(batch.len()).unwrap(), 24]);
        let vectors = vectors.to_vec::<f32>(stream).unwrap();
        for (ids, vector) in batch.iter().zip(vectors.chunks(24)) {
            let wanted = reference::embedding(&tensors, ids);
            for (found, wanted) in vector.iter().zip(&wanted) {
                let off = (f64::from(*found) - wanted).abs();
                assert!(
                    off <= TOLERANCE,
                    "{found} is {off:e} from {wanted} for {ids:?} of {} texts",
                    batch.len()
                );
            }
        }
    }
}

#[test]
fn a_small_model_agrees_with_itself_in_f64() {
    agrees_with_the_reference(cpu_stream());
}

#[test]
fn a_small_model_agrees_with_itself_on_the_example_device_in_c() {
    if let Some([device, _]) = sim::devices() {
        agrees_with_the_reference(device.default_stream().unwrap());
    }
}

#[test]
fn texts_become_the_tokens_that_the_model_takes() {
    let folder = tempfile::tempdir().unwrap();
    model::write(folder.path()).unwrap();
    let encoder = open(folder.path()).unwrap();
    let tokens = |text: &str| encoder.tokens(text).unwrap();
    assert_eq!(tokens("One two,Threes É").ids, [2, 5, 6, 10, 7, 9, 11, 3]);
    // Nothing is padded, and nothing cut below the model's own length.
    assert_eq!(tokens("four").ids, [2, 1, 3]);
    let fits = tokens(&"one ".repeat(10));
    assert_eq!((fits.ids.len(), fits.is_cut), (12, false));
    let long = tokens(&"one ".repeat(11));
    assert_eq!((&long.ids, long.is_cut), (&fits.ids, true));
    let embeddings = encoder
        .encode(cpu_stream(), &["one", &"two ".repeat(20)])
        .unwrap();
    let told: Vec<_> = embeddings
        .iter()
        .map(|e| (e.tokens, e.is_cut, e.vector.len()))
        .collect();
    assert_eq!(told, [(3, false, 24), (12, true, 24)]);
    // More texts than are computed at a time keep their order.
    let texts: Vec<String> = (0..70).map(|i| "two ".repeat(1 + i % 9)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let many = encoder.encode(cpu_stream(), &texts).unwrap();
    let alone = encoder.encode(cpu_stream(), &texts[65..66]).unwrap();
    assert_eq!(many.len(), 70);
    for (a, b) in many[65].vector.iter().zip(&alone[0].vector) {
        assert!((a - b).abs() <= 1e-6, "{a} and {b}");
    }
}

#[test]
fn texts_without_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    model::write(folder.path()).unwrap();
    let encoder = open(folder.path()).unwrap();
    for text in ["", " \n\t", "\u{7}"] {
        let error = encoder.encode(cpu_stream(), &["one", text]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("has no word"), "{error}");
    }
    assert!(encoder.encode(cpu_stream(), &[]).unwrap().is_empty());
    let empty: &[&[i32]] = &[];
    for batch in [empty, &[&[1], &[]]] {
        let error = encoder.encode_tokens(cpu_stream(), batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[test]
fn a_model_that_was_not_fetched_names_the_script() {
    let error = open(Path::new("/nowhere/model")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    let hint = error.hint().unwrap();
    assert!(hint.contains(ds_examples::sentence::FETCH), "{hint}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert!(root.join(ds_examples::sentence::FETCH).is_file());
    // A part of it is missing.
    for file in [
        "config.json",
        "modules.json",
        "tokenizer.json",
        "model.safetensors",
        "1_Pooling/config.json",
    ] {
        let folder = changed(file, |bytes| bytes);
        fs::remove_file(folder.path().join(file)).unwrap();
        refuses(&folder, ErrorKind::Io, file, &[]);
    }
}

#[test]
fn files_of_weights_that_lie_are_refused() {
    let weights = "model.safetensors";
    let lies = |change: fn(Vec<u8>) -> Vec<u8>, words: &[&str]| {
        refuses(
            &changed(weights, change),
            ErrorKind::Incompatible,
            weights,
            words,
        );
    };
    lies(|_| Vec::new(), &["it has 0 bytes"]);
    lies(
        |bytes| bytes[..bytes.len() - 1].to_vec(),
        &["not all of it"],
    );
    lies(|bytes| bytes[..100].to_vec(), &["it has 100 bytes"]);
    lies(|bytes| [bytes, vec![0; 4]].concat(), &["not all of it"]);
    for length in [u64::MAX, 1 << 62, 1 << 20, 1, 0] {
        let folder = changed(weights, |bytes| {
            [&length.to_le_bytes(), &bytes[8..]].concat()
        });
        refuses(
            &folder,
            ErrorKind::Incompatible,
            weights,
            &["no safetensors file"],
        );
    }
    // The same length, other offsets and shapes.
    for (old, new) in [
        ("[0,96]", "[0,97]"),
        ("[0,96]", "[4,96]"),
        ("\"shape\":[24]", "\"shape\":[25]"),
        ("\"dtype\":\"F32\"", "\"dtype\":\"X32\""),
    ] {
        let folder = changed(weights, |bytes| edited(&bytes, old, new));
        refuses(
            &folder,
            ErrorKind::Incompatible,
            weights,
            &["no safetensors file"],
        );
    }
}

/// A safetensors file with something else of the same length in its header.
fn edited(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let place = bytes
        .windows(old.len())
        .position(|part| part == old.as_bytes());
    let place = place.unwrap_or_else(|| panic!("{old} is not there"));
    [&bytes[..place], new.as_bytes(), &bytes[place + old.len()..]].concat()
}

#[test]
fn weights_of_another_model_are_refused() {
    let weights = "model.safetensors";
    let with = |change: fn(&mut model::Tensors)| {
        changed(weights, |_| {
            let mut tensors = model::tensors();
            change(&mut tensors);
            model::safetensors(&tensors)
        })
    };
    let missing = with(|tensors| drop(tensors.remove("encoder.layer.1.output.dense.bias")));
    let words = [
        "has no tensor encoder.layer.1.output.dense.bias",
        "f32 [24]",
    ];
    refuses(&missing, ErrorKind::Incompatible, weights, &words);
    let turned = with(|tensors| {
        tensors
            .get_mut("encoder.layer.0.intermediate.dense.weight")
            .unwrap()
            .0 = vec![24, 40];
    });
    let words = ["intermediate.dense.weight is F32 [24, 40]", "f32 [40, 24]"];
    refuses(&turned, ErrorKind::Incompatible, weights, &words);
    let flat = with(|tensors| {
        tensors
            .get_mut("embeddings.word_embeddings.weight")
            .unwrap()
            .0 = vec![288];
    });
    refuses(
        &flat,
        ErrorKind::Incompatible,
        weights,
        &["F32 [288]", "f32 [12, 24]"],
    );
    let integers = changed(weights, |bytes| edited(&bytes, "\"F32\"", "\"I32\""));
    refuses(
        &integers,
        ErrorKind::Incompatible,
        weights,
        &["is I32", "f32"],
    );
}

#[test]
fn configurations_of_other_models_are_refused() {
    let unfit = |file: &str, change: fn(&mut Value), words: &[&str]| {
        refuses(
            &changed_json(file, change),
            ErrorKind::Incompatible,
            file,
            words,
        );
    };
    let config = "config.json";
    unfit(
        config,
        |c| c["model_type"] = json!("roberta"),
        &["model_type", "roberta", "bert"],
    );
    unfit(
        config,
        |c| c["hidden_act"] = json!("gelu_new"),
        &["hidden_act", "gelu_new"],
    );
    let relative = |c: &mut Value| c["position_embedding_type"] = json!("relative_key");
    unfit(
        config,
        relative,
        &["position_embedding_type", "relative_key"],
    );
    unfit(
        config,
        |c| c["num_attention_heads"] = json!(5),
        &["5 heads", "24"],
    );
    unfit(
        config,
        |c| c["num_attention_heads"] = json!(0),
        &["num_attention_heads is 0"],
    );
    unfit(
        config,
        |c| c["hidden_size"] = json!(i64::MAX),
        &["hidden_size"],
    );
    unfit(
        config,
        |c| c["layer_norm_eps"] = json!(-1.0),
        &["layer_norm_eps"],
    );
    unfit(
        config,
        |c| drop(c.as_object_mut().unwrap().remove("vocab_size")),
        &["vocab_size"],
    );
    unfit(config, |c| *c = json!([]), &[]);
    let text = "sentence_bert_config.json";
    unfit(
        text,
        |c| c["max_seq_length"] = json!(17),
        &["17", "16 places"],
    );
    let pooling = "1_Pooling/config.json";
    unfit(
        pooling,
        |c| c["pooling_mode_cls_token"] = json!(true),
        &["mean"],
    );
    unfit(
        pooling,
        |c| c["pooling_mode_mean_tokens"] = json!(false),
        &["mean"],
    );
    unfit(
        "modules.json",
        |c| drop(c.as_array_mut().unwrap().pop()),
        &["Normalize"],
    );
    let other = |t: &mut Value| t["model"]["vocab"]["another"] = json!(12);
    unfit(
        "tokenizer.json",
        other,
        &["up to 12", "12 rows", "another model"],
    );
    unfit("tokenizer.json", |t| *t = json!({}), &[]);
    refuses(
        &changed_json(text, |c| c["max_seq_length"] = json!(2)),
        ErrorKind::Incompatible,
        "tokenizer.json",
        &["at most 2"],
    );
}

/// Headers that are nearly right: each is refused, or the model runs.
#[test]
fn nearly_right_files_of_weights_never_panic() {
    let valid = model::safetensors(&model::tensors());
    let length = usize::try_from(u64::from_le_bytes(valid[..8].try_into().unwrap())).unwrap();
    let (header, data) = valid[8..].split_at(length);
    let mut mutator = Mutator::new(11, [header]);
    let folder = changed("config.json", |bytes| bytes);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..300 {
        let header = if round % 4 == 0 {
            mutator.bytes()
        } else {
            mutator.json()
        };
        let told = if mutator.dice.once_in(10) {
            mutator.dice.odd_number()
        } else {
            header.len() as u64
        };
        let file = [&told.to_le_bytes()[..], &header, data].concat();
        fs::write(folder.path().join("model.safetensors"), file).unwrap();
        match open(folder.path()) {
            Ok(_) => opened += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
                refused += 1;
            }
        }
    }
    assert!(
        opened > 10 && refused > 10,
        "{opened} opened, {refused} refused"
    );
}
