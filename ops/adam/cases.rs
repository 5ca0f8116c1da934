//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

use crate::lists::{PAIRS, elements, flag, list, shapes};

/// Of a step, for each element: a square root and a division among them.
const OPERATIONS: f64 = 14.0;

/// What tells one step from another.
#[derive(Clone, Copy)]
struct Mode {
    adamw: bool,
    bias_correction: bool,
    step: i64,
    /// The flag on the device; none is passed in most calls.
    found_inf: Option<f64>,
}

impl Mode {
    const USUAL: Self = Self {
        adamw: true,
        bias_correction: true,
        step: 1,
        found_inf: None,
    };

    /// Every attribute and both states of the flag, at the first step and at a late one, when the
    /// bias corrections have gone.
    const ALL: [(&'static str, Self); 7] = [
        ("AdamW", Self::USUAL),
        (
            "AdamW, step 100000",
            Self {
                step: 100_000,
                ..Self::USUAL
            },
        ),
        (
            "Adam",
            Self {
                adamw: false,
                ..Self::USUAL
            },
        ),
        (
            "AdamW, no bias correction",
            Self {
                bias_correction: false,
                ..Self::USUAL
            },
        ),
        (
            "Adam, no bias correction",
            Self {
                adamw: false,
                bias_correction: false,
                ..Self::USUAL
            },
        ),
        (
            "AdamW, found_inf is 0",
            Self {
                found_inf: Some(0.0),
                ..Self::USUAL
            },
        ),
        (
            "AdamW, found_inf is 1",
            Self {
                found_inf: Some(1.0),
                ..Self::USUAL
            },
        ),
    ];
}

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    let modes = if size == Size::Small {
        Mode::ALL.len()
    } else {
        1
    };
    for (param, state) in PAIRS {
        for &(words, shapes) in shapes(size) {
            for &(mode_words, mode) in &Mode::ALL[..modes] {
                let name = format!("{param} with {state} states, {words}, {mode_words}");
                let mut add = |op, name: &str| {
                    let make = move |n: &mut Numbers| call(n, (param, state), mode, shapes);
                    let case = Case::new(op, name, make);
                    cases.push(case.operations(OPERATIONS, &elements(shapes)));
                };
                add("adam_step", &name);
                if (param, state) == (DType::F32, DType::F32) {
                    add("adam_rollback", &name);
                }
            }
        }
        if size == Size::Small && (param, state) == (DType::F32, DType::F32) {
            cases.push(Case::new("adam_rollback", "what is not finite", |_| lost()));
        }
    }
    cases
}

/// Parameters that cannot come back, and second moments that rounding would make negative.
fn lost() -> Result<HostCall> {
    let one = |v: [f64; 5]| HostTensor::from_f64(DType::F32, &[5], &v).map(|t| vec![t]);
    let args = vec![
        one([f64::INFINITY, f64::NAN, 1.0, 1.0, -3e38])?,
        one([1.0, 1.0, 1.0, 0.0, 1.0])?,
        one([1.0, 1.0, 1.0, f64::NAN, 1.0])?,
        one([1.0, 1.0, 0.000_999, 1.0, 1e-30])?,
        vec![],
    ];
    Ok(with_mode(args, Mode::USUAL))
}

fn call(
    numbers: &mut Numbers,
    (param, state): (DType, DType),
    mode: Mode,
    shapes: &[&[i64]],
) -> Result<HostCall> {
    let args = vec![
        list(numbers, param, shapes, |v| v)?,
        list(numbers, param, shapes, |v| v)?,
        list(numbers, state, shapes, |v| v)?,
        // A mean of squares.
        list(numbers, state, shapes, |v| v * v)?,
        flag(mode.found_inf)?,
    ];
    Ok(with_mode(args, mode))
}

fn with_mode(args: Vec<Vec<HostTensor>>, mode: Mode) -> HostCall {
    HostCall {
        args,
        attributes: vec![Attr::Bool(mode.adamw), Attr::Bool(mode.bias_correction)],
        scalars: vec![
            Attr::F64(1e-2),
            Attr::F64(0.9),
            Attr::F64(0.999),
            Attr::F64(1e-8),
            Attr::F64(0.1),
            Attr::I64(mode.step),
        ],
    }
}
