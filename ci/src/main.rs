//! The task runner: `cargo xtask` is what people and CI both run.
//!
//! Each step of the gate is a command of its own; `check` runs them all, in their order.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a command is for"
)]

mod check;
mod dist;
mod drift;
mod drills;
mod headers;
mod licences;
mod loom;
mod ops_header;
mod sanitize;
mod step;
mod tidy;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use step::{Gate, Verdict};

/// The arguments do not make sense; the exit code that shells use for it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (command, options) = match arguments.split_first() {
        None | Some((&("help" | "--help" | "-h"), _)) => {
            println!("{}", help());
            return ExitCode::SUCCESS;
        }
        Some(split) => split,
    };
    let outcome = match *command {
        "check" => check_all(options),
        "dist" => build_dist(options),
        "drills" => run_drills(options),
        "loom" => run_models(options),
        "sanitize" => run_sanitizers(options),
        name => run_step(name, options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("{message}\n\n{}", help());
            ExitCode::from(USAGE)
        }
        Err(Failure::Work(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Usage(String),
    Work(String),
}

fn check_all(options: &[&str]) -> Result<(), Failure> {
    let fix = match options {
        [] => false,
        ["--fix"] => true,
        _ => return Err(unknown("check", options)),
    };
    let gate = Gate {
        fix,
        ..Gate::new(root())
    };
    check::run(&gate).map_err(Failure::Work)
}

fn build_dist(options: &[&str]) -> Result<(), Failure> {
    let mut prefix = root().join("dist");
    let mut archive = None;
    for option in options.chunks(2) {
        match option {
            ["--prefix", folder] => prefix = PathBuf::from(folder),
            ["--archive", file] => archive = Some(Path::new(file)),
            _ => return Err(unknown("dist", options)),
        }
    }
    let files = dist::build(root(), &prefix).map_err(Failure::Work)?;
    println!("{}: {files} files", prefix.display());
    if let Some(archive) = archive {
        let packed = dist::archive::write(&prefix, archive).map_err(Failure::Work)?;
        print!("{}: {} bytes", archive.display(), packed.bytes);
        match packed.glibc {
            Some((major, minor)) => println!(", runs with glibc {major}.{minor} and later"),
            None => println!(),
        }
    }
    Ok(())
}

fn run_drills(options: &[&str]) -> Result<(), Failure> {
    let long = match options {
        [] => false,
        ["--long"] => true,
        _ => return Err(unknown("drills", options)),
    };
    drills::print(&Gate::new(root()), long).map_err(Failure::Work)
}

fn run_models(options: &[&str]) -> Result<(), Failure> {
    if !options.is_empty() {
        return Err(unknown("loom", options));
    }
    loom::check(root()).map_err(Failure::Work)
}

fn run_sanitizers(options: &[&str]) -> Result<(), Failure> {
    if !options.is_empty() {
        return Err(unknown("sanitize", options));
    }
    sanitize::check(&Gate::new(root())).map_err(Failure::Work)
}

/// Runs one step of the gate, with its output as it comes. One that can write does, unless it is
/// told to check.
fn run_step(name: &str, options: &[&str]) -> Result<(), Failure> {
    if let ("headers", ["--break-layout"]) = (name, options) {
        return headers::write(root(), headers::Layout::Break).map_err(Failure::Work);
    }
    let Some(step) = check::STEPS.iter().find(|step| step.name == name) else {
        return Err(Failure::Usage(format!("there is no command `{name}`")));
    };
    let fix = match options {
        [] => true,
        ["--check"] => false,
        _ => return Err(unknown(name, options)),
    };
    let gate = Gate {
        fix: fix && step.writes,
        live: true,
        ..Gate::new(root())
    };
    match (step.run)(&gate).map_err(Failure::Work)? {
        Verdict::Passed(lines) => {
            for line in lines {
                println!("{line}");
            }
        }
        Verdict::Skipped(reason) => println!("skipped: {reason}"),
    }
    Ok(())
}

fn unknown(command: &str, options: &[&str]) -> Failure {
    Failure::Usage(format!("`{command}` does not take `{}`", options.join(" ")))
}

/// The root of the workspace, where this package was built.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

fn help() -> String {
    let mut text = String::from(
        "usage: cargo xtask COMMAND\n\n  \
         check [--fix]         run every step below; --fix lets them write\n  \
         dist [--prefix DIR] [--archive FILE.tar.gz]\n  \
         \x20                     build what is installed, into dist/; pack it for other machines\n  \
         drills [--long]       what the drills found, as a table; --long for a night\n  \
         loom                  the memory pool, streams and timelines in every order of their threads\n  \
         sanitize              the C examples under sanitizers, the boundary under valgrind\n\n\
         steps of the gate; those that write only compare with --check:\n",
    );
    for step in check::STEPS {
        let writes = if step.writes { "*" } else { " " };
        let _ = writeln!(text, "  {:<9}{writes} {}", step.name, step.about);
    }
    text.push_str("\n  * writes, unless --check is given");
    text
}
