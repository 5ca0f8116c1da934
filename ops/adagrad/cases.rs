//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

use crate::lists::{PAIRS, elements, flag, list, shapes};

/// Of a step, for each element: a square root and a division among them.
const OPERATIONS: f64 = 8.0;

/// Weight decay, and the flag on the device. The first is the one that is measured.
const MODES: [(&str, f64, Option<f64>); 4] = [
    ("", 0.1, None),
    (", no decay", 0.0, None),
    (", found_inf is 0", 0.1, Some(0.0)),
    (", found_inf is 1", 0.1, Some(1.0)),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for pair in PAIRS {
        dense(&mut cases, size, pair);
        for index in [DType::I64, DType::I32] {
            // A measured call hangs on the index's dtype little: one pair has both.
            if size != Size::Small && index == DType::I32 && pair != PAIRS[0] {
                continue;
            }
            match size {
                Size::Small => small(&mut cases, pair, index),
                Size::Cached => measured(&mut cases, pair, index, [256, 64, 128]),
                Size::Large => measured(&mut cases, pair, index, [16384, 8192, 1024]),
            }
        }
    }
    cases
}

fn dense(cases: &mut Vec<Case>, size: Size, (param, sum): (DType, DType)) {
    let modes = if size == Size::Small { MODES.len() } else { 1 };
    for &(words, shapes) in shapes(size) {
        for (mode, weight_decay, found_inf) in MODES[..modes].iter().copied() {
            let name = format!("{param} with {sum} sums, {words}{mode}");
            let case = Case::new("adagrad_step", name, move |n| {
                Ok(HostCall {
                    args: vec![
                        list(n, param, shapes, |v| v)?,
                        list(n, param, shapes, |v| v)?,
                        list(n, sum, shapes, |v| v * v)?,
                        flag(found_inf)?,
                    ],
                    attributes: vec![],
                    scalars: scalars(weight_decay),
                })
            });
            cases.push(case.operations(OPERATIONS, &elements(shapes)));
        }
    }
}

/// Rows that come once, of an embedding of `r` rows.
fn measured(
    cases: &mut Vec<Case>,
    (param, sum): (DType, DType),
    index: DType,
    [r, n, d]: [i64; 3],
) {
    let name = format!("{n} of {r} rows of {d}, {param} with {sum} sums, {index}");
    // An odd factor meets every row of a power of two once.
    let make = move |numbers: &mut Numbers| {
        let rows: Vec<f64> = (0..n).map(|i| as_f64(i * 40_503 % r)).collect();
        rows_call(numbers, (param, sum), index, (r, d), &rows, |v| v, MODES[0])
    };
    let bytes = |elements: i64, dtype: DType| elements.unsigned_abs() * dtype.size_bytes() as u64;
    let written_bytes = bytes(n * d, param) + bytes(n * d, sum);
    let traffic = Traffic {
        read_bytes: written_bytes + bytes(n * d, param) + bytes(n, index),
        written_bytes,
    };
    let case = Case::new("adagrad_step_sparse", name, make);
    cases.push(case.operations(OPERATIONS, &[n, d]).traffic(traffic));
}

fn small(cases: &mut Vec<Case>, pair: (DType, DType), index: DType) {
    let mut add = |words: &str, (r, d), rows: Vec<f64>, of: fn(f64) -> f64, mode: Mode| {
        let name = format!(
            "{words}{}, {} with {} sums, {index}",
            mode.0, pair.0, pair.1
        );
        cases.push(Case::new("adagrad_step_sparse", name, move |n| {
            rows_call(n, pair, index, (r, d), &rows, of, mode)
        }));
    };
    let same = |v| v;
    for mode in MODES {
        let rows = vec![4.0, 2.0, 4.0, 0.0, -1.0, 7.0, 4.0];
        add("rows again, and none", (7, 37), rows, same, mode);
    }
    let all: Vec<f64> = (0..300).map(|i| as_f64(i * 7 % 300)).collect();
    add("every row", (300, 3), all, same, MODES[0]);
    // Sums of one sign, which are known to the last bit but one.
    add(
        "one row 3000 times",
        (5, 5),
        vec![3.0; 3000],
        f64::abs,
        MODES[0],
    );
    add("no index", (5, 8), vec![], same, MODES[0]);
    add("no column", (5, 0), vec![1.0], same, MODES[0]);
    add("no row", (0, 8), vec![0.0, 1.0], same, MODES[0]);
    let far = vec![f64::from(i32::MAX), f64::from(i32::MIN), 1.0];
    add("indices far off", (5, 8), far, same, MODES[0]);
    let mut wide = vec![1.0, 0.0, 1.0];
    wide.resize(40, 1.0);
    add(
        "a row longer than a chunk",
        (2, 17_000),
        wide,
        f64::abs,
        MODES[0],
    );
}

type Mode = (&'static str, f64, Option<f64>);

fn rows_call(
    numbers: &mut Numbers,
    (param, sum): (DType, DType),
    index: DType,
    (r, d): (i64, i64),
    rows: &[f64],
    of: fn(f64) -> f64,
    (_, weight_decay, found_inf): Mode,
) -> Result<HostCall> {
    let n = i64::try_from(rows.len()).unwrap_or(0);
    Ok(HostCall {
        args: vec![
            vec![numbers.host(param, &[r, d])?],
            vec![HostTensor::from_f64(index, &[n], rows)?],
            vec![numbers.host_of(param, &[n, d], of)?],
            vec![numbers.host_of(sum, &[r, d], |v| v * v)?],
            flag(found_inf)?,
        ],
        attributes: vec![],
        scalars: scalars(weight_decay),
    })
}

fn scalars(weight_decay: f64) -> Vec<Attr> {
    [1e-2, 1e-10, weight_decay].map(Attr::F64).to_vec()
}

#[allow(clippy::cast_precision_loss, reason = "rows are few")]
fn as_f64(row: i64) -> f64 {
    row as f64
}
