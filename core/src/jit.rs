//! From a kernel to its artefact: the plugin describes the build, the cache has it or makes it.

use std::{
    borrow::Cow,
    ffi::c_void,
    fs,
    path::Path,
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

use ds_abi::{
    DS_IO, DS_OK, DS_TOOLCHAIN_IN_PROCESS, DsBuildRequest, DsBytes, DsSignature, DsSource,
    DsStatus, DsStr, DsToolchain,
};
use ds_schema::{ArtefactKind, Kernel};

use crate::{
    Error, ErrorKind, Result,
    build::{
        Artefact, BuildEnvironment, BuildKey, BuildRequest, BuildSpec, Cache, CompileFailure,
        FailedBuild, ProgramToolchain, SourceText, Toolchain, ToolchainIdentity,
    },
    device::sized,
    plugin::{Plugin, call::call},
};

/// One way of a plugin to make artefacts.
#[derive(Clone, Debug)]
pub struct ToolchainInfo {
    /// Its name.
    pub name: String,
    /// Whether the plugin calls it as a library.
    pub in_process: bool,
    /// Programs to look for, for one that is a program.
    pub programs: String,
    /// Arguments that print the version; for a library its version and path, empty when absent.
    pub version: String,
    /// How to get it.
    pub hint: String,
}

/// The toolchains of `plugin`, best first; none for one without a jit table.
///
/// # Errors
/// The plugin's own.
pub fn toolchains(plugin: &Plugin) -> Result<Vec<ToolchainInfo>> {
    if plugin.tables().jit.toolchain_count.is_none() {
        return Ok(Vec::new());
    }
    let mut count = 0;
    // SAFETY: `count` is writable for the call.
    unsafe { call!(plugin, jit.toolchain_count(&raw mut count)) }?;
    (0..count).map(|index| toolchain(plugin, index)).collect()
}

fn toolchain(plugin: &Plugin, index: u32) -> Result<ToolchainInfo> {
    let mut raw = DsToolchain {
        struct_size: sized::<DsToolchain>(),
        kind: 0,
        name: DsStr::EMPTY,
        programs: DsStr::EMPTY,
        version: DsStr::EMPTY,
        hint: DsStr::EMPTY,
    };
    // SAFETY: `raw` states its size and is writable for the call.
    unsafe { call!(plugin, jit.toolchain(index, &raw mut raw)) }?;
    // SAFETY: strings that a plugin fills live as long as the process.
    let text = |s: DsStr| unsafe { String::from_utf8_lossy(s.bytes()).into_owned() };
    Ok(ToolchainInfo {
        name: text(raw.name),
        in_process: raw.kind == DS_TOOLCHAIN_IN_PROCESS,
        programs: text(raw.programs),
        version: text(raw.version),
        hint: text(raw.hint),
    })
}

/// The artefact of `kernel` for `target`, from the cache or built now.
///
/// # Safety
/// `signature` is null, or its arrays live past the call; `described` is its text.
///
/// # Errors
/// [`ErrorKind::BuildFailed`] with the compiler's first complaint, [`ErrorKind::LibraryNotFound`]
/// when there is no compiler, [`ErrorKind::Io`] when the cache cannot be used.
pub(crate) unsafe fn artefact(
    plugin: &Plugin,
    kernel: &Kernel,
    target: &str,
    signature: *const DsSignature,
    described: Option<String>,
) -> Result<Artefact> {
    // SAFETY: the caller's promise.
    let request = unsafe { request(plugin, &kernel.name, target, signature) }?;
    let mut spec = shared_spec(request, target);
    if kernel.artefact() == ArtefactKind::PerSignature {
        kernel.name.clone_into(&mut spec.kernel);
        spec.signature = described;
    }
    build(plugin, &spec)
}

/// Proves that the first toolchain of `plugin` works for `target`: builds the smallest artefact.
///
/// # Errors
/// As for any build; [`ErrorKind::Unimplemented`] when the plugin builds nothing.
pub fn smoke(plugin: &Plugin, target: &str) -> Result<Artefact> {
    // SAFETY: a null signature.
    let request = unsafe { request(plugin, "", target, ptr::null()) }?;
    let spec = BuildSpec {
        request,
        target: target.to_owned(),
        op_set: String::new(),
        kernel: String::new(),
        signature: None,
    };
    build(plugin, &spec)
}

/// Whether `kernel` can be loaded for `target` without a build: it needs no artefact, or the cache
/// holds the one that all signatures share. One artefact a signature counts as not ready.
///
/// # Errors
/// Why it could not be built either: no toolchain, or no place for the cache.
pub fn is_ready(plugin: &Plugin, kernel: &Kernel, target: &str) -> Result<bool> {
    match SharedBuild::of(plugin, kernel, target)? {
        Some(build) => Ok(build.find()?.is_some()),
        None => Ok(kernel.artefact() == ArtefactKind::None),
    }
}

/// The build of an artefact that serves every signature, described and not begun: what can be done
/// beforehand, on a machine that need not have a device of the target.
#[derive(Debug)]
pub struct SharedBuild<'a> {
    plugin: &'a Plugin,
    spec: BuildSpec,
}

impl<'a> SharedBuild<'a> {
    /// The one that `kernel` needs for `target`; `None` for a kernel that needs none, or one for
    /// each signature. Kernels that are built together have equal ones.
    ///
    /// # Errors
    /// The plugin's own, for a target that it does not know.
    pub fn of(plugin: &'a Plugin, kernel: &Kernel, target: &str) -> Result<Option<Self>> {
        if kernel.artefact() != ArtefactKind::Shared {
            return Ok(None);
        }
        // SAFETY: a null signature.
        let request = unsafe { request(plugin, &kernel.name, target, ptr::null()) }?;
        let spec = shared_spec(request, target);
        Ok(Some(Self { plugin, spec }))
    }

    /// Its name in messages: that of the folder whose kernels it holds.
    pub fn name(&self) -> &str {
        &self.spec.op_set
    }

    /// The artefact, if a cache holds it.
    ///
    /// # Errors
    /// Why it could not be built either: no toolchain, or no place for the cache.
    pub fn find(&self) -> Result<Option<Artefact>> {
        Ok(cache()?.lookup(&self.key()?))
    }

    /// The failure that is remembered of it.
    ///
    /// # Errors
    /// As [`SharedBuild::find`].
    pub fn failure(&self) -> Result<Option<FailedBuild>> {
        Ok(cache()?.failure(&self.key()?))
    }

    /// Finds it, or builds it now.
    ///
    /// # Errors
    /// [`ErrorKind::BuildFailed`] with the compiler's first complaint and, as a hint, where its log
    /// is; [`ErrorKind::LibraryNotFound`] when there is no compiler; [`ErrorKind::Io`] when the
    /// cache cannot be used.
    pub fn run(&self) -> Result<Artefact> {
        build(self.plugin, &self.spec)
    }

    /// Builds it anew, whatever the user's cache holds or remembers of it.
    ///
    /// # Errors
    /// As [`SharedBuild::run`].
    pub fn run_again(&self) -> Result<Artefact> {
        cache()?.forget(&self.key()?)?;
        self.run()
    }

    fn key(&self) -> Result<BuildKey> {
        let identity = identity(self.plugin, &self.spec)?;
        Ok(BuildKey::new(&self.spec, &identity))
    }
}

impl PartialEq for SharedBuild<'_> {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.plugin, other.plugin) && self.spec == other.spec
    }
}

impl Eq for SharedBuild<'_> {}

/// Has `plugin` say whether `target` is one that it builds for; yes from one that builds nothing.
///
/// # Errors
/// The plugin's own, which names what it takes.
pub fn check_target(plugin: &Plugin, target: &str) -> Result<()> {
    if plugin.tables().jit.request.is_none() {
        return Ok(());
    }
    // SAFETY: a null signature.
    unsafe { request(plugin, "", target, ptr::null()) }.map(drop)
}

/// What is built for the kernels of a folder: their requests are equal, and their names are no part
/// of the key.
fn shared_spec(request: BuildRequest, target: &str) -> BuildSpec {
    BuildSpec {
        op_set: stem(&request.output).to_owned(),
        request,
        target: target.to_owned(),
        kernel: String::new(),
        signature: None,
    }
}

fn build(plugin: &Plugin, spec: &BuildSpec) -> Result<Artefact> {
    let cache = cache()?;
    let info = named(plugin, spec)?;
    if info.in_process {
        let identity = identity(plugin, spec)?;
        return cache.build_with(spec, &identity, |folder| compile(plugin, spec, folder));
    }
    cache.build(spec, program(cache, &info)?)
}

/// The toolchain that a request names.
fn named(plugin: &Plugin, spec: &BuildSpec) -> Result<ToolchainInfo> {
    let wanted = &spec.request.toolchain;
    let all = toolchains(plugin)?;
    all.iter()
        .find(|t| t.name == *wanted)
        .cloned()
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|t| t.name.as_str()).collect();
            Error::new(
                ErrorKind::PluginBug,
                format!("build {}", spec.subject()),
                format!(
                    "the plugin asks for toolchain '{wanted}' and has {}",
                    names.join(", ")
                ),
            )
        })
}

/// What makes the toolchain of a request this one and no other.
fn identity(plugin: &Plugin, spec: &BuildSpec) -> Result<Cow<'static, ToolchainIdentity>> {
    identify(plugin, &named(plugin, spec)?)
}

/// The toolchain as it is on this machine: its path and version.
///
/// # Errors
/// [`ErrorKind::LibraryNotFound`] with every place tried and how to get it.
pub fn identify(plugin: &Plugin, info: &ToolchainInfo) -> Result<Cow<'static, ToolchainIdentity>> {
    if info.in_process {
        // The compiler is part of the plugin, so another version of the plugin is another compiler.
        let version = format!("{} {} {}", plugin.id(), plugin.version(), info.version);
        return Ok(Cow::Owned(ToolchainIdentity::in_process(
            &info.name, version,
        )));
    }
    Ok(Cow::Borrowed(program(cache()?, info)?.identity()))
}

/// The cache of this process.
///
/// # Errors
/// When its folder cannot be used; it is looked at again at the next call.
pub fn cache() -> Result<&'static Cache> {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    if let Some(cache) = CACHE.get() {
        return Ok(cache);
    }
    let opened = Cache::from_environment()?;
    Ok(CACHE.get_or_init(|| opened))
}

/// The program behind a toolchain, looked for once a process.
fn program(cache: &Cache, info: &ToolchainInfo) -> Result<&'static Toolchain> {
    static FOUND: Mutex<Vec<&Toolchain>> = Mutex::new(Vec::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(toolchain) = found.iter().find(|t| t.identity().name == info.name) {
        return Ok(toolchain);
    }
    let described = ProgramToolchain {
        name: info.name.clone(),
        programs: info.programs.clone(),
        version: info.version.clone(),
        hint: info.hint.clone(),
    };
    let toolchain = described.resolve(&BuildEnvironment::from_process(), cache)?;
    found.push(Box::leak(Box::new(toolchain)));
    Ok(found[found.len() - 1])
}

/// Asks the plugin what the build of `kernel` needs.
///
/// # Safety
/// `signature` is null, or its arrays live past the call.
unsafe fn request(
    plugin: &Plugin,
    kernel: &str,
    target: &str,
    signature: *const DsSignature,
) -> Result<BuildRequest> {
    unsafe extern "C" fn visit(user: *mut c_void, request: *const DsBuildRequest) -> DsStatus {
        // SAFETY: `user` is the `Option` below; the plugin visits within the call.
        let kept = unsafe { &mut *user.cast::<Option<BuildRequest>>() };
        // SAFETY: the plugin's request is valid for the visit; its size is checked first.
        match unsafe { request.as_ref() } {
            Some(raw) if raw.struct_size as usize >= size_of::<DsBuildRequest>() => {
                // SAFETY: as above.
                *kept = Some(unsafe { owned(raw) });
                DS_OK
            }
            _ => ds_abi::DS_INCOMPATIBLE_ABI,
        }
    }
    let mut kept: Option<BuildRequest> = None;
    let (name, target) = (DsStr::new(kernel), DsStr::new(target));
    // SAFETY: the strings and `kept` live past the call; the signature is the caller's.
    unsafe {
        call!(
            plugin,
            jit.request(name, signature, target, Some(visit), (&raw mut kept).cast())
        )
    }?;
    kept.ok_or_else(|| {
        Error::new(
            ErrorKind::PluginBug,
            format!("{} request", plugin.accelerator()),
            format!("the plugin described no build for kernel '{kernel}'"),
        )
    })
}

/// # Safety
/// The request's pointers are valid for the call.
unsafe fn owned(raw: &DsBuildRequest) -> BuildRequest {
    // SAFETY: the caller's promise.
    let text = |s: DsStr| unsafe { String::from_utf8_lossy(s.bytes()).into_owned() };
    let source = |index: u32| {
        // SAFETY: the request has `source_count` sources at this stride.
        let source: DsSource = unsafe {
            raw.sources
                .byte_add(index as usize * raw.source_stride as usize)
                .read()
        };
        // SAFETY: the caller's promise.
        let (name, content) = unsafe { (text(source.name), bytes(source.content)) };
        let kept = SourceText::of(&name, content);
        (name, kept)
    };
    // SAFETY: the request has `argument_count` arguments.
    let argument = |index: u32| text(unsafe { *raw.arguments.add(index as usize) });
    BuildRequest {
        toolchain: text(raw.toolchain),
        sources: (0..raw.source_count).map(source).collect(),
        arguments: (0..raw.argument_count).map(argument).collect(),
        output: text(raw.output),
    }
}

/// # Safety
/// The bytes are valid for `'a`.
unsafe fn bytes<'a>(raw: DsBytes) -> &'a [u8] {
    if raw.data.is_null() || raw.len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(raw.data, raw.len) }
}

/// What an in-process compile gives back, piece by piece.
#[derive(Default)]
struct Gathered {
    artefact: Vec<u8>,
    log: Vec<u8>,
}

/// Runs an in-process toolchain in `folder` and leaves the output there.
fn compile(plugin: &Plugin, spec: &BuildSpec, folder: &Path) -> Result<Vec<u8>, CompileFailure> {
    unsafe extern "C" fn artefact(user: *mut c_void, piece: DsBytes) -> DsStatus {
        // SAFETY: `user` is the `Gathered` below; the plugin visits within the call.
        let gathered = unsafe { &mut *user.cast::<Gathered>() };
        // SAFETY: the bytes live for the visit.
        gathered.artefact.extend_from_slice(unsafe { bytes(piece) });
        DS_OK
    }
    unsafe extern "C" fn log(user: *mut c_void, piece: DsBytes) -> DsStatus {
        // SAFETY: as in `artefact`.
        let gathered = unsafe { &mut *user.cast::<Gathered>() };
        // SAFETY: as in `artefact`.
        gathered.log.extend_from_slice(unsafe { bytes(piece) });
        DS_OK
    }
    let request = &spec.request;
    let sources: Vec<DsSource> = request
        .sources
        .iter()
        .map(|(name, content)| DsSource {
            name: DsStr::new(name),
            content: DsBytes {
                data: content.as_ptr(),
                len: content.len(),
            },
        })
        .collect();
    let arguments: Vec<DsStr> = request.arguments.iter().map(|a| DsStr::new(a)).collect();
    let raw = DsBuildRequest {
        struct_size: sized::<DsBuildRequest>(),
        flags: 0,
        toolchain: DsStr::new(&request.toolchain),
        sources: sources.as_ptr(),
        source_count: u32::try_from(sources.len()).unwrap_or(u32::MAX),
        source_stride: sized::<DsSource>(),
        arguments: arguments.as_ptr(),
        argument_count: u32::try_from(arguments.len()).unwrap_or(u32::MAX),
        reserved: 0,
        output: DsStr::new(&request.output),
    };
    let mut gathered = Gathered::default();
    // SAFETY: the request, the target and `gathered` live past the call.
    let done = unsafe {
        call!(
            plugin,
            jit.compile(
                &raw const raw,
                DsStr::new(&spec.target),
                Some(artefact),
                Some(log),
                (&raw mut gathered).cast(),
            )
        )
    };
    match done {
        Ok(()) => fs::write(folder.join(&request.output), &gathered.artefact)
            .map(|()| gathered.log)
            .map_err(|e| CompileFailure {
                error: Error::new(
                    crate::plugin::call::kind(DS_IO),
                    format!("build {}", spec.subject()),
                    format!("write {}", request.output),
                )
                .with_source(e),
                log: Vec::new(),
                lasting: false,
            }),
        Err(error) => Err(CompileFailure::told(error, gathered.log)),
    }
}

/// A file's name without its ending.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
