//! `--profile`: the program once more with the host's per-op trace on, and the trace as a table.
//!
//! The trace is asked for by an environment variable that the host reads when it starts, so the
//! program starts itself. Each op is waited for there (`DS_DEBUG=sync`), because on an asynchronous
//! stream the time of a call is not that of its work.

use std::{collections::BTreeMap, env, path::Path, process::Command};

use ds_core::{Error, ErrorKind, Result};
use serde::Deserialize;

/// Where the host writes its trace.
const TRACE: &str = "DS_TRACE";
/// What of the trace is told.
pub(crate) const RANGE: &str = "profiled";
/// Says that this process is the traced one.
const CHILD: &str = "DS_EXAMPLE_TRACED";

/// Whether this process is the one that [`run_traced`] started.
pub(crate) fn is_traced() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs this program again with these arguments and the trace on; prints what it says, and the table.
pub(crate) fn run_traced() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| failed(&e))?;
    let trace = folder.path().join("trace.json");
    let program = env::current_exe().map_err(|e| failed(&e))?;
    let status = Command::new(program)
        .args(env::args_os().skip(1))
        .envs([(TRACE, trace.as_os_str())])
        .envs([(CHILD, "1"), ("DS_DEBUG", "sync")])
        .status()
        .map_err(|e| failed(&e))?;
    if !status.success() {
        return Err(failed(&format!("the traced run ended with {status}")));
    }
    print(&events(&trace)?)
}

fn failed(why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, "profile", why.to_string())
}

/// What the table needs of an event of Chrome's trace format; times in microseconds.
#[derive(Deserialize)]
struct Event {
    name: String,
    ts: f64,
    dur: f64,
    args: Arguments,
}

#[derive(Deserialize)]
struct Arguments {
    /// Empty for a range of the program's own.
    kernel: String,
}

fn events(trace: &Path) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(trace).map_err(|e| failed(&e))?;
    // A list that is never closed: one event a line.
    let lines = text.lines().skip(1).map(|line| line.trim_end_matches(','));
    lines
        .map(|line| serde_json::from_str(line).map_err(|e| failed(&e)))
        .collect()
}

/// A line for each op and kernel within the range [`RANGE`].
#[allow(clippy::print_stdout, reason = "the table is what was asked for")]
fn print(events: &[Event]) -> Result<()> {
    let range = events
        .iter()
        .find(|event| event.name == RANGE && event.args.kernel.is_empty())
        .ok_or_else(|| failed(&format!("the trace has no range {RANGE}")))?;
    let within = |event: &&Event| {
        !event.args.kernel.is_empty()
            && event.ts >= range.ts
            && event.ts + event.dur <= range.ts + range.dur
    };
    let mut rows: BTreeMap<(&str, &str), (u32, f64)> = BTreeMap::new();
    let mut total = 0.0;
    for event in events.iter().filter(within) {
        let row = rows.entry((&event.name, &event.args.kernel)).or_default();
        row.0 += 1;
        row.1 += event.dur;
        total += event.dur;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let width =
        |of: fn(&(&str, &str)) -> usize| rows.iter().map(|(key, _)| of(key)).max().unwrap_or(0);
    let (op, kernel) = (width(|key| key.0.len()), width(|key| key.1.len()));
    println!(
        "\n{:<op$}  {:<kernel$}  calls          us   share",
        "op", "kernel"
    );
    for ((name, ran), (calls, us)) in &rows {
        let share = 100.0 * us / total;
        println!("{name:<op$}  {ran:<kernel$}  {calls:>5}  {us:>10.1}  {share:>4.1} %");
    }
    println!(
        "{:<op$}  {:<kernel$}  {:>5}  {total:>10.1}",
        "all",
        "",
        rows.iter().map(|row| row.1.0).sum::<u32>()
    );
    Ok(())
}
