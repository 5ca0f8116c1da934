//! Calls that are told in part: what follows from the rest, and what has to be asked for.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use ds_schema::{Arg, BindRule, DType, Schema, SchemaFile, TensorSpec};

use DType::{BF16, F32};

fn op(text: &str, name: &str) -> Schema {
    SchemaFile::parse(text).unwrap().op(name).unwrap().clone()
}

fn adam() -> Schema {
    op(include_str!("../../adam/adam.ops"), "adam_step")
}

fn list(dtype: DType, shapes: &[&[i64]]) -> Arg {
    shapes
        .iter()
        .map(|shape| TensorSpec::contiguous(dtype, shape.to_vec()))
        .collect()
}

#[test]
fn outputs_and_inputs_follow_from_what_binds_them() {
    let norm = op(include_str!("../../rms_norm/rms_norm.ops"), "rms_norm");
    let whole = norm
        .complete(&[Some(list(BF16, &[&[2, 3, 8]]))], &[])
        .unwrap();
    let expected = [
        list(BF16, &[&[2, 3, 8]]),
        list(BF16, &[&[8]]),
        list(BF16, &[&[2, 3, 8]]),
        list(F32, &[&[2, 3]]),
    ];
    assert_eq!(whole, expected);
}

#[test]
fn lists_take_the_length_of_the_one_that_is_given() {
    let params = list(F32, &[&[10], &[2, 3]]);
    let whole = adam().complete(&[Some(params.clone())], &[]).unwrap();
    // f32 parameters leave one dtype for the moments, and the optional argument stays out.
    assert!(whole[..4].iter().all(|arg| *arg == params));
    assert!(whole[4].is_empty());
}

#[test]
fn what_does_not_follow_is_asked_for() {
    let params = [Some(list(BF16, &[&[4]]))];
    let error = adam().complete(&params, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "adam_step: argument 'exp_avg': the inputs do not say what M is, choose f32 or bf16"
    );
    let whole = adam().complete(&params, &[("M", F32)]).unwrap();
    assert_eq!(whole[2], list(F32, &[&[4]]));

    let error = adam().complete(&[], &[("P", F32)]).unwrap_err();
    assert_eq!(error.rule, BindRule::TensorCount);
    let matmul = op(include_str!("../../matmul/matmul.ops"), "matmul");
    let error = matmul
        .complete(&[Some(list(F32, &[&[4, 5]]))], &[])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "matmul: argument 'b': no argument that is given says what N is"
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    let norm = op(include_str!("../../rms_norm/rms_norm.ops"), "rms_norm");
    let given = [Some(list(F32, &[&[2, 8]])), Some(list(F32, &[&[9]]))];
    let error = norm.complete(&given, &[]).unwrap_err();
    assert_eq!(error.rule, BindRule::Dimension);
    assert_eq!(error.argument.as_deref(), Some("weight"));
}
