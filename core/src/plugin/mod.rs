//! Plugins: opening one, agreeing with it, and calling it.
//!
//! `negotiate.rs` decides, `loader.rs` opens the file, this module calls the entry and keeps the
//! tables, `call.rs` is how every other module calls through them.

pub(crate) mod call;
mod loader;
pub mod negotiate;

use std::{ffi::c_void, ptr};

use ds_abi::{
    DS_ABI_MINOR, DS_FEATURE_BUILD_PROGRAMS, DS_FEATURE_HOST_SIGNAL, DS_FEATURE_REFERENCE_FALLBACK,
    DS_LOG_DEBUG, DS_LOG_ERROR, DS_LOG_INFO, DS_LOG_WARN, DS_OK, DsDeviceTable, DsExtension,
    DsHost, DsJitTable, DsMemoryTable, DsOpTable, DsPlugin, DsPluginEntry, DsStr, DsStreamTable,
};
pub use loader::open;

use self::call::Guarded;
use self::negotiate::{Agreement, PluginShape, Required, Side, TableShape, negotiate};
use crate::{Error, ErrorKind, Result, error::one_line};

/// The oldest minor of a plugin that this host accepts.
const MIN_PLUGIN_MINOR: u32 = 0;
/// A chain of extensions longer than this is taken for a loop.
const MAX_EXTENSIONS: usize = 64;

/// A plugin that agreed to work with this host. Never unloaded.
#[derive(Debug)]
pub struct Plugin {
    accelerator: String,
    id: String,
    version: String,
    tables: Tables,
    agreement: Agreement,
}

/// A plugin's functions in the host's own sizes; what is missing is `None`.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) device: DsDeviceTable,
    pub(crate) memory: DsMemoryTable,
    pub(crate) stream: DsStreamTable,
    pub(crate) op: DsOpTable,
    pub(crate) jit: DsJitTable,
}

impl Plugin {
    /// Calls `entry` and agrees with what it describes, or says why not.
    ///
    /// # Safety
    /// `entry` is the entry function of a plugin that stays loaded, and keeps the contract of
    /// [`DsPluginEntry`].
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when the two cannot work together, else the plugin's own error.
    pub unsafe fn enter(accelerator: &str, entry: DsPluginEntry) -> Result<Self> {
        let op = || format!("load the plugin of '{accelerator}'");
        let mut raw = Guarded::new(empty_plugin());
        let mut text = call::buffer();
        let mut sink = call::sink(&mut text);
        // SAFETY: the host struct is a constant, `raw` states its own size, the sink is ours.
        let status = unsafe { entry(&raw const HOST.0, raw.pointer(), &raw mut sink) };
        if status != DS_OK {
            return Err(call::failure(
                accelerator,
                "ds_plugin_v1",
                status,
                &sink,
                &text,
            ));
        }
        let raw = raw.filled(accelerator, "ds_plugin_v1")?;
        // SAFETY: the entry filled the struct, and its pointers live as long as the process.
        let (side, shape) = unsafe { (side_of(&raw), shape_of(&raw)) };
        let agreement = negotiate(&host_side(), &side, &shape)
            .map_err(|reason| Error::new(ErrorKind::Incompatible, op(), reason))?;
        for (table, reason) in &agreement.dropped {
            log::warn!("{accelerator}: the {table} table is left out: {reason}");
        }
        let kept = |name| {
            !agreement
                .dropped
                .iter()
                .any(|(dropped, _)| *dropped == name)
        };
        // SAFETY: as above; a null table, like one that was dropped, becomes an empty one.
        let tables = unsafe {
            Tables {
                device: copy_table(raw.device, true),
                memory: copy_table(raw.memory, kept("memory")),
                stream: copy_table(raw.stream, kept("stream")),
                op: copy_table(raw.op, kept("op")),
                jit: copy_table(raw.jit, kept("jit")),
            }
        };
        // SAFETY: strings of a plugin live as long as the process (rule 6 of the boundary).
        let (id, version) = unsafe { (owned(raw.id), owned(raw.version)) };
        Ok(Self {
            accelerator: accelerator.to_owned(),
            id,
            version,
            tables,
            agreement,
        })
    }

    /// Canonical name of the accelerator that it serves.
    pub fn accelerator(&self) -> &str {
        &self.accelerator
    }

    /// The plugin's identity, such as `org.example.sim`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The plugin's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What was agreed with it.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }
}

/// The host as every plugin sees it.
struct Host(DsHost);
// SAFETY: a constant; its function may be called from any thread, and its pointers are null.
unsafe impl Sync for Host {}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the struct is smaller than 4 GiB"
)]
static HOST: Host = Host(DsHost {
    struct_size: size_of::<DsHost>() as u32,
    abi_minor: DS_ABI_MINOR,
    min_plugin_minor: MIN_PLUGIN_MINOR,
    reserved: 0,
    features: DS_FEATURE_HOST_SIGNAL | DS_FEATURE_BUILD_PROGRAMS | DS_FEATURE_REFERENCE_FALLBACK,
    extensions: ptr::null(),
    context: ptr::null_mut(),
    log: Some(log_line),
});

fn host_side() -> Side {
    Side {
        minor: HOST.0.abi_minor,
        oldest_other_minor: HOST.0.min_plugin_minor,
        features: HOST.0.features,
        ..Side::default()
    }
}

unsafe extern "C" fn log_line(_context: *mut c_void, level: u32, message: DsStr) {
    let level = match level {
        DS_LOG_ERROR => log::Level::Error,
        DS_LOG_WARN => log::Level::Warn,
        DS_LOG_INFO => log::Level::Info,
        DS_LOG_DEBUG => log::Level::Debug,
        _ => log::Level::Trace,
    };
    // SAFETY: strings in arguments live for the call (rule 6 of the boundary).
    let message = unsafe { message.bytes() };
    log::log!(target: "plugin", level, "{}", String::from_utf8_lossy(message));
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the struct is smaller than 4 GiB"
)]
fn empty_plugin() -> DsPlugin {
    DsPlugin {
        struct_size: size_of::<DsPlugin>() as u32,
        abi_minor: 0,
        min_host_minor: 0,
        panic_strategy: 0,
        features_required: 0,
        features_offered: 0,
        extensions: ptr::null(),
        id: DsStr::EMPTY,
        version: DsStr::EMPTY,
        device: ptr::null(),
        memory: ptr::null(),
        stream: ptr::null(),
        op: ptr::null(),
        jit: ptr::null(),
        comm: ptr::null(),
        graph: ptr::null(),
    }
}

/// # Safety
/// `raw` was filled by a plugin's entry.
unsafe fn side_of(raw: &DsPlugin) -> Side {
    let mut extensions = Vec::new();
    let mut at: *const DsExtension = raw.extensions;
    while !at.is_null() && extensions.len() < MAX_EXTENSIONS {
        // SAFETY: a chain of the plugin's constants; the count above ends a loop.
        let extension = unsafe { &*at };
        extensions.push((extension.type_id, extension.flags));
        at = extension.next;
    }
    Side {
        minor: raw.abi_minor,
        oldest_other_minor: raw.min_host_minor,
        features: raw.features_offered | raw.features_required,
        features_required: raw.features_required,
        extensions,
    }
}

/// # Safety
/// `raw` was filled by a plugin's entry.
unsafe fn shape_of(raw: &DsPlugin) -> PluginShape {
    // SAFETY: the caller's promise holds for each table.
    let tables = unsafe {
        [
            table_shape(raw.device),
            table_shape(raw.memory),
            table_shape(raw.stream),
            table_shape(raw.op),
            table_shape(raw.jit),
        ]
    };
    PluginShape {
        struct_size: raw.struct_size as usize,
        panic_strategy: raw.panic_strategy,
        tables: tables.into_iter().flatten().collect(),
    }
}

/// # Safety
/// `table` is null or points to a table of at least the size that its first field states.
unsafe fn table_shape<T: Required>(table: *const T) -> Option<TableShape> {
    if table.is_null() {
        return None;
    }
    // SAFETY: `struct_size` is the first field of every table.
    let struct_size = unsafe { table.cast::<u32>().read() } as usize;
    let filled = |offset: usize| {
        // SAFETY: read only when the slot lies within the stated size; slots are pointer-sized.
        offset + size_of::<usize>() <= struct_size
            && unsafe { table.byte_add(offset).cast::<usize>().read_unaligned() } != 0
    };
    let missing = T::SLOTS
        .iter()
        .filter(|slot| !filled(slot.1))
        .map(|slot| slot.0)
        .collect();
    Some(TableShape {
        name: T::NAME,
        struct_size,
        missing,
    })
}

/// The plugin's table in the host's size: shorter ones are filled up with zeros, longer ones cut.
///
/// # Safety
/// As [`table_shape`]; `T` consists of two `u32` and optional functions, for which zeros are valid.
unsafe fn copy_table<T: Required>(table: *const T, keep: bool) -> T {
    let mut own = std::mem::MaybeUninit::<T>::zeroed();
    if keep && !table.is_null() {
        // SAFETY: `struct_size` is the first field of every table.
        let stated = unsafe { table.cast::<u32>().read() } as usize;
        // A field counts when it lies wholly inside: half a function is no function.
        let stated = stated - stated % size_of::<usize>();
        // SAFETY: within both tables, which do not overlap.
        unsafe {
            ptr::copy_nonoverlapping(
                table.cast::<u8>(),
                own.as_mut_ptr().cast::<u8>(),
                stated.min(size_of::<T>()),
            );
        }
    }
    // SAFETY: zeros are two numbers and absent functions; the plugin's bytes are those of a table.
    unsafe { own.assume_init() }
}

/// # Safety
/// The string is valid for the call.
unsafe fn owned(text: DsStr) -> String {
    // SAFETY: the caller's promise.
    one_line(String::from_utf8_lossy(unsafe { text.bytes() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_function_at_the_end_of_a_table_is_none() {
        unsafe extern "C" fn function() {}
        // Words as a plugin's table has them, every slot filled.
        let mut words = [function as *const () as usize; size_of::<DsMemoryTable>() / 8];
        let last = size_of::<DsMemoryTable>() - 8;
        for cut in 0..8 {
            words[0] = last + cut;
            // SAFETY: the words are a table of more than the stated size; nothing is called.
            let table = unsafe { copy_table(words.as_ptr().cast::<DsMemoryTable>(), true) };
            // SAFETY: the table is as large, and its last field is a slot.
            let slot = unsafe { (&raw const table).byte_add(last).cast::<usize>().read() };
            assert_eq!(slot, 0, "{} of {} bytes", last + cut, last + 8);
        }
    }
}
