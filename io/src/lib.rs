//! Tensors to and from files at the disk's speed, with every failure seen: DeepSpeed's `async_io`,
//! `pin_memory` and `gds`.
//!
//! [`AioHandle`] is the door. An operation becomes a job (`job`), which lanes (`lane`) cut into pieces
//! and move by an engine (`engine`): `io_uring`, Linux AIO or threads. Direct I/O moves whole pages;
//! what is left at both ends of a range goes through the page cache. What the kernel cannot reach, a
//! device's own memory, goes through pages of the host (`memory`). The end of an operation
//! (`ending`) is a point on a timeline, so that streams wait for it and it for streams (`waiter`).

mod bell;
mod checksum;
mod config;
mod ending;
mod engine;
mod failure;
mod file;
mod gds;
mod handle;
mod job;
mod lane;
mod memory;
mod pin;
mod stats;
mod waiter;

#[cfg(test)]
mod tests;

pub use checksum::crc64_nvme;
pub use config::AioConfig;
pub use ending::Done;
pub use engine::EngineKind;
pub use file::Target;
pub use gds::GdsHandle;
pub use handle::{AioHandle, Operation, ReadOptions, WriteOptions, aio_read, aio_write};
pub use job::Extent;
pub use pin::{PinHandle, PinStats};
pub use stats::AioStats;
