//! Which tensors of a call are the same memory, and which must not overlap.

use ds_schema::Role;
use smallvec::SmallVec;

use super::{Args, Op};
use crate::{Device, Error, ErrorKind, Result, Tensor};

/// Calls with up to this many tensors are laid out on the stack.
const STACK_TENSORS: usize = 8;

/// For each tensor of a call the first other one that is the same memory.
pub(super) type Aliases = SmallVec<[Option<u32>; STACK_TENSORS]>;

/// The addresses that a tensor's elements span.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    index: u32,
    written: bool,
}

/// The aliases of a call, `None` where there are none; refuses tensors of another device.
///
/// A written tensor may be exactly the memory of one that is read; whether a kernel takes that is
/// its constraint. Overlapping in part, and one memory for two results, are refused: nobody could
/// get it right.
#[inline]
pub(super) fn aliases(op: &Op, args: &[Args<'_>], device: Device) -> Result<Option<Aliases>> {
    let mut spans: SmallVec<[Span; STACK_TENSORS]> = SmallVec::new();
    let mut index = 0;
    for (position, arg) in args.iter().enumerate() {
        let argument = op.schema().arguments().get(position);
        let written = argument.is_some_and(|argument| argument.role != Role::In);
        for tensor in *arg {
            if tensor.device() != device || !tensor.buffer().is_of_kernels() {
                return Err(wrong_device(op, args, index, device));
            }
            let (start, end) = addresses(tensor);
            if start != end {
                spans.push(Span {
                    start,
                    end,
                    index,
                    written,
                });
            }
            index += 1;
        }
    }
    // The usual call has few tensors and no overlap: a look at each pair is cheaper than the rest.
    if spans.len() <= STACK_TENSORS && !any_overlap(&spans) {
        return Ok(None);
    }
    find(op, args, spans, index)
}

fn any_overlap(spans: &[Span]) -> bool {
    let overlaps =
        |a: &Span, b: &Span| a.start < b.end && b.start < a.end && (a.written || b.written);
    (1..spans.len()).any(|index| {
        let (earlier, rest) = spans.split_at(index);
        rest.first()
            .is_some_and(|span| earlier.iter().any(|other| overlaps(span, other)))
    })
}

/// The aliases of a call of `count` tensors.
fn find(
    op: &Op,
    args: &[Args<'_>],
    mut spans: SmallVec<[Span; STACK_TENSORS]>,
    count: u32,
) -> Result<Option<Aliases>> {
    spans.sort_unstable_by_key(|span| (span.start, span.end, span.index));
    let mut found: Option<Aliases> = None;
    // In order of their start, a tensor that overlaps any earlier one overlaps the one among them
    // that reaches furthest, so one look at each is enough to find that there is an overlap.
    let mut furthest: Option<Span> = None;
    for &span in &spans {
        if let Some(other) = furthest
            && span.start < other.end
            && (span.written || other.written)
        {
            if span.written && other.written || !same(args, span, other) {
                return Err(overlap(op, args, span, other));
            }
            let aliases = found.get_or_insert_with(|| (0..count).map(|_| None).collect());
            aliases[span.index.max(other.index) as usize] = Some(span.index.min(other.index));
        }
        // A written one is kept where both reach equally far: it is the one that matters.
        if furthest
            .is_none_or(|other| span.end > other.end || (span.end == other.end && !other.written))
        {
            furthest = Some(span);
        }
    }
    Ok(found)
}

#[inline]
fn addresses(tensor: &Tensor) -> (usize, usize) {
    let base = tensor.buffer().address().addr();
    let (low, high) = tensor.span_bytes().unwrap_or((0, 0));
    let at = |bytes: i64| base.wrapping_add_signed(isize::try_from(bytes).unwrap_or(0));
    (at(low), at(high))
}

/// Whether both are the same elements of the same memory.
fn same(args: &[Args<'_>], a: Span, b: Span) -> bool {
    let tensor = |span: Span| args.iter().copied().flatten().nth(span.index as usize);
    (a.start, a.end) == (b.start, b.end)
        && tensor(a).zip(tensor(b)).is_some_and(|(a, b)| {
            (a.dtype(), a.shape(), a.strides()) == (b.dtype(), b.shape(), b.strides())
        })
}

/// `weight`, or `grads[3]` of a list.
fn name_of(op: &Op, args: &[Args<'_>], index: u32) -> String {
    let mut index = index as usize;
    for (argument, arg) in op.schema().arguments().iter().zip(args) {
        if index < arg.len() {
            return match argument.multiplicity {
                ds_schema::Multiplicity::List => format!("{}[{index}]", argument.name),
                _ => argument.name.clone(),
            };
        }
        index -= arg.len();
    }
    format!("tensor {index}")
}

#[cold]
fn wrong_device(op: &Op, args: &[Args<'_>], index: u32, device: Device) -> Error {
    let tensor = args.iter().copied().flatten().nth(index as usize);
    let place = tensor.map_or_else(String::new, |t| t.device().to_string());
    let name = name_of(op, args, index);
    let text = if tensor.is_some_and(|t| t.device() == device) {
        format!("argument '{name}' is in pageable host memory, which {device} does not reach")
    } else {
        format!("argument '{name}' is on {place}, but the stream is on {device}")
    };
    Error::new(ErrorKind::InvalidArgument, op.name().to_owned(), text)
        .with_hint("copy the tensor to the stream's device first")
}

#[cold]
fn overlap(op: &Op, args: &[Args<'_>], a: Span, b: Span) -> Error {
    let written = if a.written && b.written {
        "both are"
    } else {
        "one of them is"
    };
    let (first, second) = (a.index.min(b.index), a.index.max(b.index));
    let (a, b) = (name_of(op, args, first), name_of(op, args, second));
    Error::new(
        ErrorKind::InvalidArgument,
        op.name().to_owned(),
        format!("arguments '{a}' and '{b}' overlap in memory, and {written} written"),
    )
}
