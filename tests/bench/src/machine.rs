//! What the figures were measured on.

use std::{fs, process::Command};

/// Prints machine, versions and command, one a line.
pub(crate) fn print(filters: &[String]) {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory_kib = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let filters = match filters {
        [] => String::new(),
        some => format!(" -- {}", some.join(" ")),
    };
    println!("- command: `cargo run --release -p ds-bench{filters}`");
    let cache_mib = last_cache_bytes() >> 20;
    println!(
        "- processor: {cpu}, {cores} cores, last cache: {cache_mib} MiB; memory: {memory_kib}"
    );
    println!(
        "- kernel: {}",
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
    );
    println!("- compilers: {}; {}", version("rustc"), version("cc"));
    if let Some(python) = crate::peer::python() {
        println!("- peers: {}", crate::peer::versions(&python));
    }
    println!("- files: {}", version("fio"));
    println!("- load at the start: {}", load());
    println!(
        "- rounds: {}, after one that is not counted",
        crate::sample::ROUNDS
    );
}

/// What the last level of the caches holds; 32 MiB where the system does not say.
pub(crate) fn last_cache_bytes() -> u64 {
    let size = |level| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size");
        let text = fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok()
    };
    (0..=4).filter_map(size).max().unwrap_or(32 << 10) << 10
}

/// The load averages of 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| format!("no {program}"))
}
