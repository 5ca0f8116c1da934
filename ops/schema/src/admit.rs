//! A bound call against a kernel's constraints: its score, or the one constraint that refuses it.
//! The file that the constraints come from is read in `constraint`.

use std::fmt;

use crate::{
    Attr, Binding, ExtentRange, Kernel, KernelFlag, Layout, Multiplicity, TensorView,
    bind::element_count,
};

/// Why a kernel does not take a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel} {message}")]
pub struct Refusal {
    /// The kernel.
    pub kernel: String,
    /// Which constraint refuses.
    pub constraint: ConstraintKind,
    /// The argument, variable, attribute or feature that it is about; empty for the whole call.
    pub subject: String,
    /// What the kernel takes and what the call has.
    pub message: String,
}

/// The constraints, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ConstraintKind {
    /// The kernel is for another op.
    Op,
    /// `target`.
    Target,
    /// `attributes`.
    Attributes,
    /// `dtypes`.
    DTypes,
    /// `rank`.
    Rank,
    /// `dims`.
    Dims,
    /// `layout`.
    Layout,
    /// `alignment_bytes`.
    Alignment,
    /// `max_elements`.
    MaxElements,
    /// The flag `zero_size`.
    ZeroSize,
    /// The flag `in_place`.
    InPlace,
    /// `score`.
    Score,
}

impl ConstraintKind {
    /// Its number in the boundary's `DsErrorSink.reason`.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Its name, as in `kernel.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Op => "op",
            Self::Target => "target",
            Self::Attributes => "attributes",
            Self::DTypes => "dtypes",
            Self::Rank => "rank",
            Self::Dims => "dims",
            Self::Layout => "layout",
            Self::Alignment => "alignment_bytes",
            Self::MaxElements => "max_elements",
            Self::ZeroSize => "zero_size",
            Self::InPlace => "in_place",
            Self::Score => "score",
        }
    }
}

impl Kernel {
    /// The score for this call on a device of `target`; `attributes` are in schema order
    /// ([`crate::Schema::resolve_attributes`]). The kernel has passed [`Kernel::check`].
    ///
    /// # Errors
    /// With the first constraint that the call does not meet.
    pub fn admit(
        &self,
        binding: &Binding<'_>,
        attributes: &[Attr],
        target: &str,
    ) -> Result<i32, Refusal> {
        let admission = Admission {
            kernel: self,
            binding,
        };
        admission.op()?;
        self.admit_target(target)?;
        admission.attributes(attributes)?;
        admission.dtypes()?;
        admission.tensors()?;
        admission.dims()?;
        admission.flags()?;
        admission.score()
    }

    /// Whether a device of `target` can run this kernel at all, whatever the call.
    ///
    /// # Errors
    /// With the feature that the target lacks.
    pub fn admit_target(&self, target: &str) -> Result<(), Refusal> {
        let lacks = |feature: &&String| !target.split('+').any(|has| has == *feature);
        match self.constraints.target.iter().find(lacks) {
            Some(feature) => {
                let message = format!("needs {feature}, the device is {target}");
                Err(self.refusal(ConstraintKind::Target, feature, message))
            }
            None => Ok(()),
        }
    }

    fn refusal(&self, constraint: ConstraintKind, subject: &str, message: String) -> Refusal {
        Refusal {
            kernel: self.name.clone(),
            constraint,
            subject: subject.to_owned(),
            message,
        }
    }
}

/// One kernel and one call.
struct Admission<'a> {
    kernel: &'a Kernel,
    binding: &'a Binding<'a>,
}

impl Admission<'_> {
    fn op(&self) -> Result<(), Refusal> {
        let called = self.binding.schema().name();
        if self.kernel.op == called {
            return Ok(());
        }
        let message = format!("implements {}, the call is {called}", self.kernel.op);
        self.refuse(ConstraintKind::Op, "", message)
    }

    fn attributes(&self, attributes: &[Attr]) -> Result<(), Refusal> {
        let allowed = &self.kernel.constraints.attributes;
        for (index, scalar) in self.binding.schema().attributes().iter().enumerate() {
            let Some(allowed) = allowed.get(&scalar.name) else {
                continue;
            };
            let value = attributes.get(index).copied();
            if value.is_none() || !allowed.iter().any(|of| of.to_kind(scalar.kind) == value) {
                let found = value.map_or_else(|| "none".to_owned(), |value| value.to_string());
                let (name, set) = (&scalar.name, set(allowed));
                let message = format!("takes {name} in {set}, the call has {found}");
                return self.refuse(ConstraintKind::Attributes, name, message);
            }
        }
        Ok(())
    }

    fn dtypes(&self) -> Result<(), Refusal> {
        for (variable, allowed) in &self.kernel.constraints.dtypes {
            match self.binding.dtype(variable) {
                Some(dtype) if !allowed.contains(&dtype) => {
                    let message =
                        format!("takes {variable} in {}, the call has {dtype}", set(allowed));
                    return self.refuse(ConstraintKind::DTypes, variable, message);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn tensors(&self) -> Result<(), Refusal> {
        for (argument, arg) in self.binding.arguments() {
            for (element, tensor) in arg.iter().enumerate() {
                let place = match argument.multiplicity {
                    Multiplicity::List => format!("{}[{element}]", argument.name),
                    Multiplicity::One | Multiplicity::Optional => argument.name.clone(),
                };
                self.rank(&argument.name, &place, tensor)?;
                self.layout(&argument.name, &place, tensor)?;
                self.alignment(&argument.name, &place, tensor)?;
                self.max_elements(&place, tensor)?;
            }
        }
        Ok(())
    }

    fn rank(&self, name: &str, place: &str, tensor: &TensorView<'_>) -> Result<(), Refusal> {
        let rank = tensor.shape.len();
        match self.kernel.constraints.rank.get(name) {
            Some(&(least, greatest)) if rank < least || rank > greatest => {
                let message = format!(
                    "takes {place} of rank {least} to {greatest}, the call has rank {rank}"
                );
                self.refuse(ConstraintKind::Rank, place, message)
            }
            _ => Ok(()),
        }
    }

    fn layout(&self, name: &str, place: &str, tensor: &TensorView<'_>) -> Result<(), Refusal> {
        let stated = self.kernel.constraints.layout.get(name).copied();
        let (wanted, found) = (stated.unwrap_or(Layout::Contiguous), tensor.layout());
        if found <= wanted {
            return Ok(());
        }
        let message = format!(
            "takes {place} {}, the call has it {}",
            wanted.name(),
            found.name()
        );
        self.refuse(ConstraintKind::Layout, place, message)
    }

    fn alignment(&self, name: &str, place: &str, tensor: &TensorView<'_>) -> Result<(), Refusal> {
        let stated = self.kernel.constraints.alignment_bytes.get(name);
        let wanted = stated.map_or(tensor.dtype.alignment_log2().into(), |bytes| bytes.ilog2());
        let found = u32::from(tensor.alignment_log2);
        if found >= wanted || tensor.shape.contains(&0) {
            return Ok(());
        }
        let bytes = |log2| 1_u64.checked_shl(log2).unwrap_or(0);
        let message = format!(
            "takes {place} aligned to {} bytes, the call has it aligned to {}",
            bytes(wanted),
            bytes(found)
        );
        self.refuse(ConstraintKind::Alignment, place, message)
    }

    fn max_elements(&self, place: &str, tensor: &TensorView<'_>) -> Result<(), Refusal> {
        let Some(most) = self.kernel.constraints.max_elements else {
            return Ok(());
        };
        let found = element_count(tensor.shape).unwrap_or(i64::MAX);
        if found <= most {
            return Ok(());
        }
        let message = format!("takes at most {most} elements, the call's {place} has {found}");
        self.refuse(ConstraintKind::MaxElements, place, message)
    }

    fn dims(&self) -> Result<(), Refusal> {
        let variables = self.binding.schema().dim_variables();
        for (name, range) in &self.kernel.constraints.dims {
            let per_element = variables
                .iter()
                .any(|of| of.per_element && of.name == *name);
            let elements = if per_element {
                self.binding.list_len()
            } else {
                1
            };
            for element in 0..elements {
                let extents = if per_element {
                    self.binding.element_extents(element, name)
                } else {
                    self.binding.extents(name)
                };
                for &extent in extents.unwrap_or_default() {
                    self.extent(name, *range, extent)?;
                }
            }
        }
        Ok(())
    }

    fn extent(&self, name: &str, range: ExtentRange, extent: i64) -> Result<(), Refusal> {
        let ExtentRange { min, max, multiple } = range;
        let wanted = if extent < min {
            format!("from {min}")
        } else if extent > max {
            format!("up to {max}")
        } else if multiple > 1 && extent % multiple != 0 {
            format!("in multiples of {multiple}")
        } else {
            return Ok(());
        };
        let message = format!("takes {name} {wanted}, the call has {extent}");
        self.refuse(ConstraintKind::Dims, name, message)
    }

    fn flags(&self) -> Result<(), Refusal> {
        for (argument, arg) in self.binding.arguments() {
            let empty_list = argument.multiplicity == Multiplicity::List && arg.is_empty();
            let empty = empty_list || arg.iter().any(|tensor| tensor.shape.contains(&0));
            if empty && !self.kernel.has(KernelFlag::ZeroSize) {
                let name = &argument.name;
                let message =
                    format!("takes no tensors without elements, the call's {name} has none");
                return self.refuse(ConstraintKind::ZeroSize, name, message);
            }
        }
        match self.written_alias() {
            Some(name) if !self.kernel.has(KernelFlag::InPlace) => {
                let message = format!("does not work in place, the call's {name} shares memory");
                self.refuse(ConstraintKind::InPlace, name, message)
            }
            _ => Ok(()),
        }
    }

    /// The argument of a tensor that shares memory with another one, where either is written.
    fn written_alias(&self) -> Option<&str> {
        let tensors = || {
            let arguments = self.binding.arguments();
            arguments.flat_map(|(of, arg)| arg.iter().map(move |tensor| (of, tensor)))
        };
        let written: Vec<bool> = tensors()
            .map(|(argument, _)| argument.is_written())
            .collect();
        let is_written =
            |index| usize::try_from(index).is_ok_and(|index| written.get(index) == Some(&true));
        let (argument, _) = tensors().find(|(argument, tensor)| {
            tensor
                .alias_of
                .is_some_and(|other| argument.is_written() || is_written(other))
        })?;
        Some(&argument.name)
    }

    fn score(&self) -> Result<i32, Refusal> {
        let elements = self.binding.elements();
        let holds = |(least, greatest): (i64, Option<i64>)| {
            elements >= least && greatest.is_none_or(|greatest| elements <= greatest)
        };
        match self.kernel.score.iter().find(|band| holds(band.elements)) {
            Some(band) if band.score > 0 => Ok(band.score),
            _ => {
                let message = format!("has no score for a call of {elements} elements");
                self.refuse(ConstraintKind::Score, "", message)
            }
        }
    }

    fn refuse<T>(
        &self,
        constraint: ConstraintKind,
        subject: &str,
        message: String,
    ) -> Result<T, Refusal> {
        Err(self.kernel.refusal(constraint, subject, message))
    }
}

/// `{a, b}`.
fn set(items: &[impl fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("{{{}}}", items.join(", "))
}
