//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Groups and bytes of each: one, odd ones around a vector, a group beyond a block and one beyond a
/// chunk of the CPU's, no groups, groups of nothing.
const SHAPES: [[i64; 2]; 7] = [
    [1, 1],
    [3, 7],
    [13, 64],
    [2, 4099],
    [2, 66_001],
    [0, 8],
    [3, 0],
];
/// 256 KiB of f32.
const CACHED: [[i64; 2]; 1] = [[64, 1024]];
/// Beyond caches.
const LARGE: [[i64; 2]; 1] = [[1 << 14, 2048]];

/// Nodes, devices, slices, groups and bytes of each.
const SWIZZLES: [[i64; 5]; 3] = [[2, 4, 1, 1, 9], [2, 3, 2, 2, 40], [1, 2, 1, 1, 66_001]];
const SWIZZLES_CACHED: [[i64; 5]; 1] = [[2, 4, 2, 4, 1024]];
const SWIZZLES_LARGE: [[i64; 5]; 1] = [[2, 8, 4, 256, 2048]];

/// Devices, groups and bytes of each; more devices than the CPU's kernel sums at a time.
const SHARDS: [[i64; 3]; 7] = [
    [1, 3, 7],
    [4, 2, 100],
    [8, 1, 4099],
    [2, 1, 66_001],
    [67, 2, 70],
    [0, 2, 5],
    [2, 0, 5],
];
const SHARDS_CACHED: [[i64; 3]; 1] = [[8, 32, 1024]];
const SHARDS_LARGE: [[i64; 3]; 1] = [[8, 1 << 12, 2048]];

/// Operations of a random word: four tenths of a counter's ten rounds of ten.
const PHILOX: f64 = 25.0;

const SEED: Attr = Attr::I64(-0x0123_4567_89ab_cdef);
/// Not a multiple of the words that a counter gives.
const OFFSET: Attr = Attr::I64((1 << 40) + 4);

fn pick<T: Copy>(size: Size, of: [&'static [T]; 3]) -> &'static [T] {
    let [small, cached, large] = of;
    match size {
        Size::Small => small,
        Size::Cached => cached,
        Size::Large => large,
    }
}

/// Whether a group of so many bytes is tried: the longest ones take the reference its time, and one
/// variant shows what is different about them.
fn is_tried(bytes: i64, symmetric: bool) -> bool {
    bytes < 1 << 16 || !symmetric
}

/// The variants of a call: all of them to verify, some to measure.
fn variants(size: Size) -> Vec<(i64, bool)> {
    match size {
        Size::Small => vec![(1, true), (2, true), (1, false), (2, false)],
        _ => vec![(1, true), (2, false)],
    }
}

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for (per_byte, symmetric) in variants(size) {
            let how = format!(
                "{dtype} {} bits{}",
                8 / per_byte,
                if symmetric { "" } else { " asymmetric" }
            );
            for &[g, h] in pick(size, [&SHAPES[..], &CACHED, &LARGE]) {
                if !is_tried(h, symmetric) {
                    continue;
                }
                let shape = [g, h, per_byte];
                let name = format!("{how} {g}x{h}");
                let call = move |n: &mut Numbers| Ok(quantize(n.host(dtype, &shape)?, symmetric));
                cases.push(Case::new("quantize", &name, call).operations(6.0, &shape));
                if symmetric || size == Size::Small {
                    let call = move |n: &mut Numbers| dequantize(n, dtype, shape);
                    let case = Case::new("dequantize", &name, call).operations(2.0, &shape);
                    cases.push(case.traffic(written_only(dtype, shape)));
                }
            }
            if size != Size::Small && per_byte == 2 {
                continue;
            }
            for &[m, d, l, c, h] in pick(size, [&SWIZZLES[..], &SWIZZLES_CACHED, &SWIZZLES_LARGE]) {
                if !is_tried(h, symmetric) {
                    continue;
                }
                let shape = [m, d, l, c, h, per_byte];
                let name = format!("{how} {:?}", &shape[..5]);
                let call =
                    move |n: &mut Numbers| Ok(swizzle(n.host(dtype, &shape)?, None, symmetric));
                cases.push(Case::new("swizzle_quantize", &name, call).operations(6.0, &shape));
                let call = move |n: &mut Numbers| {
                    let err = n.host_of(dtype, &[l, d, m, c, h, per_byte], |v| 0.01 * v)?;
                    Ok(swizzle(n.host(dtype, &shape)?, Some(err), symmetric))
                };
                cases
                    .push(Case::new("loco_swizzle_quantize", &name, call).operations(12.0, &shape));
            }
            for &shards in pick(size, [&SHARDS[..], &SHARDS_CACHED, &SHARDS_LARGE]) {
                if !is_tried(shards[2], symmetric) {
                    continue;
                }
                let name = format!("{how} {shards:?}");
                let [d, g, h] = shards;
                let shape = [g, h, per_byte];
                #[allow(clippy::cast_precision_loss, reason = "few devices")]
                let operations = 3.0 * d as f64 + 6.0;
                if dtype == DType::F32 {
                    let call = move |n: &mut Numbers| reduction(n, shards, per_byte, symmetric);
                    cases.push(
                        Case::new("quantized_reduction", &name, call)
                            .operations(operations, &shape),
                    );
                }
                let call =
                    move |n: &mut Numbers| loco_reduction(n, dtype, shards, per_byte, symmetric);
                let case = Case::new("loco_quantized_reduction", &name, call);
                cases.push(case.operations(operations + 7.0, &shape));
            }
        }
        cases.extend(fake_cases(size, dtype));
        if size == Size::Small {
            cases.extend(special_cases(dtype));
        }
    }
    cases
}

fn fake_cases(size: Size, dtype: DType) -> Vec<Case> {
    let how: &[(i64, bool, bool)] = match size {
        Size::Small => &[
            (8, true, false),
            (4, false, false),
            (8, false, true),
            (3, true, true),
            (16, true, false),
        ],
        _ => &[(8, true, false), (8, true, true)],
    };
    let mut cases = Vec::new();
    for &(bits, symmetric, stochastic) in how {
        for &[g, n] in pick(size, [&SHAPES[..], &CACHED, &LARGE]) {
            if !is_tried(n, symmetric) {
                continue;
            }
            let attributes = [
                Attr::I64(bits),
                Attr::Bool(symmetric),
                Attr::Bool(stochastic),
            ];
            let call = move |numbers: &mut Numbers| {
                let x = numbers.host(dtype, &[g, n])?;
                let y = HostTensor::unwritten(dtype, &[g, n]);
                Ok(HostCall {
                    args: vec![vec![x], vec![y]],
                    attributes: attributes.to_vec(),
                    scalars: vec![SEED, OFFSET],
                })
            };
            let sort = if symmetric { "" } else { " asymmetric" };
            let rounding = if stochastic { " stochastic" } else { "" };
            let name = format!("{dtype} {bits} bits{sort}{rounding} {g}x{n}");
            let case = Case::new("fake_quantize", name, call);
            let operations = if stochastic { 8.0 + PHILOX } else { 8.0 };
            cases.push(case.operations(operations, &[g, n]));
        }
    }
    cases
}

/// Groups of zeros, of one value, of the greatest and of the least numbers, ones with an infinity and
/// with a NaN, ties.
fn special_cases(dtype: DType) -> Vec<Case> {
    let values = move || -> Result<HostTensor> {
        let row = |group: usize, at: usize| match group {
            0 => [0.0, -0.0][at % 2],
            1 => -2.5,
            2 => [3.4e38, -3.4e38, 1.0][at % 3],
            3 => [1e-40, 6e-8, -6e-8][at % 3],
            4 if at == 5 => f64::NEG_INFINITY,
            5 if at == 33 => f64::NAN,
            // What comes back is a denormal of f32 and of bf16.
            6 => [1e-38, -3e-39, 7e-40][at % 3],
            #[allow(clippy::cast_precision_loss, reason = "at most 37")]
            _ => at as f64 - 17.5,
        };
        let values: Vec<f64> = (0..8)
            .flat_map(|g| (0..36).map(move |at| row(g, at)))
            .collect();
        HostTensor::from_f64(dtype, &[8, 36], &values)
    };
    let mut cases = Vec::new();
    for (per_byte, symmetric) in variants(Size::Small) {
        let name = format!(
            "{dtype} special numbers, {} bits, symmetric {symmetric}",
            8 / per_byte
        );
        let call = move |_: &mut Numbers| {
            let mut x = values()?;
            x.shape = vec![8, 36 / per_byte, per_byte];
            Ok(quantize(x, symmetric))
        };
        cases.push(Case::new("quantize", &name, call));
        let call = move |_: &mut Numbers| {
            Ok(HostCall {
                args: vec![
                    vec![values()?],
                    vec![HostTensor::unwritten(dtype, &[8, 36])],
                ],
                attributes: vec![
                    Attr::I64(8 / per_byte),
                    Attr::Bool(symmetric),
                    Attr::Bool(true),
                ],
                scalars: vec![SEED, OFFSET],
            })
        };
        cases.push(Case::new("fake_quantize", &name, call));
    }
    cases
}

fn quantize(x: HostTensor, symmetric: bool) -> HostCall {
    let (g, h) = (x.shape[0], x.shape[1]);
    HostCall {
        args: vec![
            vec![x],
            vec![HostTensor::unwritten(DType::I8, &[g, h])],
            vec![HostTensor::unwritten(DType::F32, &[g, 2])],
        ],
        attributes: vec![Attr::Bool(symmetric)],
        scalars: vec![],
    }
}

fn swizzle(x: HostTensor, err: Option<HostTensor>, symmetric: bool) -> HostCall {
    let [m, d, l, c, h] = [0, 1, 2, 3, 4].map(|at| x.shape[at]);
    let scalars = err.iter().map(|_| Attr::F64(0.3)).collect();
    let mut args = vec![vec![x]];
    args.extend(err.map(|err| vec![err]));
    args.push(vec![HostTensor::unwritten(DType::I8, &[l, d, m, c, h])]);
    args.push(vec![HostTensor::unwritten(DType::F32, &[l, d, m, c, 2])]);
    HostCall {
        args,
        attributes: vec![Attr::Bool(symmetric)],
        scalars,
    }
}

fn dequantize(numbers: &mut Numbers, dtype: DType, [g, h, p]: [i64; 3]) -> Result<HostCall> {
    Ok(HostCall {
        args: vec![
            vec![bytes(numbers, &[g, h])?],
            vec![numbers.host(DType::F32, &[g, 2])?],
            vec![HostTensor::unwritten(dtype, &[g, h, p])],
        ],
        attributes: vec![],
        scalars: vec![],
    })
}

fn reduction(
    numbers: &mut Numbers,
    [d, g, h]: [i64; 3],
    per_byte: i64,
    symmetric: bool,
) -> Result<HostCall> {
    Ok(HostCall {
        args: vec![
            vec![bytes(numbers, &[d, g, h])?],
            vec![numbers.host(DType::F32, &[d, g, 2])?],
            vec![HostTensor::unwritten(DType::I8, &[g, h])],
            vec![HostTensor::unwritten(DType::F32, &[g, 2])],
        ],
        attributes: vec![Attr::I64(8 / per_byte), Attr::Bool(symmetric)],
        scalars: vec![],
    })
}

fn loco_reduction(
    numbers: &mut Numbers,
    dtype: DType,
    [d, g, h]: [i64; 3],
    per_byte: i64,
    symmetric: bool,
) -> Result<HostCall> {
    let mut call = reduction(numbers, [d, g, h], per_byte, symmetric)?;
    call.args
        .insert(2, vec![numbers.host(dtype, &[g, h, per_byte])?]);
    call.attributes.remove(0);
    call.scalars = vec![Attr::F64(0.3)];
    Ok(call)
}

/// Every byte, in no order.
fn bytes(numbers: &mut Numbers, shape: &[i64]) -> Result<HostTensor> {
    let period = shape.iter().product::<i64>().min(1 << 16);
    let mut some = numbers.integers(DType::U8, &[period], 256)?;
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
    if count > some.bytes.len() {
        some.bytes = some.bytes.repeat(count.div_ceil(some.bytes.len()));
        some.bytes.truncate(count);
    }
    Ok(HostTensor {
        dtype: DType::I8,
        shape: shape.to_vec(),
        bytes: some.bytes,
    })
}

/// What `dequantize` moves: its result is no input.
fn written_only(dtype: DType, [g, h, p]: [i64; 3]) -> Traffic {
    let written = (g * h * p).unsigned_abs() * dtype.size_bytes() as u64;
    Traffic {
        read_bytes: (g * h + 8 * g).unsigned_abs(),
        written_bytes: written,
    }
}
