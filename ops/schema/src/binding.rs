//! What a bound call says of itself, and of the outputs that it needs.
//! Whether a call may be bound at all is decided in `bind`.

use crate::{
    Arg, ArgView, Argument, BindError, BindRule, DType, Dim, MAX_DIM_VARIABLES,
    MAX_DTYPE_VARIABLES, Multiplicity, Schema, TensorSpec,
    bind::{Binder, Place, element_count, unify},
    error::did_you_mean,
};

/// What the variables of a schema stand for in one call.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) args: &'a [ArgView<'a>],
    pub(crate) dtypes: [Option<DType>; MAX_DTYPE_VARIABLES],
    pub(crate) dims: Dims<'a>,
    pub(crate) list_len: usize,
    pub(crate) elements: i64,
}

/// The extents that each dimension variable stands for, borrowed from the shape that bound it.
pub(crate) type Dims<'a> = [Option<&'a [i64]>; MAX_DIM_VARIABLES];

impl<'a> Binding<'a> {
    /// The schema.
    pub fn schema(&self) -> &'a Schema {
        self.schema
    }

    /// The arguments with their tensors, in schema order.
    pub fn arguments(&self) -> impl Iterator<Item = (&'a Argument, ArgView<'a>)> + use<'a> {
        self.schema.arguments.iter().zip(self.args.iter().copied())
    }

    /// What the dtype variable `name` stands for; `None` when no tensor of the call has it.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        let index = self
            .schema
            .dtype_variables
            .iter()
            .position(|of| of == name)?;
        self.dtypes[index]
    }

    /// The extents that the dimension variable `name` stands for: one, or those of the variadic
    /// group. `None` when no tensor of the call has it, or when it differs from element to element
    /// of the lists.
    pub fn extents(&self, name: &str) -> Option<&'a [i64]> {
        self.dims[self.dim_index(name)?]
    }

    /// The extent of a dimension variable that is not variadic.
    pub fn extent(&self, name: &str) -> Option<i64> {
        match self.extents(name)? {
            [extent] if !self.schema.dim_variables[self.dim_index(name)?].variadic => Some(*extent),
            _ => None,
        }
    }

    /// As [`Binding::extents`], for element `element` of the lists.
    pub fn element_extents(&self, element: usize, name: &str) -> Option<&'a [i64]> {
        self.element_dims(element)[self.dim_index(name)?]
    }

    /// Length that all lists of the call have; 0 when the schema has none.
    pub fn list_len(&self) -> usize {
        self.list_len
    }

    /// Size of the call: elements of its largest argument, a list counting with all its tensors.
    pub fn elements(&self) -> i64 {
        self.elements
    }

    /// Elements that the call writes, in outputs and `inout` arguments. Nothing needs to be
    /// launched when there are none.
    pub fn written_elements(&self) -> i64 {
        (self
            .arguments()
            .filter(|(argument, _)| argument.is_written()))
        .flat_map(|(_, arg)| arg)
        .filter_map(|tensor| element_count(tensor.shape))
        .fold(0, i64::saturating_add)
    }

    /// What the outputs must be: contiguous tensors, an [`Arg`] for each output. `chosen` are the
    /// dtype variables that do not follow from the inputs.
    ///
    /// # Errors
    /// When a choice contradicts the schema or the inputs, one is missing, or an output would be
    /// too large.
    pub fn output_specs(&self, chosen: &[(&str, DType)]) -> Result<Vec<Arg>, BindError> {
        let binder = Binder(self.with_dtypes(chosen)?);
        let mut outputs = Vec::with_capacity(self.schema.outputs().len());
        for (offset, output) in self.schema.outputs().iter().enumerate() {
            let dtype = binder.output_dtype(output)?;
            let spec = |dims: &Dims<'_>| {
                let extents = output.dims.iter().flat_map(|dim| match dim {
                    Dim::Constant(extent) => std::slice::from_ref(extent),
                    Dim::Variable(variable) | Dim::Variadic(variable) => {
                        dims[*variable].unwrap_or_default()
                    }
                });
                TensorSpec::contiguous(dtype, extents.copied().collect())
            };
            let arg: Arg = match output.multiplicity {
                Multiplicity::List => (0..self.list_len)
                    .map(|element| spec(&self.element_dims(element)))
                    .collect(),
                Multiplicity::One | Multiplicity::Optional => vec![spec(&self.dims)],
            };
            for (element, spec) in arg.iter().enumerate() {
                let place = Place {
                    argument: self.schema.input_count + offset,
                    element,
                };
                binder.check_tensor(place, &spec.view())?;
            }
            outputs.push(arg);
        }
        Ok(outputs)
    }

    pub(crate) fn with_dtypes(&self, chosen: &[(&str, DType)]) -> Result<Self, BindError> {
        let mut binding = *self;
        let names = &self.schema.dtype_variables;
        for &(name, dtype) in chosen {
            let Some(index) = names.iter().position(|of| of == name) else {
                let message = format!("'{name}' is no dtype variable{}", did_you_mean(name, names));
                return Err(binding.refuse(BindRule::DType, None, message));
            };
            match binding.dtypes[index] {
                Some(bound) if bound != dtype => {
                    let message = format!("{name} cannot be {dtype}, the call makes it {bound}");
                    return Err(binding.refuse(BindRule::DType, None, message));
                }
                _ => binding.dtypes[index] = Some(dtype),
            }
        }
        Binder(binding).check_alternatives()?;
        Ok(binding)
    }

    fn dim_index(&self, name: &str) -> Option<usize> {
        self.schema
            .dim_variables
            .iter()
            .position(|of| of.name == name)
    }

    pub(crate) fn element_dims(&self, element: usize) -> Dims<'a> {
        let mut dims = self.dims;
        for (argument, arg) in self.arguments() {
            if argument.multiplicity == Multiplicity::List
                && let Some(tensor) = arg.get(element)
            {
                // The call is bound: every list element fits.
                let _ = unify(&mut dims, argument, tensor.shape);
            }
        }
        dims
    }

    pub(crate) fn refuse(
        &self,
        rule: BindRule,
        place: Option<Place>,
        message: String,
    ) -> BindError {
        BindError {
            op: self.schema.name.clone(),
            rule,
            argument: place.map(|place| self.place_name(place)),
            message,
        }
    }

    pub(crate) fn place_name(&self, place: Place) -> String {
        let argument = &self.schema.arguments[place.argument];
        match argument.multiplicity {
            Multiplicity::List => format!("{}[{}]", argument.name, place.element),
            Multiplicity::One | Multiplicity::Optional => argument.name.clone(),
        }
    }
}
