//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::U8, DType::Bool];

/// Bytes of bits: none, one, some around a vector, more than a chunk.
const SHAPES: [i64; 6] = [0, 1, 7, 64, 517, 10_007];
/// 512 KiB of f32.
const CACHED: [i64; 1] = [1 << 14];
/// Beyond caches.
const LARGE: [i64; 1] = [1 << 23];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[i64] = match size {
        Size::Small => &SHAPES,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &n in shapes {
            let name = format!("{dtype} {n}x8");
            let call = move |numbers: &mut Numbers| {
                Ok(pair(
                    elements(numbers, dtype, n)?,
                    HostTensor::unwritten(DType::U8, &[n]),
                ))
            };
            cases.push(Case::new("packbits", &name, call).operations(1.0, &[n, 8]));
            for signs in [false, true] {
                if signs != dtype.is_float() && (signs || size != Size::Small) {
                    continue;
                }
                let call = move |numbers: &mut Numbers| unpack(numbers, dtype, n, signs);
                let name = format!("{name}{}", if signs { " signs" } else { "" });
                cases.push(Case::new("unpackbits", name, call).operations(1.0, &[n, 8]));
            }
        }
        if size == Size::Small && dtype.is_float() {
            let special = [
                0.0,
                -0.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                -1e-40,
                -1e-7,
                1e-7,
            ];
            let call = move |_: &mut Numbers| {
                let x = HostTensor::from_f64(dtype, &[1, 8], &special)?;
                Ok(pair(x, HostTensor::unwritten(DType::U8, &[1])))
            };
            cases.push(Case::new(
                "packbits",
                format!("{dtype} special numbers"),
                call,
            ));
        }
    }
    cases
}

fn pair(from: HostTensor, to: HostTensor) -> HostCall {
    HostCall {
        args: vec![vec![from], vec![to]],
        attributes: vec![],
        scalars: vec![],
    }
}

fn unpack(numbers: &mut Numbers, dtype: DType, n: i64, signs: bool) -> Result<HostCall> {
    // As many bytes as elements: all kinds of them.
    let mut bits = elements(numbers, DType::U8, n.max(8) / 8)?;
    bits.bytes.resize(usize::try_from(n).unwrap_or(0), 0xa7);
    bits.shape = vec![n];
    let mut call = pair(bits, HostTensor::unwritten(dtype, &[n, 8]));
    call.attributes.push(Attr::Bool(signs));
    Ok(call)
}

/// `n` times eight elements, with zeros among those that are no floats.
fn elements(numbers: &mut Numbers, dtype: DType, n: i64) -> Result<HostTensor> {
    match dtype {
        DType::Bool => numbers.host_of(dtype, &[n, 8], |v| f64::from(u8::from(v > 0.0))),
        DType::U8 => numbers.host_of(dtype, &[n, 8], |v| (v * 100.0).round().clamp(0.0, 255.0)),
        _ => numbers.host(dtype, &[n, 8]),
    }
}
