//! Files for a person: what is allowed, what is measured, and last the block to paste.

use std::fmt::Write as _;

use ds_io::AioConfig;
use serde::Serialize;

use super::{
    Gets, Io,
    measure::{Measured, Recommended, Row, Speed},
    plan::TOLERANCE,
};
use crate::{
    sizes::size,
    view::{BAD, DOUBTFUL, GOOD, HEADING, Refusal},
};

/// Rounds that differ by more say that the disk was busy, or that its speed changes by itself.
const DOUBTFUL_SPREAD: f64 = 0.25;

pub(super) fn print(io: &Io) -> String {
    let mut text = String::new();
    engines(&mut text, io);
    let _ = writeln!(
        text,
        "\nmemory that may be locked: {}",
        io.locked_memory.words()
    );
    devices(&mut text, io);
    match &io.measured {
        None => text.push_str(
            "\n`ds_report io --measure FOLDER` tells what the disk of a folder gives, and which `aio` block \
             to take\n",
        ),
        Some(measured) => print_measured(&mut text, measured, &io.program_gets),
    }
    text
}

fn engines(text: &mut String, io: &Io) {
    let _ = writeln!(text, "{HEADING}engines, best first{HEADING:#}");
    for engine in &io.engines {
        let (name, what) = (engine.name, engine.what);
        match &engine.refusal {
            None => {
                let _ = writeln!(text, "  {name:<8}  {GOOD}allowed{GOOD:#}  {what}");
            }
            Some(refusal) => {
                let _ = writeln!(
                    text,
                    "  {name:<8}  {DOUBTFUL}refused{DOUBTFUL:#}  {}",
                    refusal.reason
                );
                refusal.hint_below(text, 21);
            }
        }
    }
    match &io.program_gets {
        Gets::Engine {
            engine, is_named, ..
        } => {
            let why = if *is_named {
                "DS_IO_ENGINE names it"
            } else {
                "the best that is allowed; DS_IO_ENGINE is not set"
            };
            let _ = writeln!(text, "a program gets {GOOD}{engine}{GOOD:#}: {why}");
        }
        Gets::Nothing(refusal) => {
            let _ = writeln!(text, "a program gets {BAD}none{BAD:#}: {}", refusal.reason);
            refusal.hint_below(text, 2);
        }
    }
}

fn devices(text: &mut String, io: &Io) {
    if let Some(why) = &io.no_device {
        let _ = writeln!(text, "\nno device: {}", why.reason);
        why.hint_below(text, 2);
    }
    for device in &io.devices {
        let _ = writeln!(text, "\n{HEADING}{}{HEADING:#}", device.device);
        if let Some(refusal) = &device.refusal {
            let _ = writeln!(text, "  {BAD}not opened{BAD:#}  {}", refusal.reason);
            refusal.hint_below(text, 14);
            continue;
        }
        let how = if device.host_visible {
            "moves its tensors without a copy where the disk allows it"
        } else {
            "moves its tensors by way of host memory"
        };
        let _ = writeln!(text, "  async_io    {how}");
        match &device.pinned_refusal {
            None => {
                let _ = writeln!(text, "  pin_memory  a page was locked");
            }
            Some(refusal) => {
                let _ = writeln!(
                    text,
                    "  pin_memory  {DOUBTFUL}no{DOUBTFUL:#}: {}",
                    refusal.reason
                );
                refusal.hint_below(text, 14);
            }
        }
        if let Some(missing) = device.gds_missing {
            let _ = writeln!(text, "  gds         missing: {missing}");
        }
    }
}

fn print_measured(text: &mut String, measured: &Measured, gets: &Gets) {
    let filesystem = (measured.filesystem.as_ref()).map(|known| format!(" ({known})"));
    let _ = writeln!(
        text,
        "\n{HEADING}measured{HEADING:#}  {}{}: a file of {}, {} written and read in each of {} rounds, \
         {:.1} s in all",
        measured.folder,
        filesystem.unwrap_or_default(),
        size(measured.file_bytes),
        size(measured.sample_bytes),
        measured.rounds,
        measured.seconds,
    );
    let device = &measured.device;
    let _ = match &measured.pageable {
        None => writeln!(text, "          from and to locked memory of {device}"),
        Some(why) => writeln!(
            text,
            "          from and to pageable memory of {device}; to lock it was refused:\n          {why}"
        ),
    };
    if let Some(why) = &measured.not_a_disk {
        let _ = writeln!(
            text,
            "          {DOUBTFUL}this is no disk's speed{DOUBTFUL:#}: {why}"
        );
    }
    let _ = writeln!(
        text,
        "  {HEADING}{:<8}  {:>9}  {:>5}  {:>9}  {:>9}  {:>10}  spread{HEADING:#}",
        "engine", "block", "depth", "in flight", "read GB/s", "write GB/s"
    );
    let best = measured.recommended.setting;
    for (at, row) in measured.settings.iter().enumerate() {
        print_row(text, row, at == best);
    }
    let settings = measured.settings.iter();
    let most = settings.filter_map(Row::spread).fold(0.0, f64::max);
    text.push_str(
        "GB/s: of 1e9 bytes, the middle of the rounds; spread: between their least and most\n",
    );
    if most > DOUBTFUL_SPREAD {
        let _ = writeln!(
            text,
            "{DOUBTFUL}rounds differ by up to {:.0} %{DOUBTFUL:#}: the disk is busy or changes its speed, \
             and what is recommended may be chance;\n  repeat it on a quiet machine, or with --seconds 60",
            100.0 * most
        );
    }
    recommended(text, &measured.recommended, gets);
}

fn print_row(text: &mut String, row: &Row, is_best: bool) {
    let _ = write!(
        text,
        "  {:<8}  {:>9}  {:>5}  {:>9}  ",
        row.engine,
        whole(row.block_size),
        row.queue_depth,
        whole(row.in_flight_bytes),
    );
    let (Some(read), Some(write), Some(spread)) = (row.read, row.write, row.spread()) else {
        let why = row.refusal.as_ref().map(Refusal::line).unwrap_or_default();
        let _ = writeln!(text, "{DOUBTFUL}not measured{DOUBTFUL:#}: {why}");
        return;
    };
    let mark = if is_best {
        format!("  {GOOD}recommended{GOOD:#}")
    } else {
        String::new()
    };
    let spread = format!("{:.0} %", 100.0 * spread);
    let _ = writeln!(
        text,
        "{:>9.2}  {:>10.2}  {spread:>6}{mark}",
        read.median_gb_per_s, write.median_gb_per_s
    );
}

fn recommended(text: &mut String, recommended: &Recommended, gets: &Gets) {
    let _ = writeln!(
        text,
        "recommended: of the engine that a program gets, unless another one is faster in every round,\n  \
         the least in flight within {:.0} % of its fastest, reading and writing summed as in ds_nvme_tune",
        100.0 * TOLERANCE
    );
    if let Some(of_default) = recommended.of_default {
        let _ = writeln!(
            text,
            "  {of_default:.2} times DeepSpeed's defaults (blocks of 1 MiB, depth 8)"
        );
    }
    if let (Some(variable), Gets::Engine { engine, .. }) = (&recommended.variable, gets) {
        let _ = writeln!(
            text,
            "  set {GOOD}{variable}{GOOD:#} in the environment, too: a program gets {engine}, which is \
             slower here"
        );
    }
    let block = Pasted {
        aio: &recommended.aio,
    };
    // JSON from a line that begins with a brace to the end: `| sed -n '/^{/,$p'` has it alone.
    let block = serde_json::to_string_pretty(&block).unwrap_or_default();
    let _ = writeln!(text, "\nfor ds_config.json:\n{block}");
}

/// As it stands in `ds_config.json`.
#[derive(Serialize)]
struct Pasted<'a> {
    aio: &'a AioConfig,
}

impl Row {
    /// The larger one of reading and writing.
    fn spread(&self) -> Option<f64> {
        Some(self.read?.spread().max(self.write.map(Speed::spread)?))
    }
}

/// A size that is a whole number of its unit.
fn whole(bytes: u64) -> String {
    size(bytes).replace(".0 ", " ")
}
