//! A plugin's way from nothing to a device that programs select, and out again, as its vendor goes it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

/// A user, and a folder to work in.
struct User {
    folder: TempDir,
}

/// What a command printed.
struct Printed {
    code: Option<i32>,
    text: String,
    errors: String,
}

impl User {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["home", "data"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Printed {
        let done = Command::new(env!("CARGO_BIN_EXE_ds_report"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("DS_PLUGIN_PATH")
            .env_remove("DS_ACCELERATOR")
            .env("HOME", self.path("home"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("DS_CACHE_DIR", self.path("home/cache"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Printed {
            code: done.status.code(),
            text: text(done.stdout),
            errors: text(done.stderr),
        }
    }

    fn run(&self, arguments: &[&str]) -> Printed {
        self.run_with(arguments, &[])
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&printed.text).unwrap()
    }

    /// Runs the command that `plugin new` printed; `false` where there is no compiler for it.
    fn build(&self, command: &str) -> bool {
        let compiler = command.split(' ').next().unwrap();
        if Command::new(compiler).arg("--version").output().is_err() {
            // Past the test runner, which keeps what is printed, so that nobody takes it for a pass.
            let mut terminal = std::io::stderr();
            writeln!(terminal, "skipped: no compiler (tried {compiler})").unwrap();
            return false;
        }
        let done = Command::new("sh")
            .args(["-c", command])
            .current_dir(self.folder.path())
            // What the crates need is there since they were built themselves.
            .env("CARGO_NET_OFFLINE", "true")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{errors}");
        assert!(!errors.contains("warning"), "{errors}");
        true
    }

    /// A plugin in C that is built, in `chip/plugin`.
    fn chip(&self) -> bool {
        let new = self.json(&["plugin", "new", "--lang", "c", "chip"]);
        self.build(new["build"].as_str().unwrap())
    }

    fn installed(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn read(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    into.insert(path.clone(), Vec::new());
                    read(&path, into);
                } else {
                    into.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        read(&self.path("data"), &mut files);
        files
    }

    /// Fails to add the plugin in `folder`, and has nothing changed by it.
    fn refused(&self, folder: &str, reason: &str) {
        let before = self.installed();
        let printed = self.run(&["plugin", "add", folder]);
        assert_eq!(printed.code, Some(1), "{}", printed.text);
        let errors = printed.errors;
        assert!(
            errors.contains("error: not added: ") && errors.contains(reason),
            "{errors}"
        );
        assert!(!errors.contains(".passing-"), "{errors}");
        assert_eq!(self.installed(), before);
    }

    /// A copy of the plugin in `chip/plugin`, to be spoilt.
    fn copy(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(self.path("chip/plugin")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        folder
    }
}

fn edit(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(file, text.replace(old, new)).unwrap();
}

/// From `plugin new` to a device that is selected, and out again.
fn walk(user: &User, language: &str, name: &str) {
    let id = format!("org.example.{}", name.replace('_', "-"));
    let new = user.json(&["plugin", "new", "--lang", language, name]);
    assert_eq!(new["id"], id.as_str());
    if !user.build(new["build"].as_str().unwrap()) {
        return;
    }
    let folder = new["plugin"].as_str().unwrap();
    let printed = user.run(&["plugin", "add", folder]);
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    let at = user.path("data/deepspeed/plugins").join(&id);
    for line in [
        format!("{id} 0.1.0, by Example\n"),
        format!("  device       {name}:0  Example {name}, target {name}-1\n"),
        format!("added to {}\n", at.display()),
        format!("DS_ACCELERATOR={name} selects it\n"),
    ] {
        assert!(printed.text.contains(&line), "{}", printed.text);
    }
    assert_eq!(at.metadata().unwrap().permissions().mode() & 0o777, 0o700);

    let report = user.run(&[]);
    assert!(
        report.text.contains(&format!("Example {name}")),
        "{}",
        report.text
    );
    assert!(report.text.contains("selected  cpu:0"), "{}", report.text);
    let report = user.run_with(&[], &[("DS_ACCELERATOR", name)]);
    assert!(
        report.text.contains(&format!("selected  {name}:0")),
        "{}",
        report.text
    );

    let printed = user.run(&["plugin", "remove", name]);
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    assert!(
        printed.text.contains(&format!("removed {id} 0.1.0 from ")),
        "{}",
        printed.text
    );
    assert!(!user.run(&[]).text.contains(&format!("{name}:0")));
    assert_eq!(user.run(&["plugin", "remove", name]).code, Some(1));
}

#[test]
fn a_plugin_in_c_comes_and_goes() {
    walk(&User::new(), "c", "my_chip");
}

#[test]
fn a_plugin_in_rust_comes_and_goes() {
    // `Host` is a name that the file imports.
    walk(&User::new(), "rust", "host");
}

#[test]
fn what_speaks_against_a_folder_is_said_and_nothing_is_left_behind() {
    let user = User::new();
    if !user.chip() {
        return;
    }
    let library = "libds_plugin_chip.so";
    user.refused("nowhere", "nowhere cannot be read");
    user.refused("chip", "has no plugin.json");
    user.refused("chip/chip.c", "is a file");

    let writable = user.copy("writable");
    fs::set_permissions(writable.join(library), Permissions::from_mode(0o646)).unwrap();
    user.refused("writable", "can be written to by everybody");
    fs::set_permissions(writable.join(library), Permissions::from_mode(0o644)).unwrap();
    fs::write(writable.join("more"), "more").unwrap();
    fs::set_permissions(writable.join("more"), Permissions::from_mode(0o662)).unwrap();
    user.refused(
        "writable",
        "more can be written to by its group and everybody",
    );

    // Not the library: what nobody checks at a search, but the copy would take along.
    symlink("/etc/passwd", user.copy("out").join("more")).unwrap();
    user.refused("out", "is a link that leaves its folder");
    let back = user.copy("back").join("more");
    symlink(Path::new("../back").join(library), back).unwrap();
    user.refused("back", "is a link that leaves its folder");

    let manifest = user.copy("manifest").join("plugin.json");
    edit(&manifest, "\"priority\": 0", "\"priority\": \"high\"");
    user.refused("manifest", "plugin.json: priority: ");
    let version = user.copy("version").join("plugin.json");
    edit(&version, "0.1.0", "0.2.0");
    user.refused(
        "version",
        "0.2.0, and the library says org.example.chip 0.1.0",
    );
    let schema = user.copy("schema").join("plugin.json");
    edit(
        &schema,
        "\"match\"",
        "\"schemas\": [\"none.ops\"], \"match\"",
    );
    user.refused("schema", "/schema/none.ops");

    let new = user.json(&["plugin", "new", "--lang", "c", "chip", "--into", "other"]);
    let build = new["build"].as_str().unwrap();
    let source = user.path("other/chip.c");
    let text = fs::read_to_string(&source).unwrap();
    for (old, new, reason) in [
        (
            "ds_plugin_v1",
            "ds_plugin_v2",
            "it does not export `ds_plugin_v1`",
        ),
        (
            "// Keep the host",
            "__builtin_trap(); //",
            "; its last words: in opening the library or `ds_plugin_v1`",
        ),
        (
            "*devices = 1;",
            "__builtin_trap();",
            "; its last words: in `count`",
        ),
        (
            "// Keep the host",
            "extern int nobody(void); nobody(); //",
            "undefined symbol: nobody",
        ),
        (
            "*devices = 1;",
            "return fail(error, DS_INTERNAL, STR(\"lost\"));",
            "chip count: lost",
        ),
    ] {
        fs::write(&source, text.replace(old, new)).unwrap();
        user.build(build);
        user.refused("other/plugin", reason);
    }
}

#[test]
fn a_mistake_in_a_manifest_that_is_used_is_told_and_hides_nothing_else() {
    let user = User::new();
    if !user.chip() {
        return;
    }
    let run = |folder: &str, arguments: &[&str]| {
        let path = user.path(folder);
        let variables = [
            ("DS_PLUGIN_PATH", path.to_str().unwrap()),
            ("DS_ACCELERATOR", "chip"),
        ];
        user.run_with(arguments, &variables)
    };

    let kernel = |name: &str, accelerator: &str, constraints: &str| {
        format!(
            "{{\"name\": \"{name}\", \"op\": \"cast\", \"accelerator\": \"{accelerator}\", \
             \"constraints\": {constraints}, \
             \"score\": [{{\"elements\": [0, null], \"score\": 100}}], \
             \"flags\": [\"deterministic\"]}}"
        )
    };
    let kernels = [
        kernel("one", "chip", r#"{"dtypes": {"A": ["half"]}}"#),
        kernel("two", "chip", r#"{"ranks": {}}"#),
        kernel("three", "chop", "{}"),
        kernel("four", "chip", r#"{"dtypes": {"Q": ["f32"]}}"#),
        kernel("five", "chip", "{}"),
    ];
    let manifest = user.copy("kernels").join("plugin.json");
    edit(
        &manifest,
        "\"match\"",
        &format!("\"kernels\": [{}], \"match\"", kernels.join(", ")),
    );
    edit(&manifest, "org.example.chip", "org.example.chop");
    let printed = run("kernels", &["explain", "cast"]);
    for reason in [
        "chip: kernel 'one' is left out: constraints.dtypes.A[0]: unknown variant `half`",
        "chip: kernel 'two' is left out: constraints.ranks: unknown field `ranks`",
        "chip: kernel 'three' is left out: accelerator: it is for 'chop'",
        "chip: kernel 'four' is left out: dtypes: 'cast' has no dtype variable 'Q'",
        "plugin.json says org.example.chop 0.1.0, and the library says org.example.chip 0.1.0",
    ] {
        assert!(printed.errors.contains(reason), "{}", printed.errors);
    }
    assert!(printed.text.contains("five"), "{}", printed.text);
    assert!(!printed.errors.contains("five"), "{}", printed.errors);

    // A manifest that cannot be read has no name, so the error about the name tells of it.
    let manifest = user.copy("broken").join("plugin.json");
    edit(&manifest, "\"priority\": 0,", "\"priority\": 0");
    let printed = run("broken", &["verify", "cast"]);
    assert!(
        (printed.errors).contains("broken was refused: `ds_report plugins` says why"),
        "{}",
        printed.errors
    );
    let printed = run("broken", &["plugins"]);
    assert!(
        (printed.text).contains("\n                 expected `,` or `}`"),
        "{}",
        printed.text
    );
}

#[test]
fn a_second_one_replaces_the_first_only_when_told_to() {
    let user = User::new();
    if !user.chip() {
        return;
    }
    // What a crash left behind is no plugin, and goes.
    let left = user.path("data/deepspeed/plugins/.passing-1");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("plugin.json"), "half").unwrap();
    assert_eq!(user.run(&["plugin", "add", "chip/plugin"]).code, Some(0));
    assert!(!left.exists());

    user.refused("chip/plugin", "org.example.chip 0.1.0 is there already");
    fs::write(user.path("chip/plugin/more"), "more").unwrap();
    let printed = user.run(&["plugin", "add", "--replace", "chip/plugin"]);
    assert_eq!(printed.code, Some(0), "{}", printed.errors);
    assert!(
        printed.text.contains(", in place of 0.1.0\n"),
        "{}",
        printed.text
    );
    let plugins = user.path("data/deepspeed/plugins");
    assert!(plugins.join("org.example.chip/more").exists());
    assert_eq!(fs::read_dir(&plugins).unwrap().count(), 1);

    // Also one that was copied by hand, under a name of its own.
    fs::rename(plugins.join("org.example.chip"), plugins.join("by-hand")).unwrap();
    user.refused("chip/plugin", "/by-hand");
    let printed = user.run(&["plugin", "add", "--replace", "chip/plugin"]);
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    assert!(plugins.join("org.example.chip").exists() && !plugins.join("by-hand").exists());

    // Another plugin for the same accelerator would win or lose by its name.
    let new = [
        "plugin",
        "new",
        "--lang",
        "c",
        "chip",
        "--id",
        "com.chips.chip",
        "--into",
        "rival",
    ];
    user.build(user.json(&new)["build"].as_str().unwrap());
    user.refused("rival/plugin", "org.example.chip 0.1.0 serves chip already");
}

#[test]
fn missing_hardware_is_no_reason_against_a_plugin_but_is_said() {
    let user = User::new();
    if !user.chip() {
        return;
    }
    let manifest = user.path("chip/plugin/plugin.json");
    edit(
        &manifest,
        "\"always\": true",
        "\"device\": \"/dev/no-such-chip*\"",
    );
    let printed = user.run(&["plugin", "add", "chip/plugin"]);
    assert_eq!(printed.code, Some(0), "{}", printed.errors);
    for words in [
        "looked for /dev/no-such-chip*",
        "selects it once its hardware is there",
    ] {
        assert!(printed.text.contains(words), "{}", printed.text);
    }
}

#[test]
fn only_what_was_added_is_removed_and_the_place_of_another_is_named() {
    let user = User::new();
    let printed = user.run(&["plugin", "remove", "cpu"]);
    assert_eq!(printed.code, Some(1));
    assert!(
        printed.errors.contains("org.deepspeed.cpu in the program"),
        "{}",
        printed.errors
    );
    if !user.chip() {
        return;
    }
    let folder = user.path("chip/plugin");
    let named = [("DS_PLUGIN_PATH", folder.to_str().unwrap())];
    let printed = user.run_with(&["plugin", "remove", "org.example.chip"], &named);
    assert_eq!(printed.code, Some(1));
    assert!(
        printed.errors.contains(folder.to_str().unwrap()),
        "{}",
        printed.errors
    );
    assert!(
        printed
            .errors
            .contains("take its place out of DS_PLUGIN_PATH"),
        "{}",
        printed.errors
    );
    assert!(folder.join("plugin.json").exists());

    // Put there by hand, as a link to where it is built: the link goes, the plugin stays.
    let plugins = user.path("data/deepspeed/plugins");
    fs::create_dir_all(&plugins).unwrap();
    symlink(&folder, plugins.join("linked")).unwrap();
    fs::create_dir(plugins.join("broken")).unwrap();
    for name in ["chip", "broken"] {
        let printed = user.run(&["plugin", "remove", name]);
        assert_eq!(printed.code, Some(0), "{}", printed.errors);
    }
    assert_eq!(fs::read_dir(plugins).unwrap().count(), 0);
    assert!(folder.join("plugin.json").exists());
}

#[test]
fn a_new_plugin_needs_a_name_a_place_and_something_to_build_against() {
    let user = User::new();
    let errors = |arguments: &[&str]| {
        let printed = user.run(&[&["plugin", "new", "--lang", "rust"], arguments].concat());
        assert_eq!(printed.code, Some(1));
        printed.errors
    };
    assert!(errors(&["My Chip"]).contains("use a lower-case letter"));
    assert!(errors(&["chip", "--id", "chip"]).contains("a domain name backwards"));
    assert!(errors(&["chip", "--source", "home"]).contains("home has no core/plugin/Cargo.toml"));
    fs::write(user.path("data/file"), "file").unwrap();
    assert!(errors(&["chip", "--into", "data"]).contains("data is not empty"));
    assert_eq!(fs::read_dir(user.folder.path()).unwrap().count(), 2);
}
