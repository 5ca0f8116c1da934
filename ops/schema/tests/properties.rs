//! What holds of every text: nothing panics, and a schema's own text is the schema.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::fmt::Write;

use ds_schema::{ArgView, DType, Schema, SchemaFile, TensorView};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::RngSeed};

const CATALOGUE: [&str; 4] = [
    include_str!("../../rms_norm/rms_norm.ops"),
    include_str!("../../adam/adam.ops"),
    include_str!("../../matmul/matmul.ops"),
    include_str!("../../cast/cast.ops"),
];

/// Pieces that the grammar knows, so that mutations get past the lexer.
const PIECES: [&str; 32] = [
    "op",
    "set",
    "where",
    "tolerance",
    "because",
    "deterministic",
    "doc",
    "inout",
    "list",
    "optional",
    "static",
    "true",
    "T",
    "S",
    "S...",
    "f32",
    "bf16",
    "i64",
    "(",
    ")",
    "[",
    "]",
    ":",
    ",",
    "|",
    "=",
    "->",
    "...",
    "1e-6",
    "-1",
    "\"x\"",
    "#",
];

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 256,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

/// Reads `text`; a refusal must be showable and point into the text.
fn parse(text: &[u8]) -> Option<SchemaFile> {
    match SchemaFile::parse(text) {
        Ok(file) => Some(file),
        Err(error) => {
            assert!(!error.message.is_empty() && error.render("x").contains('^'));
            let lines = String::from_utf8_lossy(text).split('\n').count();
            assert!((1..=lines).contains(&error.line) && error.column >= 1);
            None
        }
    }
}

fn assert_round_trip(file: &SchemaFile) {
    let text = file.to_string();
    let again = SchemaFile::parse(&text).unwrap_or_else(|error| panic!("{}", error.render(&text)));
    assert_eq!(&again, file);
    for op in file.ops() {
        let interface = SchemaFile::parse(op.canonical()).unwrap();
        assert_eq!(interface.ops().len(), 1);
        assert_eq!(interface.ops()[0].canonical(), op.canonical());
        assert_eq!(interface.ops()[0].hash(), op.hash());
    }
}

/// Binding arguments made of any numbers at all neither panics nor overflows.
fn bind_anything(schema: &Schema, extents: &[i64], strides: &[i64], dtype: DType) {
    let shape = &extents[..extents.len().min(strides.len())];
    let strides = &strides[..shape.len()];
    let tensor = TensorView {
        dtype,
        shape,
        strides,
        alignment_log2: 255,
        alias_of: None,
    };
    let (one, two) = ([tensor], [tensor, tensor]);
    let _ = tensor.layout();
    for arg in [&one[..], &two[..], &[]] {
        let args: Vec<ArgView<'_>> = vec![arg; schema.arguments().len()];
        let _ = schema.bind(&args);
        if let Ok(binding) = schema.bind_inputs(&args[..schema.inputs().len()]) {
            let _ = binding.output_specs(&[]);
            let _ = (binding.elements(), binding.written_elements());
        }
    }
}

/// A well-formed op: single tensors over a few variables, scalars, every clause.
fn op_text() -> impl Strategy<Value = String> {
    let dims = vec(select(vec!["N", "M", "S...", "3"]), 0..4).prop_map(|mut dims| {
        let first = dims.iter().position(|dim| *dim == "S...");
        let mut at = 0..;
        dims.retain(|dim| at.next() == first || *dim != "S...");
        dims.join(", ")
    });
    let modifiers = select(vec!["", "inout ", "optional ", "list ", "inout list "]);
    let tensor = (modifiers, select(vec!["T", "U", "f32", "i8"]), dims);
    let scalars = vec(
        (any::<f64>(), any::<i64>(), any::<bool>(), any::<bool>()),
        0..4,
    );
    let contract = (any::<bool>(), "[ -!#-~]{0,12}");
    (vec(tensor, 0..5), scalars, contract, any::<bool>()).prop_map(
        |(tensors, scalars, (deterministic, doc), joint)| {
            let mut text = "op f(x: T[N, M, S...], y: U[],".to_owned();
            for (index, (modifiers, dtype, dims)) in tensors.iter().enumerate() {
                let _ = write!(text, "x{index}: {modifiers}{dtype}[{dims}], ");
            }
            for (index, (real, integer, truth, fixed)) in scalars.into_iter().enumerate() {
                let real = if real.is_finite() { real } else { 0.5 };
                let fixed = if fixed { "static " } else { "" };
                let _ = write!(
                    text,
                    "a{index}: {fixed}f64 = {real:e}, b{index}: {fixed}i64, "
                );
                let _ = write!(
                    text,
                    "c{index}: i64 = {integer}, d{index}: bool = {truth}, "
                );
            }
            text += ") -> (z: T[S..., M], w: U[M, N, 7])";
            text += if joint {
                " where (U, T): (f32, f16) | (f32, f64)"
            } else {
                " where T: f64 | f16, U: f32"
            };
            text += if deterministic { " deterministic" } else { "" };
            let _ = write!(text, " doc \"a{doc}\"");
            text
        },
    )
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        parse(&bytes);
    }

    #[test]
    fn any_pieces_are_read_or_refused(pieces in vec(select(PIECES.to_vec()), 0..40)) {
        if let Some(file) = parse(pieces.join(" ").as_bytes()) {
            assert_round_trip(&file);
        }
    }

    #[test]
    fn mutated_schemas_are_read_or_refused(
        text in select(CATALOGUE.to_vec()),
        cuts in vec((any::<prop::sample::Index>(), 0_usize..6, select(PIECES.to_vec())), 1..4),
    ) {
        let mut text = text.to_owned();
        for (index, removed, inserted) in cuts {
            let at = index.index(text.len());
            text.replace_range(at..(at + removed).min(text.len()), inserted);
        }
        if let Some(file) = parse(text.as_bytes()) {
            assert_round_trip(&file);
        }
    }

    #[test]
    fn a_schemas_text_is_the_schema(text in op_text()) {
        let file = SchemaFile::parse(&text);
        prop_assert!(file.is_ok(), "{}", file.unwrap_err().render(&text));
        assert_round_trip(&file.unwrap());
    }

    #[test]
    fn any_numbers_are_bound_or_refused(
        text in op_text(),
        extents in vec(prop_oneof![0_i64..4, any::<i64>()], 0..10),
        strides in vec(prop_oneof![0_i64..4, any::<i64>()], 0..10),
        dtype in select(DType::ALL.to_vec()),
    ) {
        bind_anything(&SchemaFile::parse(text).unwrap().ops()[0], &extents, &strides, dtype);
    }
}

#[test]
fn the_catalogues_text_is_the_catalogue() {
    for text in CATALOGUE {
        assert_round_trip(&SchemaFile::parse(text).unwrap());
    }
}
