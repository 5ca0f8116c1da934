//! Size classes: what a request is rounded up to.

/// The smallest block.
const LEAST_BYTES: u64 = 512;
/// Steps between one power of two and the next: no block is more than an eighth too large.
const STEPS: u64 = 8;
/// From here on blocks are multiples of a huge page, allocated one by one.
pub(crate) const LARGE_BYTES: u64 = 1 << 20;
/// Granule of large blocks.
const LARGE_STEP_BYTES: u64 = 2 << 20;
/// The most that a slab holds, and the number of blocks that it should hold.
const SLAB_BYTES: u64 = 2 << 20;
const SLAB_BLOCKS: u64 = 16;

/// A size class of small blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) index: usize,
    pub(crate) bytes: u64,
}

/// How many classes there are.
pub(crate) const CLASSES: usize = class_index(LARGE_BYTES) + 1;

/// The class for a small request, `None` for a large one.
#[inline]
pub(crate) fn class(bytes: u64) -> Option<Class> {
    (bytes <= LARGE_BYTES).then(|| {
        let index = class_index(bytes);
        Class {
            index,
            bytes: class_bytes(index),
        }
    })
}

/// What a large request is rounded up to, `None` when that is more than an address can count.
pub(crate) fn large(bytes: u64) -> Option<u64> {
    bytes
        .checked_next_multiple_of(LARGE_STEP_BYTES)
        .filter(|b| i64::try_from(*b).is_ok())
}

/// Bytes of the slab that blocks of `class` are cut from.
pub(crate) fn slab_bytes(class: Class) -> u64 {
    let wanted = (class.bytes * SLAB_BLOCKS).min(SLAB_BYTES).max(class.bytes);
    wanted / class.bytes * class.bytes
}

/// Multiples of `LEAST_BYTES` up to `STEPS` of them, then `STEPS` classes a power of two.
#[allow(
    clippy::cast_possible_truncation,
    reason = "there are fewer than 100 classes"
)]
const fn class_index(bytes: u64) -> usize {
    let units = bytes.div_ceil(LEAST_BYTES);
    let units = if units == 0 { 1 } else { units };
    if units <= STEPS {
        return units as usize - 1;
    }
    let octave = (units - 1).ilog2() - STEPS.ilog2();
    let step = ((units - 1) >> octave) + 1 - STEPS;
    (STEPS * (octave as u64 + 1) + step) as usize - 1
}

fn class_bytes(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return (index + 1) * LEAST_BYTES;
    }
    let (octave, step) = (index / STEPS - 1, index % STEPS + 1);
    ((STEPS + step) << octave) * LEAST_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_size_fits_its_class_and_no_smaller_one() {
        for bytes in (0..=LARGE_BYTES)
            .step_by(61)
            .chain([1, 511, 512, 513, 4096, LARGE_BYTES])
        {
            let class = class(bytes).unwrap();
            assert!(class.bytes >= bytes, "{bytes} in {class:?}");
            assert_eq!(class_index(class.bytes), class.index, "{class:?}");
            if class.index > 0 {
                assert!(class_bytes(class.index - 1) < bytes, "{bytes} in {class:?}");
            }
            assert!(class.index < CLASSES);
            assert!(class.bytes <= bytes.max(LEAST_BYTES * STEPS) * (STEPS + 1) / STEPS + 512);
        }
        assert_eq!(class(LARGE_BYTES + 1), None);
    }

    #[test]
    fn slabs_hold_whole_blocks() {
        for index in 0..CLASSES {
            let class = Class {
                index,
                bytes: class_bytes(index),
            };
            assert_eq!(slab_bytes(class) % class.bytes, 0);
            assert!(slab_bytes(class) >= class.bytes);
        }
    }

    #[test]
    fn large_sizes_never_overflow() {
        assert_eq!(large(LARGE_BYTES + 1), Some(LARGE_STEP_BYTES));
        assert_eq!(large(u64::MAX), None);
        assert_eq!(large(i64::MAX as u64), None);
    }
}
