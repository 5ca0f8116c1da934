//! A launch under `DS_DEBUG`: waited for, and under `shadow` held against the reference
//! implementation, so that what is wrong is told by the call that it is of.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use ds_schema::Attr;

use super::{
    Op,
    call::{Args, launch_kernel, warn},
    prepare::Prepared,
    reference,
    verify::{exact, hold_call},
};
use crate::{Error, ErrorKind, Result, debug, stream::Stream};

/// Launches and waits; under `shadow` an element beyond the schema's tolerance is an error.
#[cold]
pub(super) fn launch(
    op: &'static Op,
    prepared: &Prepared,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<()> {
    let launch = || launch_unheld(op, prepared, stream, args, scalars);
    if !stream.device().settings().debug.shadow {
        return launch();
    }
    debug::before(stream, op.name())?;
    // Before the launch: what it updates is not there any more afterwards.
    let before = reference::download(stream, args, attributes, scalars)?;
    let want = match exact(op, &before) {
        Ok(want) => want,
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            note_unchecked(op, &e);
            return launch();
        }
        Err(e) => return Err(e),
    };
    launch()?;
    let wrong = match hold_call(op, stream, args, &before, &want) {
        Ok((_, wrong)) => wrong,
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            note_unchecked(op, &e);
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    let Some(first) = wrong.first() else {
        return Ok(());
    };
    let text = format!("{}: {first}", describe(op, prepared, stream, args));
    let error = Error::new(ErrorKind::PluginBug, op.name(), text);
    log::error!("{error}");
    Err(error)
}

/// Launches and waits, for a caller that holds the result against the reference itself.
pub(super) fn launch_unheld(
    op: &'static Op,
    prepared: &Prepared,
    stream: &Stream,
    args: &[Args<'_>],
    scalars: &[Attr],
) -> Result<()> {
    let what = || describe(op, prepared, stream, args);
    debug::before(stream, op.name())?;
    debug::through(stream, op.name(), what, || {
        launch_kernel(prepared, stream, args, scalars)
    })
}

/// What was launched where and with what, as `ds_report explain` takes it.
fn describe(op: &Op, prepared: &Prepared, stream: &Stream, args: &[Args<'_>]) -> String {
    let kernel = &prepared.kernel().name;
    let mut text = format!("kernel {kernel} on {} with", stream.device());
    for (argument, tensors) in op.schema().arguments().iter().zip(args) {
        for (at, tensor) in tensors.iter().enumerate() {
            let lead = if at == 0 {
                format!(" {}=", argument.name)
            } else {
                ",".to_owned()
            };
            let _ = write!(text, "{lead}{}{}", tensor.dtype(), list(tensor.shape()));
            if !tensor.is_contiguous() {
                text += &list(tensor.strides());
            }
        }
    }
    text
}

fn list(numbers: &[i64]) -> String {
    let texts: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(","))
}

/// Says once per op that `shadow` does not look at it, and why.
fn note_unchecked(op: &'static Op, why: &Error) {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(op.name()) {
        let why = why.context();
        warn(&format!(
            "DS_DEBUG=shadow: {} is not checked: {why}",
            op.name()
        ));
    }
}
