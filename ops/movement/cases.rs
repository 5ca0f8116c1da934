//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const SELECTED: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64];
const COPIED: [DType; 10] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::Bool,
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    copies(&mut cases, size);
    rows(&mut cases, size);
    greatest(&mut cases, size);
    cases
}

/// Contiguous ones have one dimension, those of a transposed tensor more: so does the peer tell them.
fn copies(cases: &mut Vec<Case>, size: Size) {
    let (contiguous, transposed): (&[&[i64]], &[&[i64]]) = match size {
        Size::Small => (
            &[&[], &[16_384 + 1003], &[0]],
            &[&[3, 7], &[2, 130, 37], &[64, 64], &[300, 5], &[3, 0]],
        ),
        Size::Cached => (&[&[1 << 16]], &[&[256, 256]]),
        Size::Large => (&[&[1 << 25]], &[&[4096, 8192]]),
    };
    for dtype in COPIED {
        let make = |shape: &'static [i64]| {
            move |n: &mut Numbers| {
                let x = numbers(n, dtype, shape)?;
                Ok(call(vec![x, HostTensor::unwritten(dtype, shape)]))
            }
        };
        let is_measured = size == Size::Small || dtype == DType::F32 || dtype == DType::BF16;
        for &shape in contiguous.iter().filter(|_| is_measured) {
            cases.push(Case::new("copy", format!("{dtype} {shape:?}"), make(shape)));
        }
        for &shape in transposed {
            let name = format!("{dtype} {shape:?} transposed");
            cases.push(Case::new("copy", &name, make(shape)).transposed(&[0]));
            if size == Size::Small {
                let name = format!("{dtype} {shape:?} to transposed");
                cases.push(Case::new("copy", &name, make(shape)).transposed(&[1]));
            }
        }
    }
}

/// Rows, indices and a row's shape.
fn rows(cases: &mut Vec<Case>, size: Size) {
    let shapes: &[(i64, i64, &[i64])] = match size {
        Size::Small => &[
            (7, 20, &[5]),
            (3, 4, &[2, 33]),
            (40, 9, &[]),
            (5, 0, &[8]),
            (0, 3, &[4]),
            (5, 300, &[1003]),
        ],
        Size::Cached => &[(256, 128, &[256])],
        // An embedding of a vocabulary of 32000.
        Size::Large => &[(32_000, 16_384, &[2048])],
    };
    for &(count, chosen, row) in shapes {
        let of = move |rows: i64| [&[rows], row].concat();
        for index in [DType::I64, DType::I32] {
            for dtype in SELECTED {
                if size != Size::Small && index == DType::I32 && dtype != DType::F32 {
                    continue;
                }
                let name = format!("{dtype} {:?} by {index} [{chosen}]", of(count));
                let size_bytes = dtype.size_bytes() as u64;
                let moved = of(chosen).iter().product::<i64>().unsigned_abs();
                let bytes = moved * size_bytes;
                let make = move |n: &mut Numbers| {
                    let x = numbers(n, dtype, &of(count))?;
                    let index = indices(n, index, chosen, count)?;
                    Ok(call(vec![
                        x,
                        index,
                        HostTensor::unwritten(dtype, &of(chosen)),
                    ]))
                };
                cases.push(Case::new("index_select", &name, make).traffic(Traffic {
                    read_bytes: bytes,
                    written_bytes: bytes,
                }));
                if !FLOATS.contains(&dtype) {
                    continue;
                }
                let make = move |n: &mut Numbers| {
                    let y = numbers(n, DType::F32, &of(count))?;
                    let index = indices(n, index, chosen, count)?;
                    Ok(call(vec![y, index, numbers(n, dtype, &of(chosen))?]))
                };
                let case = Case::new("scatter_add", &name, make).traffic(Traffic {
                    read_bytes: bytes + 4 * moved,
                    written_bytes: 4 * moved,
                });
                cases.push(case.operations(1.0, &of(chosen)));
            }
        }
    }
}

/// Shapes with how many are kept.
fn greatest(cases: &mut Vec<Case>, size: Size) {
    let shapes: &[(&[i64], i64)] = match size {
        Size::Small => &[
            (&[5], 2),
            (&[3, 7], 7),
            (&[2, 3, 64], 8),
            (&[37, 129], 1),
            (&[2, 5000], 1000),
            (&[4, 3], 5),
            (&[4, 3], 0),
            (&[2, 0], 2),
        ],
        // A gate of 64 experts.
        Size::Cached => &[(&[1024, 64], 8)],
        // Logits of a vocabulary of 128 Ki.
        Size::Large => &[(&[256, 1 << 17], 50)],
    };
    for dtype in FLOATS {
        for &(shape, k) in shapes {
            // Few values, so that many are equal.
            let name = format!("{dtype} {shape:?} k {k}");
            let make = move |n: &mut Numbers| {
                let x = n.host_of(dtype, shape, |value| (value * 64.0).round() / 64.0)?;
                Ok(kept(x, k))
            };
            cases.push(Case::new("top_k", name, make).operations(1.0, shape));
        }
        if size != Size::Small {
            continue;
        }
        for width in [40, 400] {
            let name = format!("{dtype} [3, {width}] k 9, zeros, infinities, NaN");
            cases.push(Case::new("top_k", name, move |n| {
                let values: Vec<f64> = (0..3 * width)
                    .map(|index| match (index / width, index % width) {
                        (0, column) => [0.0, -0.0][column % 2],
                        (1, 3 | 17 | 33) => f64::NAN,
                        (1, 5) => f64::INFINITY,
                        (2, _) => f64::NEG_INFINITY,
                        _ => n.draw(),
                    })
                    .collect();
                let shape = [3, i64::try_from(width).unwrap_or(0)];
                Ok(kept(HostTensor::from_f64(dtype, &shape, &values)?, 9))
            }));
        }
    }
}

fn kept(x: HostTensor, k: i64) -> HostCall {
    let mut shape = x.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = k;
    }
    let values = HostTensor::unwritten(x.dtype, &shape);
    let indices = HostTensor::unwritten(DType::I64, &shape);
    call(vec![x, values, indices])
}

fn call(args: Vec<HostTensor>) -> HostCall {
    HostCall {
        args: args.into_iter().map(|tensor| vec![tensor]).collect(),
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

/// Some indices come again; of a few, the last two are none of the rows.
fn indices(numbers: &mut Numbers, dtype: DType, count: i64, rows: i64) -> Result<HostTensor> {
    let mut values = numbers.integers(dtype, &[count], rows)?.to_f64()?;
    if let [.., before, last] = values.as_mut_slice()
        && count < 100
    {
        (*before, *last) = (-1.0, f64::from(i32::MAX));
    }
    HostTensor::from_f64(dtype, &[count], &values)
}
