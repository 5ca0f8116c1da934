//! The task runner: `cargo xtask` is what people and CI both run.
//!
//! Each step of the gate is a module and a command of its own; `check` runs them in order.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a command is for"
)]

mod drift;
mod headers;
mod step;

use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask <command>

  headers [--check] [--break-layout]   write core/abi/include from ds-abi, or compare";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let outcome = match words.as_slice() {
        ["headers"] => headers::write(root, false),
        ["headers", "--break-layout"] => headers::write(root, true),
        ["headers", "--check"] => headers::check(root),
        _ => {
            println!("{HELP}");
            return ExitCode::from(u8::from(!words.is_empty()) * 2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
