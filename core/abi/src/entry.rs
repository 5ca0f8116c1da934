//! The one exported symbol and what the two sides tell each other through it.

use core::ffi::c_void;

use crate::{
    DsDeviceTable, DsErrorSink, DsExtension, DsJitTable, DsMemoryTable, DsOpTable, DsStatus, DsStr,
    DsStreamTable,
};

/// Major version of this boundary; the entry symbol carries it.
pub const DS_ABI_MAJOR: u32 = 1;
/// Minor version of this boundary: grows when fields or functions are appended.
pub const DS_ABI_MINOR: u32 = 0;
/// Name of the entry symbol of major 1, with the terminating zero that `dlsym` wants.
pub const DS_PLUGIN_ENTRY_V1: &[u8; 13] = b"ds_plugin_v1\0";

/// Signature of `ds_plugin_v1`.
///
/// The host zeroes `plugin` and sets its `struct_size`; the plugin fills it within that size and
/// sets `struct_size` to what it filled. The entry may not touch a device, start a thread, or
/// change the process (environment, signal handlers, locale). Called once per process.
pub type DsPluginEntry = unsafe extern "C" fn(
    host: *const DsHost,
    plugin: *mut DsPlugin,
    error: *mut DsErrorSink,
) -> DsStatus;

/// The host signals timeline points itself and waits on them ([`DsStreamTable`]).
pub const DS_FEATURE_HOST_SIGNAL: u64 = 1;
/// The host runs toolchains that are programs ([`DsJitTable`]).
pub const DS_FEATURE_BUILD_PROGRAMS: u64 = 1 << 1;
/// The host runs reference implementations through copies to and from the device.
pub const DS_FEATURE_REFERENCE_FALLBACK: u64 = 1 << 2;

/// Log levels of [`DsHost::log`].
pub const DS_LOG_ERROR: u32 = 1;
/// Something the user should know, and can go on with.
pub const DS_LOG_WARN: u32 = 2;
/// What happened, in a line.
pub const DS_LOG_INFO: u32 = 3;
/// For who debugs the plugin.
pub const DS_LOG_DEBUG: u32 = 4;

/// What the host offers a plugin. Lives as long as the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsHost {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// The host's [`DS_ABI_MINOR`].
    pub abi_minor: u32,
    /// The oldest plugin minor that the host accepts.
    pub min_plugin_minor: u32,
    /// Zero.
    pub reserved: u32,
    /// `DS_FEATURE_*` bits that the host has.
    pub features: u64,
    /// Chain of extensions, or null.
    pub extensions: *const DsExtension,
    /// Passed back in each call below.
    pub context: *mut c_void,
    /// Writes one line to the host's log. Any thread, any time after the entry was called.
    pub log: Option<unsafe extern "C" fn(context: *mut c_void, level: u32, message: DsStr)>,
}

/// The plugin does not say; taken for C code that never unwinds.
pub const DS_PANIC_NONE: u32 = 0;
/// Panics unwind, and the plugin catches them at each entry.
pub const DS_PANIC_UNWIND: u32 = 1;
/// Panics abort the process; the host refuses such a plugin.
pub const DS_PANIC_ABORT: u32 = 2;

/// What a plugin is and does. Tables stay valid for the life of the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsPlugin {
    /// In: the host's size. Out: how many bytes the plugin filled.
    pub struct_size: u32,
    /// The minor that the plugin was compiled with.
    pub abi_minor: u32,
    /// The oldest host minor that the plugin accepts.
    pub min_host_minor: u32,
    /// `DS_PANIC_*`.
    pub panic_strategy: u32,
    /// `DS_FEATURE_*` bits without which the plugin cannot work.
    pub features_required: u64,
    /// `DS_FEATURE_*` bits that the plugin makes use of when they are there.
    pub features_offered: u64,
    /// Chain of extensions, or null.
    pub extensions: *const DsExtension,
    /// The manifest's `id`, such as `org.example.sim`.
    pub id: DsStr,
    /// The manifest's `version`.
    pub version: DsStr,
    /// Devices; the one table that every plugin has.
    pub device: *const DsDeviceTable,
    /// Memory, or null.
    pub memory: *const DsMemoryTable,
    /// Streams and timeline events, or null.
    pub stream: *const DsStreamTable,
    /// Op launch, or null.
    pub op: *const DsOpTable,
    /// Builds on demand, or null.
    pub jit: *const DsJitTable,
    /// Reserved for collectives: null.
    pub comm: *const c_void,
    /// Reserved for graph capture: null.
    pub graph: *const c_void,
}

// SAFETY: the pointers are to `'static`, immutable tables, as the field docs demand.
unsafe impl Send for DsPlugin {}
// SAFETY: as for `Send`.
unsafe impl Sync for DsPlugin {}
