//! What the tests of views that build share: a home of their own, with compilers that need none.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

/// A home: its cache, plugins, and compilers. `good` notes a line for each build in `calls`, and
/// makes what it is asked for; `bad` refuses everything but the smallest program.
pub(crate) struct House(TempDir);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) errors: String,
}

impl House {
    pub(crate) fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        let make = "while [ $# -gt 0 ]; do [ \"$1\" = -o ] && echo made > \"$2\"; shift; done";
        house.compiler(
            "good",
            &format!("echo \"$*\" >> {}\n{make}", house.text("calls")),
        );
        let refuse = "echo 'it.c:3:1: error: no such thing'; exit 1";
        house.compiler(
            "bad",
            &format!("case \"$*\" in *smoke*) ;; *) {refuse};; esac\n{make}"),
        );
        fs::create_dir(house.path("plugins")).unwrap();
        house
    }

    /// The same with the example plugin in C; `None` where it cannot be built.
    pub(crate) fn with_sim() -> Option<Self> {
        let house = Self::new();
        let folder = house.path("plugins");
        ds_tests::example::build_c("sim-c", "libds_example_sim.so", &folder)
            .unwrap()
            .then_some(house)
    }

    fn compiler(&self, name: &str, builds: &str) {
        let program = self.path(name);
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*) echo \"cc ({name}) 1.0\"; exit;; esac\n{builds}\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// How many builds `good` was asked for.
    pub(crate) fn builds(&self) -> usize {
        fs::read_to_string(self.path("calls")).map_or(0, |calls| calls.lines().count())
    }

    /// Runs the command line, split at spaces, with `good` as the compiler.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    /// The same with further variables; a `CC` among them names one of the compilers here.
    pub(crate) fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let compiler = variables.iter().find(|(name, _)| *name == "CC");
        let compiler = self.path(compiler.map_or("good", |(_, value)| value));
        let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
            .args(line.split_whitespace())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("DS_CACHE_DIR", self.path("cache"))
            .env("DS_PLUGIN_PATH", self.path("plugins"))
            .envs(variables.iter().copied())
            .env("CC", compiler)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            code: done.status.code(),
            text: text(done.stdout),
            errors: text(done.stderr),
        }
    }

    /// What `--json` prints of a command line.
    pub(crate) fn json(&self, line: &str) -> Value {
        let ran = self.run(&format!("{line} --json"));
        serde_json::from_str(&ran.text).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
    }
}

/// Past the test runner, which keeps what is printed, so that nobody takes it for a pass.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

impl Ran {
    /// Fails unless the command ended with `code` and said everything of `parts`, on either output.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in parts {
            assert!(
                self.text.contains(part) || self.errors.contains(part),
                "'{part}' is not in {self:#?}"
            );
        }
        self
    }

    #[track_caller]
    pub(crate) fn is_silent_of(&self, part: &str) -> &Self {
        assert!(
            !self.text.contains(part) && !self.errors.contains(part),
            "'{part}' is in {self:#?}"
        );
        self
    }
}
