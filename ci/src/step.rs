//! What a step of the gate gives back, and how one runs a program.

use std::path::Path;
use std::process::Command;

/// A failure says all that the user needs to see, in one text of any length.
pub(crate) type Outcome = Result<(), String>;

/// Cargo, in the root of the workspace.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Runs a program and gives what it wrote; when it fails, that is the failure.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{text}\n{command:?} failed: {}", output.status))
    }
}
