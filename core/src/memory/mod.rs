//! Memory: buffers, and the caching pool that they come from.
//!
//! A buffer that is dropped goes back to its pool at once, also while work on it is queued: its
//! next user is ordered behind that work, by the stream or by a wait for it.

mod backing;
mod blocks;
mod buffer;
#[cfg(all(loom, test))]
mod models;
mod pageable;
mod pinned;
mod pool;
mod size;
mod sync;

pub use blocks::MemoryStats;
pub use buffer::{Buffer, MemoryKind};
pub use pinned::is_pinned;
pub(crate) use pool::Pool;
