//! The devices that a command is for: those that `--device` names, or else those that are selected.

use std::{env, ffi::OsString};

use ds_core::{
    Error, Host,
    selection::{Share, VARIABLE},
};

/// # Errors
/// That of the selection, in the words of the command line where an option was `asked` with.
pub(crate) fn shares(
    host: &Host,
    command: &'static str,
    asked: Option<&str>,
) -> Result<Vec<Share>, Error> {
    let chosen = match asked {
        None => host.select()?,
        Some(asked) => host
            .select_with(|name| match name {
                VARIABLE => Some(OsString::from(asked)),
                _ => env::var_os(name),
            })
            .map_err(|e| of_the_option(command, &e))?,
    };
    let mut shares = vec![chosen.primary];
    shares.extend(chosen.others);
    Ok(shares)
}

fn of_the_option(command: &'static str, error: &Error) -> Error {
    let context = error
        .context()
        .replace(&format!("{VARIABLE}="), "--device ");
    let own = Error::new(error.kind(), command, context);
    match error.hint() {
        Some(hint) => own.with_hint(hint.to_owned()),
        None => own,
    }
}
