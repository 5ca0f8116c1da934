//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};

use ds_schema::Attr;

use crate::activation::Activation;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The extents of a call: M, N, G and the values of a group.
type Extents = [i64; 4];

/// One of each; groups that are no whole vectors, and that are two; one row, few rows and more with groups
/// of every kind that a kernel reads in a way of its own; columns for more than an item; more values of k
/// than a block has; nothing to sum, no rows, no columns.
const SHAPES: [Extents; 16] = [
    [1, 1, 1, 4],
    [3, 5, 2, 20],
    [21, 50, 3, 28],
    [1, 49, 3, 48],
    [1, 50, 8, 16],
    [2, 50, 12, 32],
    [4, 97, 2, 64],
    [1, 97, 5, 64],
    [5, 7, 2, 128],
    [8, 60, 1, 384],
    [1, 51, 3, 256],
    [9, 50, 5, 96],
    [17, 100, 9, 128],
    [2, 3, 0, 8],
    [0, 5, 1, 8],
    [2, 0, 1, 8],
];
/// 144 KiB of 8 bits.
const CACHED: [Extents; 2] = [[1, 384, 3, 128], [16, 384, 3, 128]];
/// A layer of Llama for a single token, with groups of all kinds, for a few and for many.
const LARGE: [Extents; 5] = [
    [1, 4096, 32, 128],
    [1, 4096, 1, 4096],
    [1, 4096, 128, 32],
    [4, 4096, 32, 128],
    [128, 4096, 32, 128],
];

/// Values in a part, its bytes, and bits of mantissa.
const FORMATS: [[i64; 3]; 6] = [
    [2, 1, 1],
    [4, 3, 2],
    [1, 1, 3],
    [1, 1, 2],
    [2, 3, 7],
    [2, 3, 4],
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[Extents] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for bits in [8, 4] {
            let layer = |shape, activation, sums| integers(dtype, bits, shape, activation, sums);
            cases.extend(
                shapes
                    .iter()
                    .map(|&shape| layer(shape, Activation::Identity, true)),
            );
            let experts: &[Experts] = match size {
                Size::Small => &EXPERTS,
                Size::Cached => &[CACHED_EXPERTS],
                Size::Large => &LARGE_EXPERTS,
            };
            let of_experts = |&experts| grouped(dtype, bits, experts, Activation::Identity);
            cases.extend(experts.iter().map(of_experts));
            if size == Size::Small {
                let of = |activation| grouped(dtype, bits, OTHER_EXPERTS, activation);
                cases.extend(Activation::ALL.map(of));
                let each = Activation::ALL.into_iter();
                cases.extend(each.map(|activation| layer([3, 20, 2, 32], activation, true)));
                cases.push(layer([3, 50, 2, 128], Activation::Silu, false));
                cases.push(layer([13, 50, 9, 128], Activation::Gelu, true));
                cases.push(layer([13, 50, 2, 64], Activation::Gelu, true).transposed(&[4, 5]));
            }
        }
        for format in FORMATS {
            let layer = |shape, activation| floats(dtype, format, shape, activation);
            if size != Size::Large {
                cases.extend(
                    shapes
                        .iter()
                        .map(|&shape| layer(shape, Activation::Identity)),
                );
                cases.push(layer([13, 50, 2, 64], Activation::Gelu).transposed(&[4, 5]));
                continue;
            }
            for shape in [LARGE[0], LARGE[3], LARGE[4]] {
                cases.push(layer(shape, Activation::Identity));
            }
        }
    }
    cases
}

/// Rows, columns, groups and the values of one; where experts begin.
type Experts = ([i64; 4], &'static [i64]);

/// No rows for some, few and many for others, rows of none on both sides; no experts; columns for more than an
/// item; starts that are none.
const EXPERTS: [Experts; 6] = [
    ([12, 20, 3, 16], &[0, 3, 3, 12]),
    ([40, 50, 2, 128], &[2, 3, 35, 38]),
    ([9, 210, 5, 12], &[0, 1, 9]),
    ([4, 5, 1, 8], &[2]),
    ([9, 20, 2, 16], &[0, 5, 3, 9]),
    ([9, 20, 2, 16], &[0, 5, 10]),
];
/// For each activation.
const OTHER_EXPERTS: Experts = ([10, 20, 2, 32], &[0, 4, 10]);
const CACHED_EXPERTS: Experts = ([16, 128, 3, 128], &[0, 1, 4, 4, 16]);
/// Experts of a mixture for a few tokens and for many.
const LARGE_EXPERTS: [Experts; 2] = [
    ([8, 2048, 16, 128], &[0, 1, 2, 4, 4, 5, 6, 7, 8]),
    (
        [512, 2048, 16, 128],
        &[0, 64, 128, 192, 256, 320, 384, 448, 512],
    ),
];

fn grouped(dtype: DType, bits: i64, experts: Experts, activation: Activation) -> Case {
    let ([m, n, groups, length], starts) = experts;
    let per_byte = 8 / bits;
    let count = i64::try_from(starts.len()).unwrap_or(0);
    let call = move |numbers: &mut Numbers| {
        let step = if bits == 8 { 1.0 / 64.0 } else { 0.25 };
        let mut params = Vec::new();
        for _ in 0..(count - 1) * n * groups {
            params.extend([step * (1.5 + 0.5 * numbers.draw()), 0.5 * numbers.draw()]);
        }
        let index = if bits == 8 { DType::I32 } else { DType::I64 };
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let starts: Vec<f64> = starts.iter().map(|&start| start as f64).collect();
        let codes = [count - 1, n, groups, length / per_byte];
        let of_params = [count - 1, n, groups, 2];
        Ok(HostCall {
            args: vec![
                vec![numbers.host(dtype, &[m, groups, length / per_byte, per_byte])?],
                vec![bytes(numbers, DType::I8, &codes)?],
                vec![HostTensor::from_f64(DType::F32, &of_params, &params)?],
                vec![HostTensor::from_f64(index, &[count], &starts)?],
                vec![numbers.host(dtype, &[count - 1, n])?],
                vec![HostTensor::unwritten(dtype, &[m, n])],
            ],
            attributes: vec![activation.attribute()],
            scalars: vec![],
        })
    };
    let name = format!("{dtype} {m}x{groups}x{length}x{n} int{bits} {starts:?} {activation:?}");
    // Weights of experts without rows are not read.
    let read = starts.windows(2).filter(|rows| rows[0] < rows[1]).count();
    let unsigned = i64::unsigned_abs;
    let size = dtype.size_bytes() as u64;
    let of_expert = unsigned(n * groups * (length / per_byte + 8)) + unsigned(n) * size;
    Case::new("quantized_grouped_matmul", name, call)
        .operations(2.0, &[m, n, groups, length])
        .traffic(Traffic {
            read_bytes: unsigned(m * groups * length) * size + read as u64 * of_expert,
            written_bytes: unsigned(m * n) * size,
        })
}

/// `sums` are bias and residual.
fn integers(dtype: DType, bits: i64, shape: Extents, activation: Activation, sums: bool) -> Case {
    let [m, n, groups, length] = shape;
    let per_byte = 8 / bits;
    let call = move |numbers: &mut Numbers| {
        // Weights of about unit scale.
        let step = if bits == 8 { 1.0 / 64.0 } else { 0.25 };
        let mut params = Vec::new();
        for _ in 0..n * groups {
            params.extend([step * (1.5 + 0.5 * numbers.draw()), 0.5 * numbers.draw()]);
        }
        let mut args = vec![
            vec![numbers.host(dtype, &[m, groups, length / per_byte, per_byte])?],
            vec![bytes(numbers, DType::I8, &[n, groups, length / per_byte])?],
            vec![HostTensor::from_f64(DType::F32, &[n, groups, 2], &params)?],
        ];
        args.extend(rest(numbers, dtype, [m, n], sums)?);
        Ok(HostCall {
            args,
            attributes: vec![activation.attribute()],
            scalars: vec![],
        })
    };
    let bare = if sums { "" } else { ", no bias" };
    let name = format!("{dtype} {m}x{groups}x{length}x{n} int{bits} {activation:?}{bare}");
    Case::new("quantized_linear", name, call).operations(2.0, &[m, n, groups, length])
}

fn floats(dtype: DType, format: [i64; 3], shape: Extents, activation: Activation) -> Case {
    let ([per, bytes_each, mantissa], [m, n, groups, length]) = (format, shape);
    let bits = 8 * bytes_each / per;
    let call = move |numbers: &mut Numbers| {
        // Most codes are small beside a group's greatest.
        let exponent = i32::try_from(bits - 1 - mantissa).unwrap_or(0);
        let scale = 2.0_f64.powi(-(1 << (exponent - 1)) + 1);
        let step = |v: f64| scale * (1.5 + 0.5 * v);
        let mut args = vec![
            vec![numbers.host(dtype, &[m, groups, length / per, per])?],
            vec![bytes(
                numbers,
                DType::U8,
                &[n, groups, length / per, bytes_each],
            )?],
            vec![numbers.host_of(DType::F32, &[n, groups], step)?],
        ];
        args.extend(rest(numbers, dtype, [m, n], true)?);
        Ok(HostCall {
            args,
            attributes: vec![activation.attribute(), Attr::I64(mantissa)],
            scalars: vec![],
        })
    };
    let name = format!(
        "{dtype} {m}x{groups}x{length}x{n} {bits} bits, {mantissa} mantissa {activation:?}"
    );
    Case::new("fp_linear", name, call).operations(2.0, &[m, n, groups, length])
}

/// Bias, residual and result.
fn rest(
    numbers: &mut Numbers,
    dtype: DType,
    [m, n]: [i64; 2],
    sums: bool,
) -> Result<Vec<Vec<HostTensor>>> {
    let (mut bias, mut residual) = (vec![], vec![]);
    if sums {
        bias.push(numbers.host(dtype, &[n])?);
        residual.push(numbers.host(dtype, &[m, n])?);
    }
    Ok(vec![
        bias,
        residual,
        vec![HostTensor::unwritten(dtype, &[m, n])],
    ])
}

/// Every byte is as likely; those of large tensors come again.
fn bytes(numbers: &mut Numbers, dtype: DType, shape: &[i64]) -> Result<HostTensor> {
    const PERIOD: i64 = (1 << 16) - 1;
    let count = shape.iter().product::<i64>();
    let few = numbers
        .integers(DType::U8, &[count.min(PERIOD)], 256)?
        .bytes;
    let count = usize::try_from(count).unwrap_or(0);
    Ok(HostTensor {
        dtype,
        shape: shape.to_vec(),
        bytes: few.iter().copied().cycle().take(count).collect(),
    })
}
