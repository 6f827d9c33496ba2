//! Operands of x86-64, in AT&T's notation: `%eax`, `$-1`, `-16(%rbp,%rcx,8)`, `4+variable(%rip)`.

use super::argument::{Memory, Place, Register, number, sum};

/// The sixteen registers by their number, each as 8, 4, 2 and 1 bytes.
const NAMES: [[&str; 4]; 16] = [
    ["rax", "eax", "ax", "al"],
    ["rcx", "ecx", "cx", "cl"],
    ["rdx", "edx", "dx", "dl"],
    ["rbx", "ebx", "bx", "bl"],
    ["rsp", "esp", "sp", "spl"],
    ["rbp", "ebp", "bp", "bpl"],
    ["rsi", "esi", "si", "sil"],
    ["rdi", "edi", "di", "dil"],
    ["r8", "r8d", "r8w", "r8b"],
    ["r9", "r9d", "r9w", "r9b"],
    ["r10", "r10d", "r10w", "r10b"],
    ["r11", "r11d", "r11w", "r11b"],
    ["r12", "r12d", "r12w", "r12b"],
    ["r13", "r13d", "r13w", "r13b"],
    ["r14", "r14d", "r14w", "r14b"],
    ["r15", "r15d", "r15w", "r15b"],
];
/// The second bytes of the first four.
const HIGH: [&str; 4] = ["ah", "ch", "dh", "bh"];

const UNKNOWN: &str = "this operand is not known";

/// Where an operand's value is.
pub(super) fn operand(text: &str) -> Result<Place, &'static str> {
    let text = text.trim();
    if let Some(constant) = text.strip_prefix('$') {
        return Ok(match sum(constant)? {
            _ if constant.is_empty() => return Err(UNKNOWN),
            (None, value) => Place::Constant(value),
            (Some(symbol), offset) => Place::Address {
                symbol: symbol.to_owned(),
                offset,
            },
        });
    }
    if text.contains(':') {
        return Err("memory of a segment (thread-local) is not supported");
    }
    if text.starts_with('%') {
        return register(text).map(Place::Register);
    }
    memory(text).map(Place::Memory)
}

fn register(text: &str) -> Result<Register, &'static str> {
    const SIZES: [u8; 4] = [8, 4, 2, 1];
    let name = text.strip_prefix('%').ok_or(UNKNOWN)?;
    for (number, names) in NAMES.iter().enumerate() {
        if let Some(size) = names.iter().position(|known| *known == name) {
            return Ok(Register {
                number: number as u8,
                bytes: SIZES[size],
                shift: 0,
            });
        }
    }
    let number = HIGH
        .iter()
        .position(|known| *known == name)
        .ok_or("this register is not known")?;
    Ok(Register {
        number: number as u8,
        bytes: 1,
        shift: 8,
    })
}

/// `DISPLACEMENT(BASE,INDEX,SCALE)`, each part optional.
fn memory(text: &str) -> Result<Memory, &'static str> {
    let Some((displacement, inner)) = text.split_once('(') else {
        // A bare number would be an address of its own, which no compiler writes; a bare symbol is.
        let (symbol, displacement) = sum(text)?;
        return Ok(Memory {
            symbol: Some(symbol.ok_or(UNKNOWN)?.to_owned()),
            displacement,
            ..Memory::default()
        });
    };
    let inner = inner.strip_suffix(')').ok_or(UNKNOWN)?;
    let (symbol, displacement) = sum(displacement.trim())?;
    let symbol = symbol.map(str::to_owned);
    let mut parts = inner.split(',').map(str::trim);
    let base = parts.next().unwrap_or_default();
    let (index, scale) = (parts.next(), parts.next());
    if parts.next().is_some() {
        return Err(UNKNOWN);
    }
    if base == "%rip" {
        // Without a symbol the distance is from an instruction that the note does not name.
        return match (symbol, index) {
            (Some(symbol), None) => Ok(Memory {
                symbol: Some(symbol),
                displacement,
                ..Memory::default()
            }),
            (None, _) => Err("relative to the instruction, and without a symbol"),
            _ => Err(UNKNOWN),
        };
    }
    if base.is_empty() && index.is_none_or(str::is_empty) {
        return Err(UNKNOWN);
    }
    let base = (!base.is_empty()).then(|| word(base)).transpose()?;
    let index = match index {
        None => None,
        Some("") => return Err(UNKNOWN),
        Some(index) => Some((word(index)?, power(scale)?)),
    };
    if index.is_some_and(|(register, _)| register.number == 4) {
        return Err("the stack pointer cannot be an index");
    }
    Ok(Memory {
        base,
        index,
        displacement,
        symbol,
    })
}

/// A register that an address can be made of.
fn word(text: &str) -> Result<Register, &'static str> {
    let register = register(text)?;
    if register.bytes == 8 {
        Ok(register)
    } else {
        Err("an address of less than 64 bits")
    }
}

/// Which power of two the scale is.
fn power(scale: Option<&str>) -> Result<u8, &'static str> {
    match scale.map_or(Some(1), number) {
        Some(1) => Ok(0),
        Some(2) => Ok(1),
        Some(4) => Ok(2),
        Some(8) => Ok(3),
        _ => Err("the scale is none of 1, 2, 4, 8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(number: u8) -> Register {
        Register {
            number,
            bytes: 8,
            shift: 0,
        }
    }

    #[test]
    fn registers_of_each_size() {
        for (text, number, bytes, shift) in [
            ("%rax", 0, 8, 0),
            ("%eax", 0, 4, 0),
            ("%ax", 0, 2, 0),
            ("%al", 0, 1, 0),
            ("%ah", 0, 1, 8),
            ("%bh", 3, 1, 8),
            ("%rsp", 4, 8, 0),
            ("%sil", 6, 1, 0),
            ("%r8", 8, 8, 0),
            ("%r15d", 15, 4, 0),
            ("%r9w", 9, 2, 0),
            ("%r10b", 10, 1, 0),
        ] {
            let register = Register {
                number,
                bytes,
                shift,
            };
            assert_eq!(operand(text), Ok(Place::Register(register)), "{text}");
        }
        for text in [
            "%", "%rip", "%xmm0", "%st(0)", "%k1", "%r16", "%RAX", "%%rax",
        ] {
            assert!(operand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn constants_and_addresses_of_symbols() {
        assert_eq!(operand("$-1"), Ok(Place::Constant(-1)));
        assert_eq!(operand("$0x7f"), Ok(Place::Constant(127)));
        assert_eq!(
            operand("$table+8"),
            Ok(Place::Address {
                symbol: "table".into(),
                offset: 8
            })
        );
        for text in ["$", "$-", "$%rax", "$a+b", "$-a"] {
            assert!(operand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_of_each_form() {
        let at = |base: Option<u8>, index: Option<(u8, u8)>, displacement| Memory {
            base: base.map(whole),
            index: index.map(|(number, scale)| (whole(number), scale)),
            displacement,
            symbol: None,
        };
        for (text, memory) in [
            ("(%r12)", at(Some(12), None, 0)),
            ("-8(%rbp)", at(Some(5), None, -8)),
            ("0x10(%rsp)", at(Some(4), None, 16)),
            ("8+-16(%rbp)", at(Some(5), None, -8)),
            ("-8+16(%rbp)", at(Some(5), None, 8)),
            ("(%rax,%rbx)", at(Some(0), Some((3, 0)), 0)),
            ("24(%rax,%rbx,4)", at(Some(0), Some((3, 2)), 24)),
            ("(,%rcx,8)", at(None, Some((1, 3)), 0)),
            ("-4( %r14 , %r15 , 2 )", at(Some(14), Some((15, 1)), -4)),
        ] {
            assert_eq!(operand(text), Ok(Place::Memory(memory)), "{text}");
        }
        for text in [
            "()",
            "8()",
            "(%rax",
            "%rax)",
            "(%rax)4",
            "(%eax)",
            "(%rax,%rsp)",
            "(%rax,%rbx,3)",
            "(%rax,%rbx,4,1)",
            "(%rax,)",
            "(,,4)",
            "16",
            "16(%rip)",
            "foo(%rip,%rax)",
            "*(%rax)",
            "(%xmm0)",
        ] {
            assert!(operand(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_at_symbols() {
        let at = |symbol: &str, displacement| {
            Ok(Place::Memory(Memory {
                symbol: Some(symbol.into()),
                displacement,
                ..Memory::default()
            }))
        };
        assert_eq!(operand("NBuffers(%rip)"), at("NBuffers", 0));
        assert_eq!(operand("4+CheckpointStats(%rip)"), at("CheckpointStats", 4));
        assert_eq!(operand("counter-4(%rip)"), at("counter", -4));
        assert_eq!(operand("_ZL3foo.lto_priv.0"), at("_ZL3foo.lto_priv.0", 0));
        let Ok(Place::Memory(memory)) = operand("table(,%rax,8)") else {
            panic!("a table");
        };
        assert_eq!(memory.symbol.as_deref(), Some("table"));
        assert_eq!(memory.index, Some((whole(0), 3)));
    }
}
