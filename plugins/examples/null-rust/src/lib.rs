//! The smallest plugin that loads, in Rust: one device that can do nothing yet.
//!
//! To go on, add `Table::Memory` to `TABLES` and write the methods that the documentation of
//! `Accelerator` lists for it; then streams; the host runs every op by its reference implementation
//! from there on. Kernels come last. docs/adding-an-accelerator.md of the project shows each step.

use ds_plugin::{Accelerator, DeviceInfo, Error, Host, Result, Table};

struct Null;

impl Accelerator for Null {
    type Device = ();
    type Stream = ();
    type Event = ();
    type Module = ();
    type Prepared = ();

    const TABLES: &'static [Table] = &[];

    fn new(_host: Host) -> Result<Self> {
        Ok(Self)
    }

    fn device_count(&self) -> Result<u32> {
        Ok(1)
    }

    fn describe(&self, index: u32) -> Result<DeviceInfo> {
        self.open(index)?;
        Ok(DeviceInfo {
            name: "Example Null".to_owned(),
            target: "null-1".to_owned(),
            alignment_bytes: 1,
            // DLPack's number for devices that it has no name for.
            dlpack_type: 12,
            ..DeviceInfo::default()
        })
    }

    fn open(&self, index: u32) -> Result<()> {
        match index {
            0 => Ok(()),
            other => Err(Error::no_device(format!(
                "there is null:0, and no null:{other}"
            ))),
        }
    }
}

ds_plugin::export_plugin!(Null, "org.example.null-rust");
