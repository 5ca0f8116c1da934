//! Plugins as files, built and dropped into a folder as a user would: the example in C, and the CPU.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use ds_core::{Host, discovery::Search};

/// Where the sources are.
fn sources() -> PathBuf {
    root().join("plugins/examples/sim-c")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Builds the example into `folder`, as its README says; `None` where there is no C compiler, said
/// on the terminal so that nobody takes it for a pass.
///
/// # Errors
/// When a file cannot be written, or the compiler refuses the sources.
pub fn build(folder: &Path) -> io::Result<Option<PathBuf>> {
    let plugin = folder.join("sim");
    std::fs::create_dir_all(&plugin)?;
    let mut files: Vec<_> = std::fs::read_dir(sources())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    files.sort();
    let built = Command::new("cc")
        .args([
            "-std=c11",
            "-O2",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            "-pthread",
            "-I",
        ])
        .arg(root().join("core/abi/include"))
        .args(&files)
        .arg("-o")
        .arg(plugin.join("libds_example_sim.so"))
        .arg("-lm")
        .output();
    match built {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            writeln!(io::stderr(), "skipped: no C compiler (tried cc)")?;
            return Ok(None);
        }
        Err(e) => return Err(e),
        Ok(done) if !done.status.success() => {
            return Err(io::Error::other(
                String::from_utf8_lossy(&done.stderr).into_owned(),
            ));
        }
        Ok(_) => {}
    }
    for name in ["plugin.json", "axpby.ops"] {
        std::fs::copy(sources().join(name), plugin.join(name))?;
    }
    Ok(Some(plugin))
}

/// Builds the CPU accelerator as a plugin file into `folder`, with its kernels in the manifest.
///
/// # Errors
/// When cargo cannot build it, or a file cannot be written.
pub fn build_cpu(folder: &Path) -> io::Result<()> {
    let plugin = folder.join("cpu");
    std::fs::create_dir_all(&plugin)?;
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        .args(["build", "--quiet", "--package", "ds-plugin-cpu"])
        .args(["--message-format", "json-render-diagnostics"])
        .output()?;
    if !built.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&built.stderr).into_owned(),
        ));
    }
    let told = String::from_utf8_lossy(&built.stdout);
    let library = told
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "ds_plugin_cpu")
        .find_map(|message| message["filenames"][0].as_str().map(PathBuf::from))
        .ok_or_else(|| io::Error::other("cargo named no library"))?;
    std::fs::copy(library, plugin.join("libds_plugin_cpu.so"))?;
    let mut manifest: serde_json::Value = serde_json::from_str(ds_accelerator_cpu::MANIFEST)?;
    let kernels = ds_kernels::sets()
        .iter()
        .flat_map(ds_kernels::KernelSet::kernels);
    manifest["kernels"] = serde_json::to_value(kernels.collect::<Vec<_>>())?;
    std::fs::write(plugin.join("plugin.json"), manifest.to_string())
}

/// A host that finds the plugins in `folder` and what is linked in, and nothing else.
pub fn host(folder: &Path) -> Host {
    Host::with_search(Search {
        programmatic: vec![folder.to_owned()],
        ..Search::empty()
    })
}
