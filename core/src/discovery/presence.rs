//! Whether a manifest's hardware shows, by looking at names in `/dev`, `/sys` and elsewhere.

use std::{
    cell::OnceCell,
    fs,
    path::{Path, PathBuf},
};

use crate::manifest::{AbsolutePath, Pci, Presence};

/// The machine as the file system shows it.
pub(super) struct Machine {
    root: PathBuf,
    /// Vendor and class of each PCI function, as sysfs writes them. Read when first asked for.
    pci: OnceCell<Vec<(String, String)>>,
    /// CPU features. Read when first asked for.
    cpu: OnceCell<Vec<String>>,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            pci: OnceCell::new(),
            cpu: OnceCell::new(),
        }
    }

    /// Whether one of `signs` holds.
    pub(super) fn shows(&self, signs: &[Presence]) -> bool {
        signs.iter().any(|sign| self.holds(sign))
    }

    /// Those of `features` that the processor lacks.
    pub(super) fn lacks<'a>(&self, features: &'a [String]) -> Vec<&'a str> {
        if features.is_empty() {
            return Vec::new();
        }
        let have = self.cpu.get_or_init(|| cpu_features(&self.root));
        features
            .iter()
            .filter(|wanted| !have.contains(wanted))
            .map(String::as_str)
            .collect()
    }

    fn holds(&self, sign: &Presence) -> bool {
        let Presence {
            always,
            device,
            file,
            pci,
        } = sign;
        let says_something = *always || device.is_some() || file.is_some() || pci.is_some();
        says_something
            && device.as_ref().is_none_or(|path| self.exists(path))
            && file.as_ref().is_none_or(|path| self.exists(path))
            && pci.as_ref().is_none_or(|pci| self.has_function(pci))
    }

    fn exists(&self, pattern: &AbsolutePath) -> bool {
        let parts: Vec<&str> = pattern.as_str()[1..].split('/').collect();
        matches_below(&self.root, &parts)
    }

    fn has_function(&self, wanted: &Pci) -> bool {
        self.pci
            .get_or_init(|| pci_functions(&self.root))
            .iter()
            .any(|(vendor, class)| {
                vendor == wanted.vendor.as_str()
                    && wanted
                        .class
                        .as_ref()
                        .is_none_or(|prefix| class.starts_with(prefix.as_str()))
            })
    }
}

fn matches_below(folder: &Path, parts: &[&str]) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        // A link counts if it leads somewhere.
        return folder.exists();
    };
    if !first.contains('*') {
        return matches_below(&folder.join(first), rest);
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| matches(first, name))
            && matches_below(&entry.path(), rest)
    })
}

/// Whether `name` is `pattern` with each `*` replaced by any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    // The shortest match of each middle part leaves most for the others; the last must end it.
    let mut rest = rest;
    let mut parts = tail.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn pci_functions(root: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(root.join("sys/bus/pci/devices")) else {
        return Vec::new();
    };
    let text = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
    entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            Some((
                text(path.join("vendor")).ok()?,
                text(path.join("class")).ok()?,
            ))
        })
        .collect()
}

/// The features of the first processor: all of a machine have the same ones.
fn cpu_features(root: &Path) -> Vec<String> {
    let Ok(text) = fs::read_to_string(root.join("proc/cpuinfo")) else {
        return Vec::new();
    };
    text.lines()
        .find_map(|line| {
            let (key, value) = line.split_once(':')?;
            // x86 calls them flags, Arm features.
            matches!(key.trim(), "flags" | "Features").then(|| value.to_owned())
        })
        .map(|value| value.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(json: &str) -> Presence {
        serde_json::from_str(json).unwrap()
    }

    /// A machine with two nodes, two PCI functions and two features.
    fn machine() -> (tempfile::TempDir, Machine) {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("dev/fast0", "");
        write("dev/dri/render128", "");
        write("sys/bus/pci/devices/0000:00:01.0/vendor", "0x1234\n");
        write("sys/bus/pci/devices/0000:00:01.0/class", "0x030200\n");
        write("sys/bus/pci/devices/0000:00:02.0/vendor", "0x5678\n");
        write("sys/bus/pci/devices/0000:00:02.0/class", "0x020000\n");
        write(
            "proc/cpuinfo",
            "processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n",
        );
        std::os::unix::fs::symlink("nowhere", home.path().join("dev/dangling")).unwrap();
        let machine = Machine::new(home.path());
        (home, machine)
    }

    #[test]
    fn looks_for_nodes_files_and_functions() {
        let (_home, machine) = machine();
        for (json, expected) in [
            (r#"{"always": true}"#, true),
            (r"{}", false),
            (r#"{"always": false}"#, false),
            (r#"{"a key of later": 1}"#, false),
            (r#"{"device": "/dev/fast0"}"#, true),
            (r#"{"device": "/dev/fast1"}"#, false),
            (r#"{"device": "/dev/fast*"}"#, true),
            (r#"{"device": "/dev/dri/render*"}"#, true),
            (r#"{"device": "/dev/*/render128"}"#, true),
            (r#"{"device": "/dev/*/render129"}"#, false),
            (r#"{"device": "/dev/dangling"}"#, false),
            (r#"{"file": "/proc/cpuinfo"}"#, true),
            (r#"{"pci": {"vendor": "0x1234"}}"#, true),
            (r#"{"pci": {"vendor": "0x1234", "class": "0x03"}}"#, true),
            (r#"{"pci": {"vendor": "0x5678", "class": "0x03"}}"#, false),
            (r#"{"pci": {"vendor": "0x9999"}}"#, false),
            (
                r#"{"device": "/dev/fast0", "pci": {"vendor": "0x9999"}}"#,
                false,
            ),
            (r#"{"device": "/dev/fast0", "file": "/nowhere"}"#, false),
        ] {
            assert_eq!(machine.shows(&[sign(json)]), expected, "{json}");
        }
        assert!(machine.shows(&[sign(r#"{"file": "/nowhere"}"#), sign(r#"{"always": true}"#)]));
        assert!(!machine.shows(&[]));
    }

    #[test]
    fn knows_the_processors_features() {
        let (_home, machine) = machine();
        let wanted = ["avx2".to_owned(), "avx512f".to_owned()];
        assert_eq!(machine.lacks(&wanted), ["avx512f"]);
        assert!(machine.lacks(&[]).is_empty());
    }

    #[test]
    fn an_empty_machine_shows_nothing() {
        let home = tempfile::tempdir().unwrap();
        let machine = Machine::new(home.path());
        assert!(!machine.shows(&[sign(r#"{"pci": {"vendor": "0x1234"}}"#)]));
        assert_eq!(machine.lacks(&["avx2".to_owned()]), ["avx2"]);
    }

    #[test]
    fn stars_match_any_run() {
        for (pattern, name, expected) in [
            ("a*", "a", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("aba*aba", "aba", false),
            ("*", "", true),
            ("**", "x", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
