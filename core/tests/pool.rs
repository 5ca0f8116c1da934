//! What the pool's threads do to each other while one of them is in a call of the plugin: a device
//! whose calls the test holds, so that nothing depends on how fast anything is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{
    collections::HashMap,
    ffi::c_void,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use ds_core::{Buffer, Device, ErrorKind, Host, Stream, discovery::Search};
use ds_plugin::{
    Accelerator, DeviceInfo, Error, EventState, Result, Table,
    abi::{DS_NOT_READY, DS_OK},
};

/// A block that is allocated by itself: no other of its size is free by chance.
const LARGE: u64 = 2 << 20;

/// What takes longer waits for somebody.
const LONG: Duration = Duration::from_secs(10);

const MANIFEST: &str = r#"{
    "format": 1, "id": "org.example.held", "version": "0.1.0", "vendor": "Example",
    "license": "Apache-2.0", "accelerator": "held", "priority": 0, "description": "For tests.",
    "library": { "linux-x86_64": [{ "path": "libheld.so" }],
                 "linux-aarch64": [{ "path": "libheld.so" }] },
    "abi": { "major": 1, "min_minor": 0, "max_minor": 0 }, "dlpack_type": 12,
    "match": [{ "always": true }], "seen_on": { "on": "nothing", "note": "" }
}"#;

ds_plugin::export_plugin!(Held, "org.example.held", linked manifest = MANIFEST, kernels = Vec::new);

/// The calls that can be held.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Call {
    Allocate,
    Synchronize,
    StreamSynchronize,
}

/// What a call tells that is held, and what it waits for.
type Holding = (Sender<()>, Receiver<()>);

static HOLDING: Mutex<Option<HashMap<Call, Holding>>> = Mutex::new(None);

/// A call that is held until this is dropped.
struct Hold {
    made: Receiver<()>,
    _lets_go: Sender<()>,
}

/// Holds the next call of that kind.
fn hold(call: Call) -> Hold {
    let (makes, made) = channel();
    let (lets_go, waits) = channel();
    let mut holding = HOLDING.lock().unwrap();
    holding.get_or_insert_default().insert(call, (makes, waits));
    Hold {
        made,
        _lets_go: lets_go,
    }
}

fn pass(call: Call) {
    let held = HOLDING
        .lock()
        .unwrap()
        .as_mut()
        .and_then(|h| h.remove(&call));
    if let Some((makes, waits)) = held {
        makes.send(()).unwrap();
        // An error says that the hold is gone.
        let _ = waits.recv();
    }
}

/// One device without memory: its addresses lead nowhere. Work is pending until its stream is
/// waited for.
struct Held {
    next_address: AtomicUsize,
}

#[derive(Default)]
struct HeldStream {
    pending: AtomicBool,
}

#[derive(Default)]
struct HeldEvent {
    value: AtomicU64,
    stream: Mutex<Weak<HeldStream>>,
}

impl Accelerator for Held {
    type Device = ();
    type Stream = Arc<HeldStream>;
    type Event = HeldEvent;
    type Module = ();
    type Prepared = ();

    const TABLES: &'static [Table] = &[Table::Memory, Table::Stream];

    fn new(_: ds_plugin::Host) -> Result<Self> {
        Ok(Self {
            next_address: AtomicUsize::new(1 << 30),
        })
    }

    fn device_count(&self) -> Result<u32> {
        Ok(1)
    }

    fn describe(&self, _: u32) -> Result<DeviceInfo> {
        Ok(DeviceInfo {
            name: "Held".to_owned(),
            target: "held".to_owned(),
            alignment_bytes: 1,
            dlpack_type: 12,
            ..DeviceInfo::default()
        })
    }

    fn open(&self, _: u32) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self, (): &()) -> Result<()> {
        pass(Call::Synchronize);
        Ok(())
    }

    fn allocate(&self, (): &(), bytes: u64, _: u64, _: u32) -> Result<*mut c_void> {
        pass(Call::Allocate);
        let bytes = usize::try_from(bytes).unwrap();
        let address = self.next_address.fetch_add(bytes, Ordering::Relaxed);
        Ok(std::ptr::without_provenance_mut(address))
    }

    unsafe fn free(&self, (): &(), _: *mut c_void, _: u64, _: u32) -> Result<()> {
        Ok(())
    }

    unsafe fn fill(
        &self,
        (): &(),
        stream: &Self::Stream,
        _: *mut c_void,
        _: u8,
        _: u64,
    ) -> Result<()> {
        stream.pending.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn stream_create(&self, (): &(), _: bool) -> Result<Self::Stream> {
        Ok(Arc::default())
    }

    fn stream_synchronize(&self, stream: &Self::Stream) -> Result<()> {
        pass(Call::StreamSynchronize);
        stream.pending.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn stream_query(&self, stream: &Self::Stream) -> Result<()> {
        if stream.pending.load(Ordering::Relaxed) {
            return Err(Error::new(DS_NOT_READY, "work is pending"));
        }
        Ok(())
    }

    fn event_create(&self, (): &()) -> Result<HeldEvent> {
        Ok(HeldEvent::default())
    }

    fn event_record(&self, stream: &Self::Stream, event: &HeldEvent, value: u64) -> Result<()> {
        event.value.store(value, Ordering::Relaxed);
        *event.stream.lock().unwrap() = Arc::downgrade(stream);
        Ok(())
    }

    fn event_wait(&self, _: &Self::Stream, _: &HeldEvent, _: u64) -> Result<()> {
        Ok(())
    }

    fn event_query(&self, event: &HeldEvent) -> Result<EventState> {
        let stream = event.stream.lock().unwrap().upgrade();
        let pending = stream.is_some_and(|stream| stream.pending.load(Ordering::Relaxed));
        let value = event.value.load(Ordering::Relaxed) - u64::from(pending);
        Ok(EventState {
            value,
            status: DS_OK,
            time_ns: 0,
        })
    }
}

/// The device with an empty pool, for one test at a time.
fn alone() -> (Device, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    static HOST: OnceLock<Host> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let host = HOST.get_or_init(|| Host::with_search(Search::empty()));
    let device = host.accelerator("held").unwrap().device(0).unwrap();
    device.set_memory_cap(None);
    device.empty_cache().unwrap();
    device.reset_peak_memory_stats();
    (device, turn)
}

/// What `action` gives while another thread is in a call that is held, which then goes on.
fn meanwhile<T: Send + 'static>(hold: Hold, action: impl FnOnce() -> T + Send + 'static) -> T {
    hold.made.recv_timeout(LONG).expect("no such call");
    let (tells, told) = channel();
    let acting = thread::spawn(move || tells.send(action()).unwrap());
    let done = told.recv_timeout(LONG);
    drop(hold);
    acting.join().unwrap();
    done.expect("it waited for the call")
}

/// A free block on `stream`, by its address.
fn free_block(stream: &Stream) -> usize {
    Buffer::new(stream, LARGE).unwrap().address().addr()
}

#[test]
fn who_waits_for_the_device_keeps_nobody_from_a_block() {
    let (device, _turn) = alone();
    let [one, other] = [(); 2].map(|()| Stream::new(device).unwrap());
    let address = free_block(&one);
    device.set_memory_cap(Some(LARGE));
    let hold = hold(Call::Synchronize);
    let runs_out = thread::spawn(move || Buffer::new(&other, 2 * LARGE));
    // Such a thread may be the one that the device waits for.
    let buffer = meanwhile(hold, move || Buffer::new(&one, LARGE).unwrap());
    assert_eq!(buffer.address().addr(), address);
    let error = runs_out.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(
        error.to_string(),
        "allocate memory: 4194304 bytes on held:0: 6291456 bytes would exceed the cap of 2097152 \
         (2097152 bytes are in live buffers, 2097152 reserved)"
    );
}

#[test]
fn a_trim_leaves_what_was_used_while_it_waited() {
    let (device, _turn) = alone();
    let [one, other] = [(); 2].map(|()| Stream::new(device).unwrap());
    let [first, second] = {
        let buffers = [(); 2].map(|()| Buffer::new(&one, LARGE).unwrap());
        buffers.map(|buffer| buffer.address().addr())
    };
    let hold = hold(Call::Synchronize);
    let trims = thread::spawn(move || device.empty_cache());
    // Its work was queued when the device had begun to finish what it had.
    let used = meanwhile(hold, move || {
        let buffer = Buffer::new(&other, LARGE).unwrap();
        buffer.fill(&other, 1).unwrap();
        let address = buffer.address().addr();
        drop(buffer);
        (address, other)
    });
    trims.join().unwrap().unwrap();
    assert!([first, second].contains(&used.0));
    let stats = device.memory_stats();
    assert_eq!((stats.reserved_bytes, stats.allocated_bytes), (LARGE, 0));
    assert_eq!(free_block(&used.1), used.0);
}

#[test]
fn a_slow_allocation_keeps_nobody_from_a_block() {
    let (device, _turn) = alone();
    let [one, other] = [(); 2].map(|()| Stream::new(device).unwrap());
    let address = free_block(&one);
    let hold = hold(Call::Allocate);
    let grows = thread::spawn(move || Buffer::new(&other, 2 * LARGE));
    let buffer = meanwhile(hold, move || Buffer::new(&one, LARGE).unwrap());
    assert_eq!(buffer.address().addr(), address);
    grows.join().unwrap().unwrap();
    assert_eq!(device.memory_stats().peak_reserved_bytes, 3 * LARGE);
}

#[test]
fn a_block_of_a_stream_that_ends_comes_behind_its_work() {
    let (device, _turn) = alone();
    let [ends, next] = [(); 2].map(|()| Stream::new(device).unwrap());
    let buffer = Buffer::new(&ends, LARGE).unwrap();
    buffer.fill(&ends, 1).unwrap();
    let address = buffer.address().addr();
    drop(buffer);
    let before = device.memory_stats().cross_stream_hits;
    let hold = hold(Call::StreamSynchronize);
    let ending = thread::spawn(move || drop(ends));
    let buffer = meanwhile(hold, move || Buffer::new(&next, LARGE).unwrap());
    assert_eq!(buffer.address().addr(), address);
    assert_eq!(device.memory_stats().cross_stream_hits, before + 1);
    ending.join().unwrap();
}

#[test]
fn a_block_is_kept_for_a_stream_that_used_it_and_ends() {
    let (device, _turn) = alone();
    let [home, guest] = [(); 2].map(|()| Stream::new(device).unwrap());
    let buffer = Buffer::new(&home, LARGE).unwrap();
    buffer.fill(&guest, 1).unwrap();
    let address = buffer.address().addr();
    let hold = hold(Call::StreamSynchronize);
    let ending = thread::spawn(move || drop(guest));
    let (home, another) = meanwhile(hold, move || {
        drop(buffer);
        let another = free_block(&home);
        (home, another)
    });
    assert_ne!(another, address);
    ending.join().unwrap();
    let both = [(); 2].map(|()| Buffer::new(&home, LARGE).unwrap());
    assert!(both.iter().any(|b| b.address().addr() == address));
}
