//! Names of an op on their way to a [`Schema`]: what a word stands for, and what only the whole op
//! can tell. Knows no grammar; that is `parse`.

use crate::{
    Alternatives, Argument, DType, Dim, DimVariable, Element, MAX_DIM_VARIABLES,
    MAX_DTYPE_VARIABLES, Multiplicity, Scalar, Schema, SchemaHash, Tolerance,
    error::{Fault, Span},
    parse::Result,
};

/// An op on its way: what is known of it, and where words stood that are judged at its end.
#[derive(Default)]
pub(crate) struct OpBuilder {
    pub(crate) arguments: Vec<Argument>,
    pub(crate) input_count: usize,
    pub(crate) scalars: Vec<Scalar>,
    pub(crate) attributes: Vec<Scalar>,
    dtype_variables: Vec<(String, Span)>,
    dim_variables: Vec<DimUse>,
    pub(crate) alternatives: Vec<Alternatives>,
    pub(crate) tolerances: Vec<(DType, Tolerance, Span)>,
    pub(crate) tolerance_reason: Option<String>,
    pub(crate) deterministic: bool,
    pub(crate) doc: Option<String>,
}

/// A dimension variable, and who binds it and who needs it.
struct DimUse {
    variable: DimVariable,
    /// A required input has it, so it is bound in every call.
    bound: bool,
    /// A list of inputs has it, so it is bound for each element.
    bound_per_element: bool,
    /// Where an output first uses it, and whether that output is a list.
    output: Option<(Span, bool)>,
}

impl OpBuilder {
    pub(crate) fn has_parameter(&self, name: &str) -> bool {
        let mut scalars = self.scalars.iter().chain(&self.attributes);
        self.arguments.iter().any(|argument| argument.name == name)
            || scalars.any(|scalar| scalar.name == name)
    }

    pub(crate) fn element(&mut self, word: &str, span: Span) -> Result<Element> {
        if let Some(dtype) = DType::from_name(word) {
            return Ok(Element::Concrete(dtype));
        }
        if !is_variable(word) {
            return Err(unknown_dtype(word, span));
        }
        if self
            .dim_variables
            .iter()
            .any(|dim| dim.variable.name == word)
        {
            let message = format!("'{word}' is a dimension, it cannot be a dtype too");
            return Err(Fault::new(span, message));
        }
        let known = self
            .dtype_variables
            .iter()
            .position(|(name, _)| name == word);
        let index = known.unwrap_or(self.dtype_variables.len());
        if known.is_none() {
            if index == MAX_DTYPE_VARIABLES {
                let message = format!("an op has at most {MAX_DTYPE_VARIABLES} dtype variables");
                return Err(Fault::new(span, message));
            }
            self.dtype_variables.push((word.to_owned(), span));
        }
        Ok(Element::Variable(index))
    }

    pub(crate) fn dim(
        &mut self,
        name: &str,
        variadic: bool,
        span: Span,
        multiplicity: Multiplicity,
        output: bool,
    ) -> Result<Dim> {
        if !is_variable(name) {
            return Err(
                Fault::new(span, format!("'{name}' is no dimension variable"))
                    .with_hint("variables are upper case, such as N"),
            );
        }
        if self.dtype_variables.iter().any(|(of, _)| of == name) {
            let message = format!("'{name}' is a dtype, it cannot be a dimension too");
            return Err(Fault::new(span, message));
        }
        let known = self
            .dim_variables
            .iter()
            .position(|dim| dim.variable.name == name);
        let index = known.unwrap_or(self.dim_variables.len());
        if known.is_none() {
            if index == MAX_DIM_VARIABLES {
                let message = format!("an op has at most {MAX_DIM_VARIABLES} dimension variables");
                return Err(Fault::new(span, message));
            }
            let variable = DimVariable {
                name: name.to_owned(),
                variadic,
                per_element: true,
            };
            let (bound, bound_per_element, output) = (false, false, None);
            self.dim_variables.push(DimUse {
                variable,
                bound,
                bound_per_element,
                output,
            });
        }
        let list = multiplicity == Multiplicity::List;
        let dim = &mut self.dim_variables[index];
        if dim.variable.variadic != variadic {
            let message = format!("'{name}' stands both for one dimension and for '{name}...'");
            return Err(Fault::new(span, message));
        }
        dim.variable.per_element &= list;
        dim.bound |= !output && multiplicity == Multiplicity::One;
        dim.bound_per_element |= !output && list;
        if output && dim.output.is_none_or(|(_, of_list)| of_list && !list) {
            dim.output = Some((span, list));
        }
        Ok(if variadic {
            Dim::Variadic(index)
        } else {
            Dim::Variable(index)
        })
    }

    pub(crate) fn used_dtype_variable(&self, name: &str, span: Span) -> Result<usize> {
        self.dtype_variables
            .iter()
            .position(|(of, _)| of == name)
            .ok_or_else(|| {
                Fault::new(span, format!("no tensor has the dtype '{name}'"))
                    .suggesting(name, self.dtype_variables.iter().map(|(of, _)| of.as_str()))
            })
    }

    pub(crate) fn has_repeated_alternatives(&self) -> bool {
        let mut seen = [false; MAX_DTYPE_VARIABLES];
        let variables = self.alternatives.iter().flat_map(|group| &group.variables);
        variables
            .into_iter()
            .any(|&variable| std::mem::replace(&mut seen[variable], true))
    }

    /// Judges what only the whole op can tell.
    pub(crate) fn finish(mut self, name: String, name_span: Span) -> Result<Schema> {
        for (index, (variable, span)) in self.dtype_variables.iter().enumerate() {
            if !self
                .alternatives
                .iter()
                .any(|group| group.column(index).is_some())
            {
                return Err(Fault::new(
                    *span,
                    format!("the dtype variable '{variable}' is undefined"),
                )
                .with_hint(format!(
                    "say what it may be: `where {variable}: f32 | bf16`"
                )));
            }
        }
        for dim in &self.dim_variables {
            if let Some((span, list)) = dim.output
                && !(dim.bound || list && dim.bound_per_element)
            {
                let message = format!("no required input has '{}'", dim.variable);
                return Err(Fault::new(span, message)
                    .with_hint("the shapes of outputs must follow from the inputs"));
            }
        }
        let is_list = |argument: &&Argument| argument.multiplicity == Multiplicity::List;
        let (inputs, outputs) = self.arguments.split_at(self.input_count);
        if let Some(output) = outputs.iter().find(is_list)
            && !inputs.iter().any(|input| is_list(&input))
        {
            let message = format!("no input is a list, so '{}' has no length", output.name);
            return Err(Fault::new(name_span, message));
        }
        self.alternatives
            .sort_by(|a, b| a.variables.cmp(&b.variables));
        self.tolerances.sort_by_key(|&(dtype, ..)| dtype);
        let mut schema = Schema {
            name,
            arguments: self.arguments,
            input_count: self.input_count,
            scalars: self.scalars,
            attributes: self.attributes,
            dtype_variables: self
                .dtype_variables
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            dim_variables: self
                .dim_variables
                .into_iter()
                .map(|dim| dim.variable)
                .collect(),
            alternatives: self.alternatives,
            tolerances: self
                .tolerances
                .iter()
                .map(|&(of, tolerance, _)| (of, tolerance))
                .collect(),
            tolerance_reason: self.tolerance_reason,
            deterministic: self.deterministic,
            doc: self.doc,
            hash: SchemaHash::default(),
        };
        check_tolerances(&schema, &self.tolerances, name_span)?;
        // Dimension variables were numbered as they came, and scalars have none: the canonical
        // order of parameters numbers them the same.
        schema.hash = SchemaHash::of(&schema.canonical());
        Ok(schema)
    }
}

/// A tolerance for exactly the dtypes that a result may have; integers may go without.
fn check_tolerances(
    schema: &Schema,
    stated: &[(DType, Tolerance, Span)],
    name_span: Span,
) -> Result<()> {
    if schema.tolerance_reason.is_none() {
        return Ok(());
    }
    let written: Vec<DType> = (schema.arguments.iter())
        .filter(|argument| argument.is_written())
        .flat_map(|argument| schema.dtypes(argument.element))
        .collect();
    for &(dtype, _, span) in stated {
        if !written.contains(&dtype) {
            return Err(Fault::new(
                span,
                format!("no result of '{}' is {dtype}", schema.name),
            ));
        }
    }
    match written
        .into_iter()
        .find(|&dtype| schema.tolerance(dtype).is_none())
    {
        Some(dtype) => Err(Fault::new(
            name_span,
            format!(
                "a result of '{}' may be {dtype}, but {dtype} has no tolerance",
                schema.name
            ),
        )),
        None => Ok(()),
    }
}

/// Columns by variable, rows by dtype: the order in the text means nothing.
pub(crate) fn sorted(variables: &[usize], rows: &[Vec<DType>]) -> Alternatives {
    let mut columns: Vec<usize> = (0..variables.len()).collect();
    columns.sort_by_key(|&column| variables[column]);
    let mut rows: Vec<Vec<DType>> = (rows.iter())
        .map(|row| columns.iter().map(|&column| row[column]).collect())
        .collect();
    rows.sort_unstable();
    let variables = columns.iter().map(|&column| variables[column]).collect();
    Alternatives { variables, rows }
}

pub(crate) fn unknown_dtype(word: &str, span: Span) -> Fault {
    Fault::new(span, format!("unknown dtype '{word}'"))
        .suggesting(word, DType::ALL.map(DType::name))
}

pub(crate) fn is_variable(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
}
