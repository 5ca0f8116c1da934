//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// A call: the shape of `x`, positions and points of the tables, and the rest.
#[derive(Clone, Copy)]
struct Call {
    shape: [i64; 4],
    tables: [i64; 2],
    positions: Option<DType>,
    offset: i64,
    inverse: bool,
    interleaved: bool,
}

/// Heads turned whole and in part, points around vectors of every width, nothing.
const SHAPES: [([i64; 4], i64); 7] = [
    ([2, 5, 3, 64], 32),
    ([1, 7, 2, 80], 40),
    ([2, 3, 1, 9], 3),
    ([1, 2, 2, 131], 17),
    ([1, 4, 1, 4], 0),
    ([0, 4, 1, 8], 4),
    ([2, 3, 0, 8], 4),
];
/// 256 KiB of f32.
const CACHED: [i64; 4] = [1, 64, 8, 128];
/// Beyond caches, as the queries of Llama.
const LARGE: [i64; 4] = [4, 2048, 32, 128];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut calls = Vec::new();
    for interleaved in [false, true] {
        let usual = |shape: [i64; 4], points| Call {
            shape,
            tables: [shape[1], points],
            positions: None,
            offset: 0,
            inverse: false,
            interleaved,
        };
        match size {
            Size::Small => {
                for (shape, points) in SHAPES {
                    let call = usual(shape, points);
                    calls.push(call);
                    let inverse = true;
                    for positions in [DType::I64, DType::I32] {
                        let positions = Some(positions);
                        calls.push(Call {
                            positions,
                            inverse,
                            tables: [30, points],
                            ..call
                        });
                    }
                    // The first token stands before the tables.
                    calls.push(Call { offset: -1, ..call });
                }
            }
            Size::Cached => calls.push(usual(CACHED, CACHED[3] / 2)),
            Size::Large => calls.push(usual(LARGE, LARGE[3] / 2)),
        }
    }
    let case = |(dtype, call): (DType, Call)| {
        let Call {
            shape,
            tables,
            positions,
            offset,
            inverse,
            interleaved,
        } = call;
        let name = format!(
            "{dtype} {shape:?}, tables {tables:?}, positions {positions:?} + {offset}, \
             inverse {inverse}, interleaved {interleaved}"
        );
        let case = Case::new("rope", name, move |n| make(n, dtype, call));
        case.operations(3.0, &shape)
    };
    let each = DTYPES
        .into_iter()
        .flat_map(|dtype| calls.iter().map(move |call| (dtype, *call)));
    each.map(case).collect()
}

fn make(numbers: &mut Numbers, dtype: DType, call: Call) -> Result<HostCall> {
    let x = numbers.host(dtype, &call.shape)?;
    let angles = numbers
        .host_of(DType::F64, &call.tables, |v| 3.0 * v)?
        .to_f64()?;
    let table = |of: fn(f64) -> f64| {
        let values: Vec<f64> = angles.iter().map(|&angle| of(angle)).collect();
        HostTensor::from_f64(DType::F32, &call.tables, &values)
    };
    // Four more than the tables have: some tokens have no angles.
    let mut drawn = |of| numbers.integers(of, &call.shape[..2], call.tables[0] + 4);
    let positions = call
        .positions
        .map(&mut drawn)
        .into_iter()
        .collect::<Result<_>>()?;
    Ok(HostCall {
        args: vec![
            vec![x],
            vec![table(f64::cos)?],
            vec![table(f64::sin)?],
            positions,
            vec![HostTensor::unwritten(dtype, &call.shape)],
        ],
        attributes: vec![Attr::Bool(call.interleaved)],
        scalars: vec![Attr::I64(call.offset), Attr::Bool(call.inverse)],
    })
}
