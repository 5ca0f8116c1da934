//! Calls against the schemas that ship: what is bound, what is refused, and in which words.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use ds_schema::{
    Arg, ArgView, Attr, BindError, BindRule, DType, Schema, SchemaFile, TensorSpec, TensorView,
};

use DType::{BF16, F16, F32, F64, I32};

fn op(text: &str, name: &str) -> Schema {
    SchemaFile::parse(text).unwrap().op(name).unwrap().clone()
}

/// One dtype of an input, one that the caller chooses.
const CAST: &str = "op cast(x: A[S...]) -> y: B[S...] \
    where A: f32 | f16 | bf16, B: f32 | f16 | bf16";

fn rms_norm() -> Schema {
    op(include_str!("../../rms_norm/rms_norm.ops"), "rms_norm")
}

fn adam() -> Schema {
    op(include_str!("../../adam/adam.ops"), "adam_step")
}

fn tensor(dtype: DType, shape: &[i64]) -> Arg {
    vec![TensorSpec::contiguous(dtype, shape.to_vec())]
}

fn list(dtype: DType, shapes: &[&[i64]]) -> Arg {
    shapes
        .iter()
        .flat_map(|shape| tensor(dtype, shape))
        .collect()
}

/// Calls `then` with borrowed arguments.
fn with_views<R>(args: &[Arg], then: impl FnOnce(&[ArgView<'_>]) -> R) -> R {
    let views: Vec<Vec<TensorView<'_>>> = args
        .iter()
        .map(|arg| arg.iter().map(TensorSpec::view).collect())
        .collect();
    let args: Vec<ArgView<'_>> = views.iter().map(Vec::as_slice).collect();
    then(&args)
}

fn refusal(schema: &Schema, args: &[Arg]) -> BindError {
    with_views(args, |args| schema.bind(args).unwrap_err())
}

#[track_caller]
fn refuses(schema: &Schema, args: &[Arg], rule: BindRule, message: &str) {
    let error = refusal(schema, args);
    assert_eq!((error.rule, error.to_string().as_str()), (rule, message));
}

#[test]
fn variables_are_bound() {
    let schema = rms_norm();
    let args = [
        tensor(BF16, &[2, 3, 128]),
        tensor(BF16, &[128]),
        tensor(BF16, &[2, 3, 128]),
        tensor(F32, &[2, 3]),
    ];
    with_views(&args, |args| {
        let binding = schema.bind(args).unwrap();
        assert_eq!(binding.dtype("T"), Some(BF16));
        assert_eq!(binding.extents("S"), Some(&[2, 3][..]));
        assert_eq!(binding.extent("S"), None);
        assert_eq!(binding.extent("D"), Some(128));
        assert_eq!(binding.extent("E"), None);
        assert_eq!(binding.elements(), 2 * 3 * 128);
        assert_eq!(binding.written_elements(), 2 * 3 * 128 + 2 * 3);
    });
}

#[test]
fn a_group_may_be_empty() {
    let args = [
        tensor(F32, &[4]),
        tensor(F32, &[4]),
        tensor(F32, &[4]),
        tensor(F32, &[]),
    ];
    with_views(&args, |args| {
        let schema = rms_norm();
        let binding = schema.bind(args).unwrap();
        assert_eq!(binding.extents("S"), Some(&[][..]));
    });
}

#[test]
fn outputs_follow_from_inputs() {
    let schema = rms_norm();
    with_views(&[tensor(F16, &[2, 3, 8]), tensor(F16, &[8])], |args| {
        let outputs = schema.bind_inputs(args).unwrap().output_specs(&[]).unwrap();
        assert_eq!(outputs, [tensor(F16, &[2, 3, 8]), tensor(F32, &[2, 3])]);
    });
    let matmul = op(include_str!("../../matmul/matmul.ops"), "matmul");
    with_views(
        &[tensor(F32, &[5, 2, 3]), tensor(F32, &[5, 3, 4])],
        |args| {
            let outputs = matmul.bind_inputs(args).unwrap().output_specs(&[]).unwrap();
            assert_eq!(outputs, [tensor(F32, &[5, 2, 4])]);
        },
    );
}

#[test]
fn the_caller_chooses_what_inputs_leave_open() {
    let cast = op(CAST, "cast");
    with_views(&[tensor(F32, &[7])], |args| {
        let binding = cast.bind_inputs(args).unwrap();
        assert_eq!(
            binding.output_specs(&[("B", BF16)]).unwrap(),
            [tensor(BF16, &[7])]
        );
        let refuses = |chosen: &[_], message: &str| {
            assert_eq!(
                binding.output_specs(chosen).unwrap_err().to_string(),
                message
            );
        };
        refuses(
            &[],
            "cast: argument 'y': the inputs do not say what B is, choose f32 or f16 or bf16",
        );
        refuses(
            &[("B", I32)],
            "cast: B is i32, the schema takes f32 | f16 | bf16",
        );
        refuses(
            &[("A", F16)],
            "cast: A cannot be f16, the call makes it f32",
        );
        refuses(&[("C", F16)], "cast: 'C' is no dtype variable");
    });
    let widen = op(
        "op f(x: A[]) -> y: B[] where (A, B): (f16, f32) | (f32, f64)",
        "f",
    );
    with_views(&[tensor(F32, &[])], |args| {
        let outputs = widen.bind_inputs(args).unwrap().output_specs(&[]).unwrap();
        assert_eq!(outputs, [tensor(F64, &[])]);
    });
}

#[test]
fn lists_bind_element_by_element() {
    let schema = adam();
    let (params, states) = (
        list(BF16, &[&[4, 5], &[3], &[]]),
        list(F32, &[&[4, 5], &[3], &[]]),
    );
    let args = [
        params.clone(),
        params,
        states.clone(),
        states,
        tensor(F32, &[]),
    ];
    with_views(&args, |args| {
        let binding = schema.bind(args).unwrap();
        assert_eq!(
            (binding.dtype("P"), binding.dtype("M")),
            (Some(BF16), Some(F32))
        );
        assert_eq!(binding.extents("S"), None);
        assert_eq!(binding.element_extents(0, "S"), Some(&[4, 5][..]));
        assert_eq!(binding.element_extents(1, "S"), Some(&[3][..]));
        assert_eq!(binding.element_extents(3, "S"), None);
        assert_eq!((binding.list_len(), binding.elements()), (3, 24));
        assert_eq!(binding.written_elements(), 3 * 24);
    });
    let none = [vec![], vec![], vec![], vec![], vec![]];
    with_views(&none, |args| {
        let binding = schema.bind(args).unwrap();
        assert_eq!((binding.dtype("P"), binding.elements()), (None, 0));
    });
}

#[test]
fn list_outputs_and_shared_dimensions() {
    let schema = op(
        "op f(xs: list f32[N, D], w: f32[D]) -> ys: list f32[D, N]",
        "f",
    );
    with_views(
        &[list(F32, &[&[2, 9], &[3, 9]]), tensor(F32, &[9])],
        |args| {
            let outputs = schema.bind_inputs(args).unwrap().output_specs(&[]).unwrap();
            assert_eq!(outputs, [list(F32, &[&[9, 2], &[9, 3]])]);
        },
    );
    with_views(
        &[list(F32, &[&[2, 9], &[3, 8]]), tensor(F32, &[9])],
        |args| {
            assert_eq!(
                schema.bind_inputs(args).unwrap_err().to_string(),
                "f: argument 'xs[1]': dimension D is 8, but 'w' has D = 9"
            );
        },
    );
}

#[test]
fn refusals_name_the_argument_and_the_rule() {
    let schema = rms_norm();
    let good = [
        tensor(F32, &[2, 128]),
        tensor(F32, &[128]),
        tensor(F32, &[2, 128]),
        tensor(F32, &[2]),
    ];
    let with = |index: usize, arg: Arg| {
        let mut args = good.clone();
        args[index] = arg;
        args
    };
    refuses(
        &schema,
        &good[..3],
        BindRule::ArgumentCount,
        "rms_norm: takes 4 tensor arguments (x, weight, y, rstd), the call has 3",
    );
    refuses(
        &schema,
        &with(1, vec![]),
        BindRule::TensorCount,
        "rms_norm: argument 'weight': has 0 tensors, but it takes one",
    );
    refuses(
        &schema,
        &with(1, tensor(F32, &[64])),
        BindRule::Dimension,
        "rms_norm: argument 'weight': dimension D is 64, but 'x' has D = 128",
    );
    refuses(
        &schema,
        &with(3, tensor(F32, &[2, 1])),
        BindRule::Dimension,
        "rms_norm: argument 'rstd': the dimensions S... are [2, 1], but 'x' has S... = [2]",
    );
    refuses(
        &schema,
        &with(1, tensor(F32, &[1, 128])),
        BindRule::Rank,
        "rms_norm: argument 'weight': has 2 dimensions, but it takes 1",
    );
    refuses(
        &schema,
        &with(0, tensor(F32, &[])),
        BindRule::Rank,
        "rms_norm: argument 'x': has 0 dimensions, but it takes at least 1",
    );
    refuses(
        &schema,
        &with(0, tensor(F32, &[1; 9])),
        BindRule::Rank,
        "rms_norm: argument 'x': has 9 dimensions, the limit is 8",
    );
    refuses(
        &schema,
        &with(1, tensor(BF16, &[128])),
        BindRule::DType,
        "rms_norm: argument 'weight': is bf16, but 'x' makes T f32",
    );
    refuses(
        &schema,
        &with(3, tensor(F16, &[2])),
        BindRule::DType,
        "rms_norm: argument 'rstd': is f16, but it takes f32",
    );
    refuses(
        &schema,
        &with(0, tensor(F32, &[-2, 128])),
        BindRule::Extent,
        "rms_norm: argument 'x': has the negative extent -2",
    );
    let cast = op(CAST, "cast");
    refuses(
        &cast,
        &[tensor(I32, &[2]), tensor(F32, &[2])],
        BindRule::DType,
        "cast: argument 'x': A is i32, the schema takes f32 | f16 | bf16",
    );
    let fixed = op("op f(x: f32[N, 4])", "f");
    refuses(
        &fixed,
        &[tensor(F32, &[2, 3])],
        BindRule::Dimension,
        "f: argument 'x': dimension 1 is 3, but it must be 4",
    );
}

#[test]
fn refusals_of_lists_name_the_element() {
    let schema = adam();
    let shapes: &[&[i64]] = &[&[4, 5], &[3]];
    let call = |grads: Arg, state: DType| {
        let states = list(state, shapes);
        [list(F32, shapes), grads, states.clone(), states, vec![]]
    };
    refuses(
        &schema,
        &call(list(F32, &[&[4, 5], &[4]]), F32),
        BindRule::Dimension,
        "adam_step: argument 'grads[1]': the dimensions S... are [4], but 'params[1]' has S... = [3]",
    );
    refuses(
        &schema,
        &call(list(F32, &[&[4, 5]]), F32),
        BindRule::TensorCount,
        "adam_step: argument 'grads': has 1 tensors, but 'params' has 2",
    );
    refuses(
        &schema,
        &call(list(F32, shapes), BF16),
        BindRule::DType,
        "adam_step: argument 'exp_avg[0]': (P, M) is (f32, bf16), the schema takes \
         (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)",
    );
}

#[test]
fn sizes_do_not_overflow() {
    let cast = op(CAST, "cast");
    let call = |shape: &[i64]| [tensor(F32, shape), tensor(F32, shape)];
    let most = (1 << 61) - 1;
    with_views(&call(&[most]), |args| {
        assert_eq!(cast.bind(args).unwrap().elements(), most);
    });
    let message = "cast: argument 'x': its size exceeds 2^63 bytes";
    refuses(&cast, &call(&[most + 1]), BindRule::Size, message);
    refuses(&cast, &call(&[i64::MAX, i64::MAX]), BindRule::Size, message);
    // No elements is no size, whatever the other extents.
    let empty = call(&[i64::MAX, i64::MAX, 0]);
    with_views(&empty, |args| {
        assert_eq!(cast.bind(args).unwrap().elements(), 0);
    });
    let mut wide = call(&[2]);
    wide[0][0].strides = vec![i64::MIN];
    let message = "cast: argument 'x': the distance of its elements exceeds 2^63 bytes";
    refuses(&cast, &wide, BindRule::Size, message);
    let lists = op("op f(xs: list i8[N])", "f");
    let halves: &[i64] = &[1 << 62];
    refuses(
        &lists,
        &[list(DType::I8, &[halves, halves])],
        BindRule::Size,
        "f: argument 'xs[1]': the list exceeds 2^63 elements",
    );
    let outer = op("op f(x: f32[N], y: f32[M]) -> z: f32[N, M]", "f");
    with_views(
        &[tensor(F32, &[1 << 32]), tensor(F32, &[1 << 32])],
        |args| {
            let error = outer
                .bind_inputs(args)
                .unwrap()
                .output_specs(&[])
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "f: argument 'z': its size exceeds 2^63 bytes"
            );
        },
    );
}

#[test]
fn strides_and_aliases() {
    let cast = op(CAST, "cast");
    let call = || [tensor(F32, &[2, 3]), tensor(F32, &[2, 3])];
    let mut args = call();
    args[0][0].strides = vec![0, 1];
    with_views(&args, |args| assert!(cast.bind(args).is_ok()));
    for shape in [[1, 3], [2, 0]] {
        let mut args = [tensor(F32, &shape), tensor(F32, &shape)];
        args[1][0].strides = vec![0, 1];
        with_views(&args, |args| assert!(cast.bind(args).is_ok()));
    }
    let mut args = call();
    args[1][0].strides = vec![0, 1];
    refuses(
        &cast,
        &args,
        BindRule::Strides,
        "cast: argument 'y': is written, but a stride of 0 makes its elements overlap",
    );
    args[1][0].strides = vec![2, 1];
    refuses(
        &cast,
        &args,
        BindRule::Strides,
        "cast: argument 'y': is written, but strides [2, 1] of shape [2, 3] let its elements overlap",
    );
    // A transposition, rows with gaps, columns with gaps, both flipped.
    for strides in [[1, 2], [4, 1], [10, 3], [-1, -2]] {
        args[1][0].strides = strides.to_vec();
        with_views(&args, |args| {
            assert!(cast.bind(args).is_ok(), "{strides:?}");
        });
    }
    args[1][0].strides = vec![1];
    refuses(
        &cast,
        &args,
        BindRule::Strides,
        "cast: argument 'y': has 2 extents, but 1 strides",
    );
    for (alias, fits) in [(0, true), (1, false), (2, false)] {
        let mut args = call();
        args[1][0].alias_of = Some(alias);
        let found = with_views(&args, |args| cast.bind(args).map(|_| ()));
        assert_eq!(
            found.map_err(|error| error.rule),
            if fits { Ok(()) } else { Err(BindRule::Alias) }
        );
    }
}

#[test]
fn scalars_are_named_typed_and_defaulted() {
    let schema = adam();
    let [yes, no] = [true, false].map(Attr::Bool);
    assert_eq!(schema.resolve_attributes(&[]).unwrap(), [yes, yes]);
    assert_eq!(
        schema
            .resolve_attributes(&[("bias_correction", no)])
            .unwrap(),
        [yes, no]
    );
    let refuses = |given: &[_], message: &str| {
        let error = schema.resolve_attributes(given).unwrap_err();
        assert_eq!(
            (error.rule, error.to_string().as_str()),
            (BindRule::Scalar, message)
        );
    };
    refuses(
        &[("adamW2", no)],
        "adam_step: there is no attribute 'adamW2'; did you mean 'adamw'?",
    );
    refuses(
        &[("adamw", no), ("adamw", no)],
        "adam_step: attribute 'adamw' is given twice",
    );
    refuses(
        &[("adamw", Attr::I64(1))],
        "adam_step: attribute 'adamw' is bool, not i64",
    );
    let error = schema.resolve_scalars(&[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "adam_step: scalar 'lr' has no default, give it"
    );
    let error = schema.check_attributes(&[yes]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "adam_step: takes 2 attributes (adamw, bias_correction), the call has 1"
    );
    let eps = rms_norm().resolve_scalars(&[]).unwrap();
    assert_eq!(eps, [Attr::F64(1e-6)]);
}
