//! Tensors of a call in device memory: contiguous, with gaps, transposed, shifted or in one
//! another's place, with bytes around and between them that nobody may write.

use std::fmt::Write as _;

use ds_core::{
    Buffer, Stream, Tensor,
    op::{HostTensor, Op},
};

use super::calls::Call;
use crate::check::Problem;

/// What lies around and between elements.
const AROUND: u8 = 0xa5;
/// Bytes before and behind a tensor's elements: a multiple of every alignment that kernels ask for.
const MARGIN_BYTES: usize = 512;
/// Elements between one row and the next.
const GAP: i64 = 3;

/// How the tensors of a call lie.
#[derive(Default)]
pub(super) struct Lay {
    /// Arguments whose rows have gaps between them.
    gapped: Vec<usize>,
    /// The argument whose last two dimensions lie the other way round.
    transposed: Option<usize>,
    /// The argument that begins one element behind an aligned place.
    shifted: Option<usize>,
    /// The output that lies in the place of an input.
    alias: Option<(usize, usize)>,
}

impl Lay {
    /// Contiguous, each in memory of its own.
    pub(super) fn plain() -> Self {
        Self::default()
    }

    pub(super) fn gapped(argument: usize) -> Self {
        Self {
            gapped: vec![argument],
            ..Self::default()
        }
    }

    pub(super) fn all_gapped(arguments: usize) -> Self {
        Self {
            gapped: (0..arguments).collect(),
            ..Self::default()
        }
    }

    pub(super) fn transposed(argument: usize) -> Self {
        Self {
            transposed: Some(argument),
            ..Self::default()
        }
    }

    pub(super) fn shifted(argument: usize) -> Self {
        Self {
            shifted: Some(argument),
            ..Self::default()
        }
    }

    pub(super) fn aliased(output: usize, input: usize) -> Self {
        Self {
            alias: Some((output, input)),
            ..Self::default()
        }
    }

    /// Whether it makes another call of `call` than the plain one.
    pub(super) fn changes(&self, call: &Call) -> bool {
        let two_dims = |&argument: &usize| {
            let tensors = &call.args[argument];
            !tensors.is_empty()
                && tensors.iter().all(|t| {
                    t.shape.len() >= 2 && t.shape.iter().rev().take(2).all(|&extent| extent > 1)
                })
        };
        let alike = |&(output, input): &(usize, usize)| {
            let (output, input) = (&call.args[output], &call.args[input]);
            output.len() == input.len()
                && !output.is_empty()
                && output
                    .iter()
                    .zip(input)
                    .all(|(a, b)| a.dtype == b.dtype && a.shape == b.shape && !a.bytes.is_empty())
        };
        self.gapped.iter().all(two_dims)
            && self.transposed.iter().all(two_dims)
            && self.alias.iter().all(alike)
    }

    /// By how many bytes the shifted argument lies behind an aligned place.
    pub(super) fn shift_bytes(&self, call: &Call) -> Option<u64> {
        let tensor = call.args[self.shifted?].first()?;
        (!tensor.bytes.is_empty()).then_some(tensor.dtype.size_bytes() as u64)
    }

    /// In words, for a message; nothing for the plain one.
    pub(super) fn told(&self, op: &Op) -> String {
        let name = |argument: usize| &op.schema().arguments()[argument].name;
        let mut text = String::new();
        let mut tell = |what: String| {
            let _ = write!(text, ", {what}");
        };
        for &argument in &self.gapped {
            tell(format!("{} with gaps between rows", name(argument)));
        }
        if let Some(argument) = self.transposed {
            tell(format!("{} transposed", name(argument)));
        }
        if let Some(argument) = self.shifted {
            tell(format!(
                "{} one element behind an aligned place",
                name(argument)
            ));
        }
        if let Some((output, input)) = self.alias {
            tell(format!("{} in the memory of {}", name(output), name(input)));
        }
        text
    }

    /// The strides of a tensor of argument `argument`.
    fn strides(&self, argument: usize, shape: &[i64]) -> Vec<i64> {
        let rank = shape.len();
        let mut strides = vec![1; rank];
        let mut next = 1;
        let mut order: Vec<usize> = (0..rank).rev().collect();
        if self.transposed == Some(argument) && rank >= 2 {
            order.swap(0, 1);
        }
        for (place, &dim) in order.iter().enumerate() {
            strides[dim] = next;
            next *= shape[dim].max(1);
            if place == 0 && self.gapped.contains(&argument) {
                next += GAP;
            }
        }
        strides
    }
}

/// The tensors of a call on a device.
pub(super) struct Placed {
    args: Vec<Vec<Laid>>,
}

/// A tensor, and what its buffer held before.
struct Laid {
    tensor: Tensor,
    before: Vec<u8>,
    /// Whether a byte of the buffer is one of an element.
    inside: Vec<bool>,
}

impl Placed {
    pub(super) fn new(stream: &Stream, call: &Call, lay: &Lay) -> Result<Self, Problem> {
        let mut args: Vec<Vec<Laid>> = Vec::new();
        for (argument, tensors) in call.args.iter().enumerate() {
            let mut laid = Vec::new();
            for host in tensors {
                laid.push(put(stream, lay, argument, host)?);
            }
            args.push(laid);
        }
        if let Some((output, input)) = lay.alias {
            for at in 0..args[output].len() {
                let there = &args[input][at];
                args[output][at] = Laid {
                    tensor: there.tensor.clone(),
                    before: there.before.clone(),
                    inside: there.inside.clone(),
                };
            }
        }
        Ok(Self { args })
    }

    pub(super) fn lists(&self) -> Vec<Vec<&Tensor>> {
        let args = self.args.iter();
        args.map(|arg| arg.iter().map(|laid| &laid.tensor).collect())
            .collect()
    }

    /// The first byte around or between elements that was written, in words.
    pub(super) fn touched(&self, stream: &Stream, op: &Op) -> Result<Option<String>, Problem> {
        for (argument, laid) in op.schema().arguments().iter().zip(&self.args) {
            for one in laid {
                let mut after = vec![0; one.before.len()];
                one.tensor.buffer().read(stream, 0, &mut after)?;
                let wrong =
                    (0..after.len()).find(|&at| !one.inside[at] && after[at] != one.before[at]);
                if let Some(at) = wrong {
                    return Ok(Some(format!(
                        "byte {} from the start of {} lies in no element, and was written",
                        at.cast_signed() - MARGIN_BYTES.cast_signed(),
                        argument.name
                    )));
                }
            }
        }
        Ok(None)
    }
}

fn put(stream: &Stream, lay: &Lay, argument: usize, host: &HostTensor) -> Result<Laid, Problem> {
    let size = host.dtype.size_bytes();
    let strides = lay.strides(argument, &host.shape);
    let shift = if lay.shifted == Some(argument) {
        size
    } else {
        0
    };
    let start = MARGIN_BYTES + shift;
    let reach: i64 = (host.shape.iter().zip(&strides))
        .map(|(extent, stride)| (extent - 1).max(0) * stride)
        .sum();
    let reach = usize::try_from(reach).unwrap_or(0) + 1;
    let mut before = vec![AROUND; start + reach * size + MARGIN_BYTES];
    let mut inside = vec![false; before.len()];
    for (element, bytes) in host.bytes.chunks_exact(size).enumerate() {
        let at = start + offset(element, &host.shape, &strides) * size;
        before[at..at + size].copy_from_slice(bytes);
        inside[at..at + size].fill(true);
    }
    let buffer = Buffer::new(stream, before.len() as u64)?;
    buffer.write(stream, 0, &before)?;
    let tensor = Tensor::view_of(&buffer, start as u64, host.dtype, &host.shape, &strides)?;
    Ok(Laid {
        tensor,
        before,
        inside,
    })
}

/// Where element `element` in row-major order lies, in elements.
fn offset(mut element: usize, shape: &[i64], strides: &[i64]) -> usize {
    let mut at = 0;
    for (&extent, &stride) in shape.iter().zip(strides).rev() {
        let extent = usize::try_from(extent).unwrap_or(1).max(1);
        at += element % extent * usize::try_from(stride).unwrap_or(0);
        element /= extent;
    }
    at
}
