//! A column of the report: how ops stand on the devices of one target.

use std::{cell::OnceCell, collections::BTreeMap, panic, thread};

use ds_core::{Accelerator, Error, jit, op::Op};

use super::{Device, OpState};
use crate::view::Refusal;

/// An accelerator, a target that devices of it have, and how each op stands there.
pub(super) struct Column {
    accelerator: Accelerator,
    target: String,
    ops: BTreeMap<&'static str, Artefact>,
}

/// How the artefact of an op's best kernel stands.
enum Artefact {
    Ready,
    ToBuild,
    NoKernel,
    /// It can neither be taken from the cache nor built, for this reason.
    Failed(String),
}

impl Column {
    /// A column for each of `places`, made at the same time: they are asked of different plugins.
    pub(super) fn all(places: &[(Accelerator, String)], ops: &[&'static Op]) -> Vec<Self> {
        thread::scope(|scope| {
            let make = |(accelerator, target): &(Accelerator, String)| {
                let (accelerator, target) = (*accelerator, target.clone());
                scope.spawn(move || Self::new(accelerator, target, ops))
            };
            let made: Vec<_> = places.iter().map(make).collect();
            made.into_iter()
                .map(|column| column.join().unwrap_or_else(|p| panic::resume_unwind(p)))
                .collect()
        })
    }

    fn new(accelerator: Accelerator, target: String, ops: &[&'static Op]) -> Self {
        let buildable = OnceCell::new();
        let stands = |op: &&'static Op| (op.name(), look(accelerator, &target, op, &buildable));
        let ops = ops.iter().map(stands).collect();
        Self {
            accelerator,
            target,
            ops,
        }
    }

    /// Whether `device` is one of those that it is of.
    pub(super) fn is_of(&self, device: &Device) -> bool {
        self.accelerator.name() == device.accelerator && self.target == device.target
    }

    /// How the ops of a set stand.
    pub(super) fn state(&self, ops: &[&'static Op]) -> OpState {
        if ops.is_empty() {
            return OpState::NotHere;
        }
        let (mut on_reference, mut to_build) = (Vec::new(), false);
        let mut reason = format!("{} has no kernel for it", self.accelerator.name());
        for &op in ops {
            match self.ops.get(op.name()) {
                Some(Artefact::ToBuild) => to_build = true,
                Some(Artefact::NoKernel) => on_reference.push(op),
                // What failed says more than what is not there.
                Some(Artefact::Failed(why)) => {
                    on_reference.push(op);
                    reason.clone_from(why);
                }
                Some(Artefact::Ready) | None => {}
            }
        }
        if on_reference.iter().any(|op| op.reference().is_none()) {
            return OpState::Unsupported { reason };
        }
        match on_reference.len() {
            0 if to_build => OpState::Buildable,
            0 => OpState::Ready,
            n if n == ops.len() => OpState::Reference { reason },
            _ => OpState::Partly {
                on_reference: on_reference.iter().map(|op| op.name().to_owned()).collect(),
            },
        }
    }
}

/// How `op` stands; `buildable` keeps whether the toolchain works, once that was in question.
fn look(
    accelerator: Accelerator,
    target: &str,
    op: &Op,
    buildable: &OnceCell<Result<(), String>>,
) -> Artefact {
    let mut kernels = accelerator.kernels_of(op).iter();
    let Some(kernel) = kernels.find(|kernel| kernel.admit_target(target).is_ok()) else {
        return Artefact::NoKernel;
    };
    let short = |e: Error| Refusal::short(&e).line();
    match jit::is_ready(accelerator.plugin(), kernel, target) {
        Ok(true) => Artefact::Ready,
        Ok(false) => {
            let prove = || jit::smoke(accelerator.plugin(), target).map(drop);
            match buildable.get_or_init(|| prove().map_err(short)) {
                Ok(()) => Artefact::ToBuild,
                Err(why) => Artefact::Failed(why.clone()),
            }
        }
        Err(e) => Artefact::Failed(short(e)),
    }
}
