//! Has workers verify devices, and notes what becomes of each call.

use std::{env, io, path::PathBuf, time::Duration};

use ds_core::{
    Error, ErrorKind, jit,
    worker::{End, Told, Worker},
};

use super::{
    Device, Failure, On, OpResult, Options, Verdict,
    bench::{Bench, Speed, median},
    worker::{Line, Task, VARIABLE},
};
use crate::{
    progress::Progress,
    view::{Refusal, count},
};

/// Verifies one device after the other.
pub(super) struct Runner {
    program: PathBuf,
    names: Option<Vec<String>>,
    bench: bool,
    /// How long a call may take.
    timeout: Duration,
    /// How long until it can be called: builds take their time, and have a limit of their own.
    until_ready: Duration,
    progress: Progress,
}

impl Runner {
    /// # Errors
    /// When this program's file is not known.
    pub(super) fn new(options: &Options, names: Option<Vec<String>>) -> Result<Self, Error> {
        let program = env::current_exe().map_err(|e| worker_error("find this program", e))?;
        let build = jit::cache().map_or(Duration::ZERO, |cache| cache.settings().timeout);
        let timeout = Duration::from_secs(options.timeout);
        Ok(Self {
            program,
            names,
            bench: options.bench,
            timeout,
            until_ready: timeout.saturating_add(build),
            progress: Progress::new(),
        })
    }

    /// # Errors
    /// When no worker can be started.
    pub(super) fn device(&mut self, accelerator: &str, index: u32) -> Result<Device, Error> {
        let name = format!("{accelerator}:{index}");
        let mut notes = Notes::new(name);
        let mut task = Task {
            accelerator: accelerator.to_owned(),
            index,
            names: self.names.clone(),
            bench: false,
            from: 0,
            quiet: log::max_level() == log::LevelFilter::Off,
        };
        while self.work(&task, &mut notes)? {
            task.from = notes.device.ops.len();
        }
        if self.bench && notes.device.refusal.is_none() {
            // The time that something wrong takes tells nothing.
            let right = notes
                .device
                .ops
                .iter()
                .filter(|op| op.verdict == Verdict::Ok);
            task.names = Some(right.map(|op| op.op.clone()).collect());
            (task.bench, task.from) = (true, 0);
            notes.device.bench = Some(Bench::default());
            while self.work(&task, &mut notes)? {
                task.from = notes.speeds();
            }
        }
        self.progress.clear();
        Ok(notes.into_device())
    }

    /// One worker; whether another one has to go on behind the call that ended it.
    fn work(&mut self, task: &Task, notes: &mut Notes) -> Result<bool, Error> {
        let mut worker = Worker::start(&self.program, VARIABLE, task)
            .map_err(|e| worker_error("start a worker", e))?;
        let mut limit = self.until_ready;
        let end = loop {
            let told = worker.next(limit);
            match told.map_err(|e| worker_error("wait for a worker", e))? {
                Told::End(end) => break end,
                Told::Line(line) => {
                    limit = match line {
                        Line::Ready { .. } | Line::Round => self.timeout,
                        _ => self.until_ready,
                    };
                    notes.note(line);
                    self.progress.tell(&notes.at_work());
                }
            }
        };
        Ok(notes.end(end, limit))
    }
}

fn worker_error(what: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "verify", what).with_source(error)
}

/// What workers told of a device.
struct Notes {
    device: Device,
    /// Cases of the op that was told last.
    cases: usize,
    /// Those of them that began.
    begun: usize,
    /// The call that is at work.
    call: Option<Call>,
    /// GB/s of every copy.
    copies: Vec<f64>,
}

struct Call {
    /// A large one's; a small one is of the op that was told last.
    op: Option<String>,
    case: String,
    /// Once it is ready.
    on: Option<On>,
}

impl Notes {
    fn new(name: String) -> Self {
        Self {
            device: Device {
                name,
                model: String::new(),
                target: String::new(),
                refusal: None,
                ops: Vec::new(),
                bench: None,
            },
            cases: 0,
            begun: 0,
            call: None,
            copies: Vec::new(),
        }
    }

    fn note(&mut self, line: Line) {
        match line {
            Line::Refused(refusal) => self.device.refusal = Some(refusal),
            Line::Opened { model, target } => {
                (self.device.model, self.device.target) = (model, target);
            }
            Line::Op {
                name,
                cases,
                reason,
            } => {
                (self.cases, self.begun) = (cases, 0);
                self.device.ops.push(OpResult::new(name, reason));
            }
            Line::Case(case) => {
                self.begun += 1;
                self.begin(None, case);
            }
            Line::Large { op, case } => self.begin(Some(op), case),
            Line::Ready { on, broken } => {
                if let Some(op) = self.device.ops.last_mut() {
                    op.add_broken(broken);
                }
                if let Some(call) = &mut self.call {
                    call.on = Some(on);
                }
            }
            Line::Done {
                error_bits,
                failures,
            } => {
                let verdict = if failures.is_empty() {
                    Verdict::Ok
                } else {
                    Verdict::Wrong
                };
                // A call that failed did not run on what it was about to.
                let on = self.call.take().and_then(|call| call.on);
                let on = on.filter(|_| error_bits.is_some()).unwrap_or(On::Unknown);
                let error = error_bits.map(f64::from_bits);
                if let Some(op) = self.device.ops.last_mut() {
                    op.add(on, verdict, error, failures);
                }
            }
            Line::NoCopy(why) => {
                if let Some(bench) = &mut self.device.bench {
                    bench.copy_reason.get_or_insert(why);
                }
            }
            Line::Round => {}
            Line::Speed { speed, copies } => {
                self.call = None;
                self.copies.extend(copies);
                self.add_speed(speed);
            }
        }
    }

    fn begin(&mut self, op: Option<String>, case: String) {
        self.call = Some(Call { op, case, on: None });
    }

    fn add_speed(&mut self, speed: Speed) {
        if let Some(bench) = &mut self.device.bench {
            bench.speeds.push(speed);
        }
    }

    /// How many large calls are done with.
    fn speeds(&self) -> usize {
        let bench = self.device.bench.as_ref();
        bench.map_or(0, |bench| bench.speeds.len())
    }

    /// A worker ended, so, after a wait of `limit` if it had to be killed; whether another one has to
    /// go on.
    fn end(&mut self, end: End, limit: Duration) -> bool {
        let call = self.call.take();
        if end == End::Exited(0) && call.is_none() {
            return false;
        }
        let (verdict, mut text) = match end {
            End::TimedOut => {
                let text = format!("no answer within {} s", limit.as_secs());
                (Verdict::NoAnswer, text)
            }
            end => (Verdict::Crashed, format!("crashed: {end}")),
        };
        let Some(call) = call else {
            self.device.refusal = Some(Refusal {
                reason: format!("{text} {}", self.between()),
                hint: Some("DS_LOG=debug tells what was done last".to_owned()),
            });
            return false;
        };
        if call.on.is_none() {
            text += ", while it was built, loaded and prepared";
        }
        if let Some(op) = call.op {
            self.add_speed(Speed::of_crash(op, call.case, text));
            return true;
        }
        if let Some(op) = self.device.ops.last_mut() {
            if self.begun < self.cases {
                let untried = count(self.cases - self.begun, "case");
                text = format!("{text}; {untried} behind it not tried");
            }
            let failure = Failure::without_end(&call.case, text);
            op.add(call.on.unwrap_or(On::Unknown), verdict, None, vec![failure]);
        }
        true
    }

    /// What a worker is at that is at no call.
    fn between(&self) -> String {
        if self.device.model.is_empty() {
            return "while the device was opened".to_owned();
        }
        let last = self.device.ops.last();
        last.map_or("before the first op".to_owned(), |op| {
            format!("after {}", op.op)
        })
    }

    fn at_work(&self) -> String {
        let name = &self.device.name;
        match (&self.call, self.device.ops.last()) {
            (
                Some(Call {
                    op: Some(op), case, ..
                }),
                _,
            ) => format!("{name}: measures {op} {case}"),
            (Some(_), Some(op)) => {
                format!("{name}: {} {} of {}", op.op, self.begun, self.cases)
            }
            _ => name.clone(),
        }
    }

    fn into_device(mut self) -> Device {
        if let Some(bench) = &mut self.device.bench
            && !self.copies.is_empty()
        {
            bench.copy_gb_per_s = Some(median(self.copies));
        }
        self.device
    }
}
