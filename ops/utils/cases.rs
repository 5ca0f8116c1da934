//! Calls to verify and measure kernels with.

use ds_core::{
    DType,
    op::{Case, HostCall, Numbers, Size, Traffic},
};

/// Nothing, a scalar, a matrix, more than a block with a rest.
const MIXED: [&[i64]; 5] = [&[0], &[], &[3, 5], &[40_001], &[7]];
/// Layers of a small model, 512 KiB of f32.
const CACHED: [&[i64]; 16] = [&[8192]; 16];
/// Layers of a larger one, beyond caches.
const LARGE: [&[i64]; 32] = [&[1 << 20]; 32];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[&[i64]] = match size {
        Size::Small => &MIXED,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    // As long as all together; longer, and shorter, only where nothing is measured.
    let lengths: &[i64] = if size == Size::Small {
        &[0, 5, -30, -50_000]
    } else {
        &[0]
    };
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for &more in lengths {
            let elements = |shape: &&[i64]| shape.iter().product::<i64>();
            let length = (shapes.iter().map(elements).sum::<i64>() + more).max(0);
            let name = format!("{dtype} {} tensors to [{length}]", shapes.len());
            let make = move |n: &mut Numbers| {
                let mut tensors = Vec::new();
                for shape in shapes {
                    tensors.push(n.host(dtype, shape)?);
                }
                Ok(HostCall {
                    args: vec![tensors, vec![n.host(dtype, &[length])?]],
                    attributes: vec![],
                    scalars: vec![],
                })
            };
            cases.push(Case::new("flatten", name, make).traffic(traffic(dtype, length)));
        }
    }
    cases
}

/// Each element read once and written once.
fn traffic(dtype: DType, length: i64) -> Traffic {
    let bytes = length.unsigned_abs() * dtype.size_bytes() as u64;
    Traffic {
        read_bytes: bytes,
        written_bytes: bytes,
    }
}
