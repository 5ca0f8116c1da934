//! Calls through the boundary as no host makes them: other versions, other sizes, other sinks.
//! All unsafe code of this suite is here.

use std::{ffi::c_void, mem::offset_of, ptr};

use ds_abi::{
    DS_ABI_MINOR, DS_FEATURE_BUILD_PROGRAMS, DS_FEATURE_HOST_SIGNAL, DS_FEATURE_REFERENCE_FALLBACK,
    DsDeviceInfo, DsDeviceTable, DsErrorSink, DsExtension, DsHost, DsPlugin, DsPluginEntry,
    DsStatus, DsStr,
};

/// What lies behind whatever is handed to a plugin.
const GUARD: [u8; 64] = [0xa5; 64];

/// A value with a guard behind it, and the size that the callee is told of it.
#[repr(C)]
struct Guarded<T> {
    value: T,
    guard: [u8; 64],
}

impl<T> Guarded<T> {
    fn new(value: T) -> Self {
        Self {
            value,
            guard: GUARD,
        }
    }

    /// Whether everything from byte `size` on is what `before` has there.
    fn is_whole_behind(&self, size: usize, before: &Self) -> bool {
        let bytes = |of: &Self| {
            // SAFETY: the struct was made from zeroed or plain data and has no invalid bytes to a
            // reader of `u8`; padding of these `repr(C)` structs is none, as the golden layout says.
            let all = unsafe {
                std::slice::from_raw_parts(ptr::from_ref(of).cast::<u8>(), size_of::<Self>())
            };
            all[size.min(all.len())..].to_vec()
        };
        bytes(self) == bytes(before)
    }
}

/// What a host says of itself.
#[derive(Clone, Copy)]
pub(crate) struct HostSays {
    pub(crate) minor: u32,
    pub(crate) min_plugin_minor: u32,
    /// Bytes that it claims to have beyond what this version knows.
    pub(crate) larger_by: u32,
    /// Flags of an extension that nobody knows; none without.
    pub(crate) extension: Option<u32>,
}

impl HostSays {
    /// What the real host says.
    pub(crate) const USUAL: Self = Self {
        minor: DS_ABI_MINOR,
        min_plugin_minor: 0,
        larger_by: 0,
        extension: None,
    };
}

/// What a plugin said.
pub(crate) struct Entered {
    pub(crate) status: DsStatus,
    pub(crate) message: String,
    pub(crate) plugin: DsPlugin,
    /// Whether it wrote only within the size that it was told.
    pub(crate) within: bool,
}

/// Calls the entry, the one time that a process may. `size` is what it is told of the plugin struct,
/// `capacity` of the message; `None` hands it no sink at all.
pub(crate) fn enter(
    entry: DsPluginEntry,
    says: HostSays,
    size: usize,
    capacity: Option<usize>,
) -> Entered {
    let extension: &'static DsExtension = Box::leak(Box::new(DsExtension {
        struct_size: u32_of(size_of::<DsExtension>()),
        flags: says.extension.unwrap_or(0),
        type_id: *b"nobody knows me!",
        next: ptr::null(),
    }));
    // The host lives as long as the process.
    let host: &'static Guarded<DsHost> = Box::leak(Box::new(Guarded::new(DsHost {
        struct_size: u32_of(size_of::<DsHost>()) + says.larger_by,
        abi_minor: says.minor,
        min_plugin_minor: says.min_plugin_minor,
        reserved: 0,
        features: DS_FEATURE_HOST_SIGNAL
            | DS_FEATURE_BUILD_PROGRAMS
            | DS_FEATURE_REFERENCE_FALLBACK,
        extensions: match says.extension {
            Some(_) => ptr::from_ref(extension),
            None => ptr::null(),
        },
        context: ptr::null_mut(),
        log: Some(ignore),
    })));
    // SAFETY: all zero bytes are a `DsPlugin` of null pointers and empty strings.
    let mut room: Guarded<DsPlugin> = Guarded::new(unsafe { std::mem::zeroed() });
    room.value.struct_size = u32_of(size);
    let before = Guarded {
        value: room.value,
        guard: GUARD,
    };
    let mut text = Text::new(capacity.unwrap_or(0));
    let mut sink = text.sink();
    let sink = capacity.map_or(ptr::null_mut(), |_| &raw mut sink);
    // SAFETY: host, plugin and sink state their sizes and are writable for that long; the guards
    // behind them are memory of ours.
    let status = unsafe { entry(&raw const host.value, &raw mut room.value, sink) };
    Entered {
        status,
        // SAFETY: the sink is ours, or null.
        message: text.told(unsafe { sink.as_ref() }),
        plugin: room.value,
        within: room.is_whole_behind(size, &before),
    }
}

unsafe extern "C" fn ignore(_context: *mut c_void, _level: u32, _message: DsStr) {}

impl Entered {
    pub(crate) fn id(&self) -> String {
        text_of(self.plugin.id)
    }

    pub(crate) fn version(&self) -> String {
        text_of(self.plugin.version)
    }

    /// Names of the tables that it gave.
    pub(crate) fn tables(&self) -> Vec<&'static str> {
        let p = &self.plugin;
        let given = [
            ("device", !p.device.is_null()),
            ("memory", !p.memory.is_null()),
            ("stream", !p.stream.is_null()),
            ("op", !p.op.is_null()),
            ("jit", !p.jit.is_null()),
        ];
        given
            .iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| *name)
            .collect()
    }

    fn devices(&self) -> Option<DsDeviceTable> {
        // SAFETY: a plugin's tables are whole and live as long as the process; its size was looked
        // at by whoever asks for more than the four functions that every one has.
        unsafe { self.plugin.device.as_ref() }.copied()
    }

    /// How many devices there are; the status where that fails.
    pub(crate) fn count(&self) -> Result<u32, DsStatus> {
        let count = self.devices().and_then(|table| table.count);
        let Some(count) = count else { return Err(-1) };
        let mut devices = 0;
        // SAFETY: the place is writable; no sink is allowed.
        match unsafe { count(&raw mut devices, ptr::null_mut()) } {
            0 => Ok(devices),
            status => Err(status),
        }
    }

    /// Describes device `index` into a struct of which the plugin is told `size` bytes, with a
    /// message of `capacity` bytes: status, message, and whether it wrote only where it may.
    pub(crate) fn describe(
        &self,
        index: u32,
        size: usize,
        capacity: usize,
    ) -> (DsStatus, String, bool) {
        let Some(describe) = self.devices().and_then(|table| table.describe) else {
            return (-1, "there is no describe".into(), true);
        };
        // SAFETY: all zero bytes are an info of zeros and empty strings.
        let mut room: Guarded<DsDeviceInfo> = Guarded::new(unsafe { std::mem::zeroed() });
        room.value.struct_size = u32_of(size);
        let before = Guarded {
            value: room.value,
            guard: GUARD,
        };
        let mut text = Text::new(capacity);
        let mut sink = text.sink();
        // SAFETY: the info states its size; the sink is ours.
        let status = unsafe { describe(index, &raw mut room.value, &raw mut sink) };
        let within = room.is_whole_behind(size, &before) && text.is_whole();
        (status, text.told(Some(&sink)), within)
    }
}

/// Bytes of an info up to the field that came last in version 1.0; less is no info.
pub(crate) const SMALLEST_INFO_BYTES: usize = offset_of!(DsDeviceInfo, name);

/// Room for a message, with a guard behind it.
struct Text {
    bytes: Vec<u8>,
    capacity: usize,
}

impl Text {
    fn new(capacity: usize) -> Self {
        let mut bytes = vec![0; capacity];
        bytes.extend_from_slice(&GUARD);
        Self { bytes, capacity }
    }

    fn sink(&mut self) -> DsErrorSink {
        DsErrorSink {
            struct_size: u32_of(size_of::<DsErrorSink>()),
            code: 0,
            vendor_code: 0,
            flags: 0,
            a: 0,
            b: 0,
            reason: 0,
            message_len: 0,
            message_capacity: u32_of(self.capacity),
            reserved: 0,
            message: self.bytes.as_mut_ptr().cast(),
        }
    }

    fn told(&self, sink: Option<&DsErrorSink>) -> String {
        let len = sink.map_or(0, |sink| sink.message_len as usize);
        String::from_utf8_lossy(&self.bytes[..len.min(self.capacity)]).into_owned()
    }

    fn is_whole(&self) -> bool {
        self.bytes[self.capacity..] == GUARD
    }
}

fn text_of(text: DsStr) -> String {
    // SAFETY: strings of a plugin live as long as the process (rule 6 of the boundary).
    String::from_utf8_lossy(unsafe { text.bytes() }).into_owned()
}

fn u32_of(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
