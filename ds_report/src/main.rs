//! `ds_report`: what this machine can run, and why not the rest.
#![forbid(unsafe_code)]

mod report;
mod text;

use std::{env, io::Write, process::ExitCode};

use clap::{Parser, Subcommand};
// Named, so that the linker keeps what they register.
use ds_accelerator_cpu as _;
use ds_core::{Host, discovery::Search};
use ds_ops as _;

/// What this machine can run, and why not the rest.
///
/// Exit codes: 0 the report was made; 1 what was asked for failed; 2 the command line is wrong;
/// 3 an op set that --require names is not ready or buildable.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Fail unless this op set has kernels on the selected accelerator, or on `SET@ACCELERATOR`.
    #[arg(long, value_name = "SET[@ACCELERATOR]")]
    require: Vec<String>,
    /// Upstream's: leave the op sets out.
    #[arg(long)]
    hide_operator_status: bool,
    /// Upstream's: only errors that end the command are printed.
    #[arg(long)]
    hide_errors_and_warnings: bool,
    #[command(subcommand)]
    view: Option<View>,
}

#[derive(Subcommand)]
enum View {
    /// Every plugin that was found, with its verdict, and the places of the search.
    Plugins,
}

fn main() -> ExitCode {
    // This program is also the child that opens unknown plugins first.
    if ds_core::probe::answer() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let level = if arguments.hide_errors_and_warnings {
        "off"
    } else {
        "warn"
    };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("DS_LOG", level)).init();
    let mut host = Host::with_search(Search::from_process());
    if let Ok(own) = env::current_exe() {
        host = host.with_helper(own);
    }
    let mut report = report::gather(&host);
    let missing = unmet(&report, &arguments.require);
    if arguments.hide_operator_status {
        report.op_sets.clear();
    }
    let printed = match (arguments.json, arguments.view) {
        (true, _) => match serde_json::to_string_pretty(&report) {
            Ok(json) => json + "\n",
            Err(e) => return fail(&format!("error: the report cannot be written: {e}\n"), 1),
        },
        (false, Some(View::Plugins)) => text::plugins(&report),
        (false, None) => text::print(&report),
    };
    // A reader that has seen enough closes the pipe; that is no failure of the report.
    let _ = std::io::stdout().write_all(printed.as_bytes());
    if missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        fail(&missing.concat(), 3)
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = std::io::stderr().write_all(message.as_bytes());
    ExitCode::from(code)
}

/// A line for each requirement that does not hold.
fn unmet(report: &report::Report, required: &[String]) -> Vec<String> {
    let selected = report
        .selection
        .as_ref()
        .ok()
        .map(|c| c.primary.accelerator.as_str());
    let mut lines = Vec::new();
    for asked in required {
        let (set, on) = match asked.split_once('@') {
            Some((set, on)) => (set, Some(on)),
            None => (asked.as_str(), selected),
        };
        let Some(on) = on else {
            lines.push(format!("{asked}: no accelerator is selected\n"));
            continue;
        };
        let column = report
            .devices
            .iter()
            .position(|d| d.name.split(':').next() == Some(on));
        let known = report.op_sets.iter().find(|s| s.name == set);
        let line = match (known, column) {
            (None, _) => format!("{asked}: there is no op set '{set}'\n"),
            (_, None) => format!("{asked}: {on} has no device here\n"),
            (Some(known), Some(column)) => match &known.states[column] {
                report::OpState::Ready | report::OpState::Buildable => continue,
                other => format!("{asked}: {other:?}\n"),
            },
        };
        lines.push(line);
    }
    lines
}
