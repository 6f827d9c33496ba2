//! The table that Go programs carry to print their own stacks: functions, files, lines, inlined calls and the
//! size of each frame. Stripping leaves it in place.
//!
//! It is read where the process has it, a page at a time as it is needed: of a large program's tens of
//! megabytes a snapshot touches few.

use super::{
    machine::Machine,
    module::Module,
    words::{i32_at, u32_at},
};
use crate::inspect::memory::Memory;

/// Bytes read at once.
const PAGE: usize = 4096;
/// Pages kept: 32 MiB. A forged table may be as large as it likes.
const MAX_PAGES: usize = 8192;
/// Functions believed; the largest programs have a quarter of it.
const MAX_FUNCTIONS: usize = 2 << 20;
/// Longest name believed. Names of generic functions are long.
const MAX_NAME: usize = 1024;
/// Steps of one table of values: a function has at most one for each of its instructions.
const MAX_STEPS: usize = 1 << 16;
/// Inlined calls at one address.
const MAX_INLINED: usize = 32;
/// Table of values: index into the tree of inlined calls.
const PCDATA_INLTREE: u32 = 2;
/// The tree of inlined calls.
const FUNCDATA_INLTREE: u32 = 3;
/// Flag of a function: nobody called it.
const TOP_FRAME: u8 = 1;
/// First word of the table of 1.18 and 1.19, and of 1.20 on.
const MAGIC_118: u32 = 0xffff_fff0;
const MAGIC_120: u32 = 0xffff_fff1;

/// A part of the process's memory that does not change, kept by pages.
#[derive(Debug)]
struct Pages {
    base: u64,
    size: usize,
    read: Vec<Option<Box<[u8; PAGE]>>>,
    kept: usize,
}

impl Pages {
    fn new(base: u64, size: usize) -> Pages {
        let mut read = Vec::new();
        read.resize_with(size.div_ceil(PAGE), || None);
        Pages {
            base,
            size,
            read,
            kept: 0,
        }
    }

    fn forget(&mut self) {
        self.read.fill(None);
        self.kept = 0;
    }

    fn page(&mut self, memory: &dyn Memory, index: usize) -> Option<&[u8; PAGE]> {
        if self.kept >= MAX_PAGES {
            self.forget();
        }
        let slot = self.read.get_mut(index)?;
        if slot.is_none() {
            let mut page = Box::new([0; PAGE]);
            let from = index * PAGE;
            let length = PAGE.min(self.size - from);
            if !memory.read(self.base.checked_add(from as u64)?, &mut page[..length]) {
                return None;
            }
            *slot = Some(page);
            self.kept += 1;
        }
        slot.as_deref()
    }

    fn byte(&mut self, memory: &dyn Memory, at: usize) -> Option<u8> {
        if at >= self.size {
            return None;
        }
        Some(self.page(memory, at / PAGE)?[at % PAGE])
    }

    fn bytes<const N: usize>(&mut self, memory: &dyn Memory, at: usize) -> Option<[u8; N]> {
        if at.checked_add(N)? > self.size {
            return None;
        }
        let page = self.page(memory, at / PAGE)?;
        if let Some(whole) = page.get(at % PAGE..at % PAGE + N) {
            return whole.try_into().ok();
        }
        let mut into = [0; N];
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = self.byte(memory, at + i)?;
        }
        Some(into)
    }

    fn u32(&mut self, memory: &dyn Memory, at: usize) -> Option<u32> {
        self.bytes(memory, at).map(u32::from_le_bytes)
    }

    /// A number in base 128.
    fn varint(&mut self, memory: &dyn Memory, at: &mut usize) -> Option<u32> {
        let mut value = 0u32;
        for shift in (0..32).step_by(7) {
            let byte = self.byte(memory, *at)?;
            *at += 1;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The text that ends with a zero byte.
    fn text(&mut self, memory: &dyn Memory, mut at: usize) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            let byte = self.byte(memory, at)?;
            if byte == 0 {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            if bytes.len() == MAX_NAME {
                return None;
            }
            bytes.push(byte);
            at += 1;
        }
    }
}

/// A function of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    /// Its first address.
    pub(super) entry: u64,
    /// The first address behind it.
    pub(super) end: u64,
    /// Where its record lies.
    at: usize,
    name: i32,
    pcsp: u32,
    pcfile: u32,
    pcln: u32,
    npcdata: u32,
    cu: u32,
    nfuncdata: u8,
    /// Nobody called it: a stack ends here.
    pub(super) top: bool,
}

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) function: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    /// Inlined into the place that follows it.
    pub(super) inlined: bool,
}

/// The table of one module.
#[derive(Debug)]
pub(super) struct Pclntab {
    pages: Pages,
    module: Module,
    /// Bytes of a function's fixed part, and of an inlined call.
    record: usize,
    call: usize,
    /// Bytes that a function's tables count in.
    quantum: u64,
    /// Functions, without the end marker.
    functions: usize,
}

impl Pclntab {
    /// The table of a module whose values were checked ([`Module::read`]).
    pub(super) fn new(memory: &dyn Memory, module: Module) -> Result<Pclntab, String> {
        let magic = memory
            .u32(module.pclntab)
            .ok_or("the pclntab cannot be read")?;
        let (record, call) = match magic {
            MAGIC_118 => (40, 20),
            MAGIC_120 => (44, 16),
            other => {
                return Err(format!(
                    "the pclntab begins with {other:#x}, which is not known"
                ));
            }
        };
        let quantum = module.machine.quantum();
        let mut header = [0; 8];
        if !memory.read(module.pclntab, &mut header) || header[6] != quantum {
            return Err("the pclntab is for another machine".to_owned());
        }
        Ok(Pclntab {
            quantum: quantum.into(),
            pages: Pages::new(module.pclntab, module.pclntab_size),
            record,
            call,
            functions: module.ftab.len.saturating_sub(1).min(MAX_FUNCTIONS),
            module,
        })
    }

    /// Entry and record of the function number `index`; of the end marker only the entry means something.
    fn row(&mut self, memory: &dyn Memory, index: usize) -> Option<(u32, u32)> {
        let row: [u8; 8] = self.pages.bytes(memory, self.module.ftab.at + index * 8)?;
        Some((u32_at(&row, 0)?, u32_at(&row, 4)?))
    }

    /// The function that an address belongs to.
    pub(super) fn function(&mut self, memory: &dyn Memory, pc: u64) -> Option<Function> {
        let offset = u32::try_from(pc.checked_sub(self.module.text)?).ok()?;
        let (mut low, mut high) = (0, self.functions);
        // Rows are sorted by entry; whether a hostile table's are does not matter to the number of steps.
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.row(memory, middle)?.0 <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = self.nth(memory, low.checked_sub(1)?)?;
        (found.entry..found.end).contains(&pc).then_some(found)
    }

    fn nth(&mut self, memory: &dyn Memory, index: usize) -> Option<Function> {
        let (entry, at) = self.row(memory, index)?;
        let (end, _) = self.row(memory, index + 1)?;
        let at = self.module.pclntable.place(at as usize)?;
        let record: [u8; 40] = self.pages.bytes(memory, at)?;
        // 1.20 put the line of the function before the last word.
        let last: [u8; 4] = self.pages.bytes(memory, at + self.record - 4)?;
        let word = |at| u32_at(&record, at);
        Some(Function {
            entry: self.module.text + u64::from(entry),
            end: self.module.text + u64::from(end),
            at,
            name: i32_at(&record, 4)?,
            pcsp: word(16)?,
            pcfile: word(20)?,
            pcln: word(24)?,
            npcdata: word(28)?,
            cu: word(32)?,
            nfuncdata: last[3],
            top: last[1] & TOP_FRAME != 0,
        })
    }

    /// The function of a name; the first of those asked for.
    pub(super) fn named(&mut self, memory: &dyn Memory, names: &[&str]) -> Vec<Option<Function>> {
        let mut found = vec![None; names.len()];
        for index in 0..self.functions {
            if found.iter().all(Option::is_some) {
                break;
            }
            let Some(function) = self.nth(memory, index) else {
                continue;
            };
            for (name, found) in names.iter().zip(&mut found) {
                if found.is_none() && self.is_named(memory, &function, &[name]) {
                    *found = Some(function);
                }
            }
        }
        // That was every function's record, of which few are needed again.
        self.pages.forget();
        found
    }

    /// Has it one of these names?
    pub(super) fn is_named(
        &mut self,
        memory: &dyn Memory,
        function: &Function,
        names: &[&str],
    ) -> bool {
        let Some(at) = self.name_at(function.name) else {
            return false;
        };
        names.iter().any(|name| {
            let mut bytes = name.bytes().chain([0]).enumerate();
            bytes.all(|(i, byte)| self.pages.byte(memory, at + i) == Some(byte))
        })
    }

    fn name_at(&self, offset: i32) -> Option<usize> {
        self.module.funcnametab.place(usize::try_from(offset).ok()?)
    }

    /// The name of a function.
    pub(super) fn name(&mut self, memory: &dyn Memory, function: &Function) -> Option<String> {
        let at = self.name_at(function.name)?;
        self.pages.text(memory, at)
    }

    /// A function's value at an address, from one of its tables.
    fn value(
        &mut self,
        memory: &dyn Memory,
        function: &Function,
        table: u32,
        pc: u64,
    ) -> Option<i32> {
        if table == 0 {
            return None;
        }
        let mut at = self.module.pctab.place(table as usize)?;
        let mut value = -1i32;
        let mut reached = function.entry;
        for step in 0..MAX_STEPS {
            let delta = self.pages.varint(memory, &mut at)?;
            if delta == 0 && step > 0 {
                return None;
            }
            let signed = (delta >> 1).cast_signed() ^ -(delta & 1).cast_signed();
            value = value.wrapping_add(signed);
            let length = u64::from(self.pages.varint(memory, &mut at)?);
            reached = reached.checked_add(length * self.quantum)?;
            if pc < reached {
                return Some(value);
            }
        }
        None
    }

    /// The machine that the code is for.
    pub(super) fn machine(&self) -> Machine {
        self.module.machine
    }

    /// Bytes between the stack pointer and the return address, at an address in the function; the whole frame where
    /// calls leave the return address in a register.
    pub(super) fn frame_size(
        &mut self,
        memory: &dyn Memory,
        function: &Function,
        pc: u64,
    ) -> Option<u64> {
        let size = self.value(memory, function, function.pcsp, pc)?;
        u64::try_from(size).ok().filter(|size| size % 8 == 0)
    }

    /// The places that an address stands for, the innermost first.
    pub(super) fn places(
        &mut self,
        memory: &dyn Memory,
        function: &Function,
        pc: u64,
    ) -> Vec<Place> {
        let mut places = Vec::new();
        let mut at = pc;
        for _ in 0..MAX_INLINED {
            let Some((name, parent)) = self.inlined(memory, function, at) else {
                break;
            };
            places.push(self.place(memory, function, at, name, true));
            // Each step leads to a call further out, and those lie within the function.
            let Some(next) = function.entry.checked_add(u64::from(parent)) else {
                break;
            };
            if next >= function.end || next == at {
                break;
            }
            at = next;
        }
        let name = self.name(memory, function);
        places.push(self.place(memory, function, at, name, false));
        places
    }

    fn place(
        &mut self,
        memory: &dyn Memory,
        function: &Function,
        pc: u64,
        name: Option<String>,
        inlined: bool,
    ) -> Place {
        let line = self.value(memory, function, function.pcln, pc);
        Place {
            function: name.unwrap_or_else(|| format!("{:#x}", function.entry)),
            file: self.file(memory, function, pc),
            line: line.and_then(|line| u32::try_from(line).ok()),
            inlined,
        }
    }

    fn file(&mut self, memory: &dyn Memory, function: &Function, pc: u64) -> Option<String> {
        let number = self.value(memory, function, function.pcfile, pc)?;
        let index = usize::try_from(number)
            .ok()?
            .checked_add(function.cu as usize)?;
        let at = self.module.cutab.place(index.checked_mul(4)?)?;
        let offset = self.pages.u32(memory, at)?;
        let at = self.module.filetab.place(offset as usize)?;
        self.pages.text(memory, at)
    }

    /// The call inlined at an address: the name of what was called, and where it was called from, as a
    /// distance from the function's entry.
    fn inlined(
        &mut self,
        memory: &dyn Memory,
        function: &Function,
        pc: u64,
    ) -> Option<(Option<String>, u32)> {
        if function.npcdata <= PCDATA_INLTREE || u32::from(function.nfuncdata) <= FUNCDATA_INLTREE {
            return None;
        }
        let tables = function.at + self.record;
        let table = self
            .pages
            .u32(memory, tables + 4 * PCDATA_INLTREE as usize)?;
        let index = u64::try_from(self.value(memory, function, table, pc)?).ok()?;
        let data =
            tables + 4 * (function.npcdata as usize).checked_add(FUNCDATA_INLTREE as usize)?;
        let tree = self.pages.u32(memory, data)?;
        if tree == u32::MAX {
            return None;
        }
        let addr = self.module.gofunc.checked_add(u64::from(tree))?;
        let addr = addr.checked_add(index.checked_mul(self.call as u64)?)?;
        let mut call = [0u8; 20];
        if !memory.read(addr, &mut call[..self.call]) {
            return None;
        }
        // 1.19: parent, kind, file, line, name, place. 1.20: kind, name, place, line.
        let (name, parent) = if self.call == 20 { (12, 16) } else { (4, 8) };
        let name = self.name_at(i32_at(&call, name)?);
        let name = name.and_then(|at| self.pages.text(memory, at));
        Some((name, u32_at(&call, parent)?))
    }
}
