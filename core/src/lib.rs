//! The host: finds plugins, owns devices, memory, streams, op dispatch and the build cache.
//!
//! Names no vendor: what it knows of names comes from the plugins' manifests.

mod device;
mod error;
mod memory;
pub mod plugin;
mod stream;

pub use device::{Device, DeviceInfo, MemoryInfo};
pub use error::{Error, ErrorKind, Result};
pub use memory::{Buffer, MemoryKind, MemoryStats};
pub use stream::{Point, Stream, Timeline};
