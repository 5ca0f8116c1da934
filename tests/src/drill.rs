//! What the drills share: how long they go on, and the lines that `cargo xtask drills` makes a table
//! of.
#![allow(clippy::print_stdout, reason = "the rows are read from there")]

/// So many times in the gate, or so many when `DS_DRILLS=long` asks for a night's work.
pub fn times(gate: u64, long: u64) -> u64 {
    match std::env::var("DS_DRILLS").as_deref() {
        Ok("long") => long,
        _ => gate,
    }
}

/// One row of the table: what was done to whom, and what came of it.
pub fn tell(suite: &str, what: &str, found: &str) {
    println!("drill: {suite} | {what} | {found}");
}
