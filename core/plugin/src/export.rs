//! `export_plugin!` and the entry behind it.

use std::{
    ffi::c_void,
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
};

use ds_abi::{
    DS_ABI_MINOR, DS_LOG_DEBUG, DS_LOG_ERROR, DS_LOG_INFO, DS_LOG_WARN, DS_OK, DS_PANIC_ABORT,
    DS_PANIC_UNWIND, DsErrorSink, DsHost, DsPlugin, DsStatus, DsStr,
};

use crate::{Accelerator, Error, Result, Table, raw, shim};

/// Exports an [`Accelerator`] as a plugin: `export_plugin!(MyAccelerator, "org.example.mine");`
///
/// The version is the crate's. With `, linked manifest = TEXT, kernels = FUNCTION` it is registered
/// for programs that link the crate ([`crate::LinkedPlugin`]), instead of exporting the symbol.
#[macro_export]
macro_rules! export_plugin {
    ($accelerator:ty, $id:literal) => {
        $crate::export_plugin!(@entry $accelerator, $id, #[unsafe(no_mangle)] pub, ds_plugin_v1);
    };
    ($accelerator:ty, $id:literal, linked manifest = $manifest:expr, kernels = $kernels:expr) => {
        $crate::export_plugin!(@entry $accelerator, $id, , linked_entry);
        $crate::private::inventory::submit! {
            $crate::LinkedPlugin { manifest: $manifest, kernels: $kernels, entry: linked_entry }
        }
    };
    (@entry $accelerator:ty, $id:literal, $(#[$attribute:meta])? $visibility:vis, $name:ident) => {
        /// The plugin's entry; see `ds_plugin.h`.
        ///
        /// # Safety
        /// As `ds_abi::DsPluginEntry` says.
        $(#[$attribute])?
        $visibility unsafe extern "C" fn $name(
            host: *const $crate::abi::DsHost,
            plugin: *mut $crate::abi::DsPlugin,
            error: *mut $crate::abi::DsErrorSink,
        ) -> $crate::abi::DsStatus {
            /// The plugin that this entry belongs to.
            struct Plugin;
            impl $crate::private::Instance<$accelerator> for Plugin {
                fn cell() -> &'static $crate::private::OnceLock<$accelerator> {
                    static CELL: $crate::private::OnceLock<$accelerator> =
                        $crate::private::OnceLock::new();
                    &CELL
                }
            }
            // SAFETY: the host keeps the contract of the entry, which is that of `enter`.
            unsafe {
                $crate::private::enter::<$accelerator, Plugin>(
                    host, plugin, error, $id, env!("CARGO_PKG_VERSION"),
                )
            }
        }
    };
}

/// A plugin and its one accelerator; implemented by `export_plugin!`.
#[doc(hidden)]
pub trait Instance<A: Accelerator>: 'static {
    /// Where the accelerator is kept.
    fn cell() -> &'static OnceLock<A>;
}

/// How important a line of log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something the user should know.
    Warn,
    /// What happened.
    Info,
    /// For who debugs the plugin.
    Debug,
}

/// What the host offers: its features and its log.
#[derive(Clone, Copy)]
pub struct Host {
    features: u64,
    context: *mut c_void,
    log: Option<unsafe extern "C" fn(*mut c_void, u32, DsStr)>,
}

// SAFETY: the host promises that `log` may be called from any thread with this context.
unsafe impl Send for Host {}
// SAFETY: as for `Send`.
unsafe impl Sync for Host {}

impl Host {
    /// `DS_FEATURE_*` bits that the host has.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Writes one line to the host's log.
    pub fn log(&self, level: LogLevel, message: &str) {
        let level = match level {
            LogLevel::Error => DS_LOG_ERROR,
            LogLevel::Warn => DS_LOG_WARN,
            LogLevel::Info => DS_LOG_INFO,
            LogLevel::Debug => DS_LOG_DEBUG,
        };
        if let Some(log) = self.log {
            // SAFETY: the host's function with the host's context; `message` lives for the call.
            unsafe { log(self.context, level, DsStr::new(message)) };
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// What `ds_plugin_v1` does: makes the accelerator and hands out its tables.
///
/// # Safety
/// As [`ds_abi::DsPluginEntry`] says: `host` and `plugin` are null or valid for their `struct_size`.
#[doc(hidden)]
pub unsafe fn enter<A: Accelerator, P: Instance<A>>(
    host: *const DsHost,
    plugin: *mut DsPlugin,
    error: *mut DsErrorSink,
    id: &'static str,
    version: &'static str,
) -> DsStatus {
    let body = || {
        // SAFETY: null or valid for `struct_size` bytes, which is read before anything else.
        let host = unsafe { read_host(host) }?;
        if P::cell().get().is_none() {
            let accelerator = A::new(host)?;
            // Two threads may get here; the first one's accelerator stays.
            let _ = P::cell().set(accelerator);
        }
        let description = DsPlugin {
            struct_size: 0,
            abi_minor: DS_ABI_MINOR,
            min_host_minor: 0,
            panic_strategy: if cfg!(panic = "unwind") {
                DS_PANIC_UNWIND
            } else {
                DS_PANIC_ABORT
            },
            features_required: 0,
            features_offered: 0,
            extensions: std::ptr::null(),
            id: DsStr::new(id),
            version: DsStr::new(version),
            device: shim::Tables::<A, P>::DEVICE,
            memory: offered::<A, _>(Table::Memory, shim::Tables::<A, P>::MEMORY),
            stream: offered::<A, _>(Table::Stream, shim::Tables::<A, P>::STREAM),
            op: offered::<A, _>(Table::Op, shim::Tables::<A, P>::OP),
            jit: offered::<A, _>(Table::Jit, shim::Tables::<A, P>::JIT),
            comm: std::ptr::null(),
            graph: std::ptr::null(),
        };
        // SAFETY: null or writable for its own `struct_size`.
        unsafe { write_plugin(plugin, description) }
    };
    // SAFETY: the sink is the caller's.
    unsafe { raw::guard(error, body) }
}

/// The address of a table that the accelerator has, null for one that it has not.
fn offered<A: Accelerator, T>(which: Table, table: &'static T) -> *const T {
    if A::TABLES.contains(&which) {
        table
    } else {
        std::ptr::null()
    }
}

/// # Safety
/// `host` is null or readable for its `struct_size`, and lives as long as the process.
unsafe fn read_host(host: *const DsHost) -> Result<Host> {
    if host.is_null() {
        return Err(Error::invalid_argument("the host is null"));
    }
    // SAFETY: `struct_size` is the first field of every version of the struct.
    let size = unsafe { (*host).struct_size } as usize;
    if size < size_of::<DsHost>() {
        return Err(Error::new(
            ds_abi::DS_INCOMPATIBLE_ABI,
            format!(
                "the host's struct has {size} bytes, version 1.0 has {}",
                size_of::<DsHost>()
            ),
        ));
    }
    // SAFETY: large enough, as just checked.
    let host = unsafe { &*host };
    // SAFETY: a chain of the host's, alive as long as the process.
    let mut at = unsafe { host.extensions.as_ref() };
    while let Some(extension) = at {
        if extension.flags & ds_abi::DS_EXTENSION_MUST_UNDERSTAND != 0 {
            return Err(Error::new(
                ds_abi::DS_INCOMPATIBLE_ABI,
                format!(
                    "the host brings extension {:032x} that must be understood, and is not",
                    u128::from_be_bytes(extension.type_id)
                ),
            ));
        }
        // SAFETY: as above.
        at = unsafe { extension.next.as_ref() };
    }
    Ok(Host {
        features: host.features,
        context: host.context,
        log: host.log,
    })
}

/// # Safety
/// `plugin` is null or writable for its own `struct_size`.
unsafe fn write_plugin(plugin: *mut DsPlugin, mut offered: DsPlugin) -> Result<()> {
    if plugin.is_null() {
        return Err(Error::invalid_argument("the plugin struct is null"));
    }
    // SAFETY: `struct_size` is the first field of every version of the struct.
    let room = unsafe { (*plugin).struct_size } as usize;
    let bytes = room.min(size_of::<DsPlugin>());
    offered.struct_size = u32::try_from(bytes).unwrap_or(u32::MAX);
    let from = (&raw const offered).cast::<u8>();
    // SAFETY: within both structs, and they do not overlap: ours is on the stack.
    unsafe { std::ptr::copy_nonoverlapping(from, plugin.cast::<u8>(), bytes) };
    Ok(())
}

/// A string that lives as long as the process; equal strings share one copy, so that asking twice
/// costs nothing twice.
pub(crate) fn intern(text: &str) -> DsStr {
    static SEEN: Mutex<std::collections::BTreeSet<&'static str>> =
        Mutex::new(std::collections::BTreeSet::new());
    if text.is_empty() {
        return DsStr::EMPTY;
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = seen.get(text).copied().unwrap_or_else(|| {
        let kept: &'static str = Box::leak(text.into());
        seen.insert(kept);
        kept
    });
    DsStr::new(kept)
}

/// `DS_OK`, or what the sink was told.
pub(crate) fn status(result: Result<()>, error: *mut DsErrorSink) -> DsStatus {
    match result {
        Ok(()) => DS_OK,
        // SAFETY: every caller passes the sink that came over the boundary.
        Err(e) => unsafe { e.write(error) },
    }
}
