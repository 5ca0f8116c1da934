//! Taking raw arguments apart and putting results together, within the sizes that the other side
//! states. The one place where the plugin side trusts a pointer.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use ds_abi::{DsBuildRequest, DsBytes, DsErrorSink, DsStatus, DsStr};

use crate::{
    Accelerator, BuildRequest, Error, Result,
    export::{Instance, status},
    view::text,
};

/// Runs `body`; a failure or a panic goes into the sink.
///
/// # Safety
/// `error` is null or a valid sink, as [`Error::write`] says.
#[inline]
pub(crate) unsafe fn guard(error: *mut DsErrorSink, body: impl FnOnce() -> Result<()>) -> DsStatus {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => status(result, error),
        Err(payload) => status(Err(Error::from_panic(&*payload)), error),
    }
}

pub(crate) fn instance<A: Accelerator, P: Instance<A>>() -> Result<&'static A> {
    P::cell()
        .get()
        .ok_or_else(|| Error::internal("called before ds_plugin_v1 succeeded"))
}

/// # Safety
/// `handle` is null or was made by [`hand_out`] for the same `T` and is not destroyed.
#[inline]
pub(crate) unsafe fn borrow<'a, H, T>(handle: *mut H, what: &str) -> Result<&'a T> {
    // SAFETY: null, or a live `Box<T>` as the caller says.
    unsafe { handle.cast::<T>().as_ref() }
        .ok_or_else(|| Error::invalid_argument(format!("the {what} is null")))
}

/// Gives `value` to the host as an opaque handle.
///
/// # Safety
/// `out` is null or writable.
pub(crate) unsafe fn hand_out<H, T>(out: *mut *mut H, value: T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { put(out, Box::into_raw(Box::new(value)).cast::<H>()) }
}

/// Takes a handle back and drops its value; a panic in the drop stays inside.
///
/// # Safety
/// As [`borrow`]; the handle is not used again.
pub(crate) unsafe fn take_back<H, T>(handle: *mut H) {
    if !handle.is_null() {
        // SAFETY: `hand_out` made it from a `Box<T>`, and this is its last use.
        let value = unsafe { Box::from_raw(handle.cast::<T>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    }
}

/// # Safety
/// `out` is null or writable.
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() {
        return Err(Error::invalid_argument("the place for the result is null"));
    }
    // SAFETY: not null, and writable as the caller says.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes `value` within the size that the caller's struct states in its first field, and sets that
/// field to what was written.
///
/// # Safety
/// `out` is null or writable for its `struct_size`; `T` is `repr(C)` with `struct_size: u32` first.
pub(crate) unsafe fn put_sized<T>(out: *mut T, value: &T) -> Result<()> {
    if out.is_null() {
        return Err(Error::invalid_argument("the place for the result is null"));
    }
    // SAFETY: the first field of every sized struct is its `u32` size.
    let room = unsafe { out.cast::<u32>().read() } as usize;
    let bytes = room.min(size_of::<T>());
    if bytes < size_of::<u32>() {
        return Err(Error::invalid_argument("the result's struct_size is 0"));
    }
    // SAFETY: `bytes` is within both structs, which are distinct: ours is a Rust local.
    unsafe { std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>(), out.cast(), bytes) };
    let written = u32::try_from(bytes).unwrap_or(u32::MAX);
    // SAFETY: `out` holds at least a `u32`.
    unsafe { out.cast::<u32>().write(written) };
    Ok(())
}

/// # Safety
/// The string is valid for `'a`, as rule 6 of the boundary says.
pub(crate) unsafe fn str_of<'a>(raw: DsStr, what: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    text(unsafe { raw.bytes() }, what)
}

/// # Safety
/// The bytes are valid for `'a`.
pub(crate) unsafe fn bytes_of<'a>(raw: DsBytes) -> &'a [u8] {
    if raw.data.is_null() || raw.len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(raw.data, raw.len) }
}

/// # Safety
/// `raw` is null or a request whose pointers are valid for the call.
pub(crate) unsafe fn own_request(raw: *const DsBuildRequest) -> Result<BuildRequest> {
    // SAFETY: the caller's promise; `struct_size` is read first.
    let raw = unsafe { raw.as_ref() }
        .filter(|r| r.struct_size as usize >= size_of::<DsBuildRequest>())
        .ok_or_else(|| Error::invalid_argument("the request is null or too small a struct"))?;
    let mut made = BuildRequest {
        // SAFETY: the caller's promise.
        toolchain: unsafe { str_of(raw.toolchain, "toolchain") }?.to_owned(),
        // SAFETY: the caller's promise.
        output: unsafe { str_of(raw.output, "output") }?.to_owned(),
        ..BuildRequest::default()
    };
    for index in 0..raw.source_count as usize {
        // SAFETY: the caller passes `source_count` sources at this stride.
        let source = unsafe { &*raw.sources.byte_add(index * raw.source_stride as usize) };
        // SAFETY: the caller's promise.
        let (name, content) = unsafe { (str_of(source.name, "source")?, bytes_of(source.content)) };
        made.sources
            .push((name.to_owned().into(), content.to_vec().into()));
    }
    for index in 0..raw.argument_count as usize {
        // SAFETY: the caller passes `argument_count` arguments.
        let argument = unsafe { str_of(*raw.arguments.add(index), "argument") }?;
        made.arguments.push(argument.to_owned());
    }
    Ok(made)
}

pub(crate) fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

pub(crate) struct SendPointer(pub(crate) *mut c_void);
// SAFETY: the host says that its callback may run on any thread with this pointer.
unsafe impl Send for SendPointer {}
