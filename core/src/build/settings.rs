//! Where the cache is and what may be built: the variables, parsed once into types.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use crate::{Error, ErrorKind, Result};

/// How long one build may take when nobody says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(5);

/// Whether artefacts are built, only found, or not used at all (`DS_JIT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JitMode {
    /// Found in the cache, else built.
    #[default]
    On,
    /// Found in the cache, never built: nothing is compiled on a compute node.
    CacheOnly,
    /// Neither: only what ships ready to run.
    Off,
}

impl JitMode {
    /// Reads `on`, `cache-only` or `off`.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn parse(text: &OsStr) -> Result<Self> {
        match text.to_str() {
            Some("on") => Ok(Self::On),
            Some("cache-only") => Ok(Self::CacheOnly),
            Some("off") => Ok(Self::Off),
            _ => Err(invalid(
                "DS_JIT",
                text,
                "is not `on`, `cache-only` or `off`",
            )),
        }
    }

    /// The value of `DS_JIT` that means it.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::CacheOnly => "cache-only",
            Self::Off => "off",
        }
    }
}

/// Where the cache is and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The user's cache: `DS_CACHE_DIR`, else `deepspeed` in `XDG_CACHE_HOME` or `~/.cache`.
    pub dir: PathBuf,
    /// Read-only caches behind it, nearest first: `DS_CACHE_SHARED`, separated by `:`.
    pub shared: Vec<PathBuf>,
    /// Whether to build: `DS_JIT`.
    pub jit: JitMode,
    /// How long one build may take (`DS_BUILD_TIMEOUT`, whole seconds): then its compiler is killed,
    /// and whoever waits for somebody else's build goes on alone.
    pub timeout: Duration,
}

impl Settings {
    /// Settings for a cache in `dir`, the rest as without variables.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            shared: Vec::new(),
            jit: JitMode::default(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// The settings that the process's variables ask for.
    ///
    /// A process with raised privilege (set-user-id or set-group-id) never builds: whoever started
    /// it chose the search path on which compilers would be found.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that cannot be read, `Io` without any place for the cache.
    pub fn from_environment() -> Result<Self> {
        let mut settings = Self::from_variables(|name| env::var_os(name))?;
        if has_raised_privilege() && settings.jit == JitMode::On {
            log::warn!("raised privilege: nothing is built, as if DS_JIT=cache-only");
            settings.jit = JitMode::CacheOnly;
        }
        Ok(settings)
    }

    /// The settings that `variable` (a name to its value) asks for. An empty value counts as unset.
    ///
    /// # Errors
    /// As [`Settings::from_environment`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let absolute = |name: &'static str, value: &OsStr| {
            let path = PathBuf::from(value);
            // A relative cache would be another one in every folder, and could be somebody else's.
            if path.is_absolute() {
                Ok(path)
            } else {
                Err(invalid(name, value, "is not absolute"))
            }
        };
        // A base that is not absolute is to be ignored, says the XDG base directory specification.
        let base = |name: &str| {
            variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };

        let dir = match variable("DS_CACHE_DIR") {
            Some(value) => absolute("DS_CACHE_DIR", &value)?,
            None => base("XDG_CACHE_HOME")
                .or_else(|| base("HOME").map(|home| home.join(".cache")))
                .map(|cache| cache.join("deepspeed"))
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::Io,
                        "find the build cache",
                        "no place for it: none of DS_CACHE_DIR, XDG_CACHE_HOME and HOME is an absolute path",
                    )
                    .with_hint("set DS_CACHE_DIR to a folder of yours")
                })?,
        };
        let shared = match variable("DS_CACHE_SHARED") {
            Some(value) => env::split_paths(&value)
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| absolute("DS_CACHE_SHARED", path.as_os_str()))
                .collect::<Result<_>>()?,
            None => Vec::new(),
        };
        let timeout = match variable("DS_BUILD_TIMEOUT") {
            Some(value) => value
                .to_str()
                .and_then(|text| text.parse().ok())
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs)
                .ok_or_else(|| invalid("DS_BUILD_TIMEOUT", &value, "is not a number of seconds"))?,
            None => DEFAULT_TIMEOUT,
        };
        let jit = match variable("DS_JIT") {
            Some(value) => JitMode::parse(&value)?,
            None => JitMode::default(),
        };
        Ok(Self {
            dir,
            shared,
            jit,
            timeout,
        })
    }
}

fn has_raised_privilege() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    getuid() != geteuid() || getgid() != getegid()
}

fn invalid(name: &str, value: &OsStr, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "read build settings",
        format!("{name}={} {what}", value.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_nearest_variable_names_the_cache() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (
                &[
                    ("DS_CACHE_DIR", "/c"),
                    ("XDG_CACHE_HOME", "/x"),
                    ("HOME", "/h"),
                ],
                "/c",
            ),
            (
                &[
                    ("DS_CACHE_DIR", ""),
                    ("XDG_CACHE_HOME", "/x"),
                    ("HOME", "/h"),
                ],
                "/x/deepspeed",
            ),
            (
                &[("XDG_CACHE_HOME", "x"), ("HOME", "/h")],
                "/h/.cache/deepspeed",
            ),
            (&[("HOME", "/h")], "/h/.cache/deepspeed"),
        ];
        for (variables, dir) in cases {
            assert_eq!(read(variables).unwrap(), Settings::at(dir));
        }
        let error = read(&[("HOME", "")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        for name in ["DS_CACHE_DIR", "XDG_CACHE_HOME", "HOME"] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn values_are_read_strictly() {
        let with = |name, value| read(&[("HOME", "/h"), (name, value)]);
        assert_eq!(
            with("DS_JIT", "cache-only").unwrap().jit,
            JitMode::CacheOnly
        );
        assert_eq!(with("DS_JIT", "off").unwrap().jit, JitMode::Off);
        assert_eq!(with("DS_JIT", "on").unwrap().jit, JitMode::On);
        assert_eq!(
            with("DS_BUILD_TIMEOUT", "7").unwrap().timeout,
            Duration::from_secs(7)
        );
        assert_eq!(
            with("DS_CACHE_SHARED", "/a::/b").unwrap().shared,
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
        for (name, value) in [
            ("DS_JIT", "yes"),
            ("DS_JIT", "ON"),
            ("DS_BUILD_TIMEOUT", "0"),
            ("DS_BUILD_TIMEOUT", "-1"),
            ("DS_BUILD_TIMEOUT", "5s"),
            ("DS_CACHE_DIR", "cache"),
            ("DS_CACHE_SHARED", "/a:b"),
        ] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
