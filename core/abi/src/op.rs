//! The op table: prepare a kernel for a signature, then launch it with one indirect call.

use core::ffi::c_void;

use crate::{
    DsDevice, DsErrorSink, DsModule, DsSignature, DsStatus, DsStr, DsStream, DsTensor, DsValue,
};

/// A kernel ready to run, owned by its plugin.
#[repr(C)]
#[derive(Debug)]
pub struct DsPreparedObject {
    _private: [u8; 0],
}
/// Handle of a prepared kernel. It may be launched on several streams at the same time.
pub type DsPreparedHandle = *mut DsPreparedObject;

/// One kernel call of what is being prepared.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsNode {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// Name of the kernel, as in the manifest.
    pub kernel: DsStr,
    /// What it is called with.
    pub signature: *const DsSignature,
    /// The loaded artefact, null for a kernel that needs none.
    pub module: DsModule,
}

/// What `prepare` gives back.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsPrepared {
    /// In: the host's size. Out: how many bytes the plugin filled.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// Handle to launch and release.
    pub handle: DsPreparedHandle,
    /// Workspace that each launch needs, in bytes.
    pub workspace_bytes: u64,
    /// Alignment of the workspace, in bytes; a power of two, or 0 when none is needed.
    pub workspace_alignment: u64,
}

/// One launch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsLaunch {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// Where to queue it.
    pub stream: DsStream,
    /// The tensors, in the signature's order. Shape and stride arrays live for the call only.
    pub tensors: *const DsTensor,
    /// How many tensors.
    pub tensor_count: u32,
    /// Bytes from one element of `tensors` to the next.
    pub tensor_stride: u32,
    /// Launch scalars in schema order.
    pub scalars: *const DsValue,
    /// How many launch scalars.
    pub scalar_count: u32,
    /// Zero.
    pub reserved: u32,
    /// Workspace of at least the size that `prepare` asked for; device memory.
    pub workspace: *mut c_void,
    /// Its size, in bytes.
    pub workspace_bytes: u64,
    /// Number that ties this launch to traces and errors.
    pub correlation: u64,
}

/// Ops. Required: `prepare`, `launch`, `release`. A kernel never allocates: outputs and workspace
/// come from the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsOpTable {
    /// Size of this table as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Lowers the score that the manifest gives `kernel` for this signature, or leaves it; a kernel
    /// that its constraints admit stays admissible.
    pub refine: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            kernel: DsStr,
            signature: *const DsSignature,
            score: *mut i32,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Prepares a list of kernel calls; today the list has one node.
    pub prepare: Option<
        unsafe extern "C" fn(
            device: DsDevice,
            nodes: *const DsNode,
            node_count: u32,
            node_stride: u32,
            prepared: *mut DsPrepared,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Queues a prepared kernel. The hot path.
    pub launch: Option<
        unsafe extern "C" fn(
            prepared: DsPreparedHandle,
            launch: *const DsLaunch,
            error: *mut DsErrorSink,
        ) -> DsStatus,
    >,
    /// Releases a prepared kernel. No launch of it is pending.
    pub release: Option<unsafe extern "C" fn(prepared: DsPreparedHandle)>,
}
