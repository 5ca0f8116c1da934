//! What the tests of the whole share: inputs, devices, and the comparison with references.
#![forbid(unsafe_code)]

pub mod cases;
pub mod compare;
pub mod drill;
pub mod example;
pub mod hostile;
pub mod mutate;
pub mod sim;

use std::{path::PathBuf, sync::OnceLock};

// Named, so that the linker keeps what they register.
use ds_accelerator_cpu as _;
use ds_core::{Device, Host, Result, discovery::Search};
use ds_ops as _;

/// What the front page shows compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;

/// So does what the page on files shows.
#[cfg(doctest)]
#[doc = include_str!("../../docs/files.md")]
struct FilesPage;

/// A folder of plugins that come before what is linked in.
pub const PLUGINS_VARIABLE: &str = "DS_TESTS_PLUGINS";

/// The CPU accelerator: the one that is linked into this program, or the one in the folder that
/// [`PLUGINS_VARIABLE`] names.
///
/// # Errors
/// When it does not load.
pub fn cpu() -> Result<Device> {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        let folder = std::env::var_os(PLUGINS_VARIABLE).map(PathBuf::from);
        Host::with_search(Search {
            programmatic: folder.into_iter().collect(),
            ..Search::empty()
        })
    });
    host.accelerator("cpu")?.device(0)
}
