//! What the cases of optimizers have in common: lists of tensors, their shapes and dtypes.

use ds_core::{
    DType, Result,
    op::{HostTensor, Numbers, Size},
};

/// The dtypes of parameters and of states.
pub(crate) const PAIRS: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::F16, DType::F16),
    (DType::F16, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::BF16, DType::F32),
];

/// One element, none, a scalar, odd ones around a vector, a matrix, more than a block.
const ODD: [&[i64]; 7] = [&[1], &[0], &[], &[37], &[16], &[9, 111], &[16_411]];
/// Many small ones.
const MANY: [&[i64]; 300] = [&[3, 5]; 300];
/// One, with its states within the caches.
const CACHED: [&[i64]; 1] = [&[1 << 15]];
/// One, with its states beyond caches.
const LARGE: [&[i64]; 1] = [&[1 << 24]];

/// A list of shapes, and what it is called.
pub(crate) type Shapes = (&'static str, &'static [&'static [i64]]);

/// The lists to make cases of a size with. Which mode of an optimizer they meet first is the one
/// that the others are made for, too.
pub(crate) fn shapes(size: Size) -> &'static [Shapes] {
    match size {
        Size::Small => &[
            ("odd ones", &ODD),
            ("an empty list", &[]),
            ("300 small ones", &MANY),
        ],
        Size::Cached => &[("32768 of them", &CACHED)],
        Size::Large => &[("16777216 of them", &LARGE)],
    }
}

/// Elements of all together, as one extent.
pub(crate) fn elements(shapes: &[&[i64]]) -> [i64; 1] {
    [shapes.iter().map(|s| s.iter().product::<i64>()).sum()]
}

/// A tensor of each shape, of what `of` makes of numbers.
pub(crate) fn list(
    numbers: &mut Numbers,
    dtype: DType,
    shapes: &[&[i64]],
    of: fn(f64) -> f64,
) -> Result<Vec<HostTensor>> {
    let one = |shape: &&[i64]| numbers.host_of(dtype, shape, of);
    shapes.iter().map(one).collect()
}

/// The flag that skips a step, or none.
pub(crate) fn flag(found_inf: Option<f64>) -> Result<Vec<HostTensor>> {
    let one = |value| HostTensor::from_f64(DType::F32, &[], &[value]);
    found_inf.map(one).into_iter().collect()
}

/// Whether the flag is there and says that the step changes nothing.
pub(crate) fn skips(flag: &[HostTensor]) -> Result<bool> {
    match flag.first() {
        Some(flag) => Ok(flag.to_f64()?.iter().any(|&value| value != 0.0)),
        None => Ok(false),
    }
}
