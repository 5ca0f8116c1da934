//! `loom`: the models of `ds-accelerator-cpu`, which run its streams and timelines in every order in
//! which their threads can go on. A build of its own: everything in it is compiled for loom.

use std::path::Path;

use crate::step::{Outcome, cargo, run};

/// How often a thread is stopped where it could have gone on. Few are enough for nearly every
/// mistake that is known (Musuvathi and Qadeer, PLDI 2007); a third costs ten times as much.
const PREEMPTIONS: &str = "2";

pub(crate) fn check(root: &Path) -> Outcome {
    let mut command = cargo(root);
    command
        .args([
            "test",
            "--package",
            "ds-accelerator-cpu",
            "--lib",
            "models::",
        ])
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", root.join("target/loom"))
        .env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS);
    let text = run(&mut command)?;
    let line = text.lines().find(|line| line.starts_with("test result: "));
    match line {
        Some(line) if !line.contains(" 0 passed") => println!("{line}"),
        _ => return Err(format!("{text}there are no models")),
    }
    Ok(())
}
