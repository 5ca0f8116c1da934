//! The smallest plugins that load, in C and in Rust: what they have works, what they lack says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds_core::{DType, ErrorKind, Host, Stream, Tensor, discovery::Verdict};
use ds_tests::example;

fn check(host: &Host, id: &str) {
    let null = host.accelerator("null").unwrap();
    assert_eq!(null.plugin().id(), id);
    assert_eq!(null.device_count().unwrap(), 1);
    assert_eq!(null.device_info(1).unwrap_err().kind(), ErrorKind::NoDevice);
    let device = null.device(0).unwrap();
    assert_eq!(device.to_string(), "null:0");
    let error = Stream::new(device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unimplemented);
    assert_eq!(
        error.to_string(),
        "null stream_create: the plugin has no 'stream_create' in its stream table"
    );
    assert_eq!(
        device.memory_info().unwrap_err().kind(),
        ErrorKind::Unimplemented
    );
    device.synchronize().unwrap();
    // Nobody gets a tensor on it by accident.
    let cpu = host
        .accelerator("cpu")
        .unwrap()
        .device(0)
        .unwrap()
        .default_stream()
        .unwrap();
    assert!(Tensor::empty(cpu, DType::F32, &[1]).is_ok());
}

#[test]
fn the_smallest_in_rust() {
    let folder = tempfile::tempdir().unwrap();
    example::build_null_rust(folder.path()).unwrap();
    check(&example::host(folder.path()), "org.example.null-rust");
}

#[test]
fn the_smallest_in_c() {
    let folder = tempfile::tempdir().unwrap();
    if example::build_c("null-c", "libds_example_null.so", folder.path()).unwrap() {
        check(&example::host(folder.path()), "org.example.null");
    }
}

#[test]
fn the_second_plugin_for_one_accelerator_is_shadowed_and_says_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    example::build_null_rust(folder.path()).unwrap();
    if !example::build_c("null-c", "libds_example_null.so", folder.path()).unwrap() {
        return;
    }
    let host = example::host(folder.path());
    let verdicts: Vec<_> = host
        .discovery()
        .candidates
        .iter()
        .filter(|c| {
            c.manifest
                .as_ref()
                .is_some_and(|m| m.accelerator.as_str() == "null")
        })
        .map(|c| &c.verdict)
        .collect();
    assert!(
        matches!(verdicts[..], [Verdict::Found, Verdict::Shadowed { by, .. }] if by.contains("null-c")),
        "{verdicts:?}"
    );
}
