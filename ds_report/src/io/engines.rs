//! The engines of file I/O: which of them the kernel allows this process, and which one a program
//! gets.

use std::{fs, io};

use ds_io::EngineKind;
use rustix::io::Errno;
use serde::Serialize;

use crate::view::Refusal;

const VARIABLE: &str = EngineKind::VARIABLE;

/// What the kernel said of each engine that it was asked for, and what follows.
#[derive(Debug)]
pub(crate) struct Engines {
    pub(crate) all: Vec<Engine>,
    pub(crate) gets: Gets,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Engine {
    /// As `DS_IO_ENGINE` takes it.
    pub(crate) name: &'static str,
    #[serde(skip)]
    pub(crate) kind: EngineKind,
    /// What it is.
    pub(super) what: &'static str,
    /// Why the kernel does not let this process use it.
    #[serde(flatten)]
    pub(crate) refusal: Option<Refusal>,
}

/// The engine of a program that asks for none.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(crate) enum Gets {
    Engine {
        #[serde(skip)]
        kind: EngineKind,
        engine: &'static str,
        /// Whether `DS_IO_ENGINE` names it.
        is_named: bool,
    },
    /// None: every program fails that reads or writes tensors.
    Nothing(Refusal),
}

impl Engines {
    /// Asks the kernel for each.
    pub(super) fn probe() -> Self {
        Self::asked(EngineKind::ALL.map(Engine::probe).into())
    }

    /// Asks until it is known which one a program gets: the kernel takes 40 ms to take Linux AIO back.
    pub(crate) fn probe_what_a_program_gets() -> Self {
        let (named, mut all) = (EngineKind::named(), Vec::new());
        for kind in EngineKind::ALL {
            if named.as_ref().is_some_and(|named| named != kind.name()) {
                continue;
            }
            all.push(Engine::probe(kind));
            if all.last().is_some_and(|engine| engine.refusal.is_none()) {
                break;
            }
        }
        Self::asked(all)
    }

    fn asked(all: Vec<Engine>) -> Self {
        let gets = Gets::among(&all, EngineKind::named().as_deref());
        Self { all, gets }
    }
}

#[cfg(test)]
impl Engines {
    /// As on a kernel that refuses these.
    pub(crate) fn refusing(refused: &[EngineKind]) -> Self {
        let engine = |kind: EngineKind| Engine {
            name: kind.name(),
            kind,
            what: "",
            refusal: refused.contains(&kind).then(|| Refusal {
                reason: "Operation not permitted".to_owned(),
                hint: None,
            }),
        };
        let all: Vec<Engine> = EngineKind::ALL.map(engine).into();
        let gets = Gets::among(&all, None);
        Self { all, gets }
    }
}

impl Engine {
    fn probe(kind: EngineKind) -> Self {
        let refuse = |e: io::Error| Refusal {
            reason: reason(&e),
            hint: hint(kind, &e),
        };
        Self {
            name: kind.name(),
            kind,
            what: match kind {
                EngineKind::IoUring => "rings shared with the kernel: the fewest system calls",
                EngineKind::Aio => {
                    "Linux AIO, which is DeepSpeed's: asynchronous in direct I/O only"
                }
                EngineKind::Threads => "pread and pwrite in threads: works everywhere",
            },
            refusal: kind.probe().err().map(refuse),
        }
    }
}

impl Gets {
    fn among(all: &[Engine], named: Option<&str>) -> Self {
        let got = |engine: &Engine, is_named| Self::Engine {
            kind: engine.kind,
            engine: engine.name,
            is_named,
        };
        let Some(named) = named else {
            let allowed = all.iter().find(|engine| engine.refusal.is_none());
            return allowed.map_or_else(|| Self::Nothing(none_allowed()), |e| got(e, false));
        };
        match named.parse::<EngineKind>() {
            Err(why) => Self::Nothing(Refusal {
                reason: format!("{VARIABLE}: {why}"),
                hint: Some(format!("unset {VARIABLE}, or set it to one of these")),
            }),
            Ok(kind) => {
                let engine = all.iter().find(|engine| engine.kind == kind);
                match engine.map(|engine| (engine, &engine.refusal)) {
                    Some((engine, None)) => got(engine, true),
                    Some((_, Some(refusal))) => Self::Nothing(Refusal {
                        reason: format!(
                            "{VARIABLE}={kind}: the kernel refuses it: {}",
                            refusal.reason
                        ),
                        hint: Some(format!(
                            "unset {VARIABLE}: the best that is allowed is taken"
                        )),
                    }),
                    None => Self::Nothing(none_allowed()),
                }
            }
        }
    }
}

fn none_allowed() -> Refusal {
    Refusal {
        reason: "the kernel allows no engine".to_owned(),
        hint: Some("`ds_report io` says why not each of them".to_owned()),
    }
}

/// What the kernel said, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let number = text.find(" (os error ");
    number.map_or(text.clone(), |at| text[..at].to_owned())
}

/// What there is to do about an engine that the kernel refuses.
fn hint(kind: EngineKind, error: &io::Error) -> Option<String> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let denied = [Errno::PERM, Errno::ACCESS];
    let errno = Errno::from_io_error(error)?;
    Some(match kind {
        EngineKind::IoUring if denied.contains(&errno) => {
            match read("/proc/sys/kernel/io_uring_disabled").as_str() {
                "2" => "`sysctl kernel.io_uring_disabled` is 2: nobody may use it; 0 allows it".to_owned(),
                "1" => "`sysctl kernel.io_uring_disabled` is 1: CAP_SYS_ADMIN or the group of \
                        kernel.io_uring_group may use it; 0 allows it to all"
                    .to_owned(),
                _ => "a container's seccomp profile forbids it; one that allows io_uring_setup, \
                      io_uring_enter and io_uring_register is given with --security-opt seccomp=FILE"
                    .to_owned(),
            }
        }
        EngineKind::IoUring if errno == Errno::NOSYS => {
            "it needs Linux 5.6 with CONFIG_IO_URING; some sandboxes of containers lack it"
                .to_owned()
        }
        EngineKind::IoUring if errno == Errno::NOMEM => {
            "its rings count as locked memory on this kernel: raise `ulimit -l`".to_owned()
        }
        EngineKind::Aio if errno == Errno::AGAIN => format!(
            "all of the machine's requests are taken ({} of {}): raise `sysctl fs.aio-max-nr`",
            read("/proc/sys/fs/aio-nr"),
            read("/proc/sys/fs/aio-max-nr")
        ),
        EngineKind::Aio if errno == Errno::NOSYS => {
            "the kernel lacks CONFIG_AIO, as those of some sandboxes of containers do".to_owned()
        }
        EngineKind::Aio if denied.contains(&errno) => {
            "a container's seccomp profile forbids io_setup and its kin".to_owned()
        }
        EngineKind::Threads if errno == Errno::AGAIN => {
            "this user or container may have no more threads: `ulimit -u`, --pids-limit".to_owned()
        }
        _ if errno == Errno::MFILE => "raise the limit of open files: `ulimit -n`".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gets(refused: &[EngineKind], named: Option<&str>) -> Result<&'static str, String> {
        match Gets::among(&Engines::refusing(refused).all, named) {
            Gets::Engine { engine, .. } => Ok(engine),
            Gets::Nothing(refusal) => Err(refusal.line()),
        }
    }

    #[test]
    fn a_program_gets_the_best_that_is_allowed_or_the_named_one() {
        assert_eq!(gets(&[], None), Ok("io_uring"));
        assert_eq!(gets(&[EngineKind::IoUring], None), Ok("aio"));
        assert_eq!(gets(&[], Some("threads")), Ok("threads"));
        let refused = gets(&[EngineKind::Aio], Some("aio")).unwrap_err();
        assert!(
            refused.starts_with(
                "DS_IO_ENGINE=aio: the kernel refuses it: Operation not permitted; unset"
            ),
            "{refused}"
        );
        let unknown = gets(&[], Some("uring")).unwrap_err();
        assert!(
            unknown.contains("no engine 'uring'; there are io_uring, aio, threads"),
            "{unknown}"
        );
        assert!(gets(&EngineKind::ALL, None).is_err());
    }

    #[test]
    fn what_the_kernel_said_has_no_number() {
        let error = io::Error::from(Errno::PERM);
        assert_eq!(reason(&error), "Operation not permitted");
        assert!(hint(EngineKind::IoUring, &error).is_some());
    }
}
