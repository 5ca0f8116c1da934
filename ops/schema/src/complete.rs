//! A call of which only a part is told, made whole: what `ds_report explain` is asked about, where
//! nobody wants to spell out what follows from the rest.

use crate::{
    Arg, ArgView, Argument, BindError, BindRule, DType, Dim, MAX_DIM_VARIABLES,
    MAX_DTYPE_VARIABLES, Multiplicity, Schema, TensorSpec, TensorView,
    bind::{Binder, Place},
    binding::{Binding, Dims},
};

impl Schema {
    /// Fills in the arguments that are `None`, from the dtypes and extents that the others bind:
    /// contiguous tensors, and for a missing optional none. `given` is in the order of
    /// [`Schema::arguments`], `chosen` are dtype variables that do not follow.
    ///
    /// What was given is taken as it is; whether it makes a call is for [`Schema::bind`] to say.
    ///
    /// # Errors
    /// When what is given contradicts the schema or itself, or does not tell what is missing.
    pub fn complete(
        &self,
        given: &[Option<Arg>],
        chosen: &[(&str, DType)],
    ) -> Result<Vec<Arg>, BindError> {
        let views: Vec<Vec<TensorView<'_>>> = (0..self.arguments.len())
            .map(|index| given.get(index).and_then(Option::as_ref))
            .map(|arg| arg.into_iter().flatten().map(TensorSpec::view).collect())
            .collect();
        let args: Vec<ArgView<'_>> = views.iter().map(Vec::as_slice).collect();
        let told = |index: usize| given.get(index).is_some_and(Option::is_some);
        let is_list = |argument: &Argument| argument.multiplicity == Multiplicity::List;
        let list = (0..args.len()).find(|&index| is_list(&self.arguments[index]) && told(index));

        let mut binder = Binder(Binding {
            schema: self,
            args: &args,
            dtypes: [None; MAX_DTYPE_VARIABLES],
            dims: [None; MAX_DIM_VARIABLES],
            list_len: list.map_or(0, |index| args[index].len()),
            elements: 0,
        });
        binder.bind_tensors()?;
        binder.0 = binder.0.with_dtypes(chosen)?;

        let mut whole = Vec::with_capacity(args.len());
        for (index, argument) in self.arguments.iter().enumerate() {
            let lacks = |rule, message: String| {
                let mut error = binder.0.refuse(rule, None, message);
                error.argument = Some(argument.name.clone());
                error
            };
            let arg = match given.get(index).and_then(Option::as_ref) {
                Some(arg) => arg.clone(),
                None if argument.multiplicity == Multiplicity::Optional => Vec::new(),
                None if is_list(argument) => {
                    if list.is_none() {
                        let message = "no list is given, so its length is not known".to_owned();
                        return Err(lacks(BindRule::TensorCount, message));
                    }
                    let dtype = binder.output_dtype(argument)?;
                    (0..binder.0.list_len)
                        .map(|element| {
                            self.infer(argument, dtype, &binder.0.element_dims(element))
                                .map_err(|message| lacks(BindRule::Dimension, message))
                        })
                        .collect::<Result<_, _>>()?
                }
                None => {
                    let dtype = binder.output_dtype(argument)?;
                    let spec = self
                        .infer(argument, dtype, &binder.0.dims)
                        .map_err(|message| lacks(BindRule::Dimension, message))?;
                    vec![spec]
                }
            };
            for (element, spec) in arg.iter().enumerate() {
                let place = Place {
                    argument: index,
                    element,
                };
                binder.check_tensor(place, &spec.view())?;
            }
            whole.push(arg);
        }
        Ok(whole)
    }

    /// The tensor of `argument` where its variables stand for `dims`; else the one that is unknown.
    fn infer(
        &self,
        argument: &Argument,
        dtype: DType,
        dims: &Dims<'_>,
    ) -> Result<TensorSpec, String> {
        let mut shape = Vec::with_capacity(argument.dims.len());
        for dim in &argument.dims {
            match *dim {
                Dim::Constant(extent) => shape.push(extent),
                Dim::Variable(variable) | Dim::Variadic(variable) => {
                    let Some(extents) = dims[variable] else {
                        let name = &self.dim_variables[variable];
                        return Err(format!("no argument that is given says what {name} is"));
                    };
                    shape.extend_from_slice(extents);
                }
            }
        }
        Ok(TensorSpec::contiguous(dtype, shape))
    }
}
