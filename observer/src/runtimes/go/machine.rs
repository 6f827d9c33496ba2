//! What is different between the machines that Go programs are for.
//!
//! arm64 is read as its debug information, its runtime's sources and programs under an emulator have it. Nobody has
//! held it against such a machine, so it is called untested wherever somebody sees it.

use super::layout::Semtable;
pub use crate::inspect::usdt::Machine;

impl Machine {
    /// Its name, as Go has it (`GOARCH`).
    pub fn goarch(self) -> &'static str {
        match self {
            Machine::X86_64 => "amd64",
            Machine::Arm64 => "arm64",
        }
    }

    /// Go programs for it were only read where an emulator ran them.
    pub fn is_untested_for_go(self) -> bool {
        match self {
            Machine::X86_64 => false,
            Machine::Arm64 => true,
        }
    }

    /// Does a call leave its return address in a register, and what is called put it at the bottom of its frame?
    /// Otherwise the call puts it on the stack itself.
    pub(super) fn has_link_register(self) -> bool {
        match self {
            Machine::X86_64 => false,
            Machine::Arm64 => true,
        }
    }

    /// Bytes of the shortest instruction: tables of the pclntab count in them.
    pub(super) fn quantum(self) -> u8 {
        match self {
            Machine::X86_64 => 1,
            Machine::Arm64 => 4,
        }
    }

    /// User memory ends here.
    pub(super) fn memory_end(self) -> u64 {
        match self {
            Machine::X86_64 => 1 << 47,
            Machine::Arm64 => 1 << 48,
        }
    }

    /// A root of `runtime.semtable` where the layout does not have it. It has a line of the cache to itself, as long
    /// as recent runtimes take one to be (`cpu.CacheLinePadSize`).
    pub(super) fn semtable(self) -> Semtable {
        let size = match self {
            Machine::X86_64 => 64,
            Machine::Arm64 => 128,
        };
        Semtable { treap: 8, size }
    }

    /// Nothing that is mapped apart from Go's heap lies below. With few bits of addresses, as some kernels for arm64
    /// have them, that cannot be told.
    pub(super) fn mapped_apart(self) -> u64 {
        match self {
            Machine::X86_64 => 0x0100_0000_0000,
            Machine::Arm64 => 0,
        }
    }
}
