//! What `fuzz/` gives bytes to.

use super::{
    dwarf, layout::ModuleData, machine::Machine, module::Module, pclntab::Pclntab, words::u64_at,
};
use crate::inspect::memory::Memory;

/// Where the bytes lie.
const BASE: u64 = 0x50_0000;
/// Where two fields of the module's data are, in 1.19, in 1.24 and in 1.26.
const LAYOUTS: [ModuleData; 3] = [
    ModuleData {
        gofunc: 320,
        next: 576,
    },
    ModuleData {
        gofunc: 304,
        next: 544,
    },
    ModuleData {
        gofunc: 344,
        next: 560,
    },
];

/// Memory that holds these bytes and nothing else.
struct Forged<'a>(&'a [u8]);

impl Memory for Forged<'_> {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        let from = addr
            .checked_sub(BASE)
            .and_then(|at| usize::try_from(at).ok());
        let bytes = from.and_then(|from| self.0.get(from..from.checked_add(into.len())?));
        if let Some(bytes) = bytes {
            into.copy_from_slice(bytes);
        }
        bytes.is_some()
    }
}

/// Module data at the beginning of some memory, and the tables that it points to.
pub fn tables(bytes: &[u8]) {
    let memory = Forged(bytes);
    let machines = [Machine::X86_64, Machine::Arm64];
    let ways = LAYOUTS
        .iter()
        .flat_map(|layout| machines.map(|machine| (layout, machine)));
    for (layout, machine) in ways {
        let Ok(module) = Module::read(&memory, BASE, machine, layout) else {
            continue;
        };
        let (text, etext) = (module.text, module.etext);
        let Ok(mut table) = Pclntab::new(&memory, module) else {
            continue;
        };
        let more = u64_at(bytes, 632).map_or(text, |more| text.wrapping_add(more & 0xffff));
        for pc in [
            text,
            more,
            u64::midpoint(text, etext),
            etext.wrapping_sub(1),
        ] {
            if let Some(function) = table.function(&memory, pc) {
                table.frame_size(&memory, &function, pc);
                table.places(&memory, &function, pc);
            }
        }
        table.named(&memory, &["main.main", "runtime.goexit"]);
    }
}

/// A program's file, and sections of debug information by themselves.
pub fn debug_information(bytes: &[u8]) {
    let _ = dwarf::table_in(bytes);
    dwarf::fuzz_sections(bytes);
}
