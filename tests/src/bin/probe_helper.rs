//! The child that opens a plugin for a test: what `ds_report` is for a user.
#![forbid(unsafe_code)]

// Named, so that the linker keeps what it registers.
use ds_ops as _;

fn main() {
    // Started by hand it has nothing to do.
    let _ = ds_core::probe::answer();
}
