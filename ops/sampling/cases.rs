//! Calls to verify and measure kernels with. A draw may fall within rounding of the edge between two tokens;
//! of these numbers none does.

use ds_core::{
    DType,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

/// Temperature, top-k, top-p.
type How = (f64, i64, f64);

/// Each by itself, two together, those that leave all and those that leave one.
const HOWS: [How; 10] = [
    (1.0, 0, 1.0),
    (0.3, 0, 1.0),
    (5.0, 0, 1.0),
    (0.0, 9, 0.5),
    (1.0, 3, 1.0),
    (1.0, 1, 1.0),
    (0.7, 0, 0.8),
    (1.0, 0, 0.0),
    (2.0, 40, 0.9),
    (1e-9, 1 << 40, 0.999),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    // Less than a vector, some blocks with a rest, more than a part; nothing of each kind.
    let (shapes, hows): (&[[i64; 2]], &[How]) = match size {
        Size::Small => (
            &[[3, 1], [40, 7], [9, 1003], [2, 40_007], [0, 5], [2, 0]],
            &HOWS,
        ),
        Size::Cached => (&[[4, 32_768]], &[HOWS[0], (0.8, 50, 0.95)]),
        Size::Large => (&[[64, 131_072]], &[HOWS[0], (0.8, 50, 0.95), HOWS[6]]),
    };
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for &shape in shapes {
            for &(temperature, top_k, top_p) in hows {
                let how = format!("temperature {temperature} top-k {top_k} top-p {top_p}");
                let call = move |value: fn(f64) -> f64| {
                    move |n: &mut Numbers| {
                        Ok(HostCall {
                            args: vec![
                                vec![n.host_of(dtype, &shape, value)?],
                                vec![HostTensor::unwritten(DType::I64, &shape[..1])],
                                vec![HostTensor::unwritten(DType::F32, &shape[..1])],
                            ],
                            attributes: vec![],
                            scalars: vec![
                                Attr::I64(-77),
                                Attr::I64(1 << 35),
                                Attr::F64(temperature),
                                Attr::I64(top_k),
                                Attr::F64(top_p),
                            ],
                        })
                    }
                };
                let name = format!("{dtype} {shape:?} {how}");
                let case = Case::new("sample", &name, call(|x| 3.0 * x));
                cases.push(case.operations(12.0, &shape));
                if size == Size::Small && shape[0] == 40 {
                    let strange = |x: f64| match x {
                        x if x > 2.0 => f64::NAN,
                        x if x > 1.7 => f64::INFINITY,
                        x if x < 0.5 => f64::NEG_INFINITY,
                        x => x,
                    };
                    let name = format!("{name} of NaN and infinity");
                    cases.push(Case::new("sample", name, call(strange)));
                    let name = format!("{dtype} {shape:?} {how} of equal ones");
                    cases.push(Case::new("sample", name, call(f64::round)));
                }
            }
        }
    }
    cases
}
