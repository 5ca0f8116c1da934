//! A cache in a temporary folder and a compiler that is a few lines of shell.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test whose stage cannot be set has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ds_core::build::{
    BuildEnvironment, BuildRequest, BuildSpec, Cache, ProgramToolchain, Settings, Toolchain,
};

/// The compiler. Its first argument says what to do; each call leaves a line in `calls`.
const COMPILER: &str = r#"
dir=${0%/*}
echo "$1" >> "$dir/calls"
case $1 in
--version) echo "fakecc 1.0"; exit 0 ;;
copy) echo "compiling $2"; cat "$2" > "$3" ;;
env) env > "$2" ;;
refuse) echo "a.c: In function f:"; echo "a.c:3:1: error: unknown type name 'x'" >&2; exit 1 ;;
full) echo "as: error: No space left on device" >&2; exit 1 ;;
die) kill -KILL $$ ;;
silent) ;;
empty) : > "$2" ;;
folder) mkdir "$2" ;;
slow) exec sleep 60 ;;
gate) exec 9> "$dir/out"; echo started >&9; read line < "$dir/in"; echo survived >&9 ;;
esac
"#;

/// A folder with a cache, the compiler and its notes.
pub(crate) struct House {
    pub(crate) root: PathBuf,
    /// Removes it at the end; a child process works in its parent's.
    _owner: Option<tempfile::TempDir>,
}

impl House {
    pub(crate) fn new() -> Self {
        let owner = tempfile::tempdir().unwrap();
        fs::write(owner.path().join("fakecc"), COMPILER).unwrap();
        Self {
            root: owner.path().to_owned(),
            _owner: Some(owner),
        }
    }

    /// The house that another process made.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            _owner: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::at(self.path("cache"))
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::open(self.settings()).unwrap()
    }

    /// `CC` is how the compiler is found. It is a text that the shell reads, and never run itself: a
    /// file just written cannot be, while some thread's child still holds it open.
    pub(crate) fn environment(&self) -> BuildEnvironment {
        let cc = format!("sh {}", self.path("fakecc").display());
        BuildEnvironment::from_variables(
            [
                ("PATH", "/usr/bin:/bin"),
                ("CC", &cc),
                ("LD_PRELOAD", "/x.so"),
                ("CPATH", "/inc"),
            ]
            .map(|(name, value)| (name.to_owned(), value.into())),
        )
    }

    pub(crate) fn toolchain(&self) -> Toolchain {
        description()
            .resolve(&self.environment(), &self.cache())
            .unwrap()
    }

    /// How often the compiler was called to do `what`.
    pub(crate) fn calls(&self, what: &str) -> usize {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == what).count()
    }

    /// What lies in the cache's `tmp`.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        list(&self.path("cache/tmp"))
    }
}

pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|item| item.unwrap().path())
        .collect();
    paths.sort();
    paths
}

pub(crate) fn description() -> ProgramToolchain {
    ProgramToolchain {
        name: "cc".into(),
        programs: "$CC".into(),
        version: "--version".into(),
        hint: "apt install gcc".into(),
    }
}

/// A build of `source` by the compiler with `arguments`.
pub(crate) fn spec(source: &str, arguments: &[&str]) -> BuildSpec {
    BuildSpec {
        request: BuildRequest {
            toolchain: "cc".into(),
            sources: vec![("a.c".into(), source.into())],
            arguments: arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect(),
            output: "a.so".into(),
        },
        target: "x86-64".into(),
        op_set: "norm".into(),
        kernel: "rms_norm".into(),
        signature: None,
    }
}

/// A build that copies its source.
pub(crate) fn copy(source: &str) -> BuildSpec {
    spec(source, &["copy", "a.c", "a.so"])
}
