//! `ds_conformance`: whether a plugin keeps the contract of the boundary.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a command is for"
)]

use std::{env, process::ExitCode, time::Duration};

use clap::Parser;
use ds_conformance::{Level, Options, run, worker};

/// Whether a plugin keeps the contract of the boundary, check by check.
///
/// Exit codes: 0 nothing failed that the manifest does not know; 1 something did; 2 the command line
/// is wrong, or there is no such plugin.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// The plugin's folder, or the name of an accelerator that is linked in, such as cpu.
    plugin: String,
    /// The last level: L0 the folder, L1 the entry, L2 devices, memory and streams, L3 ops.
    #[arg(long, default_value_t = Level::L3)]
    level: Level,
    /// Run only checks whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Seconds that a check may take.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

fn main() -> ExitCode {
    let (filter, problem) = ds_core::log_filter("error");
    env_logger::Builder::new().parse_filters(&filter).init();
    if worker::answer() {
        return ExitCode::SUCCESS;
    }
    if let Some(problem) = problem {
        eprintln!("warning: {problem}");
    }
    let arguments = Arguments::parse();
    let checked = env::current_exe()
        .map_err(|e| e.to_string())
        .and_then(|helper| {
            run(&Options {
                plugin: arguments.plugin,
                level: arguments.level,
                only: arguments.only,
                helper,
                timeout: Duration::from_secs(arguments.timeout),
            })
        });
    match checked {
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
        Ok(report) => {
            let text = if arguments.json {
                serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
            } else {
                report.text()
            };
            print!("{text}");
            if report.is_passed() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
