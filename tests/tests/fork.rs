//! A child of fork is told that its parent's devices do not work in it, instead of hanging; the
//! parent goes on as if there were no child. One test: a fork copies what other threads are at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt::Debug,
    io::{Read, Write, pipe},
};

use ds_core::{Buffer, Error, ErrorKind, Host, Stream, Tensor, Timeline};
use ds_ops::cast::cast;
use ds_schema::DType;
use ds_tests::{cases::tensor, compare::values, cpu};

/// What the child saw, one line a try.
fn tried<T: Debug>(what: &str, result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{what}: worked: {value:?}\n"),
        Err(e) if e.kind() == ErrorKind::ShuttingDown => {
            format!("{what}: {e}; {}\n", e.hint().unwrap_or_default())
        }
        Err(e) => format!("{what}: {:?}: {e}\n", e.kind()),
    }
}

#[test]
fn a_child_is_refused_with_what_to_do_and_the_parent_goes_on() {
    let device = cpu().unwrap();
    let default = device.default_stream().unwrap();
    let stream = Stream::new(device).unwrap();
    let x = tensor(&stream, DType::F32, &[3], &[1.0, 2.0, 3.0]).unwrap();
    // Prepared and run once, so that the child would find everything ready.
    cast(default, &x, DType::BF16).unwrap();
    stream.synchronize().unwrap();
    let point = stream.record().unwrap();
    let (mut reader, mut writer) = pipe().unwrap();

    // SAFETY: the child writes to the pipe and leaves without unwinding into the test runner.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: only sets a timer, which ends a child that hangs.
        unsafe { libc::alarm(30) };
        let mut told = String::new();
        told += &tried("launch", cast(default, &x, DType::BF16));
        told += &tried("allocate", Buffer::new(&stream, 64));
        told += &tried("stream", Stream::new(device));
        told += &tried("timeline", Timeline::new(device));
        told += &tried("synchronize", device.synchronize());
        told += &tried("wait", point.wait(None));
        told += &tried("read", x.to_bytes(&stream));
        told += &tried("copy", x.buffer().fill(&stream, 0));
        // Gone without a word to the plugin, which would wait for a thread that is not there.
        drop((x, point, stream));
        let host = Host::with_search(ds_core::discovery::Search::empty());
        told += &tried("device", host.accelerator("cpu").and_then(|a| a.device(0)));
        let sent = writer.write_all(told.as_bytes());
        // SAFETY: ends the child at once; nothing of the test runner's runs in it.
        unsafe { libc::_exit(i32::from(sent.is_err())) };
    }
    drop(writer);
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    let mut status = 0;
    // SAFETY: `status` is writable for the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);

    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 9, "{told}");
    for line in lines {
        assert!(
            line.contains("was forked off one that had opened a device")
                && line.ends_with("start processes instead of forking after initialisation"),
            "{line}"
        );
    }
    let y: Tensor = cast(&stream, &x, DType::BF16).unwrap();
    assert_eq!(values(&stream, &y).unwrap(), [1.0, 2.0, 3.0]);
}
