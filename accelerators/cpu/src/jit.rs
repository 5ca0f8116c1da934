//! Builds and loads: kernel sources become a shared library through the system's C compiler.
//!
//! One of the three places of the project that open libraries. What is opened here the host has
//! built or checked, and it stays open.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ds_kernels::{Kernel, KernelSet};
use ds_plugin::{Artefact, BuildRequest, Error, Result, Toolchain, abi::DS_STALE};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use crate::{
    ops::{CKernel, CPU_ABI},
    probe,
};

/// Name of this accelerator in `kernel.json`.
const ACCELERATOR: &str = "cpu";

/// The system's C compiler.
pub(crate) fn toolchain() -> Toolchain {
    Toolchain {
        in_process: false,
        name: "cc".to_owned(),
        programs: "$CC cc gcc clang".to_owned(),
        version: "--version".to_owned(),
        hint: "install a C compiler (`apt install gcc`), or name one in CC".to_owned(),
    }
}

/// The build of the folder that `kernel` belongs to; of an empty function when it is empty.
///
/// All kernels of a folder share one artefact, so their requests are equal and it is built once.
pub(crate) fn request(kernel: &str, target: &str) -> Result<BuildRequest> {
    let mut arguments: Vec<String> = [
        "-std=gnu11",
        // Kernels are written in vectors. Beyond level 2, compilers copy functions for their constant
        // arguments and loops for what they ask, which only costs time. What kernels need of it: loops
        // of few and constant turns are written out, and plain ones made vectors.
        "-O2",
        "-fpeel-loops",
        "-fvect-cost-model=dynamic",
        "-fPIC",
        "-shared",
        "-ffp-contract=off",
        "-fno-math-errno",
        // Else a name that is not there is an int, and the complaint is of what is done with it.
        "-Werror=implicit-function-declaration",
    ]
    .map(str::to_owned)
    .into();
    let features = probe::features(target)?;
    arguments.extend(features.iter().map(|feature| format!("-m{feature}")));
    if kernel.is_empty() {
        let source = "int ds_smoke(int x) { return x + 1; }\n";
        arguments.extend(["-o", "smoke.so", "smoke.c"].map(str::to_owned));
        return Ok(BuildRequest {
            toolchain: toolchain().name,
            sources: vec![("smoke.c".into(), source.as_bytes().into())],
            arguments,
            output: "smoke.so".to_owned(),
        });
    }
    let (set, entry) = find(kernel)?;
    let output = format!("{}.so", set.name);
    arguments.extend(["-I.", "-o", &output].map(str::to_owned));
    arguments.extend(entry.sources.iter().map(|&source| source.to_owned()));
    arguments.push("-lm".to_owned());
    Ok(BuildRequest {
        toolchain: toolchain().name,
        sources: (set.files.iter().chain(ds_kernels::headers()))
            .map(|&(name, content)| (name.into(), content.into()))
            .collect(),
        arguments,
        output,
    })
}

/// Loads the library at the artefact's path, once, and finds the kernel in it.
pub(crate) fn load(artefact: Artefact<'_>) -> Result<&'static CKernel> {
    static OPEN: Mutex<Option<HashMap<String, &'static Library>>> = Mutex::new(None);
    let (_, entry) = find(artefact.kernel)?;
    let stale = |what: String| Error::new(DS_STALE, format!("{}: {what}", artefact.path));
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    let library = if let Some(library) = open.get(artefact.path) {
        *library
    } else {
        // SAFETY: the host has built this file from our own sources, or validated it; kernels have
        // no constructors. The library is leaked, so nothing it defines ever goes away.
        let library = unsafe { Library::open(Some(artefact.path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| stale(e.to_string()))?;
        let library: &'static Library = Box::leak(Box::new(library));
        open.insert(artefact.path.to_owned(), library);
        library
    };
    let name = entry.symbol;
    // SAFETY: a kernel's symbol is a `const ds_kernel` (ds_cpu.h); its version is checked below.
    let symbol: Symbol<*const CKernel> = unsafe { library.get(name.as_bytes()) }
        .map_err(|e| stale(format!("no symbol '{name}': {e}")))?;
    // SAFETY: the address of a constant in a library that stays open.
    let kernel: &'static CKernel = unsafe { &*symbol.into_raw().cast::<CKernel>() };
    if kernel.abi == CPU_ABI {
        Ok(kernel)
    } else {
        Err(stale(format!(
            "made for version {} of ds_cpu.h, not {CPU_ABI}",
            kernel.abi
        )))
    }
}

fn find(kernel: &str) -> Result<(&'static KernelSet, &'static Kernel)> {
    ds_kernels::find(ACCELERATOR, kernel).ok_or_else(|| {
        Error::invalid_argument(format!(
            "no kernel '{kernel}' for {ACCELERATOR} is known here"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process};

    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_the_first_complaint() {
        let request = request("", &probe::target().unwrap()).unwrap();
        let compiler = process::Command::new("cc")
            .args(request.arguments.iter().filter(|a| *a != "smoke.c"))
            .args(["-fsyntax-only", "-x", "c", "-"])
            .stdin(process::Stdio::piped())
            .stderr(process::Stdio::piped())
            .spawn();
        let Ok(mut compiler) = compiler else {
            eprintln!("skipped: there is no C compiler called cc");
            return;
        };
        let source = b"struct v { float a; } f(void) { struct v v = ds_spalt(); return v; }\n";
        compiler.stdin.take().unwrap().write_all(source).unwrap();
        let done = compiler.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&done.stderr);
        let first = log.lines().find(|line| line.contains("error"));
        assert!(first.is_some_and(|line| line.contains("ds_spalt")), "{log}");
    }
}
