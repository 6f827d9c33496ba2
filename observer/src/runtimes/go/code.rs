//! Addresses of variables, from the code that uses them: stripped programs have no symbols, but the names of
//! functions stay.

use super::{
    arm64,
    machine::Machine,
    module::Module,
    pclntab::Function,
    words::{AddrSet, i32_at},
};
use crate::inspect::memory::Memory;

/// Code of one function looked at.
const MAX_CODE: u64 = 16 << 10;

/// How an instruction uses a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// All 64 bits are loaded: `mov reg, [rip + x]`.
    Load,
    /// Its address is made: `lea reg, [rip + x]`.
    Address,
    /// 32 bits are compared with this: `cmp dword [rip + x], y`.
    Compare(u8),
}

/// What an instruction refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Where the instruction is, or a part of it.
    pub(super) at: u64,
    /// None: in another way, or it is not known how.
    pub(super) how: Option<Use>,
    /// The variable.
    pub(super) addr: u64,
}

/// A function's instructions.
pub(super) struct Code {
    bytes: Vec<u8>,
    at: u64,
}

/// What the instructions of amd64 code refer to relative to themselves, in order. Bytes in the middle of
/// other instructions may look like one: the caller holds each against what it must be.
fn references(code: &[u8], at: u64) -> Vec<(Use, u64)> {
    const LENGTH: usize = 7;
    let mut found = Vec::new();
    for (i, bytes) in code.windows(LENGTH).enumerate() {
        // A 64-bit operand, any register; the operand in memory is relative to the next instruction.
        let wide = matches!(bytes[0], 0x48 | 0x4c) && bytes[2] & 0xc7 == 0x05;
        let (how, distance) = match bytes[1] {
            0x8b if wide => (Use::Load, 3),
            0x8d if wide => (Use::Address, 3),
            0x3d if bytes[0] == 0x83 => (Use::Compare(bytes[6]), 2),
            _ => continue,
        };
        let distance = i32_at(bytes, distance).unwrap_or_default();
        let next = at.wrapping_add((i + LENGTH) as u64);
        found.push((how, next.wrapping_add_signed(i64::from(distance))));
    }
    found
}

/// Variables that a function's code uses, in order, each once.
pub(super) fn variables(
    memory: &dyn Memory,
    module: &Module,
    function: &Function,
    how: Use,
) -> Vec<u64> {
    let code = Code::of(memory, function);
    code.map_or_else(Vec::new, |code| code.variables(module, how))
}

impl Code {
    /// Reads it.
    pub(super) fn of(memory: &dyn Memory, function: &Function) -> Option<Code> {
        let length = function.end.saturating_sub(function.entry).min(MAX_CODE);
        let mut bytes = vec![0; length as usize];
        let at = function.entry;
        memory.read(at, &mut bytes).then_some(Code { bytes, at })
    }

    /// The instructions.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Variables that are used in this way, in order, each once.
    pub(super) fn variables(&self, module: &Module, how: Use) -> Vec<u64> {
        let mut found = Vec::new();
        let mut take = |used: Use, addr: u64| {
            if used == how && module.is_data(addr) && !found.contains(&addr) {
                found.push(addr);
            }
        };
        match module.machine {
            Machine::X86_64 => {
                let all = references(&self.bytes, self.at).into_iter();
                all.for_each(|(used, addr)| take(used, addr));
            }
            Machine::Arm64 => {
                let all = arm64::references(&self.bytes, self.at).into_iter();
                let used = all.filter_map(|one| Some((one.how?, one.addr)));
                used.for_each(|(used, addr)| take(used, addr));
            }
        }
        found
    }

    /// Variables that are used in any way, and others by chance. Each with where that is, in order.
    pub(super) fn references(&self, module: &Module) -> Vec<(u64, u64)> {
        let all = match module.machine {
            Machine::X86_64 => self.any_four_bytes(),
            Machine::Arm64 => {
                let all = arm64::references(&self.bytes, self.at).into_iter();
                all.map(|one| (one.at, one.addr)).collect()
            }
        };
        let all = all.into_iter();
        all.filter(|(_, addr)| module.is_data(*addr)).collect()
    }

    /// Whatever any four bytes may refer to, were they the end of an instruction for amd64. Each with their address.
    fn any_four_bytes(&self) -> Vec<(u64, u64)> {
        let distances = (0..self.bytes.len()).filter_map(|i| Some((i, i32_at(&self.bytes, i)?)));
        let addrs = distances.map(|(i, distance)| {
            let at = self.at.wrapping_add(i as u64);
            (
                at,
                at.wrapping_add(4).wrapping_add_signed(i64::from(distance)),
            )
        });
        addrs.collect()
    }

    /// The same without their places.
    pub(super) fn anything(&self, module: &Module) -> AddrSet {
        let all = self.references(module).into_iter();
        all.map(|(_, addr)| addr).collect()
    }

    /// Where calls lead to that stand in so many bytes behind an address; and others by chance.
    pub(super) fn calls(&self, machine: Machine, at: u64, within: usize) -> Vec<u64> {
        const CALL: u8 = 0xe8;
        const LENGTH: u64 = 5;
        let from = at.saturating_sub(self.at) as usize;
        if machine == Machine::Arm64 {
            let to = from.saturating_add(within).min(self.bytes.len());
            return arm64::calls(self.bytes.get(from..to).unwrap_or_default(), at);
        }
        let near =
            (from..from.saturating_add(within)).filter(|i| self.bytes.get(*i) == Some(&CALL));
        let called = near.filter_map(|i| {
            let next = self.at.wrapping_add(i as u64 + LENGTH);
            Some(next.wrapping_add_signed(i64::from(i32_at(&self.bytes, i + 1)?)))
        });
        called.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_addresses_are_found() {
        // mov rcx, [rip+0x10]; nop; lea r8, [rip-0x20]
        let code = [
            0x48, 0x8b, 0x0d, 0x10, 0, 0, 0, 0x90, 0x4c, 0x8d, 0x05, 0xe0, 0xff, 0xff, 0xff,
        ];
        assert_eq!(
            references(&code, 0x1000),
            [(Use::Load, 0x1017), (Use::Address, 0xfef)]
        );
        assert_eq!(references(&code[..14], 0x1000).len(), 1);
        assert_eq!(references(&[], 0), []);
    }
}
