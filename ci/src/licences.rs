//! `licences`: writes `THIRD_PARTY.md`, the list of what others made, from the dependency graph.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, Target};

use crate::drift;
use crate::step::{Gate, Verdict};

const FILE: &str = "THIRD_PARTY.md";

/// Writes the list, or fails when something else is committed.
pub(crate) fn step(gate: &Gate) -> Result<Verdict, String> {
    let text = text(&third_party(&metadata(gate.root)?));
    if gate.fix {
        drift::write(gate.root, FILE, &text)?;
    } else {
        drift::check(gate.root, FILE, &text, "cargo xtask licences")?;
    }
    Ok(Verdict::Passed(Vec::new()))
}

/// The dependency graph on Linux, the same wherever it is asked for.
pub(crate) fn metadata(root: &Path) -> Result<Metadata, String> {
    MetadataCommand::new()
        .current_dir(root)
        .other_options(
            ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned),
        )
        .exec()
        .map_err(|error| format!("cannot read the dependency graph: {error}"))
}

/// Packages that are not ours, and whether what is installed has them inside.
pub(crate) struct ThirdParty<'a> {
    pub(crate) installed: Vec<&'a Package>,
    pub(crate) building: Vec<&'a Package>,
}

/// Sorts the packages of others by what they are for.
pub(crate) fn third_party(metadata: &Metadata) -> ThirdParty<'_> {
    let inside = linked(metadata);
    let mut packages: BTreeMap<_, _> = BTreeMap::new();
    let used: HashSet<_> = metadata
        .resolve
        .iter()
        .flat_map(|graph| graph.nodes.iter().map(|node| &node.id))
        .collect();
    for package in &metadata.packages {
        if package.source.is_some() && used.contains(&package.id) {
            packages.insert((package.name.as_str(), &package.version), package);
        }
    }
    let (installed, building) = packages
        .into_values()
        .partition(|package| inside.contains(&package.id));
    ThirdParty {
        installed,
        building,
    }
}

/// Packages of the workspace of which nothing is installed.
const NOT_INSTALLED: [&str; 4] = ["ds-bench", "ds-ci", "ds-examples", "ds-tests"];

/// What is compiled into our packages that are installed: those that are reached without dependencies
/// of tests, of build scripts, or of procedural macros.
fn linked(metadata: &Metadata) -> HashSet<&PackageId> {
    let packages: HashMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package))
        .collect();
    let nodes: HashMap<_, _> = metadata
        .resolve
        .iter()
        .flat_map(|graph| graph.nodes.iter().map(|node| (&node.id, node)))
        .collect();
    let mut todo: Vec<_> = metadata
        .workspace_members
        .iter()
        .filter(|id| !NOT_INSTALLED.contains(&packages[id].name.as_str()))
        .collect();
    let mut linked = HashSet::new();
    while let Some(id) = todo.pop() {
        if packages[id].targets.iter().any(Target::is_proc_macro) || !linked.insert(id) {
            continue;
        }
        let normal = nodes[id].deps.iter().filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|info| info.kind == DependencyKind::Normal)
        });
        todo.extend(normal.map(|dependency| &dependency.pkg));
    }
    linked
}

fn text(packages: &ThirdParty<'_>) -> String {
    let mut text = String::from(
        "# What others made\n\n\
         DeepSpeed's accelerator layer is licensed under the Apache License 2.0 (see LICENSE) and \
         stands on these packages.\n\
         Written by `cargo xtask licences`.\n",
    );
    table(&mut text, "Inside what is installed", &packages.installed);
    table(&mut text, "To build and test it", &packages.building);
    text
}

fn table(text: &mut String, title: &str, packages: &[&Package]) {
    let _ = write!(
        text,
        "\n## {title}\n\n| package | version | licence |\n|---|---|---|\n"
    );
    for package in packages {
        let licence = package.license.as_deref().unwrap_or("see its licence file");
        let _ = writeln!(
            text,
            "| {} | {} | {licence} |",
            package.name, package.version
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{metadata, third_party};
    use crate::root;

    #[test]
    fn what_only_we_run_is_not_installed() {
        let metadata = metadata(root()).expect("a dependency graph");
        let packages = third_party(&metadata);
        let has = |list: &[&cargo_metadata::Package], name| {
            list.iter().any(|package| package.name.as_str() == name)
        };
        assert!(has(&packages.building, "cbindgen"));
        assert!(has(&packages.installed, "blake3"));
        assert!(!has(&packages.installed, "cbindgen"));
        assert!(has(&packages.building, "tokenizers") && !has(&packages.installed, "tokenizers"));
        assert!(!has(&packages.installed, "ds-abi") && !has(&packages.building, "ds-abi"));
    }
}
