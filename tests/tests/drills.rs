//! Processes that are killed, race, or find their cache gone, full, from the future or without
//! locks: whoever comes next gets a right result or a clear error, and nothing half-made is loaded.
//!
//! A child is this program again, told by a variable what to do. The compiler is a few lines of
//! shell that leave one in `calls` each time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a child tells its parent")]

use std::{
    env, fs,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use ds_core::{
    DType, ErrorKind, Host, Stream,
    build::{
        BuildEnvironment, BuildRequest, BuildSpec, Cache, CompileFailure, EntryState, Level,
        ProgramToolchain, PruneRules, Settings, Toolchain, ToolchainIdentity,
    },
};
use ds_ops::{cast::cast, rms_norm::rms_norm};
use ds_tests::{
    cases::tensor,
    compare::values,
    drill::{self, Chance},
    example, hostile,
};

const TASK: &str = "DS_TESTS_TASK";
const HOUSE: &str = "DS_TESTS_HOUSE";
const ROUND: &str = "DS_TESTS_ROUND";

/// No process takes so long here: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of an artefact, which the compiler writes one by one, so that a kill finds it half-made.
const LINES: usize = 100;

/// Logs the call, then copies line by line.
const COPIER: &str = r#"
case $1 in --version) echo "copycc 1.0"; exit 0 ;; esac
echo "$1" >> "${0%/*}/calls"
while read -r line; do echo "$line"; done < "$1" > "$2"
"#;

/// Logs the call, then is the machine's own compiler.
const LOGGER: &str = r#"
echo "$*" >> "${0%/*}/calls"
exec cc "$@"
"#;

/// A folder with a cache, a compiler, a plugin and a place for temporary files.
struct House(PathBuf);

impl House {
    fn new(root: &Path, compiler: &str) -> Self {
        fs::write(root.join("compiler"), compiler).unwrap();
        fs::create_dir(root.join("temporary")).unwrap();
        Self(root.to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn cache(&self) -> Cache {
        Cache::open(Settings::at(self.path("cache"))).unwrap()
    }

    /// A text that the shell reads: a file just written may still be open in a child.
    fn cc(&self) -> String {
        format!("sh {}", self.path("compiler").display())
    }

    fn toolchain(&self) -> Toolchain {
        let variables = [("PATH", env::var("PATH").unwrap()), ("CC", self.cc())];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.into()));
        ProgramToolchain {
            name: "cc".into(),
            programs: "$CC".into(),
            version: "--version".into(),
            hint: String::new(),
        }
        .resolve(&BuildEnvironment::from_variables(variables), &self.cache())
        .unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// This program again, to do `task`.
    fn command(&self, task: &str, round: u64) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["child", "--exact", "--nocapture"])
            .env(TASK, task)
            .env(HOUSE, &self.0)
            .env(ROUND, round.to_string())
            .env("CC", self.cc())
            .env("DS_CACHE_DIR", self.path("cache"))
            .env("TMPDIR", self.path("temporary"));
        command
    }

    /// Has a child do `task`, and gives what it wrote.
    fn done(&self, task: &str, round: u64) -> String {
        done(&mut self.command(task, round))
    }

    fn start(&self, task: &str) -> Child {
        self.command(task, 0).stdout(Stdio::null()).spawn().unwrap()
    }

    /// How many entries the cache has; none of them may be damaged.
    fn whole_entries(&self) -> usize {
        let entries = self.cache().entries().unwrap();
        for entry in &entries {
            assert!(matches!(entry.state, EntryState::Built(_)), "{entry:?}");
        }
        entries.len()
    }

    fn list(&self, name: &str) -> Vec<PathBuf> {
        let items = fs::read_dir(self.path(name)).into_iter().flatten();
        items.map(|item| item.unwrap().path()).collect()
    }
}

fn done(command: &mut Command) -> String {
    let (status, text) = drill::run_for(command, PATIENCE).unwrap();
    let status = status.unwrap_or_else(|| panic!("{command:?} hangs"));
    assert!(status.success(), "{command:?}: {status}\n{text}");
    text
}

/// What the compiler is to make of round `round`: its source.
fn content(round: u64) -> String {
    let lines = (0..LINES).map(|line| format!("round {round} line {line}\n"));
    lines.collect::<Vec<_>>().concat()
}

fn spec(round: u64) -> BuildSpec {
    BuildSpec {
        request: BuildRequest {
            toolchain: "cc".into(),
            sources: vec![("a.c".into(), content(round).into())],
            arguments: vec!["a.c".into(), "a.so".into()],
            output: "a.so".into(),
        },
        target: "drill".into(),
        op_set: "drill".into(),
        kernel: "drill".into(),
        signature: None,
    }
}

/// Not a test of its own: what a child does.
#[test]
fn child() {
    let (Ok(task), Some(house)) = (env::var(TASK), env::var_os(HOUSE)) else {
        return;
    };
    let house = House(house.into());
    let round = env::var(ROUND).unwrap().parse().unwrap();
    match task.as_str() {
        "life" => life(&house, round),
        "race" => race(),
        "cast" => compute_cast(),
        "lockless" => lockless(&house),
        "full" => full(&house),
        other => panic!("no task {other}"),
    }
}

fn good_plugin(house: &House) -> Host {
    example::host(&house.path("plugins"))
        .with_helper(env!("CARGO_BIN_EXE_probe_helper").into())
        .with_live_probes()
}

/// All that a process does before it computes: finds, asks, builds, publishes, tidies up.
fn life(house: &House, round: u64) {
    assert_eq!(hostile::status(&good_plugin(house), "good"), Ok(1));
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let built = cache.build(&spec(round), &toolchain).unwrap();
    assert_eq!(built.bytes, content(round).as_bytes());
    assert_eq!(fs::read(&built.path).unwrap(), built.bytes);
    let found = cache.lookup(&built.key).unwrap();
    assert_eq!(found.bytes, content(round).as_bytes());
    // Room for a few, so that each round removes one of before.
    let rules = PruneRules {
        max_bytes: Some(20_000),
        ..PruneRules::default()
    };
    cache.prune(&rules).unwrap();
    println!("lived: {:?}", built.level);
}

fn make_good_plugin(house: &House) -> bool {
    let source = hostile::source("", "", "", "");
    hostile::plugin(&house.path("plugins"), "good", &source).unwrap()
}

/// Sets the time of everything in a folder, and of what lies there in folders.
fn age(folder: &Path, time: SystemTime) {
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        if item.file_type().unwrap().is_dir() {
            age(&item.path(), time);
        }
        File::open(item.path()).unwrap().set_modified(time).unwrap();
    }
}

fn hours_ago(hours: u64) -> SystemTime {
    SystemTime::now() - Duration::from_hours(hours)
}

#[test]
fn whoever_comes_after_a_kill_finds_all_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), COPIER);
    if !make_good_plugin(&house) {
        return;
    }
    house.done("life", 0);
    let timed = |round| {
        let started = Instant::now();
        (house.done("life", round), started.elapsed())
    };
    let (_, mut whole) = timed(1_000_000);

    let mut chance = Chance::new(47);
    let wanted = drill::times(60, 1000);
    let (mut rounds, mut kills, mut found, mut left) = (0, 0, 0, 0);
    while kills < wanted {
        rounds += 1;
        assert!(
            rounds <= 4 * wanted,
            "{kills} kills: the moments are no longer within a life"
        );
        let round = rounds;
        let moment = chance.moment(whole);
        let (status, _) = drill::run_for(&mut house.command("life", round), moment).unwrap();
        kills += u64::from(status.is_none());
        assert!(status.is_none_or(|status| status.success()));
        house.whole_entries();
        // The next process gets it right, on what the dead one left, be it a lock or a folder.
        let (text, elapsed) = timed(round);
        if text.contains("lived: User") {
            found += 1;
        } else {
            // A whole life as the machine is now: moments stay within one while others use it.
            whole = elapsed;
        }
        house.whole_entries();
        left = left.max(house.list("cache/tmp").len());
    }
    // Some were killed before they published, some after.
    assert!(0 < found && found < rounds, "{found} of {rounds}");

    // What the dead left lies where it is swept, and the first life an hour later sweeps it.
    assert!(left > 0 && left as u64 <= 3 * rounds, "{left}");
    age(&house.path("cache/tmp"), hours_ago(2));
    age(&house.path("cache/lock"), hours_ago(2));
    house.done("life", rounds + 1);
    let leftovers = [house.list("cache/tmp"), house.list("temporary")].concat();
    assert_eq!(leftovers, Vec::<PathBuf>::new());
    // Its own.
    assert_eq!(house.list("cache/lock").len(), 1);
    let strays = house
        .list("cache/v1")
        .into_iter()
        .filter(|path| path.is_file());
    assert!(strays.count() <= 2, "{:?}", house.list("cache/v1"));
    drill::tell(
        "drills",
        "kills in discovery, probe, build, publish, prune",
        &format!(
            "{kills} kills in {rounds} lives of {} ms; 0 hangs, 0 damaged entries; {left} folders \
             left, 0 after a sweep",
            whole.as_millis()
        ),
    );
}

/// Three threads that need the same two artefacts of the processor.
fn race() {
    let device = ds_tests::cpu().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let stream = Stream::new(device).unwrap();
                let x = tensor(&stream, DType::F32, &[1, 4], &[2.0; 4]).unwrap();
                let y = cast(&stream, &x, DType::BF16).unwrap();
                assert_eq!(values(&stream, &y).unwrap(), [2.0; 4]);
                let weight = tensor(&stream, DType::F32, &[4], &[3.0; 4]).unwrap();
                let (y, _) = rms_norm(&stream, &x, &weight, 0.0).unwrap();
                assert_eq!(values(&stream, &y).unwrap(), [3.0; 4]);
            });
        }
    });
}

#[test]
fn many_processes_on_a_cold_cache_compile_each_artefact_once() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), LOGGER);
    let mut children = [(); 6].map(|()| house.start("race"));
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let compiled: Vec<String> = house
        .calls()
        .into_iter()
        .filter(|call| call.contains(" -o "))
        .collect();
    let artefacts = house.whole_entries();
    assert_eq!((artefacts, compiled.len()), (2, 2), "{compiled:?}");
    assert_eq!(house.list("cache/tmp"), Vec::<PathBuf>::new());
    drill::tell(
        "drills",
        "6 processes of 3 threads on a cold cache",
        &format!("{artefacts} artefacts, {} compiler runs", compiled.len()),
    );
}

/// Casts on the processor; says what artefacts are built for, and the error if there is one.
fn compute_cast() {
    let device = ds_tests::cpu().unwrap();
    println!("target: {}", device.info().target);
    let stream = Stream::new(device).unwrap();
    let x = tensor(&stream, DType::F32, &[4], &[2.0; 4]).unwrap();
    match cast(&stream, &x, DType::BF16) {
        Ok(y) => println!("right: {}", values(&stream, &y).unwrap() == [2.0; 4]),
        Err(error) => println!("error: {error}"),
    }
}

#[test]
fn an_entry_for_another_processor_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), LOGGER);
    let on = |capability: Option<&str>, jit: &str| {
        let mut command = house.command("cast", 0);
        command
            .env_remove("DS_CPU_CAPABILITY")
            .env("DS_FALLBACK", "deny");
        command.env("DS_JIT", jit);
        done(command.envs(capability.map(|value| ("DS_CPU_CAPABILITY", value))))
    };
    let target = |text: &str| {
        text.lines()
            .find(|l| l.contains("target: "))
            .unwrap()
            .to_owned()
    };
    let plain = on(Some("default"), "on");
    assert!(plain.contains("right: true"), "{plain}");
    assert_eq!(house.whole_entries(), 1);
    let other = on(None, "cache-only");
    if target(&plain) == target(&other) {
        // Past the test runner, which keeps what is printed.
        writeln!(
            std::io::stderr(),
            "skipped: this processor has nothing beyond the default"
        )
        .unwrap();
        return;
    }
    // As on a machine to which the cache was copied: what is there was made for less, and stays.
    assert!(
        other.contains("error: ") && other.contains("DS_JIT=cache-only"),
        "{other}"
    );
    let again = on(Some("default"), "cache-only");
    assert!(again.contains("right: true"), "{again}");
    let built = on(None, "on");
    assert!(built.contains("right: true"), "{built}");
    assert_eq!(house.whole_entries(), 2);
    drill::tell(
        "drills",
        "entry for other processor features",
        "not loaded, built anew beside it",
    );
}

#[test]
fn a_clock_that_was_set_back_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), COPIER);
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let built = cache.build(&spec(1), &toolchain).unwrap();
    // What a dead build left, and everything else, is from a time that is still to come.
    fs::create_dir(house.path("cache/tmp/dead")).unwrap();
    let far = SystemTime::now() + Duration::from_hours(24 * 365 * 50);
    age(&house.path("cache"), far);
    let found = cache.build(&spec(1), &house.toolchain()).unwrap();
    assert_eq!((found.level, &found.bytes), (Level::User, &built.bytes));
    let rules = PruneRules {
        older_than: Some(Duration::from_hours(1)),
        ..PruneRules::default()
    };
    let pruned = cache.prune(&rules).unwrap();
    assert_eq!((pruned.removed.len(), pruned.leftovers), (0, 1));
    assert_eq!(
        cache.build(&spec(2), &house.toolchain()).unwrap().level,
        Level::Built
    );
    assert_eq!(house.calls().len(), 2);
    drill::tell(
        "drills",
        "clock set back by 50 years",
        "hits stay hits, leftovers go",
    );
}

/// Does something at the end of a scope, however it is left.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_cache_that_is_deleted_under_its_users_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), COPIER);
    let dir = house.path("cache");
    let identity = house.toolchain().identity().clone();
    let stop = AtomicBool::new(false);
    let build = |round: u64| {
        house.cache().build_with(&spec(round), &identity, |folder| {
            let made = fs::write(folder.join("a.so"), content(round));
            made.map(|()| Vec::new()).map_err(|e| failed(&identity, &e))
        })
    };
    let (mut right, mut told) = (0, 0);
    thread::scope(|scope| {
        let deleter = scope.spawn(|| {
            let mut deleted = 0;
            while !stop.load(Ordering::Relaxed) {
                deleted += u64::from(fs::remove_dir_all(&dir).is_ok());
            }
            deleted
        });
        // Also when an assertion fails: else the deleter goes on for ever.
        let done = OnDrop(|| stop.store(true, Ordering::Relaxed));
        for round in 0..drill::times(300, 2_000) {
            match build(round) {
                Ok(built) => {
                    assert_eq!(built.bytes, content(round).as_bytes());
                    right += 1;
                }
                Err(error) => {
                    // Files go before their folder does.
                    let kinds = [ErrorKind::Io, ErrorKind::BuildFailed];
                    assert!(kinds.contains(&error.kind()), "{error}");
                    assert!(error.to_string().contains("cache"), "{error}");
                    told += 1;
                }
            }
        }
        drop(done);
        assert!(deleter.join().unwrap() > 0);
    });
    assert!(told > 0, "nothing was deleted at the wrong moment");
    // At the one moment at which it would look like a compiler that makes nothing.
    let error = house.cache().build_with(&spec(0), &identity, |_| {
        fs::remove_dir_all(&dir).unwrap();
        Ok(Vec::new())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
    // No failure of then is remembered.
    for round in 0..3 {
        assert_eq!(build(round).unwrap().bytes, content(round).as_bytes());
    }
    house.whole_entries();
    drill::tell(
        "drills",
        "cache deleted again and again while it is used",
        &format!("{right} builds right, {told} told, 0 wrong"),
    );
}

fn failed(identity: &ToolchainIdentity, error: &std::io::Error) -> CompileFailure {
    let words = format!("{}: the folder in the cache: {error}", identity.name);
    CompileFailure {
        error: ds_core::Error::new(ErrorKind::Io, "compile", words),
        log: Vec::new(),
        lasting: false,
    }
}

/// In a process whose `flock` says that there are no locks.
fn lockless(house: &House) {
    let error = File::open(house.path("compiler"))
        .unwrap()
        .try_lock()
        .unwrap_err();
    assert!(matches!(error, fs::TryLockError::Error(_)), "{error}");
    let toolchain = house.toolchain();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let built = house.cache().build(&spec(7), &toolchain).unwrap();
                assert_eq!(built.bytes, content(7).as_bytes());
                assert_eq!(fs::read(&built.path).unwrap(), built.bytes);
            });
        }
    });
}

#[test]
fn without_locks_all_is_right_and_built_more_than_once() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), COPIER);
    let (c, shim) = (house.path("shim.c"), house.path("shim.so"));
    let source = "#include <errno.h>\nint flock(int f, int o) { errno = ENOLCK; return -1; }";
    fs::write(&c, source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&shim, &c])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        writeln!(std::io::stderr(), "skipped: no C compiler (tried cc)").unwrap();
        return;
    }
    let mut children = [(); 3].map(|()| {
        let mut command = house.command("lockless", 0);
        command
            .env("LD_PRELOAD", &shim)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let calls = house.calls().len();
    assert!((1..=12).contains(&calls), "{calls}");
    assert_eq!(house.whole_entries(), 1);
    assert_eq!(house.list("cache/tmp"), Vec::<PathBuf>::new());
    drill::tell(
        "drills",
        "file system without locks, 3 processes of 4 threads",
        &format!("1 artefact, {calls} compiler runs"),
    );
}

/// A disk with ever less room, from some blocks to none.
fn full(house: &House) {
    let ballast = house.path("cache/ballast");
    let block = [0_u8; 4096];
    let (mut right, mut told) = (0, 0);
    // Before it is full, what every build needs.
    let toolchain = house.toolchain();
    house.cache().build(&spec(0), &toolchain).unwrap();
    for (round, blocks) in (0..12).rev().enumerate() {
        let round = round as u64 + 1;
        let mut file = File::create(&ballast).unwrap();
        while file.write_all(&block).is_ok() {}
        let most = file.metadata().unwrap().len() / 4096;
        file.set_len(4096 * most.saturating_sub(blocks)).unwrap();
        match house.cache().build(&spec(round), &toolchain) {
            Ok(built) => {
                assert_eq!(built.bytes, content(round).as_bytes());
                right += 1;
            }
            Err(error) => {
                let words = error.to_string();
                // The compiler's shell has words of its own for it.
                assert!(
                    words.contains("No space left") || words.contains("the disk has "),
                    "{words}"
                );
                assert_eq!(error.kind(), ErrorKind::Io);
                assert!(error.hint().unwrap().starts_with("free some space"));
                told += 1;
            }
        }
        // Of a plugin that could not be asked nothing bad is said, nor remembered.
        if let Err(reason) = hostile::status(&good_plugin(house), "good") {
            assert!(reason.starts_with("it could not be probed: "), "{reason}");
            assert!(reason.contains("No space left"), "{reason}");
        }
        assert_eq!(house.list("cache/tmp"), Vec::<PathBuf>::new());
        drop(file);
        fs::remove_file(&ballast).unwrap();
        let built = house.cache().build(&spec(round), &toolchain).unwrap();
        assert_eq!(built.bytes, content(round).as_bytes());
        assert_eq!(hostile::status(&good_plugin(house), "good"), Ok(1));
        house.whole_entries();
    }
    assert!(right > 0 && told > 0, "{right} {told}");
    println!("full: {right} builds right, {told} told, 0 remembered as refused");
}

#[test]
fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(folder.path(), COPIER);
    if !make_good_plugin(&house) {
        return;
    }
    fs::create_dir(house.path("cache")).unwrap();
    let child = house.command("full", 0);
    // In a mount table of its own: it ends with the process. Who is not root is so in there.
    let mount = "mount -t tmpfs -o size=256k,mode=0700 none \"$1\" && shift && exec \"$@\"";
    let around = |options: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-c", mount, "sh"]);
        command.arg(house.path("cache"));
        command
    };
    let options = [&["--mount"][..], &["--mount", "--map-root-user"]];
    let can = |options: &&&[&str]| {
        let done = around(options).arg("true").output();
        done.is_ok_and(|done| done.status.success())
    };
    let Some(options) = options.iter().find(can) else {
        writeln!(
            std::io::stderr(),
            "skipped: a small file system cannot be mounted here"
        )
        .unwrap();
        return;
    };
    let mut command = around(options);
    command.arg(child.get_program()).args(child.get_args());
    command.envs(
        child
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let text = done(&mut command);
    let (_, found) = text.split_once("full: ").unwrap();
    drill::tell("drills", "full disk", found.lines().next().unwrap());
}
