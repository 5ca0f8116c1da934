//! Runs one child: given variables alone, no input, its output captured, a deadline, and no life
//! after its parent. Knows nothing of compilers, plugins and caches. Children that are talked to
//! while they run are [`crate::worker`]'s.

use std::{
    ffi::OsString,
    fmt,
    io::{self, PipeReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{self, Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions},
};

/// The log keeps this many bytes: errors that matter come first, and a loop of warnings must not
/// fill the disk.
const LOG_CAP_BYTES: usize = 1 << 20;
/// How long to wait for output before looking whether the child is gone without closing its end.
const SLICE: Duration = Duration::from_millis(20);

/// A child to run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<&'a str>,
    /// Its working folder.
    pub(crate) folder: &'a Path,
    /// All the variables that it sees.
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) timeout: Duration,
}

/// How a child ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) end: End,
    pub(crate) log: Vec<u8>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It was killed because it took too long.
    TimedOut,
}

impl End {
    pub(crate) fn new(status: ExitStatus, timed_out: bool) -> Self {
        match (timed_out, status.code(), status.signal()) {
            (true, ..) => Self::TimedOut,
            (false, Some(code), _) => Self::Exited(code),
            (false, None, signal) => Self::Signalled(signal.unwrap_or_default()),
        }
    }
}

/// As what a crash is told by: `signal SIGSEGV`.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Signal, &str); 10] = [
            (Signal::ABORT, "SIGABRT"),
            (Signal::BUS, "SIGBUS"),
            (Signal::FPE, "SIGFPE"),
            (Signal::HUP, "SIGHUP"),
            (Signal::ILL, "SIGILL"),
            (Signal::INT, "SIGINT"),
            (Signal::KILL, "SIGKILL"),
            (Signal::SEGV, "SIGSEGV"),
            (Signal::TERM, "SIGTERM"),
            (Signal::TRAP, "SIGTRAP"),
        ];
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(number) => {
                let known = NAMES.iter().find(|(s, _)| s.as_raw() == *number);
                match known {
                    Some((_, name)) => write!(f, "signal {name}"),
                    None => write!(f, "signal {number}"),
                }
            }
            Self::TimedOut => f.write_str("no end in time"),
        }
    }
}

impl Run<'_> {
    /// Runs the child to its end, and kills what is left of its process group.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub(crate) fn finish(&self) -> io::Result<Finished> {
        let deadline = Instant::now() + self.timeout;
        let (output, mut running) = self.start()?;
        let mut log = Log {
            output: Some(output),
            kept: Vec::new(),
            dropped_bytes: 0,
        };
        let timed_out = loop {
            log.wait_and_read(SLICE.min(deadline.saturating_duration_since(Instant::now())))?;
            if running.has_ended()? {
                break false;
            }
            if Instant::now() >= deadline {
                break true;
            }
        };
        let status = running.kill_group_and_reap()?;
        // What was written before the end is in the pipe already.
        while log.wait_and_read(Duration::ZERO)? {}
        Ok(Finished {
            end: End::new(status, timed_out),
            log: log.into_bytes(),
        })
    }

    fn start(&self) -> io::Result<(PipeReader, Running)> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        Ok((reader, Running::start(command, Some(self.timeout))?))
    }
}

/// Has the kernel kill the child when the thread that starts it dies; that thread waits for it.
/// The signal reaches the child alone, not what it started: with a `timeout` that is bounded by the
/// processor time.
fn die_with_parent(command: &mut Command, timeout: Option<Duration>) {
    let parent = process::getpid();
    // A compiler may use every core for the whole time that it is given.
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let seconds = timeout.map(|timeout| timeout.as_secs().max(1).saturating_mul(cores));
    let prepare = move || -> io::Result<()> {
        process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above.
        if process::getppid() != Some(parent) {
            return Err(Errno::SRCH.into());
        }
        let Some(seconds) = seconds else {
            return Ok(());
        };
        let old = process::getrlimit(Resource::Cpu);
        let limit = old.maximum.map_or(seconds, |maximum| maximum.min(seconds));
        let new = Rlimit {
            current: Some(limit),
            maximum: old.maximum,
        };
        process::setrlimit(Resource::Cpu, new)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes four system calls (prctl, getppid, getrlimit,
    // setrlimit) through rustix, which issues them directly; it touches only what it owns, takes no
    // lock, allocates nothing (errors are plain codes), and so is async-signal-safe.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A started child; killed with its group and reaped on every way out.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    /// Starts it in a group of its own; without a `timeout` it may use the processor for ever. What
    /// `command` holds is closed here, so a pipe to the child ends with the child.
    pub(crate) fn start(mut command: Command, timeout: Option<Duration>) -> io::Result<Self> {
        command.process_group(0);
        die_with_parent(&mut command, timeout);
        Ok(Self {
            child: command.spawn()?,
            reaped: false,
        })
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether the child has ended; leaves it unreaped, so that its number still means its group.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        let Some(pid) = self.pid() else {
            return Ok(true);
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(process::waitid(WaitId::Pid(pid), options)?.is_some())
    }

    pub(crate) fn kill_group_and_reap(&mut self) -> io::Result<ExitStatus> {
        if let Some(pid) = self.pid() {
            // Fails only when nobody is left.
            let _ = process::kill_process_group(pid, Signal::KILL);
        }
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.kill_group_and_reap();
        }
    }
}

/// What the child writes, up to a cap; the rest is read and dropped, so that it never blocks.
struct Log {
    output: Option<PipeReader>,
    kept: Vec<u8>,
    dropped_bytes: u64,
}

impl Log {
    /// Waits at most `slice` for output and reads a piece; gives whether there was one.
    fn wait_and_read(&mut self, slice: Duration) -> io::Result<bool> {
        let Some(output) = &mut self.output else {
            // Everybody closed it: the child is about to end, or works on in silence.
            thread::sleep(slice.min(Duration::from_millis(1)));
            return Ok(false);
        };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(slice.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&*output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut piece = [0; 16 << 10];
        let read = output.read(&mut piece)?;
        if read == 0 {
            self.output = None;
            return Ok(false);
        }
        let kept = read.min(LOG_CAP_BYTES - self.kept.len());
        self.kept.extend_from_slice(&piece[..kept]);
        self.dropped_bytes += (read - kept) as u64;
        Ok(true)
    }

    fn into_bytes(mut self) -> Vec<u8> {
        if self.dropped_bytes > 0 {
            let note = format!("\n[{} more bytes were not kept]\n", self.dropped_bytes);
            self.kept.extend_from_slice(note.as_bytes());
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        Run {
            program: Path::new("/bin/sh"),
            arguments: vec!["-c", script],
            folder: folder.path(),
            variables: vec![("PATH".into(), "/usr/bin:/bin".into())],
            timeout,
        }
        .finish()
        .unwrap()
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn both_outputs_and_the_end_are_reported() {
        let done = shell("echo out; echo err >&2; exit 3", LONG);
        assert_eq!(
            (done.end, done.log.as_slice()),
            (End::Exited(3), &b"out\nerr\n"[..])
        );
        assert_eq!(shell("kill -SEGV $$", LONG).end, End::Signalled(11));
        let done = shell("exec >&- 2>&-; exit 4", LONG);
        assert_eq!((done.end, done.log.len()), (End::Exited(4), 0));
        assert_eq!(shell("read line; echo \"[$line]\"", LONG).log, b"[]\n");
    }

    #[test]
    fn the_deadline_kills_the_whole_group() {
        // The child of the child holds the pipe as well, and would keep it open for long.
        let started = Instant::now();
        let done = shell("sleep 50 & sleep 50", Duration::from_millis(100));
        assert_eq!(done.end, End::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(25));
    }

    #[test]
    fn nothing_that_the_child_started_stays() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        // Opened first: it hangs up as soon as the last writer that it has seen is gone.
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let file = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).unwrap();
        let script = format!("exec 9<>{}; sleep 50 & echo done", fifo.display());
        let started = Instant::now();
        let done = shell(&script, LONG);
        assert_eq!(
            (done.end, done.log.as_slice()),
            (End::Exited(0), &b"done\n"[..])
        );
        let mut polled = [PollFd::new(&file, PollFlags::IN)];
        poll(
            &mut polled,
            Some(&Timespec {
                tv_sec: 25,
                tv_nsec: 0,
            }),
        )
        .unwrap();
        assert_eq!(polled[0].revents(), PollFlags::HUP);
        assert!(started.elapsed() < Duration::from_secs(25));
    }

    #[test]
    fn the_log_is_capped_and_says_so() {
        let script = format!("head -c {} /dev/zero", LOG_CAP_BYTES + 5);
        let done = shell(&script, LONG);
        assert_eq!(done.end, End::Exited(0));
        assert_eq!(
            &done.log[LOG_CAP_BYTES..],
            b"\n[5 more bytes were not kept]\n"
        );
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let run = Run {
            program: Path::new("/nonexistent/cc"),
            arguments: Vec::new(),
            folder: Path::new("/"),
            variables: Vec::new(),
            timeout: LONG,
        };
        assert_eq!(run.finish().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
