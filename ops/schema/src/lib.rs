//! The schema language of ops: what an op is called with, told once, as text.
//!
//! | module | holds |
//! |---|---|
//! | `schema` | [`SchemaFile`] and [`Schema`]: a parsed `.ops` file and its ops |
//! | `parse` | the grammar, from text to [`Schema`]; refuses with a [`SchemaError`] |
//! | `resolve` | what the names in a text stand for, and whether they make an op |
//! | `canonical` | the one text of a schema's interface, and its [`SchemaHash`] |
//! | `signature` | what a call looks like without addresses: [`TensorView`], [`Attr`] |
//! | `bind` | [`Schema::bind`]: a call against a schema; refuses with a [`BindError`] |
//! | `binding` | what the variables stand for, and what outputs to allocate: [`Binding`] |
//! | `complete` | [`Schema::complete`]: a call that is told in part, made whole |
//! | `scalars` | values for attributes and launch scalars, in schema order |
//! | `constraint` | `kernel.json`: which calls a kernel takes, as data ([`KernelFile`]) |
//! | `admit` | [`Kernel::admit`]: a bound call against a kernel; refuses with a [`Refusal`] |
//!
//! Every refusal names what was found and what would have been taken. Nothing here knows a vendor,
//! touches memory, or panics on any input.
//!
//! ```
//! use ds_schema::{DType, SchemaFile, TensorSpec};
//!
//! let text = "op scale(x: T[S..., D], by: T[D]) -> y: T[S..., D] where T: f32 | bf16";
//! let file = SchemaFile::parse(text)?;
//! let scale = &file.ops()[0];
//!
//! let x = TensorSpec::contiguous(DType::F32, vec![2, 3, 8]);
//! let by = TensorSpec::contiguous(DType::F32, vec![8]);
//! let (x, by) = ([x.view()], [by.view()]);
//! let args = [&x[..], &by[..]];
//! let call = scale.bind_inputs(&args)?;
//! assert_eq!(call.extents("S"), Some(&[2, 3][..]));
//! assert_eq!(call.output_specs(&[])?[0][0].shape, [2, 3, 8]);
//!
//! let refusal = scale.bind_inputs(&[&x, &x]).unwrap_err();
//! assert_eq!(
//!     refusal.to_string(),
//!     "scale: argument 'by': has 3 dimensions, but it takes 1"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Grammar
//!
//! ```text
//! file      = { "set" name+ | op }                                  # a comment runs to the line's end
//! op        = "op" name "(" [ parameter { "," parameter } ] ")" [ "->" outputs ] { clause }
//! outputs   = output | "(" output { "," output } ")"
//! parameter = name ":" ( { "inout" | "list" | "optional" } tensor
//!                      | [ "static" ] scalar [ "=" value ] )
//! output    = name ":" [ "list" ] tensor
//! tensor    = ( dtype | VARIABLE ) "[" [ dim { "," dim } ] "]"
//! dim       = VARIABLE [ "..." ] | integer
//! scalar    = "bool" | "i64" | "f64"
//! clause    = "where" group { "," group }
//!           | "tolerance" dtype rtol atol { "|" dtype rtol atol } "because" string
//!           | "deterministic"
//!           | "doc" string
//! group     = VARIABLE ":" dtype { "|" dtype }
//!           | "(" VARIABLE { "," VARIABLE } ")" ":" row { "|" row }
//! row       = "(" dtype { "," dtype } ")"
//! ```
//!
//! Commas may trail. A tensor is anything with brackets: `f64[]` is a tensor without dimensions, a
//! scalar on the device; `f64` is a value handed to the launch.
//!
//! # Rules
//!
//! - Equal variables are equal extents or dtypes; nothing broadcasts. All lists of a call have one
//!   length. A dimension variable that only lists use is bound anew for element `i` of every list.
//! - Every dtype variable has its alternatives in one `where` group. One that only outputs have is
//!   chosen by the caller. The dimensions of outputs follow from required inputs.
//! - Launch scalars are no part of a signature; `static` ones are.
//! - A tolerance belongs to the dtype of the result that is compared, and carries its reason. With
//!   the clause, every float that a result may be has one; without it, the op cannot be verified.
//! - Sets, doc, tolerances and determinism are not hashed: telling more of an op leaves it the same.
#![forbid(unsafe_code)]

mod admit;
mod bind;
mod binding;
mod canonical;
mod complete;
mod constraint;
mod dtype;
mod error;
mod lex;
mod parse;
mod resolve;
mod scalars;
mod schema;
mod signature;

pub use admit::{ConstraintKind, Refusal};
pub use bind::{BindError, BindRule};
pub use binding::Binding;
pub use canonical::SchemaHash;
pub use constraint::{
    ArtefactKind, Constraints, ExtentRange, Kernel, KernelError, KernelFile, KernelFlag, ScoreBand,
};
pub use dtype::DType;
pub use error::SchemaError;
pub use schema::{
    Alternatives, Argument, Dim, DimVariable, Element, MAX_DIM_VARIABLES, MAX_DTYPE_VARIABLES,
    MAX_RANK, MAX_SOURCE_BYTES, Multiplicity, Role, Scalar, ScalarKind, Schema, SchemaFile,
    Tolerance,
};
pub use signature::{Arg, ArgView, Attr, Layout, TensorSpec, TensorView};
