//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

use crate::lists::{elements, flag, list, shapes};

/// Of a step, for each element: two square roots and two divisions among them.
const OPERATIONS: f64 = 24.0;

/// What tells one step from another.
#[derive(Clone, Copy)]
struct Mode {
    eps_inside_sqrt: bool,
    bias_correction: bool,
    weight_decay: f64,
    /// Lower and upper bound of the ratio.
    coeff: (f64, f64),
    /// What parameters are multiplied by: a norm of 0, and ratios at either bound.
    params: f64,
    grad_scale: f64,
    found_inf: Option<f64>,
}

const USUAL: Mode = Mode {
    eps_inside_sqrt: false,
    bias_correction: true,
    weight_decay: 0.1,
    coeff: (0.01, 10.0),
    params: 1.0,
    grad_scale: 1.0,
    found_inf: None,
};

/// The first is the one that is measured.
const MODES: [(&str, Mode); 9] = [
    ("", USUAL),
    (
        ", eps inside",
        Mode {
            eps_inside_sqrt: true,
            ..USUAL
        },
    ),
    (
        ", no bias correction",
        Mode {
            bias_correction: false,
            ..USUAL
        },
    ),
    (
        ", no decay, scaled gradients",
        Mode {
            weight_decay: 0.0,
            grad_scale: 8.0,
            ..USUAL
        },
    ),
    (
        ", parameters of 0",
        Mode {
            params: 0.0,
            ..USUAL
        },
    ),
    (
        ", large ratio",
        Mode {
            params: 100.0,
            weight_decay: 0.0,
            ..USUAL
        },
    ),
    (
        ", small ratio",
        Mode {
            coeff: (0.5, 10.0),
            params: 0.01,
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
    let modes = if size == Size::Small { MODES.len() } else { 1 };
    let mut cases = Vec::new();
    for grad in [DType::F32, DType::F16, DType::BF16] {
        for &(words, shapes) in shapes(size) {
            for &(mode_words, mode) in &MODES[..modes] {
                let name = format!("gradients of {grad}, {words}{mode_words}");
                let make = move |n: &mut Numbers| call(n, grad, shapes, mode);
                let case = Case::new("lamb_step", name, make);
                let all = elements(shapes);
                let case = case.operations(OPERATIONS, &all);
                cases.push(case.traffic(traffic(all[0].unsigned_abs(), grad)));
            }
        }
    }
    cases
}

/// A tensor's norms are known when all of it was read, so parameters and moments are read twice.
fn traffic(elements: u64, grad: DType) -> Traffic {
    Traffic {
        read_bytes: elements * (6 * 4 + grad.size_bytes() as u64),
        written_bytes: elements * 3 * 4,
    }
}

fn call(numbers: &mut Numbers, grad: DType, shapes: &[&[i64]], mode: Mode) -> Result<HostCall> {
    let mut params = list(numbers, DType::F32, shapes, |v| v)?;
    for param in &mut params {
        let values: Vec<f64> = param.to_f64()?.iter().map(|v| v * mode.params).collect();
        param.set_f64(&values)?;
    }
    let ratio = |_: &&[i64]| HostTensor::unwritten(DType::F32, &[]);
    Ok(HostCall {
        args: vec![
            params,
            list(numbers, grad, shapes, |v| v)?,
            list(numbers, DType::F32, shapes, |v| v)?,
            // A mean of squares.
            list(numbers, DType::F32, shapes, |v| v * v)?,
            flag(mode.found_inf)?,
            shapes.iter().map(ratio).collect(),
        ],
        attributes: vec![
            Attr::Bool(mode.eps_inside_sqrt),
            Attr::Bool(mode.bias_correction),
        ],
        scalars: vec![
            Attr::F64(1e-2),
            Attr::F64(0.9),
            Attr::F64(0.999),
            Attr::F64(1e-8),
            Attr::F64(mode.weight_decay),
            Attr::F64(mode.coeff.1),
            Attr::F64(mode.coeff.0),
            Attr::F64(mode.grad_scale),
            Attr::I64(3),
        ],
    })
}
