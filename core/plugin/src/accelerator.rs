//! The `Accelerator` trait: the vendor's side of the boundary in Rust's own types.

use std::{borrow::Cow, ffi::c_void};

use ds_abi::DsStatus;

use crate::{
    Error, Host, Result,
    view::{LaunchView, SignatureView},
};

/// One accelerator: which devices there are, raw memory, streams, events, load and launch.
///
/// Handles are plain Rust values; the boundary boxes them. Every method may be called from any
/// thread. Methods with a default body are optional, and what is left out is `unimplemented` to
/// the host, never a silent no-op. The smallest accelerator that loads has four methods; memory,
/// streams, ops and builds can follow one after the other ([`Accelerator::TABLES`]).
pub trait Accelerator: Send + Sync + Sized + 'static {
    /// An open device.
    type Device: Send + Sync;
    /// An in-order queue of work on a device.
    type Stream: Send + Sync;
    /// A timeline: a counter that only grows.
    type Event: Send + Sync;
    /// A loaded artefact.
    type Module: Send + Sync;
    /// A kernel ready to launch.
    type Prepared: Send + Sync;

    /// Which groups of methods there are beside the devices. The host uses a group only when all
    /// that it needs of it is there.
    const TABLES: &'static [Table] = &[Table::Memory, Table::Stream, Table::Op, Table::Jit];

    /// Makes the accelerator. Touches no device, loads no driver, starts no thread.
    ///
    /// # Errors
    /// When the plugin cannot work with this host at all.
    fn new(host: Host) -> Result<Self>;

    /// Counts the devices that the vendor's visibility variables leave.
    ///
    /// # Errors
    /// `unavailable` when the driver library is not there, naming every place tried.
    fn device_count(&self) -> Result<u32>;

    /// Describes device `index` without opening it.
    ///
    /// # Errors
    /// `no_device` for an index out of range.
    fn describe(&self, index: u32) -> Result<DeviceInfo>;

    /// Opens device `index`.
    ///
    /// # Errors
    /// `no_device` for an index out of range, `device_lost` when it does not answer.
    fn open(&self, index: u32) -> Result<Self::Device>;

    /// Waits until all work given to the device is done.
    ///
    /// # Errors
    /// The first failure of that work.
    fn synchronize(&self, _device: &Self::Device) -> Result<()> {
        Err(Error::unimplemented(
            "this accelerator synchronises streams only",
        ))
    }

    /// Allocates `bytes` of `kind` (`DS_MEMORY_*`), aligned to `alignment` or better.
    ///
    /// # Errors
    /// `out_of_memory`, `unsupported` for a kind that the device does not have.
    fn allocate(
        &self,
        _device: &Self::Device,
        _bytes: u64,
        _alignment: u64,
        _kind: u32,
    ) -> Result<*mut c_void> {
        Err(Error::unimplemented("this accelerator has no memory"))
    }

    /// Frees what `allocate` gave.
    ///
    /// # Safety
    /// `address`, `bytes` and `kind` are those of one allocation of this device that is not freed
    /// yet, and no work that uses it is pending.
    ///
    /// # Errors
    /// When the vendor's library refuses.
    unsafe fn free(
        &self,
        _device: &Self::Device,
        _address: *mut c_void,
        _bytes: u64,
        _kind: u32,
    ) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no memory"))
    }

    /// Tells how much memory there is.
    ///
    /// # Errors
    /// `device_lost` when the device does not answer.
    fn memory_info(&self, _device: &Self::Device) -> Result<MemoryInfo> {
        Err(Error::unimplemented("this accelerator has no memory"))
    }

    /// Queues a copy.
    ///
    /// # Safety
    /// Both ranges are valid in the memories that the direction names, and stay so until the
    /// stream has passed the copy.
    ///
    /// # Errors
    /// `unsupported` for a direction or peer that the device cannot reach.
    unsafe fn copy(
        &self,
        _device: &Self::Device,
        _stream: &Self::Stream,
        _copy: Copy<'_, Self::Device>,
    ) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no memory"))
    }

    /// Queues a fill of `bytes` bytes with `pattern`.
    ///
    /// # Safety
    /// The range is valid device memory and stays so until the stream has passed the fill.
    ///
    /// # Errors
    /// When the vendor's library refuses.
    unsafe fn fill(
        &self,
        _device: &Self::Device,
        _stream: &Self::Stream,
        _address: *mut c_void,
        _pattern: u8,
        _bytes: u64,
    ) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no fill"))
    }

    /// Makes a stream; with `default` the one that work without a stream runs in.
    ///
    /// # Errors
    /// When the device has no more queues.
    fn stream_create(&self, _device: &Self::Device, _default: bool) -> Result<Self::Stream> {
        Err(Error::unimplemented("this accelerator has no streams"))
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    /// The first failure of that work.
    fn stream_synchronize(&self, _stream: &Self::Stream) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no streams"))
    }

    /// `Ok` when nothing is pending.
    ///
    /// # Errors
    /// `not_ready` while work is pending, else its failure.
    fn stream_query(&self, _stream: &Self::Stream) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no streams"))
    }

    /// The vendor's own handle.
    ///
    /// # Errors
    /// `unimplemented` where there is none.
    fn stream_native(&self, _stream: &Self::Stream) -> Result<*mut c_void> {
        Err(Error::unimplemented(
            "this accelerator's streams have no native handle",
        ))
    }

    /// Makes a stream around a vendor's handle that somebody else owns.
    ///
    /// # Safety
    /// `native` is a live handle of the vendor's kind, on this device, and outlives the stream.
    ///
    /// # Errors
    /// `unimplemented` where there is no native handle.
    unsafe fn stream_wrap(
        &self,
        _device: &Self::Device,
        _native: *mut c_void,
    ) -> Result<Self::Stream> {
        Err(Error::unimplemented(
            "this accelerator's streams have no native handle",
        ))
    }

    /// Makes a timeline that stands at 0.
    ///
    /// # Errors
    /// When the device has no more events.
    fn event_create(&self, _device: &Self::Device) -> Result<Self::Event> {
        Err(Error::unimplemented("this accelerator has no events"))
    }

    /// Queues: when the work so far is done, raise the timeline to `value`.
    ///
    /// # Errors
    /// When the stream takes no more work.
    fn event_record(
        &self,
        _stream: &Self::Stream,
        _event: &Self::Event,
        _value: u64,
    ) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no events"))
    }

    /// Queues: later work waits until the timeline stands at `value`.
    ///
    /// # Errors
    /// When the stream takes no more work.
    fn event_wait(&self, _stream: &Self::Stream, _event: &Self::Event, _value: u64) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no events"))
    }

    /// Raises the timeline from the host, or fails it with a `status` other than `DS_OK`.
    ///
    /// # Errors
    /// When the device cannot be signalled.
    fn event_signal(&self, _event: &Self::Event, _value: u64, _status: DsStatus) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no events"))
    }

    /// How far the timeline is.
    ///
    /// # Errors
    /// When the device does not answer.
    fn event_query(&self, _event: &Self::Event) -> Result<EventState> {
        Err(Error::unimplemented("this accelerator has no events"))
    }

    /// Blocks until the timeline stands at `value`.
    ///
    /// # Errors
    /// `timeout`, or the failure that keeps the timeline from getting there.
    fn event_synchronize(&self, _event: &Self::Event, _value: u64, _timeout_ns: u64) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no events"))
    }

    /// Calls `callback` once, when the timeline stands at `value` or never will.
    ///
    /// # Errors
    /// `unimplemented`: the host then waits on a thread of its own.
    fn event_on_ready(
        &self,
        _event: &Self::Event,
        _value: u64,
        _callback: Box<dyn FnOnce(DsStatus) + Send>,
    ) -> Result<()> {
        Err(Error::unimplemented(
            "this accelerator has no event callbacks",
        ))
    }

    /// Lowers the score of an admissible kernel for one signature.
    ///
    /// # Errors
    /// For a kernel that this accelerator does not know.
    fn refine(
        &self,
        _device: &Self::Device,
        _kernel: &str,
        _signature: SignatureView<'_>,
        score: i32,
    ) -> Result<i32> {
        Ok(score)
    }

    /// Prepares kernel calls for repeated launch.
    ///
    /// # Errors
    /// `constraint` when a kernel refuses its signature.
    fn prepare(
        &self,
        _device: &Self::Device,
        _nodes: &[Node<'_, Self::Module>],
    ) -> Result<Prepared<Self::Prepared>> {
        Err(Error::unimplemented("this accelerator has no kernels"))
    }

    /// Queues a prepared kernel. The hot path.
    ///
    /// # Safety
    /// The tensors are those of the signature the kernel was prepared for, and their memory, like
    /// the workspace, stays valid until the stream has passed the launch.
    ///
    /// # Errors
    /// When the stream takes no more work.
    unsafe fn launch(
        &self,
        _prepared: &Self::Prepared,
        _stream: &Self::Stream,
        _launch: LaunchView<'_>,
    ) -> Result<()> {
        Err(Error::unimplemented("this accelerator has no kernels"))
    }

    /// The toolchains, best first.
    fn toolchains(&self) -> Vec<Toolchain> {
        Vec::new()
    }

    /// Describes the build of `kernel` for `target`; of the smallest build that proves the
    /// toolchain when `kernel` is empty.
    ///
    /// # Errors
    /// `invalid_argument` for a kernel that it does not know.
    fn request(
        &self,
        kernel: &str,
        _signature: Option<SignatureView<'_>>,
        _target: &str,
    ) -> Result<BuildRequest> {
        Err(Error::unimplemented(format!(
            "kernel '{kernel}' needs no build"
        )))
    }

    /// Runs an in-process toolchain; appends to `log` and gives the artefact's bytes.
    ///
    /// # Errors
    /// `DS_BUILD_FAILED` with the compiler's first complaint.
    fn compile(
        &self,
        _request: &BuildRequest,
        _target: &str,
        _log: &mut Vec<u8>,
    ) -> Result<Vec<u8>> {
        Err(Error::unimplemented(
            "this accelerator has no in-process toolchain",
        ))
    }

    /// Loads an artefact; it stays loaded.
    ///
    /// # Errors
    /// `stale` when it was made for something else.
    fn load(&self, _device: &Self::Device, _artefact: Artefact<'_>) -> Result<Self::Module> {
        Err(Error::unimplemented("this accelerator loads no artefacts"))
    }
}

/// A group of methods, which is a table of functions at the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `allocate` to `fill`.
    Memory,
    /// `stream_create` to `event_on_ready`.
    Stream,
    /// `refine` to `launch`.
    Op,
    /// `toolchains` to `load`.
    Jit,
}

/// What a device is; see [`ds_abi::DsDeviceInfo`] for each field's meaning.
#[derive(Clone, Debug, Default)]
pub struct DeviceInfo {
    /// Marketing name.
    pub name: String,
    /// What artefacts are built for.
    pub target: String,
    /// Version of the driver.
    pub driver_version: String,
    /// Vendor's unique name of the physical device.
    pub uuid: String,
    /// PCI address.
    pub pci: String,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// `DS_DEVICE_*` bits.
    pub flags: u64,
    /// `1 << DS_DTYPE_*` bits.
    pub dtypes: u64,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Alignment of every allocation, in bytes.
    pub alignment_bytes: u32,
    /// Compute units.
    pub compute_units: u32,
    /// DLPack's device type.
    pub dlpack_type: i32,
}

/// How much memory a device has, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryInfo {
    /// In all.
    pub total_bytes: u64,
    /// Free for this process right now.
    pub free_bytes: u64,
}

/// One copy of bytes.
#[derive(Debug)]
pub struct Copy<'a, Device> {
    /// `DS_COPY_*`.
    pub direction: u32,
    /// Where to.
    pub destination: *mut c_void,
    /// Where from.
    pub source: *const c_void,
    /// How many bytes; never 0.
    pub bytes: u64,
    /// Where `source` lies when it is on another device.
    pub peer: Option<&'a Device>,
}

/// How far a timeline has come.
#[derive(Clone, Copy, Debug)]
pub struct EventState {
    /// The highest value reached.
    pub value: u64,
    /// `DS_OK`, or why higher values will never be reached.
    pub status: DsStatus,
    /// When `value` was reached, in nanoseconds of the device's clock; 0 if it does not tell.
    pub time_ns: u64,
}

/// One kernel call of what is being prepared.
#[derive(Debug)]
pub struct Node<'a, Module> {
    /// The kernel's name, as in the manifest.
    pub kernel: &'a str,
    /// What it is called with.
    pub signature: SignatureView<'a>,
    /// The loaded artefact, `None` for a kernel that needs none.
    pub module: Option<&'a Module>,
}

/// What `prepare` gives back.
#[derive(Debug)]
pub struct Prepared<Handle> {
    /// What is launched.
    pub handle: Handle,
    /// Workspace that each launch needs, in bytes.
    pub workspace_bytes: u64,
    /// Its alignment in bytes.
    pub workspace_alignment: u64,
}

/// One way to make artefacts; see [`ds_abi::DsToolchain`].
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Whether the host calls `compile` rather than running a program.
    pub in_process: bool,
    /// Name, such as `cc`.
    pub name: String,
    /// Programs to look for, best first, separated by blanks; `$CC` stands for its value.
    pub programs: String,
    /// Arguments that print the version; for an in-process one its version and path.
    pub version: String,
    /// How to get it.
    pub hint: String,
}

/// What one build needs; see [`ds_abi::DsBuildRequest`].
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Name of the toolchain.
    pub toolchain: String,
    /// Source files: name and text.
    pub sources: Vec<(Cow<'static, str>, Cow<'static, [u8]>)>,
    /// Arguments in order.
    pub arguments: Vec<String>,
    /// Name of the file that the build makes.
    pub output: String,
}

/// A built artefact.
#[derive(Clone, Copy, Debug)]
pub struct Artefact<'a> {
    /// The kernel that it is for.
    pub kernel: &'a str,
    /// Absolute path of the file.
    pub path: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
}
