//! `ds_report explain`: what a call would run on, and why not on each other kernel. Nothing runs.

mod about;
mod call;

use std::{env, fmt::Write as _};

use ds_core::{Device, Host, op::Op};
use ds_schema::{Arg, BindError, BindRule, Element, Multiplicity, Role, Schema, TensorSpec};
use serde::Serialize;

use crate::{
    alike::Alike,
    kernels::score_words,
    ready::Ready,
    sets::Sets,
    view::{BAD, DOUBTFUL, GOOD, HEADING, Outcome, View},
};
use about::About;
use call::Told;

/// The greatest alignment that signatures tell apart, as a binary logarithm.
const MAX_ALIGNMENT_LOG2: u8 = 8;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The op; alone, its schema and all its kernels are shown.
    op: String,
    /// What the call has: tensors as `x=f32[8192,4096]`, lists as `params=f32[10],f32[20]`, static
    /// attributes as `adamw=true`, a dtype that does not follow as `B=bf16`. What follows from the
    /// others may be left out. `f32[4,8][1,4]@16` has strides and an alignment of its own.
    #[arg(value_name = "NAME=VALUE")]
    call: Vec<String>,
    /// The device, such as `cuda:1`; without it, the one that `DS_ACCELERATOR` selects.
    #[arg(long)]
    device: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "explained", rename_all = "kebab-case")]
pub(crate) enum Explain {
    /// An op, without a call.
    Op(About),
    Call(Call),
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Call {
    op: String,
    device: String,
    target: String,
    arguments: Vec<Argument>,
    /// Static attributes.
    attributes: Vec<Attribute>,
    runs_on: RunsOn,
    /// Every kernel of the op on this device, best first, refusals last.
    kernels: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Argument {
    name: String,
    /// As they would be written; none for an optional that is left out.
    tensors: Vec<String>,
    /// Whether it was left out and follows from the others.
    is_inferred: bool,
    is_written: bool,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Attribute {
    name: String,
    value: String,
    /// Whether it was left out.
    is_default: bool,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum RunsOn {
    Kernel {
        name: String,
    },
    /// The reference implementation, through host memory.
    HostReference,
    /// The call would be refused.
    Nothing {
        reason: String,
    },
    /// Nothing has to run: no element is written.
    NothingToDo,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Candidate {
    name: String,
    /// Nothing for a kernel that refuses.
    score: Option<i32>,
    /// The constraint that refuses the call.
    refusal: Option<String>,
    /// Whether its artefact can be had; nothing for a kernel that refuses.
    #[serde(flatten)]
    ready: Option<Ready>,
}

pub(crate) fn view(host: &Host, options: &Options) -> Result<Explain, Outcome> {
    if options.call.is_empty() {
        let mut devices = Alike::all(host);
        if let Some(name) = &options.device {
            let device = device(host, Some(name))?;
            let accelerator = host.accelerator(device.accelerator())?;
            devices = Alike::of(accelerator, [device.index()])?;
        }
        return Ok(Explain::Op(About::new(find(&options.op)?, &devices)));
    }
    let device = device(host, options.device.as_deref())?;
    if ds_core::op::find(&options.op).is_err() {
        // It may be a plugin's own, whose accelerator is another one.
        Alike::all(host);
    }
    let op = find(&options.op)?;
    Ok(Explain::Call(explain(host, device, op, &options.call)?))
}

fn find(name: &str) -> Result<&'static Op, Outcome> {
    ds_core::op::find(name).map_err(|_| {
        let sets = Sets::known();
        let of_set: Vec<&str> = sets.here(name).iter().map(|op| op.name()).collect();
        if !of_set.is_empty() {
            return Outcome::wrong(
                &format!("'{name}' is an op set, not an op"),
                &format!("its ops are {}", of_set.join(", ")),
            );
        }
        if let Some(command) = sets.service(name) {
            return Outcome::wrong(
                &format!("'{name}' is a service of the host, not an op"),
                &format!("`{command}` tells how it stands"),
            );
        }
        let known: Vec<&str> = ds_core::op::ops().iter().map(|op| op.name()).collect();
        Outcome::wrong(
            &format!("there is no op '{name}'"),
            &format!("ops are {}; `ds_report ops` tells more", known.join(", ")),
        )
    })
}

/// The device of that name (`cuda:1`, or `cuda` for its first), else the selected one.
fn device(host: &Host, name: Option<&str>) -> Result<Device, Outcome> {
    let Some(name) = name else {
        let chosen = host.select()?.primary;
        let index = chosen.devices.first().copied().unwrap_or(0);
        return Ok(host
            .accelerator(chosen.accelerator.as_str())?
            .device(index)?);
    };
    let (accelerator, index) = name.split_once(':').unwrap_or((name, "0"));
    let index = index.parse().map_err(|_| {
        let what = format!("'{name}' is no device: '{index}' is no number");
        Outcome::wrong(&what, "a device is written as cuda:1")
    })?;
    Ok(host.accelerator(accelerator)?.device(index)?)
}

fn explain(
    host: &Host,
    device: Device,
    op: &'static Op,
    words: &[String],
) -> Result<Call, Outcome> {
    let schema = op.schema();
    // New memory is aligned as the device aligns it.
    let alignment = device.info().alignment_bytes.max(1).ilog2();
    let alignment =
        u8::try_from(alignment).map_or(MAX_ALIGNMENT_LOG2, |a| a.min(MAX_ALIGNMENT_LOG2));
    let told = Told::read(schema, words, alignment)
        .map_err(|what| refused(schema, &format!("{}: {what}", op.name())))?;
    let bind = |error: BindError| refused(schema, &error.to_string());

    let args = schema
        .complete(&told.args, &borrowed(&told.dtypes))
        .map_err(|error| refused(schema, &format!("{error}{}", choice(schema, &told, &error))))?;
    let args: Vec<Arg> = args
        .into_iter()
        .zip(&told.args)
        .map(|(mut arg, told)| {
            if told.is_none() {
                for tensor in &mut arg {
                    tensor.alignment_log2 = alignment;
                }
            }
            arg
        })
        .collect();
    let attributes = schema
        .resolve_attributes(&borrowed(&told.attributes))
        .map_err(bind)?;
    let (_, found) = ds_core::op::explain(device, op, &args, &attributes)
        .map_err(|error| refused(schema, &error.to_string()))?;

    let accelerator = host.accelerator(device.accelerator())?;
    let target = &device.info().target;
    let kernels: Vec<Candidate> = found
        .into_iter()
        .map(|candidate| {
            let name = candidate.kernel;
            let (score, refusal) = match candidate.outcome {
                Ok(score) => (Some(score), None),
                Err(why) => {
                    let own = format!("kernel {name} ");
                    (
                        None,
                        Some(why.strip_prefix(&own).unwrap_or(&why).to_owned()),
                    )
                }
            };
            let kernel = accelerator.kernels_of(op).iter().find(|k| k.name == name);
            let ready = kernel.filter(|_| score.is_some());
            Candidate {
                ready: ready.map(|kernel| Ready::of(accelerator, kernel, target)),
                name,
                score,
                refusal,
            }
        })
        .collect();
    Ok(Call {
        op: op.name().to_owned(),
        device: device.to_string(),
        target: target.clone(),
        runs_on: runs_on(op, schema, &args, &kernels),
        arguments: arguments(schema, &args, &told, alignment),
        attributes: schema
            .attributes()
            .iter()
            .zip(&attributes)
            .map(|(attribute, value)| Attribute {
                name: attribute.name.clone(),
                value: value.to_string(),
                is_default: !told.attributes.iter().any(|(of, _)| *of == attribute.name),
            })
            .collect(),
        kernels,
    })
}

fn borrowed<T: Copy>(named: &[(String, T)]) -> Vec<(&str, T)> {
    named
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect()
}

/// How to say what an argument's dtype is, where that is what is missing.
fn choice(schema: &Schema, told: &Told, error: &BindError) -> String {
    let left_out = |of: &&ds_schema::Argument, told: &Option<Arg>| {
        told.is_none() && error.argument.as_ref() == Some(&of.name)
    };
    let mut arguments = schema.arguments().iter().zip(&told.args);
    let element = arguments.find_map(|(of, told)| left_out(&of, told).then_some(of.element));
    match (error.rule, element) {
        (BindRule::DType, Some(Element::Variable(variable))) => {
            format!(" with {}=DTYPE", schema.dtype_variables()[variable])
        }
        _ => String::new(),
    }
}

/// The error for a call that cannot be meant, with the schema that says what could be.
fn refused(schema: &Schema, what: &str) -> Outcome {
    Outcome::wrong(what, &format!("the schema is\n{schema:#}"))
}

/// The best kernel whose artefact can be had, as a launch would find it.
fn runs_on(op: &Op, schema: &Schema, args: &[Arg], kernels: &[Candidate]) -> RunsOn {
    let written = schema.arguments().iter().zip(args);
    let mut written = written
        .filter(|(of, _)| of.role != Role::In)
        .flat_map(|(_, arg)| arg);
    if !written.any(|tensor| !tensor.shape.contains(&0)) {
        return RunsOn::NothingToDo;
    }
    let can = |kernel: &&Candidate| !matches!(kernel.ready, None | Some(Ready::Not(_)));
    if let Some(kernel) = kernels.iter().find(can) {
        let name = kernel.name.clone();
        return RunsOn::Kernel { name };
    }
    if op.reference().is_none() {
        let reason = "no kernel takes it, and the op has no host reference".to_owned();
        return RunsOn::Nothing { reason };
    }
    if env::var_os("DS_FALLBACK").is_some_and(|value| value == "deny") {
        let reason = "no kernel takes it, and DS_FALLBACK=deny keeps it off the host reference";
        return RunsOn::Nothing {
            reason: reason.to_owned(),
        };
    }
    RunsOn::HostReference
}

fn arguments(schema: &Schema, args: &[Arg], told: &Told, alignment: u8) -> Vec<Argument> {
    let arguments = schema.arguments().iter().zip(args).zip(&told.args);
    arguments
        .map(|((of, arg), told)| Argument {
            name: of.name.clone(),
            tensors: arg.iter().map(|spec| written(spec, alignment)).collect(),
            is_inferred: told.is_none() && of.multiplicity != Multiplicity::Optional,
            is_written: of.is_written(),
        })
        .collect()
}

/// A tensor as it would be written on the command line.
fn written(spec: &TensorSpec, alignment: u8) -> String {
    let numbers = |of: &[i64]| {
        let of: Vec<String> = of.iter().map(ToString::to_string).collect();
        of.join(",")
    };
    let mut text = format!("{}[{}]", spec.dtype, numbers(&spec.shape));
    if spec.strides != TensorSpec::contiguous(spec.dtype, spec.shape.clone()).strides {
        let _ = write!(text, "[{}]", numbers(&spec.strides));
    }
    if spec.alignment_log2 != alignment {
        let _ = write!(text, "@{}", 1_u64 << spec.alignment_log2.min(63));
    }
    text
}

impl View for Explain {
    fn text(&self) -> String {
        match self {
            Self::Op(about) => about.text(),
            Self::Call(call) => call.text(),
        }
    }
}

impl Call {
    fn text(&self) -> String {
        let mut text = format!(
            "{HEADING}{} on {}{HEADING:#}, target {}\n",
            self.op, self.device, self.target
        );
        let names = self.arguments.iter().map(|argument| &argument.name);
        let names = names.chain(self.attributes.iter().map(|attribute| &attribute.name));
        let width = names.map(String::len).max().unwrap_or(0);
        for Argument {
            name,
            tensors,
            is_inferred,
            ..
        } in &self.arguments
        {
            let tensors = match tensors.as_slice() {
                [] => "none".to_owned(),
                tensors => tensors.join(", "),
            };
            let how = if *is_inferred { "  (follows)" } else { "" };
            let _ = writeln!(text, "  {name:<width$}  {tensors}{how}");
        }
        for Attribute {
            name,
            value,
            is_default,
        } in &self.attributes
        {
            let how = if *is_default { "  (default)" } else { "" };
            let _ = writeln!(text, "  {name:<width$}  {value}{how}");
        }
        self.verdict(&mut text);
        self.others(&mut text);
        text
    }

    fn verdict(&self, text: &mut String) {
        let _ = match &self.runs_on {
            RunsOn::Kernel { name } => {
                let _ = write!(text, "runs on {GOOD}{name}{GOOD:#}");
                let kernel = self.kernels.iter().find(|kernel| kernel.name == *name);
                let score = kernel.and_then(|kernel| kernel.score).unwrap_or(0);
                let ready = kernel.and_then(|kernel| kernel.ready.as_ref());
                let ready = ready.map_or("", Ready::words);
                writeln!(text, ": score {score} ({}), {ready}", score_words(score))
            }
            RunsOn::HostReference => writeln!(
                text,
                "runs on {DOUBTFUL}the host reference{DOUBTFUL:#}, through host memory: {}",
                if self.kernels.is_empty() {
                    "there is no kernel for it"
                } else {
                    "no kernel can take it"
                }
            ),
            RunsOn::Nothing { reason } => {
                writeln!(text, "runs on {BAD}nothing{BAD:#}: {reason}")
            }
            RunsOn::NothingToDo => {
                writeln!(text, "runs on {GOOD}nothing{GOOD:#}: no element is written")
            }
        };
    }

    fn others(&self, text: &mut String) {
        let chosen = match &self.runs_on {
            RunsOn::Kernel { name } => Some(name),
            _ => None,
        };
        let width = self.kernels.iter().map(|kernel| kernel.name.len());
        let width = width.max().unwrap_or(0);
        for kernel in self.kernels.iter().filter(|of| Some(&of.name) != chosen) {
            let why = match (kernel.score, &kernel.refusal, &kernel.ready) {
                (Some(score), _, Some(Ready::Not(why))) => {
                    format!(
                        "score {score}, but its artefact cannot be had: {}",
                        why.line()
                    )
                }
                (Some(score), ..) => format!("would take it, with score {score}"),
                (None, Some(refusal), _) => refusal.clone(),
                (None, None, _) => String::new(),
            };
            let _ = writeln!(text, "not on  {:<width$}  {why}", kernel.name);
        }
    }
}
