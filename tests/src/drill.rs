//! What the drills share: how long they go on, and the lines that `cargo xtask drills` makes a table
//! of.
#![allow(clippy::print_stdout, reason = "the rows are read from there")]

use std::{
    io::{self, Read},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

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

/// Numbers that look like chance and are the same each time.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A moment before `end`.
    pub fn moment(&mut self, end: Duration) -> Duration {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Duration::from_micros(z % u64::try_from(end.as_micros().max(1)).unwrap_or(u64::MAX))
    }
}

/// Runs a child until it ends by itself, or kills it after `time`: then there is no status. Gives
/// what it wrote to standard output, too.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn run_for(command: &mut Command, time: Duration) -> io::Result<(Option<ExitStatus>, String)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let (ended, end) = mpsc::channel();
    let output = child.stdout.take();
    thread::spawn(move || {
        let mut text = Vec::new();
        // What was written before a kill is of no account.
        let _ = output.map(|mut output| output.read_to_end(&mut text));
        // Nobody listens any more to a child that was killed.
        let _ = ended.send(String::from_utf8_lossy(&text).into_owned());
    });
    if let Ok(text) = end.recv_timeout(time) {
        return Ok((Some(child.wait()?), text));
    }
    child.kill()?;
    child.wait()?;
    Ok((None, String::new()))
}
