//! `tidy`: the house rules that no compiler knows. Each rule reads the tracked files or the
//! dependency graph and names every place that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::step::{Gate, Verdict, run};

/// Fails with every place where the tree breaks a rule.
pub(crate) fn step(gate: &Gate) -> Result<Verdict, String> {
    let tree = Tree::read(gate.root)?;
    let broken: Vec<_> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    if broken.is_empty() {
        Ok(Verdict::Passed(Vec::new()))
    } else {
        Err(broken.join("\n"))
    }
}

/// What the rules look at.
#[derive(Default)]
struct Tree {
    /// Tracked text files, by their path from the root.
    files: BTreeMap<String, String>,
    /// Packages of the workspace, by name.
    packages: BTreeMap<String, Member>,
}

/// A package of the workspace.
#[derive(Default)]
struct Member {
    /// Its folder, from the root of the workspace.
    folder: String,
    /// The first files of its libraries and programs, from the root of the workspace.
    roots: Vec<String>,
    /// What it is built from; what only its tests need does not count.
    needs: BTreeSet<String>,
}

/// A rule gives one line for each place that breaks it.
type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[Rule] = &[
    core_names_no_vendor,
    layers_point_downwards,
    few_modules_open_libraries,
    unsafe_code_has_its_places,
    files_stay_small,
    sets_and_accelerators_come_in_pairs,
    no_path_of_a_machine,
];

/// Vendors and their products, in small letters.
const VENDORS: [&str; 17] = [
    "cuda",
    "nvidia",
    "rocm",
    "amd",
    "hip",
    "xpu",
    "intel",
    "level zero",
    "level_zero",
    "hpu",
    "gaudi",
    "habana",
    "npu",
    "cann",
    "sdaa",
    "tecorigin",
    "\"ascend\"",
];

/// `core/` and `ops/` know vendors only through manifests, so that adding one edits nothing there.
/// Tests may use real names.
fn core_names_no_vendor(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in &tree.files {
        let inside = path.starts_with("core/") || path.starts_with("ops/");
        let manifest = matches!(ending(path), "json" | "toml");
        if !inside || manifest || in_tests(path) {
            continue;
        }
        for (number, line) in lines_of_code_and_comments(path, text) {
            // The verb is a good English word, the name has a capital.
            let capital = has_word(line, "Ascend") || has_word(line, "ASCEND");
            let small = line.to_lowercase();
            let vendor = VENDORS.iter().find(|vendor| has_word(&small, vendor));
            if let Some(vendor) = vendor.or(capital.then_some(&"Ascend")) {
                broken.push(format!(
                    "{path}:{number}: names {vendor}; what the core must know of a vendor is data \
                     in plugins/*/plugin.json"
                ));
            }
        }
    }
    broken
}

/// An accelerator carries no copy of the host and knows no other; nothing below knows it.
fn layers_point_downwards(tree: &Tree) -> Vec<String> {
    const FOR_VENDORS: [&str; 3] = ["ds-plugin", "ds-schema", "ds-kernels"];
    let mut broken = Vec::new();
    for (name, package) in &tree.packages {
        let layer = layer(&package.folder);
        for need in &package.needs {
            let Some(needed) = tree.packages.get(need) else {
                if layer == Layer::Abi {
                    broken.push(format!("{name} needs {need}; the boundary needs nothing"));
                }
                continue;
            };
            let allowed = match (layer, self::layer(&needed.folder)) {
                (Layer::Accelerator | Layer::Vendor, Layer::Vendor) => true,
                (Layer::Accelerator, _) => FOR_VENDORS.contains(&need.as_str()),
                (Layer::Abi | Layer::Vendor, _)
                | (Layer::Core, Layer::Accelerator | Layer::Plugin)
                | (_, Layer::Vendor) => false,
                (Layer::Plugin, _) => need != "ds-core",
                _ => true,
            };
            if !allowed {
                broken.push(format!(
                    "{name} ({}) must not need {need} ({})",
                    package.folder, needed.folder
                ));
            }
        }
    }
    broken
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Abi,
    Core,
    Accelerator,
    /// What vendors publish: their function tables.
    Vendor,
    Plugin,
    Program,
}

fn layer(folder: &str) -> Layer {
    match folder {
        "core/abi" => Layer::Abi,
        "core" | "ops" | "kernels" => Layer::Core,
        _ if folder.starts_with("core/") || folder.starts_with("ops/") => Layer::Core,
        _ if folder.starts_with("accelerators/ffi/") => Layer::Vendor,
        _ if folder.starts_with("accelerators/") => Layer::Accelerator,
        _ if folder.starts_with("plugins/") => Layer::Plugin,
        _ => Layer::Program,
    }
}

/// Opening a library runs its code, so the checks before it live in three places only: the plugin
/// loader, the artefact loader, the vendors' tables.
fn few_modules_open_libraries(tree: &Tree) -> Vec<String> {
    const OPENERS: [&str; 3] = [
        "core/src/plugin/loader.rs",
        "accelerators/cpu/src/jit.rs",
        "accelerators/ffi/",
    ];
    let mut broken = Vec::new();
    for (path, text) in &tree.files {
        let opener = OPENERS.iter().any(|opener| path.starts_with(opener));
        if ending(path) != "rs" || opener || in_tests(path) || path == "ci/src/tidy.rs" {
            continue;
        }
        for (number, line) in lines_of_code_and_comments(path, text) {
            let open = ["libloading", "dlopen", "dlmopen"];
            if !is_comment(line) && open.iter().any(|word| has_word(line, word)) {
                broken.push(format!(
                    "{path}:{number}: opens libraries; only {} do",
                    OPENERS.join(", ")
                ));
            }
        }
    }
    broken
}

/// Every package forbids unsafe code, but for those that stand at a boundary to C.
fn unsafe_code_has_its_places(tree: &Tree) -> Vec<String> {
    const NEED_IT: [&str; 6] = [
        "core",
        "core/abi",
        "core/plugin",
        "io",
        "accelerators/",
        "plugins/",
    ];
    let mut broken = Vec::new();
    for package in tree.packages.values() {
        let folder = &package.folder;
        let needs_it = NEED_IT
            .iter()
            .any(|place| folder == place || (place.ends_with('/') && folder.starts_with(place)));
        if needs_it || folder.starts_with("tests/") {
            continue;
        }
        for root in &package.roots {
            let text = tree.files.get(root).map_or("", String::as_str);
            if !text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
                broken.push(format!("{root}: must say #![forbid(unsafe_code)]"));
            }
        }
    }
    broken
}

/// Past this many lines a file holds two ideas. What a program wrote is no one's to split.
fn files_stay_small(tree: &Tree) -> Vec<String> {
    const MOST_LINES: usize = 800;
    const SOURCES: [&str; 8] = ["rs", "c", "h", "cu", "cl", "cpp", "py", "sh"];
    let mut broken = Vec::new();
    for (path, text) in &tree.files {
        let source = SOURCES.contains(&ending(path));
        let generated = text
            .lines()
            .take(5)
            .any(|line| is_comment(line) && line.to_lowercase().contains("generated from"));
        let lines = text.lines().count();
        if source && !generated && lines > MOST_LINES {
            broken.push(format!(
                "{path}: {lines} lines; above {MOST_LINES} a file is two"
            ));
        }
    }
    broken
}

/// An op set is a folder of one name in `ops/` and `kernels/`, an accelerator one in
/// `accelerators/` and `plugins/`.
fn sets_and_accelerators_come_in_pairs(tree: &Tree) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for path in tree.files.keys() {
        let parts: Vec<_> = path.split('/').collect();
        match parts.as_slice() {
            ["ops", set, file] => {
                if let Some(stem) = file.strip_suffix(".ops")
                    && stem != *set
                {
                    broken.insert(format!("{path}: must be ops/{set}/{set}.ops"));
                }
            }
            ["kernels", set, "kernel.json"] => {
                let schema = format!("ops/{set}/{set}.ops");
                if !tree.files.contains_key(&schema) {
                    broken.insert(format!("{path}: has no schema {schema}"));
                }
            }
            ["accelerators", name, "Cargo.toml"] => {
                let manifest = format!("plugins/{name}/plugin.json");
                if !tree.files.contains_key(&manifest) {
                    broken.insert(format!("{path}: has no manifest {manifest}"));
                }
            }
            _ => {}
        }
    }
    broken.into_iter().collect()
}

/// What is written here must hold on every machine.
fn no_path_of_a_machine(tree: &Tree) -> Vec<String> {
    let folders = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let mut broken = Vec::new();
    for (path, text) in &tree.files {
        for (number, line) in text.lines().enumerate() {
            for folder in &folders {
                let starts = line.match_indices(folder.as_str()).any(|(place, _)| {
                    // Inside a relative path, the same letters are nobody's folder.
                    !line[..place]
                        .ends_with(|before: char| before.is_alphanumeric() || before == '}')
                });
                if starts {
                    broken.push(format!(
                        "{path}:{}: {folder} is a folder of one machine",
                        number + 1
                    ));
                }
            }
        }
    }
    broken
}

/// Whether a file is part of tests rather than of the product.
fn in_tests(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.contains("/benches/")
}

/// What follows the last dot of a path.
pub(crate) fn ending(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// Numbered lines up to the tests at the end of a source file.
fn lines_of_code_and_comments<'a>(
    path: &str,
    text: &'a str,
) -> impl Iterator<Item = (usize, &'a str)> {
    let rust = ending(path) == "rs";
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line))
        .take_while(move |(_, line)| !(rust && line.starts_with("#[cfg(test)]")))
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") || line.starts_with("/*") || line.starts_with('#')
}

/// Whether a word stands in a line by itself. An underscore ends a word: `cuda_x` names one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(place, _)| {
        let before = line[..place].chars().next_back();
        let after = line[place + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

impl Tree {
    fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        for path in paths(root)? {
            // What is no text, or was deleted and not yet committed, has nothing to read.
            if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
                tree.files.insert(path, text);
            }
        }
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .no_deps()
            .exec()
            .map_err(|error| format!("cannot read the workspace: {error}"))?;
        tree.packages = members(&metadata);
        Ok(tree)
    }
}

/// Every file that is part of the project, or will be with the next commit.
pub(crate) fn paths(root: &Path) -> Result<Vec<String>, String> {
    let listing = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let listing = run(Command::new("git").args(listing).current_dir(root))?;
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    Ok(paths.map(str::to_owned).collect())
}

fn members(metadata: &Metadata) -> BTreeMap<String, Member> {
    let from_root = |path: &cargo_metadata::camino::Utf8Path| {
        let path = path.strip_prefix(&metadata.workspace_root).unwrap_or(path);
        path.to_string()
    };
    let member = |package: &cargo_metadata::Package| Member {
        folder: package
            .manifest_path
            .parent()
            .map_or_else(String::new, from_root),
        roots: package
            .targets
            .iter()
            .filter(|target| target.is_bin() || target.is_lib() || target.is_cdylib())
            .map(|target| from_root(&target.src_path))
            .collect(),
        needs: package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind != DependencyKind::Development)
            .map(|dependency| dependency.name.clone())
            .collect(),
    };
    metadata
        .packages
        .iter()
        .map(|package| (package.name.to_string(), member(package)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
            ..Tree::default()
        }
    }

    fn package(name: &str, folder: &str, needs: &[&str]) -> (String, Member) {
        let member = Member {
            folder: folder.to_owned(),
            roots: vec![format!("{folder}/src/lib.rs")],
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        };
        (name.to_owned(), member)
    }

    fn house(changed: (String, Member)) -> Tree {
        let mut packages = BTreeMap::from([
            package("ds-abi", "core/abi", &[]),
            package("ds-plugin", "core/plugin", &["ds-abi"]),
            package("ds-core", "core", &["ds-abi", "ds-plugin", "serde"]),
            package("ds-a", "accelerators/a", &["ds-plugin", "a-sys", "libc"]),
            package("ds-b", "accelerators/b", &["ds-plugin"]),
            package("a-sys", "accelerators/ffi/a-sys", &["libloading"]),
            package("ds-plugin-a", "plugins/a", &["ds-a", "ds-plugin"]),
            package("ds_report", "ds_report", &["ds-core", "ds-a"]),
        ]);
        packages.extend([changed]);
        Tree {
            packages,
            ..Tree::default()
        }
    }

    #[test]
    fn this_tree_keeps_every_rule() {
        if let Err(broken) = step(&Gate::new(crate::root())) {
            panic!("{broken}");
        }
    }

    #[test]
    fn vendors_are_named_outside_the_core_only() {
        let caught = |path, text| !core_names_no_vendor(&tree(&[(path, text)])).is_empty();
        assert!(caught("core/src/a.rs", "let x = \"CUDA\";"));
        assert!(caught("core/abi/include/a.h", "// an Intel device"));
        assert!(caught("ops/src/a.rs", "fn cuda_stream() {}"));
        assert!(caught("ops/a/a.ops", "# on Ascend"));
        assert!(caught("ops/src/a.rs", "match \"ascend\" {}"));
        assert!(!caught(
            "ops/src/a.rs",
            "// scores ascend on a chip, with intelligence"
        ));
        assert!(!caught(
            "core/src/a.rs",
            "#[cfg(test)]\nmod tests { // cuda"
        ));
        assert!(!caught("core/tests/a.rs", "cuda"));
        assert!(!caught("accelerators/cuda/src/lib.rs", "cuda"));
    }

    #[test]
    fn layers_are_held_apart() {
        let caught = |name, folder, needs: &[&str]| {
            !layers_point_downwards(&house(package(name, folder, needs))).is_empty()
        };
        assert!(!caught("ds-new", "accelerators/new", &["ds-plugin"]));
        assert!(caught("ds-new", "accelerators/new", &["ds-core"]));
        assert!(caught("ds-new", "accelerators/new", &["ds-a"]));
        assert!(caught("ds-abi", "core/abi", &["libc"]));
        assert!(caught("ds-core", "core", &["ds-a"]));
        assert!(caught("a-sys", "accelerators/ffi/a-sys", &["ds-plugin"]));
        assert!(caught("ds-plugin-b", "plugins/b", &["ds-core"]));
        assert!(caught("ds_report", "ds_report", &["a-sys"]));
    }

    #[test]
    fn libraries_are_opened_in_few_places() {
        let caught = |path, text| !few_modules_open_libraries(&tree(&[(path, text)])).is_empty();
        assert!(caught("core/src/a.rs", "use libloading::Library;"));
        assert!(caught(
            "accelerators/a/src/jit.rs",
            "unsafe { dlopen(p, 1) }"
        ));
        assert!(!caught("core/src/a.rs", "// dlopen would run it"));
        assert!(!caught(
            "core/src/plugin/loader.rs",
            "use libloading::Library;"
        ));
        assert!(!caught(
            "accelerators/ffi/a-sys/src/lib.rs",
            "use libloading::Library;"
        ));
    }

    #[test]
    fn packages_away_from_c_forbid_unsafe_code() {
        let caught = |folder: &str, text: &str| {
            let root = format!("{folder}/src/lib.rs");
            let mut tree = tree(&[(&root, text)]);
            tree.packages.extend([package("x", folder, &[])]);
            !unsafe_code_has_its_places(&tree).is_empty()
        };
        assert!(caught("ds_report", "//! A program."));
        assert!(caught("core/other", "//! A library."));
        assert!(!caught(
            "ds_report",
            "//! A program.\n#![forbid(unsafe_code)]"
        ));
        assert!(!caught("accelerators/a", "//! A library."));
    }

    #[test]
    fn long_files_are_caught_unless_generated() {
        let long = "\n".repeat(801);
        let caught = |path, text| !files_stay_small(&tree(&[(path, text)])).is_empty();
        assert!(caught("a.rs", &long));
        assert!(!caught("a.rs", &long[1..]));
        assert!(!caught("a.json", &long));
        assert!(!caught(
            "a.h",
            &format!("// Generated from the crate x{long}")
        ));
    }

    #[test]
    fn folders_come_in_pairs() {
        let caught = |paths: &[&str]| {
            let files: Vec<_> = paths.iter().map(|path| (*path, "")).collect();
            !sets_and_accelerators_come_in_pairs(&tree(&files)).is_empty()
        };
        assert!(!caught(&["ops/adam/adam.ops", "kernels/adam/kernel.json"]));
        assert!(caught(&["kernels/adam/kernel.json"]));
        assert!(caught(&["ops/adam/step.ops"]));
        assert!(caught(&["accelerators/a/Cargo.toml"]));
        assert!(!caught(&[
            "accelerators/a/Cargo.toml",
            "plugins/a/plugin.json"
        ]));
        assert!(!caught(&["accelerators/ffi/a-sys/Cargo.toml"]));
    }

    #[test]
    fn paths_of_a_machine_are_caught() {
        let caught = |text: String| !no_path_of_a_machine(&tree(&[("a.md", &text)])).is_empty();
        assert!(caught(format!("see /{}/x", "home")));
        assert!(caught(format!("/{}/.cargo", "root")));
        assert!(!caught(format!("a/{}/x", "home")));
        assert!(!caught("home and root".to_owned()));
    }
}
