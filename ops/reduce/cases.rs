//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};

/// Inputs and results.
const PAIRS: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::BF16, DType::BF16),
    (DType::F16, DType::F32),
    (DType::BF16, DType::F32),
];

/// A row, rows shorter and longer than any vector and than a block, many rows, nothing of both kinds.
const SHAPES: [&[i64]; 8] = [
    &[5],
    &[3, 7],
    &[2, 3, 64],
    &[37, 129],
    &[2, 16_384 * 2 + 77],
    &[1500, 3],
    &[0, 8],
    &[3, 0],
];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[64, 1024]];
/// Beyond caches, with rows as long as a hidden state.
const LARGE: [&[i64]; 1] = [&[8192, 4096]];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for (from, to) in PAIRS {
        for &shape in shapes {
            let name = format!("{from} to {to} {shape:?}");
            for (op, operations) in [("sum_last", 1.0), ("mean_last", 1.0), ("norm_last", 2.0)] {
                let make = move |n: &mut Numbers| Ok(rows(n.host(from, shape)?, to));
                cases.push(Case::new(op, &name, make).operations(operations, shape));
            }
            let make = move |n: &mut Numbers| {
                let x = n.host(from, shape)?;
                let width = &shape[shape.len() - 1..];
                Ok(call(x, HostTensor::unwritten(to, width)))
            };
            cases.push(Case::new("sum_leading", &name, make).operations(1.0, shape));
        }
    }
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for op in ["max_last", "min_last", "argmax_last"] {
            let to = if op == "argmax_last" {
                DType::I64
            } else {
                dtype
            };
            for &shape in shapes {
                // Few values, so that many are equal.
                let make = move |n: &mut Numbers| {
                    let x = n.host_of(dtype, shape, |value| (value * 8.0).round() / 8.0)?;
                    Ok(rows(x, to))
                };
                let case = Case::new(op, format!("{dtype} {shape:?}"), make);
                cases.push(case.operations(1.0, shape));
            }
        }
        if size == Size::Small {
            for op in [
                "sum_last",
                "norm_last",
                "max_last",
                "min_last",
                "argmax_last",
            ] {
                let to = if op == "argmax_last" {
                    DType::I64
                } else {
                    dtype
                };
                let name = format!("{dtype} [6, 40], zeros, infinities, NaN");
                cases.push(Case::new(op, name, move |n| {
                    Ok(rows(special(n, dtype)?, to))
                }));
            }
        }
    }
    cases
}

fn rows(x: HostTensor, to: DType) -> HostCall {
    let rows = x.shape[..x.shape.len() - 1].to_vec();
    call(x, HostTensor::unwritten(to, &rows))
}

fn call(x: HostTensor, y: HostTensor) -> HostCall {
    HostCall {
        args: vec![vec![x], vec![y]],
        attributes: vec![],
        scalars: vec![],
    }
}

/// Rows of zeros of both signs, of infinities, with a NaN first, in the middle and last.
fn special(numbers: &mut Numbers, dtype: DType) -> Result<HostTensor> {
    let values: Vec<f64> = (0..240)
        .map(|index| match (index / 40, index % 40) {
            (0, column) => [0.0, -0.0][column % 2],
            (1, _) => f64::NEG_INFINITY,
            (2, 0) | (3, 21) | (4, 39) => f64::NAN,
            (5, 17) => f64::INFINITY,
            _ => numbers.draw(),
        })
        .collect();
    HostTensor::from_f64(dtype, &[6, 40], &values)
}
