//! The host: finds plugins, owns devices, memory, streams, op dispatch and the build cache.
//!
//! Names no vendor: what it knows of names comes from the plugins' manifests.

mod accelerator;
pub mod build;
mod child;
mod debug;
mod device;
pub mod discovery;
mod dlpack;
pub mod elf;
mod error;
mod footprint;
mod fork;
mod host;
pub mod jit;
mod kernels;
mod leaks;
pub mod manifest;
mod memory;
pub mod op;
pub mod plugin;
pub mod probe;
mod rng;
pub mod selection;
mod settings;
mod stream;
mod tensor;
mod trace;
pub mod trust;
pub mod worker;

pub use accelerator::Accelerator;
pub use device::{Device, DeviceInfo, MemoryInfo};
pub use dlpack::{DlManagedTensor, DlVersion};
pub use ds_schema::DType;
pub use error::{Error, ErrorKind, Result};
pub use host::{Host, default_device};
pub use kernels::KernelEntry;
pub use memory::{Buffer, MemoryKind, MemoryStats, is_pinned};
pub use rng::{Generator, RngState, philox4x32_10};
pub use settings::log_filter;
pub use stream::{Point, Stream, Timeline};
pub use tensor::{Element, Tensor};
pub use trace::{Range, range};
