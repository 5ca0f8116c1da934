//! What there is to say of an op without a call: its schema, and the kernels of every device.

use std::fmt::Write as _;

use ds_core::op::Op;
use serde::Serialize;

use crate::{
    alike::Alike,
    kernels::{self, Class},
    ready::Ready,
    view::{BAD, DOUBTFUL, GOOD, HEADING},
};

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct About {
    op: String,
    /// In the schema language, with tolerances.
    schema: String,
    /// What kernels name that are written for this schema.
    schema_hash: String,
    op_sets: Vec<String>,
    /// Whether it has a reference implementation, for calls that no kernel takes.
    host_reference: bool,
    /// Devices that stand alike, each group once.
    devices: Vec<OnDevices>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OnDevices {
    /// Such as `cuda:0-3`.
    name: String,
    target: String,
    kernels: Vec<KernelWords>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct KernelWords {
    name: String,
    class: Class,
    scores: String,
    /// Its constraints in words.
    takes: Vec<String>,
    /// What its devices lack; nothing when they can run it.
    lacks: Option<String>,
    #[serde(flatten)]
    ready: Ready,
}

impl About {
    pub(super) fn new(op: &Op, devices: &[Alike]) -> Self {
        Self {
            op: op.name().to_owned(),
            schema: format!("{:#}", op.schema()),
            schema_hash: op.schema().hash().to_string(),
            op_sets: op.sets().to_vec(),
            host_reference: op.reference().is_some(),
            devices: devices.iter().map(|d| OnDevices::new(op, d)).collect(),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.schema);
        let none = || "none".to_owned();
        let sets = (!self.op_sets.is_empty()).then(|| self.op_sets.join(", "));
        let _ = writeln!(text, "op sets         {}", sets.unwrap_or_else(none));
        let reference = if self.host_reference {
            "takes what no kernel takes, through host memory"
        } else {
            "none: what no kernel takes is refused"
        };
        let _ = writeln!(text, "host reference  {reference}");
        let _ = writeln!(text, "schema hash     {}", self.schema_hash);
        for devices in &self.devices {
            devices.print(&mut text);
        }
        text
    }
}

impl OnDevices {
    fn new(op: &Op, devices: &Alike) -> Self {
        let accelerator = devices.accelerator;
        let own = accelerator.kernels_of(op).iter();
        Self {
            name: devices.name(),
            target: devices.target.clone(),
            kernels: own
                .map(|kernel| KernelWords {
                    name: kernel.name.clone(),
                    class: Class::of(kernel),
                    scores: kernels::scores(kernel),
                    takes: kernels::takes(kernel, op.schema()),
                    lacks: kernel
                        .admit_target(&devices.target)
                        .err()
                        .map(|refusal| refusal.message),
                    ready: Ready::of(accelerator, kernel, &devices.target),
                })
                .collect(),
        }
    }

    fn print(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{HEADING}on {}{HEADING:#}, target {}",
            self.name, self.target
        );
        if self.kernels.is_empty() {
            text.push_str("  no kernel\n");
        }
        for kernel in &self.kernels {
            let (class, scores) = (kernel.class.name(), &kernel.scores);
            let (style, state) = match (&kernel.lacks, &kernel.ready) {
                (Some(lacks), _) => (DOUBTFUL, format!("not here: {lacks}")),
                (None, Ready::Not(why)) => (BAD, format!("cannot be built: {}", why.line())),
                (None, ready) => (GOOD, ready.words().to_owned()),
            };
            let name = &kernel.name;
            let _ = writeln!(text, "  {name}  {class}, {scores}, {style}{state}{style:#}");
            if !kernel.takes.is_empty() {
                let _ = writeln!(text, "      {}", kernel.takes.join("; "));
            }
        }
    }
}
