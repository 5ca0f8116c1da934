//! Peers: child processes that keep their data between rounds and time themselves.
//!
//! One line in, one line out. `setup NAME ARGS` makes data and answers `0`; `run N` does the work
//! once, then `N` times, and answers with the mean seconds; `error TEXT` is a refusal.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{Result, sample::Side};

/// The Python side.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// The C side: bandwidth, arithmetic, and the pinned loop.
const PROBE: &str = include_str!("probe.c");

/// What a Python child does with memory that it has freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heap {
    /// Large blocks go back to the kernel.
    Default,
    /// All of it stays, so that the next call finds its pages: `PyTorch` at its best.
    Kept,
    /// It stays, and lies in huge pages, of which a disk has few pieces to move.
    Huge,
}

/// A child that answers.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// A Python child with this setup; `None` where no Python is given.
    pub(crate) fn python(setup: &str) -> Result<Option<Self>> {
        let mut peer = Self::python_idle()?;
        if let Some(peer) = &mut peer {
            peer.ask(&format!("setup {setup}"))?;
        }
        Ok(peer)
    }

    /// A Python child that waits for its first setup; `None` where no Python is given.
    pub(crate) fn python_idle() -> Result<Option<Self>> {
        Self::script("peer.py", Heap::Kept)
    }

    /// A Python child of this script; `None` where no Python is given.
    pub(crate) fn script(name: &str, heap: Heap) -> Result<Option<Self>> {
        let Some(python) = python() else {
            return Ok(None);
        };
        let mut command = Command::new(&python);
        // `DeepSpeed` builds its ops with the `ninja` beside its Python.
        let folder = python.parent().unwrap_or(Path::new(""));
        let path = env::var_os("PATH").unwrap_or_default();
        let search =
            env::join_paths(std::iter::once(folder.to_owned()).chain(env::split_paths(&path)))?;
        if heap == Heap::Huge {
            // `malloc` asks for them (glibc 2.35).
            command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        }
        if heap != Heap::Default {
            command
                .env("MALLOC_MMAP_MAX_", "0")
                .env("MALLOC_TRIM_THRESHOLD_", "100000000000");
        }
        command
            .arg(Path::new(SCRIPTS).join(name))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PATH", search)
            .env("DS_ACCELERATOR", "cpu");
        Self::start(command).map(Some)
    }

    /// A child of the C probe with this setup.
    pub(crate) fn probe(setup: &str) -> Result<Self> {
        let mut peer = Self::start(Command::new(built_probe()?))?;
        peer.ask(&format!("setup {setup}"))?;
        Ok(peer)
    }

    fn start(mut command: Command) -> Result<Self> {
        let threads = std::thread::available_parallelism()?.to_string();
        let mut child = command
            .env("OMP_NUM_THREADS", threads)
            // A team that has nothing to do looks for more for about a millisecond, and not for ten:
            // that is long between its calls, and short between the turns.
            .env("GOMP_SPINCOUNT", "20000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a peer without pipes".into());
        };
        let output = BufReader::new(output);
        Ok(Self {
            child,
            input,
            output,
        })
    }

    /// Its turn in a round: `calls` calls.
    pub(crate) fn side(&mut self, calls: u32) -> Side<'_> {
        Box::new(move || self.ask(&format!("run {calls}")))
    }

    /// Its answer to a line.
    pub(crate) fn ask(&mut self, line: &str) -> Result<f64> {
        let [number] = self.ask_for(line)?;
        Ok(number)
    }

    /// Its answer to a line that asks for several numbers.
    pub(crate) fn ask_for<const N: usize>(&mut self, line: &str) -> Result<[f64; N]> {
        writeln!(self.input, "{line}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let answer = answer.trim();
        let numbers: Option<Vec<f64>> = answer.split(' ').map(|n| n.parse().ok()).collect();
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or_else(|| format!("a peer asked to '{line}' answered '{answer}'").into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be gone already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python to ask, if any.
pub(crate) fn python() -> Option<PathBuf> {
    if let Some(given) = env::var_os("DS_PEERS_PYTHON").filter(|v| !v.is_empty()) {
        return Some(given.into());
    }
    let default = peers()?.join("venv/bin/python");
    default.exists().then_some(default)
}

/// Versions of what the Python has.
pub(crate) fn versions(python: &Path) -> String {
    const ASK: &str = "import sys\nfrom importlib.metadata import version\n\
        print('; '.join(['Python ' + sys.version.split()[0]] + [f'{n} {version(n)}' for n in ('torch', 'deepspeed')]))";
    let output = Command::new(python).args(["-c", ASK]).output();
    output.map_or_else(
        |e| format!("{} does not run: {e}", python.display()),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}

fn peers() -> Option<PathBuf> {
    env::var_os("DS_PEERS")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

/// The C probe, built beside this program, with the pinned loop where there is one.
fn built_probe() -> Result<PathBuf> {
    let program = env::current_exe()?.with_file_name("ds-bench-probe");
    let source = program.with_extension("c");
    std::fs::write(&source, PROBE)?;
    let mut command = Command::new("gcc");
    command.args(["-O3", "-march=native", "-fopenmp"]);
    if let Some(pinned) = peers()
        .map(|p| p.join("bench/bw2.c"))
        .filter(|p| p.exists())
    {
        let mut define = OsString::from("-DPINNED=\"");
        define.push(pinned);
        define.push("\"");
        command.arg(define);
    }
    let built = command.arg(&source).arg("-o").arg(&program).output()?;
    if built.status.success() {
        Ok(program)
    } else {
        Err(format!(
            "gcc refused the probe: {}",
            String::from_utf8_lossy(&built.stderr)
        )
        .into())
    }
}
