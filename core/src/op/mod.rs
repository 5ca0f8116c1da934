//! Ops: which there are, and the life of a call.
//!
//! choose (`choose.rs`) → artefact → prepare (`prepare.rs`) → launch (`call.rs`); what no kernel
//! takes runs on the reference implementation through host memory (`reference.rs`). The first call
//! of a signature goes all the way, later ones find it prepared.

mod alias;
mod call;
mod choose;
mod key;
mod plans;
mod prepare;
mod reference;
mod registry;

pub use call::{Args, launch};
pub use choose::{Candidate, Choice, explain};
pub(crate) use plans::Plans;
pub(crate) use prepare::Modules;
pub use reference::{HostCall, HostTensor, ReferenceFn};
pub use registry::{Op, OpSource, find, ops, register};
