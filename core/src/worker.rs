//! Workers: a program starts itself once more, with a task, for work that may crash or hang. The
//! child tells in lines how far it is; when it dies, the program knows what it was at and goes on.
//!
//! A worker tells on its own copy of standard output; what others print there goes to standard error.
//! It runs as long as it likes, in silence as long as its program lets it, and never longer than the
//! thread that started it.

use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader, PipeReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

pub use crate::child::End;
use crate::child::Running;

/// A worker that was started.
#[derive(Debug)]
pub struct Worker<L> {
    running: Running,
    lines: Receiver<L>,
}

/// What a worker tells next.
#[derive(Debug)]
pub enum Told<L> {
    /// A line.
    Line(L),
    /// Nothing more: it ended so.
    End(End),
}

impl<L: DeserializeOwned + Send + 'static> Worker<L> {
    /// Starts `program`, which calls [`answer`] with the same `variable`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, variable: &str, task: &impl Serialize) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command
            .env(variable, serde_json::to_string(task)?)
            .stdin(Stdio::null())
            .stdout(writer);
        let running = Running::start(command, None)?;
        let (sender, lines) = mpsc::channel();
        // Ends with the pipe; what is no line of ours was written by somebody who guessed where.
        let read = move |reader: PipeReader| {
            let lines = BufReader::new(reader).lines().map_while(Result::ok);
            lines
                .filter_map(|line| serde_json::from_str(&line).ok())
                .all(|line| sender.send(line).is_ok())
        };
        thread::Builder::new()
            .name("ds-worker".to_owned())
            .spawn(move || read(reader))?;
        Ok(Self { running, lines })
    }

    /// What it tells next; it is killed when it tells nothing for so long.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Told<L>> {
        let deadline = Instant::now() + timeout;
        let mut in_time = match self.lines.recv_timeout(timeout) {
            Ok(line) => return Ok(Told::Line(line)),
            Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        };
        // It has closed its end of the pipe, and is about to end.
        while in_time && !self.running.has_ended()? {
            thread::sleep(Duration::from_millis(1));
            in_time = Instant::now() < deadline;
        }
        let status = self.running.kill_group_and_reap()?;
        Ok(Told::End(End::new(status, !in_time)))
    }
}

/// The worker's way to tell.
#[derive(Debug)]
pub struct Teller(File);

impl Teller {
    /// # Errors
    /// When the program is gone.
    pub fn tell(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.0.write_all(text.as_bytes())
    }
}

/// Does a worker's task, if this process is one: then the program ends with what this returns.
///
/// # Errors
/// What `work` gives, or a task that is not understood.
pub fn answer<T: DeserializeOwned>(
    variable: &str,
    work: impl FnOnce(&T, &mut Teller) -> io::Result<()>,
) -> Option<io::Result<()>> {
    let task = env::var(variable).ok()?;
    let done = || {
        let task: T = serde_json::from_str(&task)?;
        let mut teller = Teller(File::from(rustix::io::dup(io::stdout())?));
        rustix::stdio::dup2_stdout(io::stderr())?;
        work(&task, &mut teller)
    };
    Some(done())
}
