//! Runs checks in child processes and collects what becomes of them.
//!
//! A child tells on its own copy of standard output, one JSON line before each check and one after
//! it; what the plugin prints goes to standard error. A child that dies has failed the check that it
//! had begun, and the next child goes on behind it.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use serde::{Deserialize, Serialize};

use crate::{
    Options,
    check::{Level, Outcome},
    report::Checked,
    subject::Subject,
};

/// What a child is asked: plugin, level, first check, end.
const VARIABLE: &str = "DS_CONFORMANCE_WORKER";
/// The name under which it is told that a level's checks cannot be listed.
pub(crate) const LIST: &str = "open";

/// What a child is to do.
#[derive(Serialize, Deserialize)]
struct Task {
    plugin: String,
    level: Level,
    only: String,
    from: usize,
    /// Only this one.
    alone: bool,
}

/// What a child tells.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// There are so many checks.
    Count(usize),
    /// The checks cannot be listed.
    Closed(String),
    /// The next check begins.
    Begin(String),
    /// It ended.
    End(Outcome),
}

/// Does a worker's task, if this process is one: then it returns true and the program ends.
pub fn answer() -> bool {
    let Ok(task) = env::var(VARIABLE) else {
        return false;
    };
    // Children of this process are no workers.
    if let Ok(task) = serde_json::from_str(&task) {
        let _ = work(&task);
    }
    true
}

fn work(task: &Task) -> std::io::Result<()> {
    let mut out = File::from(rustix::io::dup(std::io::stdout())?);
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    let mut tell =
        |line: &Line| -> std::io::Result<()> { writeln!(out, "{}", serde_json::to_string(line)?) };
    let checks = Subject::find(&task.plugin).and_then(|subject| task.level.checks(&subject));
    let mut checks = match checks {
        Ok(checks) => checks,
        Err(why) => return tell(&Line::Closed(why)),
    };
    checks.retain(|check| check.name.contains(&task.only));
    tell(&Line::Count(checks.len()))?;
    let most = if task.alone { 1 } else { usize::MAX };
    for check in checks.into_iter().skip(task.from).take(most) {
        tell(&Line::Begin(check.name.clone()))?;
        tell(&Line::End(check.outcome()))?;
    }
    Ok(())
}

/// Every check of a level, each ended somehow.
pub(crate) fn run(options: &Options, level: Level) -> Result<Vec<Checked>, String> {
    let mut done = Vec::new();
    loop {
        let part = part(options, level, done.len())?;
        let count = part.count;
        let went_on = !part.checked.is_empty();
        done.extend(part.checked);
        match count {
            Some(count) if done.len() < count && went_on => {}
            _ => return Ok(done),
        }
    }
}

/// What one child did.
struct Part {
    checked: Vec<Checked>,
    /// How many checks there are; unknown when the child did not come that far.
    count: Option<usize>,
}

impl Part {
    fn add(&mut self, level: Level, name: String, outcome: Outcome) {
        self.checked.push(Checked {
            level,
            name,
            outcome,
        });
    }

    /// Without a check that had begun, listing them has failed.
    fn fail(&mut self, level: Level, begun: Option<String>, why: String) {
        let name = begun.unwrap_or_else(|| LIST.to_owned());
        self.add(level, name, Outcome::Failed { why });
    }
}

fn part(options: &Options, level: Level, from: usize) -> Result<Part, String> {
    let task = Task {
        plugin: options.plugin.clone(),
        level,
        only: options.only.clone(),
        from,
        alone: level.is_isolated(),
    };
    let task = serde_json::to_string(&task).map_err(|e| e.to_string())?;
    let mut child = Command::new(&options.helper)
        .env(VARIABLE, task)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("run {}: {e}", options.helper.display()))?;
    let (sender, lines) = mpsc::channel();
    let output = child.stdout.take();
    let reader = thread::spawn(move || {
        let lines = output.into_iter().flat_map(|o| BufReader::new(o).lines());
        for line in lines.map_while(Result::ok) {
            let line: Option<Line> = serde_json::from_str(&line).ok();
            if line.is_none_or(|line| sender.send(line).is_err()) {
                return;
            }
        }
    });

    let mut part = Part {
        checked: Vec::new(),
        count: None,
    };
    let mut begun: Option<String> = None;
    let timed_out = loop {
        match lines.recv_timeout(options.timeout) {
            Ok(Line::Count(count)) => part.count = Some(count),
            Ok(Line::Closed(why)) => part.fail(level, None, why),
            Ok(Line::Begin(name)) => begun = Some(name),
            Ok(Line::End(outcome)) => {
                let name = begun.take().unwrap_or_default();
                part.add(level, name, outcome);
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if timed_out {
        // It may have ended meanwhile; then there is nobody to kill.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    // With the child its end of the pipe is gone.
    let _ = reader.join();
    if timed_out {
        let seconds = options.timeout.as_secs();
        part.fail(
            level,
            begun.take(),
            format!("it did not end within {seconds} s"),
        );
    } else if begun.is_some() || !status.success() {
        part.fail(level, begun.take(), ended(status));
    }
    Ok(part)
}

fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("the process crashed with signal {signal}"),
        None => format!(
            "the process ended with code {}",
            status.code().unwrap_or(-1)
        ),
    }
}
