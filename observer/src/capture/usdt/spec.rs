//! From what a note says of an argument to what the kernel program reads.

use observer_common::usdt::{Argument, NONE, SLOTS, Spec, flag, role};

use crate::{
    inspect::usdt::{
        self, Binary, Machine, Probe,
        argument::{Memory, Place, Register, short},
    },
    runtimes::packs::Pair,
};

/// Offsets in `pt_regs` of x86-64 (arch/x86/include/asm/ptrace.h), by the number that instructions have
/// for a register: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … r15.
const X86_64: [u16; 16] = [
    80, 88, 96, 40, 152, 32, 104, 112, 72, 64, 56, 48, 24, 16, 8, 0,
];
/// The address of the instruction there.
const X86_64_IP: u16 = 128;
/// The same in `user_pt_regs` of arm64: x0 to x30 and the stack pointer, eight bytes each, then `pc`.
const ARM64_PC: u16 = 256;

fn offset(machine: Machine, register: Register) -> u16 {
    match machine {
        Machine::X86_64 => X86_64
            .get(usize::from(register.number))
            .copied()
            .unwrap_or(NONE),
        Machine::Arm64 => u16::from(register.number & 31) * 8,
    }
}

fn ip(machine: Machine) -> u16 {
    match machine {
        Machine::X86_64 => X86_64_IP,
        Machine::Arm64 => ARM64_PC,
    }
}

/// What the program is told of a probe that begins a wait.
///
/// # Errors
/// Why its arguments cannot be read.
pub(super) fn begin(
    pair: &Pair,
    number: u32,
    probe: &Probe,
    binary: &Binary,
) -> Result<Spec, String> {
    let mut spec = Spec {
        pair: number,
        role: role::BEGIN,
        ..Spec::default()
    };
    if pair.slots.is_empty() {
        return Ok(spec);
    }
    let arguments = probe.arguments.as_ref().map_err(Clone::clone)?;
    for (slot, &wanted) in pair.slots.iter().enumerate().take(SLOTS) {
        let argument = arguments.get(usize::from(wanted)).ok_or_else(|| {
            format!(
                "the pack uses argument {wanted}, and the probe has {}",
                arguments.len()
            )
        })?;
        spec.args[slot] = place(argument, probe, binary)?;
        spec.count += 1;
        if pair.resource.contains(&wanted) {
            spec.key |= 1 << slot;
        }
    }
    let slot = |argument| pair.slot(argument).map_or(0, |slot| slot as u8 + 1);
    spec.by = pair.by.map_or(0, slot);
    for sort in pair.fleeting.keys() {
        spec.fleeting |= 1u32.checked_shl(*sort as u32).unwrap_or(0);
    }
    if let Some((text, len)) = pair.text {
        spec.text = slot(text);
        spec.text_len = len.map_or(0, slot);
    }
    Ok(spec)
}

/// The same of one that ends a wait, the one at `which` of the pair's ends: it need not be read.
pub(super) fn end(number: u32, which: u8) -> Spec {
    Spec {
        pair: number,
        role: role::END,
        end: which,
        ..Spec::default()
    }
}

fn place(argument: &usdt::Argument, probe: &Probe, binary: &Binary) -> Result<Argument, String> {
    let machine = binary.machine;
    let refuse = |why: &str| format!("argument `{}`: {why}", short(&argument.text));
    // A symbol's distance from the probe is the same wherever the file is loaded.
    let distance = |symbol: &str| {
        let address = binary.symbols.get(symbol).copied();
        let address = address.ok_or_else(|| refuse("its symbol is not known"))?;
        Ok::<_, String>(address.wrapping_sub(probe.location))
    };
    let mut to = Argument {
        base: NONE,
        index: NONE,
        size: argument.size,
        flags: if argument.signed { flag::SIGNED } else { 0 },
        ..Argument::default()
    };
    match &argument.place {
        Place::Constant(value) => to.displacement = value.cast_unsigned(),
        Place::Register(register) => {
            to.base = offset(machine, *register);
            to.shift = register.shift;
            to.size = argument.size.min(register.bytes);
        }
        Place::Address { symbol, offset } => {
            to.base = ip(machine);
            to.displacement = distance(symbol)?.wrapping_add(offset.cast_unsigned());
        }
        Place::Memory(Memory {
            base,
            index,
            displacement,
            symbol,
        }) => {
            to.flags |= flag::MEMORY;
            to.displacement = displacement.cast_unsigned();
            let mut registers = [base.map(|base| (base, 0)), *index];
            if let Some(symbol) = symbol {
                if registers.iter().all(Option::is_some) {
                    return Err(refuse("a symbol and two registers"));
                }
                to.base = ip(machine);
                to.displacement = to.displacement.wrapping_add(distance(symbol)?);
                registers = [None, registers[0].or(registers[1])];
            }
            if let Some((base, _)) = registers[0] {
                to.base = offset(machine, base);
            }
            if let Some((index, scale)) = registers[1] {
                (to.index, to.scale) = (offset(machine, index), scale);
            }
        }
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{inspect::usdt::argument, runtimes::packs};

    fn read(machine: Machine, text: &str) -> Result<Argument, String> {
        let binary = Binary {
            machine,
            probes: Vec::new(),
            malformed: 0,
            symbols: HashMap::from([("counter".to_owned(), 0x5000)]),
        };
        let probe = Probe {
            provider: "p".into(),
            name: "b".into(),
            location: 0x1000,
            offset: Some(0x1000),
            semaphore: None,
            arguments: argument::parse(machine, text).map_err(|error| error.to_string()),
            argument_text: text.into(),
            refused: None,
        };
        let pack = "[[pair]]\nprovider = \"p\"\nbegin = \"b\"\nend = \"e\"\nresource = 0\n";
        let pair = &packs::parse(pack).unwrap()[0];
        begin(pair, 7, &probe, &binary).map(|spec| {
            assert_eq!((spec.pair, spec.count, spec.key), (7, 1, 1));
            spec.args[0]
        })
    }

    #[test]
    fn each_form_becomes_a_sum() {
        let row = |displacement: i64, base, index, scale, size, shift, flags| Argument {
            displacement: displacement.cast_unsigned(),
            base,
            index,
            scale,
            size,
            shift,
            flags,
        };
        for (text, wanted) in [
            ("8@%rdi", row(0, 112, NONE, 0, 8, 0, 0)),
            ("-4@%r13d", row(0, 16, NONE, 0, 4, 0, 1)),
            ("8@%eax", row(0, 80, NONE, 0, 4, 0, 0)),
            ("1@%bh", row(0, 40, NONE, 0, 1, 8, 0)),
            ("-4@$-7", row(-7, NONE, NONE, 0, 4, 0, 1)),
            ("2@-6(%rbp)", row(-6, 32, NONE, 0, 2, 0, 2)),
            ("8@4(%rsp,%rcx,8)", row(4, 152, 88, 3, 8, 0, 2)),
            ("-4@4+counter(%rip)", row(0x4004, 128, NONE, 0, 4, 0, 3)),
            ("8@counter(,%rax,8)", row(0x4000, 128, 80, 3, 8, 0, 2)),
            ("8@counter(%rax)", row(0x4000, 128, 80, 0, 8, 0, 2)),
            ("8@$counter", row(0x4000, 128, NONE, 0, 8, 0, 0)),
        ] {
            assert_eq!(read(Machine::X86_64, text), Ok(wanted), "{text}");
        }
        assert_eq!(
            read(Machine::Arm64, "8@[sp, 16]"),
            Ok(row(16, 248, NONE, 0, 8, 0, 2))
        );
        assert_eq!(
            read(Machine::Arm64, "-4@x30"),
            Ok(row(0, 240, NONE, 0, 4, 0, 1))
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (text, why) in [
            ("8f@%xmm0", "floating-point"),
            ("", "the probe has 0"),
            ("8@counter(%rax,%rbx,8)", "two registers"),
            ("8@other(%rip)", "not known"),
        ] {
            let error = read(Machine::X86_64, text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
