//! Reads a plugin library without running any of it: is it for this machine, what does it export,
//! what does it need.
//!
//! Looks at the program headers and the dynamic segment, as the system's loader does, and never at
//! section headers, which a stripped file lacks and the loader ignores. Reads a few blocks of the
//! file, whatever its size.

#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use object::{
    Endianness, LittleEndian, U32,
    elf::{
        DF_1_PIE, DT_FLAGS_1, DT_GNU_HASH, DT_HASH, DT_NEEDED, DT_NULL, DT_SONAME, DT_STRSZ,
        DT_STRTAB, DT_SYMTAB, Dyn64, DynamicTag, ELFMAG, EM_AARCH64, EM_X86_64, ET_DYN,
        FileHeader64, GnuHashHeader, HashHeader, Machine, PT_DYNAMIC, PT_LOAD, ProgramHeader64,
        SHN_ABS, SHN_UNDEF, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STV_HIDDEN, STV_INTERNAL, Sym64,
    },
    read::{
        ReadCache, ReadRef,
        elf::{Dyn, FileHeader, ProgramHeader, Sym},
    },
};

use crate::{Error, ErrorKind, Result};

/// What a plugin library says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLibrary {
    /// Libraries that the system's loader will load with it.
    pub needed: Vec<String>,
    /// Its own name, if it has one.
    pub soname: Option<String>,
}

/// Names that linkers and start files leave in a library. They clash with nobody: each library has
/// its own, and none is looked up by name.
const TOOLCHAIN: &[&[u8]] = &[
    b"_init",
    b"_fini",
    b"__bss_start",
    b"__bss_start__",
    b"__bss_end__",
    b"_bss_end__",
    b"_edata",
    b"_end",
    b"__end__",
];

/// The entry symbol, without the terminating zero.
const ENTRY: &[u8] = ds_abi::DS_PLUGIN_ENTRY_V1
    .split_last()
    .expect("not empty")
    .1;

/// Tables that a file may claim to have; a claim beyond is taken for damage. A plugin of any size
/// has one export and a few thousand imports.
const MAX_SYMBOLS: u32 = 1 << 16;
const MAX_DYNAMIC_BYTES: u64 = 1 << 20;
const MAX_PROGRAM_HEADERS: u16 = 1 << 12;
const MAX_NAMES_BYTES: u64 = 1 << 24;
const MAX_NEEDED: usize = 1 << 10;
/// A path's length in Linux, for what the loader would look for.
const MAX_NEEDED_BYTES: usize = 4096;
/// Bytes of a name that a message shows.
const SHOWN_BYTES: usize = 120;

/// Checks the plugin library at `path`.
///
/// # Errors
///
/// `Incompatible` if it is no plugin library for this machine, `Io` if it cannot be read.
pub fn check_plugin(path: &Path) -> Result<PluginLibrary> {
    let file = File::open(path).map_err(|e| {
        Error::new(ErrorKind::Io, OP, format!("cannot open {}", path.display())).with_source(e)
    })?;
    check_plugin_in(file)
}

/// As [`check_plugin`], on what `source` reads.
///
/// # Errors
///
/// As [`check_plugin`].
pub fn check_plugin_in<R: Read + Seek>(source: R) -> Result<PluginLibrary> {
    let cache = ReadCache::new(source);
    Image::parse(&cache)?.check()
}

const OP: &str = "read library";

fn refuse(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Incompatible, OP, context)
}

fn damaged(what: &str) -> Error {
    refuse(format!("the file is damaged or cut short: {what}"))
        .with_hint("copy or build the plugin again")
}

/// The parts of a file that the system's loader would look at.
struct Image<'data, R: ReadRef<'data>> {
    data: R,
    segments: &'data [ProgramHeader64<Endianness>],
    dynamic: &'data [Dyn64<Endianness>],
    /// The names, each with a zero behind it. Many may share their end, so a copy of each would take
    /// many times what the file has.
    names: &'data [u8],
}

/// Hosts with other byte orders have no accelerators.
const ENDIAN: Endianness = Endianness::Little;

impl<'data, R: ReadRef<'data>> Image<'data, R> {
    fn parse(data: R) -> Result<Self> {
        let magic = data
            .read_bytes_at(0, 4)
            .map_err(|()| refuse("it is shorter than the header of a library"))?;
        if magic != ELFMAG {
            return Err(refuse("it is no ELF file").with_hint("name the plugin's shared library"));
        }
        let header = FileHeader64::<Endianness>::parse(data).map_err(|_| {
            refuse("it is no 64-bit ELF file").with_hint("build the plugin for this machine")
        })?;
        if header.is_big_endian() {
            return Err(refuse("it is for a machine of the other byte order"));
        }
        check_kind(header)?;
        if header.e_phnum(ENDIAN) > MAX_PROGRAM_HEADERS {
            return Err(damaged("it claims too many segments"));
        }
        let segments = header
            .program_headers(ENDIAN, data)
            .map_err(|_| damaged("no segment table"))?;
        let place = segments
            .iter()
            .find(|segment| segment.p_type(ENDIAN) == PT_DYNAMIC)
            .ok_or_else(|| refuse("it is not linked as a shared library: no dynamic segment"))?;
        if place.p_filesz(ENDIAN) > MAX_DYNAMIC_BYTES {
            return Err(damaged("its dynamic segment is too large"));
        }
        let dynamic = place
            .dynamic(ENDIAN, data)
            .ok()
            .flatten()
            .ok_or_else(|| damaged("no dynamic segment"))?;
        let end = dynamic
            .iter()
            .position(|entry| entry.d_tag(ENDIAN) == DT_NULL);
        let dynamic = &dynamic[..end.unwrap_or(dynamic.len())];
        let mut image = Self {
            data,
            segments,
            dynamic,
            names: &[],
        };
        let start = image
            .offset(DT_STRTAB)
            .ok_or_else(|| damaged("no table of names"))?;
        let size = image
            .value(DT_STRSZ)
            .ok_or_else(|| damaged("no size of the names"))?;
        if size > MAX_NAMES_BYTES {
            return Err(damaged("it claims too many names"));
        }
        image.names = data
            .read_bytes_at(start, size)
            .map_err(|()| damaged("the names reach beyond its end"))?;
        Ok(image)
    }

    fn check(&self) -> Result<PluginLibrary> {
        if self
            .value(DT_FLAGS_1)
            .is_some_and(|flags| flags & DF_1_PIE.0 != 0)
        {
            return Err(refuse("it is a program, not a library")
                .with_hint("name the plugin's shared library, or link with -shared"));
        }
        self.check_exports()?;
        let mut library = PluginLibrary {
            needed: Vec::new(),
            soname: None,
        };
        for entry in self.dynamic {
            match entry.d_tag(ENDIAN) {
                DT_NEEDED if library.needed.len() == MAX_NEEDED => {
                    return Err(damaged("it claims to need too many libraries"));
                }
                DT_NEEDED => library.needed.push(self.text(entry.d_val(ENDIAN))?),
                DT_SONAME => library.soname = Some(self.text(entry.d_val(ENDIAN))?),
                _ => {}
            }
        }
        Ok(library)
    }

    fn check_exports(&self) -> Result<()> {
        let mut entry_found = false;
        let mut foreign: Vec<String> = Vec::new();
        let mut foreign_count = 0_usize;
        for symbol in self.symbols()? {
            if !is_export(symbol) {
                continue;
            }
            let rest = self
                .names_from(symbol.st_name(ENDIAN).into())
                .ok_or_else(|| damaged("a symbol without a name"))?;
            let is = |name: &[u8]| {
                let behind = rest.strip_prefix(name).and_then(<[u8]>::first);
                behind == Some(&0)
            };
            if is(ENTRY) {
                if !matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC) {
                    return Err(refuse("its `ds_plugin_v1` is no function"));
                }
                entry_found = true;
            } else if !TOOLCHAIN.iter().any(|name| is(name)) {
                foreign_count += 1;
                if foreign.len() < 5 {
                    let name = &rest[..rest.len().min(SHOWN_BYTES)];
                    let (name, more) = match name.iter().position(|byte| *byte == 0) {
                        Some(end) => (&name[..end], ""),
                        None => (name, "…"),
                    };
                    let name = String::from_utf8_lossy(name);
                    foreign.push(format!("`{}{more}`", name.escape_debug()));
                }
            }
        }
        if !entry_found {
            return Err(refuse(no_entry(&foreign, foreign_count)).with_hint(
                "build the plugin for this version of DeepSpeed; in C, include ds_plugin.h and \
                 define ds_plugin_v1 with default visibility",
            ));
        }
        if foreign_count > 0 {
            return Err(refuse(format!(
                "it exports {} beside `ds_plugin_v1`, which could replace functions of other \
                 libraries in the process",
                listed(&foreign, foreign_count)
            ))
            .with_hint(
                "link with a version script that says { global: ds_plugin_v1; local: *; };",
            ));
        }
        Ok(())
    }

    /// The dynamic symbols, as many as the hash tables reach: what `dlsym` could find.
    fn symbols(&self) -> Result<&'data [Sym64<Endianness>]> {
        let mut count = None;
        if let Some(offset) = self.offset(DT_HASH) {
            let header = self
                .data
                .read_at::<HashHeader<Endianness>>(offset)
                .map_err(|()| damaged("no hash table of symbols"))?;
            count = Some(header.chain_count.get(ENDIAN));
        }
        if let Some(offset) = self.offset(DT_GNU_HASH) {
            let reached = self.gnu_hash_reach(offset)?;
            count = Some(count.map_or(reached, |other| reached.max(other)));
        }
        let count = count.ok_or_else(|| refuse("it has no hash table of symbols"))?;
        if count > MAX_SYMBOLS {
            return Err(damaged("it claims too many symbols"));
        }
        let offset = self
            .offset(DT_SYMTAB)
            .ok_or_else(|| damaged("no table of symbols"))?;
        self.data
            .read_slice_at(offset, count as usize)
            .map_err(|()| damaged("the symbols reach beyond its end"))
    }

    /// One more than the highest symbol that a GNU hash table leads to.
    fn gnu_hash_reach(&self, offset: u64) -> Result<u32> {
        let bad = |()| damaged("the hash table of symbols reaches beyond its end");
        let header = self
            .data
            .read_at::<GnuHashHeader<Endianness>>(offset)
            .map_err(bad)?;
        let first = header.symbol_base.get(ENDIAN);
        let buckets = header.bucket_count.get(ENDIAN);
        if buckets > MAX_SYMBOLS || first > MAX_SYMBOLS {
            return Err(damaged("it claims too many symbols"));
        }
        // The bloom filter lies between the header and the buckets, in words of 8 bytes.
        let buckets_at = offset
            .checked_add(16 + 8 * u64::from(header.bloom_count.get(ENDIAN)))
            .ok_or(())
            .map_err(bad)?;
        let highest = self
            .data
            .read_slice_at::<U32<LittleEndian>>(buckets_at, buckets as usize)
            .map_err(bad)?
            .iter()
            .map(|bucket| bucket.get(LittleEndian))
            .max()
            .unwrap_or(0);
        if highest < first {
            // No bucket leads anywhere: the library defines nothing.
            return Ok(first);
        }
        // The last chain ends at the first entry with its lowest bit set.
        let chains_at = buckets_at + 4 * u64::from(buckets);
        for index in highest..MAX_SYMBOLS {
            let at = chains_at + 4 * u64::from(index - first);
            let link = self.data.read_at::<U32<LittleEndian>>(at).map_err(bad)?;
            if link.get(LittleEndian) & 1 != 0 {
                return Ok(index + 1);
            }
        }
        Err(damaged("it claims too many symbols"))
    }

    fn value(&self, tag: DynamicTag) -> Option<u64> {
        self.dynamic
            .iter()
            .find(|entry| entry.d_tag(ENDIAN) == tag)
            .map(|entry| entry.d_val(ENDIAN))
    }

    /// Where in the file the table lies that `tag` gives the address of.
    fn offset(&self, tag: DynamicTag) -> Option<u64> {
        let address = self.value(tag)?;
        self.segments
            .iter()
            .filter(|segment| segment.p_type(ENDIAN) == PT_LOAD)
            .find_map(|s| {
                let inside = address.checked_sub(s.p_vaddr(ENDIAN))?;
                (inside < s.p_filesz(ENDIAN)).then(|| s.p_offset(ENDIAN).checked_add(inside))?
            })
    }

    /// The names from this one on.
    fn names_from(&self, offset: u64) -> Option<&'data [u8]> {
        self.names.get(usize::try_from(offset).ok()?..)
    }

    /// The name of a library.
    fn text(&self, offset: u64) -> Result<String> {
        let rest = self.names_from(offset).unwrap_or_default();
        let name = &rest[..rest.len().min(MAX_NEEDED_BYTES)];
        let end = name.iter().position(|byte| *byte == 0);
        let name = end.and_then(|end| std::str::from_utf8(&name[..end]).ok());
        name.filter(|name| !name.chars().any(char::is_control))
            .map(str::to_owned)
            .ok_or_else(|| damaged("a library without a name that can be shown"))
    }
}

/// Refuses what this machine cannot load as a library.
fn check_kind(header: &FileHeader64<Endianness>) -> Result<()> {
    let machine = header.e_machine(ENDIAN);
    let host = if cfg!(target_arch = "aarch64") {
        EM_AARCH64
    } else {
        EM_X86_64
    };
    if machine != host {
        return Err(refuse(format!(
            "it is for {}, and this machine is {}",
            machine_name(machine),
            machine_name(host)
        ))
        .with_hint("take the plugin's build for this machine"));
    }
    if header.e_type(ENDIAN) != ET_DYN {
        return Err(refuse("it is not a shared library").with_hint("link the plugin with -shared"));
    }
    Ok(())
}

fn machine_name(machine: Machine) -> String {
    match machine {
        EM_X86_64 => "x86_64".to_owned(),
        EM_AARCH64 => "aarch64".to_owned(),
        other => format!("ELF machine {}", other.0),
    }
}

/// Whether other libraries would see `symbol`. The names of symbol versions are absolute, empty
/// entries beside the exports and no exports themselves.
fn is_export(symbol: &Sym64<Endianness>) -> bool {
    let section = symbol.st_shndx(ENDIAN);
    let version_name =
        section == SHN_ABS && symbol.st_value(ENDIAN) == 0 && symbol.st_size(ENDIAN) == 0;
    section != SHN_UNDEF
        && !version_name
        && symbol.st_bind() != STB_LOCAL
        && !matches!(symbol.st_visibility(), STV_HIDDEN | STV_INTERNAL)
}

fn listed(names: &[String], count: usize) -> String {
    let more = count - names.len();
    let names = names.join(", ");
    if more == 0 {
        names
    } else {
        format!("{names} and {more} more")
    }
}

fn no_entry(foreign: &[String], count: usize) -> String {
    if let Some(other) = foreign.iter().find(|name| name.starts_with("`ds_plugin_v")) {
        return format!("it exports {other}, and this host speaks `ds_plugin_v1`");
    }
    if count == 0 {
        return "it does not export `ds_plugin_v1`: it exports nothing".to_owned();
    }
    format!(
        "it does not export `ds_plugin_v1`: it exports {}",
        listed(foreign, count)
    )
}
