//! The build cache and several processes: builders that are killed, race, or run out of room. A child
//! is this test program again, told by a variable what to do.

#![allow(
    clippy::unwrap_used,
    reason = "helpers are as good as the tests that call them"
)]

mod build_support;

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use build_support::{House, copy, spec};
use ds_core::{
    ErrorKind,
    build::{Level, PruneRules},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, OFlags},
};

const TASK: &str = "DS_TEST_BUILD_TASK";
const HOUSE: &str = "DS_TEST_BUILD_HOUSE";
const THREADS: usize = 8;

/// Not a test of its own: what a child does.
#[test]
fn child() {
    let (Ok(task), Ok(root)) = (env::var(TASK), env::var(HOUSE)) else {
        return;
    };
    let house = House::at(root);
    match task.as_str() {
        "gate" => {
            let _ = house
                .cache()
                .build(&spec("", &["gate"]), &house.toolchain());
        }
        "race" => race(&house),
        "full" => {
            let source = "x".repeat(64 << 10);
            let error = house
                .cache()
                .build(&copy(&source), &house.toolchain())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("a.c: File too large"), "{error}");
            assert!(error.hint().unwrap().contains("free some space"), "{error}");
        }
        other => panic!("no task {other}"),
    }
}

/// This program again, as a child that does `task`, under the shell command `around` it.
fn start(task: &str, house: &House, around: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{around} exec \"$0\" \"$@\"")])
        .arg(env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .envs([(TASK, task.as_ref()), (HOUSE, house.root.as_os_str())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn wait_for(file: impl AsFd, wanted: PollFlags) {
    let mut polled = [PollFd::new(&file, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&timeout)).unwrap();
    assert!(
        polled[0].revents().intersects(wanted),
        "{:?}",
        polled[0].revents()
    );
}

#[test]
fn a_killed_builder_takes_its_compiler_along_and_leaves_the_cache_usable() {
    let house = House::new();
    let (out, gate) = (house.path("out"), house.path("in"));
    fifo(&out);
    fifo(&gate);
    let open = |flags| File::from(rustix::fs::open(&out, flags, Mode::empty()).unwrap());
    let mut out = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC);

    let mut builder = start("gate", &house, "");
    wait_for(&out, PollFlags::IN);
    builder.kill().unwrap();
    builder.wait().unwrap();
    // A compiler that still lives would go on now, and say so.
    let mut opened = File::options().read(true).write(true).open(&gate).unwrap();
    opened.write_all(b"go\n").unwrap();
    let mut said = [0; 8];
    out.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"started\n");
    wait_for(&out, PollFlags::HUP);
    assert_eq!(out.read(&mut said).unwrap(), 0, "{said:?}");

    // The lock died with its owner: the same key is built without a wait.
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let started = Instant::now();
    let built = cache.build_with(&spec("", &["gate"]), toolchain.identity(), |folder| {
        fs::write(folder.join("a.so"), b"mine").unwrap();
        Ok(Vec::new())
    });
    assert_eq!(built.unwrap().level, Level::Built);
    assert!(started.elapsed() < cache.settings().timeout / 10);

    // What it left behind may be somebody's for a while, and then goes.
    assert_eq!(cache.prune(&PruneRules::default()).unwrap().leftovers, 0);
    let left = house.leftovers();
    assert_eq!(left.len(), 1);
    let long_ago = SystemTime::now() - Duration::from_hours(2);
    File::open(&left[0])
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    assert_eq!(cache.prune(&PruneRules::default()).unwrap().leftovers, 1);
    assert!(house.leftovers().is_empty());
    assert_eq!(cache.stats().unwrap().built, 1);
}

/// Many threads ask for one artefact at once.
fn race(house: &House) {
    let (cache, toolchain) = (house.cache(), house.toolchain());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let found = cache.build(&copy("one"), &toolchain).unwrap();
                assert_eq!(found.bytes, b"one");
                assert_eq!(fs::read(&found.path).unwrap(), b"one");
            });
        }
    });
}

#[test]
fn threads_of_several_processes_build_one_key_once() {
    let house = House::new();
    let mut children = [(); 2].map(|()| start("race", &house, ""));
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(house.calls("copy"), 1);
    assert!(house.leftovers().is_empty());
}

#[test]
fn without_locks_everybody_builds_and_the_result_is_the_same() {
    let house = House::new();
    house
        .cache()
        .build(&copy("warm"), &house.toolchain())
        .unwrap();
    // As on a file system without locks: they cannot even be opened.
    fs::remove_dir_all(house.path("cache/lock")).unwrap();
    fs::create_dir(house.path("cache/lock")).unwrap();
    let key = ds_core::build::BuildKey::new(&copy("one"), house.toolchain().identity());
    fs::create_dir(house.path("cache/lock").join(key.hex())).unwrap();
    let mut children = [(); 2].map(|()| start("race", &house, ""));
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let calls = house.calls("copy");
    assert!((2..=2 * THREADS + 1).contains(&calls), "{calls}");
    assert_eq!(house.cache().stats().unwrap().built, 2);
    assert!(house.leftovers().is_empty());
}

#[test]
fn a_full_disk_is_told_and_nothing_half_written_stays() {
    let house = House::new();
    house
        .cache()
        .build(&copy("warm"), &house.toolchain())
        .unwrap();
    // A file may grow to a few blocks, and growing further is an error, as when the disk is full.
    let mut child = start("full", &house, "trap '' XFSZ; ulimit -f 32;");
    assert!(child.wait().unwrap().success());
    assert!(house.leftovers().is_empty());
    let stats = house.cache().stats().unwrap();
    assert_eq!((stats.built, stats.failed, stats.damaged), (1, 0, 0));
    let kept: BTreeSet<_> = house
        .cache()
        .entries()
        .unwrap()
        .iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(kept.len(), 1);
}
