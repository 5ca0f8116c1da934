//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const INDICES: [DType; 2] = [DType::I64, DType::I32];

/// A table `[V, D]` and the shape of the indices.
type Shape = ([i64; 2], &'static [i64]);

/// Widths around a vector and beyond a tile, one row, scalars, nothing.
const SHAPES: [Shape; 8] = [
    ([7, 5], &[]),
    ([1, 33], &[4]),
    ([50, 64], &[3, 11]),
    ([9, 1100], &[40]),
    ([600, 3], &[2, 3, 5]),
    ([5, 8], &[0]),
    ([0, 8], &[2]),
    ([4, 0], &[3]),
];
/// 256 KiB of f32 as the result.
const CACHED: Shape = ([512, 256], &[256]);
/// The vocabulary of GPT-2 and the tokens of eight sequences.
const LARGE: Shape = ([50257, 1024], &[8, 1024]);

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes = match size {
        Size::Small => SHAPES.to_vec(),
        Size::Cached => vec![CACHED],
        Size::Large => vec![LARGE],
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for of in INDICES {
            for &(table, shape) in &shapes {
                let (bad, measured) = (size == Size::Small, size != Size::Small);
                let name = format!("{dtype} {table:?} at {of} {shape:?}");
                let call = move |n: &mut Numbers| forward(n, dtype, of, (table, shape), bad);
                let case = Case::new("embedding", &name, call);
                cases.push(case.traffic(traffic(dtype, of, table, shape, false)));
                let call =
                    move |n: &mut Numbers| backward(n, dtype, of, (table, shape), bad, false);
                let case = Case::new("embedding_backward", &name, call);
                cases.push(case.traffic(traffic(dtype, of, table, shape, true)));
                if !measured {
                    let call =
                        move |n: &mut Numbers| backward(n, dtype, of, (table, shape), bad, true);
                    let name = format!("{name}, accumulated, with padding");
                    cases.push(Case::new("embedding_backward", name, call));
                }
            }
        }
    }
    cases
}

/// Forward reads and writes the rows of the indices; backward reads them, and writes the table.
fn traffic(dtype: DType, of: DType, table: [i64; 2], shape: &[i64], backward: bool) -> Traffic {
    let count: i64 = shape.iter().product();
    let bytes = |elements: i64, dtype: DType| elements.unsigned_abs() * dtype.size_bytes() as u64;
    let rows = bytes(count * table[1], dtype);
    Traffic {
        read_bytes: rows + bytes(count, of),
        written_bytes: if backward {
            bytes(table[0] * table[1], dtype)
        } else {
            rows
        },
    }
}

/// Indices, with some that are no rows where `bad`.
fn indices(n: &mut Numbers, of: DType, shape: &[i64], rows: i64, bad: bool) -> Result<HostTensor> {
    let drawn = n.integers(of, shape, rows)?;
    let mut values = drawn.to_f64()?;
    #[allow(clippy::cast_precision_loss, reason = "small integers")]
    if bad && values.len() > 8 {
        values[3] = -1.0;
        values[5] = rows as f64;
        values[7] = f64::from(i32::MAX);
    }
    HostTensor::from_f64(of, shape, &values)
}

fn forward(
    n: &mut Numbers,
    dtype: DType,
    of: DType,
    (table, shape): Shape,
    bad: bool,
) -> Result<HostCall> {
    let result: Vec<i64> = shape.iter().copied().chain([table[1]]).collect();
    Ok(HostCall {
        args: vec![
            vec![n.host(dtype, &table)?],
            vec![indices(n, of, shape, table[0], bad)?],
            vec![HostTensor::unwritten(dtype, &result)],
        ],
        attributes: vec![],
        scalars: vec![],
    })
}

fn backward(
    n: &mut Numbers,
    dtype: DType,
    of: DType,
    (table, shape): Shape,
    bad: bool,
    accumulate: bool,
) -> Result<HostCall> {
    let result: Vec<i64> = shape.iter().copied().chain([table[1]]).collect();
    let dy = n.host(dtype, &result)?;
    let indices = indices(n, of, shape, table[0], bad)?;
    let dweight = if accumulate {
        n.host(dtype, &table)?
    } else {
        HostTensor::unwritten(dtype, &table)
    };
    Ok(HostCall {
        args: vec![vec![dy], vec![indices], vec![dweight]],
        attributes: vec![],
        scalars: vec![
            Attr::I64(if accumulate { 2 } else { -1 }),
            Attr::Bool(accumulate),
        ],
    })
}
