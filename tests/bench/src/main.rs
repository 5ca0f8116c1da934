//! Benchmarks: every figure of `docs/benchmarks.md`, from one command.
//!
//! `cargo run --release -p ds-bench [-- FILTER...]` runs the figures whose name contains a filter.
//! Peers are optional: `DS_PEERS` names the folder with `bench/bw2.c` (the pinned C loop),
//! `DS_PEERS_PYTHON` a Python with `PyTorch` and `DeepSpeed`. Both sides of a comparison alternate
//! round by round, because the bandwidth of a shared machine changes while one looks.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what the command prints"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "figures are read to three digits"
)]

mod adam;
mod boundary;
mod call;
mod first_use;
mod inputs;
mod machine;
mod matmul;
mod peer;
mod report;
mod rms_norm;
mod sample;

use std::{env, process::ExitCode};

/// Whatever went wrong, for the terminal.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A name to filter by, and what measures and prints it.
type Figure = (&'static str, fn() -> Result<()>);

const FIGURES: [Figure; 9] = [
    ("ds_report", report::warm),
    ("first_use", first_use::figure),
    ("call", call::rms_norm),
    ("boundary", boundary::figure),
    ("hand_off", call::hand_off),
    ("adam", adam::figure),
    ("rms_norm_forward", rms_norm::forward),
    ("rms_norm_backward", rms_norm::backward),
    ("matmul", matmul::figure),
];

fn main() -> ExitCode {
    let filters: Vec<String> = env::args().skip(1).collect();
    if filters
        .first()
        .is_some_and(|first| first == first_use::CHILD)
    {
        return finish(first_use::child());
    }
    let chosen: Vec<_> = FIGURES
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f)))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = FIGURES.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "no figure matches {filters:?}; there are {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    machine::print(&filters);
    sample::print_head();
    let mut done = Ok(());
    for (name, figure) in chosen {
        // One figure that cannot be had hides no other.
        if let Err(e) = figure() {
            eprintln!("{name}: {e}");
            done = Err(format!("{name} could not be measured").into());
        }
    }
    println!("\nload at the end: {}", machine::load());
    finish(done)
}

fn finish(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
