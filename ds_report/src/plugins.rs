//! `ds_report plugins`: every plugin that was found, with its verdict, and the places of the search.

use std::fmt::Write as _;

use ds_core::Host;
use serde::Serialize;

use crate::view::{BAD, GOOD, HEADING, Refusal, View};

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Plugins {
    plugins: Vec<Plugin>,
    /// In the order of the search.
    places: Vec<Place>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Plugin {
    /// Its folder, or what it is called where it has none.
    label: String,
    /// The manifest's id, where it could be read.
    id: Option<String>,
    accelerator: Option<String>,
    version: Option<String>,
    verdict: &'static str,
    /// Why it is not used.
    #[serde(flatten)]
    refusal: Option<Refusal>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Place {
    path: Option<String>,
    /// Why it was not searched.
    skipped: Option<String>,
}

pub(crate) fn view(host: &Host) -> Plugins {
    let discovery = host.discovery();
    let plugin = |candidate: &ds_core::discovery::Candidate| {
        let manifest = candidate.manifest.as_ref();
        Plugin {
            label: candidate.label(),
            id: manifest.map(|m| m.id.to_string()),
            accelerator: manifest.map(|m| m.accelerator.to_string()),
            version: manifest.map(|m| m.version.clone()),
            verdict: candidate.verdict.name(),
            refusal: candidate.verdict.refusal().map(|refusal| Refusal {
                reason: refusal.reason.clone(),
                hint: refusal.hint.clone(),
            }),
        }
    };
    Plugins {
        plugins: discovery.candidates.iter().map(plugin).collect(),
        places: discovery
            .places
            .iter()
            .map(|place| Place {
                path: place.path.as_ref().map(|p| p.display().to_string()),
                skipped: place.skipped.clone(),
            })
            .collect(),
    }
}

impl View for Plugins {
    fn text(&self) -> String {
        let mut text = format!("{HEADING}plugins{HEADING:#}\n");
        for plugin in &self.plugins {
            let style = if plugin.refusal.is_none() { GOOD } else { BAD };
            let _ = writeln!(
                text,
                "  {style}{:<14}{style:#} {}",
                plugin.verdict, plugin.label
            );
            if let Some(refusal) = &plugin.refusal {
                let _ = writeln!(text, "{:17}{}", "", refusal.reason);
                refusal.hint_below(&mut text, 17);
            }
        }
        let _ = writeln!(text, "{HEADING}searched{HEADING:#}");
        for place in &self.places {
            let path = place.path.as_deref().unwrap_or("-");
            let skipped = place.skipped.as_ref();
            let skipped = skipped.map_or(String::new(), |why| format!("  ({why})"));
            let _ = writeln!(text, "  {path}{skipped}");
        }
        text
    }
}
