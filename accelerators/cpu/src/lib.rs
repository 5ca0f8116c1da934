//! The CPU accelerator, and the reference for every other one: host memory, threads as streams,
//! kernels in C built by the system's compiler for exactly this processor.
//!
//! | boundary | here |
//! |---|---|
//! | device | the whole machine, `cpu:0`; NUMA nodes are not devices of their own |
//! | target | the processor's features, such as `x86-64+avx2+avx512f` (`probe.rs`) |
//! | memory | the host's allocator, huge pages for large blocks (`memory.rs`) |
//! | stream | a queue with a thread; the default one runs inline (`stream.rs`) |
//! | event | a timeline under a lock (`event.rs`) |
//! | artefact | a shared library made by `cc` (`jit.rs`) |
//! | launch | the kernel's phases over the compute pool (`ops.rs`, `pool.rs`) |
//!
//! It is linked into programs (`use ds_accelerator_cpu as _;`) and, from `plugins/cpu`, also a file.

#![allow(
    unnameable_types,
    reason = "handles are opaque to all but the boundary"
)]

mod device;
mod event;
mod jit;
mod memory;
#[cfg(all(loom, test))]
mod models;
mod ops;
mod pool;
mod probe;
mod stream;
mod sync;

pub use device::Cpu;

/// Text of the manifest in `plugins/cpu`.
pub const MANIFEST: &str = include_str!("../../../plugins/cpu/plugin.json");

#[cfg(feature = "linked")]
ds_plugin::export_plugin!(Cpu, "org.deepspeed.cpu", linked manifest = MANIFEST, kernels = ds_kernels::descriptions);
