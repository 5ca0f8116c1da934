//! `ds_report verify`: builds and runs every op on each device, and holds what it gives against the
//! reference implementation; with `--bench` it measures too.

mod bench;
mod text;

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use ds_core::{
    Error, Host, Stream,
    op::{self, Case, Op, RunsOn, Size, Verified, What},
    selection::{Share, VARIABLE},
};
use serde::Serialize;

use crate::{
    alike::Alike,
    sets::Sets,
    view::{BAD, FAILED, Outcome, Refusal, View},
};

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
    /// Why it could not be opened.
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
    /// What its cases ran on, in the order of the first case on each.
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Every case is right.
    Ok,
    /// A case gives something else than the reference, or does not run.
    Wrong,
    /// There is nothing to compare with.
    Unverified,
}

/// The cases of an op that ran on one thing.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Run {
    #[serde(flatten)]
    on: On,
    cases: usize,
    passed: usize,
    /// The largest error of an element in units of what the op's schema allows: 1 is the limit.
    /// Nothing when it is infinite, or when no case ran.
    error: Option<f64>,
    failures: Vec<Failure>,
}

/// What a case ran on.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Failure {
    case: String,
    /// In a line.
    text: String,
    /// Such as `y`, or `params[2]` of a list; nothing when the call did not run.
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
    let mut opened = Vec::new();
    for share in shares(host, options.device.as_deref())? {
        for index in share.devices {
            let accelerator = share.accelerator.as_str();
            let device = host.accelerator(accelerator).and_then(|a| a.device(index));
            opened.push((format!("{accelerator}:{index}"), device));
        }
    }
    // Only now: plugins bring ops of their own.
    let ops = ops(host, &options.names)?;
    let named = !options.names.is_empty();
    let mut progress = Progress::new();
    let devices: Vec<Device> = opened
        .into_iter()
        .map(|(name, device)| match device {
            Ok(device) => on_device(device, name, &ops, named, options.bench, &mut progress),
            Err(e) => Device {
                name,
                model: String::new(),
                target: String::new(),
                refusal: Some(Refusal::from(&e)),
                ops: Vec::new(),
                bench: None,
            },
        })
        .collect();
    Ok(Verification {
        passed: devices.iter().all(Device::passed),
        devices,
    })
}

/// The devices that `asked` names, or else those that are selected.
fn shares(host: &Host, asked: Option<&str>) -> Result<Vec<Share>, Error> {
    let chosen = match asked {
        None => host.select()?,
        Some(asked) => host
            .select_with(|name| match name {
                VARIABLE => Some(OsString::from(asked)),
                _ => env::var_os(name),
            })
            .map_err(|e| of_the_option(&e))?,
    };
    let mut shares = vec![chosen.primary];
    shares.extend(chosen.others);
    Ok(shares)
}

/// The same error, in the words of the command line.
fn of_the_option(error: &Error) -> Error {
    let context = error
        .context()
        .replace(&format!("{VARIABLE}="), "--device ");
    let own = Error::new(error.kind(), "verify", context);
    match error.hint() {
        Some(hint) => own.with_hint(hint.to_owned()),
        None => own,
    }
}

/// The ops of these names or sets, each once; all without a name.
fn ops(host: &Host, names: &[String]) -> Result<Vec<&'static Op>, Outcome> {
    if names.is_empty() {
        return Ok(op::ops());
    }
    // A name may be a plugin's own op, and is known once that plugin is loaded.
    Alike::all(host);
    let sets = Sets::known();
    let mut wanted = Vec::new();
    for name in names {
        let own = sets.ops(name)?;
        if own.is_empty() {
            let what = format!("op set '{name}' is not in this version");
            return Err(Outcome::failed(&what));
        }
        wanted.extend(own.iter().map(|op| op.name()));
    }
    let mut ops = op::ops();
    ops.retain(|op| wanted.contains(&op.name()));
    Ok(ops)
}

/// `named`: somebody asked for these ops, so they are told even where the device has nothing to do
/// with them.
fn on_device(
    device: ds_core::Device,
    name: String,
    ops: &[&'static Op],
    named: bool,
    bench: bool,
    progress: &mut Progress,
) -> Device {
    let concerns = |op: &&&'static Op| {
        named || op.reference().is_some() || device.kernels().iter().any(|k| k.op == op.name())
    };
    let results: Vec<OpResult> = ops
        .iter()
        .filter(concerns)
        .map(|op| verify(device, op, progress))
        .collect();
    // The time that something wrong takes tells nothing.
    let right = ops.iter().filter(|op| {
        let of = |result: &&OpResult| result.op == op.name();
        results
            .iter()
            .find(of)
            .is_some_and(|r| r.verdict == Verdict::Ok)
    });
    let bench = bench.then(|| bench::measure(device, right, progress));
    progress.clear();
    Device {
        name,
        model: device.info().name.clone(),
        target: device.info().target.clone(),
        refusal: None,
        ops: results,
        bench,
    }
}

fn verify(device: ds_core::Device, op: &'static Op, progress: &mut Progress) -> OpResult {
    let cases = op.cases(Size::Small);
    let mut result = OpResult {
        op: op.name().to_owned(),
        verdict: Verdict::Ok,
        reason: None,
        runs: Vec::new(),
    };
    if op.reference().is_none() || cases.is_empty() {
        result.verdict = Verdict::Unverified;
        let kernels: Vec<&str> = (device.kernels().iter())
            .filter(|kernel| kernel.op == op.name())
            .map(|kernel| kernel.name.as_str())
            .collect();
        result.reason = Some(match (op.reference(), kernels.is_empty()) {
            (Some(_), _) => "no cases".to_owned(),
            (None, true) => "no kernel here, and no reference implementation".to_owned(),
            (None, false) => format!(
                "no reference implementation to compare {} with",
                kernels.join(", ")
            ),
        });
        return result;
    }
    for (index, case) in cases.iter().enumerate() {
        progress.tell(&format!(
            "{device}: {} {} of {}",
            op.name(),
            index + 1,
            cases.len()
        ));
        // The last line of a kernel that crashes or hangs; progress is for terminals only.
        log::debug!("{device}: {} {}", op.name(), case.name());
        result.add(case, verify_case(device, case));
    }
    if result.runs.iter().any(|run| run.passed < run.cases) {
        result.verdict = Verdict::Wrong;
    }
    result
}

/// On a stream of its own: one that failed stays failed, and would fail all cases behind it.
fn verify_case(device: ds_core::Device, case: &Case) -> Result<Verified, Error> {
    op::verify(&Stream::new(device)?, case)
}

impl OpResult {
    fn add(&mut self, case: &Case, outcome: Result<Verified, Error>) {
        let (on, error, failures) = match outcome {
            Ok(verified) => (
                On::from(verified.runs_on),
                Some(verified.error),
                verified
                    .wrong
                    .into_iter()
                    .map(|wrong| Failure::wrong(case.name(), wrong))
                    .collect(),
            ),
            Err(e) => (On::Unknown, None, vec![Failure::error(case.name(), &e)]),
        };
        let known = self.runs.iter().position(|run| run.on.is_as(&on));
        let at = known.unwrap_or_else(|| {
            self.runs.push(Run {
                on,
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

impl From<RunsOn> for On {
    fn from(runs_on: RunsOn) -> Self {
        match runs_on {
            RunsOn::Kernel(name) => Self::Kernel {
                kernel: name.to_owned(),
            },
            RunsOn::Reference(reason) => Self::Reference { reason },
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

    fn error(case: &str, error: &Error) -> Self {
        Self {
            case: case.to_owned(),
            text: Refusal::from(error).line(),
            argument: None,
            index: None,
            got: None,
            want: None,
        }
    }
}

impl Device {
    fn passed(&self) -> bool {
        self.refusal.is_none() && self.wrong().next().is_none()
    }

    /// The ops that are wrong.
    fn wrong(&self) -> impl Iterator<Item = &OpResult> {
        self.ops.iter().filter(|op| op.verdict == Verdict::Wrong)
    }
}

impl View for Verification {
    fn text(&self) -> String {
        text::print(self)
    }

    fn failure(&self) -> Option<Outcome> {
        let mut lines = String::new();
        for device in self.devices.iter().filter(|device| !device.passed()) {
            let ops: Vec<&str> = device.wrong().map(|op| op.op.as_str()).collect();
            let what = if device.refusal.is_some() {
                format!("{} cannot be opened", device.name)
            } else {
                format!("wrong on {}: {}", device.name, ops.join(", "))
            };
            let _ = writeln!(lines, "{BAD}error{BAD:#}: {what}");
        }
        (!lines.is_empty()).then(|| Outcome::new(FAILED, lines))
    }
}

/// A line on the terminal that says what is at work; builds and large calls take their time.
struct Progress {
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, what: &str) {
        self.write(&format!("\r\u{1b}[K{what} ..."));
    }

    fn clear(&mut self) {
        self.write("\r\u{1b}[K");
    }

    fn write(&mut self, text: &str) {
        if self.is_terminal {
            let mut errors = io::stderr();
            let _ = errors.write_all(text.as_bytes());
            let _ = errors.flush();
        }
    }
}
