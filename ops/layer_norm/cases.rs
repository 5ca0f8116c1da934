//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const EPS: f64 = 1e-5;

/// A row, rows shorter and longer than any vector, upstream's 384, longer than a block with a rest,
/// nothing.
const SHAPES: [&[i64]; 6] = [&[5], &[3, 7], &[2, 3, 64], &[33, 384], &[2, 4099], &[0, 8]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[64, 1024]];
/// Beyond caches, with rows as long as a hidden state.
const LARGE: [&[i64]; 1] = [&[8192, 4096]];

/// Which of the optional vectors a call has.
#[derive(Clone, Copy)]
struct With {
    name: &'static str,
    add_bias: bool,
    weight: bool,
    bias: bool,
}

const fn with(name: &'static str, add_bias: bool, weight: bool, bias: bool) -> With {
    With {
        name,
        add_bias,
        weight,
        bias,
    }
}

/// The usual ones first, which the large calls have.
const OPTIONAL: [With; 4] = [
    with("all of them", true, true, true),
    with("a weight", false, true, false),
    with("a bias", false, false, true),
    with("neither", false, false, false),
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
            for with in OPTIONAL {
                // Every shape has all of them, one shape every choice.
                if with.name == OPTIONAL[0].name || shape == SHAPES[1] {
                    cases.extend(calls(dtype, shape, with));
                }
            }
        }
        if size == Size::Small {
            for (name, of) in ROWS {
                let make = move |n: &mut Numbers| rows_of(n, dtype, of);
                let name = format!("{dtype} [3, 1100], {name}");
                cases.push(Case::new("layer_norm", name, make));
            }
        }
    }
    cases
}

/// A call of each op.
fn calls(dtype: DType, shape: &'static [i64], with: With) -> [Case; 4] {
    let name = format!("{dtype} {shape:?}, {}", with.name);
    let forward = move |n: &mut Numbers| forward(n.host(dtype, shape)?, n, with);
    let add = move |n: &mut Numbers| add(n, dtype, shape, with);
    let alone = move |n: &mut Numbers| backward(n, dtype, shape, with, false);
    let behind = move |n: &mut Numbers| backward(n, dtype, shape, with, true);
    [
        Case::new("layer_norm", &name, forward).operations(8.0, shape),
        Case::new("add_layer_norm", &name, add).operations(10.0, shape),
        Case::new("layer_norm_backward", &name, alone).operations(16.0, shape),
        Case::new("add_layer_norm_backward", &name, behind).operations(17.0, shape),
    ]
}

/// What an element of a row is, by the row, the column and a number around zero.
type Of = fn(usize, usize, f64) -> f64;

/// Rows that a sum of values or of squares gets wrong.
const ROWS: [(&str, Of); 4] = [
    ("far from zero", |row, _, number| {
        [1e4, -300.0, 0.0][row] + number
    }),
    ("one element far from all others", |row, column, number| {
        let at = [0, 40, 1099][row];
        if column == at { 6e4 } else { number }
    }),
    ("all elements equal", |row, _, _| [0.0, 1e4, -3.0][row]),
    ("an infinity, a NaN", |row, column, number| {
        let last = column == 1099;
        match row {
            0 if last => f64::INFINITY,
            1 if last => f64::NAN,
            _ => number,
        }
    }),
];

fn rows_of(numbers: &mut Numbers, dtype: DType, of: Of) -> Result<HostCall> {
    let values: Vec<f64> = (0..3 * 1100)
        .map(|index| of(index / 1100, index % 1100, numbers.draw()))
        .collect();
    let x = HostTensor::from_f64(dtype, &[3, 1100], &values)?;
    forward(x, numbers, OPTIONAL[3])
}

fn forward(x: HostTensor, numbers: &mut Numbers, with: With) -> Result<HostCall> {
    let (dtype, shape) = (x.dtype, x.shape.clone());
    let (d, rows) = split(&shape);
    Ok(HostCall {
        args: vec![
            vec![x],
            optional(numbers, dtype, d, with.weight)?,
            optional(numbers, dtype, d, with.bias)?,
            vec![HostTensor::unwritten(dtype, &shape)],
            vec![HostTensor::unwritten(DType::F32, rows)],
            vec![HostTensor::unwritten(DType::F32, rows)],
        ],
        attributes: vec![],
        scalars: vec![Attr::F64(EPS)],
    })
}

fn add(numbers: &mut Numbers, dtype: DType, shape: &[i64], with: With) -> Result<HostCall> {
    let (d, _) = split(shape);
    let mut call = forward(numbers.host(dtype, shape)?, numbers, with)?;
    call.args.insert(1, vec![numbers.host(dtype, shape)?]);
    call.args
        .insert(2, optional(numbers, dtype, d, with.add_bias)?);
    call.args
        .insert(5, vec![HostTensor::unwritten(dtype, shape)]);
    Ok(call)
}

/// With the `mean` and `rstd` that the forward pass gives for `x`.
fn backward(
    numbers: &mut Numbers,
    dtype: DType,
    shape: &[i64],
    with: With,
    add: bool,
) -> Result<HostCall> {
    let (d, rows) = split(shape);
    let x = numbers.host(dtype, shape)?;
    let width = usize::try_from(d[0]).unwrap_or(0).max(1);
    let (mut mean, mut rstd) = (Vec::new(), Vec::new());
    for row in x.to_f64()?.chunks_exact(width) {
        let count = row.iter().map(|_| 1.0).sum::<f64>();
        let middle = row.iter().sum::<f64>() / count;
        let variance = row.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / count;
        mean.push(middle);
        rstd.push(1.0 / (variance + EPS).sqrt());
    }
    let mut call = HostCall {
        args: vec![
            vec![numbers.host(dtype, shape)?],
            vec![x],
            optional(numbers, dtype, d, with.weight)?,
            vec![HostTensor::from_f64(DType::F32, rows, &mean)?],
            vec![HostTensor::from_f64(DType::F32, rows, &rstd)?],
            vec![HostTensor::unwritten(dtype, shape)],
            vec![HostTensor::unwritten(dtype, d)],
            vec![HostTensor::unwritten(dtype, d)],
        ],
        attributes: vec![],
        scalars: vec![],
    };
    if add {
        call.args.insert(1, vec![numbers.host(dtype, shape)?]);
    }
    Ok(call)
}

fn optional(
    numbers: &mut Numbers,
    dtype: DType,
    shape: &[i64],
    is_there: bool,
) -> Result<Vec<HostTensor>> {
    is_there
        .then(|| numbers.host(dtype, shape))
        .into_iter()
        .collect()
}

/// `[D]` and `S...` of `[S..., D]`.
fn split(shape: &[i64]) -> (&[i64], &[i64]) {
    let (rows, d) = shape.split_at(shape.len().saturating_sub(1));
    (d, rows)
}
