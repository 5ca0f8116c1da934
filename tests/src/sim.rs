//! The example accelerator in C, opened: two devices whose memory the host cannot reach, whose
//! streams are late, and whose failures surface on events.

use std::{error::Error, path::Path, sync::OnceLock};

use ds_core::{Device, Host};

use crate::example;

/// A folder in which the example lies already, built by the process that started this one.
pub const FOLDER_VARIABLE: &str = "DS_TESTS_SIM";

/// Builds the example into `folder`; `false` where there is no C compiler, which is said.
///
/// # Errors
/// When the compiler refuses it.
pub fn build(folder: &Path) -> std::io::Result<bool> {
    example::build_c("sim-c", "libds_example_sim.so", folder)
}

/// The example's two devices; `None` where it cannot be built, which is said.
///
/// # Panics
/// When it does not build or load: a test that uses it has failed.
pub fn devices() -> Option<[Device; 2]> {
    static DEVICES: OnceLock<Option<[Device; 2]>> = OnceLock::new();
    let open = || -> Result<_, Box<dyn Error>> {
        if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
            return Ok(Some(open(folder.as_ref())?));
        }
        // Once it is open, the library needs its file no more.
        let folder = tempfile::tempdir()?;
        Ok(build(folder.path())?
            .then(|| open(folder.path()))
            .transpose()?)
    };
    *DEVICES.get_or_init(|| match open() {
        Ok(devices) => devices,
        Err(e) => panic!("{e:?}"),
    })
}

fn open(folder: &Path) -> ds_core::Result<[Device; 2]> {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| example::host(folder));
    let sim = host.accelerator("simulator")?;
    Ok([sim.device(0)?, sim.device(1)?])
}
