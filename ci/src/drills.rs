//! `drills`: the tests that try to hang the host, kill it or make it lie, as one table.
//!
//! The same tests are part of the gate; there they say only whether they passed.

use crate::step::{Gate, Outcome};

/// The packages that have them.
const PACKAGES: &[&str] = &["ds-tests", "ds_conformance", "ds_report"];
/// The test programs that tell what they found (`ds_tests::drill`).
const PROGRAMS: &[&str] = &[
    "drills",
    "faults",
    "fuzz",
    "fuzz_boundary",
    "hostile",
    "kills",
    "mutants",
    "plugins",
    "sim_faults",
];

/// Runs them and prints a table; `long` for as often as a night has room for.
pub(crate) fn print(gate: &Gate, long: bool) -> Outcome {
    // One suite that fails hides no other's rows.
    let mut arguments = vec!["test", "--no-fail-fast"];
    for package in PACKAGES {
        arguments.extend(["--package", package]);
    }
    for program in PROGRAMS {
        arguments.extend(["--test", program]);
    }
    arguments.extend(["--", "--nocapture"]);
    let how_long = if long { "long" } else { "gate" };
    let text = gate.cargo(&arguments, &[("DS_DRILLS", how_long)])?;
    let mut rows: Vec<Vec<&str>> = text.lines().filter_map(row).collect();
    rows.sort();
    println!("| suite | what | found |\n|---|---|---|");
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    for line in text.lines().filter(|line| line.contains("skipped: ")) {
        println!("{line}");
    }
    Ok(())
}

/// The cells of a line, which may stand behind the name of its test.
fn row(line: &str) -> Option<Vec<&str>> {
    let (_, cells) = line.split_once("drill: ")?;
    Some(cells.split(" | ").collect())
}
