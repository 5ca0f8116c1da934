//! Finds plugins and judges each without running any of its code.
//!
//! Looks into the places of a [`Search`] in order, reads manifests, checks who could have written
//! the files, what the library is, and whether the hardware shows. Everything found becomes a
//! [`Candidate`] with a [`Verdict`]. Opening libraries is for the plugin loader.
//!
//! One plugin serves an accelerator: the first found wins, and later ones are reported as
//! shadowed. One that is refused still wins, since using another than the user put in front would
//! be a surprise; only those that could never run here (not built, for other platforms) step back.

#![forbid(unsafe_code)]

mod examine;
mod presence;
mod search;
mod verdict;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

pub(crate) use examine::read;
pub use examine::{platform, verify_files};
pub use search::{LinkedManifest, Place, Search};
pub use verdict::{Refusal, Verdict};

use crate::{
    manifest::Manifest,
    selection::{AcceleratorStatus, State},
    trust::FileIdentity,
};
use examine::Examiner;

/// Which rule of the search found a candidate, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The program named the folder.
    Programmatic,
    /// The plugin is part of the program.
    Linked,
    /// An element of `DS_PLUGIN_PATH`.
    PluginPath,
    /// The user's data folder.
    UserData,
    /// `lib/deepspeed/plugins` beside the program's `bin`.
    Prefix,
    /// The system's folders.
    System,
}

/// A plugin, or something in the place of one.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Which rule found it.
    pub origin: Origin,
    /// Its folder, or the path at fault; nothing for a linked plugin.
    #[serde(serialize_with = "shown_if_any")]
    pub path: Option<PathBuf>,
    /// Its manifest, if it could be read.
    pub manifest: Option<Manifest>,
    /// The library to open, if all checks of it passed.
    pub library: Option<CheckedLibrary>,
    /// What to make of it.
    pub verdict: Verdict,
}

/// A plugin library that passed every check that needs no code of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckedLibrary {
    /// Where it lies, without links: the path to open.
    #[serde(serialize_with = "shown")]
    pub path: PathBuf,
    /// Which file was checked: compare after opening.
    pub identity: FileIdentity,
    /// Libraries that the system's loader will load with it.
    pub needed: Vec<String>,
}

/// All that a search brought.
#[derive(Clone, Debug, Serialize)]
pub struct Discovery {
    /// In order of precedence; within a folder by name.
    pub candidates: Vec<Candidate>,
    /// Every place of the search, with what became of it.
    pub places: Vec<Place>,
}

/// A path as messages show it: one that is not UTF-8 is told too, as well as that can be.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[allow(clippy::ref_option, reason = "so serde calls it")]
fn shown_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => shown(path, serializer),
        None => serializer.serialize_none(),
    }
}

/// Searches, and judges what is found.
pub fn discover(search: &Search) -> Discovery {
    let places = search.places();
    let mut examiner = Examiner::new(&search.root);
    let (first, later): (Vec<_>, Vec<_>) = places
        .iter()
        .partition(|place| place.origin < Origin::Linked);
    for place in first {
        examiner.place(place);
    }
    for linked in &search.linked {
        examiner.linked(linked);
    }
    for place in later {
        examiner.place(place);
    }
    Discovery {
        candidates: examiner.finish(),
        places,
    }
}

impl Candidate {
    /// How to call it in a message: its folder, or the id of a linked one.
    pub fn label(&self) -> String {
        match (&self.path, &self.manifest) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(manifest)) => format!("{} in the program", manifest.id),
            (None, None) => "a plugin in the program".to_owned(),
        }
    }
}

impl Discovery {
    /// The candidate that serves each accelerator, whether it can be used or not: of those that
    /// are not shadowed, the one that got furthest.
    pub fn accelerators(&self) -> Vec<&Candidate> {
        let mut chosen: Vec<&Candidate> = Vec::new();
        for candidate in &self.candidates {
            let Some(manifest) = &candidate.manifest else {
                continue;
            };
            if matches!(candidate.verdict, Verdict::Shadowed { .. }) {
                continue;
            }
            let served = |other: &&mut &Candidate| {
                other
                    .manifest
                    .as_ref()
                    .is_some_and(|m| m.accelerator == manifest.accelerator)
            };
            match chosen.iter_mut().find(served) {
                None => chosen.push(candidate),
                Some(other) if !other.verdict.holds_place() && candidate.verdict.holds_place() => {
                    *other = candidate;
                }
                Some(_) => {}
            }
        }
        chosen
    }

    /// What the selection can choose from. `devices` asks a plugin that was found for its devices.
    pub fn inventory(
        &self,
        mut devices: impl FnMut(&Candidate) -> State,
    ) -> Vec<AcceleratorStatus> {
        let status = |candidate: &&Candidate| {
            let manifest = candidate.manifest.as_ref()?;
            let state = match candidate.verdict.refusal() {
                None => devices(candidate),
                Some(refusal) => State::Unusable {
                    reason: refusal.reason.clone(),
                    hint: refusal.hint.clone(),
                },
            };
            Some(AcceleratorStatus::new(manifest, state))
        };
        self.accelerators().iter().filter_map(status).collect()
    }
}
