//! Kernel sources and their `kernel.json`, embedded: one folder an op family.
//!
//! Holds text and data only. Which kernel serves a call is the host's choice, how it is built and
//! launched the accelerator's.

#![forbid(unsafe_code)]

use std::sync::LazyLock;

use ds_schema::{Kernel, KernelFile};
use include_dir::{Dir, include_dir};

static TREE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR");

/// Folder of the headers that every kernel may include.
const HEADERS: &str = "include";
/// The file that makes a folder a kernel set.
const DESCRIPTION: &str = "kernel.json";

/// A folder of kernels that are built together.
#[derive(Debug)]
pub struct KernelSet {
    name: &'static str,
    folder: &'static Dir<'static>,
    kernels: Vec<Kernel>,
}

impl KernelSet {
    /// The folder's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its kernels, as `kernel.json` lists them.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Its files without `kernel.json`: name and content.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        files(self.folder).filter(|(name, _)| *name != DESCRIPTION)
    }
}

/// Every set, sorted by name.
pub fn sets() -> &'static [KernelSet] {
    static SETS: LazyLock<Vec<KernelSet>> = LazyLock::new(|| {
        let mut sets: Vec<_> = TREE.dirs().filter_map(|d| parse(d)?.ok()).collect();
        sets.sort_by_key(KernelSet::name);
        sets
    });
    &SETS
}

/// The texts of every set's `kernel.json`.
pub fn descriptions() -> Vec<&'static str> {
    sets()
        .iter()
        .filter_map(|set| set.folder.get_file(set.folder.path().join(DESCRIPTION)))
        .filter_map(|file| file.contents_utf8())
        .collect()
}

/// The kernel of that name for `accelerator`, and the set it belongs to.
pub fn find(accelerator: &str, kernel: &str) -> Option<(&'static KernelSet, &'static Kernel)> {
    sets().iter().find_map(|set| {
        let found = set
            .kernels
            .iter()
            .find(|k| k.name == kernel && k.accelerator == accelerator)?;
        Some((set, found))
    })
}

/// The shared headers: name and content.
pub fn headers() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    TREE.get_dir(HEADERS).into_iter().flat_map(files)
}

fn files(folder: &'static Dir<'static>) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    folder
        .files()
        .filter_map(|file| Some((file.path().file_name()?.to_str()?, file.contents())))
}

/// The set in `folder`, `None` when it is not one. The build script has refused what is wrong.
fn parse(folder: &'static Dir<'static>) -> Option<Result<KernelSet, String>> {
    let name = folder.path().to_str()?;
    let description = folder.get_file(folder.path().join(DESCRIPTION))?;
    Some(match KernelFile::parse(description.contents()) {
        Ok(file) => Ok(KernelSet {
            name,
            folder,
            kernels: file.kernels,
        }),
        Err(error) => Err(format!("{name}/{DESCRIPTION}: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_within_an_accelerator() {
        let mut names: Vec<_> = sets()
            .iter()
            .flat_map(KernelSet::kernels)
            .map(|k| (k.accelerator.as_str(), k.name.as_str()))
            .collect();
        assert!(!names.is_empty());
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
