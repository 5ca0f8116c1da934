//! What this processor is: its name, its features as a build target, how many threads may run.

use std::{env, fs, thread};

use ds_plugin::{Error, Result};

/// Feature levels that a user can cap the processor to, and the features each one keeps.
///
/// # Source
/// x86-64 psABI, microarchitecture levels 1, 3 and 4.
const CAPABILITIES: [(&str, &[&str]); 3] = [
    ("default", &[]),
    ("avx2", &["avx2", "fma", "f16c", "bmi2"]),
    (
        "avx512",
        &[
            "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl",
        ],
    ),
];

/// The first part of every target here.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "x86-64"
} else {
    env::consts::ARCH
};

#[cfg(target_arch = "x86_64")]
macro_rules! features {
    ($($name:tt),*) => {
        /// Everything a kernel may be built for; the names are the compiler's `-m` flags.
        const FEATURES: &[&str] = &[$($name),*];

        /// Those of them that this processor has.
        fn detected() -> Vec<&'static str> {
            [$(($name, std::is_x86_feature_detected!($name))),*]
                .into_iter()
                .filter_map(|(name, there)| there.then_some(name))
                .collect()
        }
    };
}

#[cfg(target_arch = "x86_64")]
features!(
    "avx2",
    "fma",
    "f16c",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512vnni",
    "avx512bf16",
    "avx512fp16"
);

#[cfg(not(target_arch = "x86_64"))]
const FEATURES: &[&str] = &[];

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Vec<&'static str> {
    Vec::new()
}

/// The architecture, then its features, joined by `+`.
///
/// # Errors
/// `DS_CPU_CAPABILITY` names no known level.
pub(crate) fn target() -> Result<String> {
    let mut features = detected();
    if let Some(cap) = variable("DS_CPU_CAPABILITY") {
        let kept = CAPABILITIES
            .iter()
            .find(|(name, _)| *name == cap)
            .ok_or_else(|| {
                let names: Vec<_> = CAPABILITIES.iter().map(|(name, _)| *name).collect();
                Error::invalid_argument(format!(
                    "DS_CPU_CAPABILITY is '{cap}'; it must be one of {}",
                    names.join(", ")
                ))
            })?;
        features.retain(|f| kept.1.contains(f));
    }
    features.insert(0, ARCHITECTURE);
    Ok(features.join("+"))
}

/// The features of a target, which may be another machine's than this one's.
///
/// Written as [`target`] writes it and in no other way: the target is part of the name under which
/// an artefact is kept, and a device would never ask for another spelling.
///
/// # Errors
/// Another architecture, or what is no feature here, or not in its place.
pub(crate) fn features(target: &str) -> Result<Vec<&str>> {
    let refuse = |why: String| {
        let takes = if FEATURES.is_empty() {
            format!("it must be {ARCHITECTURE}")
        } else {
            let features = FEATURES.join(" +");
            format!(
                "it must be {ARCHITECTURE}, then those that the processor has of +{features}, in this order without blanks"
            )
        };
        Err(Error::invalid_argument(format!(
            "'{target}' is no target of the CPU here: {why}; {takes}"
        )))
    };
    let mut parts = target.split('+');
    let architecture = parts.next().unwrap_or_default();
    if architecture != ARCHITECTURE {
        return refuse(format!(
            "'{architecture}' is not the architecture that is built for"
        ));
    }
    let named: Vec<&str> = parts.collect();
    let mut left = FEATURES;
    for name in &named {
        if !FEATURES.contains(name) {
            return refuse(format!("'{name}' is no feature that kernels are built for"));
        }
        match left.iter().position(|of| of == name) {
            Some(at) => left = &left[at + 1..],
            None => return refuse(format!("'{name}' is twice there, or not in its place")),
        }
    }
    Ok(named)
}

/// How many threads the compute pool has: `DS_CPU_THREADS`, else `OMP_NUM_THREADS`, else the
/// processors that this process may run on.
///
/// # Errors
/// A variable that is set to anything but a positive number.
pub(crate) fn threads() -> Result<usize> {
    for name in ["DS_CPU_THREADS", "OMP_NUM_THREADS"] {
        if let Some(text) = variable(name) {
            // OpenMP allows a list, one number a nesting level; the first is the outer one.
            let first = text.split(',').next().unwrap_or_default().trim();
            return match first.parse() {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(Error::invalid_argument(format!(
                    "{name} is '{text}'; it must be a positive number of threads"
                ))),
            };
        }
    }
    Ok(thread::available_parallelism().map_or(1, usize::from))
}

/// An environment variable; one that is empty counts as not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The processor's marketing name.
pub(crate) fn name() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .as_deref()
        .and_then(|text| field(text, "model name"))
        .map_or_else(
            || format!("{} processor", env::consts::ARCH),
            |name| name.split_whitespace().collect::<Vec<_>>().join(" "),
        )
}

/// Total and available memory, in bytes.
///
/// # Errors
/// When `/proc/meminfo` cannot be read or does not say.
pub(crate) fn memory_bytes() -> Result<(u64, u64)> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).map_err(|e| Error::io(format!("read {path}"), &e))?;
    let kib = |key| field(&text, key)?.strip_suffix(" kB")?.parse::<u64>().ok();
    match (kib("MemTotal"), kib("MemAvailable")) {
        (Some(total), Some(available)) => Ok((total * 1024, available * 1024)),
        _ => Err(Error::unavailable(format!(
            "{path} states no MemTotal and MemAvailable"
        ))),
    }
}

/// How much this process has locked in memory, in bytes.
pub(crate) fn locked_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let kib = field(&text, "VmLck")?.strip_suffix(" kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

/// The value behind `key:` in a file of `key: value` lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:       24 kB\nMemTotalHuge: 1 kB\nmodel name\t: A  B\n";
        assert_eq!(field(text, "MemTotal"), Some("24 kB"));
        assert_eq!(field(text, "model name"), Some("A  B"));
        assert_eq!(field(text, "Mem"), None);
    }

    #[test]
    fn this_machine_has_memory_and_a_target() {
        let (total, available) = memory_bytes().unwrap();
        assert!(available <= total && total > 1 << 20);
        assert!(target().unwrap().starts_with(ARCHITECTURE));
    }

    #[test]
    fn a_target_has_one_spelling() {
        assert_eq!(features(&target().unwrap()).unwrap(), detected());
        assert!(features(ARCHITECTURE).unwrap().is_empty());
        let whole = format!("{ARCHITECTURE}+{}", FEATURES.join("+"));
        if FEATURES.len() > 1 {
            assert_eq!(features(&whole).unwrap(), FEATURES);
            let swapped = format!("{ARCHITECTURE}+{}+{}", FEATURES[1], FEATURES[0]);
            assert!(features(&swapped).is_err());
            let twice = format!("{ARCHITECTURE}+{0}+{0}", FEATURES[0]);
            assert!(features(&twice).is_err());
        }
        for (wrong, named) in [
            ("", "''"),
            ("sm_90", "'sm_90'"),
            (&format!("{ARCHITECTURE}+banana"), "'banana'"),
            (&format!("{ARCHITECTURE}+"), "''"),
            (&format!("{ARCHITECTURE} "), ARCHITECTURE),
        ] {
            let error = features(wrong).unwrap_err();
            assert!(
                error.message().contains(named) && error.message().contains("it must be"),
                "{}",
                error.message()
            );
        }
    }
}
