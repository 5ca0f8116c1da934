//! Kernel sources and their `kernel.json`, embedded: one folder an op family.
//!
//! Holds text and data only. Which kernel serves a call is the host's choice, how it is built and
//! launched the accelerator's.

#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/sets.rs"));

/// A file's name and content.
pub type File = (&'static str, &'static [u8]);

/// A folder of kernels.
#[derive(Debug)]
pub struct KernelSet {
    /// The folder's name.
    pub name: &'static str,
    /// The text of its `kernel.json`.
    pub description: &'static str,
    /// Its other files.
    pub files: &'static [File],
    /// Its kernels, as `kernel.json` lists them.
    pub kernels: &'static [Kernel],
}

/// What an accelerator builds a kernel from.
#[derive(Debug)]
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// The accelerator that it is for.
    pub accelerator: &'static str,
    /// The files of its set that are compiled.
    pub sources: &'static [&'static str],
    /// The function in the artefact; empty for a kernel of a vendor's library.
    pub symbol: &'static str,
}

/// Every set, sorted by name.
pub fn sets() -> &'static [KernelSet] {
    SETS
}

/// The texts of every set's `kernel.json`.
pub fn descriptions() -> Vec<&'static str> {
    SETS.iter().map(|set| set.description).collect()
}

/// The kernel of that name for `accelerator`, and the set it belongs to.
pub fn find(accelerator: &str, kernel: &str) -> Option<(&'static KernelSet, &'static Kernel)> {
    let named = |k: &&Kernel| k.name == kernel && k.accelerator == accelerator;
    SETS.iter()
        .find_map(|set| Some((set, set.kernels.iter().find(named)?)))
}

/// The headers that every kernel may include.
pub fn headers() -> &'static [File] {
    HEADERS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_within_an_accelerator() {
        let mut seen = HashSet::new();
        for kernel in SETS.iter().flat_map(|set| set.kernels) {
            assert!(seen.insert((kernel.accelerator, kernel.name)), "{kernel:?}");
        }
        assert!(!seen.is_empty());
    }
}
