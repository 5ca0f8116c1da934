//! The C boundary between the host and accelerator plugins: `repr(C)` data and function tables.
//! No logic, no allocation, no dependencies; `include/ds_plugin.h` is generated from this crate.
//!
//! # Rules of the boundary
//!
//! 1. A plugin exports exactly one symbol per major version, [`DS_PLUGIN_ENTRY_V1`].
//! 2. Every struct starts with `struct_size`, set by whoever owns the memory to the size it was
//!    compiled with. A callee reads and writes only inside that size; a field counts when it lies
//!    wholly inside. Fields are only ever appended; zero in a field that an older side did not know
//!    means the old behaviour, and what a field documented as zero holds is ignored. Structs that
//!    start without a size are frozen.
//! 3. Arrays of structs that can grow carry the stride between elements; arrays without one hold
//!    numbers, pointers or frozen structs.
//! 4. Both sides state the range of minors they accept, and feature bits; nothing is compared for
//!    equality but the major.
//! 5. Every function returns a [`DsStatus`] and takes a nullable, caller-owned [`DsErrorSink`].
//!    Nothing unwinds across the boundary.
//! 6. Strings are UTF-8 with a length. Strings in structs that a plugin fills live as long as the
//!    process, because plugins are never unloaded; strings in arguments live for the call.
//! 7. Enumerations are `u32` open sets: an unknown value is not an error by itself.
//! 8. A handle goes back only to the plugin that made it. Calls on different handles may run at the
//!    same time; each function says what holds for one handle.
//! 9. Device memory is an address that only its plugin may use. Adding an offset within the
//!    allocation is allowed; reading through it is not, unless the device says
//!    [`DS_DEVICE_HOST_VISIBLE_MEMORY`].
#![no_std]

mod device;
mod entry;
mod jit;
mod memory;
mod op;
mod status;
mod stream;
mod tensor;

pub use device::*;
pub use entry::*;
pub use jit::*;
pub use memory::*;
pub use op::*;
pub use status::*;
pub use stream::*;
pub use tensor::*;
