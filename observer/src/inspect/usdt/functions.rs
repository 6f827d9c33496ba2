//! A file's own symbols (`.symtab`): where functions and data are that it does not export, and what a function's code
//! is. Nothing of the file is trusted.

use std::{collections::HashMap, fs::File};

use object::{
    Endianness,
    elf::{FileHeader64, PF_X, SHN_UNDEF, SHT_SYMTAB, STT_FUNC, STT_TLS, Sym64},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, SectionHeader, Sym},
    },
};

use super::elf::{Bounded, Segments, sections};

/// Functions that are taken of one file, and bytes of one.
const MAX_FUNCTIONS: usize = 256;
const MAX_CODE: u64 = 64 << 10;
/// A name is not looked at beyond this.
const MAX_NAME: usize = 256;

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// As the linker has it.
    pub name: String,
    /// Address, as the linker has it.
    pub address: u64,
    /// The same in the file.
    pub offset: u64,
    /// Its instructions.
    pub code: Vec<u8>,
}

/// What was asked for of a file's symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Functions with the beginning that was asked for.
    pub functions: Vec<Function>,
    /// Addresses of the others, as the linker has them.
    pub addresses: HashMap<String, u64>,
}

/// Looks for functions whose names begin with `beginning`, and for the symbols `names`.
///
/// # Errors
/// Why the file does not tell.
pub fn symbols(file: &File, beginning: &str, names: &[&str]) -> Result<Symbols, String> {
    let cache = ReadCache::new(file);
    read(Bounded::new(&cache), beginning, names)
}

pub(super) fn read<'d, R: ReadRef<'d>>(
    data: R,
    beginning: &str,
    names: &[&str],
) -> Result<Symbols, String> {
    let wrong = |error: object::Error| format!("its ELF structure is wrong: {error}");
    let header = FileHeader64::<Endianness>::parse(data).map_err(wrong)?;
    let endian = header.endian().map_err(wrong)?;
    let segments = Segments::read(header, endian, data).map_err(wrong)?;
    let sections = sections(header, endian, data)?;
    let table = sections
        .iter()
        .find(|section| section.sh_type(endian) == SHT_SYMTAB)
        .ok_or("it was stripped of its symbols (.symtab)")?;
    let entries = table
        .data_as_array::<Sym64<Endianness>, _>(endian, data)
        .map_err(wrong)?;
    let strings = sections
        .section(table.link(endian))
        .and_then(|strings| strings.data(endian, data))
        .map_err(wrong)?;
    let mut symbols = Symbols::default();
    for entry in entries {
        if entry.st_shndx(endian) == SHN_UNDEF || entry.st_type() == STT_TLS {
            continue;
        }
        let Some(name) = name(strings, entry.st_name(endian) as usize) else {
            continue;
        };
        let address = entry.st_value(endian);
        if names.contains(&name) {
            symbols.addresses.entry(name.to_owned()).or_insert(address);
        }
        let wanted = entry.st_type() == STT_FUNC && name.starts_with(beginning);
        if !wanted || symbols.functions.len() >= MAX_FUNCTIONS {
            continue;
        }
        let size = entry.st_size(endian).min(MAX_CODE);
        if let Some(offset) = segments.offset(address, PF_X)
            && let Ok(code) = data.read_bytes_at(offset, size)
        {
            symbols.functions.push(Function {
                name: name.to_owned(),
                address,
                offset,
                code: code.to_vec(),
            });
        }
    }
    Ok(symbols)
}

fn name(strings: &[u8], at: usize) -> Option<&str> {
    let rest = strings.get(at..)?;
    let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_this_program_are_found_and_what_is_broken_is_not_believed() {
        let file = File::open("/proc/self/exe").unwrap();
        let found = symbols(&file, "main", &["main", "no_such"]).unwrap();
        let main = found.functions.iter().find(|one| one.name == "main");
        let main = main.unwrap();
        assert_eq!(found.addresses.get("main"), Some(&main.address));
        assert!(!main.code.is_empty() && !found.addresses.contains_key("no_such"));
        for bytes in [&b""[..], b"\x7fELF", &[0x7f; 64]] {
            assert!(read(bytes, "main", &[]).is_err());
        }
        let own = std::fs::read("/proc/self/exe").unwrap();
        for at in (0..64).step_by(2) {
            let mut changed = own[..4_096].to_vec();
            changed[at] ^= 0xff;
            let _ = read(&changed[..], "main", &["main"]);
        }
    }
}
