//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

use crate::lists::{PAIRS, elements, flag, list, shapes};

/// Of a step, for each element.
const OPERATIONS: f64 = 9.0;

/// Weight decay, and the flag on the device.
const MODES: [(&str, f64, Option<f64>); 4] = [
    ("", 0.1, None),
    (", no decay", 0.0, None),
    (", found_inf is 0", 0.1, Some(0.0)),
    (", found_inf is 1", 0.1, Some(1.0)),
];

/// Moments and gradients whose sum is zero of either sign, or none that has one.
const SPECIAL: [(f64, f64); 9] = [
    (0.0, 0.0),
    (-0.0, -0.0),
    (-0.0, 0.0),
    (1.0, -9.0),
    (-1.0, 9.0),
    (1e-40, 0.0),
    (f64::NAN, 1.0),
    (f64::INFINITY, 1.0),
    (1.0, f64::NEG_INFINITY),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for pair in PAIRS {
        for &(words, shapes) in shapes(size) {
            let modes = if size == Size::Small { 4 } else { 1 };
            for (mode, weight_decay, found_inf) in &MODES[..modes] {
                let name = format!("{} with {} moments, {words}{mode}", pair.0, pair.1);
                let case = Case::new("lion_step", name, move |n| {
                    let args = [
                        list(n, pair.0, shapes, |v| v)?,
                        list(n, pair.0, shapes, |v| v)?,
                        list(n, pair.1, shapes, |v| v)?,
                    ];
                    call(args, *weight_decay, *found_inf)
                });
                cases.push(case.operations(OPERATIONS, &elements(shapes)));
            }
        }
        if size == Size::Small {
            let name = format!("{} with {} moments, special numbers", pair.0, pair.1);
            cases.push(Case::new("lion_step", name, move |n| special(n, pair)));
        }
    }
    cases
}

fn special(numbers: &mut Numbers, (param, moment): (DType, DType)) -> Result<HostCall> {
    let (moments, grads): (Vec<f64>, Vec<f64>) = SPECIAL.into_iter().unzip();
    let args = [
        vec![numbers.host(param, &[9])?],
        vec![HostTensor::from_f64(param, &[9], &grads)?],
        vec![HostTensor::from_f64(moment, &[9], &moments)?],
    ];
    call(args, 0.1, None)
}

fn call(
    [params, grads, exp_avg]: [Vec<HostTensor>; 3],
    weight_decay: f64,
    found_inf: Option<f64>,
) -> Result<HostCall> {
    Ok(HostCall {
        args: vec![params, grads, exp_avg, flag(found_inf)?],
        attributes: vec![],
        scalars: vec![
            Attr::F64(1e-2),
            Attr::F64(0.9),
            Attr::F64(0.99),
            Attr::F64(weight_decay),
        ],
    })
}
