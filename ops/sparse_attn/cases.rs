//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size},
};
use ds_schema::Attr;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Additions and multiplications of a score, beside those of its products.
const OF_A_SCORE: f64 = 12.0;

/// Queries of more bytes than these are not worth a reference's time only to have a gradient.
const LARGE_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Shape {
    b: i64,
    s: i64,
    h: i64,
    d: i64,
    blocks: i64,
    /// One block of so many is seen, and none at all of 0.
    one_of: i64,
    layout: DType,
    causal: bool,
    /// Of keys and of pairs.
    masks: [bool; 2],
}

const fn shape(of: [i64; 6], layout: DType, causal: bool, masks: [bool; 2]) -> Shape {
    let [b, s, h, d, blocks, one_of] = of;
    Shape {
        b,
        s,
        h,
        d,
        blocks,
        one_of,
        layout,
        causal,
        masks,
    }
}

/// Blocks around vectors, tiles and panels, of one token, and of a last one that is shorter; rows that
/// see all, some and none; each mask and none; nothing.
const SMALL: [Shape; 18] = [
    shape([1, 1, 1, 1, 1, 1], DType::I64, true, [false, false]),
    shape([2, 64, 2, 8, 4, 2], DType::I32, false, [false, false]),
    shape([1, 96, 3, 16, 6, 3], DType::U8, true, [false, false]),
    shape([1, 256, 2, 64, 4, 2], DType::Bool, false, [true, false]),
    shape([1, 192, 2, 64, 3, 1], DType::I64, true, [true, true]),
    shape([2, 150, 1, 20, 3, 2], DType::I64, false, [false, true]),
    shape([1, 130, 1, 7, 1, 1], DType::I32, true, [false, false]),
    shape([1, 60, 2, 33, 12, 4], DType::U8, false, [true, true]),
    shape([1, 33, 1, 100, 33, 3], DType::U8, false, [false, false]),
    shape([1, 20, 1, 256, 2, 2], DType::U8, false, [false, false]),
    shape([1, 31, 2, 8, 4, 2], DType::I64, false, [false, true]),
    shape([1, 5, 2, 8, 4, 1], DType::I64, true, [false, false]),
    shape([1, 48, 2, 8, 3, 0], DType::I64, false, [false, false]),
    shape([1, 7, 2, 8, 0, 1], DType::I64, false, [false, false]),
    shape([0, 16, 2, 8, 2, 1], DType::I64, false, [true, true]),
    shape([1, 0, 2, 8, 2, 1], DType::I64, false, [true, true]),
    shape([1, 16, 0, 8, 2, 1], DType::I64, false, [true, true]),
    shape([1, 16, 2, 0, 2, 1], DType::I64, false, [true, true]),
];
const CACHED: [Shape; 4] = [
    shape([1, 256, 4, 64, 16, 4], DType::U8, false, [false, false]),
    shape([1, 256, 4, 64, 4, 2], DType::I64, true, [true, true]),
    shape([1, 256, 4, 64, 8, 4], DType::I32, false, [false, false]),
    shape([1, 256, 4, 64, 8, 2], DType::Bool, true, [false, false]),
];
/// Every density of a long sequence, and its small blocks.
const LARGE: [Shape; 6] = [
    shape([1, 4096, 8, 64, 64, 16], DType::U8, false, [false, false]),
    shape([1, 4096, 8, 64, 64, 8], DType::U8, false, [false, false]),
    shape([1, 4096, 8, 64, 64, 4], DType::U8, false, [false, false]),
    shape([1, 4096, 8, 64, 64, 2], DType::U8, false, [false, false]),
    shape([1, 4096, 8, 64, 64, 1], DType::U8, false, [false, false]),
    shape([1, 4096, 8, 64, 256, 16], DType::U8, false, [false, false]),
];

impl Shape {
    /// Whether a row sees a column. In large layouts every row and column has as many of the others.
    fn sees(self, head: i64, row: i64, column: i64) -> bool {
        self.one_of > 0 && (row * 5 + column + head) % self.one_of == 0
    }

    /// Scores of the blocks that are seen.
    fn scores(self) -> i64 {
        let n = self.blocks;
        let block = (self.s + n - 1).div_euclid(n.max(1));
        let sees = |i: &i64| {
            let (head, row, column) = (i / (n * n), i / n % n, i % n);
            self.sees(head, row, column) && !(self.causal && column > row)
        };
        let seen = (0..self.h * n * n).filter(sees).count();
        self.b * block * block * i64::try_from(seen).unwrap_or(i64::MAX)
    }
}

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let shapes: &[Shape] = match size {
        Size::Small => &SMALL,
        Size::Cached => &CACHED,
        Size::Large => &LARGE,
    };
    let mut cases = Vec::new();
    for dtype in DTYPES {
        for &of in shapes {
            let what = told(dtype, of);
            let scores = [of.scores()];
            let case = Case::new("sparse_attn", what.clone(), move |numbers| {
                forward(numbers, dtype, of)
            });
            cases.push(case.operations(of_each(of.d, 2.0), &scores));
            let case = Case::new("sparse_attn_backward", what, move |numbers| {
                backward(forward(numbers, dtype, of)?, numbers)
            });
            cases.push(case.operations(of_each(of.d, 5.0), &scores));
        }
    }
    cases
}

fn told(dtype: DType, of: Shape) -> String {
    let Shape {
        b,
        s,
        h,
        d,
        blocks,
        one_of,
        layout,
        ..
    } = of;
    let causal = if of.causal { ", causal" } else { "" };
    format!(
        "{dtype} {b} x {s}, {h} heads x {d}, 1 of {one_of} of {blocks} blocks {layout}{causal}, masks {:?}",
        of.masks
    )
}

/// So many products of `d` for a score, and what it becomes.
#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn of_each(d: i64, products: f64) -> f64 {
    2.0 * products * d as f64 + OF_A_SCORE
}

fn layout(of: Shape) -> Result<HostTensor> {
    let (n, h) = (of.blocks, of.h);
    let at = |i: i64| of.sees(i / (n * n), i / n % n, i % n);
    let cells: Vec<f64> = (0..h * n * n).map(|i| f64::from(u8::from(at(i)))).collect();
    HostTensor::from_f64(of.layout, &[h, n, n], &cells)
}

/// Numbers of which each fifth hides what it belongs to.
fn mask(numbers: &mut Numbers, shape: &[i64]) -> Result<HostTensor> {
    let mut mask = numbers.host(DType::F32, shape)?;
    let mut values = mask.to_f64()?;
    values
        .iter_mut()
        .skip(4)
        .step_by(5)
        .for_each(|v| *v = f64::NEG_INFINITY);
    mask.set_f64(&values)?;
    Ok(mask)
}

#[allow(clippy::cast_precision_loss, reason = "a head is short")]
fn forward(numbers: &mut Numbers, dtype: DType, of: Shape) -> Result<HostCall> {
    let Shape { b, s, h, d, .. } = of;
    let [has_keys, has_pairs] = of.masks;
    let [q, k, v] = [(); 3].map(|()| numbers.host(dtype, &[b, s, h, d]));
    let keys = has_keys.then(|| mask(numbers, &[b, s])).transpose()?;
    let pairs = has_pairs.then(|| mask(numbers, &[s, s])).transpose()?;
    Ok(HostCall {
        args: vec![
            vec![q?],
            vec![k?],
            vec![v?],
            vec![layout(of)?],
            keys.into_iter().collect(),
            pairs.into_iter().collect(),
            vec![HostTensor::unwritten(dtype, &[b, s, h, d])],
            vec![HostTensor::unwritten(DType::F32, &[b, h, s])],
        ],
        attributes: vec![Attr::Bool(of.causal)],
        scalars: vec![Attr::F64(1.0 / (d.max(1) as f64).sqrt())],
    })
}

/// The gradient of a call, with the results that it has. A large call has none computed in f64: its
/// logarithms are those of scores of zero, so that weights are of the right size.
fn backward(mut forward: HostCall, numbers: &mut Numbers) -> Result<HostCall> {
    let q = forward.one(0)?.clone();
    if q.bytes.len() < LARGE_BYTES {
        super::reference::sparse_attn(&mut forward)?;
    } else {
        let (o, mut lse) = (forward.one(6)?.zeros(), forward.one(7)?.zeros());
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        lse.fill((q.shape[1] as f64).ln());
        forward.one_mut(6)?.set_f64(&o)?;
        forward.one_mut(7)?.set_f64(&lse)?;
    }
    let HostCall {
        args,
        attributes,
        scalars,
    } = forward;
    let unwritten = || vec![HostTensor::unwritten(q.dtype, &q.shape)];
    let mut of = vec![vec![numbers.host(q.dtype, &q.shape)?]];
    of.extend([0, 1, 2, 6, 7, 3, 4, 5].map(|index| args[index].clone()));
    of.extend([unwritten(), unwritten(), unwritten()]);
    Ok(HostCall {
        args: of,
        attributes,
        scalars,
    })
}
