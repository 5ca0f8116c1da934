//! Files as they are: truncated, removed or closed meanwhile, of the wrong kind, on full disks.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    os::fd::AsFd,
    path::Path,
};

use ds_core::{ErrorKind, Timeline};

use super::{Folder, Guarded, Place, device, on_each_engine, pattern, stream, tensor};
use crate::{AioConfig, AioHandle, EngineKind, Extent, ReadOptions, WriteOptions};

const BYTES: usize = 200_013;

fn handle(kind: EngineKind) -> AioHandle {
    let config = AioConfig {
        block_size: 16384,
        ..AioConfig::default()
    };
    AioHandle::with_engine(&config, kind).unwrap()
}

/// What is begun waits for the stream; this lets it go on.
struct Gate(Timeline, u64);

impl Gate {
    fn before(stream: &ds_core::Stream) -> Self {
        let timeline = Timeline::new(device()).unwrap();
        let point = timeline.next();
        stream.wait(&point).unwrap();
        Self(timeline, point.value())
    }

    fn open(&self) {
        self.0.signal(self.1).unwrap();
    }
}

#[test]
fn a_file_that_is_truncated_after_the_read_began_is_told_with_its_offset() {
    on_each_engine(|kind| {
        // Within a page, between pages, and all of it.
        for left in [100_000, 98_304, 0] {
            let (handle, stream, folder) = (handle(kind), stream(), Folder::new());
            let path = folder.file("file", &pattern(BYTES, 1));
            let other = folder.file("other", &pattern(BYTES, 2));
            let [read, second] = [0, 0]
                .map(|byte| Guarded::new(&super::stream(), Place::Pageable, &vec![byte; BYTES]));
            let gate = Gate::before(&stream);
            let operation = handle.async_pread(&stream, &read.tensor, &path, 0).unwrap();
            let beside = handle
                .async_pread(&stream, &second.tensor, &other, 0)
                .unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(left).unwrap();
            gate.open();
            let error = operation.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            let told = error.to_string();
            assert!(told.contains("it was truncated after"), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
            assert!(told.starts_with("read a file"), "{told}");
            beside.wait().unwrap();
            assert!(second.bytes(&stream) == pattern(BYTES, 2));
        }
    });
}

#[test]
fn a_file_that_is_removed_and_a_descriptor_that_is_closed_stay_until_the_end() {
    on_each_engine(|kind| {
        let (handle, stream, folder) = (handle(kind), stream(), Folder::new());
        let wanted = pattern(BYTES, 1);
        let path = folder.file("file", &wanted);
        let places = [Place::Pageable, Place::Odd];
        let read = places.map(|place| Guarded::new(&super::stream(), place, &vec![0; BYTES]));
        let changed = tensor(&super::stream(), &pattern(4096, 2));
        let gate = Gate::before(&stream);
        let descriptor = File::open(&path).unwrap();
        let operations = [
            handle
                .async_pread(&stream, &read[0].tensor, &path, 0)
                .unwrap(),
            handle
                .async_pread(&stream, &read[1].tensor, descriptor.as_fd(), 0)
                .unwrap(),
        ];
        let written = handle.async_pwrite(&stream, &changed, &folder.path("new"), 3);
        drop(descriptor);
        // Its number is another file's now.
        let _taken = File::open("/dev/zero").unwrap();
        for name in ["file", "new"] {
            std::fs::remove_file(folder.path(name)).unwrap();
        }
        gate.open();
        for operation in operations {
            operation.wait().unwrap();
        }
        written.unwrap().wait().unwrap();
        for read in read {
            assert!(read.bytes(&stream) == wanted);
        }
        assert_eq!(folder.names(), [""; 0]);
    });
}

#[test]
fn a_read_beyond_the_end_is_refused_with_the_size() {
    let (handle, stream, folder) = (handle(EngineKind::Threads), stream(), Folder::new());
    let path = folder.file("file", &[1; 100]);
    let read = tensor(&stream, &[0; 100]);
    handle.sync_pread(&stream, &read, &path, 0).unwrap();
    for offset in [1, 101, 1 << 40] {
        let error = handle
            .async_pread(&stream, &read, &path, offset)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let told = error.to_string();
        for part in ["file has 100 bytes", &format!("100 bytes at {offset}")] {
            assert!(told.contains(part), "{told}");
        }
    }
}

#[test]
fn paths_that_are_no_files_are_refused_with_what_the_kernel_says() {
    on_each_engine(|kind| {
        let (handle, stream, folder) = (handle(kind), stream(), Folder::new());
        let file = folder.file("file", &[1; 100]);
        let x = tensor(&stream, &[0; 100]);
        for (path, on_read, on_write) in [
            (folder.path("missing/file"), "No such file", "No such file"),
            (file.join("below"), "Not a directory", "Not a directory"),
            (folder.path(""), "Is a directory", "Is a directory"),
            ("/proc/version".into(), "", "denied"),
        ] {
            let written = handle.sync_pwrite(&stream, &x, &path, 0).unwrap_err();
            assert_eq!(written.kind(), ErrorKind::Io, "{written}");
            let told = written.to_string();
            let root_may = on_write == "denied";
            assert!(root_may || told.contains(on_write), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
            if on_read.is_empty() {
                continue;
            }
            let told = handle
                .sync_pread(&stream, &x, &path, 0)
                .unwrap_err()
                .to_string();
            let aio = kind == EngineKind::Aio && told.contains("Invalid argument");
            assert!(aio || told.contains(on_read), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
        }
        let missing = folder.path("missing");
        let told = handle.sync_pread(&stream, &x, &missing, 0).unwrap_err();
        assert!(told.to_string().contains("No such file"), "{told}");
        assert_eq!(folder.names(), ["file"]);
    });
}

#[test]
fn a_descriptor_does_what_it_was_opened_for_and_nothing_else() {
    on_each_engine(|kind| {
        let (handle, stream, folder) = (handle(kind), stream(), Folder::new());
        let old = pattern(BYTES, 1);
        let path = folder.file("file", &old);
        let x = tensor(&stream, &pattern(BYTES, 2));
        let reads = File::open(&path).unwrap();
        let writes = OpenOptions::new().write(true).open(&path).unwrap();
        let appends = OpenOptions::new().append(true).open(&path).unwrap();
        for (file, words) in [(&reads, "reading"), (&appends, "appending")] {
            for offset in [0, 4096] {
                let error = handle.sync_pwrite(&stream, &x, file.as_fd(), offset);
                let error = error.unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
            }
        }
        assert!(std::fs::read(&path).unwrap() == old, "{kind} wrote it");
        let error = handle
            .sync_pread(&stream, &x, writes.as_fd(), 0)
            .unwrap_err();
        assert!(error.to_string().contains("writing"), "{error}");
        assert!(x.to_bytes(&stream).unwrap() == pattern(BYTES, 2));
        handle.sync_pwrite(&stream, &x, writes.as_fd(), 0).unwrap();
        assert!(std::fs::read(&path).unwrap() == pattern(BYTES, 2));
    });
}

#[test]
fn a_full_device_is_told() {
    on_each_engine(|kind| {
        let (handle, stream) = (handle(kind), stream());
        let x = tensor(&stream, &pattern(BYTES, 2));
        let error = handle.sync_pwrite(&stream, &x, Path::new("/dev/full"), 0);
        let error = error.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("/dev/full"), "{told}");
        // Linux AIO takes files only.
        if kind != EngineKind::Aio {
            assert!(told.contains("No space left"), "{told}");
            assert!(error.hint().unwrap().contains("make room"));
        }
    });
}

/// A small filesystem, as long as it lives.
struct Small(Folder);

impl Small {
    /// Of that many bytes; none where this process may not mount one, which is said.
    fn mount(bytes: usize) -> Option<Self> {
        let folder = Folder::new();
        let place = CString::new(folder.path("").into_os_string().into_encoded_bytes()).unwrap();
        let options = CString::new(format!("size={bytes}")).unwrap();
        // SAFETY: every pointer is to a string that lives for the call.
        let code = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                place.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        if code != 0 {
            println!("skipped: mount: {}", std::io::Error::last_os_error());
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let place = CString::new(self.0.path("").into_os_string().into_encoded_bytes());
        // SAFETY: the path lives for the call.
        let code = unsafe { libc::umount2(place.unwrap().as_ptr(), libc::MNT_DETACH) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    }
}

#[test]
fn a_full_disk_is_told_before_anything_is_written() {
    on_each_engine(|kind| {
        let Some(small) = Small::mount(1 << 20) else {
            return;
        };
        let (handle, stream) = (handle(kind), stream());
        let large = tensor(&stream, &pattern(2 << 20, 1));
        let path = small.0.path("large");
        let whole = WriteOptions {
            replace: true,
            ..WriteOptions::default()
        };
        let all = Extent {
            file_offset: 0,
            memory_offset: 0,
            bytes: large.bytes(),
        };
        for options in [WriteOptions::default(), whole] {
            let error = handle
                .write_extents(&stream, &large, &path, &[all], &options)
                .unwrap_err();
            let told = error.to_string();
            assert!(told.contains("reserve room"), "{told}");
            assert!(told.contains("No space left"), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
        }
        assert_eq!(handle.stats().written_bytes, 0);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(small.0.names(), ["large"]);
        // What there is room for is written.
        let bytes = pattern(500_000, 2);
        let fits = tensor(&stream, &bytes);
        handle.sync_pwrite(&stream, &fits, &path, 3).unwrap();
        assert!(std::fs::read(&path).unwrap()[3..] == bytes);
        // A file with holes is as long as it will be, and full only when it is written.
        let holes = File::create(small.0.path("holes")).unwrap();
        holes.set_len(2 << 20).unwrap();
        let error = handle.sync_pwrite(&stream, &large, &small.0.path("holes"), 0);
        let told = error.unwrap_err().to_string();
        assert!(told.contains("No space left"), "{told}");
    });
}

#[test]
fn a_filesystem_in_memory_takes_and_gives_every_byte() {
    on_each_engine(|kind| {
        let Some(small) = Small::mount(8 << 20) else {
            return;
        };
        let (handle, stream) = (handle(kind), stream());
        let path = small.0.path("file");
        for place in Place::ALL {
            let wanted = pattern(BYTES, 5);
            let source = Guarded::new(&stream, place, &wanted);
            handle
                .sync_pwrite(&stream, &source.tensor, &path, 1001)
                .unwrap();
            let read = Guarded::new(&stream, place, &vec![0; BYTES]);
            handle
                .sync_pread(&stream, &read.tensor, &path, 1001)
                .unwrap();
            assert!(read.bytes(&stream) == wanted);
        }
    });
}

#[test]
fn what_is_refused_for_its_stream_makes_no_file() {
    let (handle, folder) = (handle(EngineKind::Threads), Folder::new());
    let stream = stream();
    let x = tensor(&stream, &[1; 100]);
    let file = File::create(folder.path("open")).unwrap();
    let options = WriteOptions {
        replace: true,
        ..WriteOptions::default()
    };
    let all = Extent {
        file_offset: 0,
        memory_offset: 0,
        bytes: 100,
    };
    let error = handle
        .write_extents(&stream, &x, file.as_fd(), &[all], &options)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("only a path"), "{error}");
    // Of nothing, nothing is asked: also not where the file ends long before.
    let nothing = Extent {
        file_offset: 50,
        memory_offset: 100,
        bytes: 0,
    };
    let path = folder.file("file", &[2; 100]);
    let options = ReadOptions::default();
    let operation = handle
        .read_extents(&stream, &x, &path, &[nothing], &options)
        .unwrap();
    assert_eq!(operation.wait().unwrap().bytes, 0);
    assert!(x.to_bytes(&stream).unwrap() == [1; 100]);
}
