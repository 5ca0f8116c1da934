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

/// The host's settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) fallback: Fallback,
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
}
