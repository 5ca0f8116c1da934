//! The verification for a person.

use std::fmt::Write as _;

use anstyle::Style;

use super::{
    Device, Failure, On, OpResult, Run, Stage, Verdict, Verification,
    bench::{Bench, COPY_BYTES, ROUND_SECONDS, ROUNDS},
};
use crate::view::{BAD, DOUBTFUL, GOOD, HEADING};

/// Different failures of an op on one kernel that are shown; JSON has all of them.
const SHOWN: usize = 3;
/// Where what belongs to a line above begins: behind the verdict.
const INDENT: usize = 14;

pub(super) fn print(verification: &Verification) -> String {
    let mut text = String::new();
    let ops = || verification.devices.iter().flat_map(|device| &device.ops);
    let runs = || ops().flat_map(|op| &op.runs);
    let op_width = ops().map(|op| op.op.len()).max().unwrap_or(0).max(2);
    let broken = ops().flat_map(|op| &op.broken).map(|b| b.kernel.len());
    let on_width = runs()
        .map(|run| run.on.words().len())
        .chain(broken)
        .max()
        .unwrap_or(0)
        .max(7);
    for device in &verification.devices {
        let name = &device.name;
        if let Some(refusal) = &device.refusal {
            let _ = writeln!(
                text,
                "{HEADING}{name}{HEADING:#}  {BAD}no{BAD:#}: {}",
                refusal.reason
            );
            refusal.hint_below(&mut text, 2);
        }
        if device.ops.is_empty() && device.refusal.is_some() {
            continue;
        }
        let _ = writeln!(
            text,
            "{HEADING}{name}{HEADING:#}  {}, {}",
            device.model, device.target
        );
        let _ = writeln!(
            text,
            "  {HEADING}{:<INDENT$}{:<op_width$}  {:<on_width$}  {:>9}  error{HEADING:#}",
            "verdict", "op", "runs on", "cases"
        );
        for op in &device.ops {
            print_op(&mut text, op, op_width, on_width);
        }
        if let Some(bench) = &device.bench {
            print_bench(&mut text, bench, op_width);
        }
        text.push('\n');
    }
    legend(&mut text, &verification.devices);
    text
}

fn print_op(text: &mut String, op: &OpResult, op_width: usize, on_width: usize) {
    let mut name = op.op.as_str();
    if let Some(reason) = &op.reason {
        let word = mark(DOUBTFUL, "unverified");
        let _ = writeln!(text, "  {word}{name:<op_width$}  {reason}");
    }
    // Kernels that are built together fail together: that is told once.
    let mut told = None;
    for broken in &op.broken {
        let word = mark(BAD, "BROKEN");
        let (kernel, cases) = (&broken.kernel, format!("0 of {}", broken.cases));
        let _ = writeln!(
            text,
            "  {word}{name:<op_width$}  {kernel:<on_width$}  {cases:>9}      -"
        );
        name = "";
        let indent = 2 + INDENT;
        let reason = broken.refusal.reason.as_str();
        if told.is_some_and(|told| reason.starts_with(told)) {
            continue;
        }
        told = Some(reason);
        let what = match broken.stage {
            Stage::Build => "does not build",
            Stage::Load => "is built and does not load",
            Stage::Prepare => "cannot be prepared",
        };
        let _ = writeln!(text, "{:indent$}{what}: {reason}", "");
        broken.refusal.hint_below(text, indent);
    }
    // That nothing runs where nothing is to be written needs no line.
    let told = |run: &&Run| !matches!(run.on, On::Nothing) || run.passed < run.cases;
    for run in op.runs.iter().filter(told) {
        let word = match (run.verdict, &run.on) {
            (Verdict::Crashed, _) => mark(BAD, "CRASHED"),
            (Verdict::NoAnswer, _) => mark(BAD, "NO ANSWER"),
            (Verdict::Wrong, _) => mark(BAD, "WRONG"),
            // What the reference gives is what it is held against: that tells of the transfers only.
            (_, On::Reference { .. }) => mark(DOUBTFUL, "no kernel"),
            _ => mark(GOOD, "ok"),
        };
        let on = format!("{:<on_width$}", run.on.words());
        let cases = format!("{} of {}", run.passed, run.cases);
        let error = match run.error {
            Some(0.0) => "    0".to_owned(),
            Some(error) if error < 1000.0 => format!("{error:5.2}"),
            Some(error) => format!("{error:5.0e}"),
            None => "    -".to_owned(),
        };
        let _ = writeln!(text, "  {word}{name:<op_width$}  {on}  {cases:>9}  {error}");
        let indent = 2 + INDENT;
        // Why a broken kernel did not run is told above.
        if let On::Reference { reason } = &run.on
            && op.broken.is_empty()
        {
            let _ = writeln!(text, "{:indent$}{reason}", "");
        }
        print_failures(text, &run.failures, indent);
        name = "";
    }
}

/// Each different failure with the first case that it befell.
fn print_failures(text: &mut String, failures: &[Failure], indent: usize) {
    let mut different: Vec<(&Failure, usize)> = Vec::new();
    for failure in failures {
        match different.iter_mut().find(|(f, _)| f.text == failure.text) {
            Some((_, count)) => *count += 1,
            None => different.push((failure, 1)),
        }
    }
    for (failure, count) in different.iter().take(SHOWN) {
        let more = match count - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(
            text,
            "{:indent$}{}{more}: {}",
            "", failure.case, failure.text
        );
    }
    if different.len() > SHOWN {
        let rest: usize = different[SHOWN..].iter().map(|(_, count)| count).sum();
        let _ = writeln!(text, "{:indent$}and {rest} more, told by --json", "");
    }
}

fn print_bench(text: &mut String, bench: &Bench, op_width: usize) {
    let case_width = bench
        .speeds
        .iter()
        .map(|s| s.case.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let _ = writeln!(
        text,
        "  {HEADING}{:<op_width$}  {:<case_width$}  {:>9}  {:>7}  of copy{HEADING:#}",
        "speed", "call", "us", "GB/s"
    );
    for speed in &bench.speeds {
        let _ = write!(
            text,
            "  {:<op_width$}  {:<case_width$}  ",
            speed.op, speed.case
        );
        let _ = match (&speed.figures, &speed.reason) {
            (Some(figures), _) => {
                let of_copy = figures
                    .of_copy
                    .map_or("-".to_owned(), |ratio| format!("{:.0} %", 100.0 * ratio));
                writeln!(
                    text,
                    "{:>9.1}  {:>7.1}  {of_copy:>7}",
                    figures.us, figures.gb_per_s
                )
            }
            (None, reason) => writeln!(
                text,
                "{DOUBTFUL}not measured{DOUBTFUL:#}: {}",
                reason.as_deref().unwrap_or_default()
            ),
        };
    }
    let call = format!("{} MiB to another place", COPY_BYTES >> 20);
    let _ = match (&bench.copy_gb_per_s, &bench.copy_reason) {
        (Some(copy), _) => writeln!(
            text,
            "  {:<op_width$}  {call:<case_width$}  {:>9}  {copy:>7.1}",
            "copy", ""
        ),
        (None, Some(why)) => writeln!(text, "  copy not measured: {why}"),
        (None, None) => Ok(()),
    };
}

/// What the columns mean.
fn legend(text: &mut String, devices: &[Device]) {
    if devices.iter().any(|device| !device.ops.is_empty()) {
        text.push_str(
            "error: the largest of an element, |got - want| / (atol + rtol |want|) with the schema's \
             tolerance;\n       1 is the limit, want is the f64 reference\n",
        );
    }
    if devices.iter().any(|device| device.bench.is_some()) {
        let _ = writeln!(
            text,
            "us: a launch, the median of {ROUNDS} rounds, each of so many launches that it takes \
             {:.0} ms\nGB/s: bytes of all inputs and all outputs, what is updated counted twice / us; \
             of the copy, 2 x {} MiB\nof copy: GB/s to that of the device's own copy, the median of \
             rounds in which both take turns",
            ROUND_SECONDS * 1e3,
            COPY_BYTES >> 20
        );
    }
}

impl On {
    fn words(&self) -> &str {
        match self {
            Self::Kernel { kernel } => kernel,
            Self::Reference { .. } => "host reference",
            Self::Nothing => "nothing to do",
            Self::Unknown => "did not run",
        }
    }
}

/// A verdict in its colour, padded outside of it because colour has no width.
fn mark(style: Style, word: &str) -> String {
    format!("{style}{word}{style:#}{}", " ".repeat(INDENT - word.len()))
}
