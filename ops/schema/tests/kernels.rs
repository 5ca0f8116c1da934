//! `kernel.json` against schemas, and calls against kernels: every constraint refuses just outside
//! its border and admits on it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use ds_schema::{
    Arg, ArgView, Attr, ConstraintKind, DType, KernelFile, Refusal, Schema, SchemaFile, TensorSpec,
    TensorView,
};
use serde_json::{Value, json};

use DType::{BF16, F32};

fn schemas() -> Vec<Schema> {
    [
        include_str!("../../rms_norm/rms_norm.ops"),
        include_str!("../../adam/adam.ops"),
    ]
    .into_iter()
    .flat_map(|text| SchemaFile::parse(text).unwrap().ops().to_vec())
    .collect()
}

fn rms_norm_kernel() -> Value {
    json!({
        "name": "rms_norm_f32", "op": "rms_norm", "accelerator": "cpu",
        "sources": ["rms_norm.c"], "symbol": "ds_rms_norm_f32",
        "constraints": {
            "dtypes": {"T": ["f32"]},
            "rank": {"x": [1, 3]},
            "layout": {"x": "rows"},
            "alignment_bytes": {"x": 16},
            "dims": {"D": {"min": 4, "max": 1024, "multiple": 4}},
            "max_elements": 4096,
            "target": ["avx2", "avx512f"],
        },
        "score": [{"elements": [0, 512], "score": 300}, {"elements": [600, null], "score": 320}],
        "flags": ["deterministic"],
    })
}

fn adam_kernel() -> Value {
    json!({
        "name": "adam_f32", "op": "adam_step", "accelerator": "cpu",
        "constraints": {
            "attributes": {"adamw": [true]},
            "dims": {"S": {"multiple": 2}},
        },
        "score": [{"elements": [0, null], "score": 300}],
        "flags": ["deterministic", "zero_size"],
    })
}

fn file(kernel: &Value) -> String {
    json!({"format": 1, "kernels": [kernel]}).to_string()
}

fn tensor(dtype: DType, shape: &[i64]) -> Arg {
    let spec = TensorSpec::contiguous(dtype, shape.to_vec());
    vec![TensorSpec {
        alignment_log2: 4,
        ..spec
    }]
}

fn rms_norm_call(dtype: DType, rows: &[i64], width: i64) -> [Arg; 4] {
    let x = tensor(dtype, &[rows, &[width]].concat());
    [x.clone(), tensor(dtype, &[width]), x, tensor(F32, rows)]
}

fn adam_call(shapes: &[&[i64]]) -> [Arg; 5] {
    let list: Arg = shapes.iter().flat_map(|shape| tensor(F32, shape)).collect();
    [list.clone(), list.clone(), list.clone(), list, vec![]]
}

const TARGET: &str = "x86-64+avx2+avx512f";

fn admit(kernel: &Value, args: &[Arg], attributes: &[Attr], target: &str) -> Result<i32, Refusal> {
    let file = KernelFile::parse(file(kernel)).unwrap();
    let schemas = schemas();
    file.check(&schemas).unwrap();
    let kernel = &file.kernels[0];
    let schema = schemas
        .iter()
        .find(|schema| schema.name() == kernel.op)
        .unwrap();
    let views: Vec<Vec<TensorView<'_>>> = args
        .iter()
        .map(|arg| arg.iter().map(TensorSpec::view).collect())
        .collect();
    let views: Vec<ArgView<'_>> = views.iter().map(Vec::as_slice).collect();
    kernel.admit(&schema.bind(&views).unwrap(), attributes, target)
}

#[track_caller]
fn refuses(args: &[Arg], constraint: ConstraintKind, subject: &str, message: &str) {
    let refusal = admit(&rms_norm_kernel(), args, &[], TARGET).unwrap_err();
    assert_eq!(
        (refusal.constraint, refusal.subject.as_str()),
        (constraint, subject)
    );
    assert_eq!(
        refusal.to_string(),
        format!("kernel rms_norm_f32 {message}")
    );
}

fn admits(args: &[Arg]) -> i32 {
    admit(&rms_norm_kernel(), args, &[], TARGET).unwrap()
}

#[test]
fn the_score_follows_the_size() {
    assert_eq!(admits(&rms_norm_call(F32, &[2, 2], 128)), 300);
    assert_eq!(admits(&rms_norm_call(F32, &[5], 120)), 320);
    refuses(
        &rms_norm_call(F32, &[5], 112),
        ConstraintKind::Score,
        "",
        "has no score for a call of 560 elements",
    );
}

#[test]
fn dtypes_ranks_and_extents() {
    refuses(
        &rms_norm_call(BF16, &[2], 128),
        ConstraintKind::DTypes,
        "T",
        "takes T in {f32}, the call has bf16",
    );
    assert_eq!(admits(&rms_norm_call(F32, &[], 8)), 300);
    refuses(
        &rms_norm_call(F32, &[1, 1, 1], 8),
        ConstraintKind::Rank,
        "x",
        "takes x of rank 1 to 3, the call has rank 4",
    );
    assert_eq!(admits(&rms_norm_call(F32, &[1], 4)), 300);
    assert_eq!(admits(&rms_norm_call(F32, &[1], 1024)), 320);
    for (width, wanted) in [
        (3, "from 4"),
        (1028, "up to 1024"),
        (6, "in multiples of 4"),
    ] {
        refuses(
            &rms_norm_call(F32, &[1], width),
            ConstraintKind::Dims,
            "D",
            &format!("takes D {wanted}, the call has {width}"),
        );
    }
    assert_eq!(admits(&rms_norm_call(F32, &[4], 1024)), 320);
    refuses(
        &rms_norm_call(F32, &[5], 1024),
        ConstraintKind::MaxElements,
        "x",
        "takes at most 4096 elements, the call's x has 5120",
    );
}

#[test]
fn layout_and_alignment_are_strict_unless_stated() {
    let mut rows = rms_norm_call(F32, &[4], 8);
    rows[0][0].strides = vec![16, 1];
    assert_eq!(admits(&rows), 300);
    rows[0][0].strides = vec![1, 4];
    refuses(
        &rows,
        ConstraintKind::Layout,
        "x",
        "takes x rows, the call has it strided",
    );
    let mut unstated = rms_norm_call(F32, &[4], 8);
    unstated[2][0].strides = vec![16, 1];
    refuses(
        &unstated,
        ConstraintKind::Layout,
        "y",
        "takes y contiguous, the call has it rows",
    );

    let mut stated = rms_norm_call(F32, &[4], 8);
    stated[0][0].alignment_log2 = 3;
    let message = "takes x aligned to 16 bytes, the call has it aligned to 8";
    refuses(&stated, ConstraintKind::Alignment, "x", message);
    let mut unstated = rms_norm_call(F32, &[4], 8);
    unstated[1][0].alignment_log2 = 2;
    assert_eq!(admits(&unstated), 300);
    unstated[1][0].alignment_log2 = 1;
    let message = "takes weight aligned to 4 bytes, the call has it aligned to 2";
    refuses(&unstated, ConstraintKind::Alignment, "weight", message);
}

#[test]
fn targets_have_every_feature() {
    let call = rms_norm_call(F32, &[2], 8);
    let refusal = admit(&rms_norm_kernel(), &call, &[], "x86-64+avx2+avx512fp16").unwrap_err();
    assert_eq!(refusal.constraint, ConstraintKind::Target);
    assert_eq!(
        refusal.to_string(),
        "kernel rms_norm_f32 needs avx512f, the device is x86-64+avx2+avx512fp16"
    );
    assert_eq!(
        admit(&rms_norm_kernel(), &call, &[], "avx512f+avx2"),
        Ok(300)
    );
}

#[test]
fn flags_allow_what_kernels_rarely_think_of() {
    let message = "takes no tensors without elements, the call's x has none";
    refuses(
        &rms_norm_call(F32, &[0], 8),
        ConstraintKind::ZeroSize,
        "x",
        message,
    );
    let mut in_place = rms_norm_call(F32, &[2], 8);
    in_place[2][0].alias_of = Some(0);
    let message = "does not work in place, the call's y shares memory";
    refuses(&in_place, ConstraintKind::InPlace, "y", message);
    let mut read_of_written = rms_norm_call(F32, &[2], 8);
    read_of_written[0][0].alias_of = Some(2);
    let message = "does not work in place, the call's x shares memory";
    refuses(&read_of_written, ConstraintKind::InPlace, "x", message);
    let mut inputs_only = rms_norm_call(F32, &[], 8);
    inputs_only[1][0].alias_of = Some(0);
    assert_eq!(admits(&inputs_only), 300);

    let mut kernel = rms_norm_kernel();
    kernel["flags"] = json!(["deterministic", "zero_size", "in_place"]);
    assert_eq!(admit(&kernel, &in_place, &[], TARGET), Ok(300));
    assert_eq!(
        admit(&kernel, &rms_norm_call(F32, &[0], 8), &[], TARGET),
        Ok(300)
    );
}

#[test]
fn lists_are_held_against_constraints_element_by_element() {
    let attributes = [Attr::Bool(true), Attr::Bool(false)];
    let admit = |shapes: &[&[i64]], attributes: &[Attr]| {
        admit(&adam_kernel(), &adam_call(shapes), attributes, TARGET)
            .map_err(|refusal| refusal.to_string())
    };
    assert_eq!(admit(&[&[2, 4], &[6], &[]], &attributes), Ok(300));
    assert_eq!(admit(&[], &attributes), Ok(300));
    let message = "kernel adam_f32 takes S in multiples of 2, the call has 3";
    assert_eq!(
        admit(&[&[2, 4], &[6, 3]], &attributes),
        Err(message.to_owned())
    );
    let message = "kernel adam_f32 takes adamw in {true}, the call has false";
    assert_eq!(
        admit(&[&[2]], &[Attr::Bool(false); 2]),
        Err(message.to_owned())
    );
}

#[test]
fn files_are_held_against_schemas() {
    let refusal = |key: &str, value: Value| {
        let mut kernel = rms_norm_kernel();
        kernel[key] = value;
        KernelFile::parse(file(&kernel))
            .unwrap()
            .check(&schemas())
            .unwrap_err()
            .to_string()
    };
    let constraint = |value: Value| refusal("constraints", value);
    assert_eq!(
        refusal("op", json!("rms_nrom")),
        "kernel 'rms_norm_f32': there is no op 'rms_nrom'; did you mean 'rms_norm'?"
    );
    assert_eq!(
        constraint(json!({"dtypes": {"X": ["f32"]}})),
        "kernel 'rms_norm_f32': dtypes: 'rms_norm' has no dtype variable 'X'"
    );
    for section in ["rank", "layout", "alignment_bytes"] {
        let value = match section {
            "rank" => json!([1, 2]),
            "layout" => json!("rows"),
            _ => json!(4),
        };
        assert_eq!(
            constraint(json!({section: {"weigth": value}})),
            format!(
                "kernel 'rms_norm_f32': {section}: 'rms_norm' has no argument 'weigth'; \
                 did you mean 'weight'?"
            )
        );
    }
    assert_eq!(
        constraint(json!({"dims": {"N": {}}})),
        "kernel 'rms_norm_f32': dims: 'rms_norm' has no dimension variable 'N'"
    );
    assert_eq!(
        constraint(json!({"attributes": {"eps": [1.0]}})),
        "kernel 'rms_norm_f32': attributes: 'rms_norm' has no static attribute 'eps'"
    );
    for (value, message) in [
        (
            json!({"rank": {"x": [2, 1]}}),
            "rank of 'x': 2 to 1 is no range within 0 to 8",
        ),
        (
            json!({"rank": {"x": [2, 9]}}),
            "rank of 'x': 2 to 9 is no range within 0 to 8",
        ),
        (
            json!({"alignment_bytes": {"x": 12}}),
            "alignment of 'x': 12 is no power of two",
        ),
        (json!({"dtypes": {"T": []}}), "dtypes of 'T': none is left"),
        (
            json!({"dims": {"D": {"multiple": 0}}}),
            "dims of 'D': need 0 <= min <= max and multiple >= 1, found 0, 9223372036854775807, 0",
        ),
        (json!({"max_elements": 0}), "max_elements 0 leaves nothing"),
    ] {
        assert_eq!(
            constraint(value),
            format!("kernel 'rms_norm_f32': {message}")
        );
    }
    for (key, value, message) in [
        ("score", json!([]), "without a score it is never chosen"),
        (
            "score",
            json!([{"elements": [0, null], "score": 0}]),
            "score 0 is outside 1 to 399",
        ),
        (
            "score",
            json!([{"elements": [0, null], "score": 1000}]),
            "score 1000 is outside 1 to 399",
        ),
        (
            "score",
            json!([{"elements": [0, 5], "score": 1}, {"elements": [5, 9], "score": 1}]),
            "the sizes of the scores must ascend without overlap",
        ),
        (
            "sources",
            json!(["../x.c"]),
            "the source '../x.c' is not beside the kernel.json",
        ),
        (
            "sources",
            json!(["x\u{1b}.c"]),
            "'x\\u{1b}.c' has control characters",
        ),
        (
            "flags",
            json!([]),
            "the op 'rms_norm' is deterministic: see that the kernel is, and flag it 'deterministic'",
        ),
    ] {
        assert_eq!(
            refusal(key, value),
            format!("kernel 'rms_norm_f32': {message}")
        );
    }
    let mut kernel = adam_kernel();
    kernel["constraints"] = json!({"attributes": {"adamw": [1]}});
    let error = KernelFile::parse(file(&kernel))
        .unwrap()
        .check(&schemas())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel 'adam_f32': attributes of 'adamw': 1 is no bool"
    );
}

#[test]
fn files_of_another_shape_are_refused() {
    let error = KernelFile::parse("{\"format\": 2, \"kernels\": []}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "format 2 is unknown, this version reads 1"
    );
    let mut kernel = rms_norm_kernel();
    kernel["constraints"]["dtype"] = json!({});
    let error = KernelFile::parse(file(&kernel)).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `dtype`"),
        "{error}"
    );
    let twice = json!({"format": 1, "kernels": [rms_norm_kernel(), rms_norm_kernel()]});
    let error = KernelFile::parse(twice.to_string())
        .unwrap()
        .check(&schemas())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel 'rms_norm_f32': the name is there twice"
    );
    assert!(
        KernelFile::parse(vec![b' '; (1 << 20) + 1])
            .unwrap_err()
            .message
            .contains("limit")
    );
}

#[test]
fn files_survive_a_round_trip() {
    for kernel in [rms_norm_kernel(), adam_kernel()] {
        let read = KernelFile::parse(file(&kernel)).unwrap();
        let text = serde_json::to_string(&read).unwrap();
        assert_eq!(KernelFile::parse(text).unwrap(), read);
    }
}

#[test]
fn a_kernel_written_for_another_schema_is_refused() {
    let file = SchemaFile::parse("op f(x: f32[]) -> y: f32[]").unwrap();
    let kernel = |schema: &str| {
        let json = format!(
            r#"{{"format": 1, "kernels": [{{"name": "k", "op": "f", "schema": "{schema}",
                 "accelerator": "a", "score": [{{"elements": [0, null], "score": 100}}]}}]}}"#
        );
        KernelFile::parse(json).unwrap().check(file.ops())
    };
    assert_eq!(kernel(&file.ops()[0].hash().to_string()), Ok(()));
    let refusal = kernel("00000000000000000000000000000000")
        .unwrap_err()
        .to_string();
    assert!(
        refusal.starts_with("kernel 'k': was written for schema 0000"),
        "{refusal}"
    );
}
