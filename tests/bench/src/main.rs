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
mod io;
mod machine;
mod matmul;
mod ops;
mod peer;
mod report;
mod sample;
mod sentence_encoder;

use std::{env, process::ExitCode};

use ds_core::op;

/// Whatever went wrong, for the terminal.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A name to filter by, and what measures and prints it.
type Figure = (&'static str, fn() -> Result<()>);

/// A filter that is one of these means what is before the slash; other names contain it by chance.
const SECTIONS: [&str; 2] = ["io", "op"];

const FIGURES: [Figure; 12] = [
    ("ds_report", report::warm),
    ("first_use", first_use::figure),
    ("call", call::rms_norm),
    ("boundary", boundary::figure),
    ("hand_off", call::hand_off),
    ("adam", adam::figure),
    ("matmul", matmul::figure),
    ("sentence_encoder", sentence_encoder::figure),
    ("io/pinned", io::pinned),
    ("io/ordinary", io::ordinary),
    ("io/random", io::random),
    ("io/beside", io::beside),
];

fn main() -> ExitCode {
    let filters: Vec<String> = env::args().skip(1).collect();
    if filters
        .first()
        .is_some_and(|first| first == first_use::CHILD)
    {
        return finish(first_use::child());
    }
    if filters.first().is_some_and(|first| first == io::CHILD) {
        return finish(io::child());
    }
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| is_chosen(name, f));
    let chosen: Vec<_> = FIGURES.iter().filter(|(name, _)| wanted(name)).collect();
    let name_of = |op: &op::Op| format!("{}{}", ops::PREFIX, op.name());
    let chosen_ops: Vec<_> = ops::measurable()
        .filter(|op| wanted(&name_of(op)))
        .collect();
    if chosen.is_empty() && chosen_ops.is_empty() {
        let mut names: Vec<_> = FIGURES.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.extend(ops::measurable().map(name_of));
        eprintln!(
            "no figure matches {filters:?}; there are {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    machine::print(&filters);
    let mut done = Ok(());
    // One figure that cannot be had hides no other.
    let mut note = |name: &str, figure: Result<()>| {
        if let Err(e) = figure {
            eprintln!("{name}: {e}");
            done = Err(format!("{name} could not be measured").into());
        }
    };
    if !chosen.is_empty() {
        sample::print_head();
    }
    for (name, figure) in chosen {
        note(name, figure());
    }
    if !chosen_ops.is_empty() {
        ops::print_head();
    }
    let mut loops = ops::Loops::default();
    for op in chosen_ops {
        note(&name_of(op), ops::rows(op, &mut loops));
    }
    println!("\nload at the end: {}", machine::load());
    finish(done)
}

fn is_chosen(name: &str, filter: &str) -> bool {
    if SECTIONS.contains(&filter) {
        return name
            .split_once('/')
            .is_some_and(|(section, _)| section == filter);
    }
    name.contains(filter)
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
