//! `dist`: builds what is installed and lays it out as a prefix: `bin`, `include`,
//! `lib/deepspeed/plugins`, `share/deepspeed/kernels`, `share/deepspeed/source`,
//! `share/doc/deepspeed`.
//!
//! What goes in follows from the tree: every program called `ds_*`, every `plugins/*/plugin.json`
//! with the library of the package `ds-plugin-*` of that name, every kernel.

pub(crate) mod archive;
pub(crate) mod stage;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use cargo_metadata::{Artifact, Message, Metadata, Package, PackageId};

use crate::licences;
use crate::step::{Outcome, cargo};
use stage::{Access, Stage, files_below};

/// Builds the prefix and gives the number of its files.
pub(crate) fn build(root: &Path, prefix: &Path) -> Result<usize, String> {
    let metadata = licences::metadata(root)?;
    // Before the long build, because it may refuse the prefix.
    let mut stage = Stage::new(prefix)?;
    add_programs(&mut stage, root, &metadata)?;
    add_headers(&mut stage, root)?;
    add_plugins(&mut stage, root, &metadata)?;
    add_kernels(&mut stage, root)?;
    add_crates(&mut stage, root)?;
    add_documents(&mut stage, root, &metadata)?;
    stage.publish()
}

/// Programs that are installed are those whose names begin so; nothing else is to be done for one.
const PROGRAM: &str = "ds_";

fn add_programs(stage: &mut Stage, root: &Path, metadata: &Metadata) -> Outcome {
    let packages = packages(metadata, |package| {
        let mut programs = package.targets.iter().filter(|target| target.is_bin());
        programs.any(|target| target.name.starts_with(PROGRAM))
    });
    for artifact in compile(root, &packages)? {
        if let Some(file) = artifact.executable {
            let name = artifact.target.name;
            stage.add(file.as_std_path(), &format!("bin/{name}"), Access::Program)?;
        }
    }
    Ok(())
}

fn add_headers(stage: &mut Stage, root: &Path) -> Outcome {
    for folder in ["core/abi/include", "ops/include"].map(|folder| root.join(folder)) {
        for file in files_below(&folder)? {
            if Path::new(&file)
                .extension()
                .is_some_and(|ending| ending == "h")
            {
                stage.add(
                    &folder.join(&file),
                    &format!("include/{file}"),
                    Access::Data,
                )?;
            }
        }
    }
    Ok(())
}

/// A manifest without a package is installed alone: the report says that its library is missing.
fn add_plugins(stage: &mut Stage, root: &Path, metadata: &Metadata) -> Outcome {
    let folder = root.join("plugins");
    let mut names = Vec::new();
    for file in files_below(&folder)? {
        if let Some((name, "plugin.json")) = file.split_once('/') {
            let installed = format!("lib/deepspeed/plugins/{name}/plugin.json");
            let manifest = manifest(&folder.join(&file), &root.join("kernels"))?;
            stage.add_text(&manifest, &installed)?;
            names.push(name.to_owned());
        }
    }
    let plugin = |package: &Package| {
        let name = package.name.strip_prefix("ds-plugin-")?;
        names.iter().find(|plugin| *plugin == name)
    };
    // Not together with the programs: cargo would give both the features that either asks for.
    let packages = packages(metadata, |package| plugin(package).is_some());
    for artifact in compile(root, &packages)? {
        let built = packages
            .iter()
            .find(|package| package.id == artifact.package_id);
        let Some(name) = built.and_then(|package| plugin(package)) else {
            continue;
        };
        if artifact.target.is_cdylib() {
            for file in &artifact.filenames {
                let library = file.file_name().unwrap_or_default();
                let installed = format!("lib/deepspeed/plugins/{name}/{library}");
                stage.add(file.as_std_path(), &installed, Access::Program)?;
            }
        }
    }
    Ok(())
}

/// A manifest as it is installed: with the kernels of its accelerator, so that the host knows what a
/// plugin file can do without opening it.
fn manifest(path: &Path, kernels: &Path) -> Result<String, String> {
    let read = |path: &Path| {
        let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        serde_json::from_slice::<Value>(&bytes).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut manifest = read(path)?;
    let mut own = manifest["kernels"].as_array().cloned().unwrap_or_default();
    for file in files_below(kernels)? {
        if file.ends_with("/kernel.json") {
            let described = read(&kernels.join(&file))?;
            let listed = described["kernels"].as_array().cloned().unwrap_or_default();
            own.extend(
                listed
                    .into_iter()
                    .filter(|k| k["accelerator"] == manifest["accelerator"]),
            );
        }
    }
    manifest["kernels"] = Value::Array(own);
    serde_json::to_string_pretty(&manifest).map_err(|e| format!("{}: {e}", path.display()))
}

/// Every op set with its `kernel.json`, and the headers that kernels share.
fn add_kernels(stage: &mut Stage, root: &Path) -> Outcome {
    let folder = root.join("kernels");
    for file in files_below(&folder)? {
        let Some((set, _)) = file.split_once('/') else {
            continue;
        };
        if set == "include" || folder.join(set).join("kernel.json").is_file() {
            let installed = format!("share/deepspeed/kernels/{file}");
            stage.add(&folder.join(&file), &installed, Access::Data)?;
        }
    }
    Ok(())
}

/// The crates that a plugin in Rust is built against, laid out as in the checkout, with the
/// workspace that they take their version from. They are on no registry.
fn add_crates(stage: &mut Stage, root: &Path) -> Outcome {
    let mut files = vec!["Cargo.toml".to_owned()];
    for package in ["core/abi", "core/plugin"] {
        files.push(format!("{package}/Cargo.toml"));
        let sources = format!("{package}/src");
        let below = files_below(&root.join(&sources))?;
        files.extend(below.iter().map(|file| format!("{sources}/{file}")));
    }
    for file in files {
        let installed = format!("share/deepspeed/source/{file}");
        stage.add(&root.join(&file), &installed, Access::Data)?;
    }
    Ok(())
}

/// Our licence, and the notices of everything that is compiled in.
fn add_documents(stage: &mut Stage, root: &Path, metadata: &Metadata) -> Outcome {
    const NOTICES: [&str; 4] = ["LICEN", "COPYING", "NOTICE", "UNLICENSE"];
    for file in ["LICENSE", "THIRD_PARTY.md"] {
        let installed = format!("share/doc/deepspeed/{file}");
        stage.add(&root.join(file), &installed, Access::Data)?;
    }
    // What programs that read the report rely on.
    let schemas = root.join("ds_report/schema");
    for file in files_below(&schemas)? {
        let installed = format!("share/deepspeed/schema/{file}");
        stage.add(&schemas.join(&file), &installed, Access::Data)?;
    }
    for package in licences::third_party(metadata).installed {
        let Some(folder) = package.manifest_path.parent() else {
            continue;
        };
        let entries = fs::read_dir(folder)
            .map_err(|error| format!("cannot read the sources of {}: {error}", package.name))?;
        for entry in entries.filter_map(Result::ok) {
            let file = entry.file_name().to_string_lossy().into_owned();
            let capitals = file.to_uppercase();
            let notice = NOTICES.iter().any(|notice| capitals.starts_with(notice));
            if notice && entry.path().is_file() {
                let installed = format!(
                    "share/doc/deepspeed/licences/{}-{}/{file}",
                    package.name, package.version
                );
                stage.add(&entry.path(), &installed, Access::Data)?;
            }
        }
    }
    Ok(())
}

fn packages(metadata: &Metadata, wanted: impl Fn(&Package) -> bool) -> Vec<&Package> {
    let mut packages = metadata.workspace_packages();
    packages.retain(|package| wanted(package));
    packages
}

/// Builds packages for release and tells what came out of them.
fn compile(root: &Path, packages: &[&Package]) -> Result<Vec<Artifact>, String> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = cargo(root);
    command.args([
        "build",
        "--release",
        "--message-format=json-render-diagnostics",
    ]);
    for package in packages {
        command.args(["--package", &package.name]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo build: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build --release: {}", output.status));
    }
    let ours = |id: &PackageId| packages.iter().any(|package| package.id == *id);
    Ok(Message::parse_stream(output.stdout.as_slice())
        .filter_map(|message| match message {
            Ok(Message::CompilerArtifact(artifact)) if ours(&artifact.package_id) => Some(artifact),
            _ => None,
        })
        .collect())
}
