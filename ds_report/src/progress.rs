//! A line on the terminal that says what is at work: builds, large calls and disks take their time.

use std::io::{self, IsTerminal, Write as _};

pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Says it in a line that stays.
    pub(crate) fn announce(&self, what: &str) {
        self.write(&format!("{what}\n"));
    }

    /// Says it in place of what was said before.
    pub(crate) fn tell(&self, what: &str) {
        self.write(&format!("\r\u{1b}[K{what} ..."));
    }

    pub(crate) fn clear(&self) {
        self.write("\r\u{1b}[K");
    }

    fn write(&self, text: &str) {
        if self.is_terminal {
            let mut errors = io::stderr();
            let _ = errors.write_all(text.as_bytes());
            let _ = errors.flush();
        }
    }
}
