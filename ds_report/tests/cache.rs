//! `ds_report cache` as an operator runs it, on a cache that a compiler of the test's own fills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

/// A home with compilers that need no compiler: `good` writes what it is asked for, `bad` refuses.
struct House(TempDir);

/// Exit code, standard output, standard error.
type Ran = (Option<i32>, String, String);

impl House {
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        house.compiler(
            "good",
            "while [ $# -gt 0 ]; do [ \"$1\" = -o ] && echo made > \"$2\"; shift; done",
        );
        house.compiler(
            "bad",
            "echo 'smoke.c: In function f:'; echo 'smoke.c:3:1: error: no such thing'; exit 1",
        );
        house
    }

    fn compiler(&self, name: &str, builds: &str) {
        let program = self.path(name).join("cc");
        fs::create_dir(self.path(name)).unwrap();
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*) echo \"cc ({name}) 1.0\"; exit;; esac\n{builds}\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The command line, split at spaces, with its cache in `cache`.
    fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
            .args(line.split(' '))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("DS_CACHE_DIR", self.path("cache"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }

    /// Standard output of what has to go well.
    fn run(&self, line: &str) -> String {
        let (code, text, errors) = self.run_with(line, &[]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{line}: {text}");
        text
    }

    /// Has an accelerator build its smallest artefact with that compiler; a refusal is remembered.
    fn build(&self, compiler: &str) {
        let path = format!("{}:/usr/bin:/bin", self.text(compiler));
        assert_eq!(self.run_with("toolchains", &[("PATH", &path)]).0, Some(0));
    }

    fn list(&self) -> Value {
        serde_json::from_str(&self.run("--json cache")).unwrap()
    }
}

/// The artefacts below a cache.
fn artefacts(cache: &Path) -> Vec<PathBuf> {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let groups = below(cache.join("v1")).map(|group| group.path());
    groups
        .flat_map(|group| below(group).map(|entry| entry.path().join("smoke.so")))
        .filter(|artefact| artefact.exists())
        .collect()
}

fn damage(cache: &Path) {
    let artefacts = artefacts(cache);
    assert!(!artefacts.is_empty());
    for artefact in artefacts {
        fs::write(artefact, "mode\n").unwrap();
    }
}

#[test]
fn it_says_where_the_cache_is_and_what_is_in_it() {
    let house = House::new();
    let cache = house.text("cache");
    let text = house.run("cache");
    assert_eq!(
        text,
        format!(
            "own    {cache}  (set by DS_CACHE_DIR)\n  not there yet: the first build makes it\n"
        )
    );
    assert!(!house.path("cache").exists(), "a look made the folder");

    house.build("good");
    house.build("bad");
    let text = house.run("cache list");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert!(
        lines[1].starts_with("1 artefact, 1 failed build: "),
        "{text}"
    );
    let at = |start: &str| lines.iter().position(|line| line.starts_with(start));
    let good = at(&format!("by cc {}/cc: ", house.text("good"))).unwrap();
    assert!(lines[good].ends_with("cc (good) 1.0"), "{text}");
    assert!(
        lines[good + 1].starts_with("good     smoke compile "),
        "{text}"
    );
    let bad = at("failed   smoke compile ").unwrap();
    assert!(
        lines[bad + 1].ends_with("exited with 1: smoke.c:3:1: error: no such thing"),
        "{text}"
    );
    let log = fs::read_to_string(lines[bad + 2].strip_prefix("log: ").unwrap()).unwrap();
    assert!(log.contains("In function f"), "{log}");
    assert!(text.contains("prune"), "{text}");

    damage(&house.path("cache"));
    let text = house.run("cache");
    assert!(
        text.contains("the content of smoke.so has changed"),
        "{text}"
    );
    let list = house.list();
    let own = &list["folders"][0];
    assert_eq!(own["total"]["good"], 0);
    assert_eq!(own["total"]["failed"], 1);
    assert_eq!(own["total"]["damaged"], 1);
    assert_eq!(own["entries"][0]["state"], "failed");
    assert_eq!(own["entries"][0]["build"]["toolchain"]["name"], "cc");
    assert_eq!(own["entries"][1]["state"], "damaged");
}

#[test]
fn where_it_is_without_variables_and_how_to_move_it() {
    let house = House::new();
    let (code, text, _) = house.run_with("cache", &[("DS_CACHE_DIR", "")]);
    assert_eq!(code, Some(0));
    let place = house.text("home/.cache/deepspeed");
    assert!(
        text.starts_with(&format!("own    {place}  (DS_CACHE_DIR moves it)\n")),
        "{text}"
    );
    let (code, _, errors) = house.run_with("cache", &[("DS_CACHE_DIR", ""), ("HOME", "")]);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("none of DS_CACHE_DIR, XDG_CACHE_HOME and HOME is an absolute path"),
        "{errors}"
    );
}

#[test]
fn a_cache_that_cannot_be_used_says_why_and_what_to_do() {
    let house = House::new();
    let cache = house.path("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, Permissions::from_mode(0o777)).unwrap();
    let (code, text, errors) = house.run_with("cache", &[]);
    assert_eq!((code, errors.as_str()), (Some(1), ""));
    assert!(
        text.contains("not used: ") && text.contains("has mode 0777: others can write to it"),
        "{text}"
    );
    assert!(
        text.contains(&format!("hint: chmod go-w {}\n", cache.display())),
        "{text}"
    );
    let (code, text, errors) = house.run_with("cache prune", &[]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.contains("hint: chmod go-w"), "{errors}");

    let file = house.text("good/cc");
    let (code, text, _) = house.run_with("cache", &[("DS_CACHE_DIR", &file)]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("Not a directory") && text.contains("hint: set DS_CACHE_DIR"),
        "{text}"
    );

    // Root may write everywhere, so that it can only be seen as somebody else.
    fs::set_permissions(&cache, Permissions::from_mode(0o500)).unwrap();
    if fs::write(cache.join("probe"), "").is_ok() {
        let mut terminal = std::io::stderr();
        writeln!(terminal, "skipped: a cache that is only read: this is root").unwrap();
        return;
    }
    let text = house.run("cache");
    assert!(text.contains("cannot be written to"), "{text}");
    let inside = house.text("cache/inside");
    let (code, text, _) = house.run_with("cache", &[("DS_CACHE_DIR", &inside)]);
    assert_eq!(code, Some(0));
    assert!(text.contains("not there, and cannot be made"), "{text}");
}

#[test]
fn shared_caches_and_the_jit_switch_are_told() {
    let house = House::new();
    house.build("good");
    fs::rename(house.path("cache"), house.path("shared")).unwrap();
    let named = format!(
        "{}:{}:{}",
        house.text("shared"),
        house.text("gone"),
        house.text("open")
    );
    fs::create_dir(house.path("open")).unwrap();
    fs::set_permissions(house.path("open"), Permissions::from_mode(0o777)).unwrap();
    let variables = [
        ("DS_CACHE_SHARED", named.as_str()),
        ("DS_JIT", "cache-only"),
    ];
    let (code, text, errors) = house.run_with("cache", &variables);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    let lines: Vec<_> = text.lines().collect();
    let below = |name: &str| {
        let head = format!("shared {}  (DS_CACHE_SHARED; only read)", house.text(name));
        let at = lines.iter().position(|line| *line == head).unwrap();
        lines[at + 1]
    };
    assert!(below("shared").starts_with("  1 artefact: "), "{text}");
    assert_eq!(below("gone"), "  not there");
    assert!(below("open").starts_with("  not used: "), "{text}");
    assert_eq!(
        lines.last().copied(),
        Some("DS_JIT=cache-only: what is here is used, and nothing is built")
    );
}

#[test]
fn pruning_removes_what_was_asked_for_and_says_so() {
    let house = House::new();
    let states = || {
        let list = house.list();
        let entries = list["folders"][0]["entries"].as_array().unwrap().clone();
        let state = |entry: &Value| entry["state"].as_str().unwrap().to_owned();
        entries.iter().map(state).collect::<Vec<_>>()
    };
    assert!(house.run("cache prune").starts_with("removed nothing"));
    assert!(
        !house.path("cache").exists(),
        "nothing to prune made a folder"
    );
    house.build("good");
    house.build("bad");

    // Nothing is damaged and nothing old: a hint says what would remove more.
    for line in ["cache prune", "cache prune --older-than 3"] {
        assert!(house.run(line).starts_with("removed nothing from "));
    }
    assert!(house.run("cache prune").contains("hint: --failed, "));
    let text = house.run("cache prune --failed --dry-run");
    assert!(text.starts_with("would remove 1 entry, "), "{text}");
    assert!(text.contains("no such thing"), "{text}");
    assert_eq!(states().len(), 2);

    let text = house.run("cache prune --failed");
    assert!(text.starts_with("removed 1 entry, "), "{text}");
    assert!(text.contains("\nleft: 1 artefact: "), "{text}");
    assert!(!text.contains("build.log"), "a log that is gone: {text}");
    assert_eq!(states(), ["good"]);

    assert!(
        house
            .run("cache prune --max-size 1M")
            .starts_with("removed nothing")
    );
    let done: Value = serde_json::from_str(&house.run("cache prune --max-size 0 --json")).unwrap();
    assert_eq!(done["removed"][0]["state"], "good");
    assert_eq!(done["freed_bytes"], done["removed"][0]["size_bytes"]);
    assert_eq!(done["left"]["size_bytes"], 0);
    assert!(states().is_empty());

    house.build("good");
    damage(&house.path("cache"));
    let text = house.run("cache prune");
    assert!(text.starts_with("removed 1 entry, "), "{text}");
    assert!(
        text.contains("has changed") && text.ends_with("left: empty\n"),
        "{text}"
    );

    let (code, _, errors) = house.run_with("cache prune --max-size 5MB", &[]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("such as 500M"), "{errors}");
}

#[test]
fn artefacts_are_exported_and_imported_and_damaged_ones_refused() {
    let house = House::new();
    let out = house.text("out");
    let export = format!("cache export {out}");
    let import = format!("cache import {out}");
    let elsewhere = house.text("elsewhere");
    let there = [("DS_CACHE_DIR", elsewhere.as_str())];
    assert!(house.run(&export).ends_with("cache holds no artefacts\n"));
    house.build("good");
    house.build("bad");

    let text = house.run(&export);
    assert!(text.starts_with("copied 1 artefact, "), "{text}");
    assert!(text.contains(&format!("DS_CACHE_SHARED={out} ")), "{text}");
    let text = house.run(&export);
    assert!(text.contains("\nthere before: 1 artefact\n"), "{text}");
    for (start, present) in [("copied 1 artefact", false), ("copied nothing", true)] {
        let (code, text, _) = house.run_with(&import, &there);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.starts_with(start) && text.contains("there before: ") == present,
            "{text}"
        );
    }
    assert_eq!(artefacts(&house.path("elsewhere")).len(), 1);

    // What others may write to is exported with a warning and imported by nobody.
    fs::set_permissions(&out, Permissions::from_mode(0o777)).unwrap();
    let text = house.run(&export);
    assert!(text.contains("nobody can use it as it is: "), "{text}");
    let (code, _, errors) = house.run_with(&import, &there);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains(&format!("hint: chmod go-w {out}")),
        "{errors}"
    );
    fs::set_permissions(&out, Permissions::from_mode(0o755)).unwrap();

    damage(Path::new(&out));
    fs::remove_dir_all(&elsewhere).unwrap();
    let (code, text, _) = house.run_with(&import, &there);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("refused ") && text.contains("the content of smoke.so has changed"),
        "{text}"
    );
    assert!(artefacts(&house.path("elsewhere")).is_empty());
    let (code, text, _) = house.run_with(&format!("{export} --json"), &[]);
    assert_eq!(code, Some(1));
    let done: Value = serde_json::from_str(&text).unwrap();
    let reason = done["refused"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("remove it and export again"), "{reason}");

    for (from, says) in [
        (house.text("nowhere"), "No such file or directory"),
        (house.text("good"), "has no folder v1"),
        (house.text("good/cc"), "Not a directory"),
    ] {
        let (code, _, errors) = house.run_with(&format!("cache import {from}"), &there);
        assert_eq!(code, Some(1));
        assert!(errors.contains(&from) && errors.contains(says), "{errors}");
    }
}
