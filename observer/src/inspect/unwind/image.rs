//! A program or library as it lies in a process: which code it has, and where its unwind tables are.
//!
//! Everything comes from the memory of the process itself: `.eh_frame` is loaded with the program, because
//! exceptions need it. So a file that was deleted, replaced or lies in another mount namespace makes no
//! difference, nothing is mapped that another process could cut short, and the vDSO is like any library. The
//! file is asked only when the headers are not in memory, or do not say where the tables are (a static
//! program linked without the index).

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use object::{
    LittleEndian,
    elf::{
        ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD,
        ProgramHeader64, SectionHeader64,
    },
    pod,
};

use super::{
    pages::{PAGE, Pages},
    rule::MAX_SHARED,
};
use gimli::UnwindSection;

use crate::inspect::{maps::Mapping, memory::Memory};

/// Program headers that are read; programs have about a dozen.
const MAX_SEGMENTS: u16 = 128;
/// Section headers that are read; large programs have hundreds.
const MAX_SECTIONS: u16 = 4_096;
/// Bytes of the table of section names that are read.
const MAX_NAMES: u64 = 256 << 10;
/// Bytes of `.eh_frame` that are indexed where the linker left no index.
const MAX_EH_FRAME: u64 = 16 << 20;
/// Entries of such an index.
const MAX_ENTRIES: usize = 200_000;
/// `DW_EH_PE_udata4`, and `DW_EH_PE_datarel | DW_EH_PE_sdata4`: the only forms that linkers write.
const COUNT_FORM: u8 = 0x03;
const TABLE_FORM: u8 = 0x3b;
/// Bytes of the header of `.eh_frame_hdr` when the pointer to `.eh_frame` takes four.
const HDR_LEN: u64 = 12;

const LE: LittleEndian = LittleEndian;
type Segment = ProgramHeader64<LittleEndian>;

/// Where an image's unwind entries are.
#[derive(Debug)]
enum Tables {
    /// `.eh_frame_hdr`: a sorted table, searched where it lies.
    Sorted { hdr: u64, count: u32 },
    /// An index of observer's own: start of the code, end, address of the entry.
    Indexed(Vec<(u64, u64, u64)>),
    /// None.
    Absent,
}

/// One image in memory.
#[derive(Debug)]
pub(super) struct Image {
    /// What is added to an address in the file to have one in the process.
    pub(super) bias: u64,
    /// Executable segments, as the process sees them.
    code: Vec<Range<u64>>,
    tables: Tables,
}

/// The headers of an ELF file.
struct Headers {
    segments: Vec<Segment>,
    sections_at: u64,
    sections: u16,
    names: u16,
}

impl Image {
    /// The image that `code`, an executable mapping, is a part of. `head` is the mapping of the same file's
    /// beginning, if there is one; `file` opens the file.
    pub(super) fn find(
        memory: &impl Memory,
        pages: &mut Pages,
        code: &Mapping,
        head: Option<&Mapping>,
        file: impl Fn() -> Option<File>,
    ) -> Option<Image> {
        let mut image = head
            .and_then(|head| {
                let headers = headers(|at, into| {
                    pages
                        .read(memory, head.start.checked_add(at)?, into)
                        .then_some(())
                })?;
                let first = headers.segments.iter().find(|segment| {
                    segment.p_type.get(LE) == PT_LOAD && segment.p_offset.get(LE) < PAGE
                })?;
                let bias = head.start.wrapping_sub(first.p_vaddr.get(LE) & !(PAGE - 1));
                Some(Image::of(&headers.segments, bias))
            })
            .filter(|image| image.has_code_at(code.start));
        if image.is_none() {
            let file = file()?;
            let headers = headers(|at, into| file.read_exact_at(into, at).ok())?;
            image = Some(Image::of(
                &headers.segments,
                bias_of(&headers.segments, code)?,
            ));
        }
        let mut image = image?;
        image.locate(memory, pages, file);
        Some(image)
    }

    fn of(segments: &[Segment], bias: u64) -> Image {
        let mut hdr = None;
        let mut code = Vec::new();
        for segment in segments {
            let start = segment.p_vaddr.get(LE).wrapping_add(bias);
            match segment.p_type.get(LE) {
                PT_GNU_EH_FRAME => hdr = Some(start),
                PT_LOAD if segment.p_flags.get(LE) & PF_X != 0 => {
                    // Whole pages are mapped.
                    let end = start.saturating_add(segment.p_memsz.get(LE));
                    let end = end.saturating_add(PAGE - 1) & !(PAGE - 1);
                    code.push(start & !(PAGE - 1)..end);
                }
                _ => {}
            }
        }
        Image {
            bias,
            code,
            tables: hdr.map_or(Tables::Absent, |hdr| Tables::Sorted { hdr, count: 0 }),
        }
    }

    /// Is the address in one of its executable segments?
    pub(super) fn has_code_at(&self, addr: u64) -> bool {
        self.code.iter().any(|range| range.contains(&addr))
    }

    /// Makes sure of the tables: the sorted one if it is of the usual form, else an index of observer's own.
    fn locate(&mut self, memory: &impl Memory, pages: &mut Pages, file: impl Fn() -> Option<File>) {
        if let Tables::Sorted { hdr, .. } = self.tables {
            let mut head = [0; HDR_LEN as usize];
            if pages.read(memory, hdr, &mut head)
                && let [1, _, COUNT_FORM, TABLE_FORM, .., a, b, c, d] = head
            {
                let count = u32::from_le_bytes([a, b, c, d]);
                self.tables = Tables::Sorted { hdr, count };
                return;
            }
        }
        self.tables = file()
            .and_then(|file| eh_frame(&file))
            .and_then(|(at, length)| index(memory, at.wrapping_add(self.bias), length))
            .map_or(Tables::Absent, Tables::Indexed);
    }

    /// Address of the unwind entry that may be about `addr`.
    pub(super) fn entry(&self, memory: &impl Memory, pages: &mut Pages, addr: u64) -> Option<u64> {
        match &self.tables {
            Tables::Absent => None,
            Tables::Indexed(all) => {
                let behind = all.partition_point(|entry| entry.0 <= addr);
                let &(_, end, entry) = all.get(behind.checked_sub(1)?)?;
                (addr < end).then_some(entry)
            }
            Tables::Sorted { hdr, count } => {
                let mut word = |at: u64| {
                    let value = pages.u32(memory, hdr.checked_add(at)?)?.cast_signed();
                    Some(hdr.wrapping_add_signed(i64::from(value)))
                };
                // The last one that starts at or before the address.
                let (mut low, mut high) = (0u64, u64::from(*count));
                while low < high {
                    let middle = low.midpoint(high);
                    if word(HDR_LEN + 8 * middle)? <= addr {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                word(HDR_LEN + 8 * low.checked_sub(1)? + 4)
            }
        }
    }
}

/// Reads the headers; `fill` gives bytes from an offset in the file.
fn headers(mut fill: impl FnMut(u64, &mut [u8]) -> Option<()>) -> Option<Headers> {
    // Words, so that the bytes are aligned as the structures want them.
    let mut words = [0u64; size_of::<FileHeader64<LittleEndian>>() / 8];
    fill(0, pod::bytes_of_slice_mut(&mut words))?;
    let (header, _) =
        pod::from_bytes::<FileHeader64<LittleEndian>>(pod::bytes_of_slice(&words)).ok()?;
    let ident = &header.e_ident;
    if ident.magic != ELFMAG
        || ident.class != ELFCLASS64
        || ident.data != ELFDATA2LSB
        || header.e_machine.get(LE) != EM_X86_64
        || usize::from(header.e_phentsize.get(LE)) != size_of::<Segment>()
    {
        return None;
    }
    let count = usize::from(header.e_phnum.get(LE).min(MAX_SEGMENTS));
    let mut words = vec![0u64; count * size_of::<Segment>() / 8];
    fill(header.e_phoff.get(LE), pod::bytes_of_slice_mut(&mut words))?;
    let (segments, _) =
        pod::slice_from_bytes::<Segment>(pod::bytes_of_slice(&words), count).ok()?;
    Some(Headers {
        segments: segments.to_vec(),
        sections_at: header.e_shoff.get(LE),
        sections: header.e_shnum.get(LE).min(MAX_SECTIONS),
        names: header.e_shstrndx.get(LE),
    })
}

/// From where `code` is mapped. Executable segments only: a linker may let two segments share a page.
fn bias_of(segments: &[Segment], code: &Mapping) -> Option<u64> {
    let segment = segments.iter().find(|segment| {
        let start = segment.p_offset.get(LE) & !(PAGE - 1);
        let end = segment
            .p_offset
            .get(LE)
            .saturating_add(segment.p_filesz.get(LE));
        segment.p_type.get(LE) == PT_LOAD
            && segment.p_flags.get(LE) & PF_X != 0
            && (start..end.max(start + 1)).contains(&code.offset)
    })?;
    let in_file = code.start.wrapping_sub(code.offset);
    Some(
        in_file
            .wrapping_add(segment.p_offset.get(LE))
            .wrapping_sub(segment.p_vaddr.get(LE)),
    )
}

/// Address in the file and size of `.eh_frame`, from the section headers.
fn eh_frame(file: &File) -> Option<(u64, u64)> {
    let headers = headers(|at, into| file.read_exact_at(into, at).ok())?;
    let count = usize::from(headers.sections);
    let mut words = vec![0u64; count * size_of::<SectionHeader64<LittleEndian>>() / 8];
    file.read_exact_at(pod::bytes_of_slice_mut(&mut words), headers.sections_at)
        .ok()?;
    let bytes = pod::bytes_of_slice(&words);
    let (sections, _) =
        pod::slice_from_bytes::<SectionHeader64<LittleEndian>>(bytes, count).ok()?;
    let names = sections.get(usize::from(headers.names))?;
    let mut text = vec![0; names.sh_size.get(LE).min(MAX_NAMES) as usize];
    file.read_exact_at(&mut text, names.sh_offset.get(LE))
        .ok()?;
    let section = sections.iter().find(|section| {
        let name = text.get(section.sh_name.get(LE) as usize..);
        name.is_some_and(|name| name.starts_with(b".eh_frame\0"))
    })?;
    Some((section.sh_addr.get(LE), section.sh_size.get(LE)))
}

/// Reads all entries of an `.eh_frame` that lies at `at`.
fn index(memory: &impl Memory, at: u64, length: u64) -> Option<Vec<(u64, u64, u64)>> {
    let mut bytes = vec![0; length.min(MAX_EH_FRAME) as usize];
    if !memory.read(at, &mut bytes) {
        return None;
    }
    let mut all = Vec::new();
    let section = gimli::EhFrame::new(&bytes, gimli::LittleEndian);
    let bases = gimli::BaseAddresses::default().set_eh_frame(at);
    let mut entries = section.entries(&bases);
    // What several entries share is parsed for each: so it must be short.
    let shared =
        |section: &gimli::EhFrame<_>, bases: &gimli::BaseAddresses, at: gimli::EhFrameOffset| {
            let length = bytes.get(at.0..).and_then(|rest| rest.first_chunk());
            match length.map(|length| u32::from_le_bytes(*length)) {
                Some(length) if length <= MAX_SHARED => section.cie_from_offset(bases, at),
                _ => Err(gimli::Error::OffsetOutOfBounds(at.0 as u64)),
            }
        };
    while let Ok(Some(entry)) = entries.next() {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        if let Ok(fde) = partial.parse(shared) {
            all.push((
                fde.initial_address(),
                fde.end_address(),
                at.wrapping_add(fde.offset() as u64),
            ));
        }
        if all.len() >= MAX_ENTRIES {
            break;
        }
    }
    all.sort_unstable();
    Some(all)
}
