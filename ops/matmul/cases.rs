//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};

use crate::activation::Activation;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// M, K, N: one element; odd ones around a vector; more than a tile; long and flat; sums of one and of
/// nothing; one row, few rows, and columns that end within what a tile of them reads at a time; rows and
/// columns for more than an item, and more values of k than a block has.
const SHAPES: [[i64; 3]; 11] = [
    [1, 1, 1],
    [7, 5, 33],
    [64, 65, 66],
    [3, 300, 2],
    [100, 1, 100],
    [2, 0, 3],
    [1, 70, 401],
    [4, 33, 230],
    [8, 100, 150],
    [17, 40, 96],
    [270, 1050, 50],
];
/// 256 KiB of f32 each.
const CACHED: [i64; 3] = [256, 256, 256];
/// 2 x 2^30 operations.
const LARGE: [i64; 3] = [1024, 1024, 1024];
/// A layer of GPT-2, one of Llama, and the latter for a single token.
const LAYERS: [[i64; 3]; 3] = [[512, 768, 3072], [128, 4096, 4096], [1, 4096, 4096]];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES {
        match size {
            Size::Small => small(&mut cases, dtype),
            Size::Cached => {
                cases.push(matmul("", dtype, &[], CACHED));
                let layer = [16, 384, 384];
                cases.push(linear(dtype, layer, true, Activation::Identity));
                cases.push(linear(dtype, [1, 384, 384], true, Activation::Identity));
            }
            Size::Large => {
                cases.push(matmul("", dtype, &[], LARGE));
                cases.extend(LAYERS.map(|shape| linear(dtype, shape, false, Activation::Gelu)));
                cases.extend(LAYERS.map(|shape| linear(dtype, shape, true, Activation::Gelu)));
            }
        }
    }
    cases
}

fn small(cases: &mut Vec<Case>, dtype: DType) {
    for shape in SHAPES {
        cases.push(matmul("", dtype, &[], shape));
        cases.push(matmul("b transposed ", dtype, &[], shape).transposed(&[1]));
        cases.push(linear(dtype, shape, false, Activation::Identity));
    }
    cases.push(matmul("2 by 3 matrices ", dtype, &[2, 3], [9, 17, 10]));
    let shape = [19, 37, 23];
    cases.push(matmul("a transposed ", dtype, &[], shape).transposed(&[0]));
    cases.push(matmul("a, b, c transposed ", dtype, &[2], shape).transposed(&[0, 1, 2]));
    for activation in Activation::ALL {
        cases.push(linear(dtype, shape, true, activation));
        cases.push(linear(dtype, [2, 50, 70], false, activation));
    }
    cases.push(bare(dtype, shape));
    // Sums wait for another block of k, and meet bias, function and residual once.
    cases.push(linear(dtype, [13, 1100, 40], true, Activation::Gelu));
    let case = linear(dtype, [33, 40, 50], false, Activation::Silu);
    cases.push(case.transposed(&[0, 3, 4]));
}

fn matmul(name: &str, dtype: DType, batch: &'static [i64], mkn: [i64; 3]) -> Case {
    let [m, k, n] = mkn;
    let call = move |numbers: &mut Numbers| {
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
    };
    let each = 2.0 * i32::try_from(batch.iter().product::<i64>()).map_or(1.0, f64::from);
    Case::new("matmul", format!("{dtype} {name}{m}x{k}x{n}"), call).operations(each, &mkn)
}

/// With bias and residual. `columns` of w are what lies side by side in memory, or else its rows are.
fn linear(dtype: DType, mkn: [i64; 3], columns: bool, activation: Activation) -> Case {
    let [m, k, n] = mkn;
    let call = move |numbers: &mut Numbers| layer(numbers, dtype, mkn, activation, true);
    let view = if columns { ", w transposed" } else { "" };
    let name = format!("{dtype} {m}x{k}x{n} {activation:?}{view}");
    let case = Case::new("linear", name, call).operations(2.0, &mkn);
    if columns { case.transposed(&[1]) } else { case }
}

/// Without bias and residual.
fn bare(dtype: DType, mkn: [i64; 3]) -> Case {
    let call = move |numbers: &mut Numbers| layer(numbers, dtype, mkn, Activation::Silu, false);
    Case::new("linear", format!("{dtype} without bias"), call).operations(2.0, &mkn)
}

fn layer(
    numbers: &mut Numbers,
    dtype: DType,
    [m, k, n]: [i64; 3],
    activation: Activation,
    sums: bool,
) -> Result<HostCall> {
    let mut args = vec![
        vec![numbers.host(dtype, &[m, k])?],
        vec![numbers.host(dtype, &[n, k])?],
        vec![],
        vec![],
        vec![HostTensor::unwritten(dtype, &[m, n])],
    ];
    if sums {
        args[2].push(numbers.host(dtype, &[n])?);
        args[3].push(numbers.host(dtype, &[m, n])?);
    }
    Ok(HostCall {
        args,
        attributes: vec![activation.attribute()],
        scalars: vec![],
    })
}
