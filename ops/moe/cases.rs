//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};
use ds_schema::Attr;

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    top_k_gatings(&mut cases, size);
    gates(&mut cases, size);
    slot_cases(&mut cases, size);
    for dtype in FLOATS {
        for dims in rows(size) {
            dispatches(&mut cases, size, dtype, *dims);
        }
    }
    cases
}

/// Tokens, experts, places of a token.
fn choices(size: Size) -> &'static [(i64, i64, i64)] {
    match size {
        // One expert; fewer than a vector; a vector with a rest; more chunks than one; nothing.
        Size::Small => &[
            (1, 1, 1),
            (7, 5, 2),
            (40, 16, 1),
            (33, 67, 8),
            (1500, 8, 4),
            (3, 4, 0),
            (0, 4, 2),
        ],
        Size::Cached => &[(2048, 64, 2)],
        Size::Large => &[(1 << 16, 64, 2)],
    }
}

fn top_k_gatings(cases: &mut Vec<Case>, size: Size) {
    for dtype in FLOATS {
        for &(rows, experts, k) in choices(size) {
            let case = |what: &str, value: fn(f64) -> f64, tokens: Option<i64>| {
                let make = move |n: &mut Numbers| {
                    Ok(HostCall {
                        args: vec![
                            vec![n.host_of(dtype, &[rows, experts], value)?],
                            scalar(tokens)?,
                            vec![HostTensor::unwritten(DType::F32, &[rows, k])],
                            vec![HostTensor::unwritten(DType::I32, &[rows, k])],
                            vec![HostTensor::unwritten(DType::I32, &[rows, k])],
                            vec![HostTensor::unwritten(DType::I32, &[experts])],
                        ],
                        attributes: vec![],
                        scalars: vec![],
                    })
                };
                let name = format!("{dtype} [{rows}, {experts}] top {k}{what}");
                Case::new("top_k_gating", name, make).operations(12.0, &[rows, experts])
            };
            cases.push(case("", |x| 2.0 * x, None));
            if size == Size::Small {
                cases.push(case(" padded", |x| x, Some(rows * 2 / 3)));
                cases.push(case(
                    " of equal ones",
                    |x| (2.0 * x).round(),
                    Some(rows + 9),
                ));
                let strange = |x: f64| match x {
                    x if x > 1.8 => f64::NAN,
                    x if x < 0.0 => f64::NEG_INFINITY,
                    x => x,
                };
                cases.push(case(" of NaN and infinity", strange, None));
            }
        }
    }
}

/// What a gate is called with beside its logits.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is there or not")]
struct Of {
    noise: bool,
    used: bool,
    priority: bool,
    choice_major: bool,
    by_probability: bool,
    normalize: bool,
    /// Of what each expert has where all have the same.
    share: f64,
}

fn gates(cases: &mut Vec<Case>, size: Size) {
    let plain = Of {
        share: 1.0,
        ..Of::default()
    };
    let normal = Of {
        normalize: true,
        ..plain
    };
    let kinds = [
        ("by position", normal),
        (
            "by probability",
            Of {
                by_probability: true,
                ..normal
            },
        ),
        (
            "by priority",
            Of {
                priority: true,
                used: true,
                noise: true,
                ..plain
            },
        ),
        (
            "in turn with noise",
            Of {
                choice_major: true,
                noise: true,
                ..normal
            },
        ),
        (
            "all kept",
            Of {
                share: f64::INFINITY,
                ..normal
            },
        ),
        (
            "none kept",
            Of {
                share: 0.0,
                by_probability: true,
                ..normal
            },
        ),
    ];
    let count = if size == Size::Small { kinds.len() } else { 2 };
    for &(tokens, experts, k) in choices(size) {
        for &(kind, of) in &kinds[..count] {
            let make = move |n: &mut Numbers| gate(n, [tokens, experts, k], of);
            let name = format!("[{tokens}, {experts}] top {k} {kind}");
            let case = Case::new("moe_gate", name, make);
            cases.push(case.operations(16.0, &[tokens, experts]));
        }
        for normalize in [false, true] {
            let make = move |n: &mut Numbers| {
                let assignments = places(n, &[tokens, k], experts)?;
                Ok(HostCall {
                    args: [
                        n.host(DType::F32, &[tokens, k])?,
                        n.host(DType::F32, &[])?,
                        n.host(DType::F32, &[tokens, experts])?,
                        assignments,
                        n.host(DType::F32, &[experts])?,
                        HostTensor::unwritten(DType::F32, &[tokens, experts]),
                    ]
                    .map(|tensor| vec![tensor])
                    .into(),
                    attributes: vec![Attr::Bool(normalize)],
                    scalars: vec![],
                })
            };
            let name = format!("[{tokens}, {experts}] top {k} normalize {normalize}");
            let case = Case::new("moe_gate_backward", name, make);
            cases.push(case.operations(20.0, &[tokens, experts]));
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a cast saturates"
)]
fn gate(n: &mut Numbers, [tokens, experts, k]: [i64; 3], of: Of) -> Result<HostCall> {
    let capacity = (of.share * (tokens * k) as f64 / experts as f64).ceil() as i64;
    let (all, few) = ([tokens, experts], [tokens, k]);
    Ok(HostCall {
        args: vec![
            vec![n.host(DType::F32, &all)?],
            optional(of.noise, n.host(DType::F32, &all))?,
            optional(of.used, n.integers(DType::Bool, &[tokens], 2))?,
            optional(of.priority, n.host(DType::F32, &[tokens]))?,
            vec![HostTensor::unwritten(DType::F32, &few)],
            vec![HostTensor::unwritten(DType::I32, &few)],
            vec![HostTensor::unwritten(DType::I32, &few)],
            vec![HostTensor::unwritten(DType::I64, &[experts])],
            vec![HostTensor::unwritten(DType::F32, &[experts])],
            vec![HostTensor::unwritten(DType::F32, &[])],
        ],
        attributes: [of.choice_major, of.by_probability, of.normalize]
            .map(Attr::Bool)
            .into(),
        scalars: vec![Attr::I64(capacity)],
    })
}

fn slot_cases(cases: &mut Vec<Case>, size: Size) {
    for dtype in [DType::I32, DType::I64] {
        for &(tokens, experts, k) in choices(size) {
            for capacity in [-1, 11] {
                let make = move |n: &mut Numbers| {
                    let shape = [tokens, k];
                    let counts = n.integers(dtype, &[experts], 23)?;
                    Ok(HostCall {
                        args: [
                            places(n, &shape, experts)?,
                            places(n, &shape, 15)?,
                            counts,
                            HostTensor::unwritten(DType::I32, &shape),
                            HostTensor::unwritten(DType::I64, &[experts]),
                        ]
                        .map(|tensor| vec![tensor])
                        .into(),
                        attributes: vec![],
                        scalars: vec![Attr::I64(capacity)],
                    })
                };
                let name = format!("{dtype} [{tokens}, {k}] of {experts} capacity {capacity}");
                cases.push(Case::new("moe_slots", name, make));
            }
        }
    }
}

/// Tokens, places of each, rows of all experts, elements of a row.
type Dims = [i64; 4];

fn rows(size: Size) -> &'static [Dims] {
    match size {
        // More rows than tokens have; fewer; more than a block of a sum; nothing of each kind.
        Size::Small => &[
            [1, 1, 1, 1],
            [7, 2, 20, 67],
            [9, 3, 11, 32],
            [5, 1, 5, 3001],
            [3, 0, 4, 5],
            [0, 2, 3, 5],
            [4, 2, 0, 5],
            [4, 2, 8, 0],
        ],
        Size::Cached => &[[64, 2, 160, 1024]],
        Size::Large => &[[4096, 2, 10240, 4096]],
    }
}

fn dispatches(cases: &mut Vec<Case>, size: Size, dtype: DType, dims: Dims) {
    let [tokens, k, rows, d] = dims;
    let name = format!("{dtype} [{tokens}, {d}] {k} of {rows}");
    let (x, y, all) = ([tokens, d], [rows, d], [tokens, k]);
    let bytes = |elements: i64| elements.unsigned_abs() * dtype.size_bytes() as u64;
    let operations = [tokens, k, d];
    let dispatch = move |n: &mut Numbers| {
        let args = vec![
            vec![n.host(dtype, &x)?],
            vec![slots(dims)?],
            vec![HostTensor::unwritten(dtype, &y)],
        ];
        Ok(call(args, vec![]))
    };
    cases.push(Case::new("moe_dispatch", &name, dispatch).traffic(Traffic {
        read_bytes: bytes(tokens * d),
        written_bytes: bytes(rows * d),
    }));
    for (weighted, normalize) in [(true, false), (true, true), (false, false)] {
        if size != Size::Small && (normalize || !weighted) {
            continue;
        }
        let combine = move |n: &mut Numbers| {
            let weights = if weighted {
                vec![weights(n, &all)?]
            } else {
                vec![]
            };
            let y = vec![n.host(dtype, &y)?];
            let args = vec![
                y,
                weights,
                vec![slots(dims)?],
                vec![HostTensor::unwritten(dtype, &x)],
            ];
            Ok(call(args, vec![Attr::Bool(normalize)]))
        };
        let of = format!("{name} weights {weighted} normalize {normalize}");
        let case = Case::new("moe_combine", of, combine).traffic(Traffic {
            read_bytes: bytes(tokens * k * d),
            written_bytes: bytes(tokens * d),
        });
        cases.push(case.operations(2.0, &operations));
    }
    for normalize in [false, true] {
        if size != Size::Small && normalize {
            continue;
        }
        let backward = move |n: &mut Numbers| {
            let args = vec![
                vec![n.host(dtype, &x)?],
                vec![n.host(dtype, &y)?],
                vec![weights(n, &all)?],
                vec![slots(dims)?],
                vec![HostTensor::unwritten(dtype, &y)],
                vec![HostTensor::unwritten(DType::F32, &all)],
            ];
            Ok(call(args, vec![Attr::Bool(normalize)]))
        };
        let of = format!("{name} normalize {normalize}");
        let case = Case::new("moe_combine_backward", of, backward).traffic(Traffic {
            read_bytes: bytes(tokens * d + tokens * k * d),
            written_bytes: bytes(rows * d),
        });
        cases.push(case.operations(3.0, &operations));
    }
}

fn call(args: Vec<Vec<HostTensor>>, scalars: Vec<Attr>) -> HostCall {
    HostCall {
        args,
        attributes: vec![],
        scalars,
    }
}

fn optional(wanted: bool, tensor: Result<HostTensor>) -> Result<Vec<HostTensor>> {
    Ok(if wanted { vec![tensor?] } else { vec![] })
}

fn scalar(value: Option<i64>) -> Result<Vec<HostTensor>> {
    #[allow(clippy::cast_precision_loss, reason = "a number of rows")]
    let tensor = |value| HostTensor::from_f64(DType::I32, &[], &[value as f64]);
    value.map(tensor).into_iter().collect()
}

/// Weights of both signs, as a gradient may ask for; of a token they do not sum to nearly nothing.
fn weights(n: &mut Numbers, shape: &[i64]) -> Result<HostTensor> {
    n.host_of(DType::F32, shape, |x| 1.0 + 0.4 * x)
}

/// From -2 up to two more than there are.
fn places(n: &mut Numbers, shape: &[i64], end: i64) -> Result<HostTensor> {
    let drawn = n.integers(DType::I32, shape, end + 4)?.to_f64()?;
    let values: Vec<f64> = drawn.into_iter().map(|place| place - 2.0).collect();
    HostTensor::from_f64(DType::I32, shape, &values)
}

/// Rows that differ, in no order, the last rows of all left over; where there are not enough, none. An odd
/// step that shares no factor with the rows reaches each once.
#[allow(clippy::cast_precision_loss, reason = "rows of a tensor")]
fn slots([tokens, k, rows, _]: Dims) -> Result<HostTensor> {
    let places = tokens * k;
    let within = rows.min(places).max(1);
    let step = (1..=within)
        .map(|i| 1 + 2 * i * within.min(7))
        .find(|step| gcd(*step, within) == 1);
    let slot = |place: i64| match place % within * step.unwrap_or(1) % within {
        // The places behind are of no row, or of one that there is not.
        _ if place >= within || rows == 0 => -1 + place % 2 * i64::from(i32::MAX),
        slot => slot,
    };
    let values: Vec<f64> = (0..places).map(|place| slot(place) as f64).collect();
    HostTensor::from_f64(DType::I32, &[tokens, k], &values)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
