//! The static check of plugin libraries, on files that a real linker made and on damaged ones.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

use std::{
    cell::Cell,
    fs,
    io::{self, Cursor, Read, Seek, SeekFrom},
    rc::Rc,
};

use common::{PLUGIN_C, library};
use ds_core::{
    ErrorKind,
    elf::{check_plugin, check_plugin_in},
};

/// The verdict over a library made of `source`; nothing without a C compiler.
fn refusal(source: &str, flags: &[&str]) -> Option<String> {
    let home = tempfile::tempdir().unwrap();
    let path = library(home.path(), source, flags)?;
    let error = check_plugin(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    Some(error.context().to_owned())
}

#[test]
fn takes_a_library_with_the_one_export() {
    let home = tempfile::tempdir().unwrap();
    for flags in [
        &["-Wl,-soname,libsim.so.1", "-Wl,--no-as-needed", "-lm"][..],
        &[
            "-Wl,-soname,libsim.so.1",
            "-Wl,--no-as-needed",
            "-lm",
            "-Wl,--hash-style=sysv",
        ],
        &[
            "-Wl,-soname,libsim.so.1",
            "-Wl,--no-as-needed",
            "-lm",
            "-Wl,--hash-style=both",
            "-s",
        ],
    ] {
        let source = format!(
            "extern int puts(const char *); static int local; \
             __attribute__((visibility(\"hidden\"))) int hidden(void) {{ return puts(\"\"); }}\n\
             {PLUGIN_C}"
        );
        let Some(path) = library(home.path(), &source, flags) else {
            return;
        };
        let found = check_plugin(&path).unwrap();
        assert_eq!(found.soname.as_deref(), Some("libsim.so.1"));
        assert!(
            found.needed.iter().any(|name| name == "libm.so.6"),
            "{:?}",
            found.needed
        );
    }
}

#[test]
fn takes_what_start_files_and_version_scripts_leave() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("script");
    fs::write(&script, "V1 { global: ds_plugin_v1; local: *; };").unwrap();
    let flag = format!("-Wl,--version-script={}", script.display());
    let Some(path) = library(home.path(), PLUGIN_C, &[&flag]) else {
        return;
    };
    check_plugin(&path).unwrap();

    let source =
        format!("void _init(void) {{}} void _fini(void) {{}} int _edata, _end;\n{PLUGIN_C}");
    let path = library(home.path(), &source, &[]).unwrap();
    check_plugin(&path).unwrap();
}

#[test]
fn refuses_further_exports_and_names_them() {
    let source = format!(
        "int malloc(void) {{ return 1; }} __attribute__((weak)) int helper(void) {{ return 2; }}\n\
         int table[4];\n{PLUGIN_C}"
    );
    let Some(why) = refusal(&source, &[]) else {
        return;
    };
    for name in ["`malloc`", "`helper`", "`table`"] {
        assert!(why.contains(name), "{why}");
    }
    let many: Vec<String> = (0..40)
        .map(|i| format!("int f{i}(void) {{ return {i}; }}\n"))
        .collect();
    let why = refusal(&format!("{}{PLUGIN_C}", many.concat()), &[]).unwrap();
    assert!(why.contains(" and 35 more "), "{why}");
}

#[test]
fn refuses_a_missing_or_wrong_entry() {
    let Some(why) = refusal("static int nothing;\n", &[]) else {
        return;
    };
    assert!(why.contains("exports nothing"), "{why}");
    let why = refusal("int ggml_backend_init(void) { return 0; }\n", &[]).unwrap();
    assert!(why.contains("it exports `ggml_backend_init`"), "{why}");
    let why = refusal("int ds_plugin_v2(void) { return 0; }\n", &[]).unwrap();
    assert!(
        why.contains("it exports `ds_plugin_v2`, and this host speaks"),
        "{why}"
    );
    let why = refusal("int ds_plugin_v1;\n", &[]).unwrap();
    assert!(why.contains("is no function"), "{why}");
    // Wanted, not given: an import of the name is no entry.
    let why = refusal(
        "extern int ds_plugin_v1(void); int f(void) { return ds_plugin_v1(); }\n",
        &[],
    );
    assert!(why.unwrap().contains("does not export `ds_plugin_v1`"));
}

#[test]
fn refuses_programs_and_other_files() {
    let why = check_plugin(&std::env::current_exe().unwrap()).unwrap_err();
    assert!(why.context().contains("a program, not a library"), "{why}");
    for (bytes, expected) in [
        (&b""[..], "shorter than the header"),
        (b"MZ\x90\0 a library of another system", "no ELF file"),
        (b"\x7fELF", "no 64-bit ELF file"),
        (b"#!/bin/sh\necho plugin\n", "no ELF file"),
    ] {
        let why = check_plugin_in(Cursor::new(bytes)).unwrap_err();
        assert!(why.context().contains(expected), "{why}");
    }
}

#[test]
fn refuses_the_library_of_another_machine() {
    let home = tempfile::tempdir().unwrap();
    let Some(path) = library(home.path(), PLUGIN_C, &[]) else {
        return;
    };
    let good = fs::read(&path).unwrap();
    let with = |offset: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[offset] = byte;
        check_plugin_in(Cursor::new(bytes))
            .unwrap_err()
            .context()
            .to_owned()
    };
    // e_machine, EI_CLASS, EI_DATA and e_type, by their offsets in the ELF header.
    assert!(with(18, 0xf3).contains("it is for ELF machine 243, and this machine is "));
    assert!(with(4, 1).contains("no 64-bit ELF file"));
    assert!(with(5, 2).contains("the other byte order"));
    assert!(with(16, 2).contains("not a shared library"));
}

/// Counts the bytes that are read from it.
struct Counted(Cursor<Vec<u8>>, Rc<Cell<usize>>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get() + read);
        Ok(read)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn reads_a_few_blocks_of_a_large_library() {
    let home = tempfile::tempdir().unwrap();
    let source = format!(
        "static char weights[4 << 20] = {{1}}; \n\
         __attribute__((used)) static char *keep(void) {{ return weights; }}\n{PLUGIN_C}"
    );
    let Some(path) = library(home.path(), &source, &[]) else {
        return;
    };
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 4 << 20);
    let read = Rc::new(Cell::new(0));
    check_plugin_in(Counted(Cursor::new(bytes), Rc::clone(&read))).unwrap();
    assert!(read.get() < 8 << 10, "{} bytes read", read.get());
}

#[test]
fn survives_every_truncation_and_flip() {
    let home = tempfile::tempdir().unwrap();
    let Some(path) = library(home.path(), PLUGIN_C, &["-s"]) else {
        return;
    };
    let good = fs::read(&path).unwrap();
    // What the check reads lies in the first and the last pages; between them is padding.
    let used: Vec<usize> = (0..good.len()).filter(|&i| good[i] != 0).collect();
    let mut refused = 0;
    for &at in &used {
        refused += usize::from(check_plugin_in(Cursor::new(&good[..at])).is_err());
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= mask;
            // Either answer will do: many bytes do not matter to the check. None may panic, loop
            // or take memory that the file does not have.
            let _ = check_plugin_in(Cursor::new(bytes));
        }
    }
    assert!(refused > 0);
    // The header, the segments and the dynamic table matter: zeroes there never pass.
    for end in [64, 256, 1024] {
        let mut bytes = good.clone();
        bytes[16..end].fill(0);
        assert!(check_plugin_in(Cursor::new(bytes)).is_err());
    }
}
