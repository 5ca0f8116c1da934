//! Products beside a stream of reads or writes, and the stream beside products: what each costs the
//! other.

use std::{
    collections::VecDeque,
    env,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use ds_core::{DType, Device, Stream, Tensor};
use ds_io::{AioConfig, AioHandle, Extent, Operation, ReadOptions, WriteOptions};

use super::{
    Direction, MIB,
    disk::{self, Disk},
    turns::{self, Contender, Turns},
};
use crate::{
    Result, inputs,
    sample::{Spread, print},
};

/// The argument that makes this program the child with a pool of its own.
pub(crate) const CHILD: &str = "--io-beside";

const TURN: Duration = Duration::from_secs(2);
const N: i64 = 1024;
/// One operation of the stream, of which two are begun at any time.
const CHUNK_BYTES: u64 = 64 * MIB;
const AT_A_TIME: usize = 2;

/// With all threads, and with one: a process has one pool.
pub(crate) fn figure() -> Result<()> {
    let all = thread::available_parallelism()?.get();
    for threads in [all, 1] {
        let status = Command::new(env::current_exe()?)
            .arg(CHILD)
            .env("DS_CPU_THREADS", threads.to_string())
            .status()?;
        if !status.success() {
            return Err(format!("the process with {threads} threads ended with {status}").into());
        }
    }
    Ok(())
}

/// The child: prints the rows of its pool.
pub(crate) fn child() -> Result<()> {
    let device = ds_tests::cpu()?;
    let disk = Disk::new(device)?;
    let bench = Bench {
        tensor: disk::pinned(device, disk.bytes())?,
        a: inputs::numbers(device.default_stream()?, DType::F32, &[N, N])?,
        b: inputs::numbers(device.default_stream()?, DType::F32, &[N, N])?,
        device,
        disk,
    };
    let bench = &bench;
    let contenders = [
        ("alone", true, None),
        ("writes beside", true, Some(Direction::Write)),
        ("reads beside", true, Some(Direction::Read)),
        ("writes alone", false, Some(Direction::Write)),
        ("reads alone", false, Some(Direction::Read)),
    ]
    .map(|(name, computes, moves)| Contender::new(name, move || bench.turn(computes, moves)));
    let turns = turns::alternate(super::rounds()?, contenders.into())?;
    let [alone, beside_writes, beside_reads, writes, reads] = &turns[..] else {
        return Err("five contenders have other than five turns".into());
    };
    let threads = env::var("DS_CPU_THREADS").unwrap_or_default();
    let case = format!("matmul f32 {N}, threads: {threads}");
    let formula = format!("{} rounds of {} s", alone.rounds.len(), TURN.as_secs());
    let ms = |turns: &Turns<Beside>| Spread::of(turns.rounds.iter().map(|t| t.call_seconds * 1e3));
    print(&format!("{case}: alone"), ms(alone), "ms", "", &formula);
    for (name, beside, stream) in [
        ("writes", beside_writes, writes),
        ("reads", beside_reads, reads),
    ] {
        let what = format!("{case}: {name} 1 MiB x 32 beside it");
        print(&what, ms(beside), "ms", "", &formula);
        let slower = turns::of_both(beside, alone, |turn| turn.call_seconds);
        let formula_of = |of_medians| format!("round by round; of the medians {of_medians}");
        let told = formula_of(slower.of_medians);
        print(
            &format!("{what}, to alone"),
            slower.spread,
            "x",
            "<= 1.05",
            &told,
        );
        for (place, turns) in [("alone", stream), ("beside it", beside)] {
            let rate = Spread::of(turns.rounds.iter().map(|turn| turn.bytes_per_second / 1e9));
            let cpu = Spread::of(turns.rounds.iter().map(|turn| turn.cpu_share));
            let formula = format!("{formula}; {cpu} cores busy");
            print(
                &format!("{case}: {name} {place}"),
                rate,
                "GB/s",
                "",
                &formula,
            );
        }
        let slower = turns::of_both(beside, stream, |turn| turn.bytes_per_second);
        let told = formula_of(slower.of_medians);
        let what = format!("{case}: {name} beside it, to alone");
        print(&what, slower.spread, "x", "", &told);
    }
    Ok(())
}

struct Bench {
    device: Device,
    disk: Disk,
    tensor: Tensor,
    a: Tensor,
    b: Tensor,
}

/// What both sides of a turn came to.
#[derive(Clone, Copy)]
struct Beside {
    call_seconds: f64,
    bytes_per_second: f64,
    /// CPU seconds of both a second.
    cpu_share: f64,
}

impl Bench {
    fn turn(&self, computes: bool, moves: Option<Direction>) -> Result<Beside> {
        let stop = AtomicBool::new(false);
        let (mut call_seconds, mut rate) = (f64::NAN, f64::NAN);
        let mut work = || {
            thread::scope(|scope| {
                let moving = moves.map(|direction| {
                    let stop = &stop;
                    // What failed is told as text: an error of this program may not leave its thread.
                    scope.spawn(move || {
                        let moved = self.keep_moving(direction, stop);
                        moved.map_err(|e| e.to_string())
                    })
                });
                let computed = if computes {
                    self.compute()
                } else {
                    thread::sleep(TURN);
                    Ok(f64::NAN)
                };
                stop.store(true, Ordering::Relaxed);
                if let Some(moving) = moving {
                    rate = moving.join().map_err(|_| "the stream panicked")??;
                }
                call_seconds = computed?;
                Ok(())
            })
        };
        let cost = turns::Cost::of(&mut work)?;
        Ok(Beside {
            call_seconds,
            bytes_per_second: rate,
            cpu_share: cost.cpu_seconds / cost.seconds,
        })
    }

    /// Mean seconds of a product.
    fn compute(&self) -> Result<f64> {
        let stream = self.device.default_stream()?;
        let (start, mut calls) = (Instant::now(), 0.0);
        while start.elapsed() < TURN {
            ds_ops::matmul::matmul(stream, &self.a, &self.b)?;
            stream.synchronize()?;
            calls += 1.0;
        }
        Ok(start.elapsed().as_secs_f64() / calls)
    }

    /// Goes through the file again and again; gives bytes a second.
    fn keep_moving(&self, direction: Direction, stop: &AtomicBool) -> Result<f64> {
        let config = AioConfig {
            queue_depth: 32,
            ..AioConfig::default()
        };
        let handle = AioHandle::new(&config)?;
        // The products' own would have each operation wait for them.
        let stream = Stream::new(self.device)?;
        let begin = |at: u64| -> Result<Operation> {
            let extent = [Extent {
                file_offset: at,
                memory_offset: at,
                bytes: CHUNK_BYTES.min(self.disk.bytes() - at),
            }];
            let (tensor, file) = (&self.tensor, self.disk.file());
            Ok(match direction {
                Direction::Read => {
                    handle.read_extents(&stream, tensor, file, &extent, &ReadOptions::default())
                }
                Direction::Write => {
                    handle.write_extents(&stream, tensor, file, &extent, &WriteOptions::default())
                }
            }?)
        };
        let mut places = (0..self.disk.bytes())
            .step_by(usize::try_from(CHUNK_BYTES)?)
            .cycle();
        let mut begun = VecDeque::new();
        let (start, mut bytes) = (Instant::now(), 0_u64);
        while !stop.load(Ordering::Relaxed) {
            while begun.len() < AT_A_TIME
                && let Some(at) = places.next()
            {
                begun.push_back(begin(at)?);
            }
            if let Some(first) = begun.pop_front() {
                bytes += first.wait()?.bytes;
            }
        }
        for last in begun {
            bytes += last.wait()?.bytes;
        }
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    }
}
