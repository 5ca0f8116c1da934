//! `ds_report`: what this machine can run, and why not the rest.
//!
//! A view is a file: it gathers a struct, which is printed as text or, with `--json`, as it is.
#![forbid(unsafe_code)]

mod plugin;
mod plugins;
mod report;
mod toolchains;
mod view;

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};
// Named, so that the linker keeps what they register.
use ds_accelerator_cpu as _;
use ds_core::{Host, discovery::Search};
use ds_ops as _;

use view::{Outcome, show};

/// What this machine can run, and why not the rest.
///
/// Exit codes: 0 it was done; 1 what was asked for failed; 2 the command line is wrong;
/// 3 an op set that --require names is not ready or buildable.
#[derive(Parser)]
#[command(version, about, long_about, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Upstream's: only errors that end the command are printed.
    #[arg(long, global = true)]
    hide_errors_and_warnings: bool,
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
    let json = arguments.json;
    let outcome = match arguments.view {
        None => show(json, &report::view(&host, &arguments.report)),
        Some(View::Plugins) => show(json, &plugins::view(&host)),
        Some(View::Plugin(command)) => plugin::run(json, &host, &command),
        Some(View::Toolchains) => show(json, &toolchains::view(&host)),
    };
    outcome.unwrap_or_else(Outcome::tell)
}
