//! A schema as types: what the parser makes and everything else reads.
//! The grammar is in `parse`, the text and hash in `canonical`.

use std::{fmt, str};

use crate::{
    Attr, DType, SchemaError, SchemaHash,
    error::{Fault, Span},
    parse::parse_file,
};

/// Most dimensions that a tensor may have; leaves room for a batch of 5-d images and stays within
/// what vendors' tensor descriptors hold.
pub const MAX_RANK: usize = 8;
/// Most dimension variables of one op; a [`crate::Binding`] holds them in place.
pub const MAX_DIM_VARIABLES: usize = 16;
/// Most dtype variables of one op; a [`crate::Binding`] holds them in place.
pub const MAX_DTYPE_VARIABLES: usize = 8;
/// Largest schema text that is read, in bytes.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;

/// One `.ops` file: ops, and the names of DeepSpeed's op sets that they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFile {
    pub(crate) sets: Vec<String>,
    pub(crate) ops: Vec<Schema>,
}

impl SchemaFile {
    /// Reads a schema text.
    ///
    /// # Errors
    /// When it is no UTF-8, larger than [`MAX_SOURCE_BYTES`], or breaks a rule of the language.
    pub fn parse(source: impl AsRef<[u8]>) -> Result<Self, SchemaError> {
        let source = source.as_ref();
        let start = Span { start: 0, end: 0 };
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!(
                "the text has {} bytes, the limit is {MAX_SOURCE_BYTES}",
                source.len()
            );
            return Err(SchemaError::new("", Fault::new(start, message)));
        }
        let text = str::from_utf8(source).map_err(|error| {
            let valid = &source[..error.valid_up_to()];
            let span = Span {
                start: valid.len(),
                end: valid.len(),
            };
            let fault = Fault::new(span, "this byte is no UTF-8");
            SchemaError::new(str::from_utf8(valid).unwrap_or_default(), fault)
        })?;
        parse_file(text).map_err(|fault| SchemaError::new(text, fault))
    }

    /// Names of the op sets, the rows of `ds_report`.
    pub fn sets(&self) -> &[String] {
        &self.sets
    }

    /// The ops, in the order of the text.
    pub fn ops(&self) -> &[Schema] {
        &self.ops
    }

    /// The op of that name.
    pub fn op(&self, name: &str) -> Option<&Schema> {
        self.ops.iter().find(|op| op.name == name)
    }
}

/// One op: its name, what it is called with, and how exact it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub(crate) name: String,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) input_count: usize,
    pub(crate) scalars: Vec<Scalar>,
    pub(crate) attributes: Vec<Scalar>,
    pub(crate) dtype_variables: Vec<String>,
    pub(crate) dim_variables: Vec<DimVariable>,
    pub(crate) alternatives: Vec<Alternatives>,
    pub(crate) tolerances: Vec<(DType, Tolerance)>,
    pub(crate) tolerance_reason: Option<String>,
    pub(crate) deterministic: bool,
    pub(crate) doc: Option<String>,
    pub(crate) hash: SchemaHash,
}

impl Schema {
    /// The op's name, such as `adam_step`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First 16 bytes of the BLAKE3 hash of [`Schema::canonical`].
    pub fn hash(&self) -> SchemaHash {
        self.hash
    }

    /// Tensor arguments in schema order, inputs before outputs: what a call passes.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// Arguments that the caller fills: inputs, and those that are read and written.
    pub fn inputs(&self) -> &[Argument] {
        &self.arguments[..self.input_count]
    }

    /// Arguments that the op only writes.
    pub fn outputs(&self) -> &[Argument] {
        &self.arguments[self.input_count..]
    }

    /// Launch scalars in schema order: given at each launch, no part of the signature.
    pub fn scalars(&self) -> &[Scalar] {
        &self.scalars
    }

    /// Static attributes in schema order: part of the signature.
    pub fn attributes(&self) -> &[Scalar] {
        &self.attributes
    }

    /// Names of the dtype variables; [`Element::Variable`] is an index into them.
    pub fn dtype_variables(&self) -> &[String] {
        &self.dtype_variables
    }

    /// The dimension variables; [`Dim::Variable`] is an index into them.
    pub fn dim_variables(&self) -> &[DimVariable] {
        &self.dim_variables
    }

    /// What the dtype variables may be; every variable is in exactly one of these.
    pub fn alternatives(&self) -> &[Alternatives] {
        &self.alternatives
    }

    /// How near a result of `dtype` must be to the reference: exact for integers, `None` when the
    /// schema does not say, so that the op cannot be verified.
    pub fn tolerance(&self, dtype: DType) -> Option<Tolerance> {
        let stated = self.tolerances.iter().find(|(of, _)| *of == dtype);
        let exact = (!dtype.is_float()).then_some(Tolerance::EXACT);
        stated.map(|&(_, tolerance)| tolerance).or(exact)
    }

    /// Why the tolerances are what they are.
    pub fn tolerance_reason(&self) -> Option<&str> {
        self.tolerance_reason.as_deref()
    }

    /// Whether every kernel of the op must give equal bits for equal calls on one device.
    pub fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// What the op does, in a line.
    pub fn doc(&self) -> Option<&str> {
        self.doc.as_deref()
    }

    /// Every dtype that `element` may be.
    pub fn dtypes(&self, element: Element) -> Vec<DType> {
        let variable = match element {
            Element::Concrete(dtype) => return vec![dtype],
            Element::Variable(variable) => variable,
        };
        let mut dtypes: Vec<DType> = (self.alternatives.iter())
            .filter_map(|group| Some((group, group.column(variable)?)))
            .flat_map(|(group, column)| group.rows.iter().map(move |row| row[column]))
            .collect();
        dtypes.sort_unstable();
        dtypes.dedup();
        dtypes
    }
}

/// One tensor argument, or a list of tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Whether it is read, written, or both.
    pub role: Role,
    /// How many tensors it has.
    pub multiplicity: Multiplicity,
    /// Its element type.
    pub element: Element,
    /// Its shape.
    pub dims: Vec<Dim>,
}

impl Argument {
    /// Whether the op writes it.
    pub fn is_written(&self) -> bool {
        self.role != Role::In
    }

    /// How many of its dimensions are not in the variadic group.
    pub(crate) fn fixed_rank(&self) -> usize {
        self.dims.len() - usize::from(self.is_variadic())
    }

    pub(crate) fn is_variadic(&self) -> bool {
        self.dims.iter().any(|dim| matches!(dim, Dim::Variadic(_)))
    }
}

/// What an op does with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads it.
    In,
    /// Reads and writes it.
    InOut,
    /// Writes every element of it.
    Out,
}

/// How many tensors serve an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiplicity {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number; all lists of a call have the same length.
    List,
}

/// An argument's element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// This dtype.
    Concrete(DType),
    /// What the variable of this index is bound to.
    Variable(usize),
}

/// One entry of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// This extent.
    Constant(i64),
    /// The extent that the variable of this index is bound to.
    Variable(usize),
    /// Any number of dimensions, bound together to the variable of this index.
    Variadic(usize),
}

/// A dimension variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimVariable {
    /// Its name, without the dots.
    pub name: String,
    /// Whether it stands for any number of dimensions (`S...`).
    pub variadic: bool,
    /// Whether only lists use it: then it is bound anew for element `i` of every list.
    pub per_element: bool,
}

impl fmt::Display for DimVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.variadic { "..." } else { "" })
    }
}

/// Which dtypes one variable, or several together, may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternatives {
    /// Indices of the variables, ascending.
    pub variables: Vec<usize>,
    /// One dtype for each variable, a row for each alternative.
    pub rows: Vec<Vec<DType>>,
}

impl Alternatives {
    /// Where `variable` is in each row.
    pub fn column(&self, variable: usize) -> Option<usize> {
        self.variables.iter().position(|&of| of == variable)
    }
}

/// A launch scalar or a static attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ScalarKind,
    /// Its value when the call gives none.
    pub default: Option<Attr>,
}

/// The type of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarKind {
    /// True or false.
    Bool,
    /// A 64-bit integer.
    I64,
    /// A 64-bit float.
    F64,
}

impl ScalarKind {
    /// Its name in schemas.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// How far a result may be from the reference: `|got - want| <= atol + rtol * |want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

// Parsed tolerances are finite, so equality is reflexive.
impl Eq for Tolerance {}

impl Tolerance {
    /// Only the reference's own value.
    pub const EXACT: Self = Self {
        rtol: 0.0,
        atol: 0.0,
    };

    /// Whether `got` is near enough to `want`. Infinities and NaN are only near themselves.
    pub fn accepts(self, got: f64, want: f64) -> bool {
        if got.is_finite() && want.is_finite() {
            (got - want).abs() <= self.atol + self.rtol * want.abs()
        } else {
            got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_is_for_finite_numbers() {
        let loose = Tolerance {
            rtol: 0.5,
            atol: 1.0,
        };
        assert!(loose.accepts(4.0, 2.0) && !loose.accepts(4.1, 2.0));
        assert!(loose.accepts(f64::NAN, f64::NAN) && !loose.accepts(1.0, f64::NAN));
        assert!(loose.accepts(f64::INFINITY, f64::INFINITY));
        assert!(!loose.accepts(1e300, f64::INFINITY) && !loose.accepts(f64::INFINITY, 1e300));
        assert!(Tolerance::EXACT.accepts(0.0, -0.0) && !Tolerance::EXACT.accepts(1.0, 1.5));
    }

    #[test]
    fn huge_and_binary_texts_are_refused() {
        let error = SchemaFile::parse(vec![b' '; MAX_SOURCE_BYTES + 1]).unwrap_err();
        assert!(error.message.contains("262145 bytes"), "{error}");
        let error = SchemaFile::parse(b"# \xff").unwrap_err();
        assert_eq!((error.line, error.column), (1, 3));
    }
}
