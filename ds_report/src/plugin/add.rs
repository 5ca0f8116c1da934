//! `ds_report plugin add`: judges a plugin's folder as the search would, opens it in a child process,
//! and copies it to where every program of this user finds it; only if nothing speaks against it.

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use ds_core::{
    DeviceInfo, Error, ErrorKind, Host,
    discovery::{self, Candidate, Search, Verdict, verify_files},
    manifest::{self, Manifest},
};
use serde::Serialize;

use super::{
    place::{Held, Place},
    program, shell,
    tree::Tree,
};
use crate::view::{BAD, DOUBTFUL, FAILED, GOOD, HEADING, Outcome, Refusal, View};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The plugin: a folder with plugin.json, the library, and whatever else it needs.
    folder: PathBuf,
    /// Take the place of the plugin with the same id.
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Added {
    folder: PathBuf,
    /// What its manifest says; nothing if it cannot be read.
    #[serde(flatten)]
    plugin: Option<Identity>,
    devices: Vec<Device>,
    /// Why nothing can run on it here. No fault of the plugin.
    absent: Option<Refusal>,
    /// Where it was copied to; nothing if something speaks against it.
    copied_to: Option<PathBuf>,
    /// The version that was there before.
    replaced: Option<String>,
    /// Why programs use another one.
    behind: Option<Refusal>,
    /// Programs use it where `DS_ACCELERATOR` is not set.
    is_default: bool,
    /// What speaks against it.
    refused: Option<Refusal>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Identity {
    id: String,
    version: String,
    vendor: String,
    description: String,
    /// The value of `DS_ACCELERATOR` that selects it.
    accelerator: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Device {
    name: String,
    model: String,
    target: String,
}

pub(super) fn view(options: &Options) -> Added {
    let mut added = Added {
        folder: options.folder.clone(),
        plugin: None,
        devices: Vec::new(),
        absent: None,
        copied_to: None,
        replaced: None,
        behind: None,
        is_default: false,
        refused: None,
    };
    added.refused = added.add(options).err();
    added
}

impl Added {
    fn add(&mut self, options: &Options) -> Result<(), Refusal> {
        self.folder = folder(&options.folder)?;
        let found = judge(&self.folder)?;
        let Some(manifest) = &found.manifest else {
            let mut why = refusal(&found.verdict);
            why.reason = format!("{}: {}", manifest::FILE_NAME, why.reason);
            return Err(why);
        };
        self.plugin = Some(Identity::new(manifest));
        if speaks_against(&found.verdict) {
            return Err(refusal(&found.verdict));
        }
        let tree = Tree::read(&self.folder).map_err(plain)?;
        verify_files(manifest, &self.folder).map_err(plain)?;

        let place = Place::find().map_err(plain)?;
        let held = place.hold().map_err(plain)?;
        let copied = self.copy(&place, &held, &tree, manifest, options.replace);
        match copied {
            Ok(path) => self.copied_to = Some(path.clone()),
            Err(refusal) => {
                held.leave();
                return Err(refusal);
            }
        }
        drop(held);
        self.look_again(manifest);
        Ok(())
    }

    /// Copies it, tries the copy, and gives it its name.
    fn copy(
        &mut self,
        place: &Place,
        held: &Held<'_>,
        tree: &Tree,
        manifest: &Manifest,
        replace: bool,
    ) -> Result<PathBuf, Refusal> {
        let there = place.plugins();
        let old = in_the_way(place, &there, manifest, replace)?;
        let staged = held.stage().map_err(plain)?;
        tree.copy(staged.path()).map_err(plain)?;
        // The copy is what programs will open: it may lack what lay beside the folder.
        self.open(staged.path(), manifest).map_err(|mut why| {
            // A name that is gone by now helps nobody.
            let passing = staged.path().display().to_string();
            let given = self.folder.display().to_string();
            why.reason = why.reason.replace(&passing, &given);
            why.hint = why.hint.map(|hint| hint.replace(&passing, &given));
            why
        })?;
        let path = held.publish(staged, manifest.id.as_str()).map_err(plain)?;
        if let Some(old) = old {
            let version = old.manifest.as_ref().map(|m| m.version.clone());
            self.replaced = Some(version.unwrap_or_else(|| "a broken one".to_owned()));
            // Copied by hand under another name; under the same one it is gone by now.
            if let Some(before) = old.path.as_deref().filter(|before| **before != path) {
                // The new one is in its place by now: this is no reason to call it refused.
                if let Err(e) = held.remove(before) {
                    log::warn!("{} has the same id: {e}", before.display());
                }
            }
        }
        Ok(path)
    }

    /// Opens the plugin in a child process, then here: devices, or why there are none.
    fn open(&mut self, folder: &Path, manifest: &Manifest) -> Result<(), Refusal> {
        let found = judge(folder)?;
        if speaks_against(&found.verdict) {
            return Err(refusal(&found.verdict));
        }
        let search = Search {
            programmatic: vec![folder.to_owned()],
            ..Search::empty()
        };
        let host = Host::with_search(search).with_helper(helper()?);
        let record = host.probe(&found).ok_or_else(|| Refusal {
            reason: "there is no library to open".to_owned(),
            hint: None,
        })?;
        let missing = |kind| matches!(kind, ErrorKind::LibraryNotFound | ErrorKind::NoDevice);
        let name = manifest.accelerator.as_str();
        match record.devices {
            Ok(devices) => {
                let devices = devices.into_iter().enumerate();
                self.devices = devices
                    .map(|(i, info)| Device::new(name, i, info))
                    .collect();
                self.absent = self.devices.is_empty().then(|| Refusal {
                    reason: "it opens, and finds no device".to_owned(),
                    hint: None,
                });
            }
            Err(failure) => {
                let why = Refusal {
                    reason: failure.reason,
                    hint: failure.hint,
                };
                if !missing(failure.kind) {
                    return Err(why);
                }
                self.absent = Some(why);
            }
        }
        if let Verdict::NoHardware(_) = found.verdict {
            self.absent = Some(refusal(&found.verdict));
        }
        // The child did not break. What remains are the schemas and kernels that the manifest lists.
        match host.accelerator(name) {
            Err(e) if missing(e.kind()) => Ok(()),
            Err(e) => Err(plain(e)),
            Ok(opened) => agree(manifest, opened.plugin().id(), opened.plugin().version()),
        }
    }

    /// What programs make of it where it lies now.
    fn look_again(&mut self, manifest: &Manifest) {
        let Ok(helper) = helper() else { return };
        let host = Host::with_search(Search::from_process()).with_helper(helper);
        let candidates = &host.discovery().candidates;
        let own = candidates.iter().find(|c| c.path == self.copied_to);
        if let Some(Verdict::Shadowed { refusal, .. }) = own.map(|c| &c.verdict) {
            self.behind = Some(Refusal {
                reason: refusal.reason.clone(),
                hint: refusal.hint.clone(),
            });
        } else if !self.devices.is_empty() {
            let chosen = host.select_with(|_| None);
            self.is_default = chosen.is_ok_and(|c| c.primary.accelerator == manifest.accelerator);
        }
    }
}

/// The folder, without links; refused if it holds no plugin.
fn folder(given: &Path) -> Result<PathBuf, Refusal> {
    let refuse = |reason: String, hint: String| Refusal {
        reason,
        hint: Some(hint),
    };
    let folder = given.canonicalize().map_err(|e| {
        let reason = format!("{} cannot be read: {e}", given.display());
        refuse(reason, "name the plugin's folder".to_owned())
    })?;
    let file = manifest::FILE_NAME;
    if folder.is_file() {
        let reason = format!("{} is a file", folder.display());
        return Err(refuse(reason, format!("name the folder that holds {file}")));
    }
    if folder.join(file).symlink_metadata().is_ok() {
        return Ok(folder);
    }
    let below = folder.read_dir().into_iter().flatten().flatten();
    let below = below
        .map(|entry| entry.path())
        .find(|path| path.join(file).exists());
    Err(refuse(
        format!("{} has no {file}, so it is no plugin", folder.display()),
        match below {
            Some(below) => format!(
                "there is one below: {} plugin add {}",
                program(),
                shell(&below)
            ),
            None => format!("`{} plugin new` writes one to start from", program()),
        },
    ))
}

/// What the search makes of the plugin in `folder`.
fn judge(folder: &Path) -> Result<Candidate, Refusal> {
    let search = Search {
        programmatic: vec![folder.to_owned()],
        ..Search::empty()
    };
    let found = discovery::discover(&search).candidates.into_iter().next();
    found.ok_or_else(|| Refusal {
        reason: format!("{} cannot be searched", folder.display()),
        hint: None,
    })
}

/// Missing hardware does not: the plugin may be here before it.
fn speaks_against(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Found | Verdict::NoHardware(_))
}

fn refusal(verdict: &Verdict) -> Refusal {
    let refusal = verdict.refusal();
    Refusal {
        reason: refusal.map_or(verdict.name().to_owned(), |r| r.reason.clone()),
        hint: refusal.and_then(|r| r.hint.clone()),
    }
}

/// An error without the name of the operation, which the command says already.
fn plain(error: Error) -> Refusal {
    let discovery::Refusal { reason, hint } = error.into();
    Refusal { reason, hint }
}

/// The plugin that is to be replaced; an error if one lies there and is not.
fn in_the_way<'a>(
    place: &Place,
    there: &'a [Candidate],
    manifest: &Manifest,
    replace: bool,
) -> Result<Option<&'a Candidate>, Refusal> {
    let path = place.path().join(manifest.id.as_str());
    let same = there.iter().find(|candidate| {
        candidate.path.as_ref() == Some(&path)
            || candidate
                .manifest
                .as_ref()
                .is_some_and(|own| own.id == manifest.id)
    });
    if let Some(same) = same
        && !replace
    {
        let version = same.manifest.as_ref().map(|own| own.version.as_str());
        return Err(Refusal {
            reason: format!(
                "{} {} is there already: {}",
                manifest.id,
                version.unwrap_or("in a broken folder"),
                same.label()
            ),
            hint: Some("--replace puts this one in its place".to_owned()),
        });
    }
    // Which of two is used would hang on their names.
    let rival = there.iter().find_map(|candidate| {
        let own = candidate.manifest.as_ref()?;
        (own.id != manifest.id && own.accelerator == manifest.accelerator).then_some(own)
    });
    if let Some(rival) = rival {
        return Err(Refusal {
            reason: format!(
                "{} {} serves {} already",
                rival.id, rival.version, rival.accelerator
            ),
            hint: Some(format!(
                "remove it first: {} plugin remove {}",
                program(),
                rival.id
            )),
        });
    }
    Ok(same)
}

/// Library and manifest have to be of one plugin, and of one build of it.
fn agree(manifest: &Manifest, id: &str, version: &str) -> Result<(), Refusal> {
    if manifest.id.as_str() == id && manifest.version == version {
        return Ok(());
    }
    Err(Refusal {
        reason: format!(
            "plugin.json says {} {}, and the library says {id} {version}",
            manifest.id, manifest.version
        ),
        hint: Some("build the library again, or correct plugin.json".to_owned()),
    })
}

/// The program that opens plugins first: this one. Unknown code never runs here without it.
fn helper() -> Result<PathBuf, Refusal> {
    env::current_exe().map_err(|e| Refusal {
        reason: format!("this program does not find its own file, to start a child: {e}"),
        hint: Some("mount /proc".to_owned()),
    })
}

impl Identity {
    fn new(manifest: &Manifest) -> Self {
        Self {
            id: manifest.id.to_string(),
            version: manifest.version.clone(),
            vendor: manifest.vendor.clone(),
            description: manifest.description.clone(),
            accelerator: manifest.accelerator.to_string(),
        }
    }
}

impl Device {
    fn new(accelerator: &str, index: usize, info: DeviceInfo) -> Self {
        Self {
            name: format!("{accelerator}:{index}"),
            model: info.name,
            target: info.target,
        }
    }
}

impl View for Added {
    fn text(&self) -> String {
        let mut text = String::new();
        let Some(plugin) = &self.plugin else {
            return text;
        };
        let Identity {
            id,
            version,
            vendor,
            description,
            accelerator,
        } = plugin;
        let _ = writeln!(text, "{HEADING}{id}{HEADING:#} {version}, by {vendor}");
        let _ = writeln!(text, "  {description}");
        let _ = writeln!(text, "  accelerator  {accelerator}");
        for device in &self.devices {
            let Device {
                name,
                model,
                target,
            } = device;
            let _ = writeln!(text, "  device       {name}  {model}, target {target}");
        }
        if let Some(why) = &self.absent {
            let word = if self.devices.is_empty() {
                "no device"
            } else {
                "not usable"
            };
            let _ = writeln!(text, "  {DOUBTFUL}{word:<11}{DOUBTFUL:#}  {}", why.reason);
            why.hint_below(&mut text, 15);
        }
        let Some(path) = &self.copied_to else {
            return text;
        };
        let over = self.replaced.as_ref();
        let over = over.map_or(String::new(), |old| format!(", in place of {old}"));
        let _ = writeln!(text, "{GOOD}added{GOOD:#} to {}{over}", path.display());
        if let Some(why) = &self.behind {
            let _ = writeln!(text, "{DOUBTFUL}not used{DOUBTFUL:#}: {}", why.reason);
            why.hint_below(&mut text, 10);
        } else if self.absent.is_some() {
            let _ = writeln!(
                text,
                "DS_ACCELERATOR={accelerator} selects it once its hardware is there"
            );
        } else {
            let _ = writeln!(text, "DS_ACCELERATOR={accelerator} selects it");
            if self.is_default {
                text.push_str("programs run on it too where DS_ACCELERATOR is not set\n");
            }
        }
        text
    }

    fn failure(&self) -> Option<Outcome> {
        let why = self.refused.as_ref()?;
        let hint = why.hint.as_ref();
        let hint = hint.map_or(String::new(), |hint| format!("hint: {hint}\n"));
        let message = format!("{BAD}error{BAD:#}: not added: {}\n{hint}", why.reason);
        Some(Outcome::new(FAILED, message))
    }
}
