//! Sums of what was moved: right for every engine and block, and held against what is expected and
//! against the file.

use ds_core::{ErrorKind, Tensor};

use super::{Folder, Kernel, on_each_engine, pattern, stream, tensor};
use crate::{AioConfig, AioHandle, Extent, ReadOptions, WriteOptions, crc64_nvme, engine::Action};

const BYTES: usize = 300_013;

fn config(block_size: u64, lanes: u32) -> AioConfig {
    AioConfig {
        block_size,
        intra_op_parallelism: lanes,
        queue_depth: 5,
        ..AioConfig::default()
    }
}

fn all(tensor: &Tensor, file_offset: u64) -> Extent {
    Extent {
        file_offset,
        memory_offset: 0,
        bytes: tensor.bytes(),
    }
}

#[test]
fn the_checksum_is_that_of_the_bytes_in_the_order_of_the_extents() {
    on_each_engine(|kind| {
        for (block_size, lanes) in [(4096, 1), (4096, 3), (65536, 2), (1 << 20, 1)] {
            let handle = AioHandle::with_engine(&config(block_size, lanes), kind).unwrap();
            let (stream, folder) = (stream(), Folder::new());
            let bytes = pattern(BYTES, 1);
            let x = tensor(&stream, &bytes);
            let path = folder.path("file");
            let write = WriteOptions {
                checksum: true,
                ..WriteOptions::default()
            };
            let read = ReadOptions {
                checksum: true,
                expect: Some(crc64_nvme(&bytes)),
                validate: true,
            };
            let done = handle
                .write_extents(&stream, &x, &path, &[all(&x, 777)], &write)
                .unwrap()
                .wait()
                .unwrap();
            assert_eq!(done.checksum, Some(crc64_nvme(&bytes)));
            let done = handle
                .read_extents(&stream, &x, &path, &[all(&x, 777)], &read)
                .unwrap()
                .wait()
                .unwrap();
            assert_eq!(done.checksum, Some(crc64_nvme(&bytes)));
            // The last third first, and from elsewhere in memory.
            let third = BYTES as u64 / 3;
            let extents = [
                Extent {
                    file_offset: 777 + 2 * third,
                    memory_offset: 0,
                    bytes: third,
                },
                Extent {
                    file_offset: 777,
                    memory_offset: 2 * third,
                    bytes: third,
                },
            ];
            let cut = usize::try_from(third).unwrap();
            let order = [&bytes[2 * cut..3 * cut], &bytes[..cut]].concat();
            let read = ReadOptions {
                checksum: true,
                validate: true,
                expect: None,
            };
            let done = handle
                .read_extents(&stream, &x, &path, &extents, &read)
                .unwrap()
                .wait()
                .unwrap();
            assert_eq!(done.checksum, Some(crc64_nvme(&order)));
        }
    });
}

#[test]
fn nobody_is_told_a_sum_that_was_not_asked_for_and_nothing_has_one() {
    let handle = AioHandle::new(&AioConfig::default()).unwrap();
    let (stream, folder) = (stream(), Folder::new());
    let x = tensor(&stream, &pattern(5000, 1));
    let path = folder.path("file");
    let done = handle.sync_pwrite(&stream, &x, &path, 0).unwrap();
    assert_eq!(done.checksum, None);
    let expect = ReadOptions {
        expect: Some(crc64_nvme(&pattern(5000, 1))),
        ..ReadOptions::default()
    };
    let done = handle
        .read_extents(&stream, &x, &path, &[all(&x, 0)], &expect)
        .unwrap();
    assert_eq!(done.wait().unwrap().checksum, None);
    let empty = ReadOptions {
        checksum: true,
        validate: true,
        expect: Some(crc64_nvme(&[])),
    };
    let done = handle
        .read_extents(&stream, &x, &path, &[], &empty)
        .unwrap();
    assert_eq!(done.wait().unwrap().checksum, Some(crc64_nvme(&[])));
}

#[test]
fn another_sum_than_expected_fails_the_read_with_both() {
    on_each_engine(|kind| {
        let handle = AioHandle::with_engine(&config(65536, 2), kind).unwrap();
        let (stream, folder) = (stream(), Folder::new());
        let mut bytes = pattern(BYTES, 1);
        let wanted = crc64_nvme(&bytes);
        bytes[200_000] ^= 1;
        let path = folder.file("file", &bytes);
        let x = tensor(&stream, &bytes);
        let options = ReadOptions {
            expect: Some(wanted),
            ..ReadOptions::default()
        };
        let error = handle
            .read_extents(&stream, &x, &path, &[all(&x, 0)], &options)
            .unwrap()
            .wait()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let told = error.to_string();
        for part in [
            format!("{wanted:016x}"),
            format!("{:016x}", crc64_nvme(&bytes)),
            path.display().to_string(),
        ] {
            assert!(told.contains(&part), "{told}");
        }
    });
}

#[test]
fn a_byte_that_changes_on_the_way_is_seen() {
    on_each_engine(|kind| {
        // One block goes to, or comes from, a page further on in the file; the kernel says it did
        // as it was told.
        for struck in [Action::Read, Action::Write] {
            let kernel = Kernel::on_request(move |request| {
                if request.action == struck && request.offset == 65536 {
                    request.offset += 4096;
                }
            });
            let handle = kernel.handle(kind, &config(65536, 1));
            let (stream, folder) = (stream(), Folder::new());
            let bytes = pattern(BYTES, 1);
            let x = tensor(&stream, &bytes);
            let path = folder.file("file", &bytes);
            // Each direction alone, since two wrongs are one right.
            let operation = if struck == Action::Read {
                handle.pread(&stream, &x, &path, true, true, 0)
            } else {
                let other = tensor(&stream, &pattern(BYTES, 2));
                handle.pwrite(&stream, &other, &path, true, true, 0)
            };
            let error = operation.unwrap().wait().unwrap_err();
            let told = error.to_string();
            assert!(told.contains("other bytes than were moved"), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
            // Without it nobody looks.
            handle.sync_pread(&stream, &x, &path, 0).unwrap();
        }
    });
}
