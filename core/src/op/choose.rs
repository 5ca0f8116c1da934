//! Choosing: which kernel takes a call, and in words why each other one does not.

use ds_schema::{Arg, Attr, Binding, Kernel, KernelFlag, TensorView};
use serde::Serialize;

use super::{Op, prepare::RawSignature};
use crate::{Device, Error, ErrorKind, Result, plugin::call::call};

/// A kernel that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its name.
    pub kernel: String,
    /// Its score, or the constraint that refuses the call.
    pub outcome: Result<i32, String>,
}

/// What a call runs on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The kernel of that name.
    Kernel(String),
    /// The reference implementation, through host memory.
    Reference,
    /// Nothing: no kernel takes it and there is no reference implementation.
    Nothing,
}

/// Every kernel of `device` for the op of `binding`, best first, refusals last.
pub(super) fn candidates(
    device: Device,
    op: &Op,
    binding: &Binding<'_>,
    args: &[&[TensorView<'_>]],
    attributes: &[Attr],
) -> Vec<(&'static Kernel, Result<i32, String>)> {
    let target = &device.info().target;
    let mut found: Vec<_> = device
        .kernels_of(op)
        .iter()
        .map(|kernel| {
            let score = kernel
                .admit(binding, attributes, target)
                .map_err(|refusal| refusal.to_string())
                .and_then(|score| check_deterministic(device, kernel).map(|()| score))
                .and_then(|score| {
                    refine(device, op, kernel, args, attributes, score).map_err(|e| e.to_string())
                });
            (kernel, score)
        })
        .collect();
    // Equal scores go by name, so that the same machine always chooses the same kernel.
    found.sort_by_key(|(kernel, score)| {
        (
            std::cmp::Reverse(score.as_ref().copied().unwrap_or(0)),
            &kernel.name,
        )
    });
    found
}

/// Refuses a kernel that may give other bits for an equal call, where `DS_DETERMINISTIC` asks.
fn check_deterministic(device: Device, kernel: &Kernel) -> Result<(), String> {
    if !device.settings().deterministic || kernel.has(KernelFlag::Deterministic) {
        return Ok(());
    }
    let name = &kernel.name;
    Err(format!(
        "kernel {name} is not flagged 'deterministic', and DS_DETERMINISTIC is 1"
    ))
}

/// The plugin's word on a score: it may lower it.
fn refine(
    device: Device,
    op: &Op,
    kernel: &Kernel,
    args: &[&[TensorView<'_>]],
    attributes: &[Attr],
    score: i32,
) -> Result<i32> {
    let plugin = device.plugin();
    if plugin.tables().op.refine.is_none() {
        return Ok(score);
    }
    let signature = RawSignature::new(op, args, attributes);
    let name = ds_abi::DsStr::new(&kernel.name);
    let mut refined = score;
    // SAFETY: the handle is open for ever; the signature's arrays live past the call.
    unsafe {
        call!(
            plugin,
            op.refine(device.handle(), name, signature.as_ptr(), &raw mut refined)
        )
    }?;
    Ok(refined.min(score))
}

/// Explains what a call with these tensors would run on, without running it.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when the call does not fit the schema.
pub fn explain(
    device: Device,
    op: &'static Op,
    args: &[Arg],
    attributes: &[Attr],
) -> Result<(Choice, Vec<Candidate>)> {
    let views: Vec<Vec<_>> = args
        .iter()
        .map(|arg| arg.iter().map(ds_schema::TensorSpec::view).collect())
        .collect();
    let views: Vec<_> = views.iter().map(Vec::as_slice).collect();
    let binding = op.schema().bind(&views).map_err(|e| refused(op, &e))?;
    op.schema()
        .check_attributes(attributes)
        .map_err(|e| refused(op, &e))?;
    let found = candidates(device, op, &binding, &views, attributes);
    let choice = match found.first() {
        Some((kernel, Ok(_))) => Choice::Kernel(kernel.name.clone()),
        _ if op.reference().is_some() => Choice::Reference,
        _ => Choice::Nothing,
    };
    let listed = found
        .into_iter()
        .map(|(kernel, outcome)| Candidate {
            kernel: kernel.name.clone(),
            outcome,
        })
        .collect();
    Ok((choice, listed))
}

/// The error for a call that does not fit the schema.
pub(super) fn refused(op: &Op, error: &ds_schema::BindError) -> Error {
    let text = error.to_string();
    let text = text
        .strip_prefix(op.name())
        .and_then(|t| t.strip_prefix(": "))
        .unwrap_or(&text);
    Error::new(ErrorKind::InvalidArgument, op.name().to_owned(), text)
}
