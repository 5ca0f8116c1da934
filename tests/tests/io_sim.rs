//! Files and a device whose memory the host cannot reach, whose streams are late: the example in C.
//! The same orders on the CPU, whose streams are threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what is skipped is said")]

use std::fs;

use ds_core::{DType, Device, ErrorKind, Stream, Tensor, Timeline};
use ds_io::{AioConfig, AioHandle, EngineKind, Extent, ReadOptions, WriteOptions, crc64_nvme};
use ds_tests::{cpu, sim::devices};
use tempfile::TempDir;

fn config() -> AioConfig {
    AioConfig {
        block_size: 16384,
        queue_depth: 4,
        intra_op_parallelism: 2,
        ..AioConfig::default()
    }
}

/// One with each engine that the kernel allows.
fn handles() -> Vec<AioHandle> {
    let made = |kind: EngineKind| match AioHandle::with_engine(&config(), kind) {
        Ok(handle) => Some(handle),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    };
    EngineKind::ALL.into_iter().filter_map(made).collect()
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    let byte = |n: usize| (n * 37 + seed * 11 + (n >> 7)).to_le_bytes()[0];
    (0..bytes).map(byte).collect()
}

fn tensor(stream: &Stream, bytes: &[u8]) -> Tensor {
    let extent = i64::try_from(bytes.len()).unwrap();
    let tensor = Tensor::from_bytes(stream, DType::U8, &[extent], bytes).unwrap();
    stream.synchronize().unwrap();
    tensor
}

#[test]
fn tensors_of_a_device_go_to_files_and_come_back() {
    let Some([device, _]) = devices() else { return };
    let stream = Stream::new(device).unwrap();
    for handle in handles() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        let mut moved = 0;
        for (seed, size) in [0, 1, 511, 4096, 4097, 300_013].into_iter().enumerate() {
            for offset in [0, 1, 4096, 5000] {
                let bytes = pattern(size, seed);
                let source = tensor(&stream, &bytes);
                let write = WriteOptions {
                    checksum: true,
                    validate: true,
                    ..WriteOptions::default()
                };
                let all = Extent {
                    file_offset: offset,
                    memory_offset: 0,
                    bytes: size as u64,
                };
                let done = handle
                    .write_extents(&stream, &source, &path, &[all], &write)
                    .unwrap()
                    .wait()
                    .unwrap();
                assert_eq!(done.checksum, Some(crc64_nvme(&bytes)));
                let start = usize::try_from(offset).unwrap();
                if size > 0 {
                    let file = fs::read(&path).unwrap();
                    assert!(file[start..start + size] == bytes, "{size} at {offset}");
                }
                // Into a part of a tensor, of which the rest stays.
                let guarded = tensor(&stream, &vec![0xa5; size + 20]);
                let part = guarded.narrow(0, 7, i64::try_from(size).unwrap()).unwrap();
                let read = ReadOptions {
                    expect: Some(crc64_nvme(&bytes)),
                    ..ReadOptions::default()
                };
                if size > 0 {
                    let done = handle.read_extents(&stream, &part, &path, &[all], &read);
                    done.unwrap().wait().unwrap();
                }
                let found = guarded.to_bytes(&stream).unwrap();
                let wanted = [&[0xa5; 7][..], &bytes, &[0xa5; 13]].concat();
                assert!(found == wanted, "{size} at {offset}");
                moved += 2 * size as u64;
            }
        }
        let stats = handle.stats();
        assert_eq!(
            stats.staged_bytes, moved,
            "all of it goes by way of the host"
        );
        // The device has no pinned memory.
        assert_eq!(stats.pinned_staging_bytes, 0);
        assert_eq!(stats.pageable_staging_bytes, 2 * 4 * 16384);
    }
}

/// A write that is queued behind a kernel on a blocked stream.
fn write_follows_the_kernel(device: Device) {
    let [stream, other] = [(); 2].map(|()| Stream::new(device).unwrap());
    for handle in handles() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        let x = tensor(&stream, &pattern(100_013, 1));
        let y = tensor(&other, &pattern(200_013, 2));
        let [gate, first] = [(); 2].map(|()| Timeline::new(device).unwrap());
        let [point, before] = [&gate, &first].map(Timeline::next);
        stream.wait(&point).unwrap();
        other.wait(&before).unwrap();
        x.buffer().fill(&stream, 7).unwrap();
        // It returns, though the stream goes on only after the lines that follow.
        let operation = handle.async_pwrite(&stream, &x, &path, 3).unwrap();
        // What was begun later is done: nobody could have overlooked that the first has to wait.
        let later = handle.async_pwrite(&other, &y, &folder.path().join("other"), 0);
        first.signal(before.value()).unwrap();
        later.unwrap().wait().unwrap();
        let early = (
            operation.is_done(),
            operation.point().unwrap().is_reached().unwrap(),
            handle.stats().written_bytes,
        );
        // Before anything that may panic: a stream is waited for when it is dropped.
        gate.signal(point.value()).unwrap();
        assert_eq!(early, (false, false, 200_013));
        assert_eq!(operation.wait().unwrap().bytes, 100_013);
        assert!(operation.is_done() && operation.point().unwrap().is_reached().unwrap());
        let file = fs::read(&path).unwrap();
        assert!(file[3..] == vec![7; 100_013], "before the kernel");
    }
}

#[test]
fn a_write_takes_what_the_kernels_before_it_made_and_nobody_waits() {
    let Some([device, _]) = devices() else { return };
    write_follows_the_kernel(device);
}

#[test]
fn on_the_cpu_a_write_takes_what_the_kernels_before_it_made() {
    write_follows_the_kernel(cpu().unwrap());
}

/// A kernel that is queued behind a read that has not begun.
fn kernel_follows_the_read(device: Device) {
    let [behind, stream] = [(); 2].map(|()| Stream::new(device).unwrap());
    for handle in handles() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        let bytes = pattern(100_013, 2);
        fs::write(&path, &bytes).unwrap();
        let x = tensor(&stream, &vec![0; 100_013]);
        let y = tensor(&stream, &vec![0; 100_013]);
        let gate = Timeline::new(device).unwrap();
        let point = gate.next();
        behind.wait(&point).unwrap();
        let operation = handle.async_pread(&behind, &x, &path, 0).unwrap();
        stream.wait(&operation.point().unwrap()).unwrap();
        y.buffer()
            .copy_from(&stream, 0, x.buffer(), 0, 100_013)
            .unwrap();
        let after = stream.record().unwrap();
        let early = after.is_reached().unwrap();
        gate.signal(point.value()).unwrap();
        assert!(!early);
        after.wait(None).unwrap();
        assert!(operation.is_done());
        assert!(y.to_bytes(&stream).unwrap() == bytes);
    }
}

#[test]
fn a_kernel_waits_for_the_read_that_it_needs() {
    let Some([device, _]) = devices() else { return };
    kernel_follows_the_read(device);
}

#[test]
fn on_the_cpu_a_kernel_waits_for_the_read_that_it_needs() {
    kernel_follows_the_read(cpu().unwrap());
}

/// A read that fails before a stream that waits for it.
fn failure_reaches_the_stream(device: Device) {
    for handle in handles() {
        let [behind, stream] = [(); 2].map(|()| Stream::new(device).unwrap());
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, pattern(100_013, 2)).unwrap();
        let x = tensor(&behind, &vec![9; 100_013]);
        let gate = Timeline::new(device).unwrap();
        let point = gate.next();
        behind.wait(&point).unwrap();
        let operation = handle.async_pread(&behind, &x, &path, 0).unwrap();
        stream.wait(&operation.point().unwrap()).unwrap();
        let after = stream.record().unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(50_000)
            .unwrap();
        gate.signal(point.value()).unwrap();
        let error = operation.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("it was truncated"), "{error}");
        assert!(after.wait(None).is_err(), "it went on with half a tensor");
        assert!(stream.synchronize().is_err());
        // Other streams do not hear of it.
        behind.synchronize().unwrap();
        assert_eq!(handle.wait().unwrap_err().kind(), ErrorKind::Io);
    }
}

#[test]
fn a_read_that_fails_fails_the_stream_that_waits_for_it() {
    let Some([device, _]) = devices() else { return };
    failure_reaches_the_stream(device);
}

#[test]
fn on_the_cpu_a_read_that_fails_fails_the_stream_that_waits_for_it() {
    failure_reaches_the_stream(cpu().unwrap());
}

#[test]
fn a_tensor_and_a_stream_of_different_devices_are_refused_before_there_is_a_file() {
    let Some([device, other]) = devices() else {
        return;
    };
    let [stream, elsewhere] = [device, other].map(|device| Stream::new(device).unwrap());
    let x = tensor(&stream, &[1; 100]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let handle = AioHandle::new(&config()).unwrap();
    let error = handle.async_pwrite(&elsewhere, &x, &path, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let told = error.to_string();
    assert!(told.contains("sim:0") && told.contains("sim:1"), "{told}");
    assert!(!path.exists());
}
