//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Ops of one tensor with their scalars, and the operations that an element takes: those of the
/// polynomials count too.
const UNARY: [(&str, &[f64], f64); 10] = [
    ("neg", &[], 1.0),
    ("abs", &[], 1.0),
    ("exp", &[], 20.0),
    ("log", &[], 25.0),
    ("sqrt", &[], 1.0),
    ("rsqrt", &[], 2.0),
    ("square", &[], 1.0),
    ("reciprocal", &[], 1.0),
    ("scale", &[-2.7, 0.3], 2.0),
    ("clamp", &[-0.5, 0.7], 2.0),
];
/// The same of two tensors.
const BINARY: [(&str, &[f64], f64); 7] = [
    ("add", &[], 1.0),
    ("sub", &[], 1.0),
    ("mul", &[], 1.0),
    ("div", &[], 1.0),
    ("maximum", &[], 1.0),
    ("minimum", &[], 1.0),
    ("add_scaled", &[-2.7], 2.0),
];

/// A scalar, a batch, more than an item with a rest, nothing.
const SHAPES: [&[i64]; 4] = [&[], &[3, 5, 7], &[16_384 + 1003], &[2, 0]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[1 << 16]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[1 << 25]];

/// Zeros, what overflows or vanishes, what is no number.
const SPECIAL: [f64; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    65504.0,
    -65504.0,
    3.4e38,
    -3.4e38,
    6e-8,
    6e-5,
    1e-40,
    1.2e-38,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    88.5,
    -87.0,
    11.0,
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in FLOATS {
        for &shape in shapes {
            let name = format!("{dtype} {shape:?}");
            for (op, scalars, operations) in UNARY {
                let make = move |n: &mut Numbers| {
                    let x = n.host_of(dtype, shape, in_domain(op))?;
                    Ok(call(vec![x], dtype, scalars))
                };
                cases.push(Case::new(op, &name, make).operations(operations, shape));
            }
            for (op, scalars, operations) in BINARY {
                let make = move |n: &mut Numbers| {
                    let (a, b) = (n.host(dtype, shape)?, n.host(dtype, shape)?);
                    Ok(call(vec![a, b], dtype, scalars))
                };
                cases.push(Case::new(op, &name, make).operations(operations, shape));
            }
            let make = move |n: &mut Numbers| {
                let x = n.host(dtype, shape)?;
                Ok(call(vec![x, mask(n, shape)?], dtype, &[-1e30]))
            };
            cases.push(Case::new("masked_fill", &name, make));
        }
        if size == Size::Small {
            special(&mut cases, dtype);
        }
    }
    for dtype in [FLOATS.as_slice(), &[DType::I32, DType::I64]].concat() {
        for &shape in shapes {
            let make = move |n: &mut Numbers| {
                let mut values = || n.host_of(dtype, shape, whole_if(!dtype.is_float()));
                let (a, b) = (values()?, values()?);
                Ok(call(vec![mask(n, shape)?, a, b], dtype, &[]))
            };
            cases.push(Case::new("select", format!("{dtype} {shape:?}"), make));
        }
    }
    cases
}

/// Every special number, and every pair of them.
fn special(cases: &mut Vec<Case>, dtype: DType) {
    let count = SPECIAL.len();
    for (op, scalars, _) in UNARY {
        cases.push(Case::new(
            op,
            format!("{dtype}, special numbers"),
            move |_| {
                let x = HostTensor::from_f64(dtype, &[18], &SPECIAL)?;
                Ok(call(vec![x], dtype, scalars))
            },
        ));
    }
    for (op, scalars, _) in BINARY {
        // Of a product beyond f32 an accelerator may or may not keep what fits again with the sum.
        let scalars = if scalars.is_empty() { scalars } else { &[0.5] };
        cases.push(Case::new(
            op,
            format!("{dtype}, pairs of special numbers"),
            move |_| {
                let all = |pick: fn(usize, usize) -> usize| {
                    let values: Vec<f64> = (0..count * count)
                        .map(|i| SPECIAL[pick(i / count, i % count)])
                        .collect();
                    HostTensor::from_f64(dtype, &[18, 18], &values)
                };
                let args = vec![all(|row, _| row)?, all(|_, column| column)?];
                Ok(call(args, dtype, scalars))
            },
        ));
    }
}

fn call(inputs: Vec<HostTensor>, result: DType, scalars: &[f64]) -> HostCall {
    let y = HostTensor::unwritten(result, &inputs[0].shape);
    let args = inputs.into_iter().chain([y]).map(|tensor| vec![tensor]);
    HostCall {
        args: args.collect(),
        attributes: vec![],
        scalars: scalars.iter().map(|&value| Attr::F64(value)).collect(),
    }
}

/// Half of all set.
fn mask(numbers: &mut Numbers, shape: &[i64]) -> Result<HostTensor> {
    numbers.host_of(DType::Bool, shape, |value| f64::from(u8::from(value > 0.0)))
}

/// What makes of a number around zero one that the op takes.
fn in_domain(op: &str) -> fn(f64) -> f64 {
    match op {
        "log" | "sqrt" | "rsqrt" => |value| value.abs() + 1e-3,
        _ => |value| value,
    }
}

fn whole_if(is_whole: bool) -> fn(f64) -> f64 {
    if is_whole {
        |value| (value * 1000.0).round()
    } else {
        |value| value
    }
}
