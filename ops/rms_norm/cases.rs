//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const EPS: f64 = 1e-6;

/// A row, rows shorter and longer than any vector, a batch of more dimensions, nothing.
const SHAPES: [&[i64]; 6] = [&[5], &[3, 7], &[2, 3, 64], &[37, 129], &[2, 4099], &[0, 8]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[64, 1024]];
/// Beyond caches, with rows as long as a hidden state.
const LARGE: [&[i64]; 1] = [&[8192, 4096]];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &shape in shapes {
            let name = format!("{dtype} {shape:?}");
            let forward = move |n: &mut Numbers| forward(n.host(dtype, shape)?, n);
            cases.push(Case::new("rms_norm", &name, forward).operations(4.0, shape));
            let alone = move |n: &mut Numbers| backward(n, dtype, shape, false);
            let case = Case::new("rms_norm_backward", &name, alone);
            cases.push(case.operations(10.0, shape));
            for bias in [true, false] {
                if bias && size != Size::Small {
                    continue;
                }
                let name = format!("{name}{}", if bias { ", a bias" } else { "" });
                let add = move |n: &mut Numbers| add(n, dtype, shape, bias);
                cases.push(Case::new("add_rms_norm", name, add).operations(5.0, shape));
            }
            let behind = move |n: &mut Numbers| backward(n, dtype, shape, true);
            let case = Case::new("add_rms_norm_backward", &name, behind);
            cases.push(case.operations(11.0, shape));
        }
        if size == Size::Small {
            cases.push(Case::new(
                "rms_norm",
                format!("{dtype} [4, 40], a row of zeros, one of infinities, one with a NaN"),
                move |n| special(n, dtype),
            ));
        }
    }
    cases
}

fn forward(x: HostTensor, numbers: &mut Numbers) -> Result<HostCall> {
    let (dtype, shape) = (x.dtype, x.shape.clone());
    let (d, rows) = split(&shape);
    Ok(HostCall {
        args: vec![
            vec![x],
            vec![numbers.host(dtype, d)?],
            vec![HostTensor::unwritten(dtype, &shape)],
            vec![HostTensor::unwritten(DType::F32, rows)],
        ],
        attributes: vec![],
        scalars: vec![Attr::F64(EPS)],
    })
}

fn add(numbers: &mut Numbers, dtype: DType, shape: &[i64], bias: bool) -> Result<HostCall> {
    let (d, _) = split(shape);
    let mut call = forward(numbers.host(dtype, shape)?, numbers)?;
    let bias = bias.then(|| numbers.host(dtype, d)).into_iter();
    call.args.insert(1, vec![numbers.host(dtype, shape)?]);
    call.args.insert(2, bias.collect::<Result<_>>()?);
    call.args
        .insert(4, vec![HostTensor::unwritten(dtype, shape)]);
    Ok(call)
}

/// Rows that only `eps` or nothing keeps finite, between ordinary ones that must not notice.
fn special(numbers: &mut Numbers, dtype: DType) -> Result<HostCall> {
    let values: Vec<f64> = (0..160)
        .map(|index| match index / 40 {
            0 => 0.0,
            1 => f64::INFINITY,
            2 if index == 100 => f64::NAN,
            _ => numbers.draw(),
        })
        .collect();
    forward(HostTensor::from_f64(dtype, &[4, 40], &values)?, numbers)
}

/// With the `rstd` that the forward pass gives for `x`.
fn backward(numbers: &mut Numbers, dtype: DType, shape: &[i64], add: bool) -> Result<HostCall> {
    let (d, rows) = split(shape);
    let dy = numbers.host(dtype, shape)?;
    let x = numbers.host(dtype, shape)?;
    let width = usize::try_from(d[0]).unwrap_or(0).max(1);
    let rstd: Vec<f64> = x
        .to_f64()?
        .chunks_exact(width)
        .map(|row| {
            let squares = row.iter().map(|v| v * v);
            1.0 / (squares.clone().sum::<f64>() / squares.map(|_| 1.0).sum::<f64>() + EPS).sqrt()
        })
        .collect();
    let mut call = HostCall {
        args: vec![
            vec![dy],
            vec![x],
            vec![numbers.host(dtype, d)?],
            vec![HostTensor::from_f64(DType::F32, rows, &rstd)?],
            vec![HostTensor::unwritten(dtype, shape)],
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

/// `[D]` and `S...` of `[S..., D]`.
fn split(shape: &[i64]) -> (&[i64], &[i64]) {
    let (rows, d) = shape.split_at(shape.len().saturating_sub(1));
    (d, rows)
}
