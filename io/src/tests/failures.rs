//! Engines that cannot be opened, or break while they work: everything ends, with an error.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use ds_core::{ErrorKind, Timeline};
use rustix::io::Errno;

use super::{
    Folder, Guarded, Kernel, Place, block_for_a_while, device, on_each_engine, pattern, stream,
    tensor,
};
use crate::{
    AioConfig, AioHandle, EngineKind, Extent, ReadOptions, Target, WriteOptions,
    ending::Tally,
    failure::Failure,
    file::OpenFile,
    job::{After, Direction, Extras, Job},
    memory::Memory,
};

const BYTES: usize = 300_013;

fn config(single_submit: bool) -> AioConfig {
    AioConfig {
        block_size: 4096,
        queue_depth: 4,
        single_submit,
        ..AioConfig::default()
    }
}

/// How the call that hands requests over fails when nothing can come of it any more.
fn fatal(kind: EngineKind) -> Errno {
    match kind {
        EngineKind::Aio => Errno::NOSYS,
        EngineKind::IoUring | EngineKind::Threads => Errno::BADF,
    }
}

#[test]
fn an_engine_that_breaks_fails_what_there_is_and_what_comes() {
    on_each_engine(|kind| {
        for (works, single_submit) in [(0, false), (3, false), (20, false), (3, true), (20, true)] {
            let calls = AtomicU32::new(0);
            let kernel = Kernel::on_submit(move |_| {
                (calls.fetch_add(1, Ordering::SeqCst) >= works).then_some(fatal(kind))
            });
            let handle = kernel.handle(kind, &config(single_submit));
            let (stream, folder) = (stream(), Folder::new());
            let old = pattern(BYTES, 1);
            let path = folder.file("old", &old);
            let replaced = folder.file("replaced", &old);
            let all = Extent {
                file_offset: 0,
                memory_offset: 0,
                bytes: BYTES as u64,
            };
            let whole = WriteOptions {
                replace: true,
                ..WriteOptions::default()
            };
            let [read, written] =
                [2, 3].map(|seed| tensor(&super::stream(), &pattern(BYTES, seed)));
            // Behind a point, so that everything is there when it breaks.
            let gate = Timeline::new(device()).unwrap();
            let point = gate.next();
            stream.wait(&point).unwrap();
            let operations = [
                handle.async_pread(&stream, &read, &path, 0).unwrap(),
                handle
                    .async_pwrite(&stream, &written, &folder.path("new"), 5)
                    .unwrap(),
                handle
                    .write_extents(&stream, &written, &replaced, &[all], &whole)
                    .unwrap(),
            ];
            // Also memory that the engine may own for ever may be dropped.
            drop((read, written));
            gate.signal(point.value()).unwrap();
            let mut failures = 0;
            for operation in &operations {
                let Err(error) = operation.wait() else {
                    continue;
                };
                failures += 1;
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                let point = operation.point().unwrap();
                assert_eq!(point.wait(None).unwrap_err().kind(), ErrorKind::Io);
            }
            assert!(failures == 3 || (failures > 0 && works > 10), "{failures}");
            assert_eq!(handle.wait().unwrap_err().kind(), ErrorKind::Io);
            let later = tensor(&super::stream(), &old);
            let after = super::stream();
            let error = handle.sync_pread(&after, &later, &path, 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            let error = handle
                .sync_pwrite(&after, &later, &folder.path("late"), 0)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(std::fs::read(&replaced).unwrap() == old);
            assert_eq!(folder.names(), ["late", "new", "old", "replaced"]);
            drop(handle);
        }
    });
}

#[test]
fn an_engine_that_breaks_says_so_with_what_the_kernel_said() {
    on_each_engine(|kind| {
        let kernel = Kernel::on_submit(move |_| Some(fatal(kind)));
        let handle = kernel.handle(kind, &config(false));
        let (stream, folder) = (stream(), Folder::new());
        let path = folder.file("old", &pattern(BYTES, 1));
        let read = tensor(&stream, &vec![0; BYTES]);
        let error = handle.sync_pread(&stream, &read, &path, 0).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains(&std::io::Error::from(fatal(kind)).to_string()),
            "{told}"
        );
        assert!(told.contains(&path.display().to_string()), "{told}");
    });
}

#[test]
fn a_kernel_that_stays_short_of_memory_is_given_up() {
    on_each_engine(|kind| {
        let kernel = Kernel::on_submit(|_| Some(Errno::AGAIN));
        let handle = kernel.handle(kind, &config(false));
        let (stream, folder) = (stream(), Folder::new());
        let path = folder.file("old", &pattern(BYTES, 1));
        let read = tensor(&stream, &vec![0; BYTES]);
        let error = handle.sync_pread(&stream, &read, &path, 0).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("temporarily unavailable"), "{told}");
    });
}

#[test]
fn the_next_engine_takes_the_place_of_one_that_cannot_be_opened() {
    for errno in [Errno::NOSYS, Errno::PERM, Errno::NOMEM] {
        for refused in 1..EngineKind::ALL.len() {
            let wanted = EngineKind::ALL[refused];
            if wanted.probe().is_err() {
                println!("skipped: the engine {wanted}");
                continue;
            }
            let kernel = Kernel::on_open(move |kind| {
                let place = EngineKind::ALL.iter().position(|known| *known == kind);
                (place.unwrap() < refused).then_some(errno)
            });
            let handle = AioHandle::best(&AioConfig::default(), &kernel.seam()).unwrap();
            assert_eq!(handle.engine(), wanted);
            let (stream, folder) = (stream(), Folder::new());
            let bytes = pattern(BYTES, 1);
            let path = folder.path("file");
            handle
                .sync_pwrite(&stream, &tensor(&stream, &bytes), &path, 0)
                .unwrap();
            assert!(std::fs::read(path).unwrap() == bytes);
        }
    }
}

#[test]
fn without_any_engine_there_is_no_handle_and_each_says_why() {
    let kernel = Kernel::on_open(|_| Some(Errno::PERM));
    for kind in EngineKind::ALL {
        let error = AioHandle::through(&config(false), kind, &kernel.seam()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(kind.name()), "{error}");
        assert!(error.hint().unwrap().contains("ds_report io"));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("Operation not permitted"), "{source}");
    }
    let error = AioHandle::best(&config(false), &kernel.seam()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    // One lane of several is enough to refuse it.
    let opened = AtomicU32::new(0);
    let kernel = Kernel::on_open(move |_| {
        (opened.fetch_add(1, Ordering::SeqCst) == 2).then_some(Errno::NOMEM)
    });
    let config = AioConfig {
        intra_op_parallelism: 3,
        ..AioConfig::default()
    };
    let error = AioHandle::through(&config, EngineKind::Threads, &kernel.seam()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn memory_stays_until_the_kernel_is_done_with_it() {
    on_each_engine(|kind| {
        // Whoever gets the memory next would see its bytes written to the file, or be written over.
        let handle = AioHandle::with_engine(&config(false), kind).unwrap();
        let (stream, folder) = (stream(), Folder::new());
        let bytes = pattern(BYTES, 1);
        let source = folder.file("source", &bytes);
        for _ in 0..20 {
            let path = folder.path("file");
            let clean = super::stream();
            let written = tensor(&clean, &bytes);
            let read = tensor(&clean, &bytes);
            let gate = block_for_a_while(&stream);
            let [_, _] = [
                handle.async_pwrite(&stream, &written, &path, 0).unwrap(),
                handle.async_pread(&stream, &read, &source, 0).unwrap(),
            ];
            drop((written, read));
            let others = [0, 1, 2].map(|_| tensor(&clean, &vec![0xee; BYTES]));
            gate.join().unwrap();
            assert_eq!(handle.wait().unwrap(), 2);
            assert!(std::fs::read(&path).unwrap() == bytes);
            for other in others {
                assert!(other.to_bytes(&clean).unwrap() == vec![0xee; BYTES]);
            }
        }
    });
}

#[test]
fn what_waits_for_work_that_fails_is_cancelled() {
    on_each_engine(|kind| {
        let handle = AioHandle::with_engine(&config(false), kind).unwrap();
        let (stream, folder) = (stream(), Folder::new());
        let old = pattern(BYTES, 1);
        let path = folder.file("old", &old);
        let written = tensor(&stream, &pattern(BYTES, 2));
        let gate = Timeline::new(device()).unwrap();
        stream.wait(&gate.next()).unwrap();
        let all = Extent {
            file_offset: 0,
            memory_offset: 0,
            bytes: BYTES as u64,
        };
        let whole = WriteOptions {
            replace: true,
            ..WriteOptions::default()
        };
        let operations = [
            handle
                .write_extents(&stream, &written, &path, &[all], &whole)
                .unwrap(),
            handle.async_pwrite(&stream, &written, &path, 0).unwrap(),
            handle
                .read_extents(&stream, &written, &path, &[all], &ReadOptions::default())
                .unwrap(),
        ];
        assert!(operations.iter().all(|operation| !operation.is_done()));
        gate.fail(ErrorKind::DeviceLost).unwrap();
        for operation in operations {
            let error = operation.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert!(error.to_string().contains("old"), "{error}");
        }
        assert!(std::fs::read(&path).unwrap() == old);
        assert_eq!(folder.names(), ["old"]);
    });
}

#[test]
fn what_makes_no_sense_is_refused_before_a_file_is_touched() {
    let handle = AioHandle::new(&config(false)).unwrap();
    let (stream, folder) = (stream(), Folder::new());
    let x = tensor(&stream, &pattern(100, 1));
    let path = folder.path("file");
    let extent = |file_offset, memory_offset, bytes| Extent {
        file_offset,
        memory_offset,
        bytes,
    };
    for (wrong, words) in [
        (extent(0, 0, 101), "exceed the tensor's 100 bytes"),
        (extent(0, 100, 1), "exceed the tensor's 100 bytes"),
        (extent(0, u64::MAX, 2), "exceed the tensor's 100 bytes"),
        (extent(u64::MAX, 0, 2), "2^63"),
        (extent((1 << 63) - 1, 0, 1), "2^63"),
    ] {
        let options = WriteOptions::default();
        let written = handle.write_extents(&stream, &x, &path, &[wrong], &options);
        let read = handle.read_extents(&stream, &x, &path, &[wrong], &ReadOptions::default());
        for error in [written.unwrap_err(), read.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
    let square = x.reshape(&[10, 10]).unwrap().transpose(0, 1).unwrap();
    let error = handle.async_pwrite(&stream, &square, &path, 0).unwrap_err();
    assert!(error.to_string().contains("not contiguous"), "{error}");
    assert_eq!(folder.names(), [""; 0]);
    // Nothing of it is an operation that somebody waits for.
    assert_eq!(handle.wait().unwrap(), 0);
}

#[test]
fn a_lane_waits_for_no_stream_that_waits_for_it() {
    on_each_engine(|kind| {
        for place in [Place::Pinned, Place::Pageable, Place::Pool] {
            let handle = AioHandle::with_engine(&config(false), kind).unwrap();
            let folder = Folder::new();
            let bytes = pattern(BYTES, 1);
            let path = folder.file("file", &bytes);
            let [behind, waiting, clean] = [(); 3].map(|()| stream());
            let [first, second] = [0, 1].map(|_| Guarded::new(&clean, place, &vec![0; BYTES]));
            let gate = Timeline::new(device()).unwrap();
            let point = gate.next();
            behind.wait(&point).unwrap();
            let reads = [&first, &second]
                .map(|read| handle.async_pread(&behind, &read.tensor, &path, 0).unwrap());
            waiting.wait(&reads[1].point().unwrap()).unwrap();
            // Its memory is the lane's alone, which lets go of it before it has read the second.
            drop(first);
            gate.signal(point.value()).unwrap();
            waiting.synchronize().unwrap();
            assert!(second.bytes(&clean) == bytes);
            drop(reads);
        }
    });
}

#[test]
fn a_lane_that_comes_late_gets_no_piece_of_what_has_failed() {
    let (stream, folder) = (stream(), Folder::new());
    let path = folder.file("file", &pattern(BYTES, 1));
    let x = tensor(&stream, &pattern(BYTES, 2));
    let all = Extent {
        file_offset: 0,
        memory_offset: 0,
        bytes: BYTES as u64,
    };
    let job = Job::new(
        Direction::Read,
        OpenFile::to_read(Target::from(&path)).unwrap(),
        Memory::of("read a file", &x).unwrap(),
        vec![all],
        Extras::default(),
        &Arc::new(Tally::new()),
    );
    let piece = job.take(4096).unwrap();
    let failure = Failure::new(ErrorKind::Io, "read a file", "it broke".to_owned());
    assert!(job.give(&piece, Err(failure)) == After::Nothing);
    assert!(job.take(4096).is_none());
    assert!(job.exhaust() == After::Finish);
    job.finish();
    assert!(job.ending.wait().is_err());
    // A second lane, which had others to move until now.
    assert!(job.take(4096).is_none());
    assert!(job.exhaust() == After::Nothing);
}
