//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Additions and multiplications of a score, beside those of its products.
const OF_A_SCORE: f64 = 14.0;

/// Queries of more bytes than these are not worth a reference's time only to have a gradient.
const LARGE_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Shape {
    b: i64,
    n: i64,
    s: i64,
    l: i64,
    h: i64,
    d: i64,
    /// Of keys and of pairs.
    biases: [bool; 2],
}

const fn shape(of: [i64; 6], biases: [bool; 2]) -> Shape {
    let [b, n, s, l, h, d] = of;
    Shape {
        b,
        n,
        s,
        l,
        h,
        d,
        biases,
    }
}

/// Heads and tokens around vectors, tiles and panels; each bias and none; sequences that are dealt to
/// several items unevenly; nothing.
const SMALL: [Shape; 16] = [
    shape([1, 1, 1, 1, 1, 1], [true, true]),
    shape([2, 3, 5, 5, 2, 4], [true, true]),
    shape([2, 3, 5, 9, 2, 4], [false, false]),
    shape([1, 2, 17, 70, 3, 7], [true, false]),
    shape([1, 2, 70, 17, 3, 8], [false, true]),
    shape([2, 2, 50, 131, 2, 32], [true, true]),
    shape([1, 37, 33, 33, 1, 8], [true, true]),
    shape([1, 3, 97, 64, 2, 64], [true, true]),
    shape([1, 1, 9, 50, 1, 100], [true, true]),
    shape([1, 1, 7, 19, 2, 256], [true, true]),
    shape([0, 3, 5, 5, 2, 4], [true, true]),
    shape([1, 0, 5, 5, 2, 4], [true, true]),
    shape([1, 3, 0, 5, 2, 4], [true, true]),
    shape([1, 3, 5, 0, 2, 4], [true, true]),
    shape([1, 3, 5, 5, 0, 4], [true, true]),
    shape([1, 3, 5, 5, 2, 0], [true, true]),
];
const CACHED: [Shape; 1] = [shape([1, 8, 64, 64, 4, 32], [true, true])];
/// Those of DeepSpeed's test.
const LARGE: [Shape; 2] = [
    shape([1, 256, 256, 256, 4, 32], [true, true]),
    shape([1, 512, 256, 256, 8, 8], [true, true]),
];

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[Shape] = match size {
        Size::Small => &SMALL,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &of in shapes {
            let Shape {
                b, n, s, l, h, d, ..
            } = of;
            let what = format!(
                "{dtype} {b} x {n} x {s} of {l}, {h} heads x {d}, biases {:?}",
                of.biases
            );
            let scores = [b, n, s, l, h];
            let case = Case::new("evoformer_attn", what.clone(), move |numbers| {
                forward(numbers, dtype, of)
            });
            cases.push(case.operations(of_each(d, 2.0), &scores));
            for wants in [[true, true], [false, true], [true, false]] {
                if wants != [true, true] && (size != Size::Small || of.biases != [true, true]) {
                    continue;
                }
                let what = format!("{what}, gradients {wants:?}");
                let case = Case::new("evoformer_attn_backward", what, move |numbers| {
                    backward(forward(numbers, dtype, of)?, numbers, wants)
                });
                cases.push(case.operations(of_each(d, 5.0), &scores));
            }
        }
    }
    cases
}

/// So many products of `d` for a score, and what it becomes.
#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn of_each(d: i64, products: f64) -> f64 {
    2.0 * products * d as f64 + OF_A_SCORE
}

/// A bias of keys hides each fifth one, and every key of the last sequence where there are several.
fn mask(numbers: &mut Numbers, dtype: DType, of: Shape) -> Result<HostTensor> {
    let Shape { b, n, l, .. } = of;
    let mut mask = numbers.host(dtype, &[b, n, 1, 1, l])?;
    let mut values = mask.to_f64()?;
    values
        .iter_mut()
        .skip(4)
        .step_by(5)
        .for_each(|v| *v = f64::NEG_INFINITY);
    let keys = usize::try_from(l).unwrap_or(0);
    if n > 1 {
        values
            .iter_mut()
            .rev()
            .take(keys)
            .for_each(|v| *v = f64::NEG_INFINITY);
    }
    mask.set_f64(&values)?;
    Ok(mask)
}

#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn forward(numbers: &mut Numbers, dtype: DType, of: Shape) -> Result<HostCall> {
    let Shape {
        b, n, s, l, h, d, ..
    } = of;
    let [has_keys, has_pairs] = of.biases;
    let [q, k, v] = [s, l, l].map(|tokens| numbers.host(dtype, &[b, n, tokens, h, d]));
    let keys = has_keys.then(|| mask(numbers, dtype, of)).transpose()?;
    let pairs = has_pairs
        .then(|| numbers.host(dtype, &[b, 1, h, s, l]))
        .transpose()?;
    Ok(HostCall {
        args: vec![
            vec![q?],
            vec![k?],
            vec![v?],
            keys.into_iter().collect(),
            pairs.into_iter().collect(),
            vec![HostTensor::unwritten(dtype, &[b, n, s, h, d])],
            vec![HostTensor::unwritten(DType::F32, &[b, n, h, s])],
        ],
        attributes: vec![],
        scalars: vec![Attr::F64(1.0 / (d.max(1) as f64).sqrt())],
    })
}

/// The gradient of a call, with the results that it has. A large call has none computed in f64: its
/// logarithms are those of scores of zero, so that weights are of the right size.
fn backward(mut forward: HostCall, numbers: &mut Numbers, wants: [bool; 2]) -> Result<HostCall> {
    let q = forward.one(0)?.clone();
    if q.bytes.len() < LARGE_BYTES {
        super::reference::evoformer_attn(&mut forward)?;
    } else {
        let (o, mut lse) = (forward.one(5)?.zeros(), forward.one(6)?.zeros());
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        lse.fill((forward.one(1)?.shape[2] as f64).ln());
        forward.one_mut(5)?.set_f64(&o)?;
        forward.one_mut(6)?.set_f64(&lse)?;
    }
    let HostCall {
        args,
        attributes,
        scalars,
    } = forward;
    let unwritten = |of: usize| {
        let of = args[of].iter();
        of.map(|t| HostTensor::unwritten(t.dtype, &t.shape))
            .collect::<Vec<_>>()
    };
    let bias = |of: usize, wants: bool| if wants { unwritten(of) } else { vec![] };
    let results = [
        bias(3, wants[0]),
        bias(4, wants[1]),
        unwritten(0),
        unwritten(1),
        unwritten(2),
    ];
    let mut of = vec![vec![numbers.host(q.dtype, &q.shape)?]];
    of.extend([0, 1, 2, 5, 6, 3, 4].map(|index| args[index].clone()));
    of.extend(results);
    Ok(HostCall {
        args: of,
        attributes,
        scalars,
    })
}
