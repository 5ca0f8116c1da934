//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

use super::Activation;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Rows shorter than a vector, longer than a pair with a rest, longer than a chunk, nothing.
const SHAPES: [&[i64]; 4] = [&[3, 7], &[2, 3, 83], &[1, 16_421], &[0, 8]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[64, 1024]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[8192, 4096]];

/// The functions that are measured: those of the models.
const MEASURED: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];

/// Additions and multiplications of a function, its elementary functions' among them.
fn operations(kind: Activation) -> f64 {
    match kind {
        Activation::Identity | Activation::Relu => 1.0,
        Activation::Gelu | Activation::Tanh => 40.0,
        Activation::GeluTanh => 26.0,
        Activation::Silu | Activation::Sigmoid => 20.0,
    }
}

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let (shapes, kinds): (&[&[i64]], &[Activation]) = match size {
        Size::Small => (&SHAPES, &Activation::ALL),
        Size::Cached => (&CACHED, &MEASURED),
        Size::Large => (&LARGE, &MEASURED),
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &shape in shapes {
            for &kind in kinds {
                // One shape has every function, the others one each.
                if size != Size::Small || shape == SHAPES[1] || kind == Activation::Silu {
                    cases.extend(of_function(dtype, shape, kind, size));
                }
            }
            cases.extend(sums(dtype, shape, size));
        }
        if size == Size::Small {
            for kind in Activation::ALL {
                let name = format!("{dtype} {kind:?}, numbers far out");
                let forward = move |_: &mut Numbers| far_out(dtype, kind, false);
                cases.push(Case::new("activation", &name, forward));
                let backward = move |_: &mut Numbers| far_out(dtype, kind, true);
                cases.push(Case::new("activation_backward", &name, backward));
            }
        }
    }
    cases
}

/// Every function's calls, with and without biases.
fn of_function(
    dtype: DType,
    shape: &'static [i64],
    kind: Activation,
    size: Size,
) -> impl Iterator<Item = Case> {
    let biases: &[bool] = if size == Size::Small {
        &[true, false]
    } else {
        &[false]
    };
    let gated = size == Size::Small || kind == Activation::Silu;
    biases.iter().flat_map(move |&bias| {
        let name = format!("{dtype} {shape:?} {kind:?}{}", words(bias));
        let case = |op, matrices, vectors: i32, outputs, more: f64| {
            let make = move |n: &mut Numbers| {
                let vectors = if bias { vectors } else { -vectors };
                call(
                    n,
                    dtype,
                    shape,
                    matrices,
                    vectors,
                    outputs,
                    vec![kind_of(kind)],
                )
            };
            Case::new(op, &name, make).operations(operations(kind) + more, shape)
        };
        let mut cases = vec![
            case("activation", 1, 1, 1, 0.0),
            case("activation_backward", 2, 1, 1, 6.0),
        ];
        if gated {
            cases.push(case("gated_activation", 2, 2, 1, 1.0));
            cases.push(case("gated_activation_backward", 3, 2, 2, 8.0));
        }
        cases
    })
}

fn sums(dtype: DType, shape: &'static [i64], size: Size) -> Vec<Case> {
    let name = format!("{dtype} {shape:?}");
    let backward = move |n: &mut Numbers| {
        let d = shape.split_at(shape.len() - 1).1;
        Ok(HostCall {
            args: vec![
                vec![n.host(dtype, shape)?],
                vec![HostTensor::unwritten(dtype, d)],
            ],
            attributes: vec![],
            scalars: vec![],
        })
    };
    let mut cases = vec![Case::new("bias_backward", &name, backward).operations(1.0, shape)];
    for (words, attention, biases) in [
        (", all of them", true, true),
        (", biases", false, true),
        (", attention", true, false),
        ("", false, false),
    ] {
        if size != Size::Small && words != ", biases" {
            continue;
        }
        let make = move |n: &mut Numbers| {
            let mut call = call(n, dtype, shape, 3, if biases { 2 } else { -2 }, 1, vec![])?;
            if !attention {
                call.args[2].clear();
            }
            call.scalars = vec![Attr::F64(0.5), Attr::F64(0.25)];
            Ok(call)
        };
        cases
            .push(Case::new("residual_add", format!("{name}{words}"), make).operations(5.0, shape));
    }
    cases
}

fn words(bias: bool) -> &'static str {
    if bias { ", biased" } else { "" }
}

fn kind_of(kind: Activation) -> Attr {
    Attr::I64(kind as i64)
}

/// A call with so many matrices, vectors that are missing where their number is negative, and outputs.
fn call(
    numbers: &mut Numbers,
    dtype: DType,
    shape: &[i64],
    matrices: usize,
    vectors: i32,
    outputs: usize,
    attributes: Vec<Attr>,
) -> Result<HostCall> {
    let d = shape.split_at(shape.len() - 1).1;
    let mut args = Vec::new();
    for _ in 0..matrices {
        args.push(vec![numbers.host(dtype, shape)?]);
    }
    for _ in 0..vectors.unsigned_abs() {
        let vector = (vectors > 0).then(|| numbers.host(dtype, d));
        args.push(vector.into_iter().collect::<Result<_>>()?);
    }
    for _ in 0..outputs {
        args.push(vec![HostTensor::unwritten(dtype, shape)]);
    }
    Ok(HostCall {
        args,
        attributes,
        scalars: vec![],
    })
}

/// Where functions are flat, vanish, overflow on the way or are no numbers.
fn far_out(dtype: DType, kind: Activation, is_backward: bool) -> Result<HostCall> {
    const VALUES: [f64; 24] = [
        0.0,
        -0.0,
        1e-30,
        -1e-3,
        0.6,
        -0.66,
        1.0,
        -2.5,
        3.0,
        -4.0,
        5.5,
        -6.0,
        8.5,
        -9.0,
        12.0,
        -12.5,
        40.0,
        -40.0,
        90.0,
        -90.0,
        3e4,
        -3e4,
        f64::INFINITY,
        f64::NAN,
    ];
    let x = HostTensor::from_f64(dtype, &[24], &VALUES)?;
    let mut args = vec![
        vec![x.clone()],
        vec![],
        vec![HostTensor::unwritten(dtype, &[24])],
    ];
    if is_backward {
        args.insert(0, vec![HostTensor::from_f64(dtype, &[24], &[1.5; 24])?]);
    }
    Ok(HostCall {
        args,
        attributes: vec![kind_of(kind)],
        scalars: vec![],
    })
}
