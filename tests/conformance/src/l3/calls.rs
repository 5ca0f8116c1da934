//! Calls of an op, made from its cases and from what a kernel says that it takes.
//!
//! A case gives what only the op knows: scalars, and numbers that make sense. Other calls are its
//! own with other extents, its numbers repeated.

use std::fmt::Write as _;

use ds_core::{
    Device,
    op::{self, HostTensor, Op, Size},
};
use ds_schema::{Argument, Attr, Dim, ExtentRange, Kernel, Multiplicity, TensorSpec};

use crate::check::Problem;

/// Extents around vectors, blocks and powers of two.
const EXTENTS: [i64; 16] = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 257];
/// Dimensions that a variadic group may stand for.
const GROUPS: [&[i64]; 7] = [&[], &[1], &[7], &[16], &[3, 5], &[2, 1, 3], &[1, 2, 1, 2]];
/// How calls are laid: as well as any kernel asks for.
const ALIGNMENT_LOG2: u8 = 8;
/// Tensors stay below this, so that a kernel is checked in seconds.
const MOST_ELEMENTS: i64 = 1 << 15;
/// The most calls of other dtypes and attributes.
const MOST_SEEDS: usize = 16;
/// The most calls that another kernel, or the reference, has to take.
const MOST_OUTSIDE: usize = 8;

/// A call in host memory.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) args: Vec<Vec<HostTensor>>,
    pub(super) attributes: Vec<Attr>,
    pub(super) scalars: Vec<Attr>,
    device: Device,
}

/// Numbers that are none, or look like another one.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    Nan,
    Infinity,
    NegativeZero,
}

/// One call of `op` that `kernel` takes for each combination of dtypes, attributes and optionals, as
/// square as the op's cases have it.
pub(super) fn seeds(
    op: &'static Op,
    kernel: &Kernel,
    device: Device,
) -> Result<Vec<Call>, Problem> {
    let mut found: Vec<Call> = Vec::new();
    for case in op.cases(Size::Small) {
        let host = case.call()?;
        let mut call = Call {
            args: host.args,
            attributes: host.attributes,
            scalars: host.scalars,
            device,
        };
        call.drop_empty(op);
        if !call.is_ordinary() || !call.is_taken(op, kernel) {
            continue;
        }
        match found.iter_mut().find(|other| other.is_like(&call)) {
            Some(other) if call.typicality() > other.typicality() => *other = call,
            Some(_) => {}
            None => found.push(call),
        }
    }
    found.truncate(MOST_SEEDS);
    Ok(found)
}

impl Call {
    /// Takes the tensors without elements out of lists: they have no numbers to repeat.
    fn drop_empty(&mut self, op: &Op) {
        let is_list = |(argument, _): &(&Argument, _)| argument.multiplicity == Multiplicity::List;
        let mut lists: Vec<&mut Vec<HostTensor>> = (op.schema().arguments().iter())
            .zip(&mut self.args)
            .filter(is_list)
            .map(|(_, arg)| arg)
            .collect();
        let len = lists.first().map_or(0, |list| list.len());
        for at in (0..len).rev() {
            if lists.iter().any(|list| list[at].bytes.is_empty()) {
                for list in &mut lists {
                    list.remove(at);
                }
            }
        }
    }

    /// Calls of other sizes that the kernel takes.
    pub(super) fn sizes(&self, op: &'static Op, kernel: &Kernel) -> Vec<Self> {
        let mut all = self.others(op, kernel);
        all.retain(|call| call.is_taken(op, kernel));
        all
    }

    /// Calls that the op has and the kernel does not take.
    pub(super) fn sizes_outside(
        &self,
        op: &'static Op,
        kernel: &Kernel,
    ) -> Result<Vec<Self>, Problem> {
        let mut all = self.others(op, kernel);
        for case in op.cases(Size::Small) {
            let host = case.call()?;
            all.push(Self {
                args: host.args,
                attributes: host.attributes,
                scalars: host.scalars,
                device: self.device,
            });
        }
        let outside = all
            .into_iter()
            .filter(|call| call.is_ordinary() && call.is_call(op) && !call.is_taken(op, kernel));
        Ok(outside.take(MOST_OUTSIDE).collect())
    }

    /// A call with rows and columns.
    pub(super) fn typical(&self, op: &'static Op, kernel: &Kernel) -> Self {
        let sizes = self.sizes(op, kernel);
        let best = sizes.into_iter().max_by_key(Self::typicality);
        match best {
            Some(best) if best.typicality() > self.typicality() => best,
            _ => self.clone(),
        }
    }

    /// The call with one extent 0, for each that may be, and with empty lists.
    pub(super) fn empty(&self, op: &'static Op, kernel: &Kernel) -> Vec<Self> {
        let mut calls = Vec::new();
        for variable in 0..op.schema().dim_variables().len() {
            let mut extents = self.extents(op);
            let group = &mut extents[variable];
            match group.as_mut_slice() {
                [] => group.push(0),
                [first, ..] => *first = 0,
            }
            calls.push(self.resized(op, &extents));
        }
        if op
            .schema()
            .arguments()
            .iter()
            .any(|a| a.multiplicity == Multiplicity::List)
        {
            let mut call = self.clone();
            for (argument, arg) in op.schema().arguments().iter().zip(&mut call.args) {
                if argument.multiplicity == Multiplicity::List {
                    arg.clear();
                }
            }
            calls.push(call);
        }
        let zero = |call: &Self| {
            // Elsewhere than in its flag a kernel may well have a bound of 1.
            let bounds = kernel.constraints.dims.values();
            bounds.clone().all(|range| range.min == 0) || call.is_taken(op, kernel)
        };
        calls.retain(|call| call.is_call(op) && zero(call));
        calls
    }

    /// The call with such numbers in an argument; nothing where it has no floats.
    pub(super) fn with(&self, argument: usize, fill: Fill) -> Result<Option<Self>, Problem> {
        let mut call = self.clone();
        let Some(tensor) = call.args[argument].first_mut() else {
            return Ok(None);
        };
        if !tensor.dtype.is_float() || tensor.bytes.is_empty() {
            return Ok(None);
        }
        let mut values = tensor.to_f64()?;
        let last = values.len() - 1;
        let number = match fill {
            Fill::Nan => f64::NAN,
            Fill::Infinity => f64::INFINITY,
            Fill::NegativeZero => -0.0,
        };
        values[last / 2] = number;
        values[last] = number;
        tensor.set_f64(&values)?;
        Ok(Some(call))
    }

    /// In words: `rms_norm x=f32[3, 7] ...`.
    pub(super) fn told(&self, op: &Op) -> String {
        let mut text = op.name().to_owned();
        for (argument, arg) in op.schema().arguments().iter().zip(&self.args) {
            let tensors: Vec<_> = arg
                .iter()
                .map(|t| format!("{}{:?}", t.dtype, t.shape))
                .collect();
            let _ = write!(text, " {}={}", argument.name, tensors.join("+"));
        }
        for (attribute, value) in op.schema().attributes().iter().zip(&self.attributes) {
            let _ = write!(text, " {}={value}", attribute.name);
        }
        text
    }

    /// The same with other extents: one variable after the other, and around what bounds it.
    fn others(&self, op: &'static Op, kernel: &Kernel) -> Vec<Self> {
        let own = self.extents(op);
        let mut calls = vec![self.clone()];
        for (variable, dim) in op.schema().dim_variables().iter().enumerate() {
            let bounds = kernel
                .constraints
                .dims
                .get(&dim.name)
                .copied()
                .unwrap_or_default();
            let groups: Vec<Vec<i64>> = if dim.variadic {
                GROUPS.iter().map(|group| group.to_vec()).collect()
            } else {
                around(bounds)
                    .into_iter()
                    .map(|extent| vec![extent])
                    .collect()
            };
            for group in groups {
                let mut extents = own.clone();
                extents[variable] = group;
                calls.push(self.resized(op, &extents));
            }
        }
        calls.retain(|call| {
            let elements = |t: &HostTensor| t.shape.iter().product::<i64>();
            call.args
                .iter()
                .flatten()
                .all(|t| elements(t) <= MOST_ELEMENTS)
        });
        calls
    }

    /// The extents of each dimension variable; of one that each element of a list binds, the first's.
    fn extents(&self, op: &Op) -> Vec<Vec<i64>> {
        let mut extents = vec![Vec::new(); op.schema().dim_variables().len()];
        for (argument, arg) in op.schema().arguments().iter().zip(&self.args) {
            let Some(tensor) = arg.first() else { continue };
            let group = tensor.shape.len() + 1 - argument.dims.len().min(tensor.shape.len() + 1);
            let mut rest = tensor.shape.as_slice();
            for dim in &argument.dims {
                let len = if matches!(dim, Dim::Variadic(_)) {
                    group
                } else {
                    1
                };
                let (own, others) = rest.split_at(len.min(rest.len()));
                rest = others;
                if let Dim::Variable(variable) | Dim::Variadic(variable) = *dim {
                    extents[variable] = own.to_vec();
                }
            }
        }
        extents
    }

    /// The call with these extents, its numbers repeated.
    fn resized(&self, op: &Op, extents: &[Vec<i64>]) -> Self {
        let mut call = self.clone();
        for (argument, arg) in op.schema().arguments().iter().zip(&mut call.args) {
            for tensor in arg {
                let shape = shape_of(argument, extents);
                let elements = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
                let bytes = elements * tensor.dtype.size_bytes();
                let times = bytes.div_ceil(tensor.bytes.len().max(1));
                tensor.bytes = tensor.bytes.repeat(times);
                tensor.bytes.truncate(bytes);
                tensor.shape = shape;
            }
        }
        call
    }

    fn specs(&self) -> Vec<Vec<TensorSpec>> {
        let spec = |t: &HostTensor| TensorSpec {
            alignment_log2: ALIGNMENT_LOG2,
            ..TensorSpec::contiguous(t.dtype, t.shape.clone())
        };
        self.args
            .iter()
            .map(|arg| arg.iter().map(spec).collect())
            .collect()
    }

    /// Whether it fits the op's schema.
    fn is_call(&self, op: &'static Op) -> bool {
        op::explain(self.device, op, &self.specs(), &self.attributes).is_ok()
    }

    /// Whether the kernel's description takes it.
    fn is_taken(&self, op: &'static Op, kernel: &Kernel) -> bool {
        let explained = op::explain(self.device, op, &self.specs(), &self.attributes);
        explained.is_ok_and(|(_, candidates)| {
            candidates
                .iter()
                .any(|c| c.kernel == kernel.name && c.outcome.is_ok())
        })
    }

    /// Whether it has elements, all of them finite where it reads them.
    fn is_ordinary(&self) -> bool {
        let tensors = || self.args.iter().flatten();
        let finite = |t: &HostTensor| {
            // What is only written holds no numbers.
            let unwritten = t.bytes.iter().all(|&byte| byte == 0xff);
            unwritten
                || t.to_f64()
                    .is_ok_and(|values| values.iter().all(|v| v.is_finite()))
        };
        tensors().next().is_some() && tensors().all(|t| !t.bytes.is_empty() && finite(t))
    }

    /// Whether it differs from another in extents and numbers only.
    fn is_like(&self, other: &Self) -> bool {
        let kinds = |call: &Self| -> Vec<Vec<_>> {
            call.args
                .iter()
                .map(|arg| arg.iter().map(|t| t.dtype).take(1).collect())
                .collect()
        };
        kinds(self) == kinds(other) && self.attributes == other.attributes
    }

    /// How much of what may go wrong it has: rows, columns, and not too many of them.
    fn typicality(&self) -> (usize, bool, i64) {
        let tensors = || self.args.iter().flatten();
        let wide = |t: &&HostTensor| {
            t.shape.len() >= 2 && t.shape.iter().rev().take(2).all(|&extent| extent > 1)
        };
        let largest = tensors()
            .map(|t| t.shape.iter().product::<i64>())
            .max()
            .unwrap_or(0);
        (tensors().filter(wide).count(), largest <= 4096, largest)
    }
}

/// Extents inside the bounds, on them, and just outside.
fn around(bounds: ExtentRange) -> Vec<i64> {
    let ExtentRange { min, max, multiple } = bounds;
    let mut extents: Vec<i64> = EXTENTS.to_vec();
    extents.extend([min - 1, min, min + 1]);
    extents.extend([max.saturating_sub(1), max, max.saturating_add(1)]);
    if multiple > 1 {
        let least = (min.max(1) + multiple - 1) / multiple * multiple;
        extents.extend([least - 1, least, least + 1, least + multiple, 7 * multiple]);
    }
    extents.retain(|&extent| (1..=MOST_ELEMENTS).contains(&extent));
    extents.sort_unstable();
    extents.dedup();
    extents
}

fn shape_of(argument: &Argument, extents: &[Vec<i64>]) -> Vec<i64> {
    let mut shape = Vec::new();
    for dim in &argument.dims {
        match *dim {
            Dim::Constant(extent) => shape.push(extent),
            Dim::Variable(variable) | Dim::Variadic(variable) => {
                shape.extend_from_slice(&extents[variable]);
            }
        }
    }
    shape
}
