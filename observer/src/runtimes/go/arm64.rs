//! Which variables arm64 code refers to.
//!
//! No instruction holds an address whole: `adrp` makes that of a page, and what comes after it adds the rest. So the
//! registers are followed that hold a part of one, in the order of the instructions, whichever way they are run; a
//! call ends it. That finds a little too much where ways meet: the caller holds each against what it must be.

use super::{
    code::{Reference, Use},
    words::u32_at,
};

/// Bytes of an instruction.
const LENGTH: usize = 4;
/// No register: the number that means zero, or the stack.
const NONE: usize = 31;

/// What is known of the registers.
struct Registers {
    /// Addresses, or those of their pages.
    addrs: [Option<u64>; 32],
    /// Variables whose 32 bits were loaded.
    loaded: [Option<u64>; 32],
    /// Which of the references made the address that is in a register.
    made: [Option<usize>; 32],
}

impl Registers {
    const UNKNOWN: Registers = Registers {
        addrs: [None; 32],
        loaded: [None; 32],
        made: [None; 32],
    };

    fn forget(&mut self, register: usize) {
        self.addrs[register] = None;
        self.loaded[register] = None;
        self.made[register] = None;
    }

    /// Addresses are added to, but not on the stack.
    fn base(&self, register: usize) -> Option<u64> {
        self.addrs[register].filter(|_| register != NONE)
    }
}

/// What the instructions refer to, in order. Each with the place of the instruction that has the whole address. An
/// address that is made only to load or store there is not one that is used as such.
pub(super) fn references(code: &[u8], at: u64) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut registers = Registers::UNKNOWN;
    for i in (0..code.len()).step_by(LENGTH) {
        let Some(word) = u32_at(code, i) else {
            break;
        };
        let at = at.wrapping_add(i as u64);
        if is_memory(word)
            && let Some(made) = registers.made[(word >> 5 & 31) as usize]
        {
            let made: &mut Reference = &mut found[made];
            made.how = None;
        }
        for (how, addr) in step(word, at, &mut registers).into_iter().flatten() {
            if how == Some(Use::Address) {
                registers.made[(word & 31) as usize] = Some(found.len());
            }
            found.push(Reference { at, how, addr });
        }
    }
    found
}

/// Where the calls lead to in these instructions.
pub(super) fn calls(code: &[u8], at: u64) -> Vec<u64> {
    let words = code.as_chunks::<LENGTH>().0.iter().enumerate();
    let called = words.filter_map(|(i, word)| {
        let word = u32::from_le_bytes(*word);
        let distance = signed(word & 0x03ff_ffff, 26) * LENGTH as i64;
        let at = at.wrapping_add((i * LENGTH) as u64);
        (word >> 26 == 0b10_0101).then(|| at.wrapping_add_signed(distance))
    });
    called.collect()
}

type Found = [Option<(Option<Use>, u64)>; 2];

/// One instruction. Layouts: Arm Architecture Reference Manual, C4.1 "A64 instruction set encoding".
fn step(word: u32, at: u64, registers: &mut Registers) -> Found {
    let field = |from: u32, bits: u32| word >> from & ((1 << bits) - 1);
    let (to, base) = (field(0, 5) as usize, field(5, 5) as usize);
    let known = registers.base(base);
    if word & 0x1f00_0000 == 0x1000_0000 {
        // `adr`, `adrp`: 21 bits, of bytes or of pages.
        let distance = signed(field(5, 19) << 2 | field(29, 2), 21);
        let is_page = word >> 31 != 0;
        registers.forget(to);
        registers.addrs[to] = Some(if is_page {
            (at & !0xfff).wrapping_add_signed(distance << 12)
        } else {
            at.wrapping_add_signed(distance)
        });
        return [None; 2];
    }
    if word & 0xff80_0000 == 0x9100_0000 {
        // `add` of a number to 64 bits.
        let number = u64::from(field(10, 12)) << (12 * field(22, 1));
        registers.forget(to);
        registers.addrs[to] = known.map(|base| base.wrapping_add(number));
        let made = registers.base(to);
        return [made.map(|addr| (Some(Use::Address), addr)), None];
    }
    if word & 0x3b00_0000 == 0x3900_0000 {
        return one(word, registers, known);
    }
    if word & 0x3fff_fc00 == 0x08df_fc00 {
        // `ldar`.
        let wide = word >> 30 == 3;
        registers.forget(to);
        if word >> 30 == 2 {
            registers.loaded[to] = known;
        }
        return [known.map(|addr| (wide.then_some(Use::Load), addr)), None];
    }
    if word & 0xff80_0000 == 0xa900_0000 {
        return pair(word, registers, known);
    }
    compare(word, registers)
}

/// `ldp` or `stp` of 64 bits each.
fn pair(word: u32, registers: &mut Registers, known: Option<u64>) -> Found {
    let is_load = word >> 22 & 1 != 0;
    let first = known.map(|base| base.wrapping_add_signed(signed(word >> 15 & 0x7f, 7) * 8));
    if is_load {
        registers.forget((word & 31) as usize);
        registers.forget((word >> 10 & 31) as usize);
    }
    let second = first.map(|addr| addr.wrapping_add(8));
    let how = is_load.then_some(Use::Load);
    [first, second].map(|addr| addr.map(|addr| (how, addr)))
}

/// A load or a store of one register, at a number of its own size from a base.
fn one(word: u32, registers: &mut Registers, known: Option<u64>) -> Found {
    let size = word >> 30;
    let to = (word & 31) as usize;
    let is_vector = word >> 26 & 1 != 0;
    let operation = word >> 22 & 3;
    let is_store = operation == 0;
    // The widest of the vectors have a size of their own.
    let unit = if is_vector && word >> 23 & 1 != 0 {
        4
    } else {
        size
    };
    let addr = known.map(|base| base.wrapping_add(u64::from(word >> 10 & 0xfff) << unit));
    if is_vector || is_store {
        return [addr.map(|addr| (None, addr)), None];
    }
    registers.forget(to);
    if size == 2 {
        registers.loaded[to] = addr;
    }
    let wide = size == 3;
    [addr.map(|addr| (wide.then_some(Use::Load), addr)), None]
}

/// A comparison of what was loaded, or something else.
fn compare(word: u32, registers: &mut Registers) -> Found {
    let (to, left) = ((word & 31) as usize, (word >> 5 & 31) as usize);
    let is = |variable: Option<u64>, with| {
        let found = variable.map(|addr| (Some(Use::Compare(with)), addr));
        [found, None]
    };
    // `cbz` and `cbnz` of 32 bits.
    if word & 0xfe00_0000 == 0x3400_0000 {
        return is(registers.loaded[to], 0);
    }
    // `cmp` with a number.
    if word & 0xffc0_001f == 0x7100_001f {
        let with = word >> 10 & 0xfff;
        return match u8::try_from(with) {
            Ok(with) => is(registers.loaded[left], with),
            Err(_) => [None; 2],
        };
    }
    let is_call = word >> 26 == 0b10_0101 || word & 0xffff_fc1f == 0xd63f_0000;
    if is_call {
        *registers = Registers::UNKNOWN;
        return [None; 2];
    }
    let mut found = [None; 2];
    if is_memory(word) {
        // Of the forms that are left few add something to the base: atomic operations do not.
        found[0] = registers.base(left).map(|addr| (None, addr));
        if moves_base(word) {
            registers.forget(left);
        }
        if is_pair(word) {
            registers.forget((word >> 10 & 31) as usize);
        }
    }
    if !is_branch(word) {
        registers.forget(to);
    }
    found
}

/// Loads or stores two registers.
fn is_pair(word: u32) -> bool {
    word & 0x3a00_0000 == 0x2800_0000
}

/// Loads or stores, and adds something to the base for good.
fn moves_base(word: u32) -> bool {
    let pair = is_pair(word) && word >> 23 & 1 != 0;
    pair || word & 0x3b20_0400 == 0x3800_0400
}

fn is_branch(word: u32) -> bool {
    word >> 26 & 0b111 == 0b101
}

/// A load or a store at a base.
fn is_memory(word: u32) -> bool {
    let is_constant = word & 0x3b00_0000 == 0x1800_0000;
    word >> 25 & 0b101 == 0b100 && !is_constant
}

/// A number of so many bits that may be below zero.
fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)).cast_signed() >> (32 - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn found(words: &[u32], at: u64) -> Vec<(u64, Option<Use>, u64)> {
        let found = references(&code(words), at).into_iter();
        found.map(|one| (one.at, one.how, one.addr)).collect()
    }

    /// `runtime.forEachGRace` and others of Go 1.27.3, as its compiler wrote them.
    #[test]
    fn what_go_writes_is_understood() {
        let (load, address) = (Some(Use::Load), Some(Use::Address));
        // adrp x1; add x1, x1, #2984; ldar x1, [x1]
        let atomic = [0xd000_1661, 0x912e_a021, 0xc8df_fc21];
        assert_eq!(
            found(&atomic, 0x5_b8d0),
            [(0x5_b8d4, None, 0x32_9ba8), (0x5_b8d8, load, 0x32_9ba8)]
        );
        assert_eq!(
            found(&atomic[..2], 0x5_b8d0),
            [(0x5_b8d4, address, 0x32_9ba8)]
        );
        // adrp x27; ldr x2, [x27, #3024]; str x2, [x27, #3024]
        let plain = [0xf000_153b, 0xf945_eb62, 0xf905_eb62];
        assert_eq!(
            found(&plain, 0x5_b6d0),
            [(0x5_b6d4, load, 0x30_2bd0), (0x5_b6d8, None, 0x30_2bd0)]
        );
        // adrp x27; ldr w3, [x27, #2580]; cbz w3
        let zero = [0xd000_179b, 0xb94a_1763, 0x3400_00a3];
        let phase = 0x32_9a14;
        assert_eq!(
            found(&zero, 0x3_7f84),
            [
                (0x3_7f88, None, phase),
                (0x3_7f8c, Some(Use::Compare(0)), phase)
            ]
        );
        // cmp w3, #1 in its place
        let one = [0xd000_179b, 0xb94a_1763, 0x7100_047f];
        assert_eq!(
            found(&one, 0x3_7f84).last(),
            Some(&(0x3_7f8c, Some(Use::Compare(1)), phase))
        );
    }

    #[test]
    fn registers_that_changed_mean_nothing() {
        // adrp x1; mov x1, xzr; ldr x2, [x1]
        let moved = [0xd000_1661, 0xaa1f_03e1, 0xf940_0022];
        assert_eq!(found(&moved, 0x1000), []);
        // adrp x1; bl; ldr x2, [x1]
        let called = [0xd000_1661, 0x9400_0001, 0xf940_0022];
        assert_eq!(found(&called, 0x1000), []);
        // adrp x1; ldr x2, [x1], #8; ldr x2, [x1]
        let along = [0xd000_1661, 0xf840_8422, 0xf940_0022];
        assert_eq!(found(&along, 0x1000).len(), 1);
        // add x1, sp, #16
        assert_eq!(found(&[0x9100_43e1], 0x1000), []);
    }

    #[test]
    fn calls_lead_on_and_back() {
        // bl .+16; nop; bl .-8
        let words = code(&[0x9400_0004, 0xd503_201f, 0x97ff_fffe]);
        assert_eq!(calls(&words, 0x1000), [0x1010, 0x1000]);
        assert!(calls(&words[..3], 0x1000).is_empty());
    }

    /// All beginnings of instructions, with all registers alike: an answer every time.
    #[test]
    fn no_instruction_panics() {
        for top in 0..=u32::from(u16::MAX) {
            for rest in [0, 0x7fff, 0xffff, 0x1234] {
                let _ = references(
                    &code(&[0xf000_0000, top << 16 | rest, u32::MAX]),
                    u64::MAX - 8,
                );
            }
        }
        assert_eq!(references(&[1, 2, 3], 0).len(), 0);
    }
}
