//! Compilers: which one it is, found and identified without running it twice, and how a program
//! among them is run on a request.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Artefact, BuildEnvironment, BuildRequest, BuildSpec, Cache, CompileFailure, cache::sealed,
    files, record,
};
use crate::{
    Error, ErrorKind, Result,
    child::{End, Run},
};

/// How long a compiler may take to print its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);
/// Some compilers print their version only after a page of copyright.
const VERSION_LINES: usize = 8;
/// So that a program that prints novels does not fill the records.
const VERSION_CHARS: usize = 1024;

/// A toolchain that is a program, as a plugin describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramToolchain {
    /// Name, such as `cc`.
    pub name: String,
    /// Names to look for, best first, separated by blanks; absolute paths too. `$CC` stands for the
    /// variable's value, which may hold arguments after the program (`ccache gcc`).
    pub programs: String,
    /// Arguments that print its version, separated by blanks.
    pub version: String,
    /// How to get it, in a sentence.
    pub hint: String,
}

/// What makes a toolchain this one and no other: part of every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolchainIdentity {
    /// Name, such as `cc`.
    pub name: String,
    /// The program's file, links resolved; for a library its path, when it is known.
    pub path: String,
    /// What it says of its version.
    pub version: String,
    /// Arguments that it is always run with, from a variable such as `$CC`.
    pub arguments: Vec<String>,
    /// Variables that can change what it makes.
    pub environment: BTreeMap<String, String>,
}

impl ToolchainIdentity {
    /// The identity of a toolchain that is a library; `version` is its version and path.
    pub fn in_process(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            path: String::new(),
            version: version.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
        }
    }
}

/// A compiler that was found on this machine.
#[derive(Clone, Debug)]
pub struct Toolchain {
    identity: ToolchainIdentity,
    /// As it was found, not resolved: some programs ask under which name they run.
    program: PathBuf,
    environment: BuildEnvironment,
}

impl ProgramToolchain {
    /// Looks for the first candidate that is there and prints its version.
    ///
    /// The version is taken from the cache while the program's file stays the same, so that a warm
    /// start runs no child. A variable that names a program which cannot be used is an error, not a
    /// reason to take another one.
    ///
    /// # Errors
    /// `LibraryNotFound`, with every candidate and what was wrong with it.
    pub fn resolve(&self, environment: &BuildEnvironment, cache: &Cache) -> Result<Toolchain> {
        let mut tried = Vec::new();
        for candidate in self.programs.split_whitespace() {
            let asked_for = candidate.strip_prefix('$');
            let words: Vec<String> = match asked_for {
                None => vec![candidate.to_owned()],
                Some(name) => environment
                    .variable(name)
                    .map(|value| value.to_string_lossy())
                    .iter()
                    .flat_map(|value| value.split_whitespace())
                    .map(str::to_owned)
                    .collect(),
            };
            let Some((program, arguments)) = words.split_first() else {
                tried.push(format!("{candidate} (unset)"));
                continue;
            };
            let verdict = match find_program(program, environment) {
                Some(path) => match self.identify(&path, arguments, environment, cache) {
                    Ok(identity) => {
                        let environment = environment.clone();
                        return Ok(Toolchain {
                            identity,
                            program: path,
                            environment,
                        });
                    }
                    Err(what) => format!("{} {what}", path.display()),
                },
                None if program.contains('/') => "no such program".into(),
                None => "not found".into(),
            };
            if let Some(name) = asked_for {
                let what = format!("${name} is `{}`: {verdict}", words.join(" "));
                return Err(self.not_found(&what, environment, &format!("unset {name}, or ")));
            }
            tried.push(match verdict.as_str() {
                "not found" => candidate.to_owned(),
                verdict => format!("{candidate} ({verdict})"),
            });
        }
        Err(self.not_found(&format!("tried {}", tried.join(", ")), environment, ""))
    }

    fn not_found(&self, what: &str, environment: &BuildEnvironment, advice: &str) -> Error {
        let mut context = format!("no `{}` compiler: {what} on PATH=", self.name);
        for (index, folder) in environment.search_path().iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            // Writing to a string cannot fail.
            let _ = write!(context, "{separator}{}", folder.display());
        }
        let error = Error::new(ErrorKind::LibraryNotFound, "find a compiler", context);
        match (advice, self.hint.as_str()) {
            ("", "") => error,
            (advice, "") => error.with_hint(format!("{advice}correct it")),
            (advice, hint) => error.with_hint(format!("{advice}{hint}")),
        }
    }

    fn identify(
        &self,
        program: &Path,
        arguments: &[String],
        environment: &BuildEnvironment,
        cache: &Cache,
    ) -> Result<ToolchainIdentity, String> {
        let path = fs::canonicalize(program).map_err(|error| error.to_string())?;
        let metadata = fs::metadata(&path).map_err(|error| error.to_string())?;
        let probe = Probe {
            size_bytes: metadata.size(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            version: String::new(),
        };
        let name = format!(
            "{} {} {}",
            program.display(),
            arguments.join(" "),
            self.version
        );
        let known = Probes::read(cache).0.remove(&name);
        let version = match known {
            Some(known) if known.same_file(&probe) => known.version,
            _ => {
                let version = self.ask_version(program, arguments, environment, &probe)?;
                Probes::remember(
                    cache,
                    name,
                    Probe {
                        version: version.clone(),
                        ..probe
                    },
                );
                version
            }
        };
        Ok(ToolchainIdentity {
            name: self.name.clone(),
            path: path.to_string_lossy().into_owned(),
            version,
            arguments: arguments.to_vec(),
            environment: environment.keyed(),
        })
    }

    fn ask_version(
        &self,
        program: &Path,
        arguments: &[String],
        environment: &BuildEnvironment,
        probe: &Probe,
    ) -> Result<String, String> {
        let question = self.version.split_whitespace();
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let done = Run {
            program,
            arguments: arguments
                .iter()
                .map(String::as_str)
                .chain(question)
                .collect(),
            folder: folder.path(),
            variables: environment.of_child(folder.path()),
            timeout: VERSION_TIMEOUT,
        }
        .finish()
        .map_err(|error| format!("cannot be run: {error}"))?;
        let asked = || format!("with `{}`", self.version);
        match done.end {
            End::Exited(0) => {}
            End::Exited(code) => return Err(format!("exits with {code} {}", asked())),
            End::Signalled(signal) => return Err(format!("dies of signal {signal} {}", asked())),
            End::TimedOut => return Err(format!("does not end {}", asked())),
        }
        let text = String::from_utf8_lossy(&done.log);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .take(VERSION_LINES)
            .collect();
        if lines.is_empty() {
            // Its file then has to tell one version from another.
            return Ok(format!(
                "{} bytes, changed {}.{:09}",
                probe.size_bytes, probe.modified_s, probe.modified_ns
            ));
        }
        Ok(lines.join("\n").chars().take(VERSION_CHARS).collect())
    }
}

impl Toolchain {
    /// What makes it this one.
    pub fn identity(&self) -> &ToolchainIdentity {
        &self.identity
    }

    /// The program, as it was found.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Proves that it works for `target`: builds the plugin's smallest request, once, through the
    /// cache. This is what "buildable" means.
    ///
    /// # Errors
    /// As [`Cache::build_with`]; a failure is remembered like any other.
    pub fn prove(&self, cache: &Cache, request: BuildRequest, target: &str) -> Result<Artefact> {
        let spec = BuildSpec {
            request,
            target: target.to_owned(),
            op_set: String::new(),
            kernel: String::new(),
            signature: None,
        };
        cache.build(&spec, self)
    }

    /// Runs it on `request` in `folder`, where the sources are. Gives its log.
    ///
    /// # Errors
    /// Lasting when it refused the sources; not when it was killed, took too long or did not start.
    pub fn compile(
        &self,
        request: &BuildRequest,
        folder: &Path,
        timeout: Duration,
    ) -> Result<Vec<u8>, CompileFailure> {
        let name = self.program.display();
        let always = self.identity.arguments.iter().map(String::as_str);
        let done = Run {
            program: &self.program,
            arguments: always
                .chain(request.arguments.iter().map(String::as_str))
                .collect(),
            folder,
            variables: self.environment.of_child(folder),
            timeout,
        }
        .finish()
        .map_err(|error| {
            Error::new(
                ErrorKind::BuildFailed,
                "compile",
                format!("{name} cannot be run"),
            )
            .with_source(error)
        })?;
        let passing = |kind, context: String, hint: &str| CompileFailure {
            error: Error::new(kind, "compile", context).with_hint(hint),
            log: Vec::new(),
            lasting: false,
        };
        match done.end {
            End::Exited(0) => Ok(done.log),
            End::TimedOut => Err(passing(
                ErrorKind::Timeout,
                format!("{name} was killed after {timeout:.0?}"),
                "raise DS_BUILD_TIMEOUT (seconds) if the machine is slow",
            )),
            End::Signalled(signal) => Err(died_of(&name.to_string(), signal)),
            // How a wrapper script reports that its compiler died of a signal.
            End::Exited(code @ 129..160) => Err(died_of(&name.to_string(), code - 128)),
            End::Exited(code) => Err(CompileFailure::refused(
                &format!("{name} exited with {code}"),
                done.log,
            )),
        }
    }
}

/// A compiler that was killed, mostly for want of memory; the same sources may pass another time.
fn died_of(name: &str, signal: i32) -> CompileFailure {
    Error::new(
        ErrorKind::BuildFailed,
        "compile",
        format!("{name} died of signal {signal}"),
    )
    .with_hint("signal 9 mostly means that memory ran out; free some and try again")
    .into()
}

/// Finds a program: as it stands when it holds a folder, else on the search path.
fn find_program(name: &str, environment: &BuildEnvironment) -> Option<PathBuf> {
    let is_program =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0);
    let path = Path::new(name);
    if name.contains('/') {
        // A relative one would be another program in every folder.
        return Some(path.to_owned()).filter(|path| path.is_absolute() && is_program(path));
    }
    environment
        .search_path()
        .iter()
        .map(|folder| folder.join(path))
        .find(is_program)
}

/// What a program said of itself, while its file stays the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    size_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
    version: String,
}

impl Probe {
    fn same_file(&self, other: &Self) -> bool {
        (self.size_bytes, self.modified_s, self.modified_ns)
            == (other.size_bytes, other.modified_s, other.modified_ns)
    }
}

/// Every program asked so far. Losing it costs a few children; two writers may lose one's line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Probes(BTreeMap<String, Probe>);

impl Probes {
    fn read(cache: &Cache) -> Self {
        let path = cache.toolchain_records();
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= record::MAX_RECORD_BYTES);
        small
            .then(|| fs::read(path).ok())
            .flatten()
            .and_then(|text| record::from_sealed_json(&text).ok())
            .unwrap_or_default()
    }

    fn remember(cache: &Cache, name: String, probe: Probe) {
        let write = || -> Result<()> {
            cache.make_folders()?;
            let mut probes = Self::read(cache);
            probes.0.insert(name, probe);
            let path = cache.toolchain_records();
            files::replace(
                "note a compiler's version",
                &path,
                &cache.tmp(),
                &sealed(&probes)?,
            )
        };
        if let Err(error) = write() {
            log::debug!("the version is asked for again next time: {error}");
        }
    }
}
