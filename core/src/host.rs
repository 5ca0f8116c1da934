//! What this process can run on: the plugins that were found, those that are loaded, and the
//! selection among them.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use ds_plugin::LinkedPlugin;
use ds_schema::{KernelFile, MAX_SOURCE_BYTES};

use crate::{
    Accelerator, Device, Error, ErrorKind, Result,
    accelerator::Source,
    discovery::{self, Candidate, Discovery, LinkedManifest, Search, Verdict},
    manifest::Manifest,
    op,
    probe::{self, ProbeRecord},
    selection::{AcceleratorStatus, Chosen, Selection, State},
    trust,
};

/// The variable that selects.
const VARIABLE: &str = "DS_ACCELERATOR";

/// The plugins that a search found. Loading one is left until it is needed.
#[derive(Debug)]
pub struct Host {
    discovery: Discovery,
    /// The program that opens unknown plugins first; without one they are opened here.
    helper: Option<PathBuf>,
    /// How long the helper may take.
    patience: Duration,
    /// Whether kept answers do not count, only those that libraries gave to this host.
    live: bool,
    /// These, and the kept ones that it has read.
    answers: Mutex<BTreeMap<PathBuf, ProbeRecord>>,
    /// By canonical name; a failure stays one, because its library has been opened.
    loaded: Mutex<BTreeMap<String, Result<Accelerator, Failure>>>,
}

/// A failure that is told again at every call.
#[derive(Clone, Debug)]
struct Failure {
    kind: ErrorKind,
    op: String,
    text: String,
    hint: Option<String>,
}

impl Host {
    /// The host of this process: the places that the documentation names, and what is linked in.
    pub fn process() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(|| Self::with_search(Search::from_process()))
    }

    /// A host with a search of its own; what is linked into the program joins it.
    pub fn with_search(mut search: Search) -> Self {
        search
            .linked
            .extend(LinkedPlugin::all().map(|linked| LinkedManifest {
                text: linked.manifest.to_owned(),
            }));
        // `inventory` gives them in the linker's order.
        search.linked.sort_by(|a, b| a.text.cmp(&b.text));
        Self {
            discovery: discovery::discover(&search),
            helper: None,
            live: false,
            answers: Mutex::default(),
            patience: probe::TIMEOUT,
            loaded: Mutex::default(),
        }
    }

    /// The same with `helper` to open plugins first that this host has not seen: a program that calls
    /// [`probe::answer`] first thing.
    #[must_use]
    pub fn with_helper(mut self, helper: PathBuf) -> Self {
        self.helper = Some(helper);
        self
    }

    /// The same with another time that a plugin may take in the helper to open and to count and
    /// describe its devices; 20 seconds without this.
    #[must_use]
    pub fn with_probe_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// The same with a helper that asks every plugin again, once, instead of trusting an answer that
    /// was kept: whatever changes an answer and is not known to do so.
    #[must_use]
    pub fn with_live_probes(mut self) -> Self {
        self.live = true;
        self
    }

    /// Everything that was found, with a verdict each.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// What the plugin of that name or alias says of itself, without any code of it; upstream's
    /// `communication_backend_name`, `export_envs` and `visible_devices_envs` are in there.
    pub fn manifest(&self, name: &str) -> Option<&Manifest> {
        self.discovery
            .accelerators()
            .into_iter()
            .filter_map(|candidate| candidate.manifest.as_ref())
            .find(|manifest| manifest.answers_to(name))
    }

    /// The accelerator of that name or alias, loaded at the first call.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] with the names that are known, or why it cannot be used.
    pub fn accelerator(&self, name: &str) -> Result<Accelerator> {
        let serving = self.discovery.accelerators();
        // As the selection has it: an alias of one is no reason to overlook the other's own name.
        let is = |c: &&&Candidate| {
            c.manifest
                .as_ref()
                .is_some_and(|m| m.accelerator.as_str() == name)
        };
        let answers = |c: &&&Candidate| c.manifest.as_ref().is_some_and(|m| m.answers_to(name));
        let found = serving.iter().find(is);
        let Some(candidate) = found.or_else(|| serving.iter().find(answers)) else {
            let known: Vec<_> = serving
                .iter()
                .filter_map(|c| Some(c.manifest.as_ref()?.accelerator.as_str()))
                .collect();
            return Err(Error::new(
                ErrorKind::NotInstalled,
                "load an accelerator",
                format!("no plugin serves '{name}'; known are {}", known.join(", ")),
            ));
        };
        self.load(candidate)
    }

    /// How each accelerator stands: its devices are counted in a child process where there is a
    /// helper, else by loading every plugin that nothing speaks against.
    pub fn statuses(&self) -> Vec<AcceleratorStatus> {
        self.discovery.inventory(|candidate| {
            if let Some(record) = self.probe(candidate) {
                return match record.devices {
                    Ok(devices) => State::Usable {
                        device_count: u32::try_from(devices.len()).unwrap_or(u32::MAX),
                    },
                    Err(failure) => State::Unusable {
                        reason: failure.reason,
                        hint: failure.hint,
                    },
                };
            }
            let counted = self.load(candidate).and_then(Accelerator::device_count);
            match counted {
                Ok(device_count) => State::Usable { device_count },
                Err(e) => State::Unusable {
                    reason: e.to_string(),
                    hint: e.hint().map(str::to_owned),
                },
            }
        })
    }

    /// What `DS_ACCELERATOR` asks for, or without it the usable accelerator of the highest priority.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a value that is no selection, else what was found and why
    /// it cannot be used.
    pub fn select(&self) -> Result<Chosen> {
        self.select_with(|name| env::var_os(name))
    }

    /// As [`Host::select`], with another environment.
    ///
    /// # Errors
    /// As [`Host::select`].
    pub fn select_with(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Chosen> {
        let asked = variable(VARIABLE);
        let selection = Selection::from_env(asked.as_deref(), &variable)?;
        selection.resolve(&self.statuses()).map_err(|error| {
            // A manifest that cannot be read has no name to be known by.
            match self.unreadable() {
                Some(label) if error.kind() == ErrorKind::NotInstalled => {
                    let hint = format!("{label} was refused: `ds_report plugins` says why");
                    let hint = match error.hint() {
                        Some(other) => format!("{hint}; {other}"),
                        None => hint,
                    };
                    error.with_hint(hint)
                }
                _ => error,
            }
        })
    }

    /// The first candidate whose name is not known: its manifest, or the place, cannot be read.
    fn unreadable(&self) -> Option<String> {
        let mut candidates = self.discovery.candidates.iter();
        candidates
            .find(|c| matches!(c.verdict, Verdict::BadManifest(_) | Verdict::BadPath(_)))
            .map(Candidate::label)
    }

    /// What a plugin file says in a child process; `None` for one that is linked in, or without a
    /// helper to ask it.
    pub fn probe(&self, candidate: &Candidate) -> Option<ProbeRecord> {
        let helper = self.helper.as_deref()?;
        let (manifest, library) = (candidate.manifest.as_ref()?, candidate.library.as_ref()?);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(&library.path) {
            return Some(answer.clone());
        }
        let answer = probe::probe(helper, manifest, library, self.live, self.patience);
        if self.live || answer.lasts() {
            answers.insert(library.path.clone(), answer.clone());
        }
        Some(answer)
    }

    /// Loads the plugin of a candidate, once.
    fn load(&self, candidate: &Candidate) -> Result<Accelerator> {
        let Some(manifest) = &candidate.manifest else {
            let text = format!("{} has no readable manifest", candidate.label());
            return Err(Error::new(
                ErrorKind::Incompatible,
                "load an accelerator",
                text,
            ));
        };
        let name = manifest.accelerator.as_str();
        let mut loaded = self.lock();
        if let Some(done) = loaded.get(name) {
            return done.clone().map_err(Error::from);
        }
        let done = match self.probe(candidate).map(|record| record.devices) {
            Some(Err(failure)) if failure.quarantined => Err(Failure {
                kind: ErrorKind::PluginBug,
                op: "load an accelerator".to_owned(),
                text: format!("{}: {}", candidate.label(), failure.reason),
                hint: failure.hint,
            }),
            _ => open(candidate, name).map_err(Failure::from),
        };
        loaded.insert(name.to_owned(), done.clone());
        done.map_err(Error::from)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Result<Accelerator, Failure>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The selected accelerator's first device: what a program that asks for nothing else runs on.
///
/// # Errors
/// As [`Host::select`], or when the device does not open.
pub fn default_device() -> Result<Device> {
    static CHOSEN: OnceLock<Device> = OnceLock::new();
    if let Some(device) = CHOSEN.get() {
        return Ok(*device);
    }
    let host = Host::process();
    let chosen = host.select()?;
    log::info!("{}", chosen.why);
    let index = chosen.primary.devices.first().copied().unwrap_or(0);
    let device = host
        .accelerator(chosen.primary.accelerator.as_str())?
        .device(index)?;
    Ok(*CHOSEN.get_or_init(|| device))
}

fn open(candidate: &Candidate, name: &str) -> Result<Accelerator> {
    let op = "load an accelerator";
    if let Some(refusal) = candidate.verdict.refusal()
        && candidate.library.is_none()
    {
        let error = Error::new(ErrorKind::NotInstalled, op, refusal.reason.clone());
        return Err(match &refusal.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        });
    }
    let Some(manifest) = &candidate.manifest else {
        return Err(Error::new(
            ErrorKind::Incompatible,
            op,
            "no readable manifest",
        ));
    };
    let Some(library) = &candidate.library else {
        let linked = LinkedPlugin::all()
            .find(|linked| {
                Manifest::parse(linked.manifest.as_bytes()).is_ok_and(|own| own.id == manifest.id)
            })
            .ok_or_else(|| {
                let text = format!("{} is neither a file nor linked in", candidate.label());
                Error::new(ErrorKind::NotInstalled, op, text)
            })?;
        let mut kernels = Vec::new();
        for text in (linked.kernels)() {
            let file = KernelFile::parse_as(text).map_err(|e| {
                let op = format!("read the kernels of {name}");
                Error::new(ErrorKind::Incompatible, op, e.to_string())
            })?;
            kernels.extend(file.kernels);
        }
        return Accelerator::load(name, Source::Linked(linked.entry), kernels);
    };
    if let Some(folder) = &candidate.path {
        for schema in &manifest.schemas {
            let path = trust::check_inside(&folder.join(schema.as_path()), folder)?;
            let text = discovery::read("schema", &path, MAX_SOURCE_BYTES)?;
            op::register(&text, &path.display().to_string())?;
        }
    }
    let source = Source::File(&library.path, library.identity);
    let opened = Accelerator::load(name, source, manifest.kernels.iter().cloned())?;
    let (id, version) = (opened.plugin().id(), opened.plugin().version());
    if (id, version) != (manifest.id.as_str(), manifest.version.as_str()) {
        log::warn!(
            "{name}: plugin.json says {} {}, and the library says {id} {version}",
            manifest.id,
            manifest.version
        );
    }
    Ok(opened)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let behind_op = text.strip_prefix(&format!("{}: ", error.op()));
        Self {
            kind: error.kind(),
            op: error.op().to_owned(),
            text: behind_op.unwrap_or(&text).to_owned(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = Self::new(failure.kind, failure.op, failure.text);
        match failure.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
