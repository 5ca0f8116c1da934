//! What needs a process of its own: filters of system calls, limits, kills, forks, and what is left
//! over after very many operations.
//!
//! A child is this program again, told by a variable what to do; an alarm ends one that hangs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    clippy::exit,
    reason = "a child tells its parent"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write, pipe},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

// Named, so that the linker keeps what it registers.
use ds_accelerator_cpu as _;
use ds_core::{
    DType, Device, ErrorKind, Host, MemoryKind, Stream, Tensor, Timeline, discovery::Search,
};
use ds_io::{AioConfig, AioHandle, EngineKind, Extent, PinHandle, WriteOptions};
use tempfile::TempDir;

const TASK: &str = "DS_IO_TASK";
const FOLDER: &str = "DS_IO_FOLDER";

fn device() -> Device {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| Host::with_search(Search::empty()));
    host.accelerator("cpu").unwrap().device(0).unwrap()
}

fn stream() -> Stream {
    Stream::new(device()).unwrap()
}

fn tensor(stream: &Stream, bytes: &[u8]) -> Tensor {
    let extent = i64::try_from(bytes.len()).unwrap();
    Tensor::from_bytes(stream, DType::U8, &[extent], bytes).unwrap()
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    let byte = |n: usize| (n * 31 + (n >> 8)).to_le_bytes()[0] ^ seed;
    (0..bytes).map(byte).collect()
}

/// What this process is to do, if it is a child.
fn task() -> Option<String> {
    let task = env::var(TASK).ok()?;
    // SAFETY: only sets a timer, which ends a child that hangs.
    unsafe { libc::alarm(60) };
    Some(task)
}

/// This program, to run one test of it as a child.
fn command(test: &str, task: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env_remove("DS_IO_ENGINE")
        .env(TASK, task);
    command
}

/// Runs a child, which must end well, and gives what it told.
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {told}{errors}", done.status);
    for line in told.lines().filter(|line| line.contains("skipped: ")) {
        println!("{line}");
    }
    told
}

fn round_trip(handle: &AioHandle) {
    let (stream, folder) = (stream(), TempDir::new().unwrap());
    let (path, bytes) = (folder.path().join("file"), pattern(100_013, 1));
    let written = tensor(&stream, &bytes);
    handle.sync_pwrite(&stream, &written, &path, 5).unwrap();
    let read = tensor(&stream, &vec![0; 100_013]);
    handle.sync_pread(&stream, &read, &path, 5).unwrap();
    assert!(read.to_bytes(&stream).unwrap() == bytes);
}

/// From now on the kernel answers these calls of this thread, and of those that it starts, with
/// `errno`; `false` where it has no filters, which is said.
fn refuse(calls: &[libc::c_long], errno: i32) -> bool {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: 0,
        k,
    };
    // The number of the call is the first word of `struct seccomp_data`.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    let answer = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    for call in calls {
        let number = u32::try_from(*call).unwrap();
        filter.push(libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number)
        });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    filter.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its filter live for the calls.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    if !installed {
        println!("skipped: seccomp: {}", std::io::Error::last_os_error());
    }
    installed
}

#[test]
fn a_kernel_without_an_interface_is_served_by_the_next() {
    if let Some(task) = task() {
        let errno = if task.contains("ENOSYS") {
            libc::ENOSYS
        } else {
            libc::EPERM
        };
        let setup = libc::SYS_io_uring_setup;
        let (calls, wanted): (&[_], _) = match task.split_once(' ').unwrap().1 {
            "both" => (&[setup, libc::SYS_io_setup], EngineKind::Threads),
            "enter" => (&[libc::SYS_io_uring_enter], EngineKind::Aio),
            _ => (&[setup], EngineKind::Aio),
        };
        if wanted.probe().is_err() {
            println!("skipped: the engine {wanted}");
        } else if refuse(calls, errno) {
            assert!(EngineKind::IoUring.probe().is_err());
            let handle = AioHandle::new(&AioConfig::default()).unwrap();
            assert_eq!(handle.engine(), wanted, "{task}");
            round_trip(&handle);
            println!("chosen: {wanted}");
        }
        return;
    }
    for errno in ["ENOSYS", "EPERM"] {
        for calls in ["setup", "enter", "both"] {
            let name = "a_kernel_without_an_interface_is_served_by_the_next";
            let told = run(&mut command(name, &format!("{errno} {calls}")));
            let ran = told.contains("chosen: ") || told.contains("skipped: ");
            assert!(ran, "{told}");
        }
    }
}

#[test]
fn the_variable_names_the_engine() {
    if task().is_some() {
        match AioHandle::new(&AioConfig::default()) {
            Ok(handle) => {
                println!("engine {}", handle.engine());
                round_trip(&handle);
            }
            Err(e) => println!("{:?}: {e}", e.kind()),
        }
        return;
    }
    let told = |value: &str| {
        let mut command = command("the_variable_names_the_engine", "new");
        run(command.env("DS_IO_ENGINE", value))
    };
    let mut best = None;
    for kind in EngineKind::ALL {
        if let Err(e) = kind.probe() {
            println!("skipped: the engine {kind}: {e}");
            assert!(told(kind.name()).contains("Io: "));
            continue;
        }
        best = best.or(Some(kind));
        let told = told(kind.name());
        assert!(told.contains(&format!("engine {kind}\n")), "{told}");
    }
    let usual = told("");
    let wanted = format!("engine {}\n", best.unwrap());
    assert!(usual.contains(&wanted), "{usual}");
    let told = told("io_urin");
    for part in [
        "InvalidArgument",
        "DS_IO_ENGINE",
        "'io_urin'",
        "io_uring, aio, threads",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the limit lives for the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

#[test]
fn where_no_more_may_be_locked_that_is_said_and_ordinary_memory_serves() {
    if task().is_some() {
        // SAFETY: changes who this process is; nobody reaches anything by its old rights.
        let is_root = unsafe { libc::geteuid() } == 0;
        limit(libc::RLIMIT_MEMLOCK, 64 << 10);
        // SAFETY: as above. With the user go the capabilities, CAP_IPC_LOCK among them.
        if is_root && unsafe { libc::setresuid(65534, 65534, 65534) } != 0 {
            println!("skipped: setresuid: {}", std::io::Error::last_os_error());
            return;
        }
        let (pins, device) = (PinHandle::new(), device());
        let few = pins.new_cpu_locked_tensor(device, 8192, DType::U8).unwrap();
        let error = pins
            .new_cpu_locked_tensor(device, 1 << 20, DType::U8)
            .unwrap_err();
        let told = error.to_string();
        // 8 KiB are locked, and 1 MiB is asked for.
        for part in [
            "lock 1048576 bytes",
            "8192 are locked already",
            "may lock 65536",
            "ulimit -l 1032",
            "--ulimit memlock=1056768",
        ] {
            assert!(told.contains(part), "'{part}' is not in: {told}");
        }
        assert!(pins.is_pinned(&few));
        let ordinary = pins.new_cpu_tensor(device, 1 << 20, DType::U8).unwrap();
        assert!(!pins.is_pinned(&ordinary));
        assert_eq!(ordinary.buffer().kind(), MemoryKind::Pageable);
        let stats = pins.stats();
        assert_eq!(
            (stats.locked_bytes, stats.pageable_bytes, stats.refused),
            (8192, 1 << 20, 2)
        );
        let bytes = pattern(1 << 20, 3);
        let stream = stream();
        ordinary.write_bytes(&stream, &bytes).unwrap();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        let handle = AioHandle::new(&AioConfig::default()).unwrap();
        handle.sync_pwrite(&stream, &ordinary, &path, 0).unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        ordinary.write_bytes(&stream, &vec![0; 1 << 20]).unwrap();
        handle.sync_pread(&stream, &ordinary, &path, 0).unwrap();
        assert!(ordinary.to_bytes(&stream).unwrap() == bytes);
        // Staging that cannot be locked is not.
        let odd = tensor(&stream, &vec![0; 100_001])
            .narrow(0, 1, 100_000)
            .unwrap();
        handle.sync_pread(&stream, &odd, &path, 0).unwrap();
        assert!(odd.to_bytes(&stream).unwrap() == bytes[..100_000]);
        let stats = handle.stats();
        assert_eq!(stats.pinned_staging_bytes, 0);
        assert_eq!(stats.pageable_staging_bytes, 8 << 20);
        println!("all of it");
        return;
    }
    let name = "where_no_more_may_be_locked_that_is_said_and_ordinary_memory_serves";
    let told = run(&mut command(name, "pin"));
    assert!(
        told.contains("all of it") || told.contains("skipped: "),
        "{told}"
    );
}

#[test]
fn locked_memory_stays_locked_as_long_as_somebody_has_a_view_of_it() {
    let (device, stream) = (device(), stream());
    let (mine, other) = (PinHandle::new(), PinHandle::new());
    let tensor = match mine.new_cpu_locked_tensor(device, 1000, DType::F32) {
        Ok(tensor) => tensor,
        Err(e) => {
            println!("skipped: {e}");
            return;
        }
    };
    let start = tensor.buffer().address().cast_const();
    let view = tensor.narrow(0, 999, 1).unwrap();
    let bytes = tensor.view_bytes().unwrap();
    for each in [&tensor, &view, &bytes] {
        assert!(mine.is_pinned(each) && other.is_pinned(each));
    }
    // Any handle may let go of it, and says that it was locked; the views keep it.
    assert!(other.free_cpu_locked_tensor(tensor));
    drop(bytes);
    assert!(mine.is_pinned(&view) && ds_core::is_pinned(start, 4000));
    view.write_bytes(&stream, &7_f32.to_ne_bytes()).unwrap();
    assert_eq!(view.to_vec::<f32>(&stream).unwrap(), [7.0]);
    drop(view);
    assert!(!ds_core::is_pinned(start, 1));
    let ordinary = Tensor::empty(&stream, DType::F32, &[10]).unwrap();
    assert!(!mine.is_pinned(&ordinary) && !mine.free_cpu_locked_tensor(ordinary));
    let error = mine
        .new_cpu_locked_tensor(device, u64::MAX / 2, DType::F32)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn a_file_may_not_grow_beyond_the_limit_of_the_process() {
    if task().is_some() {
        // SAFETY: no handler is installed; the signal that comes with the error is ignored.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        limit(libc::RLIMIT_FSIZE, 1 << 20);
        let (stream, folder) = (stream(), TempDir::new().unwrap());
        let path = folder.path().join("file");
        let x = tensor(&stream, &pattern(2 << 20, 1));
        let handle = AioHandle::new(&AioConfig::default()).unwrap();
        let error = handle.sync_pwrite(&stream, &x, &path, 0).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("File too large"), "{told}");
        assert!(error.hint().unwrap().contains("ulimit -f"));
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        round_trip(&handle);
        println!("all of it");
        return;
    }
    let name = "a_file_may_not_grow_beyond_the_limit_of_the_process";
    let told = run(&mut command(name, "limit"));
    assert!(told.contains("all of it"), "{told}");
}

/// Replaces a file by one content and the other for ever.
fn replace_for_ever(folder: &Path) {
    let stream = stream();
    let contents = [1, 2].map(|seed| tensor(&stream, &pattern(2 << 20, seed)));
    let handle = AioHandle::new(&AioConfig::default()).unwrap();
    let options = WriteOptions {
        replace: true,
        ..WriteOptions::default()
    };
    let path = folder.join("file");
    for x in contents.iter().cycle() {
        let all = Extent {
            file_offset: 0,
            memory_offset: 0,
            bytes: x.bytes(),
        };
        println!("begins");
        let operation = handle.write_extents(&stream, x, &path, &[all], &options);
        operation.unwrap().wait().unwrap();
    }
}

#[test]
fn who_is_killed_leaves_the_old_file_or_the_new_one() {
    const ROUNDS: usize = 6;
    if task().is_some() {
        replace_for_ever(Path::new(&env::var_os(FOLDER).unwrap()));
    }
    let folder = TempDir::new().unwrap();
    let contents = [1, 2].map(|seed| pattern(2 << 20, seed));
    let path = folder.path().join("file");
    fs::write(&path, &contents[0]).unwrap();
    let mut half_made = 0;
    for round in 0..ROUNDS {
        let name = "who_is_killed_leaves_the_old_file_or_the_new_one";
        let mut child = command(name, "replace")
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begins = lines.filter(|line| line.as_ref().unwrap().contains("begins"));
        assert_eq!(begins.take(1 + round % 3).count(), 1 + round % 3);
        child.kill().unwrap();
        child.wait().unwrap();
        let found = fs::read(&path).unwrap();
        assert!(contents.contains(&found), "{} bytes", found.len());
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_partial = name.starts_with(".ds-io-") && name.ends_with(".partial");
            assert!(name == "file" || is_partial, "{name}");
            if is_partial {
                half_made += 1;
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    println!("{half_made} of {ROUNDS} left a half-made file beside the old one");
}

/// What a process holds: descriptors, locked KiB, KiB of memory of its own.
fn holds() -> [u64; 3] {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    [descriptors, kib("VmLck:"), kib("RssAnon:")]
}

#[test]
fn very_many_operations_leave_nothing_behind() {
    /// Of each, well and failed.
    const BATCH: usize = 200;
    if let Some(task) = task() {
        let (engine, batches) = task.split_once(' ').unwrap();
        let kind: EngineKind = engine.parse().unwrap();
        let handle = || AioHandle::with_engine(&AioConfig::default(), kind).unwrap();
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| TempDir::new())
            .unwrap();
        let path = folder.path().join("file");
        fs::write(&path, pattern(8192, 1)).unwrap();
        let stream = stream();
        let pins = PinHandle::new();
        let batch = |handle: &AioHandle, size: usize| {
            for index in 0..size {
                // All ways: direct, through the page cache, and staged; memory of its own each time.
                let x = Tensor::empty(&stream, DType::U8, &[4097]).unwrap();
                let (start, len) = [(0, 4096), (1, 4096), (0, 100)][index % 3];
                let x = x.narrow(0, start, len).unwrap();
                let begun = match index % 2 {
                    0 => handle.async_pread(&stream, &x, &path, 0),
                    _ => handle.async_pread(&stream, &x, &path, 4096),
                };
                drop(begun.unwrap());
            }
            assert_eq!(handle.wait().unwrap(), size);
            // Folders can be opened, and not read.
            let locked = pins.new_cpu_tensor(device(), 100, DType::U8).unwrap();
            for _ in 0..size / 10 {
                drop(
                    handle
                        .async_pread(&stream, &locked, folder.path(), 0)
                        .unwrap(),
                );
            }
            drop(locked);
            assert_eq!(handle.wait().unwrap_err().kind(), ErrorKind::Io);
        };
        let all = |count: usize| {
            let handle = handle();
            (0..count).for_each(|_| batch(&handle, BATCH));
            // The lanes let go of their last jobs a little after these have ended.
            drop(handle);
            holds()
        };
        // Caches come with the first.
        let before = all(5);
        let after = all(batches.parse().unwrap());
        assert_eq!(before[..2], after[..2], "descriptors and locked KiB");
        // Of 100 000 operations, 64 bytes each would be 6400 KiB; a heap that is broken up is less.
        let grown = after[2].saturating_sub(before[2]);
        println!("grown by {grown} KiB");
        assert!(grown < 4096, "{grown} KiB");
        return;
    }
    for kind in EngineKind::ALL {
        if let Err(e) = kind.probe() {
            println!("skipped: the engine {kind}: {e}");
            continue;
        }
        // What they have in common is much; what is each's own is little.
        let batches = if kind == EngineKind::ALL[0] { 500 } else { 50 };
        let name = "very_many_operations_leave_nothing_behind";
        let told = run(&mut command(name, &format!("{kind} {batches}")));
        assert!(told.contains("grown by "), "{told}");
    }
}

#[test]
fn a_child_of_fork_is_refused_and_may_drop_everything() {
    if task().is_some() {
        let (stream, folder) = (stream(), TempDir::new().unwrap());
        let path = folder.path().join("file");
        let bytes = pattern(100_000, 1);
        let written = tensor(&stream, &bytes);
        let locked = PinHandle::new()
            .new_cpu_tensor(device(), 100, DType::U8)
            .unwrap();
        let handle = AioHandle::new(&AioConfig::default()).unwrap();
        let gate = Timeline::new(device()).unwrap();
        let point = gate.next();
        stream.wait(&point).unwrap();
        let operation = handle.async_pwrite(&stream, &written, &path, 0).unwrap();
        let (mut reader, mut writer) = pipe().unwrap();
        // SAFETY: the child writes to the pipe and leaves without unwinding into the test runner.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: only sets a timer, which ends a child that hangs.
            unsafe { libc::alarm(20) };
            let told = [
                handle.async_pread(&stream, &written, &path, 0).err(),
                handle.async_pwrite(&stream, &written, &path, 0).err(),
                handle.wait().err(),
                operation.wait().err(),
                operation.point().err(),
                AioHandle::new(&AioConfig::default())
                    .and_then(|own| own.sync_pwrite(&stream, &written, &path, 0))
                    .err(),
            ];
            drop((operation, handle, written, locked, stream));
            let refused = told.iter().all(|error| {
                error.as_ref().map(ds_core::Error::kind) == Some(ErrorKind::ShuttingDown)
            });
            let sent = writer.write_all(format!("{refused} {told:?}").as_bytes());
            // SAFETY: ends the child at once; nothing of the test runner's runs in it.
            unsafe { libc::_exit(i32::from(sent.is_err())) };
        }
        drop(writer);
        let mut told = String::new();
        reader.read_to_string(&mut told).unwrap();
        let mut status = 0;
        // SAFETY: `status` is writable for the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "{told}");
        assert!(told.starts_with("true "), "{told}");
        // The parent goes on as if there were no child.
        gate.signal(point.value()).unwrap();
        operation.wait().unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        println!("all of it");
        return;
    }
    let name = "a_child_of_fork_is_refused_and_may_drop_everything";
    let told = run(&mut command(name, "fork"));
    assert!(told.contains("all of it"), "{told}");
}
