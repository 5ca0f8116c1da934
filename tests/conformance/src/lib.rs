//! Conformance: whether a plugin keeps the contract of the boundary, check by check.
//!
//! | level | file | looks at |
//! |---|---|---|
//! | L0 | `l0.rs` | the folder, without running any of it |
//! | L1 | `l1.rs` | the entry: versions, sizes, extensions, errors |
//! | L2 | `l2.rs` | devices, memory, streams, points in time |
//! | L3 | `l3.rs` | ops, by calls that are made from what each kernel says it takes |
//!
//! Checks run in child processes (`worker.rs`), so that one that crashes or hangs is one that fails.
//! A program that calls [`run`] calls [`worker::answer`] first thing.

mod check;
mod l0;
mod l1;
mod l2;
mod l3;
mod raw;
mod report;
mod subject;
pub mod worker;

use std::{path::PathBuf, time::Duration};

pub use check::{Level, Outcome};
pub use report::{Checked, Report};

// Named, so that the linker keeps what they register.
use ds_accelerator_cpu as _;
use ds_ops as _;

/// What to check, and how far to go.
#[derive(Clone, Debug)]
pub struct Options {
    /// A plugin's folder, or the name of an accelerator that is linked in.
    pub plugin: String,
    /// The last level.
    pub level: Level,
    /// Only checks whose name contains this.
    pub only: String,
    /// The program that runs the checks: one that calls [`worker::answer`] first thing.
    pub helper: PathBuf,
    /// How long a check may take.
    pub timeout: Duration,
}

/// Runs every check of the levels up to `options.level`. A level whose checks cannot even be listed
/// is a failure, and the last one.
///
/// # Errors
/// When there is no such plugin, or the helper cannot be run.
pub fn run(options: &Options) -> Result<Report, String> {
    let subject = subject::Subject::find(&options.plugin)?;
    let mut report = Report::of(&subject);
    for level in Level::ALL.into_iter().filter(|&l| l <= options.level) {
        let checked = worker::run(options, level)?;
        let usable = checked.iter().all(|c| c.name != worker::LIST);
        report.checks.extend(checked);
        if !usable {
            break;
        }
    }
    report.hold_against(&subject.known_gaps());
    Ok(report)
}
