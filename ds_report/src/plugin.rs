//! `ds_report plugin`: starts a plugin, adds it for this user, removes it.

mod add;
mod new;
mod place;
mod remove;
mod tree;

use std::{env, path::Path, process::ExitCode};

use clap::Subcommand;
use ds_core::Host;

use crate::view::{Outcome, show};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a plugin's folder, open it in a child process, and copy it to where programs find it.
    Add(add::Options),
    /// Remove a plugin that `add` copied.
    Remove(remove::Options),
    /// Write the smallest plugin that loads, to start your own from.
    New(new::Options),
}

pub(crate) fn run(json: bool, host: &Host, command: &Command) -> Result<ExitCode, Outcome> {
    match command {
        Command::Add(options) => show(json, &add::view(options)),
        Command::Remove(options) => show(json, &remove::view(host, options)?),
        Command::New(options) => show(json, &new::view(options)?),
    }
}

/// This program as its user called it, for commands to copy.
fn program() -> String {
    let called = env::args_os().next();
    called.map_or("ds_report".to_owned(), |name| shell(Path::new(&name)))
}

/// A path as a shell reads it.
fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The schema of each view, for `schema.rs`.
#[cfg(test)]
pub(crate) fn schemas() -> [(&'static str, schemars::Schema); 3] {
    [
        ("plugin-add", schemars::schema_for!(add::Added)),
        ("plugin-new", schemars::schema_for!(new::New)),
        ("plugin-remove", schemars::schema_for!(remove::Removed)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_path_as_one_word() {
        for (path, word) in [
            ("a/b-1.so", "a/b-1.so"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell(Path::new(path)), word);
        }
    }
}
