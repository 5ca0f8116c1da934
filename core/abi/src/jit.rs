//! The jit table: what to build, with what, and how to load it. The host keys, runs, validates and
//! caches builds; a plugin only describes them.

use core::ffi::c_void;

use crate::{DsBytes, DsDevice, DsErrorSink, DsSignature, DsStatus, DsStr};

/// A loaded artefact, owned by its plugin and never unloaded.
#[repr(C)]
#[derive(Debug)]
pub struct DsModuleObject {
    _private: [u8; 0],
}
/// Handle of a loaded artefact. Any call from any thread.
pub type DsModule = *mut DsModuleObject;

/// The toolchain is a program that the host runs in a child process.
pub const DS_TOOLCHAIN_PROGRAM: u32 = 0;
/// The toolchain is a library that the plugin calls ([`DsJitTable::compile`]).
pub const DS_TOOLCHAIN_IN_PROCESS: u32 = 1;

/// One way to make artefacts.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsToolchain {
    /// In: the host's size. Out: how many bytes the plugin filled.
    pub struct_size: u32,
    /// `DS_TOOLCHAIN_*`.
    pub kind: u32,
    /// Name, such as `cc` or `nvrtc`.
    pub name: DsStr,
    /// For a program: names to look for on the search path, best first, separated by blanks. A
    /// variable written `$CC` stands for its value.
    pub programs: DsStr,
    /// For a program: arguments that print its version, separated by blanks.
    /// For a library: its version and path, or empty when it was not found.
    pub version: DsStr,
    /// How to get it, in a sentence for the user, such as `apt install gcc`.
    pub hint: DsStr,
}

/// A source file of a build.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsSource {
    /// File name in the build folder, without folders.
    pub name: DsStr,
    /// Its text.
    pub content: DsBytes,
}

/// What one build needs. All of it data, and all of it part of the cache key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsBuildRequest {
    /// Size of this struct as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// Name of the toolchain.
    pub toolchain: DsStr,
    /// Source files; the host writes them into an empty folder before the build.
    pub sources: *const DsSource,
    /// How many source files.
    pub source_count: u32,
    /// Bytes from one element of `sources` to the next.
    pub source_stride: u32,
    /// Arguments in order; for a program its command line, run in the build folder.
    pub arguments: *const DsStr,
    /// How many arguments.
    pub argument_count: u32,
    /// Zero.
    pub reserved: u32,
    /// Name of the file that the build makes, such as `rms_norm.so`.
    pub output: DsStr,
}

/// Receives a build request; its pointers live for the call.
pub type DsRequestVisitor =
    unsafe extern "C" fn(user: *mut c_void, request: *const DsBuildRequest) -> DsStatus;
/// Receives bytes (an artefact, a piece of a log); they live for the call.
pub type DsBytesVisitor = unsafe extern "C" fn(user: *mut c_void, bytes: DsBytes) -> DsStatus;

/// A built artefact.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsArtefact {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// Name of the kernel that it is for.
    pub kernel: DsStr,
    /// Absolute path of the file.
    pub path: DsStr,
    /// Its bytes; always given.
    pub content: DsBytes,
}

/// Builds. Required: `toolchain_count`, `toolchain`, `request`, `load`; `compile` when a toolchain
/// is in-process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsJitTable {
    /// Size of this table as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Counts the toolchains, best first.
    pub toolchain_count:
        Option<unsafe extern "C" fn(count: *mut u32, error: *mut DsErrorSink) -> DsStatus>,
    /// Describes toolchain `index`.
    pub toolchain: Option<
        unsafe extern "C" fn(
            index: u32,
            toolchain: *mut DsToolchain,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Describes the build that `kernel` needs for `signature` on `target`, without a device.
    /// Visits once. A kernel whose artefact does not depend on the signature takes null.
    /// An empty kernel name asks for the smallest build that proves the toolchain works for the
    /// target (a smoke compile).
    pub request: Option<
        unsafe extern "C" fn(
            kernel: DsStr,
            signature: *const DsSignature,
            target: DsStr,
            visit: Option<DsRequestVisitor>,
            user: *mut c_void,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Runs an in-process toolchain on a request; gives the artefact's bytes and the log in any
    /// number of pieces each.
    pub compile: Option<
        unsafe extern "C" fn(
            request: *const DsBuildRequest,
            target: DsStr,
            artefact: Option<DsBytesVisitor>,
            log: Option<DsBytesVisitor>,
            user: *mut c_void,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Loads an artefact. `DS_STALE` when it was made for something else.
    pub load: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            artefact: *const DsArtefact,
            module: *mut DsModule,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
}
