//! `ds_report verify`: builds and runs every op on each device, and holds what it gives against the
//! reference implementation; with `--bench` it measures too.
//!
//! What runs kernels is a worker (`worker.rs`): one that crashes or hangs costs its op. Here is what is
//! verified and what comes of it; `run.rs` has the workers do it.

mod bench;
mod run;
mod text;
mod worker;

use std::fmt::Write as _;

use ds_core::{
    Host,
    op::{self, Op, RunsOn, Stage, What},
};
use serde::{Deserialize, Serialize};

use crate::{
    alike::Alike,
    chosen,
    sets::Sets,
    view::{BAD, FAILED, Outcome, Refusal, View},
};

pub(crate) use worker::{Task, VARIABLE as WORKER, work};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Op sets or ops; without any, every op that a device has to do with.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Where, in the words of `DS_ACCELERATOR`: `cpu:0`, `cuda:0,2-3`, or `*` for every device.
    /// Else on the devices of the selected accelerator.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Measure a large call of each op and dtype, too.
    #[arg(long)]
    bench: bool,
    /// How long a kernel may take for a call, without its build, before it counts as one that hangs.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// What was verified.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Verification {
    /// Whether nothing is wrong. What nothing can be said of is not wrong.
    passed: bool,
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Device {
    /// Such as `cpu:0`.
    name: String,
    /// Marketing name; empty where it could not be opened.
    model: String,
    /// What kernels are built for.
    target: String,
    /// Why it could not be opened, or what happened beside the calls.
    #[serde(flatten)]
    refusal: Option<Refusal>,
    ops: Vec<OpResult>,
    /// What `--bench` measured.
    bench: Option<bench::Bench>,
}

/// An op on a device.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OpResult {
    op: String,
    verdict: Verdict,
    /// Why nothing can be said of it.
    reason: Option<String>,
    /// Kernels that its cases should have run on.
    broken: Vec<Broken>,
    /// What its cases ran on, in the order of the first case on each.
    runs: Vec<Run>,
}

/// From the best one to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Every case is right.
    Ok,
    /// There is nothing to compare with.
    Unverified,
    /// A kernel takes a case and cannot be built, loaded or prepared, though the toolchain works.
    Broken,
    /// A case gives something else than the reference, or does not run.
    Wrong,
    /// A case did not end in time; those behind it were not tried.
    NoAnswer,
    /// A case ended its process; those behind it were not tried.
    Crashed,
}

impl Verdict {
    const FAILURES: [Self; 4] = [Self::Crashed, Self::NoAnswer, Self::Wrong, Self::Broken];
}

/// A kernel whose description takes cases that it could not be made ready for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Broken {
    kernel: String,
    /// What failed: `build`, `load` or `prepare`.
    #[cfg_attr(test, schemars(with = "String"))]
    stage: Stage,
    /// Why, for the first of the cases.
    #[serde(flatten)]
    refusal: Refusal,
    cases: usize,
}

/// The cases of an op that ran on one thing.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Run {
    #[serde(flatten)]
    on: On,
    verdict: Verdict,
    cases: usize,
    passed: usize,
    /// The largest error of an element in units of what the op's schema allows: 1 is the limit.
    /// Nothing when it is infinite, or when no case ran.
    error: Option<f64>,
    failures: Vec<Failure>,
}

/// What a case ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "on", rename_all = "kebab-case")]
enum On {
    Kernel {
        kernel: String,
    },
    /// The reference implementation, through host memory.
    Reference {
        /// Why no kernel took the first of these cases.
        reason: String,
    },
    /// Nothing: no element is written.
    Nothing,
    /// It did not come to that.
    Unknown,
}

/// A case that is wrong.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Failure {
    case: String,
    /// In a line.
    text: String,
    /// Such as `y`, or `params[2]` of a list; nothing when the call did not run to its end.
    argument: Option<String>,
    /// Where the first wrong element is, when one is.
    index: Option<Vec<i64>>,
    /// What the device gave there; nothing for what JSON has no number for.
    got: Option<f64>,
    /// What the reference gave there; nothing for what JSON has no number for.
    want: Option<f64>,
}

/// # Errors
/// When what is asked for is not there; what is wrong with an op is told in the view.
pub(crate) fn view(host: &Host, options: &Options) -> Result<Verification, Outcome> {
    let shares = chosen::shares(host, "verify", options.device.as_deref())?;
    let ops = ops(host, &options.names)?;
    let mut runner = run::Runner::new(options, ops)?;
    let devices = shares.iter().flat_map(|share| {
        let named = |&index: &u32| (share.accelerator.as_str(), index);
        share.devices.iter().map(named)
    });
    let devices: Vec<Device> = devices
        .map(|(accelerator, index)| runner.device(accelerator, index))
        .collect::<Result<_, _>>()?;
    Ok(Verification {
        passed: devices.iter().all(Device::passed),
        devices,
    })
}

/// The ops of these names or sets; nothing without a name, which means all.
fn ops(host: &Host, names: &[String]) -> Result<Option<Vec<String>>, Outcome> {
    if names.is_empty() {
        return Ok(None);
    }
    // A name may be a plugin's own op, and is known once that plugin is loaded.
    Alike::all(host);
    let sets = Sets::known();
    let mut wanted = Vec::new();
    for name in names {
        let own = sets.some_ops(name)?;
        wanted.extend(own.iter().map(|op| op.name().to_owned()));
    }
    Ok(Some(wanted))
}

/// Every op, or those of these names, each once and always in the same order.
fn named(names: Option<&[String]>) -> Vec<&'static Op> {
    let mut ops = op::ops();
    ops.retain(|op| names.is_none_or(|names| names.iter().any(|name| name == op.name())));
    ops
}

impl OpResult {
    /// Nothing can be said of it for this `reason`, or nothing was said yet.
    fn new(op: String, reason: Option<String>) -> Self {
        Self {
            op,
            verdict: match reason {
                Some(_) => Verdict::Unverified,
                None => Verdict::Ok,
            },
            reason,
            broken: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// A case on this ended so; `error` is the largest one of an element.
    fn add(&mut self, on: On, verdict: Verdict, error: Option<f64>, failures: Vec<Failure>) {
        let known = self.runs.iter().position(|run| run.on.is_as(&on));
        let at = known.unwrap_or_else(|| {
            self.runs.push(Run {
                on,
                verdict,
                cases: 0,
                passed: 0,
                error,
                failures: Vec::new(),
            });
            self.runs.len() - 1
        });
        let run = &mut self.runs[at];
        run.cases += 1;
        run.passed += usize::from(failures.is_empty());
        run.error = run.error.zip(error).map(|(a, b)| a.max(b));
        run.failures.extend(failures);
        run.verdict = run.verdict.max(verdict);
        self.verdict = self.verdict.max(verdict);
    }

    /// A case should have run on these.
    fn add_broken(&mut self, kernels: Vec<Broken>) {
        for broken in kernels {
            self.verdict = self.verdict.max(Verdict::Broken);
            match self.broken.iter_mut().find(|b| b.kernel == broken.kernel) {
                Some(known) => known.cases += broken.cases,
                None => self.broken.push(broken),
            }
        }
    }
}

impl On {
    fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kernel { kernel: a }, Self::Kernel { kernel: b }) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl From<&RunsOn> for On {
    fn from(runs_on: &RunsOn) -> Self {
        match runs_on {
            RunsOn::Kernel(name) => Self::Kernel {
                kernel: (*name).to_owned(),
            },
            RunsOn::Reference(reason) => Self::Reference {
                reason: reason.clone(),
            },
            RunsOn::Nothing => Self::Nothing,
        }
    }
}

impl Failure {
    fn wrong(case: &str, wrong: op::Wrong) -> Self {
        let text = wrong.to_string();
        let (index, got, want) = match wrong.what {
            What::Elements {
                index, got, want, ..
            } => (Some(index), Some(got), Some(want)),
            What::Changed | What::Overrun => (None, None, None),
        };
        Self {
            case: case.to_owned(),
            text,
            argument: Some(wrong.argument),
            index,
            got,
            want,
        }
    }

    /// It did not run to its end.
    fn without_end(case: &str, text: String) -> Self {
        Self {
            case: case.to_owned(),
            text,
            argument: None,
            index: None,
            got: None,
            want: None,
        }
    }
}

impl Device {
    fn passed(&self) -> bool {
        let has_failed = |op: &OpResult| Verdict::FAILURES.contains(&op.verdict);
        let speeds = || self.bench.iter().flat_map(|bench| &bench.speeds);
        self.refusal.is_none()
            && !self.ops.iter().any(has_failed)
            && !speeds().any(|speed| speed.crashed)
    }

    /// What failed, a line for each kind.
    fn failures(&self) -> Vec<String> {
        let name = &self.name;
        let of = |verdict: Verdict| {
            let ops = self.ops.iter().filter(move |op| op.verdict == verdict);
            let ops: Vec<&str> = ops.map(|op| op.op.as_str()).collect();
            let what = match verdict {
                Verdict::Crashed => "crashed on",
                Verdict::NoAnswer => "no answer on",
                Verdict::Broken => "broken kernels on",
                _ => "wrong on",
            };
            (!ops.is_empty()).then(|| format!("{what} {name}: {}", ops.join(", ")))
        };
        let mut lines: Vec<String> = Verdict::FAILURES.into_iter().filter_map(of).collect();
        lines.extend(match &self.refusal {
            Some(_) if self.model.is_empty() => Some(format!("{name} cannot be opened")),
            Some(refusal) => Some(format!("{name}: {}", refusal.reason)),
            None => None,
        });
        let speeds = self.bench.iter().flat_map(|bench| &bench.speeds);
        lines.extend(speeds.filter(|speed| speed.crashed).map(|speed| {
            let reason = speed.reason.as_deref().unwrap_or_default();
            format!("{name}: {} {}: {reason}", speed.op, speed.case)
        }));
        lines
    }
}

impl View for Verification {
    fn text(&self) -> String {
        text::print(self)
    }

    fn failure(&self) -> Option<Outcome> {
        let mut lines = String::new();
        for what in self.devices.iter().flat_map(Device::failures) {
            let _ = writeln!(lines, "{BAD}error{BAD:#}: {what}");
        }
        (!lines.is_empty()).then(|| Outcome::new(FAILED, lines))
    }
}
