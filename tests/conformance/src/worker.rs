//! Runs checks in workers and collects what becomes of them.
//!
//! A worker tells of each check before it and after it. One that dies has failed the check that it had
//! begun, and the next one goes on behind it.

use std::io;

use ds_core::worker::{self, End, Teller, Told, Worker};
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
    // A worker whose program is gone has nobody to tell.
    worker::answer(VARIABLE, work).is_some()
}

fn work(task: &Task, teller: &mut Teller) -> io::Result<()> {
    let checks = Subject::find(&task.plugin).and_then(|subject| task.level.checks(&subject));
    let mut checks = match checks {
        Ok(checks) => checks,
        Err(why) => return teller.tell(&Line::Closed(why)),
    };
    checks.retain(|check| check.name.contains(&task.only));
    teller.tell(&Line::Count(checks.len()))?;
    let most = if task.alone { 1 } else { usize::MAX };
    for check in checks.into_iter().skip(task.from).take(most) {
        teller.tell(&Line::Begin(check.name.clone()))?;
        teller.tell(&Line::End(check.outcome()))?;
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
    let mut worker = Worker::start(&options.helper, VARIABLE, &task)
        .map_err(|e| format!("run {}: {e}", options.helper.display()))?;
    let mut part = Part {
        checked: Vec::new(),
        count: None,
    };
    let mut begun: Option<String> = None;
    let end = loop {
        match worker.next(options.timeout).map_err(|e| e.to_string())? {
            Told::Line(Line::Count(count)) => part.count = Some(count),
            Told::Line(Line::Closed(why)) => part.fail(level, None, why),
            Told::Line(Line::Begin(name)) => begun = Some(name),
            Told::Line(Line::End(outcome)) => {
                let name = begun.take().unwrap_or_default();
                part.add(level, name, outcome);
            }
            Told::End(end) => break end,
        }
    };
    match end {
        End::Exited(0) if begun.is_none() => {}
        End::Exited(code) => part.fail(level, begun, format!("the process ended with code {code}")),
        End::Signalled(_) => part.fail(level, begun, format!("the process crashed with {end}")),
        End::TimedOut => {
            let seconds = options.timeout.as_secs();
            part.fail(level, begun, format!("it did not end within {seconds} s"));
        }
    }
    Ok(part)
}
