//! Where plugins are looked for. Never in the current folder.

use std::{
    env,
    ffi::OsString,
    fs,
    io::ErrorKind as IoErrorKind,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::Origin;

/// The variable with places to search, separated by `:`.
pub(super) const PLUGIN_PATH: &str = "DS_PLUGIN_PATH";
/// Where plugins lie below a prefix.
const BELOW_PREFIX: &str = "lib/deepspeed/plugins";
/// Where plugins lie below a folder for data.
const BELOW_DATA: &str = "deepspeed/plugins";

/// What a search starts from. [`Search::from_process`] fills it in; tests make their own.
#[derive(Clone, Debug)]
pub struct Search {
    /// Folders that the program names; absolute.
    pub programmatic: Vec<PathBuf>,
    /// Plugins that are part of the program.
    pub linked: Vec<LinkedManifest>,
    /// Value of `DS_PLUGIN_PATH`.
    pub plugin_path: Option<OsString>,
    /// Value of `XDG_DATA_HOME`.
    pub data_home: Option<OsString>,
    /// Value of `HOME`.
    pub home: Option<OsString>,
    /// The program's own file, without links.
    pub executable: Option<PathBuf>,
    /// The system's folders.
    pub system: Vec<PathBuf>,
    /// The process has more rights than the user who started it: the user's environment and the
    /// program's place, which a hard link can change, are left out.
    pub elevated: bool,
    /// The root of `/dev`, `/sys` and `/proc`, and of the files that manifests look for.
    pub root: PathBuf,
}

/// The manifest of a plugin that is part of the program.
#[derive(Clone, Debug)]
pub struct LinkedManifest {
    /// Text of its `plugin.json`.
    pub text: String,
}

/// A place of the search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Which rule names it.
    pub origin: Origin,
    /// The folder; nothing where the rule gave none.
    #[serde(serialize_with = "super::shown_if_any")]
    pub path: Option<PathBuf>,
    /// Why it was not searched.
    pub skipped: Option<String>,
}

impl Search {
    /// The search of this process, with nothing programmatic or linked.
    pub fn from_process() -> Self {
        Self {
            programmatic: Vec::new(),
            linked: Vec::new(),
            plugin_path: env::var_os(PLUGIN_PATH),
            data_home: env::var_os("XDG_DATA_HOME"),
            home: env::var_os("HOME"),
            executable: env::current_exe().and_then(fs::canonicalize).ok(),
            system: ["/usr/local", "/usr"]
                .map(|prefix| Path::new(prefix).join(BELOW_PREFIX))
                .into(),
            elevated: elevated(),
            root: PathBuf::from("/"),
        }
    }

    /// A search of nothing, to be filled in.
    pub fn empty() -> Self {
        Self {
            programmatic: Vec::new(),
            linked: Vec::new(),
            plugin_path: None,
            data_home: None,
            home: None,
            executable: None,
            system: Vec::new(),
            elevated: false,
            root: PathBuf::from("/"),
        }
    }

    /// Every place in order of precedence; one that is named twice is searched the first time.
    pub fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = self
            .programmatic
            .iter()
            .map(|path| Place::of(Origin::Programmatic, path))
            .collect();
        self.plugin_path_places(&mut places);
        places.push(self.user_data_place());
        places.push(self.prefix_place());
        places.extend(
            self.system
                .iter()
                .map(|path| Place::of(Origin::System, path)),
        );
        let mut seen: Vec<PathBuf> = Vec::new();
        for place in &mut places {
            let (Some(path), None) = (&place.path, &place.skipped) else {
                continue;
            };
            if !path.is_absolute() {
                continue;
            }
            match path.canonicalize() {
                Ok(real) if seen.contains(&real) => {
                    place.skipped = Some("it was searched before under another name".to_owned());
                }
                Ok(real) => seen.push(real),
                // The rules that nobody asked for may lead nowhere; what the user names may not.
                Err(error) if !place.was_asked_for() && error.kind() == IoErrorKind::NotFound => {
                    place.skipped = Some("it does not exist".to_owned());
                }
                Err(_) => {}
            }
        }
        places
    }

    fn plugin_path_places(&self, places: &mut Vec<Place>) {
        let Some(value) = self.plugin_path.as_ref().filter(|value| !value.is_empty()) else {
            return;
        };
        if self.elevated {
            places.push(Place::skipped(Origin::PluginPath, None, ELEVATED));
            return;
        }
        // An empty one is what `$DS_PLUGIN_PATH:/more` leaves where the variable was unset.
        let elements = value.as_bytes().split(|&byte| byte == b':');
        let elements = elements.filter(|element| !element.is_empty());
        places.extend(elements.map(|element| {
            let path = Path::new(std::ffi::OsStr::from_bytes(element));
            Place::of(Origin::PluginPath, path)
        }));
    }

    fn user_data_place(&self) -> Place {
        let origin = Origin::UserData;
        if self.elevated {
            return Place::skipped(origin, None, ELEVATED);
        }
        // The base directory specification: a relative or empty value counts as unset.
        let absolute = |value: &Option<OsString>| {
            value
                .as_ref()
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let data = absolute(&self.data_home)
            .or_else(|| absolute(&self.home).map(|home| home.join(".local/share")));
        match data {
            Some(data) => Place::of(origin, &data.join(BELOW_DATA)),
            None => Place::skipped(origin, None, "neither XDG_DATA_HOME nor HOME is set"),
        }
    }

    fn prefix_place(&self) -> Place {
        let origin = Origin::Prefix;
        if self.elevated {
            return Place::skipped(origin, None, ELEVATED);
        }
        let bin = self.executable.as_deref().and_then(Path::parent);
        match bin
            .filter(|bin| bin.ends_with("bin"))
            .and_then(Path::parent)
        {
            Some(prefix) => Place::of(origin, &prefix.join(BELOW_PREFIX)),
            None => Place::skipped(origin, None, "the program does not lie in a folder `bin`"),
        }
    }
}

const ELEVATED: &str = "left out because the process has more rights than its user";

impl Place {
    fn of(origin: Origin, path: &Path) -> Self {
        Self {
            origin,
            path: Some(path.to_owned()),
            skipped: None,
        }
    }

    fn skipped(origin: Origin, path: Option<PathBuf>, why: &str) -> Self {
        Self {
            origin,
            path,
            skipped: Some(why.to_owned()),
        }
    }

    /// Whether somebody named this very place.
    pub(super) fn was_asked_for(&self) -> bool {
        matches!(self.origin, Origin::Programmatic | Origin::PluginPath)
    }
}

/// Whether the process has more rights than the user who started it.
fn elevated() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    if getuid() != geteuid() || getgid() != getegid() {
        return true;
    }
    // File capabilities leave the ids alone; the kernel then says AT_SECURE. A process that may not
    // read its own vector is such a one.
    match fs::read("/proc/self/auxv") {
        Ok(vector) => secure_bit(&vector),
        Err(error) => error.kind() == IoErrorKind::PermissionDenied,
    }
}

/// The value of `AT_SECURE` in an auxiliary vector: pairs of words of 8 bytes.
fn secure_bit(vector: &[u8]) -> bool {
    const AT_SECURE: u64 = 23;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    vector
        .chunks_exact(16)
        .any(|pair| word(&pair[..8]) == AT_SECURE && word(&pair[8..]) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(search: &Search) -> Vec<(Origin, Option<String>, bool)> {
        let text = |path: PathBuf| path.display().to_string();
        let brief = |place: Place| (place.origin, place.path.map(text), place.skipped.is_some());
        search.places().into_iter().map(brief).collect()
    }

    #[test]
    fn keeps_the_order() {
        let search = Search {
            programmatic: vec!["/nowhere/a".into()],
            plugin_path: Some("/nowhere/b:/nowhere/c".into()),
            data_home: Some("/nowhere/data".into()),
            home: Some("/nowhere/home".into()),
            executable: Some("/nowhere/prefix/bin/program".into()),
            system: vec!["/nowhere/system".into()],
            ..Search::empty()
        };
        let place = |origin, path: &str, skipped| (origin, Some(path.to_owned()), skipped);
        assert_eq!(
            paths(&search),
            [
                place(Origin::Programmatic, "/nowhere/a", false),
                place(Origin::PluginPath, "/nowhere/b", false),
                place(Origin::PluginPath, "/nowhere/c", false),
                place(Origin::UserData, "/nowhere/data/deepspeed/plugins", true),
                place(
                    Origin::Prefix,
                    "/nowhere/prefix/lib/deepspeed/plugins",
                    true
                ),
                place(Origin::System, "/nowhere/system", true),
            ]
        );
    }

    #[test]
    fn falls_back_to_home_and_says_what_is_missing() {
        let mut search = Search {
            data_home: Some("relative".into()),
            home: Some("/nowhere/home".into()),
            executable: Some("/nowhere/target/debug/program".into()),
            ..Search::empty()
        };
        let places = search.places();
        assert_eq!(
            places[0].path.as_deref(),
            Some(Path::new("/nowhere/home/.local/share/deepspeed/plugins"))
        );
        assert!(places[1].skipped.as_ref().unwrap().contains("folder `bin`"));
        search.home = Some("".into());
        assert!(
            search.places()[0]
                .skipped
                .as_ref()
                .unwrap()
                .contains("nor HOME is set")
        );
    }

    #[test]
    fn searches_nothing_of_the_users_with_more_rights() {
        let search = Search {
            plugin_path: Some("/tmp".into()),
            home: Some("/tmp".into()),
            executable: Some("/tmp/bin/program".into()),
            elevated: true,
            ..Search::empty()
        };
        assert!(
            search
                .places()
                .iter()
                .all(|place| place.skipped.as_deref() == Some(ELEVATED))
        );
        assert_eq!(search.places().len(), 3);
    }

    #[test]
    fn a_place_is_searched_once() {
        let search = Search {
            plugin_path: Some("/tmp:/tmp/../tmp".into()),
            ..Search::empty()
        };
        let places = paths(&search);
        assert!(!places[0].2 && places[1].2);
    }

    #[test]
    fn reads_the_secure_bit() {
        let vector = |pairs: &[[u64; 2]]| -> Vec<u8> {
            pairs
                .iter()
                .flatten()
                .flat_map(|word| word.to_ne_bytes())
                .collect()
        };
        assert!(secure_bit(&vector(&[[6, 4096], [23, 1], [0, 0]])));
        assert!(!secure_bit(&vector(&[[6, 23], [23, 0], [0, 0]])));
        assert!(!secure_bit(&[23, 0, 0]));
    }
}
