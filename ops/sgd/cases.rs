//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

use crate::lists::{PAIRS, elements, flag, list, shapes};

/// What tells one step from another.
#[derive(Clone, Copy)]
struct Mode {
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    step: i64,
    found_inf: Option<f64>,
}

const USUAL: Mode = Mode {
    dampening: 0.0,
    weight_decay: 0.1,
    nesterov: false,
    step: 2,
    found_inf: None,
};

/// The first is the one that is measured.
const MODES: [(&str, Mode); 7] = [
    ("", USUAL),
    (
        ", no decay",
        Mode {
            weight_decay: 0.0,
            ..USUAL
        },
    ),
    (", first step", Mode { step: 1, ..USUAL }),
    (
        ", dampened",
        Mode {
            dampening: 0.3,
            ..USUAL
        },
    ),
    (
        ", nesterov",
        Mode {
            nesterov: true,
            ..USUAL
        },
    ),
    (
        ", found_inf is 0",
        Mode {
            found_inf: Some(0.0),
            ..USUAL
        },
    ),
    (
        ", found_inf is 1",
        Mode {
            found_inf: Some(1.0),
            ..USUAL
        },
    ),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for (param, buffer) in PAIRS {
        for &(words, shapes) in shapes(size) {
            let all = size == Size::Small;
            for &(mode_words, mode) in &MODES[..if all { MODES.len() } else { 1 }] {
                let name = format!("{param} with {buffer} buffers, {words}{mode_words}");
                let make = move |n: &mut Numbers| {
                    let lists = three(n, (param, buffer), shapes, mode.step)?;
                    with_momentum(lists, mode)
                };
                let case = Case::new("sgd_momentum_step", name, make);
                cases.push(case.operations(6.0, &elements(shapes)));
                // What has no buffer knows neither its dtype nor these modes.
                if buffer != param || mode.nesterov || mode.dampening != 0.0 || mode.step == 1 {
                    continue;
                }
                let make = move |n: &mut Numbers| {
                    let lists = three(n, (param, buffer), shapes, mode.step)?;
                    plain(lists, mode)
                };
                let case = Case::new("sgd_step", format!("{param}, {words}{mode_words}"), make);
                cases.push(case.operations(4.0, &elements(shapes)));
            }
        }
    }
    cases
}

/// Before the first step the buffers hold what was in their memory, such as NaN.
fn three(
    numbers: &mut Numbers,
    (param, buffer): (DType, DType),
    shapes: &[&[i64]],
    step: i64,
) -> Result<[Vec<HostTensor>; 3]> {
    let of = if step == 1 { |_| f64::NAN } else { |v| v };
    Ok([
        list(numbers, param, shapes, |v| v)?,
        list(numbers, param, shapes, |v| v)?,
        list(numbers, buffer, shapes, of)?,
    ])
}

fn plain([params, grads, _]: [Vec<HostTensor>; 3], mode: Mode) -> Result<HostCall> {
    Ok(HostCall {
        args: vec![params, grads, flag(mode.found_inf)?],
        attributes: vec![],
        scalars: vec![Attr::F64(1e-2), Attr::F64(mode.weight_decay)],
    })
}

fn with_momentum([params, grads, buffers]: [Vec<HostTensor>; 3], mode: Mode) -> Result<HostCall> {
    Ok(HostCall {
        args: vec![params, grads, buffers, flag(mode.found_inf)?],
        attributes: vec![Attr::Bool(mode.nesterov)],
        scalars: vec![
            Attr::F64(1e-2),
            Attr::F64(0.9),
            Attr::F64(mode.dampening),
            Attr::F64(mode.weight_decay),
            Attr::I64(mode.step),
        ],
    })
}
