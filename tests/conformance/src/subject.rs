//! The plugin that is checked: a folder, or one that is linked in.

use std::path::{Path, PathBuf};

use ds_abi::DsPluginEntry;
use ds_core::{
    Accelerator, Host, KernelEntry,
    discovery::{Candidate, Search},
    manifest::{KnownGap, Manifest},
};
use ds_plugin::LinkedPlugin;
use ds_schema::KernelFile;
use serde_json::Value;

/// A plugin, found and not opened yet.
pub(crate) struct Subject {
    host: Host,
    /// Its place among what the host found.
    index: usize,
}

impl Subject {
    /// The plugin in the folder `plugin`, or the linked one that serves the accelerator of that name.
    pub(crate) fn find(plugin: &str) -> Result<Self, String> {
        let folder = Path::new(plugin);
        if !folder.is_dir() {
            let host = Host::with_search(Search::empty());
            let known: Vec<_> = (host.discovery().candidates.iter())
                .filter_map(|c| Some(c.manifest.as_ref()?.accelerator.to_string()))
                .collect();
            return match known.iter().position(|name| name == plugin) {
                Some(index) => Ok(Self { host, index }),
                None => Err(format!(
                    "{plugin} is no folder, and no accelerator that is linked in (these are {})",
                    known.join(", ")
                )),
            };
        }
        let folder = (folder.canonicalize()).map_err(|e| format!("{plugin}: {e}"))?;
        let place = folder
            .parent()
            .ok_or_else(|| format!("{plugin} lies nowhere"))?;
        let host = Host::with_search(Search {
            programmatic: vec![place.to_owned()],
            ..Search::empty()
        });
        let index = (host.discovery().candidates.iter())
            .position(|c| c.path.as_deref() == Some(&folder))
            .ok_or_else(|| format!("no plugin was found at {}", folder.display()))?;
        Ok(Self { host, index })
    }

    pub(crate) fn candidate(&self) -> &Candidate {
        &self.host.discovery().candidates[self.index]
    }

    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.candidate().manifest.as_ref()
    }

    /// Its folder; none for one that is linked in.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.candidate().path.clone()
    }

    pub(crate) fn known_gaps(&self) -> Vec<KnownGap> {
        self.manifest()
            .map_or_else(Vec::new, |m| m.known_gaps.clone())
    }

    /// The descriptions of its kernels, as they are written.
    pub(crate) fn kernels(&self) -> Vec<KernelEntry> {
        let Some(manifest) = self.manifest() else {
            return Vec::new();
        };
        let Some(linked) = self.linked() else {
            return manifest.kernels.clone();
        };
        let mut kernels = Vec::new();
        for text in (linked.kernels)() {
            // The build has refused what is no JSON.
            let Ok(file) = KernelFile::<KernelEntry>::parse_as(text) else {
                continue;
            };
            kernels.extend(file.kernels.into_iter().filter(|entry| {
                let value: Value = serde_json::from_str(entry.text()).unwrap_or_default();
                value["accelerator"] == manifest.accelerator.as_str()
            }));
        }
        kernels
    }

    /// The registration of one that is linked in.
    fn linked(&self) -> Option<&'static LinkedPlugin> {
        if self.folder().is_some() {
            return None;
        }
        let id = format!("\"{}\"", self.manifest()?.id);
        LinkedPlugin::all().find(|linked| linked.manifest.contains(&id))
    }

    /// Its accelerator, opened by the host as for any program.
    pub(crate) fn accelerator(&self) -> Result<Accelerator, String> {
        let candidate = self.candidate();
        if let Some(refusal) = candidate.verdict.refusal() {
            return Err(format!("{}: {}", candidate.verdict.name(), refusal.reason));
        }
        let manifest = self.manifest().ok_or("there is no manifest")?;
        (self.host.accelerator(manifest.accelerator.as_str())).map_err(|e| e.to_string())
    }

    /// Its entry, not called yet.
    pub(crate) fn entry(&self) -> Result<DsPluginEntry, String> {
        if let Some(linked) = self.linked() {
            return Ok(linked.entry);
        }
        let candidate = self.candidate();
        let library = candidate.library.as_ref().ok_or_else(|| {
            let refusal = candidate.verdict.refusal().map(|r| r.reason.clone());
            refusal.unwrap_or_else(|| "there is no library".to_owned())
        })?;
        ds_core::plugin::open(&library.path, library.identity).map_err(|e| e.to_string())
    }
}
