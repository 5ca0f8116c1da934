//! Buffers: memory with an owner.

use std::{
    ffi::c_void,
    fmt,
    mem::ManuallyDrop,
    sync::{Mutex, PoisonError},
};

use ds_abi::{
    DS_COPY_ON_DEVICE, DS_COPY_TO_DEVICE, DS_COPY_TO_HOST, DS_MEMORY_DEVICE, DS_MEMORY_PINNED,
    DS_MEMORY_SHARED, DsCopy,
};

use triomphe::{Arc, UniqueArc};

use super::{blocks::Block, pageable, pinned, pool::Guests};
use crate::{
    Device, Error, ErrorKind, Result, debug, device::sized, fork, plugin::call::call,
    stream::Stream,
};

/// What kind of memory a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    /// The device's own.
    Device,
    /// Page-locked host memory that the device reaches without staging.
    Pinned,
    /// Memory that host and device both reach by the same address.
    Shared,
    /// Ordinary host memory, which every device copies from and to, if slower than
    /// [`MemoryKind::Pinned`]: what is left where nothing more can be locked.
    Pageable,
}

impl MemoryKind {
    /// The boundary's number; none for what the host itself allocates.
    fn raw(self) -> Option<u32> {
        match self {
            Self::Device => Some(DS_MEMORY_DEVICE),
            Self::Pinned => Some(DS_MEMORY_PINNED),
            Self::Shared => Some(DS_MEMORY_SHARED),
            Self::Pageable => None,
        }
    }

    /// Whether it begins on a page of the host: what the host reads files into.
    fn is_in_pages(self) -> bool {
        matches!(self, Self::Pinned | Self::Pageable)
    }
}

/// A range of memory of one device. Clones share it; the last one gives it back.
// An `Arc` without weak references: its last owner can tell that it is, and passes it on to the pool
// as it is, so that buffers come and go without a visit to the heap.
#[derive(Clone)]
pub struct Buffer(ManuallyDrop<Arc<Memory>>);

/// What the clones of a buffer share.
pub(crate) struct Memory {
    pub(super) device: Device,
    pub(super) address: *mut c_void,
    pub(super) bytes: u64,
    pub(super) owner: Owner,
}

pub(crate) enum Owner {
    /// A block of the device's pool, the other streams that used it, and whether a buffer has it
    /// rather than the pool.
    Pool {
        block: Block,
        guests: Guests,
        live: bool,
    },
    /// Raw memory of a kind that is not pooled, and its alignment in bytes.
    Raw { kind: MemoryKind, alignment: usize },
    /// Somebody else's memory and how to tell them that we are done.
    Foreign {
        release: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    },
}

// SAFETY: the address is only ever handed to the device's plugin, from any thread, as the boundary
// allows; ownership state is under locks.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Buffer {
    /// Memory of `stream`'s device, ready for work on `stream`. Its content is undefined.
    ///
    /// Where there is none left, this waits for the device's work, to give back what is free: that
    /// work must not wait for a point that only the caller raises. Other threads have their memory
    /// meanwhile.
    ///
    /// # Units
    /// `bytes`; 0 gives a buffer without memory.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] with the pool's numbers.
    #[inline]
    pub fn new(stream: &Stream, bytes: u64) -> Result<Self> {
        let memory = stream.device().pool().take(stream, bytes)?;
        Ok(Self(ManuallyDrop::new(memory.shareable())))
    }

    fn of(memory: Memory) -> Self {
        Self(ManuallyDrop::new(Arc::new(memory)))
    }

    /// Memory of another kind, allocated and freed directly. Pinned and pageable memory begins on a
    /// page, so that files are read into it without a copy.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the device has no such memory.
    pub fn of_kind(device: Device, bytes: u64, kind: MemoryKind) -> Result<Self> {
        let mut alignment = device.info().alignment_bytes as usize;
        if kind.is_in_pages() {
            alignment = alignment.max(rustix::param::page_size());
        }
        let address = match kind.raw() {
            Some(raw) => device.allocate(bytes.max(1), alignment as u64, raw)?,
            None => pageable::allocate(bytes.max(1), alignment)?,
        };
        if kind == MemoryKind::Pinned {
            pinned::add(address, bytes);
        }
        device.unpooled().add(bytes);
        Ok(Self::of(Memory {
            device,
            address,
            bytes,
            owner: Owner::Raw { kind, alignment },
        }))
    }

    /// Memory that somebody else owns; `release` is called when the last clone is gone.
    ///
    /// # Safety
    /// `address` is `bytes` bytes of `device`'s memory that stay valid until `release` is called,
    /// and nobody else writes them while work of ours uses them.
    pub unsafe fn foreign(
        device: Device,
        address: *mut c_void,
        bytes: u64,
        release: impl FnOnce() + Send + 'static,
    ) -> Self {
        let owner = Owner::Foreign {
            release: Mutex::new(Some(Box::new(release))),
        };
        Self::of(Memory {
            device,
            address,
            bytes,
            owner,
        })
    }

    /// The device whose memory it is.
    #[inline]
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// Its first address; only the device may use it, unless its memory is host-visible.
    #[inline]
    pub fn address(&self) -> *mut c_void {
        self.0.address
    }

    /// Its size.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// What kind of memory it is; somebody else's counts as the device's own.
    pub fn kind(&self) -> MemoryKind {
        match self.0.owner {
            Owner::Raw { kind, .. } => kind,
            _ => MemoryKind::Device,
        }
    }

    /// Whether the device's pool takes it back when its last clone is dropped, which waits for
    /// nothing. Dropping the last clone of other memory waits for the device's work.
    pub fn is_pooled(&self) -> bool {
        matches!(self.0.owner, Owner::Pool { .. })
    }

    /// Whether the device's kernels reach it by its address.
    #[inline]
    pub(crate) fn is_of_kernels(&self) -> bool {
        let is_pageable = matches!(
            self.0.owner,
            Owner::Raw {
                kind: MemoryKind::Pageable,
                ..
            }
        );
        !is_pageable || self.device().info().host_visible_memory
    }

    /// The bytes of memory that is the host's, too, where they lie; `None` for the device's own.
    ///
    /// # Safety
    /// While the slice lives, no queued work writes the buffer: synchronise first.
    pub unsafe fn host_bytes(&self) -> Option<&[u8]> {
        let len = usize::try_from(self.bytes()).ok()?;
        // SAFETY: memory of these kinds is the host's to read at this address, and the plugin gave
        // it with this size; the caller promises that nothing writes it.
        (self.kind() != MemoryKind::Device)
            .then(|| unsafe { std::slice::from_raw_parts(self.address().cast(), len) })
    }

    /// As [`Buffer::host_bytes`], to be written.
    ///
    /// # Safety
    /// While the slice lives, no queued work uses the buffer and no clone of it is used.
    pub unsafe fn host_bytes_mut(&mut self) -> Option<&mut [u8]> {
        let len = usize::try_from(self.bytes()).ok()?;
        // SAFETY: as in `host_bytes`; the caller promises that nothing else uses it.
        (self.kind() != MemoryKind::Device)
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.address().cast(), len) })
    }

    /// Whether both are the same memory.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Notes that work on `stream` uses the buffer, so that it is not given to anybody else before
    /// that work is done. Dispatch and copies call it; code that hands the address to a vendor's
    /// library does so itself.
    #[inline]
    pub fn record_use(&self, stream: &Stream) {
        if stream.device() != self.device() {
            self.record_use_abroad(stream);
        } else if let Owner::Pool { block, guests, .. } = &self.0.owner
            && block.home() != stream.slot()
        {
            guests.add(stream.slot());
        }
    }

    /// Streams of other devices have slots of their own, so their use is kept as a point.
    #[cold]
    fn record_use_abroad(&self, stream: &Stream) {
        match stream.record() {
            Ok(point) => self.device().pool().use_abroad(self.address(), point),
            // What cannot be noted is over when this returns.
            Err(e) => {
                let done = stream.finish();
                log::debug!("{self:?} is in use on {stream:?}: {e}; waited: {done:?}");
            }
        }
    }

    /// Queues a copy of `from` to `offset`; returns when the host's bytes may be changed again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the range does not fit.
    pub fn write(&self, stream: &Stream, offset: u64, from: &[u8]) -> Result<()> {
        self.copy(
            stream,
            DS_COPY_TO_DEVICE,
            offset,
            from.as_ptr().cast_mut().cast(),
            from.len(),
        )?;
        // The plugin may read the host's memory until the stream has passed the copy.
        self.settle(stream)
    }

    /// Copies from `offset` into `to`, after the work queued on `stream`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the range does not fit, or the failure of that work.
    pub fn read(&self, stream: &Stream, offset: u64, to: &mut [u8]) -> Result<()> {
        self.copy(
            stream,
            DS_COPY_TO_HOST,
            offset,
            to.as_mut_ptr().cast(),
            to.len(),
        )?;
        stream.finish()
    }

    /// Queues a copy of `bytes` bytes from `source` on the same device or another one of the same
    /// plugin. From or to pinned memory it goes on behind the caller's back, without staging:
    /// upstream's `copy_(.., non_blocking=True)`. From or to pageable memory it may not.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when a range does not fit or both overlap,
    /// [`ErrorKind::Unsupported`] when the devices belong to different plugins.
    pub fn copy_from(
        &self,
        stream: &Stream,
        offset: u64,
        source: &Self,
        source_offset: u64,
        bytes: u64,
    ) -> Result<()> {
        let op = "copy a buffer";
        self.check_range(op, offset, bytes)?;
        source.check_range(op, source_offset, bytes)?;
        self.check_stream(op, stream)?;
        if !std::ptr::eq(self.device().plugin(), source.device().plugin()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                op,
                format!(
                    "{} and {} have different plugins",
                    source.device(),
                    self.device()
                ),
            )
            .with_hint("copy through host memory: `read` one and `write` the other"));
        }
        let (to, from) = (self.at(offset), source.at(source_offset));
        if source.device() == self.device() && to.addr().abs_diff(from.addr()) < usize_of(bytes) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                op,
                "both ranges overlap",
            ));
        }
        if bytes == 0 {
            return Ok(());
        }
        if self.kind() == MemoryKind::Pageable && source.kind().is_in_pages()
            || source.kind() == MemoryKind::Pageable && self.kind().is_in_pages()
        {
            return copy_on_host(stream, to, from, bytes);
        }
        let peer = if source.device() == self.device() {
            std::ptr::null_mut()
        } else {
            source.device().handle()
        };
        // Shared memory is the device's as much as the host's.
        let host = |kind| matches!(kind, MemoryKind::Pinned | MemoryKind::Pageable);
        let direction = match (host(source.kind()), host(self.kind())) {
            (true, false) => DS_COPY_TO_DEVICE,
            (false, true) => DS_COPY_TO_HOST,
            _ => DS_COPY_ON_DEVICE,
        };
        self.queue_copy(stream, direction, to, from, bytes, peer)?;
        self.record_use(stream);
        source.record_use(stream);
        Ok(())
    }

    /// Queues a fill with `pattern`.
    ///
    /// # Errors
    /// [`ErrorKind::Unimplemented`] where the plugin has no fill.
    pub fn fill(&self, stream: &Stream, pattern: u8) -> Result<()> {
        if self.bytes() == 0 {
            return Ok(());
        }
        self.check_stream("fill a buffer", stream)?;
        let (device, address, bytes) = (self.device(), self.address(), self.bytes());
        if self.kind() == MemoryKind::Pageable {
            stream.finish()?;
            // SAFETY: the range is the buffer's own host memory, and the stream's work with it is done.
            unsafe { address.cast::<u8>().write_bytes(pattern, usize_of(bytes)) };
            return Ok(());
        }
        let what = || format!("{bytes} bytes on {device}");
        debug::queue(stream, "fill a buffer", what, || {
            let (handle, _turn) = stream.queue();
            // SAFETY: the range is the buffer's own; `record_use` keeps it until the stream is past.
            unsafe {
                call!(
                    device.plugin(),
                    memory.fill(device.handle(), handle, address, pattern, bytes)
                )
            }
        })?;
        self.record_use(stream);
        Ok(())
    }

    fn copy(
        &self,
        stream: &Stream,
        direction: u32,
        offset: u64,
        host: *mut c_void,
        len: usize,
    ) -> Result<()> {
        let op = "copy a buffer";
        let bytes = len as u64;
        self.check_range(op, offset, bytes)?;
        self.check_stream(op, stream)?;
        if bytes == 0 {
            return Ok(());
        }
        let (to, from) = match direction {
            DS_COPY_TO_DEVICE => (self.at(offset), host),
            _ => (host, self.at(offset)),
        };
        if self.kind() == MemoryKind::Pageable {
            return copy_on_host(stream, to, from, bytes);
        }
        self.queue_copy(stream, direction, to, from, bytes, std::ptr::null_mut())?;
        self.record_use(stream);
        Ok(())
    }

    fn queue_copy(
        &self,
        stream: &Stream,
        direction: u32,
        destination: *mut c_void,
        source: *mut c_void,
        bytes: u64,
        peer: ds_abi::DsDevice,
    ) -> Result<()> {
        let copy = DsCopy {
            struct_size: sized::<DsCopy>(),
            direction,
            destination,
            source,
            bytes,
            peer,
        };
        let device = self.device();
        let what = || {
            let way = match direction {
                DS_COPY_TO_DEVICE => "to",
                DS_COPY_TO_HOST => "from",
                _ if peer.is_null() => "on",
                _ => "from another device to",
            };
            format!("{bytes} bytes {way} {device}")
        };
        debug::queue(stream, "copy a buffer", what, || {
            let (handle, _turn) = stream.queue();
            // SAFETY: device ranges are within live buffers, which `record_use` keeps until the
            // stream is past; host ranges outlive the copy because `read` and `write` wait for it.
            unsafe {
                call!(
                    device.plugin(),
                    memory.copy(device.handle(), handle, &raw const copy)
                )
            }
        })
    }

    /// Waits for `stream`, unless it runs everything inside the call.
    fn settle(&self, stream: &Stream) -> Result<()> {
        if self.device().info().synchronous {
            Ok(())
        } else {
            stream.finish()
        }
    }

    fn at(&self, offset: u64) -> *mut c_void {
        self.address().wrapping_byte_add(usize_of(offset))
    }

    fn check_range(&self, op: &'static str, offset: u64, bytes: u64) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                op,
                format!(
                    "{bytes} bytes at {offset} exceed the buffer's {} bytes",
                    self.bytes()
                ),
            )),
        }
    }

    fn check_stream(&self, op: &'static str, stream: &Stream) -> Result<()> {
        if stream.device() == self.device() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            op,
            format!(
                "the buffer is on {}, the stream on {}",
                self.device(),
                stream.device()
            ),
        ))
    }
}

/// Copies between places of the host, of which no device need know one, after the work of `stream`.
fn copy_on_host(stream: &Stream, to: *mut c_void, from: *mut c_void, bytes: u64) -> Result<()> {
    stream.finish()?;
    // SAFETY: both ranges are checked and of the host's memory; the work that used them is done. They
    // do not overlap: two buffers never do, two ranges of one were compared, and a slice is not a
    // buffer's, by the contract of `host_bytes`.
    unsafe { (to.cast::<u8>()).copy_from_nonoverlapping(from.cast(), usize_of(bytes)) };
    Ok(())
}

/// Waits for all work that may use memory of `device` at `address`.
fn finish_work(device: Device, address: *mut c_void) -> Result<()> {
    let own = device.finish();
    own.and(device.pool().wait_abroad(address))
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken once, here, and the buffer is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Ok(memory) = Arc::try_unique(memory) {
            memory.device.pool().give(memory);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It is the parent's, which still uses it.
        if fork::is_child() {
            return;
        }
        match &mut self.owner {
            Owner::Pool { live: false, .. } => {}
            Owner::Pool {
                block,
                guests,
                live,
            } => {
                // The last two clones went at the same time, so neither knew that it was the last.
                let (block, guests, live) = (*block, std::mem::take(guests), *live);
                self.device.pool().give(UniqueArc::new(Self {
                    device: self.device,
                    address: self.address,
                    bytes: self.bytes,
                    owner: Owner::Pool {
                        block,
                        guests,
                        live,
                    },
                }));
            }
            Owner::Raw { kind, alignment } => {
                if *kind == MemoryKind::Pinned {
                    pinned::remove(self.address);
                }
                self.device.unpooled().remove(self.bytes);
                // Nothing tells which work still uses memory of these kinds, so all of it ends.
                let done = finish_work(self.device, self.address);
                let bytes = self.bytes.max(1);
                // SAFETY: allocated in `of_kind` with these numbers; the last owner is gone and
                // the device is done.
                let freed = unsafe {
                    if let Some(raw) = kind.raw() {
                        self.device.free(self.address, bytes, raw)
                    } else {
                        pageable::free(self.address, bytes, *alignment);
                        Ok(())
                    }
                };
                if let Err(e) = done.and(freed) {
                    log::error!("free memory of {}: {e}", self.device);
                }
            }
            Owner::Foreign { release } => {
                if let Err(e) = finish_work(self.device, self.address) {
                    log::error!("give foreign memory back: {e}");
                }
                if let Some(release) = release
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
                {
                    release();
                }
            }
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Buffer({} {:p} {} bytes)",
            self.device(),
            self.address(),
            self.bytes()
        )
    }
}

/// A byte count as an address offset; what does not fit was refused by a range check before.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
