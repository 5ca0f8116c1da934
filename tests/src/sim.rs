//! The example accelerator in C, opened: two devices whose memory the host cannot reach, whose
//! streams are late, and whose failures surface on events.

use std::{
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use ds_core::{Device, Host, Result};

use crate::example;

/// A folder in which the example lies already, built by the process that started this one.
pub const FOLDER_VARIABLE: &str = "DS_TESTS_SIM";

/// The example's two devices; `None` where it cannot be built, which is said.
///
/// # Panics
/// When it is built and does not load: a test that uses it has failed.
pub fn devices() -> Option<[Device; 2]> {
    static DEVICES: OnceLock<Option<[Device; 2]>> = OnceLock::new();
    *DEVICES.get_or_init(|| {
        let folder = match std::env::var_os(FOLDER_VARIABLE) {
            Some(folder) => PathBuf::from(folder),
            None => build()?,
        };
        match open(&folder) {
            Ok(devices) => Some(devices),
            Err(e) => panic!("{e:?}"),
        }
    })
}

/// Builds the example into a folder that stays, as a library that is never closed has to; `None`
/// where there is no C compiler, which is said.
///
/// # Panics
/// When the compiler refuses the example.
pub fn build() -> Option<PathBuf> {
    let made = || -> io::Result<Option<PathBuf>> {
        let folder = tempfile::tempdir()?.keep();
        let built = example::build_c("sim-c", "libds_example_sim.so", &folder)?;
        Ok(built.then_some(folder))
    };
    match made() {
        Ok(folder) => folder,
        Err(e) => panic!("{e}"),
    }
}

fn open(folder: &Path) -> Result<[Device; 2]> {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| example::host(folder));
    let sim = host.accelerator("simulator")?;
    Ok([sim.device(0)?, sim.device(1)?])
}
