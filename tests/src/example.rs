//! Plugins as files, built and dropped into a folder as a user would: the examples and the CPU.

use std::{
    ffi::OsStr,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use ds_core::{Host, KernelEntry, discovery::Search};
use ds_schema::KernelFile;

/// More flags for the C compiler, separated by blanks, such as those of a sanitizer.
pub const CFLAGS_VARIABLE: &str = "DS_TESTS_CFLAGS";

/// The workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The content of every file of that name in a folder of the project, or below it.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn files_named(folder: &str, name: &str) -> io::Result<Vec<Vec<u8>>> {
    contents(&root().join(folder), &|path| {
        path.file_name() == Some(OsStr::new(name))
    })
}

/// The content of every file with that ending in a folder of the project, or below it.
///
/// # Errors
/// As [`files_named`].
pub fn files_ending(folder: &str, ending: &str) -> io::Result<Vec<Vec<u8>>> {
    contents(&root().join(folder), &|path| {
        path.extension() == Some(OsStr::new(ending))
    })
}

/// In the order of their paths.
fn contents(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<Vec<Vec<u8>>> {
    let paths: io::Result<Vec<_>> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut paths = paths?;
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            all.extend(contents(&path, wanted)?);
        } else if wanted(&path) {
            all.push(std::fs::read(path)?);
        }
    }
    Ok(all)
}

/// Builds the example in C of that name into a folder of its own in `folder`, as its README says;
/// `false` where there is no C compiler, said on the terminal so that nobody takes it for a pass.
///
/// # Errors
/// When a file cannot be written, or the compiler refuses the sources.
pub fn build_c(name: &str, library: &str, folder: &Path) -> io::Result<bool> {
    let sources = root().join("plugins/examples").join(name);
    build_c_from(&sources, library, &folder.join(name))
}

/// The same from other sources, into the folder `plugin`.
///
/// # Errors
/// As [`build_c`].
pub fn build_c_from(sources: &Path, library: &str, plugin: &Path) -> io::Result<bool> {
    std::fs::create_dir_all(plugin)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(sources)? {
        let path = entry?.path();
        match path.extension().and_then(OsStr::to_str) {
            Some("c") => files.push(path),
            Some("json" | "ops") => {
                std::fs::copy(&path, plugin.join(path.file_name().unwrap_or_default()))?;
            }
            _ => {}
        }
    }
    files.sort();
    let more = std::env::var(CFLAGS_VARIABLE).unwrap_or_default();
    let built = Command::new("cc")
        .args([
            "-std=c11",
            "-O2",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            "-pthread",
        ])
        .args(more.split_whitespace())
        .arg("-I")
        .arg(root().join("core/abi/include"))
        .args(&files)
        .arg("-o")
        .arg(plugin.join(library))
        .arg("-lm")
        .output();
    match built {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            writeln!(io::stderr(), "skipped: no C compiler (tried cc)")?;
            Ok(false)
        }
        Err(e) => Err(e),
        Ok(done) if !done.status.success() => Err(io::Error::other(
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )),
        Ok(_) => Ok(true),
    }
}

/// What is edited in an example: in which file, this for that.
pub type Edit<'a> = (&'a str, &'a str, &'a str);

/// The example in C of that name with these edits, whose place each names exactly, into the folder
/// `plugin`.
///
/// # Errors
/// As [`build_c`], and when a place is not there, or there twice.
pub fn build_c_edited(
    name: &str,
    edits: &[Edit<'_>],
    library: &str,
    plugin: &Path,
) -> io::Result<bool> {
    let sources = tempfile::tempdir()?;
    for entry in std::fs::read_dir(root().join("plugins/examples").join(name))? {
        let entry = entry?;
        std::fs::copy(entry.path(), sources.path().join(entry.file_name()))?;
    }
    for (file, old, new) in edits {
        let path = sources.path().join(file);
        let text = std::fs::read_to_string(&path)?;
        let places = text.matches(old).count();
        if places != 1 {
            let what = format!("{file} has {places} of {old:?}");
            return Err(io::Error::other(what));
        }
        std::fs::write(&path, text.replace(old, new))?;
    }
    build_c_from(sources.path(), library, plugin)
}

/// Builds the CPU accelerator as a plugin file into `folder`, with its kernels in the manifest.
///
/// # Errors
/// When cargo cannot build it, or a file cannot be written.
pub fn build_cpu(folder: &Path) -> io::Result<()> {
    let plugin = folder.join("cpu");
    build_package("ds-plugin-cpu", &plugin.join("libds_plugin_cpu.so"))?;
    let mut manifest: serde_json::Value = serde_json::from_str(ds_accelerator_cpu::MANIFEST)?;
    let mut kernels: Vec<KernelEntry> = Vec::new();
    for text in ds_kernels::descriptions() {
        let file = KernelFile::parse_as(text).map_err(io::Error::other)?;
        kernels.extend(file.kernels);
    }
    manifest["kernels"] = serde_json::to_value(kernels)?;
    std::fs::write(plugin.join("plugin.json"), manifest.to_string())
}

/// Builds the smallest plugin in Rust into `folder`.
///
/// # Errors
/// When cargo cannot build it, or a file cannot be written.
pub fn build_null_rust(folder: &Path) -> io::Result<()> {
    build_rust("null-rust", "example-null", folder)
}

/// Builds the accelerator of `docs/adding-an-accelerator.md` into `folder`.
///
/// # Errors
/// When cargo cannot build it, or a file cannot be written.
pub fn build_mychip(folder: &Path) -> io::Result<()> {
    build_rust("mychip-rust", "example-mychip", folder)
}

/// Builds the example in Rust of that name into a folder of its own in `folder`.
fn build_rust(name: &str, package: &str, folder: &Path) -> io::Result<()> {
    let plugin = folder.join(name);
    let library = format!("lib{}.so", package.replace('-', "_"));
    build_package(package, &plugin.join(library))?;
    let manifest = root()
        .join("plugins/examples")
        .join(name)
        .join("plugin.json");
    std::fs::copy(manifest, plugin.join("plugin.json")).map(drop)
}

/// Builds a package's shared library and copies it to `library`.
fn build_package(package: &str, library: &Path) -> io::Result<()> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // A sanitizer that watches this process has no place in the compiler.
        .env_remove("LD_PRELOAD")
        .current_dir(root())
        .args(["build", "--quiet", "--package", package])
        .args(["--message-format", "json-render-diagnostics"])
        .output()?;
    if !built.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&built.stderr).into_owned(),
        ));
    }
    let told = String::from_utf8_lossy(&built.stdout);
    let made = told
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["crate_types"][0] == "cdylib")
        .find_map(|message| message["filenames"][0].as_str().map(PathBuf::from))
        .ok_or_else(|| io::Error::other("cargo named no library"))?;
    std::fs::create_dir_all(library.parent().unwrap_or(library))?;
    std::fs::copy(made, library).map(drop)
}

/// A host that finds the plugins in `folder` and what is linked in, and nothing else.
pub fn host(folder: &Path) -> Host {
    Host::with_search(Search {
        programmatic: vec![folder.to_owned()],
        ..Search::empty()
    })
}
