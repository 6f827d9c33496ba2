//! Probes that programs carry for tools to attach to (USDT, "user statically-defined tracing"): where
//! they are, and what they pass.
//!
//! A probe is a `nop` in the code and a note in the file. Nothing of the file is trusted: each length
//! and address is checked, and a probe that is not understood is refused by name while the rest go on.

pub mod argument;
mod arm64;
mod elf;
pub mod files;
pub mod functions;
mod notes;
#[cfg(test)]
mod tests;
mod x86;

use std::{collections::HashMap, fs::File};

pub use self::argument::{Argument, Machine};
pub(super) use self::elf::Bounded;

/// The probes of one file.
#[derive(Clone, Debug)]
pub struct Binary {
    /// What its code is for.
    pub machine: Machine,
    /// In the order of the file. One probe may be at several places: the compiler copies code.
    pub probes: Vec<Probe>,
    /// Notes that could not be read.
    pub malformed: usize,
    /// Addresses of the symbols that arguments name, as the linker has them.
    pub symbols: HashMap<String, u64>,
}

/// A probe at one place.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Who defined it.
    pub provider: String,
    /// Its name, with `__` where its users write `-`.
    pub name: String,
    /// Address, as the linker has it.
    pub location: u64,
    /// The same in the file; `None` if it is not in code.
    pub offset: Option<u64>,
    /// The counter that is to be raised for the probe to pass anything.
    pub semaphore: Option<Semaphore>,
    /// What it passes, or why that is not understood.
    pub arguments: Result<Vec<Argument>, String>,
    /// The same as it stands in the file.
    pub argument_text: String,
    /// Why it cannot be attached to, if so.
    pub refused: Option<String>,
}

/// A count of those who listen, in the program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphore {
    /// Address, as the linker has it.
    pub address: u64,
    /// The same in the file; `None` if it is not in data.
    pub offset: Option<u64>,
}

/// Reads the probes of a file.
///
/// # Errors
/// Why it has none that could be read, in words and without the file's name.
pub fn probes(file: &File) -> Result<Binary, String> {
    elf::read_file(file)
}

/// What `fuzz/` gives bytes to.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use super::{Machine, argument, elf, functions, notes};

    /// The section `.note.stapsdt`.
    pub fn notes(section: &[u8]) {
        let (notes, _) = notes::parse(section, 100);
        for note in notes {
            let _ = argument::parse(Machine::X86_64, &note.arguments);
            let _ = argument::parse(Machine::Arm64, &note.arguments);
        }
    }

    /// A whole file.
    pub fn file(bytes: &[u8]) {
        let _ = elf::read(bytes);
        let _ = functions::read(bytes, "_ZN", &["main"]);
    }
}
