//! `ds_report build`: builds now, into the cache, what would else be built at first use.

mod text;
mod wanted;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use ds_core::{
    Accelerator, Error, ErrorKind, Host,
    build::{Artefact, Level},
    jit::{self, SharedBuild},
    op::Op,
};
use ds_schema::ArtefactKind;
use serde::Serialize;

use crate::{
    alike::Alike,
    chosen,
    sets::Sets,
    view::{BAD, FAILED, Outcome, Refusal, View},
};
use wanted::{LeftOut, Wanted};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Op sets or ops; without any, every set that `DS_BUILD_OPS` and `DS_BUILD_<SET>` (0 or 1)
    /// leave in.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// For what, in the words of `DS_ACCELERATOR`: `cpu`, `cuda:0,2-3`, or `*` for every device.
    /// Else for the devices of the selected accelerator.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// What to build for rather than for the devices here, of which there need be none: the target
    /// that `ds_report` shows on the machine that has them.
    #[arg(long)]
    target: Option<String>,
    /// Build anew what the cache holds, and try again what failed.
    #[arg(long)]
    force: bool,
}

/// What was built.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Build {
    /// Where artefacts are kept; nothing when there is no place for them.
    cache: Option<String>,
    targets: Vec<ForTarget>,
    left_out: Vec<LeftOut>,
    /// What was asked for by name and needs no build, because it is a service of the host.
    without_ops: Vec<String>,
    /// What was asked for by name and cannot be built, and why.
    unmet: Vec<String>,
}

/// A target, and what there is to build for it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ForTarget {
    accelerator: String,
    target: String,
    /// What all signatures share, each once.
    artefacts: Vec<Built>,
    /// Kernels that are built for each signature, at first use.
    per_signature: Vec<Kernel>,
    /// Kernels that come with the plugin.
    without_build: Vec<Kernel>,
    /// Ops that no kernel takes on this target.
    without_kernel: Vec<Missing>,
}

/// An artefact.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Built {
    name: String,
    /// The kernels that it holds.
    kernels: Vec<Kernel>,
    #[serde(flatten)]
    state: State,
}

/// What became of an artefact.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
enum State {
    /// Built now.
    Built { build_ms: u64, path: String },
    /// It was there.
    Cached {
        /// Whether in a cache that is read only.
        is_shared: bool,
        path: String,
    },
    /// It could not be built.
    Failed(Refusal),
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Kernel {
    name: String,
    op: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Missing {
    op: String,
    /// Why, and what such a call runs on.
    reason: String,
}

pub(crate) fn view(host: &Host, options: &Options, json: bool) -> Result<Build, Outcome> {
    let places = places(host, options)?;
    // The plugin judges the target, before anything is built for a misspelt one.
    for place in &places {
        jit::check_target(place.accelerator.plugin(), &place.target).map_err(|error| {
            let shown = "`ds_report` shows the target of a device on the machine that has it";
            error.with_hint(shown)
        })?;
    }
    let variables: BTreeMap<_, _> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect();
    let jobs = jobs(variables.get("MAX_JOBS").and_then(|jobs| jobs.to_str()))?;
    let mut sets = Sets::known();
    if options.names.iter().any(|name| sets.find(name).is_none()) {
        // It may be a plugin's own, whose accelerator is another one.
        Alike::all(host);
        sets = Sets::known();
    }
    let wanted = Wanted::of(&options.names, &sets, &variables)?;

    let (mut unmet, mut without_ops) = (Vec::new(), Vec::new());
    for asked in wanted.asked.iter().filter(|asked| asked.ops.is_empty()) {
        let name = &asked.name;
        match &asked.service {
            Some(Ok(command)) => without_ops.push(format!(
                "{name}: needs no build, it is a service of the host; `{command}` tells how it stands"
            )),
            Some(Err(why)) => unmet.push(format!("{name}: {why}")),
            None => unmet.push(format!("{name}: not in this version")),
        }
    }
    let mut targets = Vec::new();
    for place in &places {
        let plan = Plan::new(place, &wanted.ops)?;
        for asked in wanted.asked.iter().filter(|asked| !asked.ops.is_empty()) {
            let missing = |op: &&Op| plan.without_kernel.iter().find(|m| m.op == op.name());
            let missing: Vec<_> = asked.ops.iter().filter_map(missing).collect();
            if missing.len() == asked.ops.len() {
                let reason = missing.first().map_or("", |missing| &missing.reason);
                unmet.push(format!("{}: {reason}", asked.name));
            }
        }
        targets.push(plan.run(jobs, options.force, json));
    }
    Ok(Build {
        cache: jit::cache()
            .ok()
            .map(|cache| cache.settings().dir.display().to_string()),
        targets,
        left_out: wanted.left_out,
        without_ops,
        unmet,
    })
}

/// An accelerator, and a target to build for.
struct Place {
    accelerator: Accelerator,
    target: String,
}

fn places(host: &Host, options: &Options) -> Result<Vec<Place>, Outcome> {
    let elsewhere = "to build for a machine that has the device, give --device and --target";
    let help = |error: Error| match error.hint() {
        Some(hint) => {
            let hint = format!("{hint}; {elsewhere}");
            error.with_hint(hint)
        }
        None => error.with_hint(elsewhere),
    };
    let asked = options.device.as_deref();
    if let Some(target) = &options.target {
        // A target is in the words of one accelerator, which needs no device here.
        let accelerator = match asked {
            Some(name) => host.accelerator(name.split(':').next().unwrap_or(name))?,
            None => host.accelerator(host.select().map_err(help)?.primary.accelerator.as_str())?,
        };
        let target = target.clone();
        return Ok(vec![Place {
            accelerator,
            target,
        }]);
    }
    let mut places = Vec::new();
    for share in chosen::shares(host, "build", asked).map_err(help)? {
        let accelerator = host.accelerator(share.accelerator.as_str())?;
        for alike in Alike::of(accelerator, share.devices).map_err(help)? {
            places.push(Place {
                accelerator,
                target: alike.target,
            });
        }
    }
    Ok(places)
}

/// How many builds may run at the same time: upstream's `MAX_JOBS`, else the processors.
fn jobs(variable: Option<&str>) -> ds_core::Result<usize> {
    match variable.filter(|text| !text.is_empty()) {
        None => Ok(thread::available_parallelism().map_or(1, usize::from)),
        Some(text) => match text.parse() {
            Ok(jobs) if jobs > 0 => Ok(jobs),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                "read what to build",
                format!("MAX_JOBS is '{text}'; it must be a positive number of builds"),
            )),
        },
    }
}

/// What is to be done for a target.
struct Plan<'a> {
    place: &'a Place,
    builds: Vec<(SharedBuild<'static>, Vec<Kernel>)>,
    per_signature: Vec<Kernel>,
    without_build: Vec<Kernel>,
    without_kernel: Vec<Missing>,
}

impl<'a> Plan<'a> {
    fn new(place: &'a Place, ops: &[&'static Op]) -> ds_core::Result<Self> {
        let Place {
            accelerator,
            target,
        } = place;
        let mut plan = Self {
            place,
            builds: Vec::new(),
            per_signature: Vec::new(),
            without_build: Vec::new(),
            without_kernel: Vec::new(),
        };
        let is_wanted = |name: &str| ops.iter().any(|op| op.name() == name);
        for kernel in accelerator.kernels() {
            if kernel.admit_target(target).is_err() {
                continue;
            }
            let named = Kernel {
                name: kernel.name.clone(),
                op: kernel.op.clone(),
            };
            match kernel.artefact() {
                // Those of other ops too, as the artefact holds them: it is told whole.
                ArtefactKind::Shared => {
                    let Some(build) = SharedBuild::of(accelerator.plugin(), kernel, target)? else {
                        continue;
                    };
                    match plan.builds.iter_mut().find(|(known, _)| *known == build) {
                        Some((_, kernels)) => kernels.push(named),
                        None => plan.builds.push((build, vec![named])),
                    }
                }
                _ if !is_wanted(&kernel.op) => {}
                ArtefactKind::PerSignature => plan.per_signature.push(named),
                ArtefactKind::None => plan.without_build.push(named),
            }
        }
        plan.builds
            .retain(|(_, kernels)| kernels.iter().any(|kernel| is_wanted(&kernel.op)));
        plan.builds.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
        for op in ops {
            if let Some(reason) = why_no_kernel(*accelerator, target, op) {
                plan.without_kernel.push(Missing {
                    op: op.name().to_owned(),
                    reason,
                });
            }
        }
        Ok(plan)
    }

    /// Builds what is to be built, `jobs` at the same time.
    fn run(self, jobs: usize, force: bool, quiet: bool) -> ForTarget {
        let missing: Vec<&str> = (self.builds.iter())
            .filter(|(build, _)| force || matches!(build.find(), Ok(None)))
            .map(|(build, _)| build.name())
            .collect();
        let name = self.place.accelerator.name();
        // Who watches would else wonder what takes so long.
        if !quiet && !missing.is_empty() && std::io::stderr().is_terminal() {
            let _ = writeln!(
                anstream::stderr(),
                "building {} for {name}",
                missing.join(", ")
            );
        }
        let next = AtomicUsize::new(0);
        let done = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..jobs.min(self.builds.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some((build, _)) = self.builds.get(index) else {
                            return;
                        };
                        let made = if force {
                            build.run_again()
                        } else {
                            build.run()
                        };
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.insert(index, State::from(made));
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        ForTarget {
            accelerator: name.to_owned(),
            target: self.place.target.clone(),
            artefacts: (self.builds.into_iter())
                .zip(done.into_values())
                .map(|((build, kernels), state)| Built {
                    name: build.name().to_owned(),
                    kernels,
                    state,
                })
                .collect(),
            per_signature: self.per_signature,
            without_build: self.without_build,
            without_kernel: self.without_kernel,
        }
    }
}

/// Why no kernel takes any call of `op` on a device of `target`, and what it runs on then; nothing
/// when one does.
fn why_no_kernel(accelerator: Accelerator, target: &str, op: &Op) -> Option<String> {
    let mut refusals = Vec::new();
    for kernel in accelerator.kernels_of(op) {
        refusals.push(kernel.admit_target(target).err()?);
    }
    let name = accelerator.name();
    let why = match refusals.first() {
        Some(refusal) => format!("no kernel of {name} is for this target: {refusal}"),
        None => format!("{name} has no kernel for {}", op.name()),
    };
    let then = match op.reference() {
        Some(_) => "it runs on the host reference",
        None => "it cannot run there",
    };
    Some(format!("{why}; {then}"))
}

impl From<ds_core::Result<Artefact>> for State {
    fn from(made: ds_core::Result<Artefact>) -> Self {
        match made {
            Err(e) => Self::Failed(Refusal::short(&e)),
            Ok(artefact) => {
                let path = artefact.path.display().to_string();
                match artefact.level {
                    Level::Built => Self::Built {
                        build_ms: artefact.record.build_ms,
                        path,
                    },
                    level => Self::Cached {
                        is_shared: level == Level::Shared,
                        path,
                    },
                }
            }
        }
    }
}

impl Build {
    fn failed(&self) -> impl Iterator<Item = &Built> {
        let all = self.targets.iter().flat_map(|target| &target.artefacts);
        all.filter(|built| matches!(built.state, State::Failed(_)))
    }
}

impl View for Build {
    fn text(&self) -> String {
        text::print(self)
    }

    fn failure(&self) -> Option<Outcome> {
        let mut lines: Vec<String> = self.unmet.clone();
        let failed: Vec<&str> = self.failed().map(|built| built.name.as_str()).collect();
        if !failed.is_empty() {
            lines.push(format!("not built: {}", failed.join(", ")));
        }
        let mut message = String::new();
        for line in lines {
            let _ = writeln!(message, "{BAD}error{BAD:#}: {line}");
        }
        (!message.is_empty()).then(|| Outcome::new(FAILED, message))
    }
}
