//! What all views share: text or JSON from one struct, colour where there is a terminal, exit codes.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use ds_core::Error;
use serde::{Deserialize, Serialize};

/// What was asked for failed.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const WRONG: u8 = 2;
/// A requirement does not hold.
pub(crate) const UNMET: u8 = 3;

pub(crate) const HEADING: Style = Style::new().bold();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const DOUBTFUL: Style = AnsiColor::Yellow.on_default();

/// Data that a person can read too.
pub(crate) trait View: Serialize {
    /// The text, with the styles above; they are left out where the output is no terminal.
    fn text(&self) -> String;

    /// What does not hold of what was asked for: written behind the view, with its exit code.
    fn failure(&self) -> Option<Outcome> {
        None
    }
}

/// How a command ends that does not end well.
#[derive(Debug)]
pub(crate) struct Outcome {
    code: u8,
    message: String,
}

impl Outcome {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What was asked for cannot be had.
    pub(crate) fn failed(what: &str) -> Self {
        Self::new(FAILED, format!("{BAD}error{BAD:#}: {what}\n"))
    }

    /// What was asked for cannot be had, and what could be.
    pub(crate) fn refused(what: &str, hint: &str) -> Self {
        let text = format!("{BAD}error{BAD:#}: {what}\nhint: {hint}\n");
        Self::new(FAILED, text)
    }

    /// A command line that cannot be meant, and what could be.
    pub(crate) fn wrong(what: &str, hint: &str) -> Self {
        Self::new(WRONG, format!("{BAD}error{BAD:#}: {what}\nhint: {hint}\n"))
    }

    /// Writes the message to standard error.
    pub(crate) fn tell(self) -> ExitCode {
        let _ = anstream::stderr().write_all(self.message.as_bytes());
        ExitCode::from(self.code)
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::new(FAILED, format!("{BAD}error{BAD:#}: {error:?}\n"))
    }
}

/// An error as data: what was found, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            reason: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl Refusal {
    /// Without the operation, where the words around it tell that.
    pub(crate) fn short(error: &Error) -> Self {
        let mut refusal = Self::from(error);
        if let Some(short) = refusal.reason.strip_prefix(&format!("{}: ", error.op())) {
            refusal.reason = short.to_owned();
        }
        refusal
    }

    /// Reason and hint in one line.
    pub(crate) fn line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.reason),
            None => self.reason.clone(),
        }
    }

    /// The hint in a line of its own below the reason, indented by `width`.
    pub(crate) fn hint_below(&self, text: &mut String, width: usize) {
        if let Some(hint) = &self.hint {
            let hint = hint.replace('\n', &format!("\n{:1$}", "", width + 6));
            let _ = writeln!(text, "{:width$}hint: {hint}", "");
        }
    }
}

/// `1 kernel`, `2 kernels`.
pub(crate) fn count(n: usize, of: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {of}{plural}")
}

/// Prints a view as JSON or as text.
pub(crate) fn show(json: bool, view: &impl View) -> Result<ExitCode, Outcome> {
    let printed = if json {
        serde_json::to_string_pretty(view).map_err(|e| {
            Outcome::new(FAILED, format!("error: the view cannot be written: {e}\n"))
        })? + "\n"
    } else {
        view.text()
    };
    let mut out = anstream::stdout();
    let written = out.write_all(printed.as_bytes()).and_then(|()| out.flush());
    match written {
        // A reader that has seen enough closes the pipe; that is no failure of the view.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            return Err(Outcome::failed(&format!("write to standard output: {e}")));
        }
        _ => {}
    }
    view.failure().map_or(Ok(ExitCode::SUCCESS), Err)
}
