//! The program that meets the fault: something of everything that a program does with a device, in
//! steps that are done once more when they fail.
#![allow(
    clippy::panic_in_result_fn,
    reason = "a fault is an error, a wrong number is a failed test"
)]
#![allow(clippy::print_stdout, reason = "the test that started this reads it")]

use std::{
    cell::Cell,
    process,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use ds_core::{
    Accelerator, Buffer, DType, Device, Error, ErrorKind, MemoryKind, Point, Result, Stream,
    Tensor, Timeline, jit, op,
};
use ds_ops::{cast::cast, matmul::matmul, rms_norm::rms_norm};
use ds_schema::Attr;
use ds_tests::{cases::tensor, compare::values, example, sim::FOLDER_VARIABLE};

use super::{LATE, STATUSES};

/// Begins the line of an error that surfaced, and that of a line of the host's log.
pub(super) const TOLD: &str = "told: ";
pub(super) const LOGGED: &str = "logged: ";

/// Kernels that stay prepared until the process ends: two signatures of three ops.
pub(super) const PREPARED: u32 = 6;

/// A process that takes longer hangs; it takes some hundredths of this when it does not.
const BOUND: Duration = Duration::from_secs(20);

/// After this, what is not over waits for somebody.
const LONG: Duration = Duration::from_millis(100);

const BUILD_FAILED: i32 = 11;

const MIB: u64 = 1 << 20;

/// What was opened, once it all was.
static OPENED: OnceLock<Opened> = OnceLock::new();

struct Opened {
    sim: Accelerator,
    one: Device,
    two: Device,
    /// The first device again, for another host.
    again: Device,
}

type Step = fn() -> Result<()>;

/// The first calls of most slots are those whose failure a program sees; later ones are the host's.
const STEPS: [(&str, Step); 9] = [
    ("open", open),
    ("toolchains", toolchains),
    ("points", points),
    ("ops", ops),
    ("between devices", between_devices),
    ("buffers", buffers),
    ("memory between streams", handed_on),
    ("memory of each kind", kinds),
    ("give back", give_back),
];

/// Runs the steps with the fault that the process has.
pub(super) fn run(fault: &str) {
    let (done, waits) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if waits.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
            process::abort();
        }
    });
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let parts: Vec<&str> = fault.split(':').collect();
    let (slot, status) = (parts[0], parts[2].parse().unwrap());
    let mut told = 0;
    for (name, step) in STEPS {
        while let Err(error) = step() {
            println!("{TOLD}{name}: {error}");
            belongs(&error, slot, status);
            told += 1;
            if (slot, status) == ("compile", BUILD_FAILED) {
                // The compiler's own no is remembered, so that nobody waits for it again.
                break;
            }
            assert!(told < 2, "{name} fails although the fault is over");
        }
    }
    for device in [opened().one, opened().two, opened().again] {
        let stats = device.memory_stats();
        assert_eq!(stats.allocations, 0, "live buffers on {device}");
        if lost_blocks(slot) == 0 {
            assert_eq!(stats.reserved_bytes, 0, "memory kept of {device}");
        }
    }
    drop(done);
    watch.join().unwrap();
}

/// Tells what no caller can be told: of what fails when something is dropped, or on another thread.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{LOGGED}{}", record.args());
    }

    fn flush(&self) {}
}

/// Blocks that the plugin did not take back when it was asked to.
pub(super) fn lost_blocks(slot: &str) -> u32 {
    u32::from(slot == "free")
}

/// An error has the kind of its status, and names the call.
fn belongs(error: &Error, slot: &str, status: i32) {
    let text = error.to_string();
    let kind = STATUSES.iter().find(|(number, _)| *number == status);
    let kind = kind.unwrap().1;
    // A point carries the status of the work before it, and no words.
    let named = text.contains(slot)
        || LATE.contains(&slot) && text.contains(&format!("failed with status {status}"));
    // Neither work nor a wait for it may end as if it were pending: that is the plugin's fault.
    let is_end = LATE.contains(&slot) || slot.ends_with("_synchronize");
    let (kind, named) = match kind {
        ErrorKind::NotReady if is_end => (
            ErrorKind::PluginBug,
            named || text.contains("what is pending"),
        ),
        kind => (kind, named),
    };
    // An op whose only kernel failed says so of the kernel, in its words.
    let right = error.kind() == kind || error.kind() == ErrorKind::NoKernel;
    // Who waits for a point of another plugin, which could not be handed on, learns only that.
    let (named, right) = match slot {
        "event_signal" | "event_synchronize" if text.contains("the host failed the timeline") => {
            (true, right || error.kind() == ErrorKind::Cancelled)
        }
        _ => (named, right),
    };
    assert!(named && right, "{:?}: {text}", error.kind());
}

fn opened() -> &'static Opened {
    OPENED.get().unwrap()
}

fn open() -> Result<()> {
    let folder = std::env::var_os(FOLDER_VARIABLE).unwrap();
    let host = || example::host(folder.as_ref()).accelerator("sim");
    let (sim, other, _third) = (host()?, host()?, host()?);
    assert_eq!(sim.device_count()?, 2);
    assert_eq!(sim.device_info(1)?.uuid, "SIM-1");
    let opened = Opened {
        sim,
        one: sim.device(0)?,
        two: sim.device(1)?,
        again: other.device(0)?,
    };
    assert!(OPENED.set(opened).is_ok());
    Ok(())
}

/// `z = 2 x + y` by the plugin's own op, which has no reference to fall back to.
fn axpby(stream: &Stream, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let z = Tensor::empty(stream, DType::F32, x.shape())?;
    let scalars = [Attr::F64(2.0), Attr::F64(1.0)];
    op::launch(
        op::find("axpby")?,
        stream,
        &[&[x], &[y], &[&z]],
        &[],
        &scalars,
    )?;
    Ok(z)
}

fn kinds() -> Result<()> {
    let device = opened().one;
    let stream = Stream::new(device)?;
    for _ in 0..3 {
        assert_eq!(device.memory_info()?.total_bytes, 1 << 30);
        let own = Buffer::of_kind(device, 100, MemoryKind::Device)?;
        own.fill(&stream, 7)?;
        let mut bytes = [0; 100];
        own.read(&stream, 0, &mut bytes)?;
        assert_eq!(bytes, [7; 100]);
    }
    for kind in [MemoryKind::Pinned, MemoryKind::Shared] {
        match Buffer::of_kind(device, 100, kind) {
            Ok(_) => panic!("sim has no memory that is {kind:?}"),
            Err(e) if e.to_string().contains("sim has no") => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn buffers() -> Result<()> {
    let stream = Stream::new(opened().one)?;
    for bytes in [100, 1000, 2 * MIB] {
        let a = Buffer::new(&stream, bytes)?;
        let b = Buffer::new(&stream, bytes)?;
        a.fill(&stream, 3)?;
        a.write(&stream, 10, &[1, 2])?;
        b.copy_from(&stream, 0, &a, 0, bytes)?;
        let mut read = vec![0; usize::try_from(bytes).unwrap()];
        b.read(&stream, 0, &mut read)?;
        assert_eq!(read[..13], [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 2, 3]);
        assert_eq!(read[13..], read[12..read.len() - 1], "all the same");
    }
    opened().one.empty_cache()
}

/// A point that the host signals, signalled at the latest when it goes: work that waits for it must
/// end.
struct Gate {
    point: Point,
    opened: Cell<bool>,
}

impl Gate {
    fn new(device: Device) -> Result<Self> {
        Ok(Self {
            point: Timeline::new(device)?.next(),
            opened: Cell::new(false),
        })
    }

    fn open(&self) -> Result<()> {
        self.point.timeline().signal(self.point.value())?;
        self.opened.set(true);
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        while !self.opened.get() && self.open().is_err() {}
    }
}

/// Has `action` done while `point` is not reached, and raises it then; earlier only when the action
/// turns out to wait for it, as one does that finds no memory.
fn held<T>(point: &Point, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let (over, told) = mpsc::channel();
    thread::scope(|scope| {
        let opener = scope.spawn(move || {
            let _ = told.recv_timeout(LONG);
            let signal = || point.timeline().signal(point.value());
            // Once more, or the stream waits for ever.
            signal().inspect_err(|_| signal().unwrap())
        });
        let done = action();
        // The other side is gone when it has waited for too long.
        let _ = over.send(());
        opener.join().unwrap().and(done)
    })
}

/// A block goes from a stream that still works on it to another one, and one that several streams
/// use goes back when all are done.
fn handed_on() -> Result<()> {
    let device = opened().one;
    let (first, second) = (Stream::new(device)?, Stream::new(device)?);
    for bytes in [100, 1000, 2 * MIB] {
        let gate = Timeline::new(device)?.next();
        let (twos, after) = held(&gate, || {
            first.wait(&gate)?;
            let ones = Buffer::new(&first, bytes)?;
            ones.fill(&first, 1)?;
            drop(ones);
            let twos = Buffer::new(&second, bytes)?;
            twos.fill(&second, 2)?;
            Ok((twos, second.record()?))
        })?;
        after.wait(None)?;
        let mut read = vec![0; usize::try_from(bytes).unwrap()];
        first.wait(&after)?;
        twos.read(&first, 0, &mut read)?;
        assert_eq!(read[0], 2, "the first stream's work came late");
        assert_eq!(read[1..], read[..read.len() - 1], "all the same");
    }
    first.synchronize()?;
    second.synchronize()?;
    for stream in [first, second] {
        while !stream.is_idle()? {}
    }
    Ok(())
}

fn points() -> Result<()> {
    let device = opened().one;
    let stream = Stream::new(device)?;
    for _ in 0..3 {
        let gate = Gate::new(device)?;
        let start = stream.record_timed()?;
        stream.wait(&gate.point)?;
        let end = stream.record_timed()?;
        let after = stream.record()?;
        assert!(!end.is_reached()?);
        gate.open()?;
        after.wait(None)?;
        assert!(after.is_reached()?);
        end.elapsed_since(&start)?;
        device.synchronize()?;
    }
    Ok(())
}

fn between_devices() -> Result<()> {
    let (here, there) = (Stream::new(opened().one)?, Stream::new(opened().two)?);
    let of_again = Stream::new(opened().again)?;
    for _ in 0..3 {
        let a = tensor(&here, DType::F32, &[4], &[5.0; 4])?;
        let b = Tensor::empty(&there, DType::F32, &[4])?;
        there.wait(&here.record()?)?;
        b.buffer().copy_from(&there, 0, a.buffer(), 0, 16)?;
        drop(a);
        assert_eq!(values(&there, &b)?, [5.0; 4]);
        of_again.wait(&there.record()?)?;
        of_again.synchronize()?;
    }
    Ok(())
}

fn ops() -> Result<()> {
    let stream = Stream::new(opened().one)?;
    for extent in [2_u8, 3] {
        let n = usize::from(extent);
        let twos = vec![2.0; n];
        let x = tensor(&stream, DType::F32, &[extent.into()], &twos)?;
        let y = tensor(&stream, DType::F32, &[extent.into()], &vec![1.0; n])?;
        assert_eq!(values(&stream, &axpby(&stream, &x, &y)?)?, vec![5.0; n]);
        let half = cast(&stream, &x, DType::BF16)?;
        assert_eq!(values(&stream, &half)?, twos);
        let (normed, _) = rms_norm(&stream, &x, &y, 0.0)?;
        assert_eq!(values(&stream, &normed)?, vec![1.0; n]);
        let square = tensor(
            &stream,
            DType::F32,
            &[extent.into(), extent.into()],
            &vec![2.0; n * n],
        )?;
        let product = matmul(&stream, &square, &square)?;
        assert_eq!(
            values(&stream, &product)?,
            vec![4.0 * f64::from(extent); n * n]
        );
    }
    Ok(())
}

fn toolchains() -> Result<()> {
    let plugin = opened().sim.plugin();
    for _ in 0..3 {
        assert_eq!(jit::toolchains(plugin)?.len(), 1);
    }
    Ok(())
}

fn give_back() -> Result<()> {
    let Opened {
        one, two, again, ..
    } = opened();
    for device in [one, two, again] {
        device.empty_cache()?;
    }
    Ok(())
}
