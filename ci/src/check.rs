//! `check`: the gate. One line a step, full output of what failed, a summary.

use std::io::{self, Write as _};
use std::time::Instant;

use crate::step::{Gate, Outcome, Step, Verdict};
use crate::{headers, licences, tidy};

/// Every step, the quick ones first where nothing speaks against it.
pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "format the sources",
        writes: true,
        run: fmt,
    },
    Step {
        name: "tidy",
        about: "hold the sources to the layers and house rules",
        writes: false,
        run: tidy::step,
    },
    Step {
        name: "headers",
        about: "write core/abi/include from ds-abi, ops/include from the schemas",
        writes: true,
        run: headers::step,
    },
    Step {
        name: "licences",
        about: "write THIRD_PARTY.md from the dependencies",
        writes: true,
        run: licences::step,
    },
    Step {
        name: "deny",
        about: "judge dependencies by deny.toml: licences, bans, sources",
        writes: false,
        run: deny,
    },
    Step {
        name: "clippy",
        about: "lint everything, warnings denied",
        writes: false,
        run: clippy,
    },
    Step {
        name: "doc",
        about: "build the documentation, warnings denied",
        writes: false,
        run: doc,
    },
    Step {
        name: "test",
        about: "run every test, documentation's included",
        writes: false,
        run: test,
    },
];

/// Runs every step, also after a failure, so that one run shows everything.
pub(crate) fn run(gate: &Gate) -> Outcome {
    let start = Instant::now();
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for step in STEPS {
        print!("{:<9}", step.name);
        // Only so that a person sees what is running.
        let _ = io::stdout().flush();
        let step_start = Instant::now();
        let outcome = (step.run)(gate);
        let seconds = step_start.elapsed().as_secs_f64();
        match outcome {
            Ok(Verdict::Passed(lines)) => {
                println!("ok      {seconds:>6.1} s");
                for line in lines {
                    println!("  {line}");
                }
                passed += 1;
            }
            Ok(Verdict::Skipped(reason)) => {
                println!("skipped {seconds:>6.1} s  {reason}");
                skipped += 1;
            }
            Err(message) => {
                println!("FAILED  {seconds:>6.1} s\n{message}");
                failed.push(step.name);
            }
        }
    }
    println!(
        "\ncheck: {passed} ok, {skipped} skipped, {} failed, in {:.1} s",
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    if failed.is_empty() {
        return Ok(());
    }
    let again: Vec<_> = failed
        .iter()
        .map(|name| format!("cargo xtask {name}"))
        .collect();
    Err(format!("failed; run alone: {}", again.join(", ")))
}

fn fmt(gate: &Gate) -> Result<Verdict, String> {
    let mut arguments = vec!["fmt", "--all"];
    if !gate.fix {
        arguments.push("--check");
    }
    // Modules of the catalogue are named by a generated file, where cargo does not look.
    let files = tidy::paths(gate.root)?;
    let of_ops = |path: &&String| {
        let parts: Vec<_> = path.split('/').collect();
        matches!(parts[..], ["ops", set, file] if set != "src" && tidy::ending(file) == "rs")
    };
    arguments.push("--");
    arguments.extend(files.iter().filter(of_ops).map(String::as_str));
    gate.cargo(&arguments, &[])?;
    Ok(Verdict::Passed(Vec::new()))
}

fn clippy(gate: &Gate) -> Result<Verdict, String> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--quiet"];
    gate.cargo(
        &[&arguments[..], &["--", "--deny", "warnings"]].concat(),
        &[],
    )?;
    Ok(Verdict::Passed(Vec::new()))
}

fn doc(gate: &Gate) -> Result<Verdict, String> {
    let arguments = ["doc", "--workspace", "--no-deps", "--quiet"];
    gate.cargo(&arguments, &[("RUSTDOCFLAGS", "-D warnings")])?;
    Ok(Verdict::Passed(Vec::new()))
}

/// Shows how each test program ended, and what tests left out for want of a tool.
fn test(gate: &Gate) -> Result<Verdict, String> {
    let text = gate.cargo(&["test", "--workspace", "--no-fail-fast"], &[])?;
    Ok(Verdict::Passed(closing_lines(&text)))
}

fn closing_lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("test result: ") || line.starts_with("skipped: "))
        // A program without tests says nothing by saying so.
        .filter(|line| !line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored"))
        .map(str::to_owned)
        .collect()
}

fn deny(gate: &Gate) -> Result<Verdict, String> {
    if let Err(error) = std::process::Command::new("cargo-deny")
        .arg("--version")
        .output()
    {
        return Ok(Verdict::Skipped(format!(
            "cargo-deny does not run ({error}); cargo install --locked cargo-deny@0.20.2"
        )));
    }
    // Advisories need a database that is no package; they are looked at by hand.
    gate.cargo(&["deny", "check", "bans", "licenses", "sources"], &[])?;
    Ok(Verdict::Passed(Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::closing_lines;

    #[test]
    fn closing_lines_of_tests_are_shown_as_they_are() {
        let text = "running 2 tests\ntest a ... ok\nskipped: no cc\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n\
            test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(
            closing_lines(text),
            [
                "skipped: no cc",
                "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured"
            ]
        );
    }
}
