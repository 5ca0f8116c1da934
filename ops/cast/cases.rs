//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, MiniFloat, Numbers, Size},
};

/// Those that a training step casts between.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const OTHERS: [DType; 9] = [
    DType::F64,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::Bool,
];

/// Zeros, ties, what overflows or vanishes in a half type, what is no number.
const SPECIAL: [f64; 40] = [
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
    -0.999,
    127.6,
    -128.9,
    255.5,
    256.0,
    -32769.0,
    2_147_483_647.0,
    2_147_483_648.0,
    -2_147_483_904.0,
    9.3e18,
    -9.3e18,
    // Rounded to f32 first, it would be a tie of bf16, and this one of f8e4m3.
    1.003_906_250_001,
    1.062_500_000_001,
    // The greatest f8, the ties beyond them, and more.
    448.0,
    464.0,
    -465.0,
    57344.0,
    61439.0,
    -61440.0,
    1e30,
];

/// What integers have: bounds, and what a narrower one cuts off.
const INTEGERS: [i64; 14] = [
    0,
    1,
    -1,
    127,
    -128,
    128,
    255,
    256,
    -129,
    32_768,
    -40_000,
    2_147_483_647,
    16_777_217,
    -5_000_000_000,
];

/// A scalar, a batch, more than a piece with a rest, nothing.
const SHAPES: [&[i64]; 4] = [&[], &[3, 5, 7], &[1003], &[0]];
/// 256 KiB of f32.
const CACHED: &[i64] = &[1 << 16];
/// Beyond caches.
const LARGE: &[i64] = &[1 << 25];
/// The same for the pairs that matter less.
const LESS_LARGE: &[i64] = &[1 << 24];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    let all = [FLOATS.as_slice(), &OTHERS].concat();
    for &from in &all {
        for &to in &all {
            let among_floats = FLOATS.contains(&from) && FLOATS.contains(&to);
            let shapes: &[&[i64]] = match size {
                Size::Small if among_floats => &SHAPES,
                Size::Small => &SHAPES[2..],
                _ if !among_floats && from != DType::F32 && to != DType::F32 => &[],
                Size::Cached => &[CACHED],
                Size::Large if among_floats => &[LARGE],
                Size::Large => &[LESS_LARGE],
            };
            for &shape in shapes {
                let make = move |n: &mut Numbers| Ok(call(numbers(n, from, shape)?, to));
                cases.push(Case::new("cast", format!("{from} to {to} {shape:?}"), make));
            }
            if size == Size::Small {
                let name = format!("{from} to {to}, special numbers");
                cases.push(Case::new("cast", name, move |_| {
                    Ok(call(special(from)?, to))
                }));
            }
            let format = match to {
                DType::F8E4M3 => MiniFloat::E4M3,
                DType::F8E5M2 => MiniFloat::E5M2,
                _ => continue,
            };
            if size == Size::Small && from.is_float() {
                let name = format!("{from} to {to}, every code and what lies between");
                let make = move |_: &mut Numbers| Ok(call(around(format, from)?, to));
                cases.push(Case::new("cast", name, make));
            }
        }
    }
    cases
}

fn call(x: HostTensor, to: DType) -> HostCall {
    let y = HostTensor::unwritten(to, &x.shape);
    HostCall {
        args: vec![vec![x], vec![y]],
        attributes: vec![],
        scalars: vec![],
    }
}

/// Around zero, whole where the dtype is.
fn numbers(numbers: &mut Numbers, dtype: DType, shape: &[i64]) -> Result<HostTensor> {
    let of: fn(f64) -> f64 = match dtype {
        DType::Bool => |value| f64::from(u8::from(value > 0.0)),
        DType::U8 => |value| (value.abs() * 30.0).round(),
        _ if dtype.is_float() => |value| value,
        _ => |value| (value * 30.0).round(),
    };
    numbers.host_of(dtype, shape, of)
}

/// Every number of the format, the middle to the next one, and what is next to that.
fn around(format: MiniFloat, dtype: DType) -> Result<HostTensor> {
    let mut values = Vec::new();
    for code in 0..=0xff {
        let (low, high) = (format.to_f64(code), format.to_f64(code + 1));
        let middle = f64::midpoint(low, high);
        let near = middle * f64::from(f32::EPSILON);
        values.extend([low, middle, middle - near, middle + near]);
    }
    HostTensor::from_f64(dtype, &[1024], &values)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn special(dtype: DType) -> Result<HostTensor> {
    if matches!(dtype, DType::F8E4M3 | DType::F8E5M2) {
        return Ok(HostTensor {
            dtype,
            shape: vec![256],
            bytes: (0..=0xff).collect(),
        });
    }
    let values: Vec<f64> = if dtype.is_float() {
        SPECIAL.to_vec()
    } else {
        let (least, greatest) = match dtype {
            DType::Bool => (0, 1),
            DType::U8 => (0, 255),
            DType::I8 => (-128, 127),
            DType::I16 => (-32_768, 32_767),
            DType::I32 => (-(1 << 31), (1 << 31) - 1),
            _ => (i64::MIN, i64::MAX),
        };
        let clamped = INTEGERS.map(|value| value.clamp(least, greatest) as f64);
        clamped.to_vec()
    };
    let shape = [i64::try_from(values.len()).unwrap_or(0)];
    HostTensor::from_f64(dtype, &shape, &values)
}
