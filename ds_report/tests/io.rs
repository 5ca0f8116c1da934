//! Files as an operator asks for them: the engines, what a device has, and what a disk gives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;
use support::House;

/// A folder of the house, empty.
fn folder(house: &House) -> String {
    fs::create_dir(house.path("disk")).unwrap();
    house.text("disk")
}

#[test]
fn engines_and_devices_are_told() {
    let house = House::new();
    house.run("io").says(
        0,
        &[
            "  threads   allowed  ",
            "a program gets ",
            "DS_IO_ENGINE is not set",
            "memory that may be locked: ",
            "cpu:0\n  async_io    moves its tensors without a copy",
            "  gds         missing: ",
            "--measure FOLDER",
        ],
    );
    let io = house.json("io");
    assert_eq!(io["engines"][2]["name"], "threads");
    assert_eq!(io["measured"], Value::Null);
    house
        .run_with("io", &[("DS_IO_ENGINE", "threads")])
        .says(0, &["a program gets threads: DS_IO_ENGINE names it"]);
    house.run_with("io", &[("DS_IO_ENGINE", "uring")]).says(
        0,
        &[
            "a program gets none: DS_IO_ENGINE: there is no engine 'uring'",
            "hint: unset DS_IO_ENGINE",
        ],
    );
    house
        .run_with("io", &[("DS_ACCELERATOR", "bogus")])
        .says(0, &["no device: ", "allowed"]);
}

#[test]
fn a_device_without_pinned_memory_says_so_when_it_is_asked() {
    let Some(house) = House::with_sim() else {
        return;
    };
    house.run("").says(
        0,
        &["..... [?]      only the open device tells: `ds_report io --device sim:0`"],
    );
    house
        .run("io --device sim:0")
        .says(
            0,
            &["sim:0\n", "pin_memory  no: ", "sim has no pinned memory"],
        )
        .is_silent_of("sim:1");
    house
        .run("--require pin_memory@sim")
        .says(3, &["pin_memory@sim: ", "sim has no pinned memory"]);
    house
        .run("--require async_io@sim")
        .says(0, &["by way of host memory"]);
    house
        .run("--require gds@sim")
        .says(3, &["boundary 1.0 has no table"]);
}

#[test]
fn a_disk_is_measured_and_left_as_it_was() {
    let house = House::new();
    let disk = folder(&house);
    fs::write(house.path("disk/data"), "precious").unwrap();
    let line = format!("io --measure {disk} --size 4M --seconds 1");
    let ran = house.run(&line);
    ran.says(
        0,
        &[
            "written and read in each of",
            "locked memory of cpu:0",
            "  recommended\n",
        ],
    );
    // What is to be pasted is JSON to the end, and what a handle is made of.
    let block = &ran.text[ran.text.find("\n{\n").unwrap()..];
    let block: Value = serde_json::from_str(block).unwrap();
    let config: ds_io::AioConfig = serde_json::from_value(block["aio"].clone()).unwrap();
    assert!(ds_io::AioHandle::new(&config).is_ok());

    let measured = &house.json(&line)["measured"];
    let best = usize::try_from(measured["recommended"]["setting"].as_u64().unwrap()).unwrap();
    let (best, aio) = (&measured["settings"][best], &measured["recommended"]["aio"]);
    assert_eq!(best["block_size"], aio["block_size"]);
    assert_eq!(best["queue_depth"], aio["queue_depth"]);
    for row in measured["settings"].as_array().unwrap() {
        for way in ["read", "write"] {
            let speed = |figure: &str| row[way][figure].as_f64().unwrap();
            let [least, median, most] =
                ["least_gb_per_s", "median_gb_per_s", "most_gb_per_s"].map(speed);
            assert!(0.0 < least && least <= median && median <= most, "{row}");
        }
    }
    let left: Vec<_> = fs::read_dir(&disk).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(fs::read(house.path("disk/data")).unwrap(), b"precious");
}

#[test]
fn only_the_engine_that_is_named_is_measured() {
    let house = House::new();
    let line = format!("io --measure {} --size 4M --seconds 1", folder(&house));
    let ran = house.run_with(&line, &[("DS_IO_ENGINE", "threads")]);
    let rows = |engine: &str| {
        let rows = ran.text.lines().filter(|line| line.contains(" KiB "));
        rows.filter(|line| line.trim_start().starts_with(engine))
            .count()
    };
    assert!(
        rows("threads") > 0 && rows("io_uring") + rows("aio") == 0,
        "{ran:#?}"
    );
    ran.is_silent_of("in the environment, too");
    house.run_with(&line, &[("DS_IO_ENGINE", "uring")]).says(
        1,
        &["there is no engine 'uring'", "hint: unset DS_IO_ENGINE"],
    );
}

#[test]
fn memory_is_not_called_a_disk() {
    if !fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .contains(" /dev/shm rw")
    {
        support::skipped("no tmpfs at /dev/shm");
        return;
    }
    House::new()
        .run("io --measure /dev/shm --size 4M --seconds 1")
        .says(
            0,
            &[
                "/dev/shm (tmpfs)",
                "this is no disk's speed: a tmpfs is kept in memory",
            ],
        );
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_way_out() {
    let house = House::new();
    let disk = folder(&house);
    let measure = |path: &str| house.run(&format!("io --measure {path}"));
    fs::write(house.path("disk/data"), "precious").unwrap();
    measure(&house.text("disk/data")).says(
        2,
        &[
            "is not a folder",
            "hint: so that no file is overwritten",
            &disk,
        ],
    );
    assert_eq!(fs::read(house.path("disk/data")).unwrap(), b"precious");
    measure(&house.text("none")).says(2, &["No such file or directory\nhint: name a folder"]);
    measure("/dev/null").says(2, &["is not a folder", "a folder of its filesystem"]);
    measure(&format!("{disk} --size 1000T")).says(
        1,
        &[
            "free, too little for 1000.0 TiB",
            "hint: make room, or take less: --size ",
        ],
    );
    measure(&format!("{disk} --size 4K")).says(2, &["too small", "the least is 2M"]);
    house.run("io --size 4M").says(2, &["--measure <FOLDER>"]);
    house.run("io --device bogus").says(1, &["`bogus`"]);

    // Who may write anything is refused by nothing.
    let closed = house.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(closed.join("probe"), "").is_err() {
        measure(&house.text("closed")).says(1, &["Permission denied", "may write to"]);
    } else {
        support::skipped("this user may write to folders that are closed");
    }
}
