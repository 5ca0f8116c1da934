//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Rows that begin within a counter, longer than a tile with a rest, longer than a chunk, nothing.
const SHAPES: [&[i64]; 4] = [&[3, 7], &[3, 1157], &[1, 16_421], &[0, 8]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[64, 1024]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[8192, 4096]];

/// Additions, multiplications and operations on integers, of Philox four tenths of a counter's ten
/// rounds of ten.
const OPERATIONS: f64 = 28.0;

/// Seed, offset and p: an ordinary one; an offset within a counter, before a counter's low half
/// overflows, and a seed of 64 bits; nothing dropped; all.
const DRAWS: [(i64, i64, f64); 4] = [
    (1, 0, 0.1),
    (i64::MIN | 5, (1 << 34) - 41, 0.5),
    (7, 8, 0.0),
    (7, 8, 1.0),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &shape in shapes {
            for draw in DRAWS {
                // One shape has every draw.
                if draw != DRAWS[0] && (size != Size::Small || shape != SHAPES[1]) {
                    continue;
                }
                let name = format!("{dtype} {shape:?} of {draw:?}");
                let alone = move |n: &mut Numbers| call(n, dtype, shape, draw, None);
                cases.push(Case::new("dropout", &name, alone).operations(OPERATIONS, shape));
                for bias in [true, false] {
                    if bias || size == Size::Small {
                        let name = format!("{name}{}", if bias { ", biased" } else { "" });
                        let add = move |n: &mut Numbers| call(n, dtype, shape, draw, Some(bias));
                        let case = Case::new("bias_dropout_add", name, add);
                        cases.push(case.operations(OPERATIONS + 2.0, shape));
                    }
                }
            }
        }
        if size == Size::Small {
            let scalar = move |n: &mut Numbers| call(n, dtype, &[], DRAWS[0], None);
            cases.push(Case::new("dropout", format!("{dtype} []"), scalar));
        }
    }
    cases
}

/// `dropout`, or `bias_dropout_add` where it is told whether there is a bias.
fn call(
    numbers: &mut Numbers,
    dtype: DType,
    shape: &[i64],
    (seed, offset, p): (i64, i64, f64),
    add: Option<bool>,
) -> Result<HostCall> {
    let mut args = vec![vec![numbers.host(dtype, shape)?]];
    if let Some(bias) = add {
        let d = shape.split_at(shape.len() - 1).1;
        let bias = bias.then(|| numbers.host(dtype, d)).into_iter();
        args.push(vec![numbers.host(dtype, shape)?]);
        args.push(bias.collect::<Result<_>>()?);
    }
    args.push(vec![HostTensor::unwritten(dtype, shape)]);
    Ok(HostCall {
        args,
        attributes: vec![],
        scalars: vec![Attr::I64(seed), Attr::I64(offset), Attr::F64(p)],
    })
}
