//! What a vendor writes against in Rust: implement [`Accelerator`], name it in [`export_plugin!`],
//! ship the shared library with a manifest. No policy here: caching, statistics, dispatch, builds
//! and fallback are the host's.
//!
//! A plugin in another language implements `ds_plugin.h` directly; this crate is one way to do so.

mod accelerator;
mod error;
mod export;
mod linked;
mod raw;
mod shim;
mod view;

pub use accelerator::{
    Accelerator, Artefact, BuildRequest, Copy, DeviceInfo, EventState, MemoryInfo, Node, Prepared,
    Table, Toolchain,
};
pub use ds_abi as abi;
pub use error::{Error, Result};
pub use export::{Host, LogLevel};
pub use linked::LinkedPlugin;
pub use view::{ArgumentView, LaunchView, SignatureView, TensorSignatureView, TensorView, Value};

/// What the macros expand to; not for direct use.
#[doc(hidden)]
pub mod private {
    pub use std::sync::OnceLock;

    pub use inventory;

    pub use crate::export::{Instance, enter};
}
