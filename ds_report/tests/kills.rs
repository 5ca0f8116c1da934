//! `ds_report plugin add` that is killed: programs see the old plugin or the new one, whole, and the
//! next command works and tidies up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use ds_core::discovery::{Search, Verdict, discover};
use ds_tests::{
    drill::{self, Chance},
    hostile,
};

/// No command takes so long here: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Version `version` of a plugin, in a folder of its own; `None` without a C compiler.
fn version(home: &Path, version: &str) -> Option<PathBuf> {
    let parent = home.join(version);
    let says = format!(
        "p->id = (DsStr){{ .data = \"org.example.good\", .len = 16 }};
         p->version = (DsStr){{ .data = \"{version}\", .len = {} }}",
        version.len()
    );
    let source = hostile::source("", &says, "", "");
    let made = hostile::plugin(&parent, "good", &source).unwrap();
    let folder = parent.join("good");
    let manifest = hostile::manifest("good").replace("1.0.0", version);
    fs::write(folder.join("plugin.json"), manifest).unwrap();
    made.then_some(folder)
}

fn add(home: &Path, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ds_report"));
    command
        .args(["plugin", "add", "--replace"])
        .arg(folder)
        .env_remove("DS_PLUGIN_PATH")
        .env_remove("DS_ACCELERATOR")
        .env("XDG_DATA_HOME", home.join("data"))
        .env("DS_CACHE_DIR", home.join("cache"))
        .env("TMPDIR", home.join("temporary"));
    command
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(folder).into_iter().flatten();
    items.map(|item| item.unwrap().path()).collect()
}

#[test]
fn a_killed_add_leaves_the_old_plugin_or_the_new_one() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir(home.join("temporary")).unwrap();
    let (Some(old), Some(new)) = (version(home, "1.0.0"), version(home, "2.0.0")) else {
        return;
    };
    let place = home.join("data/deepspeed/plugins");
    let added = |folder: &Path| {
        let (status, text) = drill::run_for(&mut add(home, folder), PATIENCE).unwrap();
        let status = status.expect("it hangs");
        assert!(status.success(), "{text}");
    };
    let is = |folder: &Path| {
        let same = |name: &str| {
            fs::read(place.join("org.example.good").join(name)).unwrap()
                == fs::read(folder.join(name)).unwrap()
        };
        same("plugin.json") && same("lib.so")
    };
    added(&old);
    let started = Instant::now();
    added(&new);
    let whole = started.elapsed();
    added(&old);

    let mut chance = Chance::new(48);
    let wanted = drill::times(30, 500);
    let (mut rounds, mut kills, mut came) = (0, 0, 0);
    while kills < wanted {
        rounds += 1;
        assert!(
            rounds <= 4 * wanted,
            "{kills} kills: the moments are no longer within a command"
        );
        let (status, _) = drill::run_for(&mut add(home, &new), chance.moment(whole)).unwrap();
        kills += u64::from(status.is_none());
        let search = Search {
            programmatic: vec![place.clone()],
            ..Search::empty()
        };
        let found = discover(&search).candidates;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].verdict, Verdict::Found);
        assert!(is(&old) || is(&new), "a mixture of both");
        came += u64::from(is(&new));
        // The next command works, and what the dead one left beside it is gone.
        added(&old);
        assert!(is(&old));
        assert_eq!(list(&place), [place.join("org.example.good")]);
    }
    assert!(came < rounds, "none was killed before it was done");
    assert_eq!(list(&home.join("temporary")), Vec::<PathBuf>::new());
    drill::tell(
        "drills",
        "kills in `ds_report plugin add --replace`",
        &format!(
            "{kills} kills in {rounds} commands of {} ms; 0 hangs, 0 mixtures, 0 folders left",
            whole.as_millis()
        ),
    );
}
