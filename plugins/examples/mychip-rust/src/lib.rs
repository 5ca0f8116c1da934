//! A small accelerator that is complete: one device with memory, streams and one kernel. Its memory
//! is the host's and its streams are threads; put your driver in their place, one file at a time.
//!
//! docs/adding-an-accelerator.md builds it step by step.

mod event;
mod memory;
mod ops;
mod stream;

use std::{ffi::c_void, sync::Arc};

use ds_plugin::{
    Accelerator, Copy, DeviceInfo, Error, EventState, Host, LaunchView, MemoryInfo, Node, Prepared,
    Result, Table,
    abi::{DS_DTYPE_F32, DsStatus},
};

use crate::{event::Timeline, memory::Address, ops::Kernel, stream::Stream};

struct MychipPlugin {
    memory: memory::Memory,
}

impl Accelerator for MychipPlugin {
    type Device = ();
    type Stream = Stream;
    type Event = Arc<Timeline>;
    type Module = ();
    type Prepared = Kernel;

    const TABLES: &'static [Table] = &[Table::Memory, Table::Stream, Table::Op];

    fn new(_host: Host) -> Result<Self> {
        Ok(Self {
            memory: memory::Memory::default(),
        })
    }

    fn device_count(&self) -> Result<u32> {
        Ok(1)
    }

    fn describe(&self, index: u32) -> Result<DeviceInfo> {
        self.open(index)?;
        Ok(DeviceInfo {
            name: "Example mychip".to_owned(),
            target: "mychip-1".to_owned(),
            dtypes: 1 << DS_DTYPE_F32,
            memory_bytes: memory::TOTAL_BYTES,
            alignment_bytes: memory::ALIGNMENT_BYTES,
            // DLPack's number for devices that it has no name for.
            dlpack_type: 12,
            ..DeviceInfo::default()
        })
    }

    fn open(&self, index: u32) -> Result<()> {
        match index {
            0 => Ok(()),
            other => Err(Error::no_device(format!(
                "there is mychip:0, and no mychip:{other}"
            ))),
        }
    }

    fn allocate(&self, _device: &(), bytes: u64, alignment: u64, kind: u32) -> Result<*mut c_void> {
        self.memory.allocate(bytes, alignment, kind)
    }

    unsafe fn free(&self, _device: &(), address: *mut c_void, bytes: u64, _: u32) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.memory.free(address, bytes) }
    }

    fn memory_info(&self, _device: &()) -> Result<MemoryInfo> {
        Ok(self.memory.info())
    }

    unsafe fn copy(&self, _device: &(), stream: &Stream, copy: Copy<'_, ()>) -> Result<()> {
        let (to, from) = (Address(copy.destination), Address(copy.source.cast_mut()));
        let bytes = memory::size(copy.bytes)?;
        stream.run(move || {
            // SAFETY: the host keeps both ranges until the stream has passed this; they are apart.
            unsafe { from.get::<u8>().copy_to_nonoverlapping(to.get(), bytes) };
        })
    }

    unsafe fn fill(
        &self,
        _device: &(),
        stream: &Stream,
        address: *mut c_void,
        pattern: u8,
        bytes: u64,
    ) -> Result<()> {
        let (to, bytes) = (Address(address), memory::size(bytes)?);
        stream.run(move || {
            // SAFETY: the host keeps the range until the stream has passed this.
            unsafe { to.get::<u8>().write_bytes(pattern, bytes) };
        })
    }

    fn stream_create(&self, _device: &(), _default: bool) -> Result<Stream> {
        Stream::new()
    }

    fn stream_synchronize(&self, stream: &Stream) -> Result<()> {
        stream.synchronize()
    }

    fn stream_query(&self, stream: &Stream) -> Result<()> {
        stream.query()
    }

    fn event_create(&self, _device: &()) -> Result<Arc<Timeline>> {
        Ok(Arc::default())
    }

    fn event_record(&self, stream: &Stream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        stream.record(event, value)
    }

    fn event_wait(&self, stream: &Stream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        stream.wait(event, value)
    }

    fn event_signal(&self, event: &Arc<Timeline>, value: u64, status: DsStatus) -> Result<()> {
        event.raise(value, status);
        Ok(())
    }

    fn event_query(&self, event: &Arc<Timeline>) -> Result<EventState> {
        Ok(event.state())
    }

    fn event_synchronize(&self, event: &Arc<Timeline>, value: u64, timeout_ns: u64) -> Result<()> {
        event.wait(value, timeout_ns)
    }

    fn prepare(&self, _device: &(), nodes: &[Node<'_, ()>]) -> Result<Prepared<Kernel>> {
        Ok(Prepared {
            handle: Kernel::of(nodes)?,
            workspace_bytes: 0,
            workspace_alignment: 0,
        })
    }

    unsafe fn launch(
        &self,
        kernel: &Kernel,
        stream: &Stream,
        launch: LaunchView<'_>,
    ) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { kernel.launch(stream, launch) }
    }
}

ds_plugin::export_plugin!(MychipPlugin, "org.example.mychip");
