//! `ds_report`: what this machine can run, and why not the rest.
//!
//! A view is a file: it gathers a struct, which is printed as text or, with `--json`, as it is.
#![forbid(unsafe_code)]

mod alike;
mod build;
mod cache;
mod chosen;
mod explain;
mod io;
mod kernels;
mod ops;
mod plugin;
mod plugins;
mod progress;
mod ready;
mod report;
#[cfg(test)]
mod schema;
mod sets;
mod sizes;
mod toolchains;
mod verify;
mod view;

use std::{env, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
// Named, so that the linker keeps what they register.
use ds_accelerator_cpu as _;
use ds_core::{Host, discovery::Search, worker};
use ds_ops as _;

use view::{Outcome, show};

/// What this machine can run, and why not the rest.
///
/// Exit codes: 0 it was done; 1 what was asked for failed; 2 the command line is wrong;
/// 3 an op set that --require names is not ready or buildable.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Upstream's: only errors that end the command are printed.
    #[arg(long = "hide_errors_and_warnings", global = true)]
    hide_errors_and_warnings: bool,
    /// Ask every plugin file again what it finds, rather than use an answer that was kept.
    #[arg(long, global = true)]
    live: bool,
    #[command(flatten)]
    report: report::Options,
    #[command(subcommand)]
    view: Option<View>,
}

#[derive(Subcommand)]
enum View {
    /// Every plugin that was found, with its verdict, and the places of the search.
    Plugins,
    /// Start a plugin, add it to those of this user, remove it.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// The compilers of each accelerator: which there are, whether they work, how to get them.
    Toolchains,
    /// Build now, into the cache, what would else be built at first use.
    Build(build::Options),
    /// The ops of a set, or all of them, and by what kind of kernel each runs on each device.
    Ops(ops::Options),
    /// What a call would run on, and why not on each other kernel.
    Explain(explain::Options),
    /// What was built and kept here: where it is, what is in it; prune, export, import.
    Cache(cache::Options),
    /// How files reach tensors here: the engines, how much memory may be locked; what a disk gives.
    Io(io::Options),
    /// Build and run every op on each device, and compare with the reference implementation.
    Verify(verify::Options),
}

fn main() -> ExitCode {
    // This program is also the child that opens unknown plugins first.
    if ds_core::probe::answer() {
        return ExitCode::SUCCESS;
    }
    // And the one that verifies runs kernels, which may end it.
    let verify = |task: &verify::Task, teller: &mut worker::Teller| {
        start_log(task.quiet);
        verify::work(&host(), task, teller)
    };
    if let Some(done) = worker::answer(verify::WORKER, verify) {
        return done.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    // What all views share may stand in front of a command; what only the report knows would be
    // ignored there, and a requirement that is ignored looks like one that holds.
    if let (Some(_), Some(option)) = (&arguments.view, arguments.report.given()) {
        let conflict = format!("{option} cannot be used with a command");
        Arguments::command()
            .error(ErrorKind::ArgumentConflict, conflict)
            .exit();
    }
    if let Some(problem) = start_log(arguments.hide_errors_and_warnings) {
        log::warn!("{problem}");
    }
    let mut host = host();
    if arguments.live {
        host = host.with_live_probes();
    }
    let json = arguments.json;
    let outcome = match arguments.view {
        None => show(json, &report::view(&host, &arguments.report)),
        Some(View::Plugins) => show(json, &plugins::view(&host)),
        Some(View::Plugin(command)) => plugin::run(json, &host, &command),
        Some(View::Toolchains) => show(json, &toolchains::view(&host)),
        Some(View::Build(options)) => {
            build::view(&host, &options, json).and_then(|view| show(json, &view))
        }
        Some(View::Ops(options)) => ops::view(&host, &options).and_then(|view| show(json, &view)),
        Some(View::Explain(options)) => {
            explain::view(&host, &options).and_then(|view| show(json, &view))
        }
        Some(View::Cache(options)) => cache::run(json, &options),
        Some(View::Io(options)) => io::view(&host, &options).and_then(|view| show(json, &view)),
        Some(View::Verify(options)) => {
            verify::view(&host, &options).and_then(|view| show(json, &view))
        }
    };
    outcome.unwrap_or_else(Outcome::tell)
}

/// Gives what is wrong with `DS_LOG`.
fn start_log(quiet: bool) -> Option<String> {
    let (filter, problem) = ds_core::log_filter(if quiet { "off" } else { "warn" });
    env_logger::Builder::new().parse_filters(&filter).init();
    problem
}

/// What this process can run on; plugins that are new are opened by a child of this program first.
fn host() -> Host {
    let host = Host::with_search(Search::from_process());
    match env::current_exe() {
        Ok(own) => host.with_helper(own),
        Err(_) => host,
    }
}
