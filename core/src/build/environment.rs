//! The variables that a compiler sees: few, named here, and those that can change its output part of
//! the cache key.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// Variables that say where headers and libraries are: handed on, and part of the key.
const KEYED: [&str; 4] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH",
];
/// Variables that only help a compiler to run: handed on, not part of the key. `LD_LIBRARY_PATH`
/// differs between any two shells, and decides about the compiler's libraries, not the artefact's.
const HANDED_ON: [&str; 1] = ["LD_LIBRARY_PATH"];

/// What a compiler may know of the process's variables.
///
/// A child sees `PATH` (its absolute folders), `LANG` and `LC_ALL` (`C`), `HOME` and `TMPDIR` (its
/// build folder), `LD_LIBRARY_PATH`, `CPATH`, `C_INCLUDE_PATH`, `CPLUS_INCLUDE_PATH`, `LIBRARY_PATH`,
/// and the variables whose names `DS_BUILD_ENV` lists, separated by blanks or commas. The last five,
/// as far as they are set, are part of the key. Nothing else reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildEnvironment {
    /// Folders to look for programs in; absolute.
    search_path: Vec<PathBuf>,
    keyed: BTreeMap<String, OsString>,
    handed_on: BTreeMap<String, OsString>,
    /// For `$NAME` among a toolchain's programs.
    programs: BTreeMap<String, OsString>,
}

impl BuildEnvironment {
    /// The environment of this process.
    pub fn from_process() -> Self {
        // Names that are not UTF-8 cannot be asked for.
        Self::from_variables(
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))),
        )
    }

    /// The environment that these variables make. An empty value counts as unset.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, OsString)>) -> Self {
        let all: BTreeMap<_, _> = variables
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let pick = |names: &mut dyn Iterator<Item = &str>| -> BTreeMap<String, OsString> {
            names
                .filter_map(|name| Some((name.to_owned(), all.get(name)?.clone())))
                .collect()
        };
        let asked_for = all
            .get("DS_BUILD_ENV")
            .map(|names| names.to_string_lossy().into_owned());
        let asked_for = asked_for.iter().flat_map(|names| names.split([' ', ',']));
        Self {
            search_path: all
                .get("PATH")
                .map(|path| {
                    env::split_paths(path)
                        .filter(|folder| folder.is_absolute())
                        .collect()
                })
                .unwrap_or_default(),
            keyed: pick(&mut KEYED.into_iter().chain(asked_for)),
            handed_on: pick(&mut HANDED_ON.into_iter()),
            programs: all,
        }
    }

    /// The variables that are part of the key.
    pub fn keyed(&self) -> BTreeMap<String, String> {
        self.keyed
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The folders that programs are looked for in.
    pub fn search_path(&self) -> &[PathBuf] {
        &self.search_path
    }

    /// The value of any variable of the process, for `$NAME` among a toolchain's programs.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.programs.get(name).map(OsString::as_os_str)
    }

    /// All that a child which works in `folder` sees; the folder is its home and its place for
    /// temporary files too.
    pub(super) fn of_child(&self, folder: &Path) -> Vec<(OsString, OsString)> {
        // The folders come out of a `PATH`, so that joining them again cannot fail.
        let path = env::join_paths(&self.search_path).unwrap_or_default();
        let mut child = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("LANG".to_owned(), "C".into()),
            ("LC_ALL".to_owned(), "C".into()),
            ("HOME".to_owned(), folder.into()),
            ("TMPDIR".to_owned(), folder.into()),
        ]);
        child.extend(self.handed_on.clone());
        // Last, so that `DS_BUILD_ENV=HOME` means the user's own.
        child.extend(self.keyed.clone());
        child
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_variables_pass_and_only_some_are_keyed() {
        let environment = BuildEnvironment::from_variables(
            [
                ("PATH", "/usr/bin:.:tools::/bin"),
                ("CPATH", "/opt/include"),
                ("LIBRARY_PATH", ""),
                ("LD_LIBRARY_PATH", "/opt/lib"),
                ("LD_PRELOAD", "/evil.so"),
                ("DS_BUILD_ENV", "SDK_ROOT,MISSING LICENSE"),
                ("SDK_ROOT", "/opt/sdk"),
                ("LICENSE", "7"),
                ("CC", "clang"),
            ]
            .map(|(name, value)| (name.to_owned(), value.into())),
        );
        let keyed = [
            ("CPATH", "/opt/include"),
            ("LICENSE", "7"),
            ("SDK_ROOT", "/opt/sdk"),
        ];
        assert_eq!(
            environment.keyed(),
            keyed.map(|(n, v)| (n.to_owned(), v.to_owned())).into()
        );
        assert_eq!(environment.variable("CC"), Some(OsStr::new("clang")));

        let child: BTreeMap<_, _> = environment
            .of_child(Path::new("/build"))
            .into_iter()
            .collect();
        let expected = [
            ("CPATH", "/opt/include"),
            ("HOME", "/build"),
            ("LANG", "C"),
            ("LC_ALL", "C"),
            ("LD_LIBRARY_PATH", "/opt/lib"),
            ("LICENSE", "7"),
            ("PATH", "/usr/bin:/bin"),
            ("SDK_ROOT", "/opt/sdk"),
            ("TMPDIR", "/build"),
        ];
        assert_eq!(child, expected.map(|(n, v)| (n.into(), v.into())).into());
    }
}
