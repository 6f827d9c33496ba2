//! Names of addresses in the data of programs and libraries: what a static lock is called.
//!
//! From the symbol tables of the file that the data was loaded from. What has no symbol is called by its
//! file and address in it; what lies on a heap or a stack has no name.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use object::{
    LittleEndian as LE,
    elf::{
        ELFCLASS64, ELFDATA2LSB, ELFMAG, FileHeader64, SHT_DYNSYM, SHT_SYMTAB, STT_OBJECT, STT_TLS,
        SectionHeader64, Sym64,
    },
    pod,
};

use super::maps::{self, Mapping};

/// Section headers that are read.
const MAX_SECTIONS: usize = 8_192;
/// Bytes of a symbol table and of its names: a browser's have some 100 MB.
const MAX_TABLE: u64 = 256 << 20;
/// Bytes of a name.
const MAX_NAME: usize = 4_096;
/// Files whose symbols are kept.
const MAX_FILES: usize = 64;

type Header = FileHeader64<LE>;
type Section = SectionHeader64<LE>;
type Symbol = Sym64<LE>;

/// A name of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataName {
    /// The symbol, demangled; of data without one, the file.
    pub name: Arc<str>,
    /// Distance from the symbol's start, or the address in the file.
    pub offset: u64,
    /// Is it a symbol?
    pub symbol: bool,
}

/// Data symbols of one file.
#[derive(Debug, Default)]
struct Symbols {
    /// Address in the file, size, name.
    all: Vec<(u64, u64, Arc<str>)>,
    /// Where what is loaded of it ends; `None`: the file does not tell.
    end: Option<u64>,
}

/// Names of data, by file.
#[derive(Debug, Default)]
pub struct Data {
    files: HashMap<(u64, u64, i64), Arc<Symbols>>,
}

impl Data {
    /// The name of what lies at `at` in `file`, which is called `path`; `None`: behind all that is loaded of it,
    /// where memory may lie that is somebody else's.
    pub fn name(&mut self, file: &File, path: &str, at: u64) -> Option<DataName> {
        let symbols = self.symbols(file);
        let end = symbols.as_deref().and_then(|symbols| symbols.end);
        if end.is_some_and(|end| at >= end) {
            return None;
        }
        if let Some((name, offset)) = symbols.as_deref().and_then(|symbols| symbols.find(at)) {
            return Some(DataName {
                name,
                offset,
                symbol: true,
            });
        }
        let base = Path::new(path).file_name().unwrap_or_default();
        Some(DataName {
            name: base.to_string_lossy().into(),
            offset: at,
            symbol: false,
        })
    }

    fn symbols(&mut self, file: &File) -> Option<Arc<Symbols>> {
        let meta = file.metadata().ok()?;
        let key = (meta.dev(), meta.ino(), meta.mtime());
        if let Some(known) = self.files.get(&key) {
            return Some(Arc::clone(known));
        }
        let symbols = Arc::new(Symbols::read(file).unwrap_or_default());
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        self.files.insert(key, Arc::clone(&symbols));
        Some(symbols)
    }
}

impl Symbols {
    fn find(&self, at: u64) -> Option<(Arc<str>, u64)> {
        let behind = self.all.partition_point(|symbol| symbol.0 <= at);
        let (start, size, name) = self.all.get(behind.checked_sub(1)?)?;
        (at - start < (*size).max(1)).then(|| (Arc::clone(name), at - start))
    }

    fn read(file: &File) -> Option<Symbols> {
        let mut words = [0u64; size_of::<Header>() / 8];
        file.read_exact_at(pod::bytes_of_slice_mut(&mut words), 0)
            .ok()?;
        let (header, _) = pod::from_bytes::<Header>(pod::bytes_of_slice(&words)).ok()?;
        if header.e_ident.magic != ELFMAG
            || header.e_ident.class != ELFCLASS64
            || header.e_ident.data != ELFDATA2LSB
            || usize::from(header.e_shentsize.get(LE)) != size_of::<Section>()
        {
            return None;
        }
        let count = usize::from(header.e_shnum.get(LE)).min(MAX_SECTIONS);
        let words = words_at(file, header.e_shoff.get(LE), count * size_of::<Section>())?;
        let (sections, _) =
            pod::slice_from_bytes::<Section>(pod::bytes_of_slice(&words), count).ok()?;
        let mut all = Vec::new();
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            for table in sections.iter().filter(|s| s.sh_type.get(LE) == kind) {
                if let Some(names) = sections.get(table.sh_link.get(LE) as usize) {
                    read_table(file, table, names, &mut all);
                }
            }
        }
        // Of several names of one address, the first of the full table.
        all.sort_by_key(|(start, _, _)| *start);
        all.dedup_by_key(|(start, _, _)| *start);
        let ends = sections
            .iter()
            .filter(|section| section.sh_addr.get(LE) != 0)
            .map(|section| {
                section
                    .sh_addr
                    .get(LE)
                    .saturating_add(section.sh_size.get(LE))
            });
        Some(Symbols {
            all,
            end: ends.max(),
        })
    }
}

/// Reads so many bytes, into words so that they are aligned.
fn words_at(file: &File, at: u64, bytes: usize) -> Option<Vec<u64>> {
    let mut words = vec![0u64; bytes.div_ceil(8)];
    let into = pod::bytes_of_slice_mut(&mut words);
    file.read_exact_at(into.get_mut(..bytes)?, at).ok()?;
    Some(words)
}

fn read_table(file: &File, table: &Section, names: &Section, out: &mut Vec<(u64, u64, Arc<str>)>) {
    let sizes = [table.sh_size.get(LE), names.sh_size.get(LE)];
    if sizes.iter().any(|size| *size > MAX_TABLE) {
        return;
    }
    let count = sizes[0] as usize / size_of::<Symbol>();
    let Some(words) = words_at(file, table.sh_offset.get(LE), count * size_of::<Symbol>()) else {
        return;
    };
    let mut text = vec![0; sizes[1] as usize];
    if file
        .read_exact_at(&mut text, names.sh_offset.get(LE))
        .is_err()
    {
        return;
    }
    let Ok((symbols, _)) = pod::slice_from_bytes::<Symbol>(pod::bytes_of_slice(&words), count)
    else {
        return;
    };
    for symbol in symbols {
        let kind = symbol.st_info & 0xf;
        let is_data = kind == STT_OBJECT && kind != STT_TLS;
        if !is_data || symbol.st_shndx.get(LE) == 0 {
            continue;
        }
        let Some(name) = text.get(symbol.st_name.get(LE) as usize..) else {
            continue;
        };
        let name = &name[..name.len().min(MAX_NAME)];
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
        if let Ok(name) = std::str::from_utf8(&name[..end])
            && !name.is_empty()
        {
            let name = demangle(name);
            out.push((symbol.st_value.get(LE), symbol.st_size.get(LE), name.into()));
        }
    }
}

/// A symbol as its programmer wrote it, without the hash that Rust puts behind it.
fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
        && let Ok(text) = symbol.demangle()
    {
        return text;
    }
    name.to_owned()
}

/// The mapping of a file whose data an address belongs to: the one that holds it, or, for what has no
/// content in the file (`.bss`), the one right before.
pub fn file_of(mappings: &[Mapping], addr: u64) -> Option<&Mapping> {
    let mut index = maps::holding(mappings, addr)?;
    // A program's data is followed by at most two mappings without a file.
    for _ in 0..3 {
        let mapping = &mappings[index];
        if mapping.inode != 0 {
            return (!mapping.shared).then_some(mapping);
        }
        if !mapping.path.is_empty() {
            return None;
        }
        let before = mappings.get(index.checked_sub(1)?)?;
        if before.end != mapping.start {
            return None;
        }
        index -= 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::maps::Device, *};

    /// Something to find.
    static MARKER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);

    fn mapping(start: u64, end: u64, inode: u64, path: &str) -> Mapping {
        Mapping {
            start,
            end,
            executable: false,
            shared: false,
            offset: 0,
            device: Device::default(),
            inode,
            path: path.into(),
        }
    }

    #[test]
    fn bss_belongs_to_the_file_before_it() {
        let all = [
            mapping(0x1000, 0x2000, 5, "/bin/x"),
            mapping(0x2000, 0x3000, 0, ""),
            mapping(0x3000, 0x4000, 0, "[heap]"),
            mapping(0x9000, 0xa000, 0, ""),
        ];
        assert_eq!(file_of(&all, 0x1008).unwrap().inode, 5);
        assert_eq!(file_of(&all, 0x2008).unwrap().inode, 5);
        assert_eq!(file_of(&all, 0x3008), None);
        assert_eq!(file_of(&all, 0x9008), None);
        assert_eq!(file_of(&all, 0), None);
    }

    #[test]
    fn own_static_has_its_name_and_garbage_has_none() {
        let file = File::open("/proc/self/exe").unwrap();
        let symbols = Symbols::read(&file).unwrap();
        MARKER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (start, _, name) = symbols
            .all
            .iter()
            .find(|(_, _, name)| name.contains("data::tests::MARKER"))
            .unwrap();
        assert_eq!(symbols.find(start + 4), Some((Arc::clone(name), 4)));
        assert_eq!(symbols.find(u64::MAX), None);
        // Memory right behind the program's data is not its own.
        let mut data = Data::default();
        let end = symbols.end.unwrap();
        assert!(data.name(&file, "/a/program", end - 1).is_some());
        assert_eq!(data.name(&file, "/a/program", end), None);
        let text = File::open("/proc/self/maps").unwrap();
        assert!(Symbols::read(&text).is_none());
    }

    #[test]
    fn a_file_that_was_tampered_with_is_no_trouble() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let dir = std::env::temp_dir().join(format!("observer-data-{}", std::process::id()));
        // The header, at each place that matters, and the section headers behind the end.
        for at in (0..64).step_by(2) {
            let mut changed = bytes[..4_096.min(bytes.len())].to_vec();
            changed[at] ^= 0xff;
            changed[at + 1] ^= 0x7f;
            std::fs::write(&dir, &changed).unwrap();
            let _ = Symbols::read(&File::open(&dir).unwrap());
        }
        std::fs::remove_file(&dir).unwrap();
    }

    #[test]
    fn names_are_demangled() {
        assert_eq!(demangle("hot_lock"), "hot_lock");
        assert_eq!(demangle("_ZN3foo3barE"), "foo::bar");
    }
}
