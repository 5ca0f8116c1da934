//! What a device has for files: tried on it, so it is opened.

use ds_core::{DType, Device, Error, Host};
use ds_io::{GdsHandle, PinHandle};
use serde::Serialize;

use crate::{chosen, view::Refusal};

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct OnDevice {
    /// Such as `cpu:0`.
    pub(super) device: String,
    #[serde(skip)]
    pub(super) opened: Option<Device>,
    /// Whether the host reaches its memory, so that files are moved into its tensors without a copy.
    pub(super) host_visible: bool,
    /// Why a page of its pinned memory was not to be had; nothing when it was.
    pub(super) pinned_refusal: Option<Refusal>,
    /// Why it has no way to storage of its own.
    pub(super) gds_missing: Option<&'static str>,
    /// Why it cannot be opened; then nothing else is known of it.
    #[serde(flatten)]
    pub(super) refusal: Option<Refusal>,
}

/// Opens those that are `asked` for, else the one that a program gets.
///
/// # Errors
/// Those of the selection.
pub(super) fn tried(host: &Host, asked: Option<&str>) -> Result<Vec<OnDevice>, Error> {
    let mut shares = chosen::shares(host, "io", asked)?;
    if asked.is_none() {
        // What is known of one is known of all that are alike, and each takes its time to open.
        shares.truncate(1);
        for share in &mut shares {
            share.devices.truncate(1);
        }
    }
    let devices = shares.iter().flat_map(|share| {
        let name = share.accelerator.as_str();
        share.devices.iter().map(move |&index| (name, index))
    });
    Ok(devices
        .map(|(accelerator, index)| {
            let opened = host.accelerator(accelerator).and_then(|a| a.device(index));
            OnDevice::new(format!("{accelerator}:{index}"), &opened)
        })
        .collect())
}

/// Whether a page of `device`'s pinned memory is to be had.
///
/// # Errors
/// Why not.
pub(crate) fn lock_a_page(device: Device) -> Result<(), Error> {
    let page = rustix::param::page_size() as u64;
    let locked = PinHandle::new().new_cpu_locked_tensor(device, page, DType::U8);
    locked.map(drop)
}

impl OnDevice {
    fn new(name: String, opened: &Result<Device, Error>) -> Self {
        let device = opened.as_ref().ok().copied();
        let info = device.map(Device::info);
        let refused = device.and_then(|device| lock_a_page(device).err());
        Self {
            device: name,
            host_visible: info.is_some_and(|info| info.host_visible_memory),
            gds_missing: info.map(GdsHandle::missing_by),
            pinned_refusal: refused.map(|e| Refusal::short(&e)),
            refusal: opened.as_ref().err().map(Refusal::from),
            opened: device,
        }
    }
}
