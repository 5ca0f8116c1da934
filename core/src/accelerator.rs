//! Accelerators: a plugin that agreed to work, its kernels, and its devices.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use ds_abi::DsPluginEntry;
use ds_schema::Kernel;

use crate::{
    Device, DeviceInfo, Error, ErrorKind, Result,
    kernels::{KernelEntry, Kernels},
    op::Op,
    plugin::{self, Plugin, call::call},
    trust::FileIdentity,
};

/// An accelerator. Copies are the same one; it stays loaded until the process ends.
#[derive(Clone, Copy)]
pub struct Accelerator(&'static Inner);

struct Inner {
    plugin: &'static Plugin,
    kernels: Kernels,
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
    /// Why the plugin cannot be opened or does not agree.
    pub(crate) fn load(
        name: &str,
        source: Source<'_>,
        kernels: impl IntoIterator<Item = KernelEntry>,
    ) -> Result<Self> {
        let (entry, others) = match source {
            // The `kernel.json` of an op family has the kernels of every accelerator.
            Source::Linked(entry) => (entry, log::Level::Debug),
            Source::File(path, checked) => (plugin::open(path, checked)?, log::Level::Warn),
        };
        // SAFETY: the entry is that of a linked plugin, or of a library that stays open and was
        // checked to export it; its contract is the boundary's.
        let plugin = unsafe { Plugin::enter(name, entry) }?;
        Ok(Self(Box::leak(Box::new(Inner {
            plugin: Box::leak(Box::new(plugin)),
            kernels: Kernels::new(name, kernels, others),
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

    /// Its kernels, sorted by op.
    pub fn kernels(self) -> Vec<&'static Kernel> {
        self.0.kernels.all()
    }

    /// Its kernels for `op`.
    pub fn kernels_of(self, op: &Op) -> &'static [Kernel] {
        self.0.kernels.of(op)
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
