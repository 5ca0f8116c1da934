//! Accelerators: a plugin that agreed to work, its kernels, and its devices.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use ds_abi::DsPluginEntry;
use ds_schema::{Kernel, KernelFile};

use crate::{
    Device, DeviceInfo, Error, ErrorKind, Result, op,
    plugin::{self, Plugin, call::call},
    trust::FileIdentity,
};

/// An accelerator. Copies are the same one; it stays loaded until the process ends.
#[derive(Clone, Copy)]
pub struct Accelerator(&'static Inner);

struct Inner {
    plugin: &'static Plugin,
    kernels: Vec<Kernel>,
    devices: Mutex<BTreeMap<u32, Device>>,
}

/// Where a plugin's entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// In this program.
    Linked(DsPluginEntry),
    /// In a file that was checked.
    File(&'a Path, FileIdentity),
}

impl Accelerator {
    /// Loads the plugin that serves the accelerator `name`. Load each one once.
    ///
    /// # Errors
    /// Why the plugin cannot be opened or does not agree, or which kernel description is wrong.
    pub(crate) fn load(
        name: &str,
        source: Source<'_>,
        kernel_files: impl IntoIterator<Item = KernelFile>,
    ) -> Result<Self> {
        let entry = match source {
            Source::Linked(entry) => entry,
            Source::File(path, checked) => plugin::open(path, checked)?,
        };
        let mut kernels = Vec::new();
        for file in kernel_files {
            for kernel in file.kernels.into_iter().filter(|k| k.accelerator == name) {
                let checked = op::find(&kernel.op)
                    .map_err(|e| e.to_string())
                    .and_then(|op| kernel.check(op.schema()).map_err(|e| e.message));
                match checked {
                    Ok(()) => kernels.push(kernel),
                    // One kernel for an op that this program does not know hides no other.
                    Err(e) => log::warn!("{name}: kernel '{}' is left out: {e}", kernel.name),
                }
            }
        }
        // SAFETY: the entry is that of a linked plugin, or of a library that stays open and was
        // checked to export it; its contract is the boundary's.
        let plugin = unsafe { Plugin::enter(name, entry) }?;
        Ok(Self(Box::leak(Box::new(Inner {
            plugin: Box::leak(Box::new(plugin)),
            kernels,
            devices: Mutex::default(),
        }))))
    }

    /// Its canonical name.
    pub fn name(self) -> &'static str {
        self.0.plugin.accelerator()
    }

    /// The plugin that serves it.
    pub fn plugin(self) -> &'static Plugin {
        self.0.plugin
    }

    /// Its kernels.
    pub fn kernels(self) -> &'static [Kernel] {
        &self.0.kernels
    }

    /// Counts its devices; the first call that may touch its driver.
    ///
    /// # Errors
    /// [`ErrorKind::LibraryNotFound`] when the driver's library is not there,
    /// [`ErrorKind::NoDevice`] when it is there without a device.
    pub fn device_count(self) -> Result<u32> {
        let mut count = 0;
        // SAFETY: `count` is writable for the call.
        unsafe { call!(self.0.plugin, device.count(&raw mut count)) }?;
        Ok(count)
    }

    /// What device `index` is, without opening it.
    ///
    /// # Errors
    /// [`ErrorKind::NoDevice`] for an index out of range.
    pub fn device_info(self, index: u32) -> Result<DeviceInfo> {
        DeviceInfo::query(self.0.plugin, index)
    }

    /// Device `index`, opened at the first call.
    ///
    /// # Errors
    /// [`ErrorKind::NoDevice`] for an index out of range.
    pub fn device(self, index: u32) -> Result<Device> {
        let mut devices = self
            .0
            .devices
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(&index) {
            return Ok(*device);
        }
        let count = self.device_count()?;
        if index >= count {
            return Err(Error::new(
                ErrorKind::NoDevice,
                "open a device",
                match count {
                    1 => format!("there is no {0}:{index}: {0} has one device", self.name()),
                    _ => format!(
                        "there is no {0}:{index}: {0} has {count} devices",
                        self.name()
                    ),
                },
            ));
        }
        let device = Device::open(self.0.plugin, index, &self.0.kernels)?;
        devices.insert(index, device);
        Ok(device)
    }
}

impl PartialEq for Accelerator {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Accelerator {}

impl fmt::Debug for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accelerator({})", self.name())
    }
}
