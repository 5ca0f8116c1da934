//! `impl Accelerator for Cpu`: one device, and the other files of this crate behind each method.

use std::{
    ffi::c_void,
    sync::{Arc, OnceLock},
};

use ds_plugin::{
    Accelerator, Artefact, BuildRequest, Copy, DeviceInfo, Error, EventState, Host, LaunchView,
    MemoryInfo, Node, Prepared, Result, SignatureView, Toolchain,
    abi::{
        DS_COPY_ON_DEVICE, DS_COPY_TO_DEVICE, DS_COPY_TO_HOST, DS_DEVICE_HOST_TIMERS,
        DS_DEVICE_HOST_VISIBLE_MEMORY, DS_DEVICE_UNIFIED_MEMORY, DS_DTYPE_BF16, DS_DTYPE_BOOL,
        DS_DTYPE_F16, DS_DTYPE_F32, DS_DTYPE_F64, DS_DTYPE_I8, DS_DTYPE_I16, DS_DTYPE_I32,
        DS_DTYPE_I64, DS_DTYPE_U8, DsStatus,
    },
};

use crate::{
    event::Timeline,
    jit,
    memory::{self, ALIGNMENT_BYTES},
    ops::{CKernel, PreparedKernel},
    pool::Pool,
    probe,
    stream::Stream,
};

/// DLPack's number for the CPU.
const DLPACK_CPU: i32 = 1;

/// The CPU accelerator.
#[derive(Debug)]
pub struct Cpu {
    /// All streams run asynchronously, the default one too: `DS_CPU_STREAMS=async`, for tests.
    asynchronous: bool,
}

/// The open device: the compute pool, shared by every handle of it.
pub struct Device {
    pool: Arc<Pool>,
}

/// A kernel ready to launch, and the pool that runs it.
pub struct Launchable {
    kernel: Arc<PreparedKernel>,
    pool: Arc<Pool>,
}

impl Accelerator for Cpu {
    type Device = Device;
    type Stream = Stream;
    type Event = Arc<Timeline>;
    type Module = &'static CKernel;
    type Prepared = Launchable;

    fn new(_host: Host) -> Result<Self> {
        let asynchronous = match probe::variable("DS_CPU_STREAMS").as_deref() {
            Some("async") => true,
            None | Some("inline") => false,
            Some(other) => {
                return Err(Error::invalid_argument(format!(
                    "DS_CPU_STREAMS is '{other}'; it must be inline or async"
                )));
            }
        };
        // What the other variables get wrong is said when the plugin loads, too: a device that is
        // counted can be opened.
        probe::target()?;
        probe::threads()?;
        Ok(Self { asynchronous })
    }

    fn device_count(&self) -> Result<u32> {
        Ok(1)
    }

    fn describe(&self, index: u32) -> Result<DeviceInfo> {
        only_device(index)?;
        let (memory_bytes, _) = probe::memory_bytes()?;
        let dtypes = [
            DS_DTYPE_F32,
            DS_DTYPE_F16,
            DS_DTYPE_BF16,
            DS_DTYPE_F64,
            DS_DTYPE_I8,
            DS_DTYPE_U8,
            DS_DTYPE_I16,
            DS_DTYPE_I32,
            DS_DTYPE_I64,
            DS_DTYPE_BOOL,
        ];
        Ok(DeviceInfo {
            name: probe::name(),
            target: probe::target()?,
            flags: DS_DEVICE_HOST_TIMERS | DS_DEVICE_HOST_VISIBLE_MEMORY | DS_DEVICE_UNIFIED_MEMORY,
            dtypes: dtypes.iter().fold(0, |mask, dtype| mask | 1 << dtype),
            memory_bytes,
            alignment_bytes: u32::try_from(ALIGNMENT_BYTES).unwrap_or(u32::MAX),
            compute_units: u32::try_from(probe::threads()?).unwrap_or(u32::MAX),
            dlpack_type: DLPACK_CPU,
            ..DeviceInfo::default()
        })
    }

    fn open(&self, index: u32) -> Result<Device> {
        static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
        only_device(index)?;
        let threads = probe::threads()?;
        Ok(Device {
            pool: Arc::clone(POOL.get_or_init(|| Arc::new(Pool::new(threads)))),
        })
    }

    fn allocate(
        &self,
        _device: &Device,
        bytes: u64,
        alignment: u64,
        kind: u32,
    ) -> Result<*mut c_void> {
        memory::allocate(bytes, alignment, kind)
    }

    unsafe fn free(
        &self,
        _device: &Device,
        address: *mut c_void,
        bytes: u64,
        kind: u32,
    ) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { memory::free(address, bytes, kind) };
        Ok(())
    }

    fn memory_info(&self, _device: &Device) -> Result<MemoryInfo> {
        let (total_bytes, free_bytes) = probe::memory_bytes()?;
        Ok(MemoryInfo {
            total_bytes,
            free_bytes,
        })
    }

    unsafe fn copy(&self, _device: &Device, stream: &Stream, copy: Copy<'_, Device>) -> Result<()> {
        if !matches!(
            copy.direction,
            DS_COPY_TO_DEVICE | DS_COPY_TO_HOST | DS_COPY_ON_DEVICE
        ) {
            return Err(Error::unsupported(format!(
                "copy direction {}",
                copy.direction
            )));
        }
        let (to, from) = (Address(copy.destination), Address(copy.source.cast_mut()));
        let bytes = size(copy.bytes)?;
        let run = move || {
            let (to, from) = (to, from);
            // SAFETY: the caller vouches for both ranges until the stream has passed this, and the
            // boundary says that they do not overlap.
            unsafe { from.0.copy_to_nonoverlapping(to.0, bytes) };
        };
        stream.run(run, move || Box::new(run))
    }

    unsafe fn fill(
        &self,
        _device: &Device,
        stream: &Stream,
        address: *mut c_void,
        pattern: u8,
        bytes: u64,
    ) -> Result<()> {
        let to = Address(address);
        let bytes = size(bytes)?;
        let run = move || {
            let to = to;
            // SAFETY: the caller vouches for the range until the stream has passed this.
            unsafe { to.0.cast::<u8>().write_bytes(pattern, bytes) };
        };
        stream.run(run, move || Box::new(run))
    }

    fn stream_create(&self, _device: &Device, default: bool) -> Result<Stream> {
        Ok(Stream::new(default && !self.asynchronous))
    }

    fn stream_synchronize(&self, stream: &Stream) -> Result<()> {
        stream.synchronize()
    }

    fn stream_query(&self, stream: &Stream) -> Result<()> {
        stream.query()
    }

    fn event_create(&self, _device: &Device) -> Result<Arc<Timeline>> {
        Ok(Arc::default())
    }

    fn event_record(&self, stream: &Stream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        stream.record(event, value);
        Ok(())
    }

    fn event_wait(&self, stream: &Stream, event: &Arc<Timeline>, value: u64) -> Result<()> {
        stream.wait(event, value);
        Ok(())
    }

    fn event_signal(&self, event: &Arc<Timeline>, value: u64, status: DsStatus) -> Result<()> {
        event.signal(value, status);
        Ok(())
    }

    fn event_query(&self, event: &Arc<Timeline>) -> Result<EventState> {
        Ok(event.state())
    }

    fn event_synchronize(&self, event: &Arc<Timeline>, value: u64, timeout_ns: u64) -> Result<()> {
        event.wait(value, timeout_ns)
    }

    fn event_on_ready(
        &self,
        event: &Arc<Timeline>,
        value: u64,
        callback: Box<dyn FnOnce(DsStatus) + Send>,
    ) -> Result<()> {
        event.on_ready(value, callback);
        Ok(())
    }

    fn prepare(
        &self,
        device: &Device,
        nodes: &[Node<'_, &'static CKernel>],
    ) -> Result<Prepared<Launchable>> {
        let [node] = nodes else {
            return Err(Error::unsupported(format!(
                "{} kernels in one launch",
                nodes.len()
            )));
        };
        let module = node.module.ok_or_else(|| {
            Error::invalid_argument(format!("kernel '{}' without its artefact", node.kernel))
        })?;
        let kernel = PreparedKernel::new(module, node.signature)?;
        Ok(Prepared {
            workspace_bytes: kernel.workspace_bytes(),
            workspace_alignment: ALIGNMENT_BYTES as u64,
            handle: Launchable {
                kernel: Arc::new(kernel),
                pool: Arc::clone(&device.pool),
            },
        })
    }

    unsafe fn launch(
        &self,
        prepared: &Launchable,
        stream: &Stream,
        launch: LaunchView<'_>,
    ) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { prepared.kernel.launch(&prepared.pool, stream, launch) }
    }

    fn toolchains(&self) -> Vec<Toolchain> {
        vec![jit::toolchain()]
    }

    fn request(
        &self,
        kernel: &str,
        _signature: Option<SignatureView<'_>>,
        target: &str,
    ) -> Result<BuildRequest> {
        jit::request(kernel, target)
    }

    fn load(&self, _device: &Device, artefact: Artefact<'_>) -> Result<&'static CKernel> {
        jit::load(artefact)
    }
}

/// An address on its way to the thread of a stream.
#[derive(Clone, Copy)]
struct Address(*mut c_void);
// SAFETY: the host keeps the memory behind it valid until the stream has passed the work.
unsafe impl Send for Address {}

fn only_device(index: u32) -> Result<()> {
    match index {
        0 => Ok(()),
        other => Err(Error::no_device(format!(
            "there is one cpu device, cpu:0, and no cpu:{other}"
        ))),
    }
}

fn size(bytes: u64) -> Result<usize> {
    usize::try_from(bytes)
        .map_err(|_| Error::invalid_argument(format!("{bytes} bytes exceed the address space")))
}
