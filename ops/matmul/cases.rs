//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
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

/// Experts of weights [N, K], where the rows of each begin and of the last one end, and all rows.
struct Experts {
    starts: &'static [i64],
    rows: i64,
    n: i64,
    k: i64,
}

/// Experts with no row, one, few and more; rows of none before and behind them; columns for more than an
/// item; more rows than an item's block and more values of k than a panel's; no experts, no rows.
const EXPERTS: [Experts; 6] = [
    Experts {
        starts: &[2, 5, 5, 6, 14, 35],
        rows: 38,
        n: 50,
        k: 37,
    },
    Experts {
        starts: &[0, 1, 4, 11, 30],
        rows: 30,
        n: 401,
        k: 70,
    },
    Experts {
        starts: &[0, 290, 300],
        rows: 300,
        n: 40,
        k: 1050,
    },
    Experts {
        starts: &[1],
        rows: 3,
        n: 5,
        k: 4,
    },
    Experts {
        starts: &[0, 0, 0],
        rows: 0,
        n: 5,
        k: 4,
    },
    Experts {
        starts: &[0, 2, 3],
        rows: 3,
        n: 5,
        k: 0,
    },
];
/// Starts that descend, that leave the rows on either side, and too few of them for the two experts.
const NO_STARTS: [&[i64]; 4] = [&[0, 5, 3], &[0, 4, 10], &[-1, 4, 9], &[0, 9]];
const CACHED_EXPERTS: [Experts; 1] = [Experts {
    starts: &[0, 20, 24, 60, 64],
    rows: 64,
    n: 128,
    k: 256,
}];
/// A layer of eight experts for many tokens, and for two tokens of which each has two.
const LARGE_EXPERTS: [Experts; 2] = [
    Experts {
        starts: &[0, 40, 60, 160, 200, 256, 300, 400, 512],
        rows: 512,
        n: 2048,
        k: 2048,
    },
    Experts {
        starts: &[0, 1, 1, 3, 3, 3, 3, 4, 4],
        rows: 4,
        n: 2048,
        k: 2048,
    },
];

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
                cases.extend(
                    CACHED_EXPERTS
                        .iter()
                        .map(|experts| grouped(dtype, experts, false)),
                );
            }
            Size::Large => {
                cases.push(matmul("", dtype, &[], LARGE));
                cases.extend(LAYERS.map(|shape| linear(dtype, shape, false, Activation::Gelu)));
                cases.extend(LAYERS.map(|shape| linear(dtype, shape, true, Activation::Gelu)));
                cases.extend(
                    LARGE_EXPERTS
                        .iter()
                        .map(|experts| grouped(dtype, experts, false)),
                );
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
    // Few rows and a b that is read in stripes.
    for rows in [1, 3, 8] {
        cases.push(matmul("", dtype, &[], [rows, 1300, 210]));
        cases.push(linear(dtype, [rows, 1300, 384], true, Activation::Relu));
    }
    // Sums wait for another block of k, and meet bias, function and residual once.
    cases.push(linear(dtype, [13, 1100, 40], true, Activation::Gelu));
    for experts in &EXPERTS {
        cases.extend([false, true].map(|columns| grouped(dtype, experts, columns)));
    }
    for starts in NO_STARTS {
        let (rows, n, k) = (9, 20, 10);
        let case = grouped_call(
            dtype,
            DType::I32,
            starts,
            [2, rows, n, k],
            Activation::Identity,
        );
        cases.push(Case::new(
            "grouped_matmul",
            format!("{dtype} {starts:?} of 9"),
            case,
        ));
    }
    for activation in Activation::ALL {
        let case = grouped_call(dtype, DType::I32, &[0, 3, 12], [2, 12, 23, 19], activation);
        cases.push(Case::new(
            "grouped_matmul",
            format!("{dtype} {activation:?}"),
            case,
        ));
    }
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

/// `columns` of w are what lies side by side in memory, or else its rows are.
fn grouped(dtype: DType, experts: &Experts, columns: bool) -> Case {
    let &Experts { starts, rows, n, k } = experts;
    let count = i64::try_from(starts.len()).unwrap_or(1) - 1;
    let extents = [count, rows, n, k];
    // Either of the dtypes of starts meets each of the sizes.
    let of_starts = match dtype {
        DType::BF16 => DType::I32,
        _ => DType::I64,
    };
    let call = grouped_call(dtype, of_starts, starts, extents, Activation::Identity);
    let view = if columns { ", w transposed" } else { "" };
    let name = format!("{dtype} {rows}x{k}x{n}, {count} experts{view}");
    // Weights of experts without rows are not read.
    let read = starts
        .windows(2)
        .filter(|group| group[0] < group[1])
        .count();
    let bytes = |elements: i64| elements.unsigned_abs() * dtype.size_bytes() as u64;
    let case = Case::new("grouped_matmul", name, call)
        .operations(2.0, &[rows, n, k])
        .traffic(Traffic {
            read_bytes: bytes(rows * k) + read as u64 * bytes(n * k + n),
            written_bytes: bytes(rows * n),
        });
    if columns { case.transposed(&[1]) } else { case }
}

fn grouped_call(
    dtype: DType,
    index: DType,
    starts: &'static [i64],
    [experts, rows, n, k]: [i64; 4],
    activation: Activation,
) -> impl Fn(&mut Numbers) -> Result<HostCall> + Send + Sync {
    move |numbers: &mut Numbers| {
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let values: Vec<f64> = starts.iter().map(|&start| start as f64).collect();
        let count = i64::try_from(starts.len()).unwrap_or(0);
        Ok(HostCall {
            args: vec![
                vec![numbers.host(dtype, &[rows, k])?],
                vec![numbers.host(dtype, &[experts, n, k])?],
                vec![HostTensor::from_f64(index, &[count], &values)?],
                vec![numbers.host(dtype, &[experts, n])?],
                vec![HostTensor::unwritten(dtype, &[rows, n])],
            ],
            attributes: vec![activation.attribute()],
            scalars: vec![],
        })
    }
}
