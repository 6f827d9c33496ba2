//! `runtime.firstmoduledata`: where a Go program's tables and variables lie.

use super::{
    image::Image,
    layout::ModuleData,
    machine::Machine,
    words::{u32_at, u64_at},
};
use crate::inspect::memory::Memory;

/// Bytes read of it: all that is used, in every release.
const SIZE: usize = 640;
/// Sections that hold it, where there is none of its own (before 1.26).
const SECTIONS: [&str; 3] = [".noptrdata", ".data", ".data.rel.ro"];
/// Sections that hold the pclntab by its own name.
const PCLNTAB: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Bytes searched of one section.
const MAX_SEARCH: u64 = 64 << 20;
/// Largest pclntab believed; that of a program of 500 MB has some 100.
const MAX_PCLNTAB: u64 = 1 << 30;
/// Code believed to belong to one program.
const MAX_TEXT: u64 = 4 << 30;
/// Programs have no addresses from here on, whatever the machine: sums with offsets stay far from the end.
const MAX_ADDR: u64 = 1 << 56;
/// What the pclntab begins with, the last bit aside: it differs between releases.
const MAGIC: u32 = 0xffff_fff1;
/// And after that: no padding, the bytes of the shortest instruction, pointers of eight.
const fn header(quantum: u8) -> [u8; 4] {
    [0, 0, quantum, 8]
}

/// A table inside the pclntab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Where it begins, counted from the pclntab's beginning.
    pub(super) at: usize,
    /// Elements.
    pub(super) len: usize,
    /// Bytes.
    size: usize,
}

impl Table {
    /// Where the byte `offset` of this table lies in the pclntab, if it has so many.
    pub(super) fn place(&self, offset: usize) -> Option<usize> {
        (offset < self.size).then(|| self.at + offset)
    }
}

/// What is used of the module's data, all of it checked to be possible.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// What its code is for.
    pub(super) machine: Machine,
    pub(super) pclntab: u64,
    pub(super) pclntab_size: usize,
    pub(super) funcnametab: Table,
    pub(super) cutab: Table,
    pub(super) filetab: Table,
    pub(super) pctab: Table,
    pub(super) pclntable: Table,
    pub(super) ftab: Table,
    /// First address of the code, and the first behind it.
    pub(super) text: u64,
    pub(super) etext: u64,
    /// Variables: with and without pointers, with and without a first value.
    pub(super) data: [(u64, u64); 4],
    /// What tables of functions are counted from.
    pub(super) gofunc: u64,
    /// The next module; 0: none.
    pub(super) next: u64,
}

impl Module {
    /// Finds and reads the first module. The error says what was looked for.
    pub(super) fn find(
        memory: &dyn Memory,
        image: &Image,
        layout: &ModuleData,
    ) -> Result<Module, String> {
        if let Some(section) = image.section(&[".go.module"]) {
            return Module::read(memory, section.addr, image.machine, layout);
        }
        let pclntab = image
            .section(&PCLNTAB)
            .map(|section| section.addr)
            .or_else(|| search_pclntab(memory, image))
            .ok_or("no pclntab: is the program packed?")?;
        for section in SECTIONS {
            let Some(section) = image.section(&[section]) else {
                continue;
            };
            let found = search(memory, section.addr, section.size, |bytes| {
                u64_at(bytes, 0) == Some(pclntab)
            });
            let read = |at: &u64| Module::read(memory, *at, image.machine, layout).ok();
            if let Some(module) = found.iter().find_map(read) {
                return Ok(module);
            }
        }
        Err("no moduledata points to the pclntab".to_owned())
    }

    /// Reads the one at an address.
    pub(super) fn read(
        memory: &dyn Memory,
        addr: u64,
        machine: Machine,
        layout: &ModuleData,
    ) -> Result<Module, String> {
        let mut bytes = [0; SIZE];
        // The section of its own may be shorter.
        if !memory.read(addr, &mut bytes)
            && !memory.read(addr, &mut bytes[..layout.next.min(SIZE - 8) + 8])
        {
            return Err("the moduledata cannot be read".to_owned());
        }
        let module =
            Module::parse(&bytes, machine, layout).ok_or("the moduledata contradicts itself")?;
        // The next one, where there is one, begins with the address of its own table.
        let is_table = |next| {
            let table = memory.u64(next).and_then(|table| memory.u32(table));
            table.is_some_and(|magic| magic | 1 == MAGIC)
        };
        if module.next != 0 && !is_table(module.next) {
            return Err("the next module is none".to_owned());
        }
        Ok(module)
    }

    fn parse(bytes: &[u8], machine: Machine, layout: &ModuleData) -> Option<Module> {
        let word = |at| u64_at(bytes, at);
        let pclntab = word(0)?;
        let table = |at: usize, element: u64| -> Option<Table> {
            let offset = word(at)?.checked_sub(pclntab)?;
            let len = word(at + 8)?;
            let size = len.checked_mul(element)?;
            (offset.checked_add(size)? <= MAX_PCLNTAB).then_some(Table {
                at: offset as usize,
                len: len as usize,
                size: size as usize,
            })
        };
        let span = |at: usize| -> Option<(u64, u64)> {
            let (from, to) = (word(at)?, word(at + 8)?);
            (from <= to && to <= MAX_ADDR && to - from <= MAX_TEXT).then_some((from, to))
        };
        let (minpc, maxpc) = span(160)?;
        let (text, etext) = span(176)?;
        if !(text <= minpc && minpc < maxpc && maxpc <= etext) {
            return None;
        }
        // The last row is an end marker, of an offset only.
        let ftab = table(128, 8)?;
        let mut module = Module {
            machine,
            pclntab,
            pclntab_size: 0,
            funcnametab: table(8, 1)?,
            cutab: table(32, 4)?,
            filetab: table(56, 1)?,
            pctab: table(80, 1)?,
            pclntable: table(104, 1)?,
            ftab,
            text,
            etext,
            data: [span(192)?, span(208)?, span(224)?, span(240)?],
            gofunc: word(layout.gofunc)?,
            next: word(layout.next)?,
        };
        let tables = [
            &module.funcnametab,
            &module.cutab,
            &module.filetab,
            &module.pctab,
            &module.pclntable,
            &module.ftab,
        ];
        let end = tables.iter().map(|table| table.at + table.size).max()?;
        module.pclntab_size = end;
        (module.ftab.len > 1).then_some(module)
    }

    /// Is this the address of an instruction?
    pub(super) fn is_code(&self, addr: u64) -> bool {
        (self.text..self.etext).contains(&addr)
    }

    /// Is this the address of a variable?
    pub(super) fn is_data(&self, addr: u64) -> bool {
        self.data
            .iter()
            .any(|(from, to)| (*from..*to).contains(&addr))
    }
}

/// The pclntab where a linker other than Go's merged its section into another.
fn search_pclntab(memory: &dyn Memory, image: &Image) -> Option<u64> {
    let names = [".data.rel.ro", ".rodata"];
    names.iter().find_map(|name| {
        let section = image.section(&[name])?;
        let found = search(memory, section.addr, section.size, |bytes| {
            let magic = u32_at(bytes, 0).map(|magic| magic | 1);
            magic == Some(MAGIC) && bytes.get(4..8) == Some(&header(image.machine.quantum()))
        });
        found.first().copied()
    })
}

/// Addresses of those words of a section that satisfy a condition on the bytes from there on; a few.
pub(super) fn search(
    memory: &dyn Memory,
    addr: u64,
    size: u64,
    is_it: impl Fn(&[u8]) -> bool,
) -> Vec<u64> {
    const CHUNK: usize = 256 << 10;
    /// What a condition may look at.
    const REACH: usize = 64;
    const ENOUGH: usize = 16;
    let mut found = Vec::new();
    let mut buffer = vec![0; CHUNK + REACH];
    let size = size.min(MAX_SEARCH) as usize;
    for from in (0..size).step_by(CHUNK) {
        let length = (size - from).min(CHUNK + REACH);
        let Some(base) = addr.checked_add(from as u64) else {
            break;
        };
        if !memory.read(base, &mut buffer[..length]) {
            continue;
        }
        for at in (0..length.min(CHUNK)).step_by(8) {
            if is_it(&buffer[at..length]) {
                found.push(base + at as u64);
                if found.len() == ENOUGH {
                    return found;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: ModuleData = ModuleData {
        gofunc: 320,
        next: 576,
    };

    /// A moduledata that is in order.
    fn bytes() -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(0, 0x50_0000);
        for (i, at) in [8, 32, 56, 80, 104, 128].into_iter().enumerate() {
            put(at, 0x50_0000 + 0x100 * (i as u64 + 1));
            put(at + 8, 16);
        }
        for (at, word) in [
            (160, 0x40_1000),
            (168, 0x40_9000),
            (176, 0x40_1000),
            (184, 0x40_9000),
        ] {
            put(at, word);
        }
        bytes
    }

    #[test]
    fn tables_are_placed() {
        let module = Module::parse(&bytes(), Machine::X86_64, &LAYOUT).unwrap();
        assert_eq!(
            module.ftab,
            Table {
                at: 0x600,
                len: 16,
                size: 128
            }
        );
        assert_eq!(module.pclntab_size, 0x680);
        assert_eq!(
            (module.pctab.place(15), module.pctab.place(16)),
            (Some(0x40f), None)
        );
        assert!(module.is_code(0x40_1000) && !module.is_code(0x40_9000));
    }

    #[test]
    fn no_truncation_or_corruption_panics() {
        let whole = bytes();
        for end in 0..whole.len() {
            let _ = Module::parse(&whole[..end], Machine::X86_64, &LAYOUT);
        }
        for at in (0..256).step_by(8) {
            for word in [0, 1, 7, 0x50_0000, 1 << 31, 1 << 47, u64::MAX / 8, u64::MAX] {
                let mut bytes = whole.clone();
                bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
                if let Some(module) = Module::parse(&bytes, Machine::X86_64, &LAYOUT) {
                    assert!(module.pclntab_size as u64 <= MAX_PCLNTAB);
                }
            }
        }
    }

    /// To the first address of the code the distance of each function is added.
    #[test]
    fn code_at_the_end_of_all_addresses_is_none() {
        let mut bytes = bytes();
        let mut put = |at: usize, word: u64| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        for (at, below_the_end) in [(160, 0x9000), (168, 0x1000), (176, 0x9000), (184, 0x1000)] {
            put(at, u64::MAX - below_the_end);
        }
        assert!(Module::parse(&bytes, Machine::X86_64, &LAYOUT).is_none());
    }
}
