//! `loom`: the models of the host's memory pool and of the CPU's streams and timelines, run in every
//! order in which their threads can go on. A build of its own: everything in it is compiled for loom.

use std::path::Path;

use crate::step::{Outcome, cargo, run};

/// The packages that have models, in a module of that name.
const PACKAGES: [&str; 2] = ["ds-core", "ds-accelerator-cpu"];

/// How often a thread is stopped where it could have gone on. Few are enough for nearly every
/// mistake that is known (Musuvathi and Qadeer, PLDI 2007); a third costs ten times as much.
const PREEMPTIONS: &str = "2";

pub(crate) fn check(root: &Path) -> Outcome {
    for package in PACKAGES {
        let mut command = cargo(root);
        command
            .args(["test", "--package", package, "--lib", "models::"])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", root.join("target/loom"))
            .env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS);
        let text = run(&mut command)?;
        let line = text.lines().find(|line| line.starts_with("test result: "));
        match line {
            Some(line) if !line.contains(" 0 passed") => println!("{package}: {line}"),
            _ => return Err(format!("{text}{package} has no models")),
        }
    }
    Ok(())
}
