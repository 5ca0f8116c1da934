//! Ops: which there are, and the life of a call.
//!
//! choose (`choose.rs`) → artefact → prepare (`prepare.rs`) → launch (`call.rs`); what no kernel
//! takes runs on the reference implementation through host memory (`reference.rs`). The first call
//! of a signature goes all the way, later ones find it prepared. Whether what ran is right is held
//! against the reference (`verify.rs`) on the cases of each op (`case.rs`), or by `DS_DEBUG` at each
//! launch (`watch.rs`). Narrow floats, which Rust has no types for, are in `minifloat.rs`.

mod alias;
mod call;
mod case;
mod choose;
mod key;
mod minifloat;
mod plans;
mod prepare;
mod reference;
mod registry;
mod unready;
mod verify;
mod watch;

pub use call::{Args, RunsOn, launch, resolve};
pub use case::{Case, CasesFn, Numbers, Size, Traffic};
pub use choose::{Candidate, Choice, explain};
pub use minifloat::{MiniFloat, Top};
pub(crate) use plans::Plans;
pub(crate) use prepare::Modules;
pub use reference::{HostCall, HostTensor, ReferenceFn};
pub use registry::{Op, OpSource, find, ops, register};
pub use unready::{Stage, Unready};
pub use verify::{Placed, Verified, What, Wrong, verify, verify_call};
