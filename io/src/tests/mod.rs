//! Tests of whole operations, also with a kernel that fails (`engine/seam.rs`). What needs a process
//! of its own is in `io/tests`.

mod checksums;
mod failures;
mod faults;
mod files;
mod model;
mod replace;
mod round_trips;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

// Named, so that the linker keeps what it registers.
use ds_accelerator_cpu as _;
use ds_core::{
    Buffer, DType, Device, Host, MemoryKind, Stream, Tensor, Timeline, discovery::Search,
};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::{
    AioConfig, AioHandle, EngineKind,
    engine::{Action, Completion, Request, Seam, seam::Faults},
};

/// No test takes so long: one that does hangs.
const PATIENCE: Duration = Duration::from_mins(2);
/// What lies around the memory of a tensor, which nobody may write.
const GUARD: u8 = 0xa5;
const GUARD_BYTES: usize = 4096;

fn device() -> Device {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| Host::with_search(Search::empty()));
    host.accelerator("cpu").unwrap().device(0).unwrap()
}

fn stream() -> Stream {
    Stream::new(device()).unwrap()
}

/// The engines that the kernel allows; the others are said to be skipped.
fn engines() -> Vec<EngineKind> {
    let allowed = |kind: &EngineKind| match kind.probe() {
        Ok(()) => true,
        Err(e) => {
            println!("skipped: the engine {kind}: {e}");
            false
        }
    };
    EngineKind::ALL.into_iter().filter(allowed).collect()
}

/// Fails when `test` hangs, rather than waiting for ever.
fn patiently(test: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        let _ = tell.send(());
    });
    match told.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e)),
    }
}

/// As [`patiently`], once for every engine.
fn on_each_engine(test: impl Fn(EngineKind) + Send + Sync + 'static) {
    let test = Arc::new(test);
    for kind in engines() {
        let test = Arc::clone(&test);
        patiently(move || test(kind));
    }
}

/// Has `stream` wait for a point that another thread raises a little later: whoever raises one itself
/// must not ask for memory meanwhile, which may be behind other streams that wait for it.
fn block_for_a_while(stream: &Stream) -> thread::JoinHandle<()> {
    let timeline = Timeline::new(device()).unwrap();
    let point = timeline.next();
    stream.wait(&point).unwrap();
    thread::spawn(move || {
        for _ in 0..300 {
            thread::yield_now();
        }
        timeline.signal(point.value()).unwrap();
    })
}

/// Bytes that look like chance and are the same each time: `SplitMix64` (Steele, Lea and Flood, 2014).
fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        all.extend_from_slice(&chance(&mut state).to_le_bytes());
    }
    all.truncate(bytes);
    all
}

fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where the memory of a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pinned,
    Pageable,
    /// The device's own, from its pool.
    Pool,
    /// The same, at an address that no disk takes.
    Odd,
}

impl Place {
    const ALL: [Self; 4] = [Self::Pinned, Self::Pageable, Self::Pool, Self::Odd];
}

/// A tensor of bytes with guards around it.
struct Guarded {
    whole: Tensor,
    tensor: Tensor,
}

impl Guarded {
    fn new(stream: &Stream, place: Place, bytes: &[u8]) -> Self {
        let before = GUARD_BYTES + usize::from(place == Place::Odd);
        let size = before + bytes.len() + GUARD_BYTES;
        let buffer = match place {
            Place::Pinned => Buffer::of_kind(device(), size as u64, MemoryKind::Pinned),
            Place::Pageable => Buffer::of_kind(device(), size as u64, MemoryKind::Pageable),
            Place::Pool | Place::Odd => Buffer::new(stream, size as u64),
        };
        let extent = size.cast_signed() as i64;
        let whole = Tensor::view_of(&buffer.unwrap(), 0, DType::U8, &[extent], &[1]).unwrap();
        let mut content = vec![GUARD; size];
        content[before..before + bytes.len()].copy_from_slice(bytes);
        whole.write_bytes(stream, &content).unwrap();
        stream.synchronize().unwrap();
        let (start, len) = (
            before.cast_signed() as i64,
            bytes.len().cast_signed() as i64,
        );
        let tensor = whole.narrow(0, start, len).unwrap();
        Self { whole, tensor }
    }

    /// What the tensor has, once nobody wrote around it.
    fn bytes(&self, stream: &Stream) -> Vec<u8> {
        let all = self.whole.to_bytes(stream).unwrap();
        let before = usize::try_from(self.tensor.offset_bytes()).unwrap();
        let end = before + usize::try_from(self.tensor.bytes()).unwrap();
        let guards = all[..before].iter().chain(&all[end..]);
        assert!(guards.copied().all(|byte| byte == GUARD), "written around");
        all[before..end].to_vec()
    }
}

/// A tensor of these bytes on the device.
fn tensor(stream: &Stream, bytes: &[u8]) -> Tensor {
    let extent = bytes.len().cast_signed() as i64;
    let tensor = Tensor::from_bytes(stream, DType::U8, &[extent], bytes).unwrap();
    stream.synchronize().unwrap();
    tensor
}

/// A folder with files.
struct Folder(TempDir);

impl Folder {
    /// In memory where the machine has such a place, since disks are slow when others use them.
    fn new() -> Self {
        let shared = tempfile::tempdir_in("/dev/shm");
        Self(shared.or_else(|_| tempfile::tempdir()).unwrap())
    }

    /// Where direct I/O goes past the page cache.
    fn on_disk() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The names of all files in it, in order.
    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

/// What a request was for, when its completion comes.
#[derive(Clone, Copy, Debug)]
struct Asked {
    action: Action,
    bytes: u32,
    offset: u64,
}

type OnRequest = Box<dyn Fn(&mut Request) + Send + Sync>;
type OnCompletion = Box<dyn Fn(Asked, &mut Result<u32, Errno>) + Send + Sync>;
type OnSubmit = Box<dyn Fn(usize) -> Option<Errno> + Send + Sync>;
type OnOpen = Box<dyn Fn(EngineKind) -> Option<Errno> + Send + Sync>;

/// A kernel that does what a test says. For handles with one lane, whose ids are of one request at a
/// time.
#[derive(Default)]
struct Kernel {
    request: Option<OnRequest>,
    completion: Option<OnCompletion>,
    submit: Option<OnSubmit>,
    open: Option<OnOpen>,
    asked: Mutex<HashMap<u32, Asked>>,
    requests: AtomicUsize,
}

impl Kernel {
    fn on_request(rule: impl Fn(&mut Request) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            request: Some(Box::new(rule)),
            ..Self::default()
        })
    }

    fn on_completion(
        rule: impl Fn(Asked, &mut Result<u32, Errno>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            completion: Some(Box::new(rule)),
            ..Self::default()
        })
    }

    fn on_submit(rule: impl Fn(usize) -> Option<Errno> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            submit: Some(Box::new(rule)),
            ..Self::default()
        })
    }

    fn on_open(rule: impl Fn(EngineKind) -> Option<Errno> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            open: Some(Box::new(rule)),
            ..Self::default()
        })
    }

    fn seam(self: &Arc<Self>) -> Seam {
        Seam {
            faults: Some(Arc::clone(self) as Arc<dyn Faults>),
        }
    }

    fn handle(self: &Arc<Self>, kind: EngineKind, config: &AioConfig) -> AioHandle {
        AioHandle::through(config, kind, &self.seam()).unwrap()
    }

    /// How many requests it saw.
    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Faults for Kernel {
    fn open(&self, kind: EngineKind) -> Option<Errno> {
        self.open.as_ref().and_then(|rule| rule(kind))
    }

    fn submit(&self, count: usize) -> Option<Errno> {
        self.submit.as_ref().and_then(|rule| rule(count))
    }

    fn request(&self, request: &mut Request) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if let Some(rule) = &self.request {
            rule(request);
        }
        let asked = Asked {
            action: request.action,
            bytes: request.bytes,
            offset: request.offset,
        };
        self.asked.lock().unwrap().insert(request.id, asked);
    }

    fn completion(&self, completion: &mut Completion) {
        let asked = self.asked.lock().unwrap()[&completion.id];
        if let Some(rule) = &self.completion {
            rule(asked, &mut completion.result);
        }
    }
}
