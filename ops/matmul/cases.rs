//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

/// M, K, N: one element, odd ones around a vector, more than a tile, long and flat, a sum of nothing, more
/// than a block every way.
const SHAPES: [[i64; 3]; 7] = [
    [1, 1, 1],
    [7, 5, 33],
    [64, 65, 66],
    [3, 300, 2],
    [100, 1, 100],
    [2, 0, 3],
    [70, 800, 200],
];
/// 256 KiB of f32 each.
const CACHED: [i64; 3] = [256, 256, 256];
/// 2 x 2^30 operations.
const LARGE: [i64; 3] = [1024, 1024, 1024];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let case = |name: &str, dtype, batch: &'static [i64], mkn: [i64; 3]| {
        let [m, k, n] = mkn;
        let name = format!("{dtype} {name}{m}x{k}x{n}");
        let call = move |numbers: &mut Numbers| call(numbers, dtype, batch, mkn);
        Case::new("matmul", name, call).operations(2.0, &mkn)
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        let measured = match size {
            Size::Small => None,
            Size::Cached => Some(CACHED),
            Size::Large => Some(LARGE),
        };
        if let Some(shape) = measured {
            cases.push(case("", dtype, &[], shape));
            continue;
        }
        cases.extend(SHAPES.map(|shape| case("", dtype, &[], shape)));
        cases.push(case("2 by 3 matrices ", dtype, &[2, 3], [9, 17, 10]));
        let shape = [19, 37, 23];
        cases.push(case("a transposed ", dtype, &[], shape).transposed(&[0]));
        cases.push(case("b transposed ", dtype, &[2], shape).transposed(&[1]));
        cases.push(case("a, b, c transposed ", dtype, &[], shape).transposed(&[0, 1, 2]));
    }
    cases
}

fn call(numbers: &mut Numbers, dtype: DType, batch: &[i64], mkn: [i64; 3]) -> Result<HostCall> {
    let [m, k, n] = mkn;
    let shape = |rows, columns| [batch, &[rows, columns]].concat();
    Ok(HostCall {
        args: vec![
            vec![numbers.host(dtype, &shape(m, k))?],
            vec![numbers.host(dtype, &shape(k, n))?],
            vec![HostTensor::unwritten(dtype, &shape(m, n))],
        ],
        attributes: vec![],
        scalars: vec![],
    })
}
