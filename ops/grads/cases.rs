//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// A list: one element, none, a scalar, odd ones around a vector, a matrix, more than a block.
const SHAPES: [&[i64]; 7] = [&[1], &[0], &[], &[37], &[16], &[9, 111], &[20_003]];
/// Many small ones.
const MANY: [&[i64]; 300] = [&[3, 5]; 300];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[1 << 16]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[1 << 25]];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES {
        match size {
            Size::Small => small(&mut cases, dtype),
            Size::Cached => measured(&mut cases, dtype, &CACHED),
            Size::Large => measured(&mut cases, dtype, &LARGE),
        }
    }
    cases
}

fn measured(cases: &mut Vec<Case>, dtype: DType, shapes: &'static [&[i64]]) {
    let name = format!("{dtype} {:?}", shapes[0]);
    let norm = Case::new("grad_norm", &name, move |n| {
        Ok(norm(list(n, dtype, shapes)?))
    });
    cases.push(norm.operations(2.0, shapes[0]));
    let scale = Case::new("grad_scale", &name, move |n| {
        scale(list(n, dtype, shapes)?, None, 0.99)
    });
    cases.push(scale.operations(1.0, shapes[0]));
    let clip = Case::new("grad_clip", &name, move |n| {
        clip(list(n, dtype, shapes)?, 1.01, 1.0, 1.0)
    });
    cases.push(clip.operations(1.0, shapes[0]));
}

fn small(cases: &mut Vec<Case>, dtype: DType) {
    let lists: [(&str, &'static [&[i64]]); 3] = [
        ("odd ones", &SHAPES),
        ("an empty list", &[]),
        ("300 small ones", &MANY),
    ];
    for (words, shapes) in lists {
        let name = |more: &str| format!("{dtype}, {words}{more}");
        cases.push(Case::new("grad_norm", name(""), move |n| {
            Ok(norm(list(n, dtype, shapes)?))
        }));
        for (more, by, factor) in [
            ("", None, -0.3),
            (", times 1", None, 1.0),
            (", both factors", Some(0.7), 3.0),
            (", times 0", Some(0.0), 3.0),
        ] {
            cases.push(Case::new("grad_scale", name(more), move |n| {
                scale(list(n, dtype, shapes)?, by, factor)
            }));
        }
        for (more, norm, max_norm, factor) in [
            (", below", 0.5, 1.0, 1.0),
            (", above", 7.0, 1.0, 1.0),
            (", unscaled and below", 1024.0, 2.0, 1.0 / 1024.0),
            (", unscaled and above", 4096.0, 2.0, 1.0 / 1024.0),
            (", norm 0", 0.0, 1.0, 1.0),
            (", norm infinite", f64::INFINITY, 1.0, 1.0),
            (", norm NaN", f64::NAN, 1.0, 1.0),
        ] {
            cases.push(Case::new("grad_clip", name(more), move |n| {
                clip(list(n, dtype, shapes)?, norm, max_norm, factor)
            }));
        }
    }
    let special: [(&str, f64); 8] = [
        ("large squares", 3e38),
        ("small squares", 1e-30),
        ("denormals", 3e-45),
        ("zeros", 0.0),
        ("large f16", 60_000.0),
        ("infinity", f64::INFINITY),
        ("minus infinity", f64::NEG_INFINITY),
        ("NaN", f64::NAN),
    ];
    for (words, value) in special {
        for all in [true, false] {
            let which = if all { "all of it" } else { "one of them" };
            cases.push(Case::new(
                "grad_norm",
                format!("{dtype}, {words}, {which}"),
                move |n| {
                    let mut values: Vec<f64> = (0..5003).map(|_| n.draw()).collect();
                    let from = if all { 0 } else { 5002 };
                    values[from..].fill(value);
                    Ok(norm(vec![HostTensor::from_f64(dtype, &[5003], &values)?]))
                },
            ));
        }
    }
}

fn list(numbers: &mut Numbers, dtype: DType, shapes: &[&[i64]]) -> Result<Vec<HostTensor>> {
    let one = |shape: &&[i64]| numbers.host(dtype, shape);
    shapes.iter().map(one).collect()
}

fn norm(grads: Vec<HostTensor>) -> HostCall {
    let unwritten = || vec![HostTensor::unwritten(DType::F32, &[])];
    HostCall {
        args: vec![grads, unwritten(), unwritten()],
        attributes: vec![],
        scalars: vec![],
    }
}

fn scalar(value: f64) -> Result<HostTensor> {
    HostTensor::from_f64(DType::F32, &[], &[value])
}

fn scale(grads: Vec<HostTensor>, by: Option<f64>, factor: f64) -> Result<HostCall> {
    let by = by.map(scalar).into_iter().collect::<Result<_>>()?;
    Ok(HostCall {
        args: vec![grads, by],
        attributes: vec![],
        scalars: vec![Attr::F64(factor)],
    })
}

fn clip(grads: Vec<HostTensor>, norm: f64, max_norm: f64, factor: f64) -> Result<HostCall> {
    Ok(HostCall {
        args: vec![grads, vec![scalar(norm)?]],
        attributes: vec![],
        scalars: vec![Attr::F64(max_norm), Attr::F64(factor)],
    })
}
