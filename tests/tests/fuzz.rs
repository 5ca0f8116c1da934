//! Everything that reads what others wrote, fed with thousands of inputs that are nearly right: it
//! neither panics nor hangs, takes memory in proportion, refuses in words that can be shown, and
//! what it accepts is what its printer prints.
//!
//! The seeds are fixed, so a failure comes again; it prints the input. `cargo xtask drills --long`
//! goes on for longer with the same seeds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, Permissions},
    io::Cursor,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use ds_core::{
    DeviceInfo, Error, ErrorKind,
    build::{
        BuildEnvironment, BuildKey, BuildRequest, BuildSpec, Cache, EntryState, ProgramToolchain,
        PruneRules, Record, Settings, ToolchainIdentity,
    },
    elf,
    manifest::Manifest,
    probe::{ProbeFailure, ProbeRecord},
    selection::Selection,
};
use ds_io::AioConfig;
use ds_schema::{Attr, DType, KernelFile, Schema, SchemaFile, TensorSpec};
use ds_tests::{
    cpu, drill, example,
    mutate::{Dice, Mutator},
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The system's allocator, counting for each thread: tests run beside each other.
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn took(bytes: usize) {
        let live = LIVE_BYTES.get().wrapping_add(bytes);
        LIVE_BYTES.set(live);
        // What another thread took and this one gave makes the count wrap; no peak then.
        if live.cast_signed() > 0 {
            PEAK_BYTES.set(PEAK_BYTES.get().max(live));
        }
    }

    fn gave(bytes: usize) {
        LIVE_BYTES.set(LIVE_BYTES.get().wrapping_sub(bytes));
    }

    /// The most that this thread had at a time during `work`, beyond what it had before.
    fn peak_of<R>(work: impl FnOnce() -> R) -> (R, usize) {
        LIVE_BYTES.set(0);
        PEAK_BYTES.set(0);
        (work(), PEAK_BYTES.get())
    }
}

// SAFETY: every call goes on to the system's allocator as it came; counting touches none of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::gave(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::took(size);
        Self::gave(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// A tree of JSON takes about so many times the bytes of its text.
const MOST_TIMES: usize = 100;
/// What a reader may take whatever its input: tables of a fixed size, messages.
const MOST_BYTES: usize = 1 << 20;
/// No input of 64 KiB is worth more of a processor's time.
const MOST_TIME: Duration = Duration::from_secs(5);

/// What this thread has had of a processor: what else runs there is of no account.
fn time_spent() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(spent).unwrap()
}

/// Holds `property` against so many inputs that `make` gives; it says whether its input was
/// accepted. Some have to be, and some not: else the inputs are none.
fn fuzz(
    target: &str,
    times: u64,
    mut make: impl FnMut() -> Vec<u8>,
    mut property: impl FnMut(&[u8]) -> bool,
) {
    let (mut accepted, mut slowest, mut most_bytes) = (0, Duration::ZERO, 0);
    for index in 0..times {
        let input = make();
        let start = time_spent();
        let (outcome, peak) =
            Counting::peak_of(|| catch_unwind(AssertUnwindSafe(|| property(&input))));
        let took = time_spent().saturating_sub(start);
        let Ok(yes) = outcome else {
            panic!("{target}: input {index}: {}", shown(&input));
        };
        assert!(
            peak <= MOST_TIMES * input.len() + MOST_BYTES,
            "{target}: input {index} of {} bytes took {peak}: {}",
            input.len(),
            shown(&input)
        );
        assert!(
            took < MOST_TIME,
            "{target}: input {index}: {took:?}: {}",
            shown(&input)
        );
        accepted += u64::from(yes);
        slowest = slowest.max(took);
        most_bytes = most_bytes.max(peak);
    }
    assert!(
        accepted > times / 50,
        "{target}: {accepted} of {times} were accepted"
    );
    assert!(accepted < times, "{target}: all were accepted");
    let found = format!(
        "{times} inputs, {accepted} accepted, 0 panics; at most {} KiB and {} ms each",
        most_bytes >> 10,
        slowest.as_millis()
    );
    drill::tell("fuzz", target, &found);
}

fn shown(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input).escape_debug().to_string();
    let end = text
        .char_indices()
        .nth(4000)
        .map_or(text.len(), |(at, _)| at);
    text[..end].to_owned()
}

/// A text for one line of a terminal.
fn is_one_line(text: &str) {
    assert!(!text.trim().is_empty(), "an empty text");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

fn is_told(error: &Error) {
    is_one_line(&error.to_string());
    if let Some(hint) = error.hint() {
        // One that points into a text has two lines.
        is_one_line(&hint.replacen('\n', " ", 1));
    }
}

/// That `path`, in a folder, names something in that folder.
fn stays_inside(path: &Path) {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
    assert!(path.components().all(inside), "{}", path.display());
    assert!(!path.as_os_str().is_empty());
}

/// That `value` is read from what is printed of it.
fn is_read_back<T: PartialEq + std::fmt::Debug + Serialize + DeserializeOwned>(value: &T) {
    let text = serde_json::to_vec(value).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&text).unwrap(), *value);
}

#[test]
fn manifests() {
    let mut mutator = Mutator::new(1, example::files_named("plugins", "plugin.json").unwrap());
    let make = || match mutator.dice.below(4) {
        0 => mutator.bytes(),
        _ => mutator.json(),
    };
    fuzz("manifest", drill::times(4_000, 400_000), make, |input| {
        let manifest = match Manifest::parse(input) {
            Ok(manifest) => manifest,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Incompatible);
                is_told(&error);
                return false;
            }
        };
        let libraries = manifest.library.iter().flat_map(BTreeMap::values).flatten();
        let files = manifest.files.iter().map(|file| &file.path);
        for path in libraries
            .map(|library| &library.path)
            .chain(files)
            .chain(&manifest.schemas)
        {
            stays_inside(path.as_path());
        }
        let text = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        // These stay unread until their ops are asked for, and may be nothing that can be read.
        let kernels = Vec::new();
        let tree = serde_json::to_value(&Manifest {
            kernels,
            ..manifest
        });
        has_no_control_characters(&tree.unwrap());
        true
    });
}

fn has_no_control_characters(value: &Value) {
    let plain = |text: &str| assert!(!text.chars().any(char::is_control), "{text:?}");
    match value {
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().for_each(has_no_control_characters),
        Value::Object(map) => {
            map.keys().for_each(|key| plain(key));
            map.values().for_each(has_no_control_characters);
        }
        _ => {}
    }
}

#[test]
fn schemas() {
    let mut texts = example::files_ending("ops", "ops").unwrap();
    texts.extend(example::files_ending("plugins/examples", "ops").unwrap());
    let mut mutator = Mutator::new(2, texts);
    fuzz(
        "schema",
        drill::times(4_000, 400_000),
        || mutator.bytes(),
        |input| {
            let file = match SchemaFile::parse(input) {
                Ok(file) => file,
                Err(error) => {
                    is_one_line(&error.to_string());
                    let told = error.render("x.ops");
                    assert!(told.contains('^'), "{told}");
                    is_one_line(&told.replace('\n', " "));
                    return false;
                }
            };
            assert_eq!(SchemaFile::parse(file.to_string()).unwrap(), file);
            for op in file.ops() {
                let again = SchemaFile::parse(op.canonical()).unwrap();
                assert_eq!(again.ops()[0].hash(), op.hash());
            }
            true
        },
    );
}

#[test]
fn selections() {
    const TEXTS: [&str; 9] = [
        "cuda",
        "cuda:0,2-3",
        "rocm>cuda>cpu",
        "cuda:{LOCAL_RANK}",
        "*:0 > cpu",
        "a:*;b_2",
        " a-b : 1 - 2 , 4 ",
        "a:{ODD}>b",
        "a:4294967295",
    ];
    let lookup = |name: &str| match name {
        "LOCAL_RANK" => Some(OsString::from("3")),
        "ODD" => Some(OsStr::from_bytes(b"\x1b\xff").to_owned()),
        _ => None,
    };
    let mut mutator = Mutator::new(3, TEXTS);
    let times = drill::times(20_000, 2_000_000);
    fuzz(
        "selection",
        times,
        || mutator.bytes(),
        |input| match Selection::from_env(Some(OsStr::from_bytes(input)), lookup) {
            Ok(selection) => {
                let text = selection.to_string();
                let again = Selection::from_env(Some(text.as_ref()), lookup);
                assert_eq!(again.unwrap(), selection);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                is_told(&error);
                false
            }
        },
    );
}

#[test]
fn aio_blocks() {
    const TEXTS: [&str; 3] = [
        r#"{"block_size": 1048576, "queue_depth": 8, "intra_op_parallelism": 1,
            "single_submit": false, "overlap_events": true, "use_gds": false}"#,
        r#"{"single_submit": "false", "overlap_events": "true", "num_threads": 8}"#,
        r#"{"thread_count": 4294967295, "block_size": 18446744073709551615}"#,
    ];
    let mut mutator = Mutator::new(9, TEXTS);
    let times = drill::times(20_000, 2_000_000);
    fuzz(
        "aio block",
        times,
        || mutator.bytes(),
        |input| match AioConfig::parse(input) {
            Ok(config) => {
                is_read_back(&config);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                is_told(&error);
                false
            }
        },
    );
}

#[test]
fn probe_records() {
    let device: DeviceInfo = cpu().unwrap().info().clone();
    let records = [
        Ok(vec![device.clone(), device]),
        Ok(Vec::new()),
        Err(ProbeFailure {
            quarantined: true,
            kind: ErrorKind::PluginBug,
            reason: "it crashed with signal 11; its last words: in `count`".to_owned(),
            hint: Some("report it".to_owned()),
        }),
    ];
    let texts = records.map(|devices| {
        let remarks = vec!["it prints: hello".to_owned()];
        serde_json::to_vec(&ProbeRecord { devices, remarks }).unwrap()
    });
    let mut mutator = Mutator::new(4, texts);
    let make = || match mutator.dice.below(4) {
        0 => mutator.bytes(),
        _ => mutator.json(),
    };
    fuzz(
        "probe record",
        drill::times(6_000, 600_000),
        make,
        |input| {
            let read = serde_json::from_slice::<ProbeRecord>(input);
            read.inspect(is_read_back).is_ok()
        },
    );
}

#[test]
fn kernel_descriptions() {
    let schemas: Vec<Schema> = ds_ops::schema_texts()
        .flat_map(|(_, text)| SchemaFile::parse(text).unwrap().ops().to_vec())
        .collect();
    let rms_norm = schemas.iter().find(|op| op.name() == "rms_norm").unwrap();
    let tensor = |shape: &[i64]| TensorSpec::contiguous(DType::F32, shape.to_vec());
    let specs = [tensor(&[2, 8]), tensor(&[8]), tensor(&[2, 8]), tensor(&[2])];
    let views = specs.each_ref().map(|spec| [spec.view()]);
    let call = views.each_ref().map(|view| &view[..]);
    let binding = rms_norm.bind(&call).unwrap();

    let descriptions = ds_kernels::descriptions().into_iter();
    // The catalogue's kernels ask for no value.
    let values = r#"{"format": 1, "kernels": [{"name": "x", "op": "rms_norm", "accelerator": "cpu",
        "constraints": {"attributes": {"eps": [0.1, 2, true]}, "dims": {"D": {"min": 1}}},
        "score": [{"elements": [0, null], "score": 100}], "flags": ["deterministic"]}]}"#;
    let mut mutator = Mutator::new(5, descriptions.chain([values]));
    let make = || match mutator.dice.below(4) {
        0 => mutator.bytes(),
        _ => mutator.json(),
    };
    fuzz("kernel.json", drill::times(4_000, 400_000), make, |input| {
        let file = KernelFile::parse(input).inspect_err(|error| is_one_line(&error.to_string()));
        let Ok(file) = file else { return false };
        is_read_back(&file);
        // Where it is told of one kernel, the others are none the worse for it.
        for kernel in &file.kernels {
            let Some(schema) = schemas.iter().find(|op| op.name() == kernel.op) else {
                continue;
            };
            if let Err(error) = kernel.check(schema) {
                is_one_line(&error.to_string());
                continue;
            }
            for source in &kernel.sources {
                stays_inside(source.as_ref());
            }
            for target in ["x86-64", "x86-64+avx2+avx512f"] {
                if let Err(refusal) = kernel.admit(&binding, &[Attr::F64(1e-6)], target) {
                    is_one_line(&refusal.to_string());
                }
            }
        }
        let checked = file.check(&schemas);
        checked
            .inspect_err(|error| is_one_line(&error.to_string()))
            .is_ok()
    });
}

#[test]
fn a_number_in_a_description_is_the_number_of_the_call() {
    let mut dice = Dice::new(9);
    for _ in 0..drill::times(20_000, 2_000_000) {
        let number = f64::from_bits(dice.number());
        if number.is_finite() {
            is_read_back(&Attr::F64(number));
        }
    }
}

/// A small library by hand: its names, where in them each symbol's name starts, and the name of each
/// library that it needs.
fn library(names: &[u8], symbols: &[u32], needed: &[u64]) -> Vec<u8> {
    const MACHINE: u16 = if cfg!(target_arch = "aarch64") {
        183
    } else {
        62
    };
    let dynamic_at = 64 + 2 * 56;
    let dynamic_bytes = 16 * (5 + needed.len() as u64);
    let hash_at = dynamic_at + dynamic_bytes;
    let symbols_at = hash_at + 8;
    let names_at = symbols_at + 24 * symbols.len() as u64;
    let names_bytes = names.len() as u64;
    let whole = names_at + names_bytes;

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, numbers: &[u16]| {
        file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    let words = |file: &mut Vec<u8>, numbers: &[u32]| {
        file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    let longs = |file: &mut Vec<u8>, numbers: &[u64]| {
        file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    // A shared library: version, entry, program headers, section headers, flags, sizes.
    halves(&mut file, &[3, MACHINE]);
    words(&mut file, &[1]);
    longs(&mut file, &[0, 64, 0]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 56, 2, 0, 0, 0]);
    // All of it is loaded at address 0.
    words(&mut file, &[1, 5]);
    longs(&mut file, &[0, 0, 0, whole, whole, 4096]);
    words(&mut file, &[2, 6]);
    let place = [
        dynamic_at,
        dynamic_at,
        dynamic_at,
        dynamic_bytes,
        dynamic_bytes,
        8,
    ];
    longs(&mut file, &place);
    // DT_STRTAB, DT_STRSZ, DT_SYMTAB, DT_HASH, DT_NEEDED, DT_NULL.
    let tables = [5, names_at, 10, names_bytes, 6, symbols_at, 4, hash_at];
    longs(&mut file, &tables);
    for name in needed {
        longs(&mut file, &[1, *name]);
    }
    longs(&mut file, &[0, 0]);
    let count = u32::try_from(symbols.len()).unwrap();
    words(&mut file, &[1, count]);
    for name in symbols {
        words(&mut file, &[*name]);
        // Global, a function, in the first section.
        file.extend([0x12, 0, 1, 0]);
        longs(&mut file, &[4096, 1]);
    }
    file.extend_from_slice(names);
    file
}

#[test]
fn libraries() {
    let names = b"\0ds_plugin_v1\0libm.so.6\0_init\0";
    let mut corpus = vec![library(names, &[1, 24], &[14])];
    elf::check_plugin_in(Cursor::new(&corpus[0])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    if example::build_c("null-c", "libds_example_null.so", folder.path()).unwrap() {
        let file = folder.path().join("null-c/libds_example_null.so");
        corpus.push(fs::read(file).unwrap());
    }
    let mut mutator = Mutator::new(6, corpus);
    let times = drill::times(8_000, 400_000);
    fuzz(
        "ELF",
        times,
        || mutator.bytes(),
        |input| match elf::check_plugin_in(Cursor::new(input)) {
            Ok(found) => {
                found.needed.iter().chain(&found.soname).for_each(|name| {
                    assert!(!name.chars().any(char::is_control), "{name:?}");
                });
                true
            }
            Err(error) => {
                is_told(&error);
                false
            }
        },
    );
}

#[test]
fn a_library_whose_names_share_their_end_takes_no_more_memory_than_its_file() {
    let long = [&b"a".repeat(4000)[..], b"\0"].concat();
    let names = [&b"\0ds_plugin_v1\0"[..], &long.repeat(10)].concat();
    let symbols: Vec<u32> = (14..40_000).collect();
    let needed: Vec<u64> = (14..20_014).collect();
    for (file, expected) in [
        (
            library(&names, &symbols, &[]),
            "does not export `ds_plugin_v1`",
        ),
        (library(&names, &[1], &needed), "too many libraries"),
        (library(&b"a".repeat(5000), &[1], &[0]), "does not export"),
    ] {
        let checked = || elf::check_plugin_in(Cursor::new(&file)).unwrap_err();
        let (error, peak) = Counting::peak_of(checked);
        assert!(error.context().contains(expected), "{error}");
        assert!(error.context().len() < 2000, "{error}");
        assert!(peak < 8 << 20, "{peak} bytes for a file of {}", file.len());
    }
}

/// A cache with one artefact, and a record that another one can be made of.
struct Built {
    home: tempfile::TempDir,
    cache: Cache,
    key: BuildKey,
    record: Record,
}

impl Built {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::open(Settings::at(home.path().join("cache"))).unwrap();
        let spec = BuildSpec {
            request: BuildRequest {
                toolchain: "fake".to_owned(),
                sources: vec![("a.c".to_owned(), "int a;".into())],
                arguments: vec!["-O2".to_owned()],
                output: "a.so".to_owned(),
            },
            target: "x86-64".to_owned(),
            op_set: "norm".to_owned(),
            kernel: "rms_norm".to_owned(),
            signature: Some("f32[8]".to_owned()),
        };
        let identity = ToolchainIdentity::in_process("fake", "1");
        let artefact = cache
            .build_with(&spec, &identity, |folder| {
                fs::write(folder.join("a.so"), "code").unwrap();
                Ok(b"a log".to_vec())
            })
            .unwrap();
        Self {
            home,
            cache,
            key: artefact.key,
            record: artefact.record,
        }
    }

    fn entry(&self) -> PathBuf {
        let hex = self.key.hex();
        self.home.path().join("cache/v1").join(&hex[..2]).join(hex)
    }
}

/// The text of a record's file, sealed whatever it says.
fn sealed(record: &Value) -> Option<Vec<u8>> {
    let record: Record = serde_json::from_value(record.clone()).ok()?;
    let blake3 = blake3::hash(&serde_json::to_vec(&record).ok()?).to_hex();
    let file = serde_json::json!({"format": 1, "record": record, "blake3": blake3.as_str()});
    serde_json::to_vec(&file).ok()
}

#[test]
fn cache_records() {
    let built = Built::new();
    let path = built.entry().join("record.json");
    let other = tempfile::tempdir().unwrap();
    let into = Cache::open(Settings::at(other.path().join("cache"))).unwrap();
    let mut mutator = Mutator::new(7, [serde_json::to_vec(&built.record).unwrap()]);
    let whole = fs::read(&path).unwrap();
    let mut texts = Mutator::new(8, [whole]);
    let make = || {
        if mutator.dice.once_in(4) {
            return texts.bytes();
        }
        let record = mutator.json();
        let value: Option<Value> = serde_json::from_slice(&record).ok();
        value.as_ref().and_then(sealed).unwrap_or(record)
    };
    fuzz("cache record", drill::times(600, 60_000), make, |input| {
        fs::write(&path, input).unwrap();
        let found = built.cache.lookup(&built.key);
        let entries = built.cache.entries().unwrap();
        let [entry] = &entries[..] else {
            panic!("{entries:?}")
        };
        match (&found, &entry.state) {
            (Some(artefact), EntryState::Built(record)) => {
                assert_eq!(artefact.record, *record);
                assert_eq!(artefact.path.parent(), Some(built.entry().as_path()));
                assert_eq!(artefact.bytes, b"code");
            }
            (None, EntryState::Damaged(what)) => is_one_line(what),
            other => panic!("{other:?}"),
        }
        built.cache.prunable(&PruneRules::default()).unwrap();
        let copied = into.import(&built.cache.settings().dir).unwrap();
        assert_eq!(copied.added.len() + copied.refused.len(), 1);
        assert_eq!(copied.added.len(), usize::from(found.is_some()));
        assert_eq!(into.lookup(&built.key).is_some(), found.is_some());
        if found.is_some() {
            into.forget(&built.key).unwrap();
        }
        found.is_some()
    });
}

#[test]
fn notes_of_compilers() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("cc");
    fs::write(&program, "#!/bin/sh\necho version 1\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let toolchain = ProgramToolchain {
        name: "cc".to_owned(),
        programs: program.to_str().unwrap().to_owned(),
        version: "--version".to_owned(),
        hint: String::new(),
    };
    let environment = BuildEnvironment::from_variables([]);
    let cache = Cache::open(Settings::at(home.path().join("cache"))).unwrap();
    toolchain.resolve(&environment, &cache).unwrap();
    let path = home.path().join("cache/v1/toolchains.json");
    let whole = fs::read(&path).unwrap();
    // Written otherwise, the same notes stay as they are.
    let notes = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let mut mutator = Mutator::new(10, [whole.clone()]);
    let make = || mutator.bytes();
    fuzz("compiler notes", drill::times(300, 30_000), make, |input| {
        fs::write(&path, input).unwrap();
        let found = toolchain.resolve(&environment, &cache).unwrap();
        assert_eq!(found.identity().version, "version 1");
        // What was not believed was asked for again, and noted anew.
        assert_eq!(notes(&fs::read(&path).unwrap()), notes(&whole));
        input == whole
    });
}
