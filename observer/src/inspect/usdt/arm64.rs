//! Operands of arm64: `x0`, `[sp, 16]`, `[x1, x2, lsl #3]`, `-1`.

use super::argument::{Memory, Place, Register, number};

/// The stack pointer's number.
pub(super) const SP: u8 = 31;

const UNKNOWN: &str = "this operand is not known";

/// Where an operand's value is.
pub(super) fn operand(text: &str) -> Result<Place, &'static str> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UNKNOWN)?;
        return memory(inner).map(Place::Memory);
    }
    if let Some(value) = constant(text) {
        return Ok(Place::Constant(value));
    }
    match text {
        // The register that is always zero.
        "xzr" | "wzr" => Ok(Place::Constant(0)),
        _ => register(text).map(Place::Register),
    }
}

/// With `#` or without.
fn constant(text: &str) -> Option<i64> {
    number(text.strip_prefix('#').unwrap_or(text))
}

fn register(text: &str) -> Result<Register, &'static str> {
    let whole = |number| Register {
        number,
        bytes: 8,
        shift: 0,
    };
    match text {
        "sp" => return Ok(whole(SP)),
        "fp" => return Ok(whole(29)),
        "lr" => return Ok(whole(30)),
        _ => {}
    }
    let bytes = match text.as_bytes().first() {
        Some(b'x') => 8,
        Some(b'w') => 4,
        _ => return Err("this register is not known"),
    };
    let digits = &text[1..];
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    match digits.parse() {
        Ok(number @ 0..=30) if plain => Ok(Register {
            number,
            bytes,
            shift: 0,
        }),
        _ => Err("this register is not known"),
    }
}

/// What stands between the brackets.
fn memory(inner: &str) -> Result<Memory, &'static str> {
    let mut parts = inner.split(',').map(str::trim);
    let base = word(parts.next().unwrap_or_default())?;
    let (second, third) = (parts.next(), parts.next());
    if parts.next().is_some() {
        return Err(UNKNOWN);
    }
    let mut memory = Memory {
        base: Some(base),
        ..Memory::default()
    };
    match (second, third) {
        (None, _) => {}
        (Some(second), None) if constant(second).is_some() => {
            memory.displacement = constant(second).unwrap_or_default();
        }
        (Some(second), None) => memory.index = Some((word(second)?, 0)),
        (Some(second), Some(third)) => {
            let shift = third.strip_prefix("lsl").map(str::trim).ok_or(UNKNOWN)?;
            let shift = match constant(shift) {
                Some(shift @ 0..=3) => shift as u8,
                _ => return Err("the shift is none of 0, 1, 2, 3"),
            };
            memory.index = Some((word(second)?, shift));
        }
    }
    Ok(memory)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::usdt::argument::{Machine, parse};

    #[test]
    fn the_forms_that_compilers_write() {
        let register = |number, bytes| Register {
            number,
            bytes,
            shift: 0,
        };
        let at = |base, index, displacement| {
            Place::Memory(Memory {
                base: Some(register(base, 8)),
                index,
                displacement,
                symbol: None,
            })
        };
        for (text, size, signed, place) in [
            ("-4@x0", 4, true, Place::Register(register(0, 8))),
            ("4@w12", 4, false, Place::Register(register(12, 4))),
            ("8@x30", 8, false, Place::Register(register(30, 8))),
            ("8@sp", 8, false, Place::Register(register(SP, 8))),
            ("8@[sp, 16]", 8, false, at(SP, None, 16)),
            ("8@[sp,#-16]", 8, false, at(SP, None, -16)),
            ("-4@[x1]", 4, true, at(1, None, 0)),
            ("8@[x1, x2]", 8, false, at(1, Some((register(2, 8), 0)), 0)),
            (
                "8@[x1, x2, lsl #3]",
                8,
                false,
                at(1, Some((register(2, 8), 3)), 0),
            ),
            (
                "8@[x1, x2, lsl 3]",
                8,
                false,
                at(1, Some((register(2, 8), 3)), 0),
            ),
            ("-4@-1", 4, true, Place::Constant(-1)),
            ("-4@#5", 4, true, Place::Constant(5)),
            ("8@xzr", 8, false, Place::Constant(0)),
        ] {
            let arguments = parse(Machine::Arm64, text).unwrap();
            let [argument] = &arguments[..] else {
                panic!("{text}: {arguments:?}");
            };
            assert_eq!(
                (argument.size, argument.signed, &argument.place),
                (size, signed, &place),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "x31",
            "x",
            "w",
            "x01",
            "x+1",
            "d0",
            "v0",
            "[x0",
            "x0]",
            "[]",
            "[w0]",
            "[x0, w1, sxtw 2]",
            "[x0, x1, lsl 4]",
            "[x0, x1, lsl]",
            "[x0], 8",
            "[x0, 8]!",
            "[x0, 1, 2, 3]",
            "[x0, :lo12:a]",
            "#",
            "é",
        ] {
            assert!(operand(text).is_err(), "{text}");
        }
    }
}
