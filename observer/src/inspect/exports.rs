//! Data that the files of a process export: where it is, by name. Runtimes are recognised by it, and read from there
//! on.

use std::{collections::HashMap, fs::File, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use object::{
    Endianness,
    elf::{FileHeader64, PT_LOAD, SHN_UNDEF, SHT_DYNSYM, STT_TLS, Sym64},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader, SectionHeader, Sym},
    },
};

use super::{files, maps, usdt::Bounded};

/// Files whose symbols are kept.
const MAX_FILES: usize = 256;
/// Files of one process that are looked at.
const MAX_LOOKED_AT: usize = 16;

/// A symbol's address and size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Address.
    pub addr: u64,
    /// Bytes; 0: not known.
    pub size: u64,
}

/// What one file exports of what is looked for, by the linker's addresses.
#[derive(Debug, Default)]
struct Exported {
    symbols: HashMap<String, Symbol>,
    /// Where the file's first byte is loaded to.
    start: u64,
}

/// What files export, by file.
#[derive(Debug, Default)]
pub struct Exports(HashMap<(u64, u64, i64), Arc<Exported>>);

impl Exports {
    /// Where in process `pid` the symbols `names` are, in the program and in files that are called like one of
    /// `beginnings`; and the names of all files that are mapped.
    pub fn of(
        &mut self,
        pid: u32,
        beginnings: &[&str],
        names: &[&str],
    ) -> (HashMap<String, Symbol>, Vec<String>) {
        let mut found = HashMap::new();
        let mut all: Vec<String> = Vec::new();
        let program = std::fs::metadata(format!("/proc/{pid}/exe")).map(|file| file.ino());
        let mappings = maps::read(pid).unwrap_or_default();
        let mut looked_at = 0;
        for mapping in mappings
            .iter()
            .filter(|mapping| mapping.offset == 0 && mapping.inode != 0 && !mapping.shared)
        {
            let name = Path::new(mapping.name()).file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            let wanted = program.as_ref().is_ok_and(|inode| *inode == mapping.inode)
                || beginnings.iter().any(|one| name.starts_with(one));
            if !all.contains(&name) && all.len() < 4_096 {
                all.push(name);
            }
            if !wanted || looked_at >= MAX_LOOKED_AT {
                continue;
            }
            looked_at += 1;
            let Ok(file) = files::open_mapped(pid, mapping) else {
                continue;
            };
            let Some(exported) = self.file(&file, names) else {
                continue;
            };
            let bias = mapping.start.wrapping_sub(exported.start);
            for (name, symbol) in &exported.symbols {
                found.entry(name.clone()).or_insert(Symbol {
                    addr: symbol.addr.wrapping_add(bias),
                    size: symbol.size,
                });
            }
        }
        (found, all)
    }

    fn file(&mut self, file: &File, names: &[&str]) -> Option<Arc<Exported>> {
        let meta = file.metadata().ok()?;
        let key = (meta.dev(), meta.ino(), meta.mtime());
        if let Some(known) = self.0.get(&key) {
            return Some(Arc::clone(known));
        }
        let cache = ReadCache::new(file);
        let read = read(Bounded::new(&cache), names).unwrap_or_default();
        if self.0.len() >= MAX_FILES {
            self.0.clear();
        }
        let read = Arc::new(read);
        self.0.insert(key, Arc::clone(&read));
        Some(read)
    }
}

fn read<'d, R: ReadRef<'d>>(data: R, names: &[&str]) -> Option<Exported> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let first = segments
        .iter()
        .find(|segment| segment.p_type(endian) == PT_LOAD && segment.p_offset(endian) == 0)?;
    let mut exported = Exported {
        start: first.p_vaddr(endian),
        symbols: HashMap::new(),
    };
    let sections = header.sections(endian, data).ok()?;
    let section = sections
        .iter()
        .find(|section| section.sh_type(endian) == SHT_DYNSYM)?;
    let symbols = section
        .data_as_array::<Sym64<Endianness>, _>(endian, data)
        .ok()?;
    let strings = sections.section(section.link(endian)).ok()?;
    let strings = strings.data(endian, data).ok()?;
    for symbol in symbols {
        if symbol.st_shndx(endian) == SHN_UNDEF || symbol.st_type() == STT_TLS {
            continue;
        }
        let text = strings
            .get(symbol.st_name(endian) as usize..)
            .unwrap_or(&[]);
        // The NUL is part of what is compared.
        let name = names.iter().find(|name| {
            text.strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        });
        if let Some(name) = name {
            exported
                .symbols
                .entry((*name).to_owned())
                .or_insert(Symbol {
                    addr: symbol.st_value(endian),
                    size: symbol.st_size(endian),
                });
        }
    }
    Some(exported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_data_is_found_where_it_is() {
        let own = std::process::id();
        let (found, files) = Exports::default().of(own, &["libc.so"], &["environ", "no_such"]);
        // SAFETY: only its address is taken.
        let environ = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"environ".as_ptr()) } as u64;
        assert_eq!(found["environ"].addr, environ);
        assert_eq!(found["environ"].size, 8);
        assert!(!found.contains_key("no_such"));
        assert!(files.iter().any(|name| name.starts_with("libc.so")));
        let (none, files) = Exports::default().of(u32::MAX / 2, &["lib"], &["environ"]);
        assert!(none.is_empty() && files.is_empty());
    }

    #[test]
    fn a_file_that_is_no_program_has_none() {
        assert!(read(&b"\x7fELF and nothing else"[..], &["environ"]).is_none());
        let own = std::fs::read("/proc/self/exe").unwrap();
        for at in (0..64).step_by(2) {
            let mut changed = own[..4_096].to_vec();
            changed[at] ^= 0xff;
            let _ = read(&changed[..], &["environ"]);
        }
    }
}
