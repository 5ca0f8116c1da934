//! A call against a schema: which dtypes and extents its variables stand for.
//! Knows nothing of kernels, and allocates nothing unless it refuses.

use crate::{
    ArgView, Argument, Binding, DType, Dim, Element, MAX_DIM_VARIABLES, MAX_DTYPE_VARIABLES,
    MAX_RANK, Multiplicity, Schema, TensorView, binding::Dims,
};

impl Schema {
    /// Binds a whole call: inputs, then outputs, in the order of [`Schema::arguments`]. A missing
    /// optional is an empty slice.
    ///
    /// # Errors
    /// When an argument breaks a rule of the schema, or describes more than 2^63 bytes.
    pub fn bind<'a>(&'a self, args: &'a [ArgView<'a>]) -> Result<Binding<'a>, BindError> {
        Binder::bind(self, self.arguments(), args)
    }

    /// Binds the inputs alone, to learn what outputs to allocate ([`Binding::output_specs`]).
    ///
    /// # Errors
    /// As [`Schema::bind`].
    pub fn bind_inputs<'a>(&'a self, args: &'a [ArgView<'a>]) -> Result<Binding<'a>, BindError> {
        Binder::bind(self, self.inputs(), args)
    }
}

/// A call that does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {}{message}", argument.as_ref().map_or(String::new(), |a| format!("argument '{a}': ")))]
pub struct BindError {
    /// The op.
    pub op: String,
    /// The rule that was broken.
    pub rule: BindRule,
    /// The argument that breaks it, such as `weight` or `grads[3]`, where it is one argument.
    pub argument: Option<String>,
    /// What was found and what the rule wants.
    pub message: String,
}

/// The rules of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindRule {
    /// There are as many arguments as the schema has.
    ArgumentCount,
    /// One tensor, at most one for an optional, equally many for every list.
    TensorCount,
    /// The dtype is the schema's, is one of the alternatives, and equal for equal variables.
    DType,
    /// The rank fits the shape.
    Rank,
    /// Equal variables have equal extents, constants their own.
    Dimension,
    /// No extent is negative.
    Extent,
    /// Elements, bytes and offsets stay below 2^63.
    Size,
    /// There is a stride for each extent, and what is written does not overlap itself.
    Strides,
    /// An alias is another tensor of the call.
    Alias,
    /// Scalars and attributes are known, given, and of their type.
    Scalar,
}

/// One tensor of the call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) argument: usize,
    pub(crate) element: usize,
}

/// A binding while it is being made.
pub(crate) struct Binder<'a>(pub(crate) Binding<'a>);

impl<'a> Binder<'a> {
    fn bind(
        schema: &'a Schema,
        arguments: &'a [Argument],
        args: &'a [ArgView<'a>],
    ) -> Result<Binding<'a>, BindError> {
        let dtypes = [None; MAX_DTYPE_VARIABLES];
        let dims = [None; MAX_DIM_VARIABLES];
        let mut binder = Self(Binding {
            schema,
            args,
            dtypes,
            dims,
            list_len: 0,
            elements: 0,
        });
        binder.count_tensors(arguments)?;
        binder.bind_tensors()?;
        Ok(binder.0)
    }

    /// Binds the tensors that are there, whatever their number.
    pub(crate) fn bind_tensors(&mut self) -> Result<(), BindError> {
        let args = self.0.args;
        let tensor_count = args.iter().map(|arg| arg.len()).sum();
        let mut index = 0;
        for (argument, &arg) in args.iter().enumerate() {
            let mut elements = 0_i64;
            for (element, tensor) in arg.iter().enumerate() {
                let place = Place { argument, element };
                let count = self.check_tensor(place, tensor)?;
                elements = elements
                    .checked_add(count)
                    .ok_or_else(|| self.too_large(place, "the list exceeds 2^63 elements"))?;
                self.bind_dtype(place, tensor.dtype)?;
                self.check_alias(place, index, tensor_count, tensor)?;
                index += 1;
            }
            self.0.elements = self.0.elements.max(elements);
        }
        self.bind_dims()?;
        self.check_alternatives()
    }

    fn count_tensors(&mut self, arguments: &[Argument]) -> Result<(), BindError> {
        let args = self.0.args;
        if args.len() != arguments.len() {
            let names: Vec<&str> = arguments
                .iter()
                .map(|argument| argument.name.as_str())
                .collect();
            let (takes, names, has) = (names.len(), names.join(", "), args.len());
            let message = format!("takes {takes} tensor arguments ({names}), the call has {has}");
            return Err(self.0.refuse(BindRule::ArgumentCount, None, message));
        }
        let mut first_list: Option<&Argument> = None;
        for (argument, arg) in arguments.iter().zip(args) {
            let has = arg.len();
            let wants = match (argument.multiplicity, first_list) {
                (Multiplicity::One, _) if has != 1 => "it takes one".to_owned(),
                (Multiplicity::Optional, _) if has > 1 => "it takes one or none".to_owned(),
                (Multiplicity::List, None) => {
                    self.0.list_len = has;
                    first_list = Some(argument);
                    continue;
                }
                (Multiplicity::List, Some(first)) if has != self.0.list_len => {
                    format!("'{}' has {}", first.name, self.0.list_len)
                }
                _ => continue,
            };
            let message = format!("has {has} tensors, but {wants}");
            let mut error = self.0.refuse(BindRule::TensorCount, None, message);
            error.argument = Some(argument.name.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Checks what concerns one tensor alone; gives its element count.
    pub(crate) fn check_tensor(
        &self,
        place: Place,
        tensor: &TensorView<'_>,
    ) -> Result<i64, BindError> {
        let (shape, strides) = (tensor.shape, tensor.strides);
        let refuse = |rule, message| Err(self.0.refuse(rule, Some(place), message));
        if shape.len() > MAX_RANK {
            let message = format!("has {} dimensions, the limit is {MAX_RANK}", shape.len());
            return refuse(BindRule::Rank, message);
        }
        if strides.len() != shape.len() {
            let message = format!("has {} extents, but {} strides", shape.len(), strides.len());
            return refuse(BindRule::Strides, message);
        }
        if let Some(negative) = shape.iter().find(|&&extent| extent < 0) {
            return refuse(
                BindRule::Extent,
                format!("has the negative extent {negative}"),
            );
        }
        let fits = |elements: i64| {
            i64::try_from(tensor.dtype.size_bytes())
                .ok()?
                .checked_mul(elements)
        };
        let count = element_count(shape).filter(|&count| fits(count).is_some());
        let count = count.ok_or_else(|| self.too_large(place, "its size exceeds 2^63 bytes"))?;
        if count > 0 && span_elements(shape, strides).and_then(fits).is_none() {
            return Err(self.too_large(place, "the distance of its elements exceeds 2^63 bytes"));
        }
        let written = self.0.schema.arguments[place.argument].is_written();
        if written && count > 0 && !elements_are_apart(shape, strides) {
            let message = if shape.iter().zip(strides).any(|(&n, &by)| n > 1 && by == 0) {
                "is written, but a stride of 0 makes its elements overlap".to_owned()
            } else {
                format!(
                    "is written, but strides {strides:?} of shape {shape:?} let its elements overlap"
                )
            };
            return refuse(BindRule::Strides, message);
        }
        Ok(count)
    }

    fn check_alias(
        &self,
        place: Place,
        index: usize,
        tensor_count: usize,
        tensor: &TensorView<'_>,
    ) -> Result<(), BindError> {
        let Some(alias) = tensor.alias_of else {
            return Ok(());
        };
        if usize::try_from(alias).is_ok_and(|alias| alias != index && alias < tensor_count) {
            return Ok(());
        }
        let message = format!("aliases tensor {alias}, which is no other tensor of the call");
        Err(self.0.refuse(BindRule::Alias, Some(place), message))
    }

    fn bind_dtype(&mut self, place: Place, dtype: DType) -> Result<(), BindError> {
        let schema = self.0.schema;
        let element = schema.arguments[place.argument].element;
        let message = match element {
            Element::Concrete(wanted) if wanted == dtype => return Ok(()),
            Element::Concrete(wanted) => format!("is {dtype}, but it takes {wanted}"),
            Element::Variable(variable) => match self.0.dtypes[variable] {
                Some(bound) if bound != dtype => {
                    let name = &schema.dtype_variables[variable];
                    let binder = self.first_with(element).unwrap_or(place);
                    format!(
                        "is {dtype}, but '{}' makes {name} {bound}",
                        self.0.place_name(binder)
                    )
                }
                _ => {
                    self.0.dtypes[variable] = Some(dtype);
                    return Ok(());
                }
            },
        };
        Err(self.0.refuse(BindRule::DType, Some(place), message))
    }

    fn first_with(&self, element: Element) -> Option<Place> {
        let mut arguments = self.0.arguments();
        let argument = arguments.position(|(of, arg)| of.element == element && !arg.is_empty())?;
        Some(Place {
            argument,
            element: 0,
        })
    }

    pub(crate) fn check_alternatives(&self) -> Result<(), BindError> {
        let schema = self.0.schema;
        for group in &schema.alternatives {
            if group
                .rows
                .iter()
                .any(|row| self.fits(&group.variables, row))
            {
                continue;
            }
            let bound = group
                .variables
                .iter()
                .map(|&variable| self.0.dtypes[variable]);
            let found = tuple(bound.map(|dtype| dtype.map_or("?", DType::name)));
            let names = group
                .variables
                .iter()
                .map(|&variable| &*schema.dtype_variables[variable]);
            let rows = group
                .rows
                .iter()
                .map(|row| tuple(row.iter().map(|dtype| dtype.name())));
            let rows = rows.collect::<Vec<_>>().join(" | ");
            let message = format!("{} is {found}, the schema takes {rows}", tuple(names));
            let mut last = group
                .variables
                .iter()
                .rev()
                .map(|&variable| Element::Variable(variable));
            let place = last.find_map(|element| self.first_with(element));
            return Err(self.0.refuse(BindRule::DType, place, message));
        }
        Ok(())
    }

    fn fits(&self, variables: &[usize], row: &[DType]) -> bool {
        let mut pairs = variables.iter().zip(row);
        pairs.all(|(&variable, dtype)| self.0.dtypes[variable].is_none_or(|bound| bound == *dtype))
    }

    /// The dtype of an output: given, bound, or the only one that the alternatives leave.
    pub(crate) fn output_dtype(&self, output: &Argument) -> Result<DType, BindError> {
        let variable = match output.element {
            Element::Concrete(dtype) => return Ok(dtype),
            Element::Variable(variable) => variable,
        };
        if let Some(dtype) = self.0.dtypes[variable] {
            return Ok(dtype);
        }
        let groups = self.0.schema.alternatives.iter();
        let mut left: Vec<DType> = groups
            .filter_map(|group| Some((group, group.column(variable)?)))
            .flat_map(|(group, column)| {
                let rows = group
                    .rows
                    .iter()
                    .filter(|row| self.fits(&group.variables, row));
                rows.map(move |row| row[column])
            })
            .collect();
        left.sort_unstable();
        left.dedup();
        if let [dtype] = left[..] {
            return Ok(dtype);
        }
        let name = &self.0.schema.dtype_variables[variable];
        let left = left
            .iter()
            .map(|dtype| dtype.name())
            .collect::<Vec<_>>()
            .join(" or ");
        let message = format!("the inputs do not say what {name} is, choose {left}");
        let mut error = self.0.refuse(BindRule::DType, None, message);
        error.argument = Some(output.name.clone());
        Err(error)
    }

    /// Single tensors first; then element by element through the lists, whose own variables start
    /// anew for each.
    fn bind_dims(&mut self) -> Result<(), BindError> {
        self.bind_dims_of(0, false)?;
        for element in 0..self.0.list_len {
            self.forget_element();
            self.bind_dims_of(element, true)?;
        }
        self.forget_element();
        Ok(())
    }

    fn forget_element(&mut self) {
        for (dim, variable) in self.0.dims.iter_mut().zip(&self.0.schema.dim_variables) {
            if variable.per_element {
                *dim = None;
            }
        }
    }

    fn bind_dims_of(&mut self, element: usize, lists: bool) -> Result<(), BindError> {
        for (index, (argument, arg)) in self.0.arguments().enumerate() {
            if (argument.multiplicity == Multiplicity::List) != lists {
                continue;
            }
            if let Some(tensor) = arg.get(element)
                && let Err(mismatch) = unify(&mut self.0.dims, argument, tensor.shape)
            {
                let place = Place {
                    argument: index,
                    element,
                };
                return Err(self.explain(place, tensor.shape, mismatch));
            }
        }
        Ok(())
    }

    fn explain(&self, place: Place, shape: &[i64], mismatch: Mismatch) -> BindError {
        let argument = &self.0.schema.arguments[place.argument];
        let (rule, message) = match mismatch {
            Mismatch::Rank => {
                let least = if argument.is_variadic() {
                    "at least "
                } else {
                    ""
                };
                let (has, wants) = (shape.len(), argument.fixed_rank());
                (
                    BindRule::Rank,
                    format!("has {has} dimensions, but it takes {least}{wants}"),
                )
            }
            Mismatch::Constant { axis, wanted } => {
                let message = format!(
                    "dimension {axis} is {}, but it must be {wanted}",
                    shape[axis]
                );
                (BindRule::Dimension, message)
            }
            Mismatch::Variable {
                variable,
                first,
                len,
            } => {
                let name = &self.0.schema.dim_variables[variable];
                let shown = |extents: &[i64]| match (extents, name.variadic) {
                    ([extent], false) => extent.to_string(),
                    _ => format!("{extents:?}"),
                };
                let found = shown(&shape[first..first + len]);
                let known = shown(self.0.dims[variable].unwrap_or_default());
                let binder = self.0.place_name(self.dim_binder(variable, place));
                let dimension = if name.variadic {
                    "the dimensions"
                } else {
                    "dimension"
                };
                let verb = if name.variadic { "are" } else { "is" };
                let message = format!(
                    "{dimension} {name} {verb} {found}, but '{binder}' has {name} = {known}"
                );
                (BindRule::Dimension, message)
            }
        };
        self.0.refuse(rule, Some(place), message)
    }

    /// The tensor that bound `variable` before `place` met it: a single one, else one of the lists.
    fn dim_binder(&self, variable: usize, place: Place) -> Place {
        let uses = |argument: &Argument| {
            let used = [Dim::Variable(variable), Dim::Variadic(variable)];
            argument.dims.iter().any(|dim| used.contains(dim))
        };
        let find = |lists: bool| {
            self.0.arguments().position(|(argument, arg)| {
                let list = argument.multiplicity == Multiplicity::List;
                list == lists && !arg.is_empty() && uses(argument)
            })
        };
        let per_element = self.0.schema.dim_variables[variable].per_element;
        let single = find(false).map(|argument| Place {
            argument,
            element: 0,
        });
        let list = || {
            let element = if per_element { place.element } else { 0 };
            find(true).map(|argument| Place { argument, element })
        };
        single.or_else(list).unwrap_or(place)
    }

    fn too_large(&self, place: Place, message: &str) -> BindError {
        self.0
            .refuse(BindRule::Size, Some(place), message.to_owned())
    }
}

/// Why a shape does not fit.
#[derive(Clone, Copy)]
pub(crate) enum Mismatch {
    Rank,
    Constant {
        axis: usize,
        wanted: i64,
    },
    Variable {
        variable: usize,
        first: usize,
        len: usize,
    },
}

pub(crate) fn unify<'a>(
    dims: &mut Dims<'a>,
    argument: &Argument,
    shape: &'a [i64],
) -> Result<(), Mismatch> {
    let group = shape
        .len()
        .checked_sub(argument.fixed_rank())
        .ok_or(Mismatch::Rank)?;
    if group > 0 && !argument.is_variadic() {
        return Err(Mismatch::Rank);
    }
    let mut first = 0;
    for dim in &argument.dims {
        let len = if matches!(dim, Dim::Variadic(_)) {
            group
        } else {
            1
        };
        let found = &shape[first..first + len];
        match *dim {
            Dim::Constant(wanted) if found != [wanted] => {
                return Err(Mismatch::Constant {
                    axis: first,
                    wanted,
                });
            }
            Dim::Constant(_) => {}
            Dim::Variable(variable) | Dim::Variadic(variable) => match dims[variable] {
                Some(known) if known != found => {
                    return Err(Mismatch::Variable {
                        variable,
                        first,
                        len,
                    });
                }
                _ => dims[variable] = Some(found),
            },
        }
        first += len;
    }
    Ok(())
}

/// Product of the extents, 0 as soon as one is 0; `None` beyond `i64`.
pub(crate) fn element_count(shape: &[i64]) -> Option<i64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1_i64, |count, &extent| count.checked_mul(extent))
}

/// Bound on the distance between the first and the last element in memory, in elements.
fn span_elements(shape: &[i64], strides: &[i64]) -> Option<i64> {
    shape
        .iter()
        .zip(strides)
        .try_fold(1_i64, |span, (&extent, &stride)| {
            span.checked_add((extent - 1).checked_mul(stride.checked_abs()?)?)
        })
}

/// Whether each stride leads past everything that the smaller ones reach together, so that no two
/// elements share memory: so it is in every slice, transposition or flip of a contiguous tensor.
/// Strides that interleave without ever meeting are not told from those that meet.
fn elements_are_apart(shape: &[i64], strides: &[i64]) -> bool {
    let mut steps = [(0, 0); MAX_RANK];
    let mut rank = 0;
    for (&extent, &stride) in shape.iter().zip(strides).filter(|(extent, _)| **extent > 1) {
        steps[rank] = (stride.unsigned_abs(), extent.unsigned_abs());
        rank += 1;
    }
    steps[..rank].sort_unstable();
    let mut reach = 0_u64;
    steps[..rank].iter().all(|&(stride, extent)| {
        let apart = stride > reach;
        // No overflow: the whole span was found to fit.
        reach += (extent - 1) * stride;
        apart
    })
}

fn tuple<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.collect();
    if let [item] = items[..] {
        item.to_owned()
    } else {
        format!("({})", items.join(", "))
    }
}
