//! Files that are replaced as a whole: whoever looks sees the old one or the new one.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use ds_core::Tensor;
use rustix::io::Errno;

use super::{Folder, Kernel, on_each_engine, pattern, stream, tensor};
use crate::{AioConfig, AioHandle, Extent, Operation, WriteOptions, engine::Action};

const BYTES: usize = 300_013;

fn config() -> AioConfig {
    AioConfig {
        block_size: 16384,
        queue_depth: 4,
        intra_op_parallelism: 1,
        ..AioConfig::default()
    }
}

fn replace(handle: &AioHandle, x: &Tensor, path: &Path) -> ds_core::Result<Operation> {
    let all = Extent {
        file_offset: 0,
        memory_offset: 0,
        bytes: x.bytes(),
    };
    let options = WriteOptions {
        replace: true,
        ..WriteOptions::default()
    };
    handle.write_extents(&stream(), x, path, &[all], &options)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_that_could_not_be_replaced_is_the_old_one_and_alone() {
    on_each_engine(|kind| {
        let at = 10 * 16384;
        let fatal = match kind {
            crate::EngineKind::Aio => Errno::NOSYS,
            _ => Errno::BADF,
        };
        let calls = AtomicU32::new(0);
        let kernels = [
            Kernel::on_completion(move |asked, result| {
                if asked.offset == at {
                    *result = Err(Errno::NOSPC);
                }
            }),
            Kernel::on_completion(|asked, result| {
                if asked.action == Action::Sync {
                    *result = Err(Errno::IO);
                }
            }),
            // The engine breaks with requests in flight.
            Kernel::on_submit(move |_| {
                (calls.fetch_add(1, Ordering::SeqCst) >= 2).then_some(fatal)
            }),
        ];
        for kernel in kernels {
            let handle = kernel.handle(kind, &config());
            let (stream, folder) = (stream(), Folder::new());
            let old = pattern(BYTES, 1);
            let path = folder.file("file", &old);
            let x = tensor(&stream, &pattern(BYTES, 2));
            for target in [&path, &folder.path("new")] {
                let error = replace(&handle, &x, target).unwrap().wait().unwrap_err();
                assert!(error.to_string().contains("write a file"), "{error}");
                // When its end is told, all of it is over.
                assert_eq!(folder.names(), ["file"], "{error}");
            }
            assert!(std::fs::read(&path).unwrap() == old);
            drop(handle);
            assert_eq!(folder.names(), ["file"]);
        }
    });
}

#[test]
fn a_folder_is_not_replaced() {
    let handle = AioHandle::new(&config()).unwrap();
    let (stream, folder) = (stream(), Folder::new());
    let path = folder.path("folder");
    std::fs::create_dir(&path).unwrap();
    let x = tensor(&stream, &pattern(100, 2));
    let error = replace(&handle, &x, &path).and_then(|operation| operation.wait());
    assert!(error.unwrap_err().to_string().contains("directory"));
    assert_eq!(folder.names(), ["folder"]);
    assert!(path.is_dir());
}

#[test]
fn who_opens_it_meanwhile_finds_the_old_one_or_the_new_one() {
    on_each_engine(|kind| {
        let handle = AioHandle::with_engine(&config(), kind).unwrap();
        let (stream, folder) = (stream(), Folder::new());
        let contents = [pattern(BYTES, 1), pattern(BYTES / 2, 2)];
        let path = folder.file("file", &contents[0]);
        let replaced = AtomicBool::new(false);
        thread::scope(|scope| {
            let replaces = scope.spawn(|| {
                for round in 1..10 {
                    let x = tensor(&stream, &contents[round % 2]);
                    replace(&handle, &x, &path).unwrap().wait().unwrap();
                }
                replaced.store(true, Ordering::SeqCst);
            });
            while !replaced.load(Ordering::SeqCst) && !replaces.is_finished() {
                let found = std::fs::read(&path).unwrap();
                assert!(contents.contains(&found), "{} bytes", found.len());
            }
        });
        assert!(std::fs::read(&path).unwrap() == contents[1]);
        assert_eq!(folder.names(), ["file"]);
    });
}

#[test]
fn the_new_file_has_the_mode_of_the_old_and_a_link_stays_a_link() {
    let handle = AioHandle::new(&config()).unwrap();
    let (stream, folder) = (stream(), Folder::new());
    let bytes = pattern(BYTES, 2);
    let x = tensor(&stream, &bytes);
    for wanted in [0o600, 0o640, 0o666, 0o755] {
        let path = folder.file("file", &[1; 10]);
        let permissions = std::fs::Permissions::from_mode(wanted);
        std::fs::set_permissions(&path, permissions).unwrap();
        replace(&handle, &x, &path).unwrap().wait().unwrap();
        assert_eq!(mode(&path), wanted);
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
    // A new one has what any new file has.
    let (new, usual) = (folder.path("new"), folder.file("usual", &[]));
    replace(&handle, &x, &new).unwrap().wait().unwrap();
    assert_eq!(mode(&new), mode(&usual));

    let elsewhere = Folder::new();
    let target = elsewhere.file("target", &[1; 10]);
    let link = folder.path("link");
    symlink(&target, &link).unwrap();
    replace(&handle, &x, &link).unwrap().wait().unwrap();
    assert!(link.is_symlink());
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(elsewhere.names(), ["target"]);
    assert_eq!(folder.names(), ["file", "link", "new", "usual"]);
}
