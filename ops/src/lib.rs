//! The catalogue: every op of DeepSpeed's that is here, one folder each.
//!
//! A folder `ops/<name>` holds `<name>.ops`, the schemas as text; `mod.rs`, the typed calls;
//! `reference.rs`, what the ops mean in plain Rust with f64 arithmetic; and `cases.rs`, the calls that
//! every accelerator's kernels are verified with. Its kernels lie in the folder of the same name under
//! `kernels/`. Nothing here names an accelerator.
#![forbid(unsafe_code)]

use ds_core::{
    Result,
    op::{self, Op},
};

mod attend;
pub mod inference;
mod lists;
pub mod ragged_batch;
pub mod transformer;

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// The schema texts of the catalogue: path and text, for tools that write headers from them.
pub fn schema_texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    inventory::iter::<op::OpSource>
        .into_iter()
        .map(|source| (source.path, source.text))
}

/// An op of the catalogue, looked up once.
pub(crate) struct OpCell {
    name: &'static str,
    cell: std::sync::OnceLock<&'static Op>,
}

impl OpCell {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            cell: std::sync::OnceLock::new(),
        }
    }

    /// The op.
    #[inline]
    pub(crate) fn op(&self) -> Result<&'static Op> {
        if let Some(op) = self.cell.get() {
            return Ok(op);
        }
        let found = op::find(self.name)?;
        Ok(self.cell.get_or_init(|| found))
    }
}
