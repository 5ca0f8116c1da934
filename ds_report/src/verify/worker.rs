//! The worker's side of a verification: opens one device, runs its cases, and tells of each before
//! and after it, so that the other side knows which call it was that ended the process.

use std::io;

use ds_core::{
    Device, Error, Host, Stream,
    op::{self, Case, Op, RunsOn, Size, Unready, Verified},
    worker::Teller,
};
use serde::{Deserialize, Serialize};

use super::{
    Broken, Failure, On,
    bench::{self, Speed},
    named,
};
use crate::view::Refusal;

pub(crate) const VARIABLE: &str = "DS_REPORT_WORKER";

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(super) accelerator: String,
    pub(super) index: u32,
    /// Only these ops, whatever the device has to do with them.
    pub(super) names: Option<Vec<String>>,
    /// Measure large calls rather than run small ones.
    pub(super) bench: bool,
    /// So many ops, or large calls, were done before.
    pub(super) from: usize,
    /// `--hide_errors_and_warnings` was given.
    pub(crate) quiet: bool,
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// The device cannot be opened.
    Refused(Refusal),
    /// It is open.
    Opened { model: String, target: String },
    /// An op begins, which has so many cases, or nothing can be said of it.
    Op {
        name: String,
        cases: usize,
        reason: Option<String>,
    },
    /// A case begins. It is built, loaded and prepared first.
    Case(String),
    /// It runs.
    Ready { on: On, broken: Vec<Broken> },
    /// It ended. An error may be infinite, for which JSON has no number: it comes as its bits.
    Done {
        error_bits: Option<u64>,
        failures: Vec<Failure>,
    },
    /// The device's own copy cannot be measured.
    NoCopy(String),
    /// A large call begins.
    Large { op: String, case: String },
    /// It is measured; another round begins.
    Round,
    /// It was measured, beside copies of this speed.
    Speed { speed: Speed, copies: Vec<f64> },
}

/// Does a task, and tells of it.
///
/// # Errors
/// When nobody listens any more.
pub(crate) fn work(host: &Host, task: &Task, teller: &mut Teller) -> io::Result<()> {
    let name = task.accelerator.as_str();
    let opened = host.accelerator(name).and_then(|a| a.device(task.index));
    let device = match opened {
        Ok(device) => device,
        Err(e) => return teller.tell(&Line::Refused(Refusal::from(&e))),
    };
    teller.tell(&Line::Opened {
        model: device.info().name.clone(),
        target: device.info().target.clone(),
    })?;
    let mut ops = named(task.names.as_deref());
    if task.bench {
        return bench::measure(device, &ops, task.from, teller);
    }
    ops.retain(|op| {
        let has_kernel = || !device.kernels_of(op).is_empty();
        // Who asked for an op is told of it even where the device has nothing to do with it.
        task.names.is_some() || op.reference().is_some() || has_kernel()
    });
    let mut rest = ops.into_iter().skip(task.from);
    rest.try_for_each(|op| verify(device, op, teller))
}

fn verify(device: Device, op: &'static Op, teller: &mut Teller) -> io::Result<()> {
    let cases = op.cases(Size::Small);
    let reason = unverified(device, op, cases.len());
    let runs = reason.is_none();
    teller.tell(&Line::Op {
        name: op.name().to_owned(),
        cases: cases.len(),
        reason,
    })?;
    for case in cases.iter().filter(|_| runs) {
        teller.tell(&Line::Case(case.name().to_owned()))?;
        log::debug!("{device}: {} {}", op.name(), case.name());
        let (error, failures) = match verify_case(device, case, teller) {
            Ok(verified) => {
                let failure = |wrong| Failure::wrong(case.name(), wrong);
                let failures = verified.wrong.into_iter().map(failure).collect();
                (Some(verified.error), failures)
            }
            Err(e) => {
                let text = Refusal::from(&e).line();
                (None, vec![Failure::without_end(case.name(), text)])
            }
        };
        teller.tell(&Line::Done {
            error_bits: error.map(f64::to_bits),
            failures,
        })?;
    }
    Ok(())
}

/// Why nothing can be said of an op.
fn unverified(device: Device, op: &Op, cases: usize) -> Option<String> {
    if op.reference().is_some() {
        return (cases == 0).then(|| "no cases".to_owned());
    }
    let kernels = device.kernels_of(op).iter();
    let kernels: Vec<&str> = kernels.map(|kernel| kernel.name.as_str()).collect();
    Some(if kernels.is_empty() {
        "no kernel here, and no reference implementation".to_owned()
    } else {
        let kernels = kernels.join(", ");
        format!("no reference implementation to compare {kernels} with")
    })
}

/// On a stream of its own: one that failed stays failed, and would fail all cases behind it.
fn verify_case(device: Device, case: &Case, teller: &mut Teller) -> Result<Verified, Error> {
    op::verify(&Stream::new(device)?, case, |on, broken| {
        // Where nobody listens the next line ends this, too.
        let _ = teller.tell(&Line::ready(on, broken));
    })
}

impl Line {
    pub(super) fn ready(on: &RunsOn, broken: &[Unready]) -> Self {
        Self::Ready {
            on: On::from(on),
            broken: broken.iter().map(Broken::from).collect(),
        }
    }
}

impl From<&Unready> for Broken {
    fn from(kernel: &Unready) -> Self {
        Self {
            kernel: kernel.kernel.to_owned(),
            stage: kernel.stage,
            refusal: Refusal {
                reason: kernel.reason.clone(),
                hint: Some(kernel.hint.clone()),
            },
            cases: 1,
        }
    }
}
