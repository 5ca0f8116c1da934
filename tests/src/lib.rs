//! What the tests of the whole share: inputs, devices, and the comparison with references.
#![forbid(unsafe_code)]

pub mod cases;
pub mod compare;
pub mod example;

// Named, so that the linker keeps what they register.
use ds_accelerator_cpu as _;
use ds_core::{Device, Host, Result};
use ds_ops as _;

/// The CPU accelerator that is linked into this program.
///
/// # Errors
/// When it does not load.
pub fn cpu() -> Result<Device> {
    Host::process().accelerator("cpu")?.device(0)
}
