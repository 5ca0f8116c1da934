//! Files: opened for direct I/O where they allow it, and by a second way for what direct I/O does not
//! move; replaced as a whole on request.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::{
    fs::{AtFlags, FallocateFlags, OFlags, StatxFlags, fallocate, fcntl_getfl, fsync, statx},
    io::Errno,
};
use tempfile::TempPath;

use crate::config::PAGE_BYTES;

/// What to read or write: a path, or a file that is open already.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A path; a file that is written is made if it is missing.
    Path(&'a Path),
    /// An open file; the handle keeps a descriptor of its own, so the caller may close this one.
    Descriptor(BorrowedFd<'a>),
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Target<'a> {
    fn from(path: &'a P) -> Self {
        Self::Path(path.as_ref())
    }
}

impl<'a> From<BorrowedFd<'a>> for Target<'a> {
    fn from(descriptor: BorrowedFd<'a>) -> Self {
        Self::Descriptor(descriptor)
    }
}

/// An open file.
pub(crate) struct OpenFile {
    /// What it is called in errors.
    name: PathBuf,
    /// As it was opened or given.
    own: File,
    direct: Direct,
    /// For I/O through the page cache where `own` is for direct I/O; made when it is first needed.
    cached: OnceLock<File>,
    writes: bool,
    /// What the address of memory must be a multiple of for direct I/O.
    memory_alignment: usize,
    /// What is renamed in the end.
    replacement: Mutex<Option<Replacement>>,
}

/// What direct I/O goes through.
enum Direct {
    /// This file has none.
    None,
    /// What was opened or given.
    Own,
    /// The same file, opened once more.
    Again(File),
}

/// A file that takes another's place when all of it is there.
struct Replacement {
    temporary: TempPath,
    target: PathBuf,
}

/// What failed about a file, in words, and how.
pub(crate) type Failed = (&'static str, io::Error);

impl OpenFile {
    /// Opens a file to be read.
    pub(crate) fn to_read(target: Target<'_>) -> Result<Self, Failed> {
        match target {
            Target::Path(path) => Self::open(path, OpenOptions::new().read(true), false),
            Target::Descriptor(descriptor) => Self::adopt(descriptor, false),
        }
    }

    /// Opens a file to be written, and makes it if it is missing.
    pub(crate) fn to_write(target: Target<'_>) -> Result<Self, Failed> {
        match target {
            Target::Path(path) => {
                let options = &mut OpenOptions::new();
                Self::open(path, options.write(true).create(true).truncate(false), true)
            }
            Target::Descriptor(descriptor) => Self::adopt(descriptor, true),
        }
    }

    /// Opens a new file beside `path`, which [`OpenFile::settle`] puts in its place.
    pub(crate) fn to_replace(path: &Path) -> Result<Self, Failed> {
        // What a link names is replaced, not the link.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let old = target.metadata().ok();
        let mode = old
            .as_ref()
            .map_or(0o666, |old| old.permissions().mode() & 0o7777);
        let temporary = tempfile::Builder::new()
            .prefix(".ds-io-")
            .suffix(".partial")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)
            .map_err(|e| ("make a file beside it", e))?
            .into_temp_path();
        let mut file = Self::open(&temporary, OpenOptions::new().write(true), true)?;
        if old.is_some() {
            // What the umask took away, the old file has.
            let given = file.own.set_permissions(Permissions::from_mode(mode));
            given.map_err(|e| ("give it the old one's mode", e))?;
        }
        path.clone_into(&mut file.name);
        file.replacement = Mutex::new(Some(Replacement { temporary, target }));
        Ok(file)
    }

    fn open(path: &Path, options: &mut OpenOptions, writes: bool) -> Result<Self, Failed> {
        let (file, direct) = match options.clone().custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => (file, Direct::Own),
            // This filesystem has no direct I/O.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (
                options.open(path).map_err(|e| ("open it", e))?,
                Direct::None,
            ),
            Err(e) => return Err(("open it", e)),
        };
        Ok(Self::of(path.to_owned(), file, direct, writes))
    }

    fn adopt(descriptor: BorrowedFd<'_>, writes: bool) -> Result<Self, Failed> {
        let number = descriptor.as_raw_fd();
        let name = PathBuf::from(format!("descriptor {number}"));
        let own = descriptor
            .try_clone_to_owned()
            .map_err(|e| ("keep it open", e))?;
        let own = File::from(own);
        let flags = fcntl_getfl(&own).map_err(|e| ("ask for its flags", e.into()))?;
        // What is opened once more would otherwise do what this descriptor may not.
        let mode = flags & OFlags::RWMODE;
        let (missing, text) = if writes {
            (OFlags::RDONLY, "it is open for reading only")
        } else {
            (OFlags::WRONLY, "it is open for writing only")
        };
        if mode == missing || flags.contains(OFlags::PATH) {
            let what = if writes { "write it" } else { "read it" };
            return Err((what, io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        if flags.contains(OFlags::APPEND) && writes {
            let text = "it is open for appending, and would not write at an offset";
            return Err((
                "write it",
                io::Error::new(io::ErrorKind::InvalidInput, text),
            ));
        }
        let direct = if flags.contains(OFlags::DIRECT) {
            Direct::Own
        } else {
            // Where the same file is not to be had once more, the page cache does it all.
            reopen(&own, writes, libc::O_DIRECT).map_or(Direct::None, Direct::Again)
        };
        Ok(Self::of(name, own, direct, writes))
    }

    fn of(name: PathBuf, own: File, direct: Direct, writes: bool) -> Self {
        let mut file = Self {
            name,
            own,
            direct,
            cached: OnceLock::new(),
            writes,
            memory_alignment: 1,
            replacement: Mutex::new(None),
        };
        let checked = match &file.direct {
            Direct::None => return file,
            Direct::Own => alignment(&file.own),
            Direct::Again(again) => alignment(again),
        };
        match checked {
            Some(memory_alignment) => file.memory_alignment = memory_alignment,
            // Its blocks are larger than a page, or it has no direct I/O after all.
            None => file.give_up_direct(),
        }
        file
    }

    fn give_up_direct(&mut self) {
        if matches!(self.direct, Direct::Own) {
            let Ok(cached) = reopen(&self.own, self.writes, 0) else {
                return;
            };
            self.own = cached;
        }
        self.direct = Direct::None;
    }

    /// What it is called in errors.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// The descriptor for direct I/O, and what the address of memory must be a multiple of.
    pub(crate) fn direct(&self) -> Option<(RawFd, usize)> {
        let file = match &self.direct {
            Direct::None => return None,
            Direct::Own => &self.own,
            Direct::Again(again) => again,
        };
        Some((file.as_raw_fd(), self.memory_alignment))
    }

    /// The descriptor for I/O through the page cache.
    pub(crate) fn cached(&self) -> Result<RawFd, Failed> {
        if !matches!(self.direct, Direct::Own) {
            return Ok(self.own.as_raw_fd());
        }
        if let Some(cached) = self.cached.get() {
            return Ok(cached.as_raw_fd());
        }
        let again = reopen(&self.own, self.writes, 0);
        let again = again.map_err(|e| ("open it a second time, without O_DIRECT", e))?;
        Ok(self.cached.get_or_init(|| again).as_raw_fd())
    }

    /// A descriptor to read what was written.
    pub(crate) fn read_back(&self) -> io::Result<File> {
        reopen(&self.own, false, 0)
    }

    /// Its size, in bytes; none for what is no file of bytes.
    pub(crate) fn size(&self) -> Result<Option<u64>, Failed> {
        let metadata = self.own.metadata().map_err(|e| ("ask for its size", e))?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    /// Sees that there is room on the disk for bytes `offset..end`, before one is written, and makes
    /// the file as long: writes that lengthen a file are done one after the other.
    pub(crate) fn reserve(&self, offset: u64, end: u64) -> Result<(), Failed> {
        let Some(size) = self.size()? else {
            return Ok(());
        };
        if end <= size {
            return Ok(());
        }
        let start = offset.max(size);
        loop {
            match fallocate(&self.own, FallocateFlags::empty(), start, end - start) {
                Err(Errno::INTR) => {}
                // The filesystem cannot; the writes will tell.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => return Ok(()),
                Err(e) => return Err(("reserve room for it", e.into())),
            }
        }
    }

    /// Brings its data to the disk, and waits for that.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        loop {
            match fsync(&self.own) {
                Err(Errno::INTR) => {}
                synced => return synced,
            }
        }
    }

    /// Removes a file that will not take another's place.
    pub(crate) fn abandon(&self) {
        let mut replacement = (self.replacement.lock()).unwrap_or_else(PoisonError::into_inner);
        drop(replacement.take());
    }

    /// Puts it in the place of the file that it replaces, for good: also the folder is brought to the
    /// disk. Its own data must be there already.
    pub(crate) fn settle(&self) -> Result<(), Failed> {
        let mut replacement = (self.replacement.lock()).unwrap_or_else(PoisonError::into_inner);
        let Some(Replacement { temporary, target }) = replacement.take() else {
            return Ok(());
        };
        let folder = temporary.parent().map(Path::to_owned);
        (temporary.persist(&target)).map_err(|e| ("put the new file in its place", e.error))?;
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| PathBuf::from("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| ("bring its folder to the disk", e))
    }
}

/// The same file, opened once more with other flags.
fn reopen(file: &File, writes: bool, flags: i32) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new()
        .read(!writes)
        .write(writes)
        .custom_flags(flags)
        .open(path)
}

/// What the address of memory must be a multiple of for direct I/O in whole pages of `file`; none
/// where whole pages do not do.
fn alignment(file: &File) -> Option<usize> {
    /// What disks want that do not tell (before Linux 6.1).
    const USUAL: usize = 512;
    let Ok(told) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Some(USUAL);
    };
    if told.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Some(USUAL);
    }
    let offset = u64::from(told.stx_dio_offset_align);
    if offset == 0 || !PAGE_BYTES.is_multiple_of(offset) {
        return None;
    }
    usize::try_from(told.stx_dio_mem_align)
        .ok()
        .filter(|bytes| *bytes > 0)
}
