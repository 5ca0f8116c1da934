//! The functions behind the tables: take the boundary's raw arguments apart, call the trait, turn
//! results and panics into statuses.
//!
//! Every function here is called by the host, which keeps the contract of `ds_plugin.h`: handles
//! are live ones that this plugin made, out-pointers are null or writable, structs are valid for
//! their `struct_size`. The safety comments below lean on that contract.

#![allow(
    clippy::extra_unused_type_parameters,
    reason = "the table macro gives every function both parameters"
)]

use std::{ffi::c_void, marker::PhantomData};

use ds_abi::{
    DS_BUILD_FAILED, DS_OK, DS_STREAM_DEFAULT, DS_TOOLCHAIN_IN_PROCESS, DS_TOOLCHAIN_PROGRAM,
    DsArtefact, DsBuildRequest, DsBytes, DsBytesVisitor, DsCopy, DsDevice, DsDeviceInfo,
    DsDeviceTable, DsErrorSink, DsEvent, DsEventCallback, DsEventState, DsJitTable, DsLaunch,
    DsMemoryInfo, DsMemoryTable, DsModule, DsNode, DsOpTable, DsPrepared, DsPreparedHandle,
    DsRequestVisitor, DsSignature, DsSource, DsStatus, DsStr, DsStream, DsStreamTable, DsToolchain,
};

use crate::{
    Accelerator, Artefact, Copy, Error, EventState, LaunchView, Node, SignatureView,
    export::{Instance, intern},
    raw::{
        SendPointer, borrow, bytes_of, guard, hand_out, instance, own_request, put, put_sized,
        size_u32, str_of, take_back,
    },
};

/// The tables of one accelerator, as constants that live in the plugin's image.
pub(crate) struct Tables<A, P>(PhantomData<(A, P)>);

macro_rules! table {
    ($table:ident { $($slot:ident),* $(,)? }) => {
        $table {
            struct_size: size_of::<$table>() as u32,
            reserved: 0,
            $($slot: Some($slot::<A, P>),)*
        }
    };
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "tables are far smaller than 4 GiB"
)]
impl<A: Accelerator, P: Instance<A>> Tables<A, P> {
    pub(crate) const DEVICE: &'static DsDeviceTable = &table!(DsDeviceTable {
        count,
        describe,
        open,
        close,
        synchronize
    });
    pub(crate) const MEMORY: &'static DsMemoryTable = &table!(DsMemoryTable {
        allocate,
        free,
        info,
        copy,
        fill
    });
    pub(crate) const STREAM: &'static DsStreamTable = &table!(DsStreamTable {
        stream_create,
        stream_destroy,
        stream_synchronize,
        stream_query,
        stream_native,
        stream_wrap,
        event_create,
        event_destroy,
        event_record,
        event_wait,
        event_signal,
        event_query,
        event_synchronize,
        event_on_ready,
    });
    pub(crate) const OP: &'static DsOpTable = &table!(DsOpTable {
        refine,
        prepare,
        launch,
        release
    });
    pub(crate) const JIT: &'static DsJitTable = &table!(DsJitTable {
        toolchain_count,
        toolchain,
        request,
        compile,
        load
    });
}

unsafe extern "C" fn count<A: Accelerator, P: Instance<A>>(
    count: *mut u32,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        let found = instance::<A, P>()?.device_count()?;
        // SAFETY: the contract of the boundary, see the head of this file.
        unsafe { put(count, found) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn describe<A: Accelerator, P: Instance<A>>(
    index: u32,
    info: *mut DsDeviceInfo,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        let found = instance::<A, P>()?.describe(index)?;
        let raw = DsDeviceInfo {
            struct_size: 0,
            numa_node: found
                .numa_node
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or(-1),
            name: intern(&found.name),
            target: intern(&found.target),
            driver_version: intern(&found.driver_version),
            uuid: intern(&found.uuid),
            pci: intern(&found.pci),
            flags: found.flags,
            dtypes: found.dtypes,
            memory_bytes: found.memory_bytes,
            alignment_bytes: found.alignment_bytes,
            compute_units: found.compute_units,
            dlpack_type: found.dlpack_type,
            reserved: 0,
        };
        // SAFETY: the contract of the boundary, see the head of this file.
        unsafe { put_sized(info, &raw) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn open<A: Accelerator, P: Instance<A>>(
    index: u32,
    device: *mut DsDevice,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        let opened = instance::<A, P>()?.open(index)?;
        // SAFETY: the contract of the boundary, see the head of this file.
        unsafe { hand_out(device, opened) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn close<A: Accelerator, P: Instance<A>>(device: DsDevice) {
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { take_back::<_, A::Device>(device) }
}

unsafe extern "C" fn synchronize<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        instance::<A, P>()?.synchronize(device)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn allocate<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    bytes: u64,
    alignment: u64,
    kind: u32,
    address: *mut *mut c_void,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        if bytes == 0 || !alignment.is_power_of_two() {
            return Err(Error::invalid_argument(format!(
                "{bytes} bytes aligned to {alignment}: both must be positive, and the alignment a \
                 power of two"
            )));
        }
        let found = instance::<A, P>()?.allocate(device, bytes, alignment, kind)?;
        // SAFETY: as above.
        unsafe { put(address, found) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn free<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    address: *mut c_void,
    bytes: u64,
    kind: u32,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        // SAFETY: the host frees what it allocated, once.
        unsafe { instance::<A, P>()?.free(device, address, bytes, kind) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn info<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    info: *mut DsMemoryInfo,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        let found = instance::<A, P>()?.memory_info(device)?;
        let raw = DsMemoryInfo {
            struct_size: 0,
            reserved: 0,
            total_bytes: found.total_bytes,
            free_bytes: found.free_bytes,
        };
        // SAFETY: as above.
        unsafe { put_sized(info, &raw) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn copy<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    stream: DsStream,
    copy: *const DsCopy,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        // SAFETY: as above.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        // SAFETY: as above; `struct_size` is read first.
        let copy = unsafe { copy.as_ref() }
            .filter(|c| c.struct_size as usize >= size_of::<DsCopy>())
            .ok_or_else(|| Error::invalid_argument("the copy is null or too small a struct"))?;
        let peer = if copy.peer.is_null() {
            None
        } else {
            // SAFETY: as above.
            Some(unsafe { borrow::<_, A::Device>(copy.peer, "peer") }?)
        };
        let copy = Copy {
            direction: copy.direction,
            destination: copy.destination,
            source: copy.source,
            bytes: copy.bytes,
            peer,
        };
        // SAFETY: the host vouches for both ranges until the stream has passed the copy.
        unsafe { instance::<A, P>()?.copy(device, stream, copy) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn fill<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    stream: DsStream,
    address: *mut c_void,
    pattern: u8,
    bytes: u64,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        // SAFETY: as above.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        // SAFETY: the host vouches for the range until the stream has passed the fill.
        unsafe { instance::<A, P>()?.fill(device, stream, address, pattern, bytes) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn stream_create<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    flags: u32,
    stream: *mut DsStream,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        let made = instance::<A, P>()?.stream_create(device, flags & DS_STREAM_DEFAULT != 0)?;
        // SAFETY: as above.
        unsafe { hand_out(stream, made) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn stream_destroy<A: Accelerator, P: Instance<A>>(stream: DsStream) {
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { take_back::<_, A::Stream>(stream) }
}

unsafe extern "C" fn stream_synchronize<A: Accelerator, P: Instance<A>>(
    stream: DsStream,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        instance::<A, P>()?.stream_synchronize(stream)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn stream_query<A: Accelerator, P: Instance<A>>(
    stream: DsStream,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        instance::<A, P>()?.stream_query(stream)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn stream_native<A: Accelerator, P: Instance<A>>(
    stream: DsStream,
    native: *mut *mut c_void,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        let found = instance::<A, P>()?.stream_native(stream)?;
        // SAFETY: as above.
        unsafe { put(native, found) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn stream_wrap<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    native: *mut c_void,
    stream: *mut DsStream,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        // SAFETY: the host passes a live handle of the vendor's kind.
        let made = unsafe { instance::<A, P>()?.stream_wrap(device, native) }?;
        // SAFETY: as above.
        unsafe { hand_out(stream, made) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_create<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    event: *mut DsEvent,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        let made = instance::<A, P>()?.event_create(device)?;
        // SAFETY: as above.
        unsafe { hand_out(event, made) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_destroy<A: Accelerator, P: Instance<A>>(event: DsEvent) {
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { take_back::<_, A::Event>(event) }
}

unsafe extern "C" fn event_record<A: Accelerator, P: Instance<A>>(
    stream: DsStream,
    event: DsEvent,
    value: u64,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        // SAFETY: as above.
        let event = unsafe { borrow::<_, A::Event>(event, "event") }?;
        instance::<A, P>()?.event_record(stream, event, value)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_wait<A: Accelerator, P: Instance<A>>(
    stream: DsStream,
    event: DsEvent,
    value: u64,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let stream = unsafe { borrow::<_, A::Stream>(stream, "stream") }?;
        // SAFETY: as above.
        let event = unsafe { borrow::<_, A::Event>(event, "event") }?;
        instance::<A, P>()?.event_wait(stream, event, value)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_signal<A: Accelerator, P: Instance<A>>(
    event: DsEvent,
    value: u64,
    status: DsStatus,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let event = unsafe { borrow::<_, A::Event>(event, "event") }?;
        instance::<A, P>()?.event_signal(event, value, status)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_query<A: Accelerator, P: Instance<A>>(
    event: DsEvent,
    state: *mut DsEventState,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let event = unsafe { borrow::<_, A::Event>(event, "event") }?;
        let EventState {
            value,
            status,
            time_ns,
        } = instance::<A, P>()?.event_query(event)?;
        // SAFETY: as above.
        unsafe {
            put_sized(
                state,
                &DsEventState {
                    struct_size: 0,
                    status,
                    value,
                    time_ns,
                },
            )
        }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_synchronize<A: Accelerator, P: Instance<A>>(
    event: DsEvent,
    value: u64,
    timeout_ns: u64,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let event = unsafe { borrow::<_, A::Event>(event, "event") }?;
        instance::<A, P>()?.event_synchronize(event, value, timeout_ns)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn event_on_ready<A: Accelerator, P: Instance<A>>(
    event: DsEvent,
    value: u64,
    callback: Option<DsEventCallback>,
    user: *mut c_void,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let event = unsafe { borrow::<_, A::Event>(event, "event") }?;
        let callback = callback.ok_or_else(|| Error::invalid_argument("the callback is null"))?;
        let user = SendPointer(user);
        let call = move |status| {
            let user = user;
            // SAFETY: the host's callback, called once with the host's pointer.
            unsafe { callback(user.0, status) };
        };
        instance::<A, P>()?.event_on_ready(event, value, Box::new(call))
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn refine<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    kernel: DsStr,
    signature: *const DsSignature,
    score: *mut i32,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        // SAFETY: as above.
        let (kernel, signature, score) = unsafe {
            (
                str_of(kernel, "kernel")?,
                SignatureView::new(signature)?,
                score.as_mut(),
            )
        };
        let score = score.ok_or_else(|| Error::invalid_argument("the score is null"))?;
        *score = instance::<A, P>()?
            .refine(device, kernel, signature, *score)?
            .min(*score);
        Ok(())
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn prepare<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    nodes: *const DsNode,
    node_count: u32,
    node_stride: u32,
    prepared: *mut DsPrepared,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        if nodes.is_null() || (node_stride as usize) < size_of::<DsNode>() {
            return Err(Error::invalid_argument(
                "the nodes are null or too small a struct",
            ));
        }
        let mut views = Vec::with_capacity(node_count as usize);
        for index in 0..node_count as usize {
            // SAFETY: the host passes `node_count` nodes at this stride, which covers the struct.
            let raw = unsafe { &*nodes.byte_add(index * node_stride as usize) };
            // SAFETY: as above.
            views.push(unsafe {
                Node {
                    kernel: str_of(raw.kernel, "kernel")?,
                    signature: SignatureView::new(raw.signature)?,
                    module: raw.module.cast::<A::Module>().as_ref(),
                }
            });
        }
        let made = instance::<A, P>()?.prepare(device, &views)?;
        let handle = Box::into_raw(Box::new(made.handle));
        let raw = DsPrepared {
            struct_size: 0,
            flags: 0,
            handle: handle.cast(),
            workspace_bytes: made.workspace_bytes,
            workspace_alignment: made.workspace_alignment,
        };
        // SAFETY: as above.
        unsafe { put_sized(prepared, &raw) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn launch<A: Accelerator, P: Instance<A>>(
    prepared: DsPreparedHandle,
    launch: *const DsLaunch,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let prepared = unsafe { borrow::<_, A::Prepared>(prepared, "prepared kernel") }?;
        // SAFETY: as above.
        let view = unsafe { LaunchView::new(launch) }?;
        // SAFETY: as above; `LaunchView::new` refused null.
        let stream = unsafe { borrow::<_, A::Stream>((*launch).stream, "stream") }?;
        // SAFETY: the host vouches for the tensors until the stream has passed the launch.
        unsafe { instance::<A, P>()?.launch(prepared, stream, view) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn release<A: Accelerator, P: Instance<A>>(prepared: DsPreparedHandle) {
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { take_back::<_, A::Prepared>(prepared) }
}

unsafe extern "C" fn toolchain_count<A: Accelerator, P: Instance<A>>(
    count: *mut u32,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        let found = u32::try_from(instance::<A, P>()?.toolchains().len()).unwrap_or(u32::MAX);
        // SAFETY: the contract of the boundary, see the head of this file.
        unsafe { put(count, found) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn toolchain<A: Accelerator, P: Instance<A>>(
    index: u32,
    toolchain: *mut DsToolchain,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        let all = instance::<A, P>()?.toolchains();
        let found = all.get(index as usize).ok_or_else(|| {
            Error::invalid_argument(format!("toolchain {index} of {}", all.len()))
        })?;
        let kind = if found.in_process {
            DS_TOOLCHAIN_IN_PROCESS
        } else {
            DS_TOOLCHAIN_PROGRAM
        };
        let raw = DsToolchain {
            struct_size: 0,
            kind,
            name: intern(&found.name),
            programs: intern(&found.programs),
            version: intern(&found.version),
            hint: intern(&found.hint),
        };
        // SAFETY: the contract of the boundary, see the head of this file.
        unsafe { put_sized(toolchain, &raw) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn request<A: Accelerator, P: Instance<A>>(
    kernel: DsStr,
    signature: *const DsSignature,
    target: DsStr,
    visit: Option<DsRequestVisitor>,
    user: *mut c_void,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        let visit = visit.ok_or_else(|| Error::invalid_argument("the visitor is null"))?;
        // SAFETY: the contract of the boundary, see the head of this file.
        let (kernel, target) = unsafe { (str_of(kernel, "kernel")?, str_of(target, "target")?) };
        let signature = if signature.is_null() {
            None
        } else {
            // SAFETY: as above.
            Some(unsafe { SignatureView::new(signature) }?)
        };
        let made = instance::<A, P>()?.request(kernel, signature, target)?;
        let sources: Vec<DsSource> = made
            .sources
            .iter()
            .map(|(name, content)| DsSource {
                name: DsStr::new(name),
                content: DsBytes {
                    data: content.as_ptr(),
                    len: content.len(),
                },
            })
            .collect();
        let arguments: Vec<DsStr> = made.arguments.iter().map(|a| DsStr::new(a)).collect();
        let raw = DsBuildRequest {
            struct_size: size_u32::<DsBuildRequest>(),
            flags: 0,
            toolchain: DsStr::new(&made.toolchain),
            sources: sources.as_ptr(),
            source_count: u32::try_from(sources.len()).unwrap_or(u32::MAX),
            source_stride: size_u32::<DsSource>(),
            arguments: arguments.as_ptr(),
            argument_count: u32::try_from(arguments.len()).unwrap_or(u32::MAX),
            reserved: 0,
            output: DsStr::new(&made.output),
        };
        // SAFETY: the host's visitor with the host's pointer; the request lives for the call.
        match unsafe { visit(user, &raw const raw) } {
            DS_OK => Ok(()),
            status => Err(Error::new(status, "the host refused the build request")),
        }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn compile<A: Accelerator, P: Instance<A>>(
    request: *const DsBuildRequest,
    target: DsStr,
    artefact: Option<DsBytesVisitor>,
    log: Option<DsBytesVisitor>,
    user: *mut c_void,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let (request, target) = unsafe { (own_request(request)?, str_of(target, "target")?) };
        let mut text = Vec::new();
        let made = instance::<A, P>()?.compile(&request, target, &mut text);
        let give = |visit: Option<DsBytesVisitor>, bytes: &[u8]| match visit {
            // SAFETY: the host's visitor with the host's pointer; the bytes live for the call.
            Some(visit) => match unsafe {
                visit(
                    user,
                    DsBytes {
                        data: bytes.as_ptr(),
                        len: bytes.len(),
                    },
                )
            } {
                DS_OK => Ok(()),
                status => Err(Error::new(status, "the host refused the bytes")),
            },
            None => Ok(()),
        };
        give(log, &text)?;
        let made = made?;
        if made.is_empty() {
            return Err(Error::new(
                DS_BUILD_FAILED,
                "the toolchain made an empty artefact",
            ));
        }
        give(artefact, &made)
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn load<A: Accelerator, P: Instance<A>>(
    device: DsDevice,
    artefact: *const DsArtefact,
    module: *mut DsModule,
    error: *mut DsErrorSink,
) -> DsStatus {
    let body = || {
        // SAFETY: the contract of the boundary, see the head of this file.
        let device = unsafe { borrow::<_, A::Device>(device, "device") }?;
        // SAFETY: as above; `struct_size` is read first.
        let raw = unsafe { artefact.as_ref() }
            .filter(|a| a.struct_size as usize >= size_of::<DsArtefact>())
            .ok_or_else(|| Error::invalid_argument("the artefact is null or too small a struct"))?;
        // SAFETY: as above.
        let artefact = unsafe {
            Artefact {
                kernel: str_of(raw.kernel, "kernel")?,
                path: str_of(raw.path, "path")?,
                content: bytes_of(raw.content),
            }
        };
        let loaded = instance::<A, P>()?.load(device, artefact)?;
        // SAFETY: as above.
        unsafe { hand_out(module, loaded) }
    };
    // SAFETY: the contract of the boundary, see the head of this file.
    unsafe { guard(error, body) }
}
