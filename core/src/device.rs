//! Devices: what they are, and the one object per device that everything else hangs on.

use std::{
    ffi::c_void,
    fmt,
    hash::{Hash, Hasher},
    sync::OnceLock,
};

use ds_abi::{
    DS_DEVICE_HANDLES_MEMORY_BACKPRESSURE, DS_DEVICE_HOST_TIMERS, DS_DEVICE_HOST_VISIBLE_MEMORY,
    DS_DEVICE_RESOLVES_DATA_DEPENDENCY, DS_DEVICE_SYNCHRONOUS, DS_DEVICE_TRITON,
    DS_DEVICE_UNIFIED_MEMORY, DsDevice, DsDeviceInfo, DsMemoryInfo, DsStr,
};
use ds_schema::{DType, Kernel};
use serde::{Deserialize, Serialize};

use crate::{
    ErrorKind, Result,
    error::one_line,
    fork,
    kernels::Kernels,
    leaks::{self, Unpooled},
    memory::{MemoryStats, Pool},
    op::{Modules, Op, Plans},
    plugin::{
        Plugin,
        call::{Guarded, call},
    },
    rng::Generator,
    settings::{Settings, settings},
    stream::{Stream, Streams},
};

/// What a device is. Constant for the life of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(
    clippy::unsafe_derive_deserialize,
    reason = "plain values; the unsafe asks a plugin"
)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent answers to DeepSpeed's questions"
)]
pub struct DeviceInfo {
    /// Marketing name.
    pub name: String,
    /// What artefacts are built for.
    pub target: String,
    /// Version of the driver, empty if there is none.
    pub driver_version: String,
    /// Vendor's unique name of the physical device, empty if there is none.
    pub uuid: String,
    /// PCI address, empty if there is none.
    pub pci: String,
    /// NUMA node, if known.
    pub numa_node: Option<u32>,
    /// Dtypes that arithmetic can use.
    pub dtypes: Vec<DType>,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Alignment of every allocation, in bytes.
    pub alignment_bytes: u32,
    /// Compute units, 0 if unknown.
    pub compute_units: u32,
    /// DLPack's device type.
    pub dlpack_type: i32,
    /// Every operation is finished when its call returns.
    pub synchronous: bool,
    /// Time with the host's clock rather than events.
    pub host_timers: bool,
    /// The runtime orders producers and consumers across streams by itself.
    pub resolves_data_dependency: bool,
    /// The runtime throttles when memory is short.
    pub handles_memory_backpressure: bool,
    /// The host may read and write device memory through its address.
    pub host_visible_memory: bool,
    /// The device's memory is the host's own.
    pub unified_memory: bool,
    /// Triton kernels run on it.
    pub triton: bool,
}

impl DeviceInfo {
    /// Asks `plugin` what its device `index` is, without opening it.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn query(plugin: &Plugin, index: u32) -> Result<Self> {
        let mut raw = Guarded::new(DsDeviceInfo {
            struct_size: sized::<DsDeviceInfo>(),
            numa_node: -1,
            name: DsStr::EMPTY,
            target: DsStr::EMPTY,
            driver_version: DsStr::EMPTY,
            uuid: DsStr::EMPTY,
            pci: DsStr::EMPTY,
            flags: 0,
            dtypes: 0,
            memory_bytes: 0,
            alignment_bytes: 0,
            compute_units: 0,
            dlpack_type: 0,
            reserved: 0,
        });
        // SAFETY: `raw` states its size and is writable for the call.
        unsafe { call!(plugin, device.describe(index, raw.pointer())) }?;
        let raw = raw.filled(plugin.accelerator(), "describe")?;
        // SAFETY: strings that a plugin fills live as long as the process.
        let text = |s: DsStr| one_line(String::from_utf8_lossy(unsafe { s.bytes() }));
        let has = |flag| raw.flags & flag != 0;
        Ok(Self {
            name: text(raw.name),
            target: text(raw.target),
            driver_version: text(raw.driver_version),
            uuid: text(raw.uuid),
            pci: text(raw.pci),
            numa_node: u32::try_from(raw.numa_node).ok(),
            dtypes: DType::ALL
                .into_iter()
                .filter(|dtype| raw.dtypes & (1 << dtype.index()) != 0)
                .collect(),
            memory_bytes: raw.memory_bytes,
            // 0 and odd numbers are no alignments; the next power of two is one that holds.
            alignment_bytes: raw.alignment_bytes.max(1).next_power_of_two(),
            compute_units: raw.compute_units,
            dlpack_type: raw.dlpack_type,
            synchronous: has(DS_DEVICE_SYNCHRONOUS),
            host_timers: has(DS_DEVICE_HOST_TIMERS),
            resolves_data_dependency: has(DS_DEVICE_RESOLVES_DATA_DEPENDENCY),
            handles_memory_backpressure: has(DS_DEVICE_HANDLES_MEMORY_BACKPRESSURE),
            host_visible_memory: has(DS_DEVICE_HOST_VISIBLE_MEMORY),
            unified_memory: has(DS_DEVICE_UNIFIED_MEMORY),
            triton: has(DS_DEVICE_TRITON),
        })
    }
}

/// How much memory a device has, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryInfo {
    /// In all.
    pub total_bytes: u64,
    /// Free for this process right now.
    pub free_bytes: u64,
}

/// An open device. Copies are the same device; it stays open until the process ends, so that no
/// stream, buffer or kernel can outlive it.
#[derive(Clone, Copy)]
pub struct Device(&'static Inner);

struct Inner {
    plugin: &'static Plugin,
    index: u32,
    handle: DsDevice,
    info: DeviceInfo,
    settings: &'static Settings,
    pool: Pool,
    unpooled: Unpooled,
    streams: Streams,
    default_stream: OnceLock<Stream>,
    kernels: &'static Kernels,
    modules: Modules,
    plans: Plans,
    generator: Generator,
}

// SAFETY: the boundary says that every call on a device handle may come from any thread.
unsafe impl Send for Inner {}
// SAFETY: as for `Send`.
unsafe impl Sync for Inner {}

impl Device {
    /// Opens device `index` of `plugin`. Open each device once: [`crate::Accelerator`] does.
    pub(crate) fn open(
        plugin: &'static Plugin,
        index: u32,
        kernels: &'static Kernels,
    ) -> Result<Self> {
        let settings = settings()?;
        fork::watch();
        let info = DeviceInfo::query(plugin, index)?;
        let mut handle: DsDevice = std::ptr::null_mut();
        // SAFETY: `handle` is writable for the call.
        unsafe { call!(plugin, device.open(index, &raw mut handle)) }?;
        let pool = Pool::new(info.alignment_bytes);
        let device = Self(Box::leak(Box::new(Inner {
            plugin,
            index,
            handle,
            info,
            settings,
            pool,
            unpooled: Unpooled::default(),
            streams: Streams::default(),
            default_stream: OnceLock::new(),
            kernels,
            modules: Modules::default(),
            plans: Plans::default(),
            generator: Generator::default(),
        })));
        if settings.debug.leaks {
            leaks::watch(device);
        }
        Ok(device)
    }

    /// The accelerator's canonical name.
    pub fn accelerator(self) -> &'static str {
        self.0.plugin.accelerator()
    }

    /// Index among the accelerator's devices.
    pub fn index(self) -> u32 {
        self.0.index
    }

    /// What it is.
    pub fn info(self) -> &'static DeviceInfo {
        &self.0.info
    }

    /// Counts its memory, in bytes.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn memory_info(self) -> Result<MemoryInfo> {
        let mut raw = DsMemoryInfo {
            struct_size: sized::<DsMemoryInfo>(),
            reserved: 0,
            total_bytes: 0,
            free_bytes: 0,
        };
        // SAFETY: the handle is open for ever; `raw` states its size.
        unsafe { call!(self.0.plugin, memory.info(self.0.handle, &raw mut raw)) }?;
        Ok(MemoryInfo {
            total_bytes: raw.total_bytes,
            free_bytes: raw.free_bytes,
        })
    }

    /// The stream that work runs in when none is named.
    ///
    /// # Errors
    /// When the plugin cannot make it.
    pub fn default_stream(self) -> Result<&'static Stream> {
        if let Some(stream) = self.0.default_stream.get() {
            return Ok(stream);
        }
        let made = Stream::make(self, true)?;
        Ok(self.0.default_stream.get_or_init(|| made))
    }

    pub(crate) fn has_default_stream(self) -> bool {
        self.0.default_stream.get().is_some()
    }

    /// Whether `DS_DEBUG` has every launch waited for, so that how long one takes says nothing of a
    /// kernel.
    pub fn is_watched(self) -> bool {
        let debug = self.settings().debug;
        debug.sync || debug.shadow
    }

    /// Waits until all work given to the device is done.
    ///
    /// # Errors
    /// The first failure of that work.
    pub fn synchronize(self) -> Result<()> {
        // SAFETY: the handle is open for ever.
        match unsafe { call!(self.0.plugin, device.synchronize(self.0.handle)) } {
            Err(e) if e.kind() == ErrorKind::Unimplemented => self.0.streams.finish(),
            done => done,
        }
    }

    /// As [`Device::synchronize`], and when this returns, nothing is pending: also when it was the
    /// wait that failed and not the work.
    ///
    /// # Errors
    /// As [`Device::synchronize`].
    pub(crate) fn finish(self) -> Result<()> {
        self.synchronize().inspect_err(|_| {
            // Its failure is that of the device, or of work that is over.
            let _ = self.0.streams.finish();
        })
    }

    pub(crate) fn plugin(self) -> &'static Plugin {
        self.0.plugin
    }

    pub(crate) fn handle(self) -> DsDevice {
        self.0.handle
    }

    /// The process's settings, which made sense when the device was opened.
    #[inline]
    pub(crate) fn settings(self) -> &'static Settings {
        self.0.settings
    }

    pub(crate) fn pool(self) -> &'static Pool {
        &self.0.pool
    }

    pub(crate) fn unpooled(self) -> &'static Unpooled {
        &self.0.unpooled
    }

    /// The accelerator's kernels, sorted by op.
    pub fn kernels(self) -> Vec<&'static Kernel> {
        self.0.kernels.all()
    }

    /// The accelerator's kernels for `op`.
    pub fn kernels_of(self, op: &Op) -> &'static [Kernel] {
        self.0.kernels.of(op)
    }

    /// Its random number generator.
    pub fn generator(self) -> &'static Generator {
        &self.0.generator
    }

    pub(crate) fn modules(self) -> &'static Modules {
        &self.0.modules
    }

    pub(crate) fn plans(self) -> &'static Plans {
        &self.0.plans
    }

    /// What the caching pool holds and has done; upstream's `memory_stats`.
    pub fn memory_stats(self) -> MemoryStats {
        self.0.pool.stats()
    }

    /// Lets the peaks of [`Device::memory_stats`] start anew; upstream's `reset_peak_memory_stats`.
    pub fn reset_peak_memory_stats(self) {
        self.0.pool.reset_peaks();
    }

    /// Gives free memory of the pool back to the device; upstream's `empty_cache`.
    ///
    /// # Errors
    /// When the device cannot finish its work first, and nothing is given back; or when it does not
    /// take memory back, which is lost, while the rest is given back.
    pub fn empty_cache(self) -> Result<()> {
        self.0.pool.trim(&self)
    }

    /// Limits what the pool may take from the device.
    pub fn set_memory_cap(self, bytes: Option<u64>) {
        self.0.pool.set_cap(bytes);
    }

    pub(crate) fn streams(self) -> &'static Streams {
        &self.0.streams
    }

    /// Raw memory of `kind`, past the pool.
    pub(crate) fn allocate(self, bytes: u64, alignment: u64, kind: u32) -> Result<*mut c_void> {
        let mut address = std::ptr::null_mut();
        // SAFETY: the handle is open for ever; `address` is writable for the call.
        unsafe {
            call!(
                self.0.plugin,
                memory.allocate(self.0.handle, bytes, alignment, kind, &raw mut address)
            )
        }?;
        Ok(address)
    }

    /// Gives raw memory back.
    ///
    /// # Safety
    /// The block came from [`Device::allocate`] with these numbers, and nothing uses it any more.
    pub(crate) unsafe fn free(self, address: *mut c_void, bytes: u64, kind: u32) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            call!(
                self.0.plugin,
                memory.free(self.0.handle, address, bytes, kind)
            )
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self.0).hash(state);
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.accelerator(), self.index())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

/// Size of a struct of the boundary, for its first field.
#[allow(
    clippy::cast_possible_truncation,
    reason = "structs of the boundary are small"
)]
pub(crate) const fn sized<T>() -> u32 {
    size_of::<T>() as u32
}
