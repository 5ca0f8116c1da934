//! The environment variables of the host, read once and refused when they make no sense.

use std::sync::OnceLock;

use crate::{Error, ErrorKind, Result};

/// What to do with a call that no kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// Run the reference implementation and say so once an op.
    Warn,
    /// Run it without a word.
    Allow,
    /// Refuse.
    Deny,
}

/// What `DS_DEBUG` asks for; nothing when it is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Debug {
    /// Each op, copy and fill is waited for, so that a failure is told by the call that it is of.
    pub(crate) sync: bool,
    /// Each op is held against its reference implementation.
    pub(crate) shadow: bool,
    /// What is alive when the process ends is told.
    pub(crate) leaks: bool,
}

/// A word of `DS_DEBUG` and what it turns on.
type DebugWord = (&'static str, fn(&mut Debug) -> &mut bool);

impl Debug {
    const WORDS: [DebugWord; 3] = [
        ("sync", |debug| &mut debug.sync),
        ("shadow", |debug| &mut debug.shadow),
        ("leaks", |debug| &mut debug.leaks),
    ];

    fn parse(list: &str) -> std::result::Result<Self, String> {
        let mut debug = Self::default();
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let known = Self::WORDS.iter().find(|(known, _)| *known == word);
            let Some((_, field)) = known else {
                let known = Self::WORDS.map(|(known, _)| known).join(", ");
                return Err(format!(
                    "DS_DEBUG has '{word}'; its words, separated by commas, are {known}"
                ));
            };
            *field(&mut debug) = true;
        }
        Ok(debug)
    }
}

/// The host's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) fallback: Fallback,
    pub(crate) debug: Debug,
    /// Only kernels that say that they are deterministic may be chosen.
    pub(crate) deterministic: bool,
}

/// The settings of this process.
pub(crate) fn settings() -> Result<&'static Settings> {
    static SETTINGS: OnceLock<std::result::Result<Settings, String>> = OnceLock::new();
    SETTINGS
        .get_or_init(|| Settings::read(|name| std::env::var_os(name)))
        .as_ref()
        .map_err(|why| {
            Error::new(
                ErrorKind::InvalidArgument,
                "read the environment",
                why.clone(),
            )
        })
}

impl Settings {
    fn read(
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> std::result::Result<Self, String> {
        Ok(Self {
            fallback: choice(
                &variable,
                "DS_FALLBACK",
                &[
                    ("warn", Fallback::Warn),
                    ("allow", Fallback::Allow),
                    ("deny", Fallback::Deny),
                ],
            )?,
            debug: match variable("DS_DEBUG") {
                Some(list) => Debug::parse(&list.to_string_lossy())?,
                None => Debug::default(),
            },
            deterministic: choice(&variable, "DS_DETERMINISTIC", &[("0", false), ("1", true)])?,
        })
    }
}

/// The value of a variable that takes one of a few words; the first is what it is when unset.
fn choice<T: Copy>(
    variable: &impl Fn(&str) -> Option<std::ffi::OsString>,
    name: &str,
    words: &[(&str, T)],
) -> std::result::Result<T, String> {
    let Some(given) = variable(name).filter(|value| !value.is_empty()) else {
        return Ok(words[0].1);
    };
    words
        .iter()
        .find(|(word, _)| given == **word)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!(
                "{name} is '{}'; it must be one of {}",
                given.display(),
                known.join(", ")
            )
        })
}

/// What a program hands to its logger: `DS_LOG`, or `usual` where it is unset or nonsense; then also
/// what is wrong with it. A logger takes a word that is no level for the name of a part of the
/// program, and is silent about all others.
pub fn log_filter(usual: &str) -> (String, Option<String>) {
    let given = std::env::var_os("DS_LOG").filter(|value| !value.is_empty());
    let Some(given) = given else {
        return (usual.to_owned(), None);
    };
    let given = given.to_string_lossy();
    match wrong_log_word(&given) {
        None => (given.into_owned(), None),
        Some(word) => {
            let what = format!(
                "DS_LOG has '{word}'; it takes off, error, warn, info, debug or trace, or such a level \
                 of a part, as in ds_core=debug; several separated by commas"
            );
            (usual.to_owned(), Some(what))
        }
    }
}

fn wrong_log_word(list: &str) -> Option<&str> {
    let is_level = |word: &str| word.parse::<log::LevelFilter>().is_ok();
    // What follows a slash is a pattern that messages have to match.
    let list = list.split('/').next().unwrap_or(list);
    let words = list.split(',').map(str::trim).filter(|w| !w.is_empty());
    words.into_iter().find(|word| match word.split_once('=') {
        Some((_, level)) => !is_level(level),
        None => !is_level(word) && !word.starts_with("ds_"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_known_is_refused_with_those_that_are() {
        let with = |name: &'static str, value: &'static str| {
            Settings::read(move |asked| (asked == name).then(|| value.into()))
        };
        assert_eq!(
            with("DS_FALLBACK", "deny").unwrap().fallback,
            Fallback::Deny
        );
        assert_eq!(with("DS_FALLBACK", "").unwrap().fallback, Fallback::Warn);
        assert_eq!(
            with("DS_FALLBACK", "yes").unwrap_err(),
            "DS_FALLBACK is 'yes'; it must be one of warn, allow, deny"
        );
    }

    #[test]
    fn a_log_takes_levels_of_all_or_of_a_part() {
        for right in ["debug", "WARN,ds_core=off", "ds_core", "info/queue", ""] {
            assert_eq!(wrong_log_word(right), None);
        }
        assert_eq!(wrong_log_word("banana"), Some("banana"));
        assert_eq!(wrong_log_word("warn, ds_core=much"), Some("ds_core=much"));
    }

    #[test]
    fn debug_takes_a_list_and_deterministic_a_digit() {
        let with = |name: &'static str, value: &'static str| {
            Settings::read(move |asked| (asked == name).then(|| value.into()))
        };
        let debug = |list| with("DS_DEBUG", list).map(|settings| settings.debug);
        let [mut sync, mut both] = [Debug::default(); 2];
        sync.sync = true;
        (both.sync, both.shadow) = (true, true);
        assert_eq!(debug(""), Ok(Debug::default()));
        assert_eq!(debug("sync"), Ok(sync));
        assert_eq!(debug("shadow, sync,"), Ok(both));
        assert!(debug("leaks").unwrap().leaks);
        assert_eq!(
            debug("sync,synk").unwrap_err(),
            "DS_DEBUG has 'synk'; its words, separated by commas, are sync, shadow, leaks"
        );
        let deterministic = |word| with("DS_DETERMINISTIC", word).map(|s| s.deterministic);
        assert_eq!(deterministic("1"), Ok(true));
        assert_eq!(deterministic("0"), Ok(false));
        assert_eq!(deterministic(""), Ok(false));
        assert_eq!(
            deterministic("true").unwrap_err(),
            "DS_DETERMINISTIC is 'true'; it must be one of 0, 1"
        );
    }
}
