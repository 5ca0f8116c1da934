//! The device table: which devices there are and what they are.

use crate::{DsErrorSink, DsStatus, DsStr};

/// An open device, owned by its plugin.
#[repr(C)]
#[derive(Debug)]
pub struct DsDeviceObject {
    _private: [u8; 0],
}
/// Handle of an open device. Every call on it may come from any thread at any time.
pub type DsDevice = *mut DsDeviceObject;

/// Every operation is finished when its call returns (DeepSpeed's `is_synchronized_device`).
pub const DS_DEVICE_SYNCHRONOUS: u64 = 1;
/// Time with the host's clock rather than events (DeepSpeed's `use_host_timers`).
pub const DS_DEVICE_HOST_TIMERS: u64 = 1 << 1;
/// The runtime orders producers and consumers across streams by itself
/// (DeepSpeed's `resolves_data_dependency`).
pub const DS_DEVICE_RESOLVES_DATA_DEPENDENCY: u64 = 1 << 2;
/// The runtime throttles when memory is short (DeepSpeed's `handles_memory_backpressure`).
pub const DS_DEVICE_HANDLES_MEMORY_BACKPRESSURE: u64 = 1 << 3;
/// The host may read and write device memory through its address.
pub const DS_DEVICE_HOST_VISIBLE_MEMORY: u64 = 1 << 4;
/// The device's memory is the host's own: a copy to it gains nothing.
pub const DS_DEVICE_UNIFIED_MEMORY: u64 = 1 << 5;
/// Triton kernels run on it (DeepSpeed's `is_triton_supported`).
pub const DS_DEVICE_TRITON: u64 = 1 << 6;

/// What a device is. Constant for the life of the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsDeviceInfo {
    /// In: the host's size. Out: how many bytes the plugin filled.
    pub struct_size: u32,
    /// NUMA node that the device hangs on, -1 if unknown.
    pub numa_node: i32,
    /// Marketing name, as the vendor writes it.
    pub name: DsStr,
    /// What artefacts are built for, such as `sm_90` or `x86-64+avx512f`. The plugin's own grammar;
    /// the host only compares it and puts it into cache keys.
    pub target: DsStr,
    /// Version of the driver, empty if there is none.
    pub driver_version: DsStr,
    /// Vendor's unique name of the physical device (UUID, MIG name), empty if there is none.
    pub uuid: DsStr,
    /// PCI address such as `0000:65:00.0`, empty if there is none.
    pub pci: DsStr,
    /// `DS_DEVICE_*` bits.
    pub flags: u64,
    /// Bit `1 << DS_DTYPE_*` for each dtype that arithmetic can use.
    pub dtypes: u64,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Alignment that every allocation has, in bytes; a power of two.
    pub alignment_bytes: u32,
    /// Compute units (cores, streaming multiprocessors), 0 if unknown.
    pub compute_units: u32,
    /// Index of the DLPack device type, such as 1 for CPU.
    pub dlpack_type: i32,
    /// Zero.
    pub reserved: u32,
}

/// Devices. Every slot but `synchronize` is required.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsDeviceTable {
    /// Size of this table as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Counts the devices that the vendor's visibility variables leave. The first call that may
    /// touch the driver. `DS_UNAVAILABLE` when the driver library is not there, `DS_NO_DEVICE` or a
    /// count of 0 when it is there without a device.
    pub count: Option<unsafe extern "C" fn(count: *mut u32, error: *mut DsErrorSink) -> DsStatus>,
    /// Describes device `index` without opening it.
    pub describe: Option<
        unsafe extern "C" fn(
            index: u32,
            info: *mut DsDeviceInfo,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Opens device `index`. Opening twice gives two handles of one device.
    pub open: Option<
        unsafe extern "C" fn(
            index: u32,
            device: *mut DsDevice,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Closes a handle. Everything made from it has been destroyed before.
    pub close: Option<unsafe extern "C" fn(device: DsDevice)>,
    /// Waits until all work given to the device is done.
    pub synchronize:
        Option<unsafe extern "C" fn(device: DsDevice, error: *mut DsErrorSink) -> DsStatus>,
}
