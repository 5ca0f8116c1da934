//! Why a compile failed: whether it would fail again, and the line of its log that says why.

use crate::{Error, ErrorKind};

/// Why a compile gave no artefact.
#[derive(Debug)]
pub struct CompileFailure {
    /// What happened.
    pub error: Error,
    /// What the compiler said.
    pub log: Vec<u8>,
    /// Whether it is a property of the inputs, so that trying again is of no use.
    pub lasting: bool,
}

impl CompileFailure {
    /// The compiler looked at the inputs and refused them: remembered until the key changes.
    ///
    /// The error's message ends with the first line of the log that tells of an error.
    pub fn refused(what: &str, log: Vec<u8>) -> Self {
        let transient = transient_cause(&log);
        let context = match first_error_line(&log) {
            Some(line) => format!("{what}: {line}"),
            None => format!("{what}, and said nothing"),
        };
        let kind = if transient.is_some() {
            ErrorKind::Io
        } else {
            ErrorKind::BuildFailed
        };
        let error = Error::new(kind, "compile", context);
        let error = match transient {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        Self {
            error,
            log,
            lasting: transient.is_none(),
        }
    }

    /// The compiler was content and its output is not there. It may have made none; or somebody
    /// tidies the cache away at this moment, which is no fault of the sources and is not remembered.
    pub(super) fn missing(output: &str, log: Vec<u8>) -> Self {
        let what =
            format!("`{output}` is not there: it was not made, or the cache is being deleted");
        Self {
            lasting: false,
            ..Self::refused(&what, log)
        }
    }

    /// What a compiler that is a library says: the plugin's `error`, with the first line of the log
    /// that tells of one where it is not in there.
    pub fn told(error: Error, log: Vec<u8>) -> Self {
        // Only what the compiler itself refuses is a property of the sources.
        let lasting = error.kind() == ErrorKind::BuildFailed;
        let line = first_error_line(&log).filter(|line| lasting && !error.context().contains(line));
        let error = match (line, error.hint()) {
            (None, _) => error,
            (Some(line), hint) => {
                let context = format!("{}: {line}", error.context());
                let told = Error::new(error.kind(), error.op().to_owned(), context);
                match hint {
                    Some(hint) => told.with_hint(hint),
                    None => told,
                }
            }
        };
        Self {
            error,
            log,
            lasting,
        }
    }

    /// The same where the disk had hardly room: not every compiler says so in words that are known.
    pub(super) fn with_room(self, free_bytes: Option<u64>) -> Self {
        match free_bytes {
            Some(free) if self.lasting && free < ENOUGH_BYTES => Self {
                error: Error::new(
                    ErrorKind::Io,
                    "compile",
                    format!("{}; the disk has {free} bytes left", self.error.context()),
                )
                .with_hint(FULL),
                log: self.log,
                lasting: false,
            },
            _ => self,
        }
    }
}

/// More than what a build here writes beside its output.
const ENOUGH_BYTES: u64 = 1 << 20;
const FULL: &str = "free some space, or set DS_CACHE_DIR to a folder on another file system";

impl From<Error> for CompileFailure {
    /// Something around the compiler failed; asked again, it may work.
    fn from(error: Error) -> Self {
        Self {
            error,
            log: Vec::new(),
            lasting: false,
        }
    }
}

/// The line of a log that most likely says what is wrong.
fn first_error_line(log: &[u8]) -> Option<String> {
    const SIGNS: [&str; 4] = ["error", "undefined reference", "cannot find", "fatal"];
    let log = String::from_utf8_lossy(log);
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let tells = |line: &&str| {
        let line = line.to_lowercase();
        SIGNS.iter().any(|sign| line.contains(sign))
    };
    let line = lines().find(tells).or_else(|| lines().next())?;
    // One line of a message, not a page of it.
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// What to do when a compiler failed for want of something that is not its input.
fn transient_cause(log: &[u8]) -> Option<&'static str> {
    const MEMORY: &str = "free some memory and try again";
    const CAUSES: [(&str, &str); 7] = [
        ("No space left on device", FULL),
        ("Disk quota exceeded", FULL),
        ("File too large", FULL),
        ("Cannot allocate memory", MEMORY),
        ("virtual memory exhausted", MEMORY),
        ("out of memory", MEMORY),
        // What gcc says when the kernel killed its child.
        ("Killed signal terminated program", MEMORY),
    ];
    let log = String::from_utf8_lossy(log);
    CAUSES
        .iter()
        .find(|(sign, _)| log.contains(sign))
        .map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_picked_out_of_a_log() {
        let log =
            b"a.c: In function 'f':\na.c:1:2: warning: w\na.c:3:1: error: no 'x'\nmore errors\n";
        assert_eq!(first_error_line(log).unwrap(), "a.c:3:1: error: no 'x'");
        assert_eq!(first_error_line(b"\n  strange \n").unwrap(), "strange");
        assert_eq!(first_error_line(b" \n"), None);
    }

    #[test]
    fn a_library_s_complaint_is_told_with_its_log_s() {
        let told = |kind, log: &[u8]| {
            let error = Error::new(kind, "compile", "it refused a.c");
            CompileFailure::told(error, log.to_vec())
        };
        let refused = told(ErrorKind::BuildFailed, b"note\na.c:3: error: no 'x'\n");
        assert!(refused.lasting);
        assert_eq!(
            refused.error.context(),
            "it refused a.c: a.c:3: error: no 'x'"
        );
        let silent = told(ErrorKind::BuildFailed, b"it refused a.c\n");
        assert_eq!(silent.error.context(), "it refused a.c");
        assert!(!told(ErrorKind::Internal, b"error").lasting);
    }

    #[test]
    fn no_refusal_counts_where_there_is_no_room() {
        let refused = || CompileFailure::refused("x", b"a.c:3:1: error: no 'x'".to_vec());
        let doubted = refused().with_room(Some(ENOUGH_BYTES - 1));
        assert!(!doubted.lasting && doubted.error.kind() == ErrorKind::Io);
        for room in [None, Some(ENOUGH_BYTES)] {
            assert!(refused().with_room(room).lasting);
        }
    }

    #[test]
    fn what_may_work_tomorrow_is_not_lasting() {
        assert!(CompileFailure::refused("x", b"a.c:3:1: error: no 'x'".to_vec()).lasting);
        for log in [
            "as: error: No space left on device",
            "gcc: fatal error: Killed signal terminated program cc1",
        ] {
            let failure = CompileFailure::refused("x", log.into());
            assert!(!failure.lasting);
            assert_eq!(failure.error.kind(), ErrorKind::Io);
            assert!(failure.error.hint().is_some());
        }
    }
}
