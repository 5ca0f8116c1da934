//! A kernel that moves less than it was asked for, or refuses: for every engine, with other
//! operations in flight on the same handle, which nothing happens to.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use ds_core::{ErrorKind, Stream, Tensor};
use rustix::io::Errno;

use super::{Folder, Guarded, Kernel, Place, on_each_engine, pattern, stream, tensor};
use crate::{
    AioConfig, AioHandle, EngineKind, Operation, WriteOptions,
    engine::{Action, Request},
};

/// Faults befall what lies from here on in a file; the others' ranges lie before.
const STRUCK: u64 = 1 << 24;
const BLOCK: u64 = 1 << 16;
/// A page is split at both ends, and blocks lie between.
const START: u64 = STRUCK + 1000;
const BYTES: usize = (5 << 16) + 77;

fn config() -> AioConfig {
    AioConfig {
        block_size: BLOCK,
        queue_depth: 4,
        ..AioConfig::default()
    }
}

/// A read and a write on the same handle that nothing should happen to.
struct Others {
    folder: Folder,
    wanted: Vec<u8>,
    read: Guarded,
    operations: [Operation; 2],
}

impl Others {
    fn begin(handle: &AioHandle, stream: &Stream) -> Self {
        let folder = Folder::new();
        let wanted = pattern(BYTES, 7);
        let source = folder.file("other-read", &wanted);
        let read = Guarded::new(stream, Place::Odd, &vec![0; BYTES]);
        let written = tensor(stream, &wanted);
        let operations = [
            handle
                .async_pread(stream, &read.tensor, &source, 0)
                .unwrap(),
            handle
                .async_pwrite(stream, &written, &folder.path("other-written"), 100)
                .unwrap(),
        ];
        Self {
            folder,
            wanted,
            read,
            operations,
        }
    }

    fn are_undisturbed(&self, stream: &Stream) {
        for operation in &self.operations {
            assert_eq!(operation.wait().unwrap().bytes, BYTES as u64);
        }
        assert!(self.read.bytes(stream) == self.wanted);
        let written = std::fs::read(self.folder.path("other-written")).unwrap();
        assert!(written[..100] == [0; 100] && written[100..] == self.wanted);
    }
}

/// Writes and reads where faults befall, beside others, and wants every byte to be right.
fn round_trip(kernel: &Arc<Kernel>, kind: EngineKind, place: Place) -> AioHandle {
    let handle = kernel.handle(kind, &config());
    let (stream, folder) = (stream(), Folder::new());
    let wanted = pattern(BYTES, 1);
    let path = folder.path("struck");
    let source = Guarded::new(&stream, place, &wanted);
    let others = Others::begin(&handle, &stream);
    let written = handle
        .sync_pwrite(&stream, &source.tensor, &path, START)
        .unwrap();
    assert_eq!(written.bytes, BYTES as u64);
    others.are_undisturbed(&stream);
    let file = std::fs::read(&path).unwrap();
    let start = usize::try_from(START).unwrap();
    assert_eq!(file.len(), start + BYTES);
    assert!(file[start..] == wanted, "{kind} wrote other bytes");

    let others = Others::begin(&handle, &stream);
    let read = Guarded::new(&stream, place, &vec![0; BYTES]);
    let done = handle
        .sync_pread(&stream, &read.tensor, &path, START)
        .unwrap();
    assert_eq!(done.bytes, BYTES as u64);
    others.are_undisturbed(&stream);
    assert!(read.bytes(&stream) == wanted, "{kind} read other bytes");
    handle
}

/// How many requests a round trip is without faults.
fn requests_without_faults(kind: EngineKind) -> usize {
    let kernel = Arc::new(Kernel::default());
    round_trip(&kernel, kind, Place::Pool);
    kernel.requests()
}

/// A full queue is waited for in eighths; what the kernel took none of must not be among them.
#[test]
fn a_queue_that_one_operation_fills_ends_and_lets_others_in() {
    on_each_engine(|kind| {
        let config = AioConfig {
            block_size: 128 << 10,
            queue_depth: 32,
            ..AioConfig::default()
        };
        let calls = AtomicU32::new(0);
        let kernel = Kernel::on_submit(move |_| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            (call % 3 == 1).then_some(Errno::AGAIN)
        });
        let handle = kernel.handle(kind, &config);
        let (stream, folder) = (stream(), Folder::new());
        let files = [((9 << 20) + 13, "large"), (4099, "small")]
            .map(|(bytes, name)| (pattern(bytes, 1), folder.path(name)));
        for (bytes, path) in &files {
            let x = tensor(&stream, bytes);
            drop(handle.async_pwrite(&stream, &x, path, 0).unwrap());
        }
        assert_eq!(handle.wait().unwrap(), 2);
        let read = files.each_ref().map(|(bytes, path)| {
            assert!(std::fs::read(path).unwrap() == *bytes);
            let x = tensor(&stream, &vec![0; bytes.len()]);
            drop(handle.async_pread(&stream, &x, path, 0).unwrap());
            x
        });
        assert_eq!(handle.wait().unwrap(), 2);
        for ((bytes, _), x) in files.iter().zip(read) {
            assert!(x.to_bytes(&stream).unwrap() == *bytes);
        }
    });
}

#[test]
fn what_the_kernel_leaves_over_is_moved_by_further_requests() {
    on_each_engine(|kind| {
        let usual = requests_without_faults(kind);
        for place in Place::ALL {
            // Whole pages of what direct I/O moves, and half of what the page cache moves.
            let kernel = Kernel::on_request(|request: &mut Request| {
                if request.offset < STRUCK || request.action == Action::Sync {
                    return;
                }
                if request.offset.is_multiple_of(4096) && request.bytes >= 8192 {
                    request.bytes = (request.bytes / 8192) * 4096;
                } else if request.bytes > 1 && request.bytes < 4096 {
                    request.bytes /= 2;
                }
            });
            round_trip(&kernel, kind, place);
            assert!(kernel.requests() >= usual + 20, "{}", kernel.requests());
        }
    });
}

#[test]
fn what_the_kernel_leaves_over_may_begin_anywhere() {
    on_each_engine(|kind| {
        let usual = requests_without_faults(kind);
        // More was moved than it says, so that also direct I/O ends within a page.
        let kernel = Kernel::on_completion(|asked, result| {
            if let Ok(count) = result
                && asked.offset >= STRUCK
                && *count > 1
            {
                *count = *count / 3 + 1;
            }
        });
        for place in [Place::Pageable, Place::Odd] {
            round_trip(&kernel, kind, place);
        }
        assert!(kernel.requests() >= 2 * usual + 40, "{}", kernel.requests());
    });
}

#[test]
fn what_the_kernel_wants_to_be_asked_again_is() {
    on_each_engine(|kind| {
        for errno in [Errno::INTR, Errno::AGAIN] {
            let refusals = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&refusals);
            let kernel = Kernel::on_completion(move |asked, result| {
                if asked.offset >= STRUCK && counted.fetch_add(1, Ordering::SeqCst) % 4 != 3 {
                    *result = Err(errno);
                }
            });
            round_trip(&kernel, kind, Place::Pool);
            assert!(refusals.load(Ordering::SeqCst) > 20);
        }
    });
}

#[test]
fn what_the_kernel_takes_later_is_handed_over_again() {
    on_each_engine(|kind| {
        for errno in [Errno::INTR, Errno::AGAIN] {
            let calls = AtomicU32::new(0);
            let kernel = Kernel::on_submit(move |_| {
                (calls.fetch_add(1, Ordering::SeqCst) % 3 != 2).then_some(errno)
            });
            round_trip(&kernel, kind, Place::Pool);
        }
    });
}

#[test]
fn what_direct_io_refuses_goes_through_the_page_cache() {
    on_each_engine(|kind| {
        for place in [Place::Pageable, Place::Odd] {
            let seen = Mutex::new(HashSet::new());
            let kernel = Kernel::on_completion(move |asked, result| {
                let whole = asked.bytes.is_multiple_of(4096) && asked.offset.is_multiple_of(4096);
                let key = (asked.action == Action::Write, asked.offset);
                // What comes a second time is for the page cache.
                if whole && seen.lock().unwrap().insert(key) {
                    *result = Err(Errno::INVAL);
                }
            });
            let handle = kernel.handle(kind, &config());
            let (stream, folder) = (stream(), Folder::new());
            let wanted = pattern(BYTES, 3);
            let path = folder.path("refused");
            let source = Guarded::new(&stream, place, &wanted);
            handle
                .sync_pwrite(&stream, &source.tensor, &path, START)
                .unwrap();
            let read = Guarded::new(&stream, place, &vec![0; BYTES]);
            handle
                .sync_pread(&stream, &read.tensor, &path, START)
                .unwrap();
            assert!(read.bytes(&stream) == wanted);
            // Five blocks and the pages before and after them, each way.
            let refused = handle.stats().refused_direct;
            assert!(refused >= 10, "{refused}");
        }
    });
}

/// One write or read that fails, beside others that do not; gives its error.
fn failed(
    handle: &AioHandle,
    stream: &Stream,
    begin: impl FnOnce(&AioHandle, &Tensor) -> ds_core::Result<Operation>,
) -> ds_core::Error {
    let others = Others::begin(handle, stream);
    let struck = tensor(stream, &pattern(BYTES, 4));
    let operation = begin(handle, &struck).unwrap();
    let point = operation.point().unwrap();
    let error = operation.wait().unwrap_err();
    assert!(operation.is_done());
    assert_eq!(point.is_reached().unwrap_err().kind(), error.kind());
    others.are_undisturbed(stream);
    // The handle has one failure to tell, and goes on.
    assert_eq!(handle.wait().unwrap_err().to_string(), error.to_string());
    assert_eq!(handle.wait().unwrap(), 0);
    error
}

#[test]
fn what_the_kernel_refuses_is_told_with_operation_path_and_offset() {
    on_each_engine(|kind| {
        // One piece of several.
        let at = STRUCK + 4096 + 2 * BLOCK;
        for (errno, words, hint) in [
            (Errno::IO, "Input/output error", "dmesg"),
            (Errno::NOSPC, "No space left", "make room"),
            (Errno::INVAL, "Invalid argument", ""),
            (Errno::DQUOT, "quota", "quota"),
            (Errno::BADF, "Bad file descriptor", ""),
        ] {
            let kernel = Kernel::on_completion(move |asked, result| {
                if asked.offset == at {
                    *result = Err(errno);
                }
            });
            let handle = kernel.handle(kind, &config());
            let (stream, folder) = (stream(), Folder::new());
            let path = folder.path("struck");
            let write = |handle: &AioHandle, struck: &Tensor| {
                handle.async_pwrite(&stream, struck, &path, START)
            };
            let read = |handle: &AioHandle, struck: &Tensor| {
                handle.async_pread(&stream, struck, &path, START)
            };
            let on_write = failed(&handle, &stream, write);
            let on_read = failed(&handle, &stream, read);
            for (error, op) in [(on_write, "write a file"), (on_read, "read a file")] {
                assert_eq!(error.kind(), ErrorKind::Io);
                let told = error.to_string();
                for part in [
                    op,
                    words,
                    &format!("{BLOCK} bytes at {at} of {}", path.display()),
                ] {
                    assert!(told.contains(part), "{kind}: '{part}' is not in: {told}");
                }
                assert!(error.hint().unwrap_or_default().contains(hint), "{error:?}");
            }
        }
    });
}

#[test]
fn what_the_kernel_puts_off_for_ever_ends_with_an_error() {
    on_each_engine(|kind| {
        for errno in [Errno::INTR, Errno::AGAIN] {
            let kernel = Kernel::on_completion(move |asked, result| {
                if asked.offset >= STRUCK {
                    *result = Err(errno);
                }
            });
            let handle = kernel.handle(kind, &config());
            let (stream, folder) = (stream(), Folder::new());
            let path = folder.path("struck");
            let error = failed(&handle, &stream, |handle, struck| {
                handle.async_pwrite(&stream, struck, &path, START)
            });
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains(&path.display().to_string()));
        }
    });
}

#[test]
fn a_write_of_which_nothing_is_taken_fails() {
    on_each_engine(|kind| {
        let kernel = Kernel::on_completion(|asked, result| {
            if asked.offset >= STRUCK {
                *result = Ok(0);
            }
        });
        let handle = kernel.handle(kind, &config());
        let (stream, folder) = (stream(), Folder::new());
        let path = folder.path("struck");
        let error = failed(&handle, &stream, |handle, struck| {
            handle.async_pwrite(&stream, struck, &path, START)
        });
        assert!(error.to_string().contains("takes none of them"), "{error}");
    });
}

#[test]
fn a_disk_that_does_not_take_the_data_fails_the_write() {
    on_each_engine(|kind| {
        let kernel = Kernel::on_completion(|asked, result| {
            if asked.action == Action::Sync {
                *result = Err(Errno::IO);
            }
        });
        let handle = kernel.handle(kind, &config());
        let (stream, folder) = (stream(), Folder::new());
        let path = folder.path("struck");
        let options = WriteOptions {
            fsync: true,
            ..WriteOptions::default()
        };
        let error = failed(&handle, &stream, |handle, struck| {
            let extent = crate::Extent {
                file_offset: 0,
                memory_offset: 0,
                bytes: struck.bytes(),
            };
            handle.write_extents(&stream, struck, &path, &[extent], &options)
        });
        let wanted = format!("bring {} to the disk: Input/output error", path.display());
        assert!(error.to_string().contains(&wanted), "{error}");
    });
}
