//! Every op of the catalogue and every dtype, beyond the caches and within them: its time, its share
//! of the roofline, and how it stands to `PyTorch`'s best form.
//!
//! The roofline of a call is the longer one of two times: its bytes at the bandwidth of a plain loop
//! that reads and writes in about the same shares, and its operations at the peak of the processor,
//! which is that of pairs of bf16 where a call has some. Both are measured in turns with it.
//!
//! Beyond the caches, a side goes through copies of its tensors in turn, together more than the last
//! cache keeps: there are processors of which it holds hundreds of megabytes. The loops go through
//! memory of their own, as far beyond it, whatever the call, and are counted by the byte.

use std::collections::HashMap;

use ds_core::{
    DType,
    op::{self, Case, HostCall, Op, Placed, RunsOn, Size, Traffic},
};
use ds_schema::{Attr, Multiplicity, Role};
use serde_json::{Value, json};

use crate::{
    Result, machine,
    peer::Peer,
    sample::{Side, Spread, alternate, mean_seconds, paired},
};

/// What the name of each of these figures begins with.
pub(crate) const PREFIX: &str = "op/";

/// How long a turn is at least.
const TURN_SECONDS: f64 = 0.02;
/// Most calls in a turn.
const MOST_CALLS: f64 = 2000.0;
/// Most copies of a call's tensors.
const MOST_COPIES: u64 = 16;

/// Every op with cases to measure.
pub(crate) fn measurable() -> impl Iterator<Item = &'static Op> {
    let has = |op: &Op| !op.cases(Size::Large).is_empty();
    op::ops().into_iter().filter(move |op| has(op))
}

/// The head of the table of [`rows`].
pub(crate) fn print_head() {
    println!(
        "\n| op | case | kernel | us | MB | Mop | GB/s | % of the roofline | to PyTorch |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
}

/// The probe's loops, each in a process that goes through the same memory again and again.
#[derive(Default)]
pub(crate) struct Loops(HashMap<&'static str, Peer>);

impl Loops {
    /// Bytes that a run of a loop moves. The one that has half as many goes beyond the last cache, too.
    fn bytes() -> u64 {
        3 * machine::last_cache_bytes()
    }

    /// A turn of each of these.
    fn sides(&mut self, names: &[&'static str]) -> Result<Vec<Side<'_>>> {
        for name in names {
            if !self.0.contains_key(name) {
                let peer = Peer::probe(&format!("{name} {}", floats(name, Self::bytes())))?;
                self.0.insert(name, peer);
            }
        }
        let loops = self.0.iter_mut().filter(|(name, _)| names.contains(name));
        Ok(loops.map(|(_, peer)| peer.side(1)).collect())
    }
}

/// A row for each case of `op`.
pub(crate) fn rows(op: &Op, loops: &mut Loops) -> Result<()> {
    let mut torch = Peer::python_idle()?;
    for size in [Size::Large, Size::Cached] {
        for case in op.cases(size) {
            row(op, &case, size, loops, torch.as_mut())?;
        }
    }
    Ok(())
}

fn row(
    op: &Op,
    case: &Case,
    size: Size,
    loops: &mut Loops,
    torch: Option<&mut Peer>,
) -> Result<()> {
    let stream = ds_tests::cpu()?.default_stream()?;
    let beyond = size == Size::Large;
    let host = case.call()?;
    let mut placed = vec![Placed::new(stream, case, &host)?];
    let on = match placed[0].resolve(stream)? {
        RunsOn::Kernel(name) => name.to_owned(),
        RunsOn::Reference(why) => {
            println!(
                "| {} | {} | none: {why} | | | | | | |",
                op.name(),
                case.name()
            );
            return Ok(());
        }
        RunsOn::Nothing => return Ok(()),
    };
    let traffic = placed[0].traffic();
    let updates = op
        .schema()
        .arguments()
        .iter()
        .any(|a| a.role == Role::InOut);
    let operations = case.operation_count();
    let copies = if beyond { copies(traffic.bytes()) } else { 1 };
    for _ in 1..copies {
        placed.push(Placed::new(stream, case, &host)?);
    }
    let mut turns = placed.iter().cycle();
    let mut launch = || match turns.next() {
        Some(placed) => Ok(placed.launch(stream)?),
        None => Ok(()),
    };
    let calls = calls(mean_seconds(copies, &mut launch)?).next_multiple_of(copies);
    let mut ours = || mean_seconds(calls, &mut launch);

    // Within the caches there is no one limit: what matters there is what surrounds the kernel.
    let bounds: &[_] = if beyond {
        loops_like(traffic, updates)
    } else {
        &[]
    };
    let bf16 = host.args.iter().flatten().any(|t| t.dtype == DType::BF16);
    let peak_of = if bf16 { "pairs 0" } else { "fma 0" };
    let mut arithmetic = beyond.then(|| Peer::probe(peak_of)).transpose()?;
    let torch = torch.and_then(|torch| match torch.ask(&setup(op, &host, copies)) {
        Ok(_) => Some(torch),
        Err(e) if e.to_string().contains("no peer") => None,
        Err(e) => {
            eprintln!("{} {}: {e}", op.name(), case.name());
            None
        }
    });

    let mut sides: Vec<Side<'_>> = vec![Box::new(&mut ours)];
    sides.extend(loops.sides(bounds)?);
    sides.extend(arithmetic.iter_mut().map(|probe| probe.side(1)));
    let has_torch = torch.is_some();
    sides.extend(torch.map(|torch| torch.side(calls)));
    let seconds = alternate(&mut sides)?;

    let share = beyond.then(|| {
        let bound: Vec<f64> = (0..seconds[0].len())
            .map(|round| {
                let times = seconds[1..=bounds.len()].iter().map(|times| times[round]);
                let least = times.fold(f64::INFINITY, f64::min);
                let memory = least * traffic.bytes() as f64 / Loops::bytes() as f64;
                memory.max(operations / peak(seconds[bounds.len() + 1][round]))
            })
            .collect();
        paired(&bound, &seconds[0], |bound, own| 100.0 * bound / own).to_string()
    });
    let ratio = has_torch
        .then(|| seconds.last())
        .flatten()
        .map(|theirs| paired(&seconds[0], theirs, |own, theirs| theirs / own).to_string());
    let own = &seconds[0];
    let bytes = traffic.bytes() as f64;
    println!(
        "| {} | {} | {on} | {} | {:.2} | {:.2} | {} | {} | {} |",
        op.name(),
        case.name(),
        Spread::of(own.iter().map(|s| s * 1e6)).middle(),
        bytes / 1e6,
        operations / 1e6,
        Spread::of(own.iter().map(|s| bytes / s / 1e9)).middle(),
        share.unwrap_or_default(),
        ratio.unwrap_or_default(),
    );
    Ok(())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and 2000"
)]
fn calls(seconds: f64) -> u32 {
    (TURN_SECONDS / seconds).ceil().clamp(1.0, MOST_CALLS) as u32
}

/// So many copies of a call's tensors are twice what the last cache holds; at most those that fit in
/// memory with room for the other sides.
#[allow(clippy::cast_possible_truncation, reason = "between 1 and 16")]
fn copies(bytes: u64) -> u32 {
    (2 * machine::last_cache_bytes())
        .div_ceil(bytes.max(1))
        .clamp(1, MOST_COPIES) as u32
}

/// The probe's loops that read and write in about the same shares; the one that writes where it read is
/// faster than any that writes elsewhere, and stands beside ops that do the same.
fn loops_like(traffic: Traffic, updates: bool) -> &'static [&'static str] {
    let written = traffic.written_bytes as f64 / traffic.bytes().max(1) as f64;
    match written {
        share if share < 0.15 => &["read"],
        share if share < 0.42 => &["triad", "triad_nt"],
        share if share < 0.6 && updates => &["copy", "copy_nt", "update"],
        share if share < 0.6 => &["copy", "copy_nt"],
        _ => &["fill", "fill_nt"],
    }
}

/// Elements of the loop's arrays of f32 with which it moves as many bytes.
fn floats(name: &str, bytes: u64) -> u64 {
    let arrays = match name {
        "read" | "fill" | "fill_nt" => 1,
        "triad" | "triad_nt" => 3,
        _ => 2,
    };
    bytes / (4 * arrays)
}

/// Operations each second, as the probe counts them: 2 an FMA, 16 lanes, 12 sums, 2^20 steps, every
/// thread.
fn peak(seconds: f64) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    2.0 * 16.0 * 12.0 * f64::from(1 << 20) * threads as f64 / seconds
}

/// What the Python side makes the same call of, and how many copies of it.
fn setup(op: &Op, call: &HostCall, copies: u32) -> String {
    let mut tensors = serde_json::Map::new();
    for (argument, arg) in op.schema().arguments().iter().zip(&call.args) {
        let multiplicity = match argument.multiplicity {
            Multiplicity::List => "list",
            _ => "one",
        };
        let like: Vec<Value> = arg
            .iter()
            .map(|host| {
                let read = !argument.is_written();
                let integers = host.to_i64().ok().filter(|_| read).unwrap_or_default();
                let (least, greatest) = (integers.iter().min(), integers.iter().max());
                json!([
                    host.dtype.name(),
                    host.shape,
                    least.unwrap_or(&0),
                    greatest.unwrap_or(&0)
                ])
            })
            .collect();
        tensors.insert(argument.name.clone(), json!([multiplicity, like]));
    }
    let mut values = serde_json::Map::new();
    let named = |scalars: &[ds_schema::Scalar]| -> Vec<String> {
        scalars.iter().map(|s| s.name.clone()).collect()
    };
    let attributes = named(op.schema().attributes())
        .into_iter()
        .zip(&call.attributes);
    let scalars = named(op.schema().scalars()).into_iter().zip(&call.scalars);
    for (name, value) in attributes.chain(scalars) {
        let value = match *value {
            Attr::Bool(value) => json!(value),
            Attr::I64(value) => json!(value),
            Attr::F64(value) => json!(value),
        };
        values.insert(name, value);
    }
    let call = json!({"op": op.name(), "tensors": tensors, "values": values, "copies": copies});
    format!("setup op {call}")
}
