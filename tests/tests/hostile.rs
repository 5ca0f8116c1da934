//! Plugins that crash, hang, lie and meddle: each has its verdict in words of its own, and this
//! process lives on and is served by everybody else. `probe.rs` has what becomes of answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    time::Duration,
};

use ds_core::{
    DType, ErrorKind, Host, Stream,
    discovery::{Candidate, Search},
    op,
    probe::ProbeRecord,
};
use ds_ops::cast::cast;
use ds_tests::{
    cases::tensor,
    compare::values,
    drill, example,
    hostile::{self, manifest, plugin, source, status},
};

/// A name, the C source, and how it stands: its devices, or why it has none.
type Case = (&'static str, String, Result<u32, String>);

fn host(folder: &Path) -> Host {
    example::host(folder).with_helper(env!("CARGO_BIN_EXE_probe_helper").into())
}

fn tell(name: &str, found: &str) {
    drill::tell("hostile", &name.replace('_', " "), found);
}

/// The processor computes in this process, whatever was met in it.
fn the_processor_is_served() {
    let stream = Stream::new(ds_tests::cpu().unwrap()).unwrap();
    let x = tensor(&stream, DType::F32, &[3], &[1.0, 2.0, 3.0]).unwrap();
    let y = cast(&stream, &x, DType::BF16).unwrap();
    assert_eq!(values(&stream, &y).unwrap(), [1.0, 2.0, 3.0]);
}

/// Has `host` say how each case stands, and holds this process against it.
fn check(host: &Host, cases: &[Case]) {
    for (name, _, expected) in cases {
        assert_eq!(status(host, name), *expected, "{name}");
        match expected {
            Ok(_) => {}
            Err(words) => {
                tell(name, words);
                // Naming it does not serve it either.
                let error = host
                    .accelerator(name)
                    .and_then(|a| a.device(0))
                    .unwrap_err();
                assert!(error.to_string().contains(words.as_str()), "{error}");
            }
        }
    }
    assert_eq!(status(host, "good"), Ok(1));
    assert_eq!(host.accelerator("good").unwrap().device_count().unwrap(), 1);
    assert_eq!(status(host, "cpu"), Ok(1));
    the_processor_is_served();
}

/// Builds the cases and a good plugin; `false` where there is no C compiler.
fn made(folder: &Path, cases: &[Case]) -> bool {
    let good = ("good", source("", "", "", ""));
    let all = cases
        .iter()
        .map(|(name, source, _)| (*name, source.clone()));
    all.chain([good])
        .all(|(name, source)| plugin(folder, name, &source).unwrap())
}

/// The candidate in the folder of that name.
fn candidate<'a>(host: &'a Host, name: &str) -> &'a Candidate {
    let candidates = &host.discovery().candidates;
    let named = |c: &&Candidate| c.path.as_ref().is_some_and(|path| path.ends_with(name));
    candidates.iter().find(named).unwrap()
}

fn record(host: &Host, name: &str) -> ProbeRecord {
    host.probe(candidate(host, name)).unwrap()
}

const IN_ENTRY: &str = "; its last words: in opening the library or `ds_plugin_v1`";

#[test]
fn who_ends_the_process_ends_the_childs() {
    let folder = tempfile::tempdir().unwrap();
    let constructor = "__attribute__((constructor)) static void k(void) { abort(); }";
    let null = "*(volatile int *)NULL = 1";
    let words = "fputs(\"chip: no firmware\\n\", stderr); abort()";
    let ended = |how: &str, place: &str| Err(format!("it {how}{place}"));
    let cases: &[Case] = &[
        (
            "crash_in_a_constructor",
            source(constructor, "", "", ""),
            ended("crashed with signal 6", IN_ENTRY),
        ),
        (
            "crash_in_the_entry",
            source("", null, "", ""),
            ended("crashed with signal 11", IN_ENTRY),
        ),
        (
            "abort_in_the_entry",
            source("", "abort()", "", ""),
            ended("crashed with signal 6", IN_ENTRY),
        ),
        (
            "exit_in_the_entry",
            source("", "exit(3)", "", ""),
            ended("ended the process with code 3", IN_ENTRY),
        ),
        (
            "exit_as_if_all_were_well",
            source("", "_exit(0)", "", ""),
            ended("ended the process with code 0", IN_ENTRY),
        ),
        (
            "crash_in_count",
            source("", "", "abort()", ""),
            ended("crashed with signal 6", "; its last words: in `count`"),
        ),
        (
            "crash_in_describe",
            source("", "", "", null),
            ended(
                "crashed with signal 11",
                "; its last words: in `describe` of device 0",
            ),
        ),
        (
            "crash_with_words_of_its_own",
            source("", words, "", ""),
            ended(
                "crashed with signal 6",
                "; its last words: chip: no firmware",
            ),
        ),
    ];
    if !made(folder.path(), cases) {
        return;
    }
    check(&host(folder.path()), cases);
}

#[test]
fn a_panic_in_an_entry_without_a_guard_ends_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let name = "panic_in_the_entry";
    if !made(folder.path(), &[]) {
        return;
    }
    let plugin = folder.path().join(name);
    fs::create_dir(&plugin).unwrap();
    fs::write(plugin.join("plugin.json"), manifest(name)).unwrap();
    let text = "#[unsafe(no_mangle)] pub extern \"C\" fn ds_plugin_v1() -> u32 { panic!(\"no\") }";
    let file = folder.path().join(".panic_rs");
    fs::write(&file, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "no",
            "--crate-type",
            "cdylib",
            "-C",
            "panic=unwind",
            "-o",
        ])
        .args([&plugin.join("lib.so"), &file])
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let words =
        "it crashed with signal 6; its last words: thread caused non-unwinding panic. aborting.";
    check(
        &host(folder.path()),
        &[(name, String::new(), Err(words.to_owned()))],
    );
}

#[test]
fn who_hangs_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let name = "endless_loop_in_the_entry";
    let words = format!("it did not answer within 3 s{IN_ENTRY}");
    let cases: &[Case] = &[(
        name,
        source("", "for (;;) { pause(); }", "", ""),
        Err(words),
    )];
    if !made(folder.path(), cases) {
        return;
    }
    check(
        &host(folder.path()).with_probe_timeout(Duration::from_secs(3)),
        cases,
    );
}

#[test]
fn what_does_not_fit_is_refused_with_both_values() {
    let folder = tempfile::tempdir().unwrap();
    let whole = |name: &str, words: &str| Err(format!("load the plugin of '{name}': {words}"));
    let entry = |entry: &str| source("", entry, "", "");
    let size = |of: &str| {
        let description = size_of::<ds_abi::DsPlugin>();
        format!("the plugin filled {of} bytes of its description, version 1.0 has {description}")
    };
    let huge = format!(
        "the plugin filled 4294967295 bytes of its description, which has {}",
        size_of::<ds_abi::DsPlugin>()
    );
    let table = |words: &str| format!("the device table is unusable: {words}");
    let (plugin_bytes, info_bytes) = (
        size_of::<ds_abi::DsPlugin>(),
        size_of::<ds_abi::DsDeviceInfo>(),
    );
    let past =
        |bytes: usize| format!("it wrote past the end of the {bytes} bytes that it was given");
    let memory = "static DsMemoryTable m = { .struct_size = sizeof m };";
    let cases: &[Case] = &[
        ("size_of_0", entry("p->struct_size = 0"), whole("size_of_0", &size("0"))),
        ("size_too_small", entry("p->struct_size -= 8"), whole("size_too_small", &size(&(plugin_bytes - 8).to_string()))),
        ("size_huge", entry("p->struct_size = UINT32_MAX"), whole("size_huge", &huge)),
        ("table_of_size_0", entry("t.struct_size = 0"), whole("table_of_size_0", &table("its size is 0 bytes"))),
        ("table_too_small", entry("t.struct_size = 24"), whole("table_too_small", &table("it lacks open, close"))),
        ("table_huge", entry("t.struct_size = UINT32_MAX"), whole("table_huge", &table("its size is 4294967295 bytes"))),
        ("empty_slots", entry("t.count = NULL; t.open = NULL"), whole("empty_slots", &table("it lacks count, open"))),
        ("no_device_table", entry("p->device = NULL"), whole("no_device_table", "the plugin has no device table")),
        ("empty_memory_table", source(memory, "p->memory = &m", "", ""), Ok(1)),
        ("abort_on_panic", entry("p->panic_strategy = DS_PANIC_ABORT"), whole("abort_on_panic", "the plugin was built with panic = \"abort\", which would end this process; build it with panic = \"unwind\"")),
        ("refusal_without_words", entry("return DS_INCOMPATIBLE_ABI"), Err("refusal_without_words ds_plugin_v1: ds_plugin_v1 failed with status 12 and no message".to_owned())),
        ("write_past_the_description", entry("memset(p + 1, 0, 16)"), Err(format!("write_past_the_description ds_plugin_v1: {}", past(plugin_bytes)))),
        ("write_past_the_device_info", source("", "", "", "memset(d + 1, 0, 16)"), Err(format!("write_past_the_device_info describe: {}", past(info_bytes)))),
    ];
    if !made(folder.path(), cases) {
        return;
    }
    let host = host(folder.path());
    check(&host, cases);
    let memory = host.accelerator("empty_memory_table").unwrap();
    let dropped = &memory.plugin().agreement().dropped;
    assert_eq!(
        *dropped,
        [("memory", "it lacks allocate, free, info, copy".to_owned())]
    );
    tell(
        "empty_memory_table",
        "served without it: it lacks allocate, free, info, copy",
    );
}

#[test]
fn who_changes_the_process_is_told_what_and_not_opened_here() {
    let folder = tempfile::tempdir().unwrap();
    let entry = |entry: &str| source("", entry, "", "");
    let changed = |what: &str| Err(format!("opening it changed {what}"));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status
        .lines()
        .find_map(|l| l.strip_prefix("Umask:\t"))
        .unwrap();
    let idle = "static void *idle(void *x) { for (;;) { pause(); } return x; }
                static void spawn(void) { pthread_t k; pthread_create(&k, NULL, idle, NULL); }";
    let variable =
        "__attribute__((constructor)) static void k(void) { setenv(\"MEDDLE\", \"1\", 1); }";
    let mut cases: Vec<Case> = vec![
        ("variable_set", source(variable, "", "", ""), changed("the variable MEDDLE")),
        ("variable_removed", entry("unsetenv(\"PATH\")"), changed("the variable PATH")),
        ("signal_handler", entry("signal(SIGSEGV, exit)"), changed("the handler of signal 11")),
        ("signal_ignored", entry("signal(SIGTERM, SIG_IGN)"), changed("the handler of signal 15")),
        ("signal_blocked", entry("sigset_t s; sigfillset(&s); sigprocmask(SIG_SETMASK, &s, NULL)"), changed("which signals are blocked")),
        ("locale", entry("if (!setlocale(LC_ALL, \"C.UTF-8\")) exit(3)"), changed("the locale from C to C.UTF-8")),
        ("mask", entry("umask(0123)"), changed(&format!("the mask of new files from {mask} to 0123"))),
        ("working_folder", entry("if (chdir(\"/\")) exit(3)"), changed("the working folder")),
        ("rounding", entry("fesetround(FE_UPWARD)"), changed("how floating-point numbers are rounded")),
        ("several_at_once", entry("setenv(\"A\", \"1\", 1); signal(SIGUSR2, SIG_IGN)"), changed("the variable A, the handler of signal 12")),
        ("thread_at_the_entry", source(idle, "spawn()", "", ""), Err("opening it left a thread running".to_owned())),
        ("threads_at_count", source(idle, "", "spawn(); spawn()", ""), Err("counting its devices left 2 threads running, and its manifest says that it creates none".to_owned())),
    ];
    if cfg!(target_arch = "x86_64") {
        let flush = "__builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040)";
        let rounded = changed("how floating-point numbers are rounded");
        cases.push(("tiny_numbers_flushed", entry(flush), rounded));
        let trap = Err(
            "it crashed with signal 8; its last words: in looking at what it changed".to_owned(),
        );
        cases.push((
            "floating_point_traps",
            entry("feenableexcept(FE_DIVBYZERO)"),
            trap,
        ));
    }
    if !made(folder.path(), &cases) {
        return;
    }
    // What it says of itself makes the difference.
    plugin(folder.path(), "says_so", &source(idle, "", "spawn()", "")).unwrap();
    let file = folder.path().join("says_so/plugin.json");
    let text = fs::read_to_string(&file).unwrap();
    let says_so = text.replace(
        "\"behaviour\": {",
        "\"behaviour\": {\"creates_threads\": true, ",
    );
    fs::write(&file, says_so).unwrap();
    let driver = source("", "", "setlocale(LC_ALL, \"C.UTF-8\")", "");
    plugin(folder.path(), "driver", &driver).unwrap();
    let host = host(folder.path());
    check(&host, &cases);
    assert_eq!(hostile::status(&host, "says_so"), Ok(1));
    tell("thread at count, declared", "served");
    // A driver is what it is: it is told, and the devices are served.
    let found = record(&host, "driver");
    assert_eq!(found.devices.unwrap().len(), 1);
    assert_eq!(
        found.remarks,
        ["counting its devices changed the locale from C to C.UTF-8"]
    );
    tell("locale at count", "served, with a remark");
    // None of it happened here.
    assert!(std::env::var_os("MEDDLE").is_none() && std::env::var_os("PATH").is_some());
}

#[test]
fn what_a_plugin_prints_spoils_nothing_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let print = source(
        "",
        "printf(\"{\\\"devices\\\":{\\\"Ok\\\":[]}}\\n\"); fflush(stdout)",
        "",
        "",
    );
    let flood = "for (int i = 0; i < 200000; i++) puts(\"all is well\")";
    if !(made(folder.path(), &[])
        && plugin(folder.path(), "prints", &print).unwrap()
        && plugin(folder.path(), "floods", &source("", flood, "", "")).unwrap())
    {
        return;
    }
    let host = host(folder.path());
    for (name, line) in [
        ("prints", "{\"devices\":{\"Ok\":[]}}"),
        ("floods", "all is well"),
    ] {
        let found = record(&host, name);
        assert_eq!(found.devices.unwrap().len(), 1);
        assert_eq!(found.remarks, [format!("it prints: {line}")]);
        tell(name, "served, with a remark: it prints ...");
    }
    check(&host, &[]);
}

/// What search and static checks say of the folder `name`: verdict and reason.
fn verdict(folder: &Path, name: &str) -> (&'static str, String) {
    let host = host(folder);
    let verdict = &candidate(&host, name).verdict;
    let reason = verdict.refusal().map_or("", |refusal| &refusal.reason);
    (verdict.name(), reason.to_owned())
}

#[test]
fn what_is_no_plugin_is_not_opened_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let crash = "__attribute__((constructor)) static void k(void) { abort(); }";
    let bad = source(crash, "", "", "");
    let export = "__attribute__((visibility(\"default\"))) int helper(void) { return 1; }";
    let names = [
        "manifest_garbage",
        "manifest_cut",
        "library_garbage",
        "library_cut",
        "library_of_another_machine",
        "world_writable_folder",
    ];
    if !made(folder.path(), &[]) {
        return;
    }
    plugin(folder.path(), names[0], &bad).unwrap();
    for name in &names[1..] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("plugin.json"), manifest(name)).unwrap();
        fs::copy(path(names[0]).join("lib.so"), path(name).join("lib.so")).unwrap();
    }
    plugin(folder.path(), "further_export", &(bad.clone() + export)).unwrap();
    fs::write(path("manifest_garbage/plugin.json"), b"\x7fELF\0\xff").unwrap();
    let text = manifest("manifest_cut");
    fs::write(path("manifest_cut/plugin.json"), &text[..text.len() / 2]).unwrap();
    fs::write(path("library_garbage/lib.so"), [0xa5; 5000]).unwrap();
    let library = fs::read(path("library_cut/lib.so")).unwrap();
    fs::write(path("library_cut/lib.so"), &library[..library.len() / 2]).unwrap();
    // `e_machine` of ELF's header: RISC-V.
    let mut other = library.clone();
    other[18] = 0xf3;
    fs::write(path("library_of_another_machine/lib.so"), other).unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(path("world_writable_folder"), open).unwrap();
    // Two that have one id: which is used must not hang on chance.
    plugin(folder.path(), "one_id", &source("", "", "", "")).unwrap();
    plugin(folder.path(), "one_id_again", &bad).unwrap();
    let twice = manifest("one_id_again").replace("org.example.one-id-again", "org.example.one-id");
    fs::write(path("one_id_again/plugin.json"), twice).unwrap();

    let here = folder.path().display();
    let owner = fs::metadata(folder.path()).unwrap().uid();
    for (name, expected, words) in [
        ("manifest_garbage", "bad-manifest", "byte 5 is not UTF-8".to_owned()),
        ("manifest_cut", "bad-manifest", "library: EOF while parsing a string at line 4 column 28".to_owned()),
        ("library_garbage", "bad-library", "lib.so: it is no ELF file".to_owned()),
        ("library_cut", "bad-library", "lib.so: the file is damaged or cut short: no dynamic segment".to_owned()),
        ("library_of_another_machine", "bad-library", format!("lib.so: it is for ELF machine 243, and this machine is {}", std::env::consts::ARCH)),
        ("further_export", "bad-library", "lib.so: it exports `helper` beside `ds_plugin_v1`, which could replace functions of other libraries in the process".to_owned()),
        ("world_writable_folder", "untrusted", format!("{here}/world_writable_folder can be written to by its group and everybody (owner {owner}, mode 0777)")),
        ("one_id_again", "shadowed", format!("{here}/one_id has the same id, org.example.one-id, and comes first")),
    ] {
        let found = verdict(folder.path(), name);
        assert_eq!(found, (expected, words), "{name}");
        // The folder has another name each time.
        let reason = found.1.replace(&format!("{here}"), "...");
        tell(name, &format!("{expected}: {reason}"));
    }
    assert_eq!(status(&host(folder.path()), "one_id"), Ok(1));
    check(&host(folder.path()), &[]);
}

#[test]
fn a_library_that_lacks_another_names_it() {
    let folder = tempfile::tempdir().unwrap();
    if !made(folder.path(), &[]) {
        return;
    }
    // Made after it was linked with one that is there.
    let lost = folder.path().join(".liblost.so");
    let build = |arguments: &[&str]| {
        let done = Command::new("cc").args(arguments).output().unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    let lost = lost.to_str().unwrap();
    build(&[
        "-shared",
        "-Wl,-soname,libds_lost.so.1",
        "-o",
        lost,
        "-x",
        "c",
        "/dev/null",
    ]);
    let name = "missing_dependency";
    plugin(folder.path(), name, &source("", "", "", "")).unwrap();
    let c = folder.path().join(".plugin.c");
    fs::write(
        &c,
        format!(
            "#include \"ds_plugin.h\"\n#define NULL 0\n{}",
            source("", "", "", "")
        ),
    )
    .unwrap();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../core/abi/include");
    let library = folder.path().join(name).join("lib.so");
    build(&[
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        include,
        "-Wl,--no-as-needed",
        "-o",
        library.to_str().unwrap(),
        c.to_str().unwrap(),
        lost,
    ]);
    let words =
        "load a plugin: libds_lost.so.1: cannot open shared object file: No such file or directory";
    check(
        &host(folder.path()),
        &[(name, String::new(), Err(words.to_owned()))],
    );
}

#[test]
fn a_library_that_is_swapped_after_its_check_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let name = "library_swapped";
    if !made(folder.path(), &[(name, source("", "", "", ""), Ok(1))]) {
        return;
    }
    let [careful, trusting] = [host(folder.path()), example::host(folder.path())];
    let crash = "__attribute__((constructor)) static void k(void) { abort(); }";
    let other = folder.path().join(".other");
    plugin(&other, "x", &source(crash, "", "", "")).unwrap();
    let library = folder.path().join(name).join("lib.so");
    fs::rename(other.join("x/lib.so"), &library).unwrap();
    let words = format!(
        "load a plugin: {} was replaced between the check and the load",
        library.display()
    );
    assert_eq!(status(&careful, name), Err(words.clone()));
    tell(
        name,
        "load a plugin: ... was replaced between the check and the load",
    );
    // Neither after the child's answer nor without a child does any of it run here.
    for host in [&careful, &trusting] {
        let error = host.accelerator(name).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::Untrusted, words.clone())
        );
    }
    check(&careful, &[]);
}

#[test]
fn a_constraint_that_lies_is_found_by_verification() {
    let folder = tempfile::tempdir().unwrap();
    example::build_mychip(folder.path()).unwrap();
    let file = folder.path().join("mychip-rust/plugin.json");
    let mut lying: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // Its code never looks at a stride.
    let strided = serde_json::json!({ "a": "strided", "b": "strided" });
    lying["kernels"][0]["constraints"]["layout"] = strided;
    fs::write(&file, lying.to_string()).unwrap();
    let host = Host::with_search(Search {
        programmatic: vec![folder.path().to_owned()],
        ..Search::empty()
    });
    let device = host.accelerator("mychip").unwrap().device(0).unwrap();
    let stream = Stream::new(device).unwrap();
    let matmul = op::find("matmul").unwrap();
    let cases = matmul.cases(op::Size::Small);
    let found = cases
        .iter()
        .map(|case| op::verify(&stream, case, |_, _| {}).unwrap().wrong);
    let wrong: Vec<String> = found.flatten().map(|wrong| wrong.to_string()).collect();
    // Of the calls that it takes, those that are packed are right.
    assert!((1..cases.len()).contains(&wrong.len()), "{wrong:?}");
    let words = &wrong[0];
    assert!(
        words.starts_with("c[0, 0] is ") && words.ends_with("elements wrong"),
        "{words}"
    );
    tell("constraint that lies", words);
    the_processor_is_served();
}
