//! A small model of the kind that the sentence encoder reads, with random weights, and what it means
//! in plain f64.

pub(crate) mod reference;

use std::{collections::BTreeMap, fs, path::Path};

use ds_tests::mutate::Dice;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

/// Sizes that no kernel likes.
pub(crate) const HIDDEN: usize = 24;
pub(crate) const INNER: usize = 40;
pub(crate) const HEADS: usize = 3;
pub(crate) const LAYERS: usize = 2;
pub(crate) const PLACES: usize = 16;
/// Tokens of the longest text, fewer than there are places.
pub(crate) const LONGEST: usize = 12;
pub(crate) const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three", "and", "##s", ",", "é",
];

/// A tensor's shape and elements, by its name in the file.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Weights of about the size that training gives them.
pub(crate) fn tensors() -> Tensors {
    let mut dice = Dice::new(7);
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize], middle: f32| {
        let count = shape.iter().product();
        let mut element = || {
            #[allow(clippy::cast_precision_loss, reason = "24 bits")]
            let unit = (dice.number() >> 40) as f32 / (1 << 24) as f32;
            middle + 0.5 * (unit - 0.5)
        };
        let elements = (0..count).map(|_| element()).collect();
        tensors.insert(name.to_owned(), (shape.to_vec(), elements));
    };
    let norm = |add: &mut dyn FnMut(&str, &[usize], f32), name: &str| {
        add(&format!("{name}.weight"), &[HIDDEN], 1.0);
        add(&format!("{name}.bias"), &[HIDDEN], 0.0);
    };
    add(
        "embeddings.word_embeddings.weight",
        &[WORDS.len(), HIDDEN],
        0.0,
    );
    add(
        "embeddings.position_embeddings.weight",
        &[PLACES, HIDDEN],
        0.0,
    );
    add("embeddings.token_type_embeddings.weight", &[2, HIDDEN], 0.0);
    norm(&mut add, "embeddings.LayerNorm");
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, from, to) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", HIDDEN, INNER),
            ("output.dense", INNER, HIDDEN),
        ] {
            add(&name(&format!("{part}.weight")), &[to, from], 0.0);
            add(&name(&format!("{part}.bias")), &[to], 0.0);
        }
        norm(&mut add, &name("attention.output.LayerNorm"));
        norm(&mut add, &name("output.LayerNorm"));
    }
    tensors
}

/// The file of these tensors.
pub(crate) fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let bytes: Vec<(&String, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, elements))| {
            let bytes = elements.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, &shape[..], bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (*name, view.expect("as many bytes as the shape has"))
    });
    safetensors::serialize(views, None).expect("a file of f32")
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "vocab_size": WORDS.len(),
        "max_position_embeddings": PLACES,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    })
}

pub(crate) fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> = (0..)
        .zip(WORDS)
        .map(|(id, word): (u32, _)| (word.to_owned(), json!(id)))
        .collect();
    let special = |id: u32| {
        json!({
            "id": id, "content": WORDS[id as usize], "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let around = |id: u32| json!({"SpecialToken": {"id": WORDS[id as usize], "type_id": 0}});
    let known = |id: u32| {
        let word = WORDS[id as usize];
        json!({"id": word, "ids": [id], "tokens": [word]})
    };
    json!({
        "version": "1.0",
        // As in the files that are published: for batches of a fixed length.
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": false, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [around(2), {"Sequence": {"id": "A", "type_id": 0}}, around(3)],
            "pair": [
                around(2), {"Sequence": {"id": "A", "type_id": 0}}, around(3),
                {"Sequence": {"id": "B", "type_id": 1}}, around(3),
            ],
            "special_tokens": {"[CLS]": known(2), "[SEP]": known(3)},
        },
        "decoder": null,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    })
}

/// Writes all files of the model into `folder`.
pub(crate) fn write(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder.join("1_Pooling"))?;
    let module = |kind: &str| json!({"type": format!("sentence_transformers.models.{kind}")});
    let modules = ["Transformer", "Pooling", "Normalize"].map(module);
    let files = [
        ("config.json", config()),
        ("tokenizer.json", tokenizer()),
        ("modules.json", json!(modules)),
        (
            "sentence_bert_config.json",
            json!({"max_seq_length": LONGEST}),
        ),
        (
            "1_Pooling/config.json",
            json!({"pooling_mode_mean_tokens": true}),
        ),
    ];
    for (name, content) in files {
        fs::write(folder.join(name), content.to_string())?;
    }
    fs::write(folder.join("model.safetensors"), safetensors(&tensors()))
}
