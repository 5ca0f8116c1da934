//! `sanitize`: the C examples under the sanitizers of the C compiler, and the host's side of the
//! boundary under valgrind.
//!
//! What a sanitizer does not see: Rust's own reads and writes, because stable cannot instrument them,
//! and so data races, because a sanitizer that does not know Rust's locks takes every one for a race.
//! Leaks are not looked for: devices and plugins stay until the process ends, on purpose.

use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::step::{Gate, Outcome, run};

/// Reads beyond a block, which everything here has to notice.
const PLANTED: &str = "#include <stdlib.h>\n\
    int main(void) { volatile char *p = malloc(8); return p[8] ? 3 : 0; }\n";
const SANITIZERS: &str =
    "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all";

/// Runs the tests under each tool that is there; one that finds nothing wrong in a program that is
/// wrong is no tool.
pub(crate) fn check(gate: &Gate) -> Outcome {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let compiler_is_there = Command::new("cc").arg("--version").output().is_ok();
    if !compiler_is_there {
        println!("skipped: no C compiler (tried cc)");
        return Ok(());
    }
    examples(gate, folder.path())?;
    boundary(gate, folder.path())
}

/// The examples in C, instrumented, in a host that is not: so the sanitizer comes first.
fn examples(gate: &Gate, folder: &Path) -> Outcome {
    let library = run(Command::new("cc").arg("-print-file-name=libasan.so"))?;
    let library = library.trim();
    if !Path::new(library).is_absolute() {
        println!("skipped: the C compiler has no libasan.so; on Debian it comes with gcc");
        return Ok(());
    }
    let flags: Vec<&str> = SANITIZERS.split(' ').collect();
    let planted = plant(folder, &flags)?;
    notices("the sanitizer", &mut Command::new(planted))?;
    let runner = [
        "env",
        &format!("LD_PRELOAD={library}"),
        "ASAN_OPTIONS=detect_leaks=0",
        "UBSAN_OPTIONS=print_stacktrace=1",
    ];
    let programs = ["null", "sim", "sim_faults"];
    tests(gate, &runner, &programs, &[("DS_TESTS_CFLAGS", SANITIZERS)])?;
    println!(
        "address and undefined behaviour: the C examples, in {}",
        programs.join(", ")
    );
    Ok(())
}

/// What the host reads of a plugin's structs and of other libraries' tensors.
fn boundary(gate: &Gate, folder: &Path) -> Outcome {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: no valgrind; on Debian it is the package valgrind");
        return Ok(());
    }
    let runner = ["valgrind", "--quiet", "--error-exitcode=9"];
    let planted = plant(folder, &["-g", "-O0"])?;
    let mut planted_under_it = Command::new(runner[0]);
    notices("valgrind", planted_under_it.args(&runner[1..]).arg(planted))?;
    let programs = ["null", "dlpack", "fuzz_boundary"];
    tests(gate, &runner, &programs, &[])?;
    println!("valgrind: the host, in {}", programs.join(", "));
    Ok(())
}

/// Runs programs of `ds-tests` below `runner`.
fn tests(gate: &Gate, runner: &[&str], programs: &[&str], variables: &[(&str, &str)]) -> Outcome {
    // The words of a list in TOML are written as Rust writes strings.
    let runner = format!("target.'cfg(unix)'.runner={runner:?}");
    let mut arguments = vec!["test", "--config", &runner, "--package", "ds-tests"];
    for program in programs {
        arguments.extend(["--test", program]);
    }
    gate.cargo(&arguments, variables).map(drop)
}

/// Compiles the program that is wrong.
fn plant(folder: &Path, flags: &[&str]) -> Result<std::path::PathBuf, String> {
    let (source, program) = (folder.join("planted.c"), folder.join("planted"));
    std::fs::write(&source, PLANTED).map_err(|error| error.to_string())?;
    run(Command::new("cc")
        .args(flags)
        .arg(&source)
        .arg("-o")
        .arg(&program))?;
    Ok(program)
}

/// Fails when the program that is wrong ends well.
fn notices(tool: &str, planted: &mut Command) -> Outcome {
    let ended = planted.output().map_err(|error| error.to_string())?;
    // The program itself ends with 0 or 3.
    let quiet = |status: ExitStatus| matches!(status.code(), Some(0 | 3));
    if quiet(ended.status) {
        return Err(format!("{tool} finds nothing wrong in:\n{PLANTED}"));
    }
    Ok(())
}
