//! The key of a prepared call: all that a kernel is prepared for, as words that are written in one
//! pass, hashed and compared at once. Addresses count by their alignment only.

use ds_schema::Attr;

use super::{Args, Op, alias::Aliases};
use crate::Tensor;

/// Room for the key of a call: that of the usual one stays on the stack.
pub(super) struct Room {
    stack: [u64; 64],
    heap: Vec<u64>,
}

/// Alignments that signatures tell apart, by the binary logarithm of the address's own, 8 and more
/// being the last: elements up to 8 bytes, a vector register of 16, a cache line of 64, the 256 that
/// some devices want.
const ALIGNMENT_CLASS: [u8; 9] = [0, 1, 2, 3, 4, 4, 6, 6, 8];

impl Room {
    pub(super) const fn new() -> Self {
        Self {
            stack: [0; 64],
            heap: Vec::new(),
        }
    }

    /// The key of a call.
    #[inline]
    pub(super) fn key(
        &mut self,
        op: &'static Op,
        args: &[Args<'_>],
        attributes: &[Attr],
        aliases: Option<&Aliases>,
    ) -> &[u64] {
        let words = write(&mut self.stack, op, args, attributes, aliases);
        if let Some(key) = self.stack.get(..words) {
            return key;
        }
        self.heap.resize(words, 0);
        write(&mut self.heap, op, args, attributes, aliases);
        &self.heap
    }
}

/// Writes a key to `words`, as far as it fits, and says how long it is.
#[inline]
fn write(
    words: &mut [u64],
    op: &'static Op,
    args: &[Args<'_>],
    attributes: &[Attr],
    aliases: Option<&Aliases>,
) -> usize {
    let mut len = 0;
    let mut put = |word: u64| {
        if let Some(slot) = words.get_mut(len) {
            *slot = word;
        }
        len += 1;
    };
    // An op lives as long as the process, so its address is a name of its own.
    put(std::ptr::from_ref(op).addr() as u64);
    for attribute in attributes {
        let (kind, bits) = attribute.bits();
        put(kind as u64);
        put(bits);
    }
    let mut index = 0;
    for arg in args {
        put(arg.len() as u64);
        for tensor in *arg {
            let alias = aliases.and_then(|aliases| aliases[index]);
            index += 1;
            put(u64::from(tensor.dtype().index())
                | (tensor.shape().len() as u64) << 8
                | u64::from(alignment_class(tensor)) << 16
                | alias.map_or(0, |of| u64::from(of) + 1) << 24);
            for (&extent, &stride) in tensor.shape().iter().zip(tensor.strides()) {
                put(extent.cast_unsigned());
                put(stride.cast_unsigned());
            }
        }
    }
    len
}

/// The class of the first element's alignment, as a binary logarithm.
#[inline]
pub(super) fn alignment_class(tensor: &Tensor) -> u8 {
    // The null address, of a tensor without memory, counts as aligned to anything.
    let log2 = tensor.address().addr().trailing_zeros() as usize;
    ALIGNMENT_CLASS[log2.min(ALIGNMENT_CLASS.len() - 1)]
}
