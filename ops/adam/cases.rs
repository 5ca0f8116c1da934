//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

/// The dtypes of parameters and of states.
const PAIRS: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::F16, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::BF16, DType::F32),
];

/// Of a step, for each element: a square root and a division among them.
const OPERATIONS: f64 = 14.0;

/// A list: one element, none, odd ones around a vector, a matrix.
const SHAPES: [&[i64]; 5] = [&[1], &[0], &[37], &[16], &[9, 111]];
/// One parameter, with its states within the caches.
const CACHED: [&[i64]; 1] = [&[1 << 15]];
/// One parameter, with its states beyond caches.
const LARGE: [&[i64]; 1] = [&[1 << 24]];

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
    let case = |(param, state): (DType, DType), words: &str, mode, shapes: &'static [&[i64]]| {
        Case::new(
            "adam_step",
            format!("{param} with {state} states, {words}"),
            move |n| call(n, (param, state), mode, shapes),
        )
    };
    let mut cases = Vec::new();
    for pair in PAIRS {
        match size {
            Size::Small => {
                cases.extend(Mode::ALL.map(|(words, mode)| case(pair, words, mode, &SHAPES)));
                cases.push(case(pair, "an empty list", Mode::USUAL, &[]));
            }
            Size::Cached => {
                let case = case(pair, "32768 of them", Mode::USUAL, &CACHED);
                cases.push(case.operations(OPERATIONS, CACHED[0]));
            }
            Size::Large => {
                let case = case(pair, "16777216 of them", Mode::USUAL, &LARGE);
                cases.push(case.operations(OPERATIONS, LARGE[0]));
            }
        }
    }
    cases
}

fn call(
    numbers: &mut Numbers,
    (param, state): (DType, DType),
    mode: Mode,
    shapes: &[&[i64]],
) -> Result<HostCall> {
    let mut list = |dtype, of: fn(f64) -> f64| {
        shapes
            .iter()
            .map(|shape| numbers.host_of(dtype, shape, of))
            .collect::<Result<Vec<_>>>()
    };
    let flag = |value| HostTensor::from_f64(DType::F32, &[], &[value]);
    Ok(HostCall {
        args: vec![
            list(param, |v| v)?,
            list(param, |v| v)?,
            list(state, |v| v)?,
            // A mean of squares.
            list(state, |v| v * v)?,
            mode.found_inf
                .map(flag)
                .into_iter()
                .collect::<Result<_>>()?,
        ],
        attributes: vec![Attr::Bool(mode.adamw), Attr::Bool(mode.bias_correction)],
        scalars: vec![
            Attr::F64(1e-2),
            Attr::F64(0.9),
            Attr::F64(0.999),
            Attr::F64(1e-8),
            Attr::F64(0.1),
            Attr::I64(mode.step),
        ],
    })
}
