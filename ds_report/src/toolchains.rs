//! `ds_report toolchains`: the compilers of each accelerator, and whether they work here.

use std::fmt::Write as _;

use ds_core::{Host, jit, selection::State};
use serde::Serialize;

use crate::view::{BAD, DOUBTFUL, GOOD, HEADING, Refusal, View};

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Toolchains {
    accelerators: Vec<Accelerator>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Accelerator {
    name: String,
    /// What kernels for its devices are built for, each once; none without a toolchain.
    targets: Vec<Target>,
    toolchains: Vec<Toolchain>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Target {
    name: String,
    /// Why the smallest program does not build for it; nothing when it does.
    #[serde(flatten)]
    broken: Option<Refusal>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Toolchain {
    name: String,
    /// Whether it is a library that the plugin calls.
    in_process: bool,
    /// Where it was found.
    path: Option<String>,
    version: Option<String>,
    /// Why it cannot be used.
    #[serde(flatten)]
    missing: Option<Refusal>,
}

pub(crate) fn view(host: &Host) -> Toolchains {
    let usable = host
        .statuses()
        .into_iter()
        .filter(|status| matches!(status.state, State::Usable { .. }));
    Toolchains {
        accelerators: usable
            .filter_map(|status| host.accelerator(status.name.as_str()).ok())
            .map(accelerator)
            .collect(),
    }
}

fn accelerator(accelerator: ds_core::Accelerator) -> Accelerator {
    let plugin = accelerator.plugin();
    let toolchains = jit::toolchains(plugin).unwrap_or_default();
    let mut targets: Vec<String> = (0..accelerator.device_count().unwrap_or(0))
        .filter_map(|index| Some(accelerator.device_info(index).ok()?.target))
        .collect();
    targets.dedup();
    let target = |name: String| Target {
        broken: jit::smoke(plugin, &name).err().as_ref().map(Refusal::from),
        name,
    };
    let toolchains: Vec<_> = toolchains
        .iter()
        .map(|info| toolchain(plugin, info))
        .collect();
    // Where there is none, a second complaint for each target would tell nothing new.
    if toolchains.iter().all(|t| t.missing.is_some()) {
        targets.clear();
    }
    Accelerator {
        name: accelerator.name().to_owned(),
        targets: targets.into_iter().map(target).collect(),
        toolchains,
    }
}

fn toolchain(plugin: &ds_core::plugin::Plugin, info: &jit::ToolchainInfo) -> Toolchain {
    let found = jit::identify(plugin, info);
    let text = |text: String| (!text.is_empty()).then_some(text);
    Toolchain {
        name: info.name.clone(),
        in_process: info.in_process,
        missing: found.as_ref().err().map(Refusal::from),
        path: found.as_ref().ok().and_then(|own| text(own.path.clone())),
        version: found.ok().and_then(|own| text(own.version.clone())),
    }
}

impl View for Toolchains {
    fn text(&self) -> String {
        let mut text = String::new();
        for accelerator in &self.accelerators {
            let _ = writeln!(text, "{HEADING}{}{HEADING:#}", accelerator.name);
            if accelerator.toolchains.is_empty() {
                text.push_str("  builds nothing: its kernels come with the plugin\n");
            }
            for toolchain in &accelerator.toolchains {
                toolchain.print(&mut text);
            }
            for target in &accelerator.targets {
                let name = &target.name;
                let _ = match &target.broken {
                    None => writeln!(text, "  {GOOD}builds{GOOD:#}   for {name}"),
                    Some(why) => writeln!(
                        text,
                        "  {BAD}builds nothing{BAD:#} for {name}: {}",
                        why.line()
                    ),
                };
            }
        }
        text
    }
}

impl Toolchain {
    fn print(&self, text: &mut String) {
        let kind = if self.in_process {
            "library"
        } else {
            "program"
        };
        let name = &self.name;
        match &self.missing {
            None => {
                let path = self.path.as_deref().unwrap_or("in the plugin");
                let _ = writeln!(text, "  {GOOD}found{GOOD:#}    {name} ({kind}) {path}");
                if let Some(line) = self.version.as_deref().and_then(|v| v.lines().next()) {
                    let _ = writeln!(text, "           {line}");
                }
            }
            Some(why) => {
                let _ = writeln!(
                    text,
                    "  {DOUBTFUL}missing{DOUBTFUL:#}  {name} ({kind}): {}",
                    why.reason
                );
                why.hint_below(text, 11);
            }
        }
    }
}
