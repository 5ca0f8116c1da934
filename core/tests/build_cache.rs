//! The build cache in one process: what is built, found, refused, remembered, pruned and moved.

mod build_support;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant},
};

use build_support::{House, copy, list, spec};
use ds_core::{
    ErrorKind,
    build::{
        BuildKey, Cache, CompileFailure, EntryState, JitMode, Level, PruneRules, Pruned, Settings,
        Stats,
    },
};

#[test]
fn what_was_built_is_found_with_its_record_and_log() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let built = cache.build(&copy("one"), &toolchain).unwrap();
    let found = cache.build(&copy("one"), &toolchain).unwrap();

    assert_eq!((built.level, found.level), (Level::Built, Level::User));
    assert_eq!(
        (built.bytes.as_slice(), found.bytes.as_slice()),
        (&b"one"[..], &b"one"[..])
    );
    assert_eq!((&built.path, &built.record), (&found.path, &found.record));
    assert_eq!(fs::read(&found.path).unwrap(), b"one");
    assert_eq!(house.calls("copy"), 1);

    let hex = found.key.hex();
    let folder = house.path("cache/v1").join(&hex[..2]).join(&hex);
    assert_eq!(found.path, folder.join("a.so"));
    assert_eq!(
        list(&folder),
        [
            folder.join("a.so"),
            folder.join("build.log"),
            folder.join("record.json")
        ]
    );
    assert_eq!(
        fs::read(folder.join("build.log")).unwrap(),
        b"compiling a.c\n"
    );
    assert_eq!(found.record.subject(), "norm/rms_norm");
    assert_eq!(found.record.artefact_bytes, 3);
    assert_eq!(
        found.record.artefact_blake3,
        blake3::hash(b"one").to_hex().as_str()
    );
    assert_eq!(found.record.toolchain, *toolchain.identity());
    assert_eq!(
        house.leftovers(),
        [""; 0].map(Into::into) as [std::path::PathBuf; 0]
    );
    // Code comes out of it: nobody else may write to it.
    assert_eq!(
        fs::metadata(house.path("cache")).unwrap().mode() & 0o777,
        0o700
    );
}

#[test]
fn what_is_forgotten_is_built_again_where_building_is_allowed() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let built = cache.build(&copy("one"), &toolchain).unwrap();
    let mut settings = house.cache().settings().clone();
    settings.jit = JitMode::CacheOnly;
    let reader = Cache::open(settings).unwrap();
    reader.forget(&built.key).unwrap();
    assert!(cache.lookup(&built.key).is_some());

    cache.forget(&built.key).unwrap();
    assert!(cache.lookup(&built.key).is_none());
    let again = cache.build(&copy("one"), &toolchain).unwrap();
    assert_eq!((again.level, house.calls("copy")), (Level::Built, 2));
    // Nothing to forget is no failure.
    cache
        .forget(&BuildKey::new(&copy("two"), toolchain.identity()))
        .unwrap();
}

#[test]
fn a_change_of_source_or_target_is_another_build() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let one = cache.build(&copy("one"), &toolchain).unwrap();
    let two = cache.build(&copy("two"), &toolchain).unwrap();
    let mut elsewhere = copy("one");
    elsewhere.target = "x86-64-v4".into();
    let three = cache.build(&elsewhere, &toolchain).unwrap();
    assert_eq!(BTreeSet::from([one.key, two.key, three.key]).len(), 3);
    assert_eq!(
        (two.bytes.as_slice(), house.calls("copy")),
        (&b"two"[..], 3)
    );
}

#[test]
fn a_damaged_entry_is_built_again_and_never_loaded() {
    type Damage = fn(&Path);
    let damages: &[(&str, Damage)] = &[
        ("truncated", |entry| {
            fs::write(entry.join("a.so"), b"on").unwrap();
        }),
        ("emptied", |entry| {
            fs::write(entry.join("a.so"), b"").unwrap();
        }),
        ("same length", |entry| {
            fs::write(entry.join("a.so"), b"onf").unwrap();
        }),
        ("artefact gone", |entry| {
            fs::remove_file(entry.join("a.so")).unwrap();
        }),
        ("record gone", |entry| {
            fs::remove_file(entry.join("record.json")).unwrap();
        }),
        ("record empty", |entry| {
            fs::write(entry.join("record.json"), b"").unwrap();
        }),
        ("record's size field", |entry| {
            let record = entry.join("record.json");
            let text = fs::read_to_string(&record).unwrap();
            let other = text.replace("\"artefact_bytes\": 3", "\"artefact_bytes\": 4");
            assert_ne!(text, other);
            fs::write(&record, other).unwrap();
        }),
        ("record's target", |entry| {
            let record = entry.join("record.json");
            let text = fs::read_to_string(&record).unwrap();
            fs::write(&record, text.replace("x86-64", "x86-65")).unwrap();
        }),
        ("a link", |entry| {
            let aside = entry.join("real");
            fs::rename(entry.join("a.so"), &aside).unwrap();
            symlink(aside, entry.join("a.so")).unwrap();
        }),
        ("writable by all", |entry| {
            fs::set_permissions(entry.join("a.so"), Permissions::from_mode(0o666)).unwrap();
        }),
        ("no folder", |entry| {
            fs::remove_dir_all(entry).unwrap();
            fs::write(entry, b"").unwrap();
        }),
    ];
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let entry = cache.build(&copy("one"), &toolchain).unwrap();
    let folder = entry.path.parent().unwrap();
    for (count, (what, damage)) in damages.iter().enumerate() {
        damage(folder);
        assert!(cache.lookup(&entry.key).is_none(), "{what}");
        let again = cache.build(&copy("one"), &toolchain).unwrap();
        assert_eq!(
            (again.level, again.bytes.as_slice()),
            (Level::Built, &b"one"[..]),
            "{what}"
        );
        assert_eq!(house.calls("copy"), count + 2, "{what}");
        assert!(cache.lookup(&entry.key).is_some(), "{what}");
        assert!(house.leftovers().is_empty(), "{what}");
    }
}

#[test]
fn another_entrys_files_are_not_taken_for_this_ones() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let one = cache.build(&copy("one"), &toolchain).unwrap();
    let two = cache.build(&copy("two"), &toolchain).unwrap();
    fs::remove_dir_all(one.path.parent().unwrap()).unwrap();
    fs::rename(two.path.parent().unwrap(), one.path.parent().unwrap()).unwrap();
    assert!(cache.lookup(&one.key).is_none());
}

#[test]
fn a_refusal_is_remembered_until_its_key_changes_or_it_is_pruned() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let refused = spec("x y;", &["refuse"]);
    let key = BuildKey::new(&refused, toolchain.identity());

    let first = cache.build(&refused, &toolchain).unwrap_err();
    let second = cache.build(&refused, &toolchain).unwrap_err();
    assert_eq!(house.calls("refuse"), 1);
    let log = cache.failure(&key).unwrap().log;
    for error in [&first, &second] {
        assert_eq!(error.kind(), ErrorKind::BuildFailed);
        let text = error.to_string();
        assert!(
            text.contains("norm/rms_norm") && text.contains("exited with 1"),
            "{text}"
        );
        assert!(
            text.contains("a.c:3:1: error: unknown type name 'x'"),
            "{text}"
        );
        assert!(
            error.hint().unwrap().contains(log.to_str().unwrap()),
            "{:?}",
            error.hint()
        );
    }
    assert!(second.to_string().contains("remembered"), "{second}");
    assert!(
        second
            .hint()
            .unwrap()
            .contains("ds_report cache prune --failed")
    );
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .starts_with("a.c: In function f:\n")
    );
    assert!(house.leftovers().is_empty());

    cache
        .build(&spec("x y; ", &["refuse"]), &toolchain)
        .unwrap_err();
    assert_eq!(house.calls("refuse"), 2);

    let rules = PruneRules {
        failed: true,
        ..PruneRules::default()
    };
    assert_eq!(cache.prune(&rules).unwrap().removed.len(), 2);
    // The same key passes once what lay outside of it was repaired.
    let repaired = cache.build_with(&refused, toolchain.identity(), |folder| {
        fs::write(folder.join("a.so"), b"fine").unwrap();
        Ok(Vec::new())
    });
    assert_eq!(repaired.unwrap().bytes, b"fine");
}

#[test]
fn no_usable_output_is_a_refusal() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    // Where there is none at all, it may have been deleted: that is asked again.
    for (arguments, calls) in [
        (&["silent"][..], 2),
        (&["empty", "a.so"], 1),
        (&["folder", "a.so"], 1),
    ] {
        let spec = spec("", arguments);
        for _ in 0..2 {
            let error = cache.build(&spec, &toolchain).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BuildFailed);
            assert!(error.to_string().contains("`a.so`"), "{error}");
        }
        assert_eq!(house.calls(arguments[0]), calls);
    }
}

#[test]
fn what_may_pass_another_time_is_tried_again() {
    let house = House::new();
    let toolchain = house.toolchain();
    let hasty = Settings {
        timeout: Duration::from_millis(50),
        ..house.settings()
    };
    for (what, kind, said) in [
        ("die", ErrorKind::BuildFailed, "signal 9"),
        ("full", ErrorKind::Io, "No space left"),
        ("slow", ErrorKind::Timeout, "killed after 50ms"),
    ] {
        let settings = if what == "slow" {
            hasty.clone()
        } else {
            house.settings()
        };
        let cache = Cache::open(settings).unwrap();
        let started = Instant::now();
        for _ in 0..2 {
            let error = cache.build(&spec("", &[what]), &toolchain).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.hint().is_some());
        }
        // One that is slow may be killed before it has noted its call.
        assert!(house.calls(what) == 2 || what == "slow");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{what} was waited for"
        );
    }
    assert!(house.leftovers().is_empty());
    assert_eq!(house.cache().stats().unwrap(), Stats::default());
}

#[test]
fn a_compiler_sees_the_named_variables_only() {
    let house = House::new();
    let built = house
        .cache()
        .build(&spec("", &["env", "a.so"]), &house.toolchain())
        .unwrap();
    let text = String::from_utf8(built.bytes).unwrap();
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")))
    };
    let names: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    // The shell itself adds the last three.
    let named = [
        "PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "CPATH", "PWD", "SHLVL", "_",
    ];
    assert!(names.is_subset(&named.into()), "{text}");
    assert_eq!(
        (value("PATH"), value("CPATH")),
        (Some("/usr/bin:/bin"), Some("/inc"))
    );
    assert_eq!(value("LC_ALL"), Some("C"));
    assert_eq!(value("HOME"), value("TMPDIR"));
    assert_eq!(value("HOME"), value("PWD"));
}

#[test]
fn a_cache_that_cannot_be_written_to_still_serves_hits() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    cache.build(&copy("one"), &toolchain).unwrap();
    // Holds for root too, whom modes do not bind.
    fs::remove_dir(house.path("cache/tmp")).unwrap();
    fs::write(house.path("cache/tmp"), b"").unwrap();
    assert_eq!(
        cache.build(&copy("one"), &toolchain).unwrap().level,
        Level::User
    );
    let error = cache.build(&copy("two"), &toolchain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error
            .to_string()
            .contains(house.path("cache/tmp").to_str().unwrap()),
        "{error}"
    );

    let below_a_file = Settings::at(house.path("cache/tmp/below"));
    let error = Cache::open(below_a_file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.hint().unwrap().contains("DS_CACHE_DIR"), "{error}");

    // Opening makes nothing, so that a place where nothing can be made is noticed by the build.
    let error = Cache::open(Settings::at("/proc/ds-cache"))
        .unwrap()
        .build(&copy("1"), &toolchain);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_cache_that_others_can_write_to_is_refused() {
    let house = House::new();
    house
        .cache()
        .build(&copy("one"), &house.toolchain())
        .unwrap();
    fs::set_permissions(house.path("cache"), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        Cache::open(house.settings()).unwrap_err().kind(),
        ErrorKind::Untrusted
    );
}

#[test]
fn modes_forbid_what_they_say() {
    let house = House::new();
    let toolchain = house.toolchain();
    house.cache().build(&copy("one"), &toolchain).unwrap();
    let with = |jit| {
        Cache::open(Settings {
            jit,
            ..house.settings()
        })
        .unwrap()
    };

    let found = with(JitMode::CacheOnly)
        .build(&copy("one"), &toolchain)
        .unwrap();
    assert_eq!(found.level, Level::User);
    for (jit, source) in [(JitMode::CacheOnly, "two"), (JitMode::Off, "one")] {
        let error = with(jit).build(&copy(source), &toolchain).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("DS_JIT={}", jit.name())),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("DS_JIT=on"));
    }
    assert_eq!(house.calls("copy"), 1);
}

#[test]
fn who_loses_the_race_takes_the_winners_artefact_unless_it_is_damaged() {
    let house = House::new();
    let cache = house.cache();
    let toolchain = house.toolchain();
    // The rival does not wait for the lock, and so finishes while the first still builds.
    let rival = Cache::open(Settings {
        timeout: Duration::ZERO,
        ..house.settings()
    })
    .unwrap();
    let build = |source, damage: bool| {
        let spec = copy(source);
        cache.build_with(&spec, toolchain.identity(), |folder| {
            let won = rival
                .build_with(&spec, toolchain.identity(), |folder| {
                    fs::write(folder.join("a.so"), b"winner").unwrap();
                    Ok(Vec::new())
                })
                .unwrap();
            assert_eq!(won.level, Level::Built);
            if damage {
                fs::write(&won.path, b"broken").unwrap();
            }
            fs::write(folder.join("a.so"), b"loser").unwrap();
            Ok(Vec::new())
        })
    };
    let lost = build("one", false).unwrap();
    assert_eq!(
        (lost.level, lost.bytes.as_slice()),
        (Level::User, &b"winner"[..])
    );
    let repaired = build("two", true).unwrap();
    assert_eq!(
        (repaired.level, repaired.bytes.as_slice()),
        (Level::Built, &b"loser"[..])
    );
    assert_eq!(cache.lookup(&repaired.key).unwrap().bytes, b"loser");
    assert!(house.leftovers().is_empty());
}

#[test]
fn an_artefact_that_cannot_be_published_is_used_all_the_same() {
    let house = House::new();
    let cache = house.cache();
    let toolchain = house.toolchain();
    let spec = copy("one");
    let key = BuildKey::new(&spec, toolchain.identity()).hex();
    let built = cache
        .build_with(&spec, toolchain.identity(), |folder| {
            // A file where the folder of the entry's group belongs.
            fs::write(house.path("cache/v1").join(&key[..2]), b"").unwrap();
            fs::write(folder.join("a.so"), b"own").unwrap();
            Ok(Vec::new())
        })
        .unwrap();
    assert_eq!(fs::read(&built.path).unwrap(), b"own");
    drop(built);
    assert!(house.leftovers().is_empty());
}

#[test]
fn an_in_process_compilers_failure_is_passed_on() {
    let house = House::new();
    let cache = house.cache();
    let identity = house.toolchain().identity().clone();
    let mut calls = 0;
    for _ in 0..2 {
        let error = cache
            .build_with(&copy("one"), &identity, |_| {
                calls += 1;
                Err(CompileFailure::refused(
                    "the library",
                    b"k.src(7): error: x\n".to_vec(),
                ))
            })
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the library: k.src(7): error: x"),
            "{error}"
        );
    }
    assert_eq!(calls, 1);

    let mut other = copy("one");
    other.request.toolchain = "library".into();
    let error = cache
        .build_with(&other, &identity, |_| Ok(Vec::new()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn exported_entries_serve_as_a_shared_cache_and_can_be_imported() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let one = cache.build(&copy("one"), &toolchain).unwrap();
    let two = cache.build(&copy("two"), &toolchain).unwrap();
    let shared = house.path("shared");
    let exported = cache.export(Some(&[one.key]), &shared).unwrap();
    assert_eq!((exported.added.len(), exported.present), (1, 0));
    // What an export that was killed left.
    let half = shared.join(".half12345");
    fs::create_dir(&half).unwrap();
    let exported = cache.export(None, &shared).unwrap();
    assert_eq!((exported.added.len(), exported.present), (1, 1));
    assert!(!half.exists());

    let settings = Settings {
        shared: vec![shared.clone()],
        ..Settings::at(house.path("second"))
    };
    let second = Cache::open(settings.clone()).unwrap();
    let found = second.build(&copy("one"), &toolchain).unwrap();
    assert_eq!(
        (found.level, found.bytes.as_slice()),
        (Level::Shared, &b"one"[..])
    );
    assert!(!house.path("second").exists(), "a hit made folders");

    // One of them is damaged on the way.
    let hex = two.key.hex();
    let damaged = shared.join("v1").join(&hex[..2]).join(&hex).join("a.so");
    fs::write(&damaged, b"twp").unwrap();
    let exported = cache.export(None, &shared).unwrap();
    assert_eq!((exported.added.len(), exported.present), (0, 1));
    assert!(exported.refused[0].1.starts_with("there is one already"));
    assert_eq!(
        second.build(&copy("two"), &toolchain).unwrap().level,
        Level::Built
    );

    let third = Cache::open(Settings::at(house.path("third"))).unwrap();
    let imported = third.import(&shared).unwrap();
    assert_eq!(
        (
            imported.added.len(),
            imported.present,
            imported.refused.len()
        ),
        (1, 0, 1)
    );
    assert!(
        imported.refused[0].1.contains("content"),
        "{:?}",
        imported.refused
    );
    assert_eq!(third.import(&shared).unwrap().present, 1);
    assert_eq!(third.lookup(&one.key).unwrap().bytes, b"one");
    assert_eq!(third.stats().unwrap().built, 1);
    assert!(list(&house.path("third/tmp")).is_empty());

    fs::set_permissions(&shared, Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        third.import(&shared).unwrap_err().kind(),
        ErrorKind::Untrusted
    );
    let without = Cache::open(settings).unwrap();
    assert_eq!(without.settings().shared, Vec::<std::path::PathBuf>::new());
    assert!(without.lookup(&one.key).is_none());
}

#[test]
fn what_an_imported_folder_claims_is_not_waited_for_or_made_room_for() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let one = cache.build(&copy("one"), &toolchain).unwrap();
    let two = cache.build(&copy("two"), &toolchain).unwrap();
    let shared = house.path("shared");
    cache.export(None, &shared).unwrap();
    let file = |key: BuildKey, name: &str| {
        let hex = key.hex();
        shared.join("v1").join(&hex[..2]).join(&hex).join(name)
    };
    // Nobody will ever write into this FIFO, and nearly all of that file is a hole.
    let log = file(one.key, "build.log");
    fs::remove_file(&log).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &log, rustix::fs::Mode::RUSR).unwrap();
    let artefact = fs::File::options().write(true).open(file(two.key, "a.so"));
    artefact.unwrap().set_len(1 << 40).unwrap();

    let third = Cache::open(Settings::at(house.path("third"))).unwrap();
    let imported = third.import(&shared).unwrap();
    assert_eq!(imported.added[0].key, one.key);
    assert!(
        imported.refused[0].1.contains("the limit is 1073741824"),
        "{:?}",
        imported.refused
    );
    assert_eq!(third.lookup(&one.key).unwrap().bytes, b"one");
}

#[test]
fn pruning_goes_by_size_age_and_state() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    assert_eq!(cache.stats().unwrap(), Stats::default());
    assert_eq!(
        cache.prune(&PruneRules::default()).unwrap(),
        Pruned::default()
    );
    for source in ["one", "two", "three"] {
        cache.build(&copy(source), &toolchain).unwrap();
    }
    cache.build(&spec("", &["refuse"]), &toolchain).unwrap_err();
    let four = cache.build(&copy("four"), &toolchain).unwrap();
    fs::write(&four.path, b"").unwrap();
    let stats = cache.stats().unwrap();
    assert_eq!((stats.built, stats.failed, stats.damaged), (3, 1, 1));
    let listed: u64 = cache
        .entries()
        .unwrap()
        .iter()
        .map(|entry| entry.size_bytes)
        .sum();
    assert_eq!(stats.size_bytes, listed);

    // Nothing asked for: only what is of no use goes.
    assert_eq!(
        cache.prune(&PruneRules::default()).unwrap().removed.len(),
        1
    );
    let day = PruneRules {
        older_than: Some(Duration::from_hours(24)),
        ..Default::default()
    };
    assert_eq!(cache.prune(&day).unwrap().removed.len(), 0);

    let built = |entry: &&ds_core::build::Entry| matches!(entry.state, EntryState::Built(_));
    let entries = cache.entries().unwrap();
    let sizes: Vec<u64> = entries
        .iter()
        .filter(built)
        .map(|entry| entry.size_bytes)
        .collect();
    let two_of_three = sizes.iter().sum::<u64>() - 1;
    let rules = PruneRules {
        max_bytes: Some(two_of_three),
        ..Default::default()
    };
    let foreseen = cache.prunable(&rules).unwrap();
    let pruned = cache.prune(&rules).unwrap();
    assert_eq!(pruned.removed, foreseen);
    assert_eq!(pruned.removed.len(), 1);
    assert!(sizes.contains(&pruned.removed[0].size_bytes));
    assert_eq!(cache.stats().unwrap().built, 2);
    let nothing = PruneRules {
        max_bytes: Some(0),
        failed: true,
        ..Default::default()
    };
    assert_eq!(cache.prune(&nothing).unwrap().removed.len(), 3);
    assert_eq!(cache.stats().unwrap(), Stats::default());
}
