//! `ds_report plugin remove`: takes a plugin out of the user's own folder, and out of no other.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use ds_core::{
    Error, ErrorKind, Host, Result,
    discovery::{Candidate, Origin, Search},
};
use serde::Serialize;

use super::place::Place;
use crate::view::{GOOD, View};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Its id, its accelerator, or its folder, as `ds_report plugins` shows it.
    #[arg(value_name = "ID|ACCELERATOR|FOLDER")]
    plugin: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Removed {
    /// What its manifest said, if it could be read.
    id: Option<String>,
    version: Option<String>,
    accelerator: Option<String>,
    /// Where it was.
    folder: PathBuf,
    /// What serves its accelerator from now on, usable or not.
    next: Option<String>,
}

pub(super) fn view(host: &Host, options: &Options) -> Result<Removed> {
    let name = options.plugin.as_str();
    let place = Place::find()?;
    let held = place.hold()?;
    let there = place.plugins();
    let found = match choose(name, &there) {
        Ok(Some(found)) => found,
        Ok(None) => {
            held.leave();
            return Err(not_here(name, &place, &there, host));
        }
        Err(e) => return Err(e),
    };
    let folder = found.path.clone().unwrap_or_default();
    held.remove(&folder)?;
    drop(held);
    let manifest = found.manifest.as_ref();
    let accelerator = manifest.map(|m| m.accelerator.to_string());
    let host = Host::with_search(Search::from_process());
    let serving = host.discovery().accelerators().into_iter().find(|next| {
        let own = next.manifest.as_ref().map(|m| m.accelerator.as_str());
        own.is_some() && own == accelerator.as_deref()
    });
    Ok(Removed {
        id: manifest.map(|m| m.id.to_string()),
        version: manifest.map(|m| m.version.clone()),
        accelerator,
        folder,
        next: serving.map(Candidate::label),
    })
}

/// The one that `name` means.
fn choose<'a>(name: &str, there: &'a [Candidate]) -> Result<Option<&'a Candidate>> {
    let mut meant: Vec<_> = there.iter().filter(|c| answers(c, name)).collect();
    // A folder is the most exact name, then the id; several plugins may serve an accelerator.
    let exact = |c: &&Candidate| folder_is(c, name);
    if meant.iter().any(exact) {
        meant.retain(exact);
    }
    match meant[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let folders: Vec<_> = meant.iter().map(|c| c.label()).collect();
            Err(Error::new(
                ErrorKind::InvalidArgument,
                "remove a plugin",
                format!("'{name}' is more than one: {}", folders.join(", ")),
            )
            .with_hint("name the folder of the one to remove"))
        }
    }
}

fn answers(candidate: &Candidate, name: &str) -> bool {
    let manifest = candidate.manifest.as_ref();
    folder_is(candidate, name)
        || manifest.is_some_and(|m| m.id.as_str() == name || m.answers_to(name))
}

fn folder_is(candidate: &Candidate, name: &str) -> bool {
    candidate.path.as_deref().is_some_and(|path| {
        path == Path::new(name) || path.file_name().is_some_and(|last| last == name)
    })
}

/// Why there is nothing to remove: where it lies instead, or what there is.
fn not_here(name: &str, place: &Place, there: &[Candidate], host: &Host) -> Error {
    let mut others = host.discovery().candidates.iter();
    let refuse = |what: String| Error::new(ErrorKind::NotInstalled, "remove a plugin", what);
    if let Some(other) = others.find(|c| !place.holds(c) && answers(c, name)) {
        let label = other.label();
        let hint = match other.origin {
            Origin::Linked => "it is part of this program and cannot be removed".to_owned(),
            Origin::PluginPath => "take its place out of DS_PLUGIN_PATH".to_owned(),
            _ => format!("remove {label} as it was installed"),
        };
        let own = place.path().display();
        return refuse(format!(
            "'{name}' is {label}, and only what lies in {own} is removed here"
        ))
        .with_hint(hint);
    }
    let ids = there.iter().map(|c| match &c.manifest {
        Some(manifest) => manifest.id.to_string(),
        None => c.label(),
    });
    let ids: Vec<_> = ids.collect();
    let known = match &ids[..] {
        [] => "no plugin was added".to_owned(),
        ids => format!("there is {}", ids.join(", ")),
    };
    refuse(format!("no plugin is '{name}'; {known}"))
}

impl View for Removed {
    fn text(&self) -> String {
        let folder = self.folder.display();
        let name = match (&self.id, &self.version) {
            (Some(id), Some(version)) => format!("{id} {version}"),
            _ => "a plugin without a readable manifest".to_owned(),
        };
        let mut text = format!("{GOOD}removed{GOOD:#} {name} from {folder}\n");
        text.push_str("programs that run on it keep it until they end\n");
        if let (Some(accelerator), Some(next)) = (&self.accelerator, &self.next) {
            let _ = writeln!(text, "{accelerator} is served by {next} now");
        }
        text
    }
}
