//! `ds_report plugin new`: the smallest plugin that loads, under a name of one's own. The examples
//! that the tests build are the templates; here is only what changes in them.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use ds_core::{
    Error, ErrorKind, Result,
    manifest::{AcceleratorName, PluginId},
};
use serde::Serialize;

use super::{program, shell};
use crate::view::{GOOD, HEADING, View};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What it is written in.
    #[arg(long)]
    lang: Language,
    #[arg(help = "The accelerator's name: what DS_ACCELERATOR will select")]
    name: String,
    /// Who the plugin is for all time, a domain name backwards [default: org.example.NAME].
    #[arg(long)]
    id: Option<String>,
    /// Where to write it; made if need be, and has to be empty [default: ./NAME].
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// A checkout of this project, for the headers and crates [default: those of this program].
    #[arg(long, value_name = "CHECKOUT")]
    source: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Language {
    C,
    Rust,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct New {
    name: String,
    id: String,
    language: Language,
    folder: PathBuf,
    /// In the folder.
    files: Vec<String>,
    /// The command that builds it, from where this one ran.
    build: String,
    /// The folder to add, or to name in `DS_PLUGIN_PATH`, once it is built.
    plugin: PathBuf,
}

/// A file of an example, by the name that it gets.
type Template = (&'static str, &'static str);

const C: &[Template] = &[
    (
        "{name}.c",
        include_str!("../../../plugins/examples/null-c/null.c"),
    ),
    (
        "plugin/plugin.json",
        include_str!("../../../plugins/examples/null-c/plugin.json"),
    ),
];
const RUST: &[Template] = &[
    (
        "Cargo.toml",
        include_str!("../../../plugins/examples/null-rust/Cargo.toml"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../plugins/examples/null-rust/src/lib.rs"),
    ),
    (
        "plugin/plugin.json",
        include_str!("../../../plugins/examples/null-rust/plugin.json"),
    ),
];

/// What the ids of examples begin with.
const NOBODYS: &str = "org.example.";
/// How the C compiler is called; the example says the same in its first lines.
const CC: &str = "cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden";

pub(super) fn view(options: &Options) -> Result<New> {
    let name: AcceleratorName = options.name.parse().map_err(|e| as_argument(&e))?;
    let given = options.id.clone();
    let id: PluginId = given
        .unwrap_or_else(|| format!("{NOBODYS}{}", name.as_str().replace('_', "-")))
        .parse()
        .map_err(|e| as_argument(&e))?;
    let sdk = find(options.lang, options.source.as_deref())?;
    let folder = options.into.clone();
    let folder = folder.unwrap_or_else(|| PathBuf::from(name.as_str()));
    empty(&folder)?;

    let names = Names::new(name.as_str(), id.as_str(), &sdk);
    let (templates, replaced) = match options.lang {
        Language::C => (C, names.in_c()),
        Language::Rust => (RUST, names.in_rust()),
    };
    let mut files = Vec::new();
    for (file, text) in templates {
        let file = file.replace("{name}", &names.name);
        write(&folder.join(&file), &replace(text, &replaced))?;
        files.push(file);
    }
    Ok(New {
        build: names.build(options.lang, &folder, &sdk),
        plugin: folder.join("plugin"),
        name: names.name,
        id: names.id,
        language: options.lang,
        folder,
        files,
    })
}

/// What takes the place of the example's names.
struct Names {
    name: String,
    id: String,
    /// The library's file, and the crate's name in Rust.
    library: String,
    package: String,
    /// The accelerator's type in Rust.
    r#type: String,
    /// What it is built against, in a string of TOML and as a word of a shell.
    sdk: (String, String),
}

impl Names {
    fn new(name: &str, id: &str, sdk: &str) -> Self {
        let capital = |word: &str| {
            let mut letters = word.chars();
            let first = letters.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        };
        let words: String = name.split(['-', '_']).map(capital).collect();
        let package = format!("ds-plugin-{name}");
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            library: format!("lib{}.so", package.replace('-', "_")),
            package,
            // Alone, it could be a name that the file imports: `Host`, `Table`.
            r#type: format!("{words}Plugin"),
            // What JSON escapes, TOML escapes alike.
            sdk: (
                serde_json::Value::from(sdk).to_string(),
                shell(Path::new(sdk)),
            ),
        }
    }

    fn in_c(&self) -> Vec<(&'static str, String)> {
        vec![
            ("org.example.null", self.id.clone()),
            (
                "-o libds_example_null.so",
                format!("-o plugin/{}", self.library),
            ),
            ("libds_example_null.so", self.library.clone()),
            ("-I<folder of ds_plugin.h>", format!("-I{}", self.sdk.1)),
            ("null.c", format!("{}.c", self.name)),
            ("\"null\"", format!("\"{}\"", self.name)),
            ("null-1", format!("{}-1", self.name)),
            ("Example Null", format!("Example {}", self.name)),
            (
                "(\"null has device 0",
                format!("(\"{} has device 0", self.name),
            ),
            ("(\"null knows", format!("(\"{} knows", self.name)),
        ]
    }

    fn in_rust(&self) -> Vec<(&'static str, String)> {
        let toml = |key: &str, value: &str| format!("{key} = \"{value}\"");
        vec![
            // A package of no workspace has to say itself what the example takes from ours.
            ("version.workspace = true", toml("version", "0.1.0")),
            ("edition.workspace = true", toml("edition", EDITION)),
            (
                "rust-version.workspace = true",
                toml("rust-version", env!("CARGO_PKG_RUST_VERSION")),
            ),
            (
                "license.workspace = true",
                toml("license", env!("CARGO_PKG_LICENSE")),
            ),
            ("publish.workspace = true", "publish = false".to_owned()),
            (
                "ds-plugin.workspace = true",
                format!("ds-plugin = {{ path = {} }}", self.sdk.0),
            ),
            // It is one of its own, also inside another.
            ("[lints]\nworkspace = true", "[workspace]".to_owned()),
            ("example-null", self.package.clone()),
            ("org.example.null-rust", self.id.clone()),
            ("libexample_null.so", self.library.clone()),
            ("\"null\"", format!("\"{}\"", self.name)),
            ("null-1", format!("{}-1", self.name)),
            ("Example Null", format!("Example {}", self.name)),
            ("null:", format!("{}:", self.name)),
            ("struct Null", format!("struct {}", self.r#type)),
            ("for Null", format!("for {}", self.r#type)),
            ("(Null", format!("({}", self.r#type)),
        ]
    }

    fn build(&self, language: Language, folder: &Path, sdk: &str) -> String {
        let at = |path: &str| shell(&folder.join(path));
        let library = &self.library;
        match language {
            Language::C => format!(
                "{CC} -I{} {} -o {}",
                shell(Path::new(sdk)),
                at(&format!("{}.c", self.name)),
                at(&format!("plugin/{library}")),
            ),
            Language::Rust => format!(
                "cargo build --release --manifest-path {} --target-dir {} && cp {} {}",
                at("Cargo.toml"),
                at("target"),
                at(&format!("target/release/{library}")),
                at("plugin"),
            ),
        }
    }
}

/// As in the `Cargo.toml` of the workspace; cargo tells a build all but this.
const EDITION: &str = "2024";

/// Replaces every name once, from the left: what was put in is not looked at again.
fn replace(text: &str, names: &[(&str, String)]) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some((old, new)) = names.iter().find(|(old, _)| rest.starts_with(old)) {
            done.push_str(new);
            rest = &rest[old.len()..];
        } else {
            done.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    done
}

/// The folder that a plugin is built against: the header's, or that of the crate `ds-plugin`.
fn find(language: Language, source: Option<&Path>) -> Result<String> {
    let (file, checkout, installed) = match language {
        Language::C => ("ds_plugin.h", "core/abi/include", "include"),
        Language::Rust => (
            "Cargo.toml",
            "core/plugin",
            "share/deepspeed/source/core/plugin",
        ),
    };
    let program = env::current_exe().and_then(fs::canonicalize).ok();
    let mut tried = Vec::new();
    match (source, program.as_deref()) {
        (Some(source), _) => tried.push(source.join(checkout)),
        (None, Some(program)) => {
            let prefix = program.parent().filter(|bin| bin.ends_with("bin"));
            tried.extend(prefix.and_then(Path::parent).map(|p| p.join(installed)));
            tried.extend(program.ancestors().skip(1).map(|p| p.join(checkout)));
        }
        (None, None) => {}
    }
    let found = tried.iter().find(|folder| folder.join(file).is_file());
    let Some(found) = found else {
        let reason = match source {
            Some(source) => format!("{} has no {checkout}/{file}", source.display()),
            None => format!(
                "{file} of {checkout} is neither installed with this program nor in a checkout around it"
            ),
        };
        return Err(Error::new(ErrorKind::NotInstalled, OP, reason)
            .with_hint("name a checkout of the project: --source CHECKOUT"));
    };
    let real = found.canonicalize().map_err(|e| failed(found, e))?;
    let text = real
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        let text = format!(
            "{} is not UTF-8 or has control characters, and no build file can name it",
            real.display()
        );
        Error::new(ErrorKind::InvalidArgument, OP, text)
    })
}

/// Refuses a folder that holds something.
fn empty(folder: &Path) -> Result<()> {
    match folder
        .read_dir()
        .map(|mut entries| entries.next().is_none())
    {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ErrorKind::InvalidArgument,
            OP,
            format!("{} is not empty", folder.display()),
        )
        .with_hint("name a new folder: --into FOLDER")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(folder, e)),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|e| failed(path, e))
}

const OP: &str = "write a new plugin";

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, OP, path.display().to_string()).with_source(source)
}

fn as_argument(error: &Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, OP, error.context().to_owned())
}

impl View for New {
    fn text(&self) -> String {
        let Self {
            name, id, build, ..
        } = self;
        let (ds_report, plugin) = (program(), shell(&self.plugin));
        let mut text = String::new();
        for file in &self.files {
            let path = self.folder.join(file);
            let _ = writeln!(text, "{GOOD}wrote{GOOD:#} {}", path.display());
        }
        let _ = writeln!(
            text,
            "\n{HEADING}build it{HEADING:#}\n  {build}\n\
             {HEADING}add it{HEADING:#}, again with --replace when it has changed\n  {ds_report} plugin add {plugin}\n\
             {HEADING}see it{HEADING:#}\n  DS_ACCELERATOR={name} {ds_report}\n\n\
             Before others get it, put your vendor, license and description into plugin.json."
        );
        if id.starts_with(NOBODYS) {
            let _ = writeln!(
                text,
                "Its id {id} is nobody's, and an id is for all time: give your own with --id."
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use ds_core::manifest::Manifest;

    use super::*;

    /// Names that the examples have in other senses too.
    const NASTY: [(&str, &str); 4] = [
        ("host", "org.null.corp"),
        ("null-1", "com.example.null-1"),
        ("a_b-c", "org.example.a-b-c"),
        ("x", "org.example.null-rust"),
    ];

    fn files(language: Language, name: &str, id: &str) -> Vec<(String, String)> {
        let names = Names::new(name, id, "/a b/sdk");
        let (templates, replaced) = match language {
            Language::C => (C, names.in_c()),
            Language::Rust => (RUST, names.in_rust()),
        };
        templates
            .iter()
            .map(|(file, text)| ((*file).to_owned(), replace(text, &replaced)))
            .collect()
    }

    #[test]
    fn every_name_that_is_replaced_is_in_an_example_and_none_is_left() {
        let names = Names::new("chip", "com.chips.chip", "/sdk");
        for (templates, replaced) in [(C, names.in_c()), (RUST, names.in_rust())] {
            let all: String = templates.iter().map(|(_, text)| *text).collect();
            for (old, _) in &replaced {
                assert!(all.contains(old), "no example says '{old}' any more");
            }
            let new = replace(&all, &replaced);
            for line in new.lines() {
                // A null pointer is still one.
                let line = line.replace("may be null", "").replace("is null\"", "");
                let line = line.replace("\"null, or a struct_size", "");
                assert!(
                    !line.to_lowercase().replace("= null", "").contains("null"),
                    "{line}"
                );
                assert!(!line.contains("workspace = true"), "{line}");
            }
        }
    }

    #[test]
    fn nothing_is_replaced_twice() {
        for (name, id) in NASTY {
            for language in [Language::C, Language::Rust] {
                let files = files(language, name, id);
                let text = &files.last().unwrap().1;
                let manifest = Manifest::parse(text.as_bytes()).unwrap();
                assert_eq!(manifest.accelerator.as_str(), name);
                assert_eq!(manifest.id.as_str(), id);
                let source = &files[files.len() - 2].1;
                assert!(source.contains(&format!("\"{id}\"")), "{source}");
                assert!(source.contains(&format!("\"Example {name}\"")), "{source}");
            }
        }
    }

    #[test]
    fn the_command_is_the_one_in_the_example() {
        let example = C[0].1.replace("\n//       ", "");
        assert!(example.contains(&format!("{CC} -I<folder of ds_plugin.h> null.c -o ")));
    }

    #[test]
    fn the_edition_is_the_workspaces() {
        let workspace = include_str!("../../../Cargo.toml");
        assert!(workspace.contains(&format!("edition = \"{EDITION}\"")));
    }
}
