//! Probes of an ELF file: its notes, brought from the linker's addresses to places in the file.

use std::{collections::HashMap, fs::File, ops::Range};

use object::{
    Endianness,
    elf::{
        EM_AARCH64, EM_X86_64, FileHeader64, PF_W, PF_X, PT_LOAD, SHN_UNDEF, SHT_DYNSYM,
        SHT_NOBITS, SHT_SYMTAB, STB_LOCAL, STT_TLS,
    },
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym},
    },
};

use super::{
    Binary, Probe, Semaphore,
    argument::{self, Argument, Machine, short},
    notes::{self, Note},
};

/// Probes that are read of one file; the largest known (a JVM's) has some six hundred.
const MAX_PROBES: usize = 16_384;
/// Bytes that are read at a time: room for the symbols of the largest programs.
const MAX_READ: u64 = 128 << 20;
/// Bytes of notes, of all sections together.
const MAX_NOTES: u64 = 16 << 20;
/// Sections, and segments that are loaded: programs have some dozens of each.
const MAX_SECTIONS: usize = 65_536;
const MAX_SEGMENTS: usize = 1_024;
/// Bytes of a section's name.
const MAX_NAME: u64 = 1_024;
/// Symbols that may be asked for.
const MAX_WANTED: usize = 4_096;

pub(super) type Header = FileHeader64<Endianness>;
pub(super) type Sections<'d, R> = SectionTable<'d, Header, R>;

/// A file read piece by piece, and never much of it at once: its sizes are claims.
#[derive(Clone, Copy)]
pub(in crate::inspect) struct Bounded<'a>(&'a ReadCache<&'a File>);

impl<'a> Bounded<'a> {
    /// Reads by way of `cache`.
    pub(in crate::inspect) fn new(cache: &'a ReadCache<&'a File>) -> Bounded<'a> {
        Bounded(cache)
    }
}

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > MAX_READ {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let end = range.end.min(range.start.saturating_add(MAX_NAME));
        self.0.read_bytes_at_until(range.start..end, delimiter)
    }
}

/// The probes of a file.
///
/// # Errors
/// What makes it a file without any: in words, without its name.
pub(super) fn read_file(file: &File) -> Result<Binary, String> {
    let cache = ReadCache::new(file);
    read(Bounded(&cache))
}

/// The same of anything that can be read.
pub(super) fn read<'d, R: ReadRef<'d>>(data: R) -> Result<Binary, String> {
    let start = data
        .read_bytes_at(0, 6)
        .map_err(|()| "it is no ELF file: too short")?;
    if start[..4] != object::elf::ELFMAG {
        return Err("it is no ELF file".into());
    }
    if start[4] != object::elf::ELFCLASS64 || start[5] != object::elf::ELFDATA2LSB {
        return Err(
            "it is not for a little-endian machine of 64 bits: others are not supported".into(),
        );
    }
    let wrong = |error: object::Error| format!("its ELF structure is wrong: {error}");
    let header = Header::parse(data).map_err(wrong)?;
    let endian = header.endian().map_err(wrong)?;
    let machine = match header.e_machine(endian) {
        EM_X86_64 => Machine::X86_64,
        EM_AARCH64 => Machine::Arm64,
        other => {
            return Err(format!(
                "it is for machine {other}: only x86-64 and arm64 are supported"
            ));
        }
    };
    let segments = Segments::read(header, endian, data).map_err(wrong)?;
    let sections = sections(header, endian, data)?;
    let (notes, malformed) = all_notes(&sections, endian, data)?;
    let base = sections
        .section_by_name(endian, b".stapsdt.base")
        .map(|(_, section)| section.sh_addr(endian));
    let mut probes: Vec<Probe> = notes
        .into_iter()
        .map(|note| probe(note, machine, base, &segments))
        .collect();
    let symbols = resolve(&mut probes, &sections, endian, data);
    Ok(Binary {
        machine,
        probes,
        malformed,
        symbols,
    })
}

/// The table of sections. How many there are is a claim that a small file can make too.
pub(super) fn sections<'d, R: ReadRef<'d>>(
    header: &'d Header,
    endian: Endianness,
    data: R,
) -> Result<Sections<'d, R>, String> {
    let wrong = |error: object::Error| format!("its ELF structure is wrong: {error}");
    if header.shnum(endian, data).map_err(wrong)? > MAX_SECTIONS {
        return Err("it has too many sections".into());
    }
    header.sections(endian, data).map_err(wrong)
}

/// Notes of all sections of that name (a linker that is told so keeps several).
fn all_notes<'d, R: ReadRef<'d>>(
    sections: &Sections<'d, R>,
    endian: Endianness,
    data: R,
) -> Result<(Vec<Note>, usize), String> {
    let (mut all, mut malformed) = (Vec::new(), 0);
    let mut left = MAX_NOTES;
    for section in sections.iter() {
        if sections.section_name(endian, section) != Ok(b".note.stapsdt")
            || section.sh_type(endian) == SHT_NOBITS
        {
            continue;
        }
        left = left
            .checked_sub(section.sh_size(endian))
            .ok_or("its notes are larger than 16 MiB")?;
        let bytes = section
            .data(endian, data)
            .map_err(|error| format!("its notes cannot be read: {error}"))?;
        let (notes, bad) = notes::parse(bytes, MAX_PROBES.saturating_sub(all.len()));
        all.extend(notes);
        malformed += bad;
        if all.len() >= MAX_PROBES {
            break;
        }
    }
    Ok((all, malformed))
}

fn probe(note: Note, machine: Machine, base: Option<u64>, segments: &Segments) -> Probe {
    // A file that was prelinked has moved, and its notes have not: the base tells by how much.
    let moved = match base {
        Some(base) if note.base != 0 => base.wrapping_sub(note.base),
        _ => 0,
    };
    let location = note.location.wrapping_add(moved);
    let offset = segments.offset(location, PF_X);
    let semaphore = (note.semaphore != 0).then(|| {
        let address = note.semaphore.wrapping_add(moved);
        Semaphore {
            address,
            offset: segments.offset(address, PF_W),
        }
    });
    let refused = if offset.is_none() {
        Some("its location is not in the file's code".to_owned())
    } else if semaphore.is_some_and(|semaphore| semaphore.offset.is_none()) {
        Some("its semaphore is not in the file's data".to_owned())
    } else {
        None
    };
    Probe {
        arguments: argument::parse(machine, &note.arguments).map_err(|error| error.to_string()),
        provider: note.provider,
        name: note.name,
        location,
        offset,
        semaphore,
        argument_text: note.arguments,
        refused,
    }
}

/// What is loaded from the file, and where to.
pub(super) struct Segments(Vec<Segment>);

struct Segment {
    addresses: Range<u64>,
    offset: u64,
    flags: u32,
}

impl Segments {
    pub(super) fn read<'d, R: ReadRef<'d>>(
        header: &Header,
        endian: Endianness,
        data: R,
    ) -> object::Result<Segments> {
        let segments = header.program_headers(endian, data)?;
        Ok(Segments(
            segments
                .iter()
                .filter(|segment| segment.p_type(endian) == PT_LOAD)
                .filter_map(|segment| {
                    let start = segment.p_vaddr(endian);
                    Some(Segment {
                        addresses: start..start.checked_add(segment.p_filesz(endian))?,
                        offset: segment.p_offset(endian),
                        flags: segment.p_flags(endian),
                    })
                })
                .take(MAX_SEGMENTS)
                .collect(),
        ))
    }

    /// Where in the file the byte at an address is, if it is in a segment with these flags.
    pub(super) fn offset(&self, address: u64, flags: u32) -> Option<u64> {
        let segment = self.0.iter().find(|segment| {
            segment.flags & flags == flags && segment.addresses.contains(&address)
        })?;
        (address - segment.addresses.start).checked_add(segment.offset)
    }
}

/// Looks up the symbols that arguments name. Arguments whose symbol is not there, or is there twice, are
/// refused.
fn resolve<'d, R: ReadRef<'d>>(
    probes: &mut [Probe],
    sections: &Sections<'d, R>,
    endian: Endianness,
    data: R,
) -> HashMap<String, u64> {
    let mut wanted: HashMap<String, Found> = probes
        .iter()
        .flat_map(|probe| probe.arguments.iter().flatten())
        .filter_map(|argument| argument.place.symbol())
        .take(MAX_WANTED)
        .map(|symbol| (symbol.to_owned(), Found::No))
        .collect();
    if !wanted.is_empty() {
        for table in [SHT_SYMTAB, SHT_DYNSYM] {
            look_up(&mut wanted, sections, endian, data, table);
        }
    }
    let symbols: HashMap<String, u64> = wanted
        .into_iter()
        .filter_map(|(name, found)| match found {
            Found::Local(address) | Found::Global(address) => Some((name, address)),
            Found::No | Found::Several => None,
        })
        .collect();
    for probe in probes {
        let lost = probe.arguments.iter().flatten().enumerate().find_map(
            |(index, argument): (usize, &Argument)| {
                let symbol = argument.place.symbol()?;
                (!symbols.contains_key(symbol)).then(|| {
                    format!(
                        "argument {index}, `{}`: the file's symbols do not tell where `{}` is",
                        short(&argument.text),
                        short(symbol)
                    )
                })
            },
        );
        if let Some(why) = lost {
            probe.arguments = Err(why);
        }
    }
    symbols
}

/// A symbol that was looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    No,
    Local(u64),
    /// Local ones of the same name are others.
    Global(u64),
    Several,
}

impl Found {
    fn add(self, address: u64, local: bool) -> Found {
        match (self, local) {
            (Found::Global(known), false) if known != address => Found::Several,
            (_, false) => Found::Global(address),
            (Found::No, true) => Found::Local(address),
            (Found::Local(known), true) if known != address => Found::Several,
            (found, true) => found,
        }
    }
}

fn look_up<'d, R: ReadRef<'d>>(
    wanted: &mut HashMap<String, Found>,
    sections: &Sections<'d, R>,
    endian: Endianness,
    data: R,
    table: u32,
) {
    let Some((_, section)) = sections
        .enumerate()
        .find(|(_, section)| section.sh_type(endian) == table)
    else {
        return;
    };
    let (Ok(symbols), Ok(strings)) = (
        section.data_as_array::<object::elf::Sym64<Endianness>, _>(endian, data),
        sections
            .section(section.link(endian))
            .and_then(|strings| strings.data(endian, data)),
    ) else {
        return;
    };
    for symbol in symbols {
        if symbol.st_shndx(endian) == SHN_UNDEF || symbol.st_type() == STT_TLS {
            continue;
        }
        let Some(name) = strings.get(symbol.st_name(endian) as usize..) else {
            continue;
        };
        let end = name.iter().take(1024).position(|byte| *byte == 0);
        let Some(Ok(name)) = end.map(|end| std::str::from_utf8(&name[..end])) else {
            continue;
        };
        if let Some(found) = wanted.get_mut(name) {
            *found = found.add(symbol.st_value(endian), symbol.st_bind() == STB_LOCAL);
        }
    }
}
