//! What opening a library may not change in the process, seen from outside: a picture from before,
//! held against one from after. Knows nothing of plugins.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CStr, OsString},
    fs,
    hint::black_box,
    mem::MaybeUninit,
    path::PathBuf,
    ptr,
};

/// Signals that a process can handle; those between that belong to the C library are told as none.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// What belongs to the whole process, or to the thread that calls plugins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footprint {
    variables: BTreeMap<OsString, OsString>,
    folder: Option<PathBuf>,
    /// The mask of new files, as the system writes it.
    mask: String,
    blocked: String,
    handlers: Vec<Option<libc::sighandler_t>>,
    locale: String,
    arithmetic: [u64; 6],
    threads: usize,
}

impl Footprint {
    /// The process as it is. Nobody else may change it meanwhile.
    pub(crate) fn take() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let told = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map_or_else(String::new, |value| value.trim().to_owned())
        };
        Self {
            variables: env::vars_os().collect(),
            folder: env::current_dir().ok(),
            mask: told("Umask:"),
            blocked: told("SigBlk:"),
            handlers: SIGNALS.map(handler).collect(),
            locale: locale(),
            arithmetic: arithmetic(),
            threads: fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
        }
    }

    /// What is otherwise in `after`, but for threads; each as the object of "it changed".
    pub(crate) fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let names = self.variables.keys().chain(after.variables.keys());
        let mut names: Vec<_> = names
            .filter(|name| self.variables.get(*name) != after.variables.get(*name))
            .collect();
        names.sort();
        names.dedup();
        changes.extend(
            names
                .iter()
                .map(|name| format!("the variable {}", name.display())),
        );
        if self.folder != after.folder {
            changes.push("the working folder".to_owned());
        }
        if self.mask != after.mask {
            changes.push(format!(
                "the mask of new files from {} to {}",
                self.mask, after.mask
            ));
        }
        if self.blocked != after.blocked {
            changes.push("which signals are blocked".to_owned());
        }
        let handlers = self.handlers.iter().zip(&after.handlers);
        changes.extend(
            SIGNALS
                .zip(handlers)
                .filter(|(_, (before, after))| before != after)
                .map(|(signal, _)| format!("the handler of signal {signal}")),
        );
        if self.locale != after.locale {
            changes.push(format!(
                "the locale from {} to {}",
                self.locale, after.locale
            ));
        }
        if self.arithmetic != after.arithmetic {
            changes.push("how floating-point numbers are rounded".to_owned());
        }
        changes
    }

    /// How many threads more `after` has.
    pub(crate) fn threads_more(&self, after: &Self) -> usize {
        after.threads.saturating_sub(self.threads)
    }
}

fn handler(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action changes nothing; the old one is written where there is room.
    let code = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: on success it was written; zeros are a valid value, too.
    (code == 0).then(|| unsafe { action.assume_init() }.sa_sigaction)
}

fn locale() -> String {
    // SAFETY: a null locale asks only; the text stays until the next call, and is copied before.
    let name = unsafe { libc::setlocale(libc::LC_ALL, ptr::null()) };
    if name.is_null() {
        return String::new();
    }
    // SAFETY: not null, so it is a text that ends.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

/// Results that hang on how this thread rounds, and on whether tiny numbers count as 0 for it. With
/// traps for exceptions the last one ends the process.
fn arithmetic() -> [u64; 6] {
    let [one, quarter, tiny, zero] =
        black_box([1.0, f64::EPSILON / 4.0, f64::MIN_POSITIVE, 0.0_f64]);
    let tinier = black_box(f64::from_bits(1 << 51));
    [
        one + quarter,
        -one - quarter,
        one + 3.0 * quarter,
        tiny / 2.0,
        tinier * 2.0,
        one / zero,
    ]
    .map(f64::to_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_and_nothing_else() {
        // Other tests of this program start threads and set nothing.
        let before = Footprint::take();
        assert_eq!(before.changes(&Footprint::take()), [""; 0]);
        assert!(before.folder.is_some() && !before.mask.is_empty() && before.threads > 0);
        assert_eq!(before.locale, "C");
        let mut after = before.clone();
        after.variables.insert("NEW".into(), "1".into());
        after.variables.pop_first();
        after.mask = "0000".to_owned();
        after.handlers[10] = Some(77);
        after.threads += 2;
        let changes = before.changes(&after);
        assert_eq!(changes.len(), 4, "{changes:?}");
        assert!(
            changes.contains(&"the variable NEW".to_owned()),
            "{changes:?}"
        );
        assert!(changes[3].ends_with("handler of signal 11"), "{changes:?}");
        assert_eq!(before.threads_more(&after), 2);
    }
}
