//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const IGNORED: i64 = -100;
/// Calls of fewer rows are there to verify.
const MEASURED_ROWS: i64 = 64;

/// One class, one row, classes fewer and more than any vector or block, nothing.
const SHAPES: [[i64; 2]; 6] = [[3, 1], [1, 5], [9, 37], [5, 1030], [4, 4099], [0, 8]];
/// 256 KiB of f32.
const CACHED: [i64; 2] = [64, 1024];
/// The logits of a sequence over the vocabulary of GPT-2; half of it suffices for half types.
const LARGE: [i64; 2] = [4096, 50257];
const LARGE_HALF: [i64; 2] = [2048, 50257];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES {
        let shapes = match size {
            Size::Small => SHAPES.to_vec(),
            Size::Cached => vec![CACHED],
            Size::Large if dtype == DType::F32 => vec![LARGE],
            Size::Large => vec![LARGE_HALF],
        };
        for shape in shapes {
            cases.extend(usual(dtype, shape, 0.0));
            if size == Size::Small {
                cases.extend(usual(dtype, shape, 0.1));
            }
        }
        if size == Size::Small {
            cases.extend(tiles(dtype));
            cases.extend(special(dtype));
        }
    }
    cases.extend(of_rows(size));
    cases
}

/// The passes over whole logits, and over them as a tile.
fn usual(dtype: DType, shape: [i64; 2], smoothing: f64) -> Vec<Case> {
    let name = format!("{dtype} {shape:?}, smoothing {smoothing}");
    let forward = move |n: &mut Numbers| {
        let logits = n.host(dtype, &shape)?;
        Ok(forward(logits, targets(n, shape[0], shape[1])?, smoothing))
    };
    let gradient = move |n: &mut Numbers| backward(n, dtype, shape, (0, shape[1]), smoothing);
    let mut cases = vec![
        Case::new("cross_entropy", &name, forward).operations(16.0, &shape),
        Case::new("cross_entropy_backward", &name, gradient).operations(14.0, &shape),
    ];
    if smoothing == 0.0 {
        let tile = move |n: &mut Numbers| tile(n, dtype, shape, 0, true);
        cases.push(Case::new("cross_entropy_tile", name, tile).operations(16.0, &shape));
    }
    cases
}

/// Tiles in the middle of a vocabulary, to which some targets do not belong.
fn tiles(dtype: DType) -> Vec<Case> {
    let shape = [12, 45];
    [(90, false), (90, true), (0, false)]
        .into_iter()
        .flat_map(|(offset, first)| {
            let name = format!("{dtype} {shape:?} from {offset} of 300, first {first}");
            let add = move |n: &mut Numbers| tile(n, dtype, shape, offset, first);
            let gradient = move |n: &mut Numbers| backward(n, dtype, shape, (offset, 300), 0.2);
            let mut cases = vec![Case::new("cross_entropy_tile", &name, add)];
            if !first {
                cases.push(Case::new("cross_entropy_backward", name, gradient));
            }
            cases
        })
        .collect()
}

/// Logits that only differences keep finite, and some that nothing does.
fn special(dtype: DType) -> Vec<Case> {
    let value = |row: i64, column: i64| match row {
        0 => [1e4, -1e4, 9984.0][usize::try_from(column % 3).unwrap_or(0)],
        1 => [200.0, -200.0][usize::from(column != 33)],
        2 => [f64::NEG_INFINITY, 1.0][usize::from(column >= 1024)],
        3 => f64::NEG_INFINITY,
        4 if column == 1090 => f64::NAN,
        5 if column == 7 => f64::INFINITY,
        _ => -3.0,
    };
    let logits = move || {
        let index = (0..7).flat_map(|row| (0..1100).map(move |column| (row, column)));
        let values: Vec<f64> = index.map(|(row, column)| value(row, column)).collect();
        HostTensor::from_f64(dtype, &[7, 1100], &values)
    };
    let classes =
        || HostTensor::from_f64(DType::I64, &[7], &[1.0, 33.0, 1099.0, 5.0, 0.0, 0.0, 9.0]);
    let name = format!("{dtype}, rows +-1e4, one-hot, half hidden, hidden, NaN, infinity, equal");
    let whole = move |_: &mut Numbers| Ok(forward(logits()?, classes()?, 0.0));
    let tile = move |_: &mut Numbers| {
        let state = HostTensor::unwritten(DType::F32, &[7, 4]);
        Ok(HostCall {
            args: vec![vec![logits()?], vec![classes()?], vec![state]],
            attributes: vec![],
            scalars: vec![Attr::I64(0), Attr::Bool(true)],
        })
    };
    let gradient = move |_: &mut Numbers| {
        let lse = [
            1e4 + 5.9,
            200.0,
            5.3,
            f64::NEG_INFINITY,
            f64::NAN,
            f64::NAN,
            4.0,
        ];
        let lse = HostTensor::from_f64(DType::F32, &[7], &lse)?;
        let ones = HostTensor::from_f64(DType::F32, &[7], &[1.0; 7])?;
        Ok(gradient(ones, logits()?, classes()?, lse, (0, 1100), 0.0))
    };
    vec![
        Case::new("cross_entropy", &name, whole),
        Case::new("cross_entropy_tile", &name, tile),
        Case::new("cross_entropy_backward", name, gradient),
    ]
}

/// What no logits enter.
fn of_rows(size: Size) -> Vec<Case> {
    let shapes: &[[i64; 2]] = match size {
        Size::Small => &[[1, 1], [3, 37], [2, 50], [1, 33001], [4, 0], [0, 5]],
        Size::Cached => &[[2, 8192]],
        Size::Large => &[[4, 1 << 21]],
    };
    let mut cases = Vec::new();
    for &[parts, rows] in shapes {
        let name = format!("{parts} parts of {rows} rows");
        let call = move |n: &mut Numbers| finish(n, parts, rows);
        cases.push(Case::new("cross_entropy_finish", name, call));
        let call = move |n: &mut Numbers| mean(n, rows, false);
        cases.push(Case::new(
            "cross_entropy_mean",
            format!("{rows} rows, {parts}"),
            call,
        ));
    }
    if size == Size::Small {
        let call = move |n: &mut Numbers| mean(n, 5, true);
        cases.push(Case::new("cross_entropy_mean", "5 rows, all ignored", call));
    }
    cases
}

/// Classes; in small calls some are ignored or none, which peers refuse.
fn targets(numbers: &mut Numbers, rows: i64, classes: i64) -> Result<HostTensor> {
    let drawn = numbers.integers(DType::I64, &[rows], classes)?;
    if rows >= MEASURED_ROWS {
        return Ok(drawn);
    }
    let mut classes = drawn.to_f64()?;
    let bad = [(5, IGNORED), (7, -1), (8, 1 << 40)];
    #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
    for (row, target) in bad {
        if let Some(class) = classes.get_mut(row) {
            *class = target as f64;
        }
    }
    HostTensor::from_f64(DType::I64, &[rows], &classes)
}

fn forward(logits: HostTensor, targets: HostTensor, smoothing: f64) -> HostCall {
    let rows = || HostTensor::unwritten(DType::F32, &targets.shape);
    let (loss, lse) = (rows(), rows());
    HostCall {
        args: vec![vec![logits], vec![targets], vec![loss], vec![lse]],
        attributes: vec![],
        scalars: vec![Attr::I64(IGNORED), Attr::F64(smoothing)],
    }
}

fn tile(
    n: &mut Numbers,
    dtype: DType,
    shape: [i64; 2],
    offset: i64,
    first: bool,
) -> Result<HostCall> {
    let logits = n.host(dtype, &shape)?;
    let targets = targets(n, shape[0], 300)?;
    let state = if first {
        HostTensor::unwritten(DType::F32, &[shape[0], 4])
    } else {
        // Of a tile before: positive sums, and logits of about unit scale.
        n.host_of(DType::F32, &[shape[0], 4], |v| v.abs() + 0.5)?
    };
    Ok(HostCall {
        args: vec![vec![logits], vec![targets], vec![state]],
        attributes: vec![],
        scalars: vec![Attr::I64(offset), Attr::Bool(first)],
    })
}

/// Over classes from `part.0` of `part.1`, with an `lse` as logits of unit scale give it.
#[allow(
    clippy::cast_precision_loss,
    reason = "there are fewer than 2^53 classes"
)]
fn backward(
    n: &mut Numbers,
    dtype: DType,
    shape: [i64; 2],
    part: (i64, i64),
    smoothing: f64,
) -> Result<HostCall> {
    let dloss = n.host(DType::F32, &shape[..1])?;
    let logits = n.host(dtype, &shape)?;
    let targets = targets(n, shape[0], part.1)?;
    let lse = n.host_of(DType::F32, &shape[..1], |v| {
        (part.1 as f64).ln() + 0.5 + 0.1 * v
    })?;
    Ok(gradient(dloss, logits, targets, lse, part, smoothing))
}

fn gradient(
    dloss: HostTensor,
    logits: HostTensor,
    targets: HostTensor,
    lse: HostTensor,
    part: (i64, i64),
    smoothing: f64,
) -> HostCall {
    let dlogits = HostTensor::unwritten(logits.dtype, &logits.shape);
    HostCall {
        args: vec![
            vec![dloss],
            vec![logits],
            vec![targets],
            vec![lse],
            vec![dlogits],
        ],
        attributes: vec![],
        scalars: vec![
            Attr::I64(part.1),
            Attr::I64(part.0),
            Attr::I64(IGNORED),
            Attr::F64(smoothing),
            Attr::F64(1.7),
        ],
    }
}

fn finish(numbers: &mut Numbers, parts: i64, rows: i64) -> Result<HostCall> {
    let states = numbers.host_of(DType::F32, &[parts, rows, 4], |v| v.abs() + 0.5)?;
    let targets = targets(numbers, rows, 1000)?;
    let one = || HostTensor::unwritten(DType::F32, &[rows]);
    let (loss, lse) = (one(), one());
    Ok(HostCall {
        args: vec![vec![states], vec![targets], vec![loss], vec![lse]],
        attributes: vec![],
        scalars: vec![Attr::I64(1000), Attr::I64(IGNORED), Attr::F64(0.1)],
    })
}

fn mean(numbers: &mut Numbers, rows: i64, ignored: bool) -> Result<HostCall> {
    let loss = numbers.host_of(DType::F32, &[rows], f64::abs)?;
    let targets = targets(numbers, rows, 1000)?;
    let one = || HostTensor::unwritten(DType::F32, &[]);
    let ignore_index = if ignored { 0 } else { IGNORED };
    let targets = if ignored {
        HostTensor::from_f64(DType::I64, &[rows], &targets.zeros())?
    } else {
        targets
    };
    Ok(HostCall {
        args: vec![vec![loss], vec![targets], vec![one()], vec![one()]],
        attributes: vec![],
        scalars: vec![Attr::I64(ignore_index)],
    })
}
