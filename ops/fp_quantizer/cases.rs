//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Codes in bytes, and bits of mantissa: e4m3 first, which is measured, too.
const FORMATS: [(i64, i64, i64); 6] = [
    (1, 1, 3),
    (4, 3, 2),
    (2, 1, 1),
    (1, 1, 2),
    (2, 3, 7),
    (2, 3, 4),
];

/// Groups and parts of each: one, odd ones, beyond a block and beyond a chunk of the CPU's, none,
/// groups of nothing.
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
const CACHED: [[i64; 2]; 1] = [[128, 512]];
/// Beyond caches.
const LARGE: [[i64; 2]; 1] = [[1 << 16, 512]];

/// Indices of 5 rows, some of which do not exist.
const INDEX: [f64; 6] = [3.0, 0.0, 3.0, 5.0, -1.0, 4.0];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let (shapes, formats): (&[[i64; 2]], &[_]) = match size {
        Size::Small => (&SHAPES, &FORMATS),
        Size::Cached => (&CACHED, &FORMATS[..1]),
        Size::Large => (&LARGE, &FORMATS[..2]),
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &format in formats {
            let (per, bytes, mantissa) = format;
            for &[g, h] in shapes {
                // The longest groups take the reference its time; what is different about them shows once.
                if h >= 1 << 16 && mantissa != 3 {
                    continue;
                }
                let name = format!(
                    "{dtype} {} bits, mantissa {mantissa}, {g}x{h}",
                    8 * bytes / per
                );
                let h = if size == Size::Small { h } else { h / per };
                let (wide, packed) = ([g, h, per], [g, h, bytes]);
                for stochastic in [false, true] {
                    if stochastic && size != Size::Small {
                        continue;
                    }
                    let call = move |n: &mut Numbers| {
                        Ok(quantize(
                            n.host(dtype, &wide)?,
                            packed,
                            mantissa,
                            stochastic,
                        ))
                    };
                    let how = if stochastic { ", stochastic" } else { "" };
                    let case = Case::new("fp_quantize", format!("{name}{how}"), call)
                        .operations(10.0, &wide);
                    cases.push(case.traffic(traffic(dtype, wide, DType::U8, packed)));
                }
                let call = move |n: &mut Numbers| {
                    let args = [vec![codes(n, &packed)?], vec![n.host(DType::F32, &[g])?]];
                    Ok(dequantize(
                        args.into(),
                        HostTensor::unwritten(dtype, &wide),
                        mantissa,
                    ))
                };
                let case = Case::new("fp_dequantize", &name, call).operations(5.0, &wide);
                cases.push(case.traffic(traffic(DType::U8, packed, dtype, wide)));
                for index in [DType::I32, DType::I64] {
                    let call = move |n: &mut Numbers| {
                        selective(n, dtype, index, size, [wide, packed], mantissa)
                    };
                    let case =
                        Case::new("fp_selective_dequantize", format!("{name} {index}"), call);
                    let picked = if size == Size::Small {
                        [6 * g, h, per]
                    } else {
                        wide
                    };
                    let read = [picked[0], picked[1], bytes];
                    let case = case.operations(5.0, &picked);
                    cases.push(case.traffic(traffic(DType::U8, read, dtype, picked)));
                }
            }
        }
        if size == Size::Small {
            cases.extend(special_cases(dtype));
        }
    }
    cases
}

/// Groups of zeros, of the greatest and of the least numbers, with an infinity, with a NaN, of every
/// size that a code has and what lies between.
fn special_cases(dtype: DType) -> Vec<Case> {
    let mut cases = Vec::new();
    for (per, bytes, mantissa) in FORMATS {
        for stochastic in [false, true] {
            let call = move |_: &mut Numbers| {
                let value = |group: i32, at: i32| match group {
                    0 => [0.0, -0.0][(at % 2).unsigned_abs() as usize],
                    1 => [3.4e38, -3.4e38, 1e20][(at % 3).unsigned_abs() as usize],
                    2 => [1e-40, 6e-8, -6e-8][(at % 3).unsigned_abs() as usize],
                    3 if at == 5 => f64::NEG_INFINITY,
                    4 if at == 33 => f64::NAN,
                    _ => f64::from(at - 500) * 2.0_f64.powi(-(at % 23)),
                };
                let values: Vec<f64> = (0..6)
                    .flat_map(|g| (0..1000).map(move |at| value(g, at)))
                    .collect();
                let x = HostTensor::from_f64(dtype, &[6, 1000 / per, per], &values)?;
                Ok(quantize(x, [6, 1000 / per, bytes], mantissa, stochastic))
            };
            let name = format!(
                "{dtype} special numbers, {} bits, mantissa {mantissa}, {stochastic}",
                8 * bytes / per
            );
            cases.push(Case::new("fp_quantize", name, call));
        }
    }
    cases
}

fn quantize(x: HostTensor, packed: [i64; 3], mantissa: i64, stochastic: bool) -> HostCall {
    HostCall {
        args: vec![
            vec![x],
            vec![HostTensor::unwritten(DType::U8, &packed)],
            vec![HostTensor::unwritten(DType::F32, &packed[..1])],
        ],
        attributes: vec![Attr::I64(mantissa), Attr::Bool(stochastic)],
        scalars: vec![Attr::I64(-77), Attr::I64((1 << 40) + 4)],
    }
}

fn dequantize(mut args: Vec<Vec<HostTensor>>, y: HostTensor, mantissa: i64) -> HostCall {
    args.push(vec![y]);
    HostCall {
        args,
        attributes: vec![Attr::I64(mantissa)],
        scalars: vec![],
    }
}

/// Rows by index: some of five to verify, all the others' groups one a row to measure.
fn selective(
    numbers: &mut Numbers,
    dtype: DType,
    index: DType,
    size: Size,
    [[g, h, per], [.., bytes]]: [[i64; 3]; 2],
    mantissa: i64,
) -> Result<HostCall> {
    let (rows, groups, index) = if size == Size::Small {
        (5, g, HostTensor::from_f64(index, &[6], &INDEX)?)
    } else {
        (g, 1, numbers.integers(index, &[g], g)?)
    };
    let y = HostTensor::unwritten(dtype, &[index.shape[0], groups, h, per]);
    let args = vec![
        vec![codes(numbers, &[rows, groups, h, bytes])?],
        vec![numbers.host(DType::F32, &[rows, groups])?],
        vec![index],
    ];
    Ok(dequantize(args, y, mantissa))
}

/// Every byte, in no order.
fn codes(numbers: &mut Numbers, shape: &[i64]) -> Result<HostTensor> {
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
    let some = numbers.integers(DType::U8, &[1 << 16], 256)?;
    let mut bytes = some.bytes.repeat(count.div_ceil(1 << 16));
    bytes.truncate(count);
    Ok(HostTensor {
        dtype: DType::U8,
        shape: shape.to_vec(),
        bytes,
    })
}

/// What is only written is no input, although its shape is.
fn traffic(from: DType, read: [i64; 3], to: DType, written: [i64; 3]) -> Traffic {
    let bytes = |dtype: DType, shape: [i64; 3]| {
        shape.iter().product::<i64>().unsigned_abs() * dtype.size_bytes() as u64
    };
    Traffic {
        read_bytes: bytes(from, read),
        written_bytes: bytes(to, written),
    }
}
