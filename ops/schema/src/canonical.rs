//! The one text that a schema's interface has, and its hash: two sides that agree on the hash agree
//! on names, types, roles, shapes, alternatives, scalars and defaults, and on nothing else.

use std::fmt::{self, Write};

use crate::{Argument, Attr, Dim, Element, Multiplicity, Role, Scalar, Schema, SchemaFile};

/// First 16 bytes of the BLAKE3 hash of a canonical text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaHash(pub [u8; 16]);

impl SchemaHash {
    pub(crate) fn of(canonical: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(canonical.as_bytes()).as_bytes()[..16]);
        Self(bytes)
    }
}

impl fmt::Display for SchemaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Schema {
    /// The interface on one line, in the language itself: tensors before launch scalars before
    /// static attributes, alternatives sorted. Sets, doc and the numeric contract are left out, so
    /// that telling more about an op does not make it another op.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = self.write_interface(&mut text, &ONE_LINE);
        text
    }

    fn write_interface(&self, out: &mut impl Write, breaks: &Breaks) -> fmt::Result {
        write!(out, "op {}({}", self.name, breaks.open)?;
        let mut separator = Separator::default();
        for argument in self.inputs() {
            separator.write(out, breaks.between)?;
            self.write_argument(out, argument)?;
        }
        for (keyword, scalars) in [("", &self.scalars), ("static ", &self.attributes)] {
            for scalar in scalars {
                separator.write(out, breaks.between)?;
                write_scalar(out, keyword, scalar)?;
            }
        }
        write!(out, "{})", breaks.close)?;
        if !self.outputs().is_empty() {
            write!(out, " -> ({}", breaks.open)?;
            let mut separator = Separator::default();
            for argument in self.outputs() {
                separator.write(out, breaks.between)?;
                self.write_argument(out, argument)?;
            }
            write!(out, "{})", breaks.close)?;
        }
        self.write_alternatives(out, breaks.clause)
    }

    fn write_argument(&self, out: &mut impl Write, argument: &Argument) -> fmt::Result {
        write!(out, "{}: ", argument.name)?;
        if argument.role == Role::InOut {
            out.write_str("inout ")?;
        }
        out.write_str(match argument.multiplicity {
            Multiplicity::One => "",
            Multiplicity::Optional => "optional ",
            Multiplicity::List => "list ",
        })?;
        match argument.element {
            Element::Concrete(dtype) => out.write_str(dtype.name())?,
            Element::Variable(variable) => out.write_str(&self.dtype_variables[variable])?,
        }
        out.write_char('[')?;
        let mut separator = Separator::default();
        for dim in &argument.dims {
            separator.write(out, ", ")?;
            match *dim {
                Dim::Constant(extent) => write!(out, "{extent}")?,
                Dim::Variable(variable) | Dim::Variadic(variable) => {
                    write!(out, "{}", self.dim_variables[variable])?;
                }
            }
        }
        out.write_char(']')
    }

    fn write_alternatives(&self, out: &mut impl Write, before: &str) -> fmt::Result {
        let mut separator = Separator::default();
        for group in &self.alternatives {
            if separator.used {
                out.write_str(", ")?;
            } else {
                write!(out, "{before}where ")?;
            }
            separator.used = true;
            let names = group
                .variables
                .iter()
                .map(|&variable| &self.dtype_variables[variable]);
            write_tuple(out, names)?;
            out.write_str(": ")?;
            let mut bar = Separator::default();
            for row in &group.rows {
                bar.write(out, " | ")?;
                write_tuple(out, row)?;
            }
        }
        Ok(())
    }
}

/// Where the text of an interface goes on to a new line.
struct Breaks {
    open: &'static str,
    between: &'static str,
    close: &'static str,
    clause: &'static str,
}

const ONE_LINE: Breaks = Breaks {
    open: "",
    between: ", ",
    close: "",
    clause: " ",
};
const LINE_EACH: Breaks = Breaks {
    open: "\n    ",
    between: ",\n    ",
    close: ",\n",
    clause: "\n    ",
};

/// The whole op: its interface, then a line for each of tolerance, determinism and doc. The
/// alternate form gives every parameter a line of its own too.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breaks = if f.alternate() { LINE_EACH } else { ONE_LINE };
        self.write_interface(f, &breaks)?;
        if let Some(reason) = &self.tolerance_reason {
            f.write_str("\n    tolerance ")?;
            let mut separator = Separator::default();
            for (dtype, tolerance) in &self.tolerances {
                separator.write(f, " | ")?;
                write!(f, "{dtype} {:?} {:?}", tolerance.rtol, tolerance.atol)?;
            }
            write!(f, " because \"{reason}\"")?;
        }
        if self.deterministic {
            f.write_str("\n    deterministic")?;
        }
        match &self.doc {
            Some(doc) => write!(f, "\n    doc \"{doc}\""),
            None => Ok(()),
        }
    }
}

/// A text that parses to the same file.
impl fmt::Display for SchemaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.sets.is_empty() {
            writeln!(f, "set {}", self.sets.join(" "))?;
        }
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

/// A value as the language writes it; floats in the shortest form that reads back the same.
impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::I64(value) => write!(f, "{value}"),
            Self::F64(value) => write!(f, "{value:?}"),
        }
    }
}

fn write_scalar(out: &mut impl Write, keyword: &str, scalar: &Scalar) -> fmt::Result {
    write!(out, "{}: {keyword}{}", scalar.name, scalar.kind.name())?;
    match scalar.default {
        Some(default) => write!(out, " = {default}"),
        None => Ok(()),
    }
}

/// One item bare, several in parentheses.
fn write_tuple<T: fmt::Display>(
    out: &mut impl Write,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
) -> fmt::Result {
    let items = items.into_iter();
    let bare = items.len() == 1;
    let mut separator = Separator::default();
    out.write_str(if bare { "" } else { "(" })?;
    for item in items {
        separator.write(out, ", ")?;
        write!(out, "{item}")?;
    }
    out.write_str(if bare { "" } else { ")" })
}

/// Writes nothing the first time.
#[derive(Default)]
struct Separator {
    used: bool,
}

impl Separator {
    fn write(&mut self, out: &mut impl Write, text: &str) -> fmt::Result {
        if self.used {
            out.write_str(text)?;
        }
        self.used = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(text: &str) -> Schema {
        SchemaFile::parse(text).unwrap().ops.remove(0)
    }

    #[test]
    fn what_means_the_same_has_one_text() {
        let terse = op(
            "op f(a: static i64, x: T[ N ], s: f64=1, m: M[N]) -> y: T[N] \
                        where (M, T): (f32, bf16) | (f32, f32)",
        );
        let spacious = op("
            op f(
                x: T[N],   # the order among tensors, scalars and attributes is free
                m: M[N,],
                s: f64 = 1.0,
                a: static i64,
            ) -> (y: T[N])
            where (T, M): (f32, f32) | (bf16, f32)
            tolerance f32 0 0 | bf16 0 0 because \"it copies\"
            deterministic
            doc \"copies\"");
        let canonical = "op f(x: T[N], m: M[N], s: f64 = 1.0, a: static i64) -> (y: T[N]) \
                         where (T, M): (f32, f32) | (bf16, f32)";
        assert_eq!(terse.canonical(), canonical);
        assert_eq!(spacious.canonical(), canonical);
        assert_eq!(terse.hash(), spacious.hash());
        assert_ne!(terse, spacious);
        let lines = format!("{spacious:#}");
        assert!(
            lines.starts_with("op f(\n    x: T[N],\n    m: M[N],\n"),
            "{lines}"
        );
        assert_eq!(op(&lines), spacious);
    }

    #[test]
    fn what_a_caller_sees_changes_the_hash() {
        let base =
            "op f(x: T[N, 4], s: f64 = 1.0, a: static i64 = 1) -> y: T[N] where T: f32 | f16";
        let hash = op(base).hash();
        for (from, to) in [
            ("op f", "op g"),
            ("(x:", "(z:"),
            ("x: T", "x: inout T"),
            ("x: T", "x: optional T"),
            ("4", "5"),
            ("1.0", "2.0"),
            ("= 1)", "= 2)"),
            ("static ", ""),
            ("s: f64", "s: i64"),
            ("f32 | f16", "f32"),
        ] {
            let mut changed = base.replacen(from, to, 1);
            if to.contains("optional") {
                changed = changed.replace("y: T[N]", "y: T[7]");
            }
            if to == "s: i64" {
                changed = changed.replace("1.0", "1");
            }
            assert_ne!(op(&changed).hash(), hash, "{changed}");
        }
    }

    #[test]
    fn the_hash_is_of_the_canonical_text() {
        let schema = op("op f(x: f32[])");
        let whole = blake3::hash(b"op f(x: f32[])");
        assert_eq!(schema.hash().to_string(), whole.to_hex()[..32]);
    }
}
