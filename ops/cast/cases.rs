//! Calls to verify and measure kernels with.

use ds_core::{
    DType,
    op::{Case, HostCall, HostTensor, Size},
};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Zeros, ties, what overflows or vanishes in a half type, what is no number.
const SPECIAL: [f64; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    65504.0,
    65519.0,
    65520.0,
    1e9,
    -1e9,
    3.4e38,
    6e-8,
    2.98e-8,
    5.96e-8,
    1e-40,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    1.003_906_25,
    1.011_718_75,
    2049.0,
];

/// A scalar, a batch, more than one vector with a rest, nothing.
const SHAPES: [&[i64]; 4] = [&[], &[3, 5, 7], &[1003], &[0]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[1 << 16]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[1 << 25]];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let call = |x: HostTensor, to| HostCall {
        args: vec![vec![x.clone()], vec![HostTensor::unwritten(to, &x.shape)]],
        attributes: vec![],
        scalars: vec![],
    };
    let mut cases = Vec::new();
    for from in DTYPES {
        for to in DTYPES {
            for &shape in shapes {
                let name = format!("{from} to {to} {shape:?}");
                let make = move |n: &mut ds_core::op::Numbers| Ok(call(n.host(from, shape)?, to));
                cases.push(Case::new("cast", name, make));
            }
            if size == Size::Small {
                cases.push(Case::new(
                    "cast",
                    format!("{from} to {to}, special numbers"),
                    move |_| Ok(call(HostTensor::from_f64(from, &[20], &SPECIAL)?, to)),
                ));
            }
        }
    }
    cases
}
