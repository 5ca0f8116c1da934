//! Calls to verify and measure kernels with.

use ds_core::{
    DType,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
/// The ops and their inputs.
const OPS: [(&str, usize); 3] = [
    ("nhwc_bias_add", 2),
    ("nhwc_bias_add_add", 3),
    ("nhwc_bias_add_bias_add", 4),
];

/// Channels, rows of few and of many, an image, nothing.
const SHAPES: [&[i64]; 5] = [&[5], &[3, 7], &[2, 4, 4, 67], &[3, 1283], &[0, 8]];
/// 256 KiB of f32.
const CACHED: [&[i64]; 1] = [&[1, 8, 8, 1024]];
/// Beyond caches.
const LARGE: [&[i64]; 1] = [&[8, 64, 64, 1024]];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for (op, inputs) in OPS {
        for dtype in FLOATS {
            for &shape in shapes {
                let make = move |n: &mut Numbers| {
                    let channels = &shape[shape.len() - 1..];
                    let mut args = Vec::new();
                    for input in 0..inputs {
                        let shape = if input % 2 == 0 { shape } else { channels };
                        args.push(vec![n.host(dtype, shape)?]);
                    }
                    args.push(vec![HostTensor::unwritten(dtype, shape)]);
                    Ok(HostCall {
                        args,
                        attributes: vec![],
                        scalars: vec![],
                    })
                };
                let case = Case::new(op, format!("{dtype} {shape:?}"), make);
                #[allow(clippy::cast_precision_loss, reason = "four at most")]
                cases.push(case.operations((inputs - 1) as f64, shape));
            }
        }
    }
    cases
}
