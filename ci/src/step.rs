//! What a step of the gate is, and how it runs programs.

use std::path::Path;
use std::process::{Command, Stdio};

/// A failure says all that the user needs to see, in one text of any length.
pub(crate) type Outcome = Result<(), String>;

/// One step of the gate.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// The command that runs it alone.
    pub(crate) name: &'static str,
    /// What it does, in a line of the help.
    pub(crate) about: &'static str,
    /// Whether it can write what it finds wrong.
    pub(crate) writes: bool,
    /// Does it.
    pub(crate) run: fn(&Gate) -> Result<Verdict, String>,
}

/// How a step ended that did not fail.
pub(crate) enum Verdict {
    /// All is well; lines that are worth showing all the same.
    Passed(Vec<String>),
    /// It could not run here; how to make it run.
    Skipped(String),
}

/// What every step is run with.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    /// The root of the workspace.
    pub(crate) root: &'static Path,
    /// Write instead of complaining, where the step can.
    pub(crate) fix: bool,
    /// Show what programs write while they run, instead of collecting it.
    pub(crate) live: bool,
}

impl Gate {
    /// A gate that changes nothing and is silent.
    pub(crate) fn new(root: &'static Path) -> Self {
        Self {
            root,
            fix: false,
            live: false,
        }
    }

    /// Runs cargo in the workspace.
    pub(crate) fn cargo(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = cargo(self.root);
        command.args(arguments).envs(variables.iter().copied());
        if self.live {
            command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        }
        run(&mut command)
    }
}

/// What a program wrote, or, when it failed, what it wrote and that it failed.
pub(crate) type Ran = Result<String, String>;

/// Cargo, in the root of the workspace.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", words(command)))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{text}`{}`: {}", words(command), output.status))
    }
}

/// The command line, for a message.
fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
