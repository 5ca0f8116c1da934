//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

use crate::lists::{PAIRS, flag};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// A matrix, a scalar, a filter, nothing, more than a chunk.
const SHAPES: [&[i64]; 5] = [&[9, 111], &[], &[4, 3, 3, 3], &[0, 8], &[127, 130]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[256, 256]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[4096, 4096]];

/// What `found_inf` may be.
const FLAGS: [(&str, Option<f64>); 3] = [
    ("", None),
    (", found_inf is 0", Some(0.0)),
    (", found_inf is 1", Some(1.0)),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let (shapes, flags): (&[&[i64]], _) = match size {
        Size::Small => (&SHAPES, &FLAGS[..]),
        Size::Cached => (&CACHED, &FLAGS[..1]),
        Size::Large => (&LARGE, &FLAGS[..1]),
    };
    let mut cases = Vec::new();
    for &shape in shapes {
        let mut add = |op, name: String, operations, call: Box<MakeCall>| {
            cases.push(Case::new(op, name, call).operations(operations, shape));
        };
        for &(words, found_inf) in flags {
            for (grad, mean) in PAIRS {
                for nesterov in [true, false] {
                    if size != Size::Small && !nesterov {
                        continue;
                    }
                    let ahead = if nesterov { ", nesterov" } else { "" };
                    let name = format!("{grad} with {mean} momentum {shape:?}{ahead}{words}");
                    let call = move |n: &mut Numbers| {
                        let args = vec![
                            vec![n.host(grad, shape)?],
                            vec![n.host(mean, shape)?],
                            flag(found_inf)?,
                            vec![HostTensor::unwritten(grad, shape)],
                        ];
                        Ok(call(args, &[Attr::Bool(nesterov)], &[0.95]))
                    };
                    add("muon_momentum", name, 6.0, Box::new(call));
                }
            }
            for param in FLOATS {
                for update in [DType::F32, DType::BF16] {
                    let name = format!("{param} by {update} {shape:?}{words}");
                    let call = move |n: &mut Numbers| {
                        let args = vec![
                            vec![n.host(param, shape)?],
                            vec![n.host(update, shape)?],
                            flag(found_inf)?,
                        ];
                        Ok(call(args, &[], &[0.02, 0.1, 1.5]))
                    };
                    add("muon_apply", name, 3.0, Box::new(call));
                }
            }
        }
        for from in FLOATS {
            for to in [DType::F32, DType::BF16] {
                let call = move |n: &mut Numbers| {
                    let args = vec![
                        vec![n.host(from, shape)?],
                        vec![HostTensor::from_f64(DType::F32, &[], &[31.7])?],
                        vec![HostTensor::unwritten(to, shape)],
                    ];
                    Ok(call(args, &[], &[1e-7]))
                };
                let name = format!("{from} to {to} {shape:?}");
                add("muon_normalize", name, 1.0, Box::new(call));
            }
            let call = move |n: &mut Numbers| {
                let args = vec![
                    vec![n.host(from, shape)?],
                    vec![n.host(from, shape)?],
                    vec![HostTensor::unwritten(from, shape)],
                ];
                Ok(call(args, &[], &[-4.775, 2.0315]))
            };
            add(
                "muon_combine",
                format!("{from} {shape:?}"),
                3.0,
                Box::new(call),
            );
        }
    }
    cases
}

type MakeCall = dyn Fn(&mut Numbers) -> Result<HostCall> + Send + Sync;

fn call(args: Vec<Vec<HostTensor>>, attributes: &[Attr], scalars: &[f64]) -> HostCall {
    HostCall {
        args,
        attributes: attributes.to_vec(),
        scalars: scalars.iter().copied().map(Attr::F64).collect(),
    }
}
