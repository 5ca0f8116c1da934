//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const SCALE: f64 = 0.37;
const HIDDEN: f64 = f64::NEG_INFINITY;

/// A row, one column, rows shorter and longer than any vector or block, a batch, nothing.
const SHAPES: [&[i64]; 7] = [
    &[5],
    &[4, 1],
    &[3, 7],
    &[2, 3, 64],
    &[37, 129],
    &[2, 4099],
    &[0, 8],
];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[64, 1024]];
/// Beyond caches: as long as a context, as a vocabulary.
const LARGE: [&[i64]; 2] = [&[8192, 4096], &[512, 50257]];

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
            let call = move |n: &mut Numbers| Ok(softmax(n.host(dtype, shape)?, None, false));
            cases.push(Case::new("softmax", &name, call).operations(16.0, shape));
            let call = move |n: &mut Numbers| Ok(log_softmax(n.host(dtype, shape)?));
            cases.push(Case::new("log_softmax", &name, call).operations(16.0, shape));
            let call = move |n: &mut Numbers| backward(n, dtype, shape, false);
            cases.push(Case::new("softmax_backward", &name, call).operations(5.0, shape));
            let call = move |n: &mut Numbers| backward(n, dtype, shape, true);
            cases.push(Case::new("log_softmax_backward", &name, call).operations(16.0, shape));
        }
        if size == Size::Small {
            cases.extend(masked(dtype));
            cases.extend(special(dtype));
        }
    }
    cases
}

/// With masks, a row of which leaves nothing, and with `causal`, more queries than columns too.
fn masked(dtype: DType) -> Vec<Case> {
    let shapes: [&[i64]; 5] = [&[7], &[3, 40], &[2, 5, 70], &[2, 9, 5], &[3, 1100]];
    let mut cases = Vec::new();
    for shape in shapes {
        for (mask, causal) in [(true, false), (false, true), (true, true)] {
            let call = move |n: &mut Numbers| {
                let x = n.host(dtype, shape)?;
                let mask = if mask {
                    Some(hiding(n, dtype, shape)?)
                } else {
                    None
                };
                Ok(softmax(x, mask, causal))
            };
            let name = format!("{dtype} {shape:?}, mask {mask}, causal {causal}");
            cases.push(Case::new("softmax", name, call));
        }
    }
    cases
}

/// A mask that hides a third of the elements, and the whole second row where there is one.
fn hiding(numbers: &mut Numbers, dtype: DType, shape: &[i64]) -> Result<HostTensor> {
    let elements = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
    let d = usize::try_from(shape[shape.len() - 1]).unwrap_or(1);
    let values: Vec<f64> = (0..elements)
        .map(|index| match numbers.draw() {
            _ if index / d == 1 => HIDDEN,
            value if value < -0.4 => HIDDEN,
            value => value,
        })
        .collect();
    HostTensor::from_f64(dtype, shape, &values)
}

/// Rows that only the difference to the greatest element keeps finite, and some that nothing does.
fn special(dtype: DType) -> Vec<Case> {
    const ROWS: [&str; 9] = [
        "+-1e4",
        "one-hot",
        "half hidden",
        "hidden",
        "NaN",
        "infinity",
        "equal",
        "least",
        "one-hot after a block",
    ];
    let least = if dtype == DType::F16 {
        -65504.0
    } else {
        -3.38e38
    };
    let value = move |row: usize, column: usize| match row {
        0 => [1e4, -1e4, 9984.0][column % 3],
        1 if column == 33 => 200.0,
        8 if column == 1500 => 200.0,
        1 | 8 => -200.0,
        2 if column < 2048 => HIDDEN,
        3 => HIDDEN,
        4 if column == 2051 => f64::NAN,
        5 if column == 7 => f64::INFINITY,
        6 => -3.0,
        7 => least,
        _ => f64::from(u16::try_from(column % 7).unwrap_or(0)),
    };
    let x = move || {
        let values: Vec<f64> = (0..9 * 2053).map(|i| value(i / 2053, i % 2053)).collect();
        HostTensor::from_f64(dtype, &[9, 2053], &values)
    };
    let name = format!("{dtype}, rows {}", ROWS.join(", "));
    vec![
        Case::new("softmax", &name, move |_| Ok(softmax(x()?, None, false))),
        Case::new("log_softmax", name, move |_| Ok(log_softmax(x()?))),
    ]
}

fn softmax(x: HostTensor, mask: Option<HostTensor>, causal: bool) -> HostCall {
    let y = HostTensor::unwritten(x.dtype, &x.shape);
    HostCall {
        args: vec![vec![x], mask.into_iter().collect(), vec![y]],
        attributes: vec![Attr::Bool(causal)],
        scalars: vec![Attr::F64(if causal { -SCALE } else { SCALE })],
    }
}

fn log_softmax(x: HostTensor) -> HostCall {
    let y = HostTensor::unwritten(x.dtype, &x.shape);
    HostCall {
        args: vec![vec![x], vec![y]],
        attributes: vec![],
        scalars: vec![],
    }
}

/// With results as the forward pass gives them: rows that add up to 1, or their logarithms.
fn backward(numbers: &mut Numbers, dtype: DType, shape: &[i64], log: bool) -> Result<HostCall> {
    let dy = numbers.host(dtype, shape)?;
    let d = shape[shape.len() - 1].max(1);
    #[allow(clippy::cast_precision_loss, reason = "a row is far shorter than 2^53")]
    let share = 1.0 / d as f64;
    let y = numbers.host_of(dtype, shape, |v| {
        // The mean of exp(v) is near 1.6.
        let y = share * v.exp() / 1.6;
        if log { y.ln() } else { y }
    })?;
    Ok(HostCall {
        args: vec![vec![dy], vec![y], vec![HostTensor::unwritten(dtype, shape)]],
        attributes: vec![],
        scalars: if log { vec![] } else { vec![Attr::F64(SCALE)] },
    })
}
