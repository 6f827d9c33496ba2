//! What a probe says of its arguments: `-4@%eax 8@-16(%rbp)`.
//!
//! Each argument is `SIZE@OPERAND`: the size in bytes, negative for a signed value, and where the
//! value is, in the assembler's own words. So there is a grammar for each machine. A form that is not
//! known is refused with the text that was not understood: a wrong value would be worse than none.

use std::fmt;

use super::{arm64, x86};

/// Arguments that one probe can have (`STAP_PROBEV` of systemtap's `sdt.h` goes up to 12).
const MAX_ARGUMENTS: usize = 12;
/// Bytes of a description that are shown.
const MAX_SHOWN: usize = 64;
/// Characters that are looked at; real descriptions have some hundred.
const MAX_TEXT: usize = 4096;

/// The machine that a file's code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// arm64.
    Arm64,
}

impl Machine {
    /// The one that this program was compiled for, if it is one of these.
    pub const fn native() -> Option<Machine> {
        if cfg!(target_arch = "x86_64") {
            Some(Machine::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Machine::Arm64)
        } else {
            None
        }
    }

    /// Its name, as `uname -m` has it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "x86_64",
            Machine::Arm64 => "aarch64",
        }
    }
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The description, as it stands in the file.
    pub text: String,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Is the sign bit one?
    pub signed: bool,
    /// Where the value is.
    pub place: Place,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The value itself.
    Constant(i64),
    /// In a register.
    Register(Register),
    /// In memory.
    Memory(Memory),
    /// The address of a symbol, with something added.
    Address {
        /// The symbol.
        symbol: String,
        /// What is added.
        offset: i64,
    },
}

impl Place {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Place::Constant(_) => "constant",
            Place::Register(_) => "register",
            Place::Memory(_) => "memory",
            Place::Address { .. } => "address",
        }
    }

    /// The symbol that must be looked up to know the place.
    pub fn symbol(&self) -> Option<&str> {
        match self {
            Place::Address { symbol, .. } => Some(symbol),
            Place::Memory(memory) => memory.symbol.as_deref(),
            _ => None,
        }
    }
}

/// A register, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// x86-64: as instructions encode it (rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7,
    /// r8 8 … r15 15). arm64: x0 to x30, the stack pointer 31.
    pub number: u8,
    /// Bytes of it.
    pub bytes: u8,
    /// Bits below the part (8 for `%ah` and its like).
    pub shift: u8,
}

/// An address in memory: the sum of what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// A register.
    pub base: Option<Register>,
    /// A register times a power of two, and that power.
    pub index: Option<(Register, u8)>,
    /// A constant.
    pub displacement: i64,
    /// A symbol's address: of a variable that the code addresses relative to itself, or absolutely.
    pub symbol: Option<String>,
}

/// An argument that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Which: from 0 on.
    pub index: usize,
    /// Its text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {}, `{}`: {}", self.index, self.text, self.why)
    }
}

/// As much of a file's text as is shown.
pub fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_SHOWN)]
}

/// The arguments that a probe describes.
///
/// # Errors
/// The first that is not understood.
pub fn parse(machine: Machine, text: &str) -> Result<Vec<Argument>, Unknown> {
    let unknown = |index, text: &str, why| Unknown {
        index,
        text: short(text).to_owned(),
        why,
    };
    if text.len() > MAX_TEXT {
        return Err(unknown(0, text, "the description is too long"));
    }
    let mut arguments = Vec::new();
    for (index, one) in split(text).into_iter().enumerate() {
        if index >= MAX_ARGUMENTS {
            return Err(unknown(index, one, "a probe has at most 12 arguments"));
        }
        arguments.push(argument(machine, one).map_err(|why| unknown(index, one, why))?);
    }
    Ok(arguments)
}

/// Splits at blanks outside of brackets: arm64 writes `8@[sp, 16]`.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|c: char| {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c.is_ascii_whitespace()
    })
    .filter(|part| !part.is_empty())
    .collect()
}

fn argument(machine: Machine, text: &str) -> Result<Argument, &'static str> {
    // Old notes have no size: the value then is a word.
    let (size, operand) = text.split_once('@').unwrap_or(("8", text));
    let (signed, digits) = match size.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, size),
    };
    let size = match digits {
        "1" => 1,
        "2" => 2,
        "4" => 4,
        "8" => 8,
        _ if digits.ends_with('f') => return Err("floating-point values are not supported"),
        _ => return Err("the size is none of 1, 2, 4, 8"),
    };
    let place = match machine {
        Machine::X86_64 => x86::operand(operand)?,
        Machine::Arm64 => arm64::operand(operand)?,
    };
    Ok(Argument {
        text: text.to_owned(),
        size,
        signed,
        place,
    })
}

/// A number, decimal, `0x` or octal, with a sign or without. The assembler's numbers have 64 bits, signed
/// or not.
pub(super) fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    // The parser of the standard library takes a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let value = match lower.strip_prefix("0x") {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(hex, 16).ok()?
        }
        Some(_) => return None,
        None if lower.len() > 1 && lower.starts_with('0') => u64::from_str_radix(&lower, 8).ok()?,
        None => lower.parse().ok()?,
    };
    let value = value.cast_signed();
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// A sum of numbers and at most one symbol: `4+CheckpointStats`, `-8+16`, `counter-4`.
pub(super) fn sum(text: &str) -> Result<(Option<&str>, i64), &'static str> {
    let mut symbol = None;
    let mut total = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        // gcc writes `8+-16`.
        rest = match rest.strip_prefix('+') {
            Some(signed) if signed.starts_with('-') => signed,
            _ => rest,
        };
        let sign = usize::from(rest.starts_with(['+', '-']));
        let end = rest[sign..]
            .find(['+', '-'])
            .map_or(rest.len(), |at| at + sign);
        let term = &rest[..end];
        rest = &rest[end..];
        if let Some(value) = number(term) {
            total = total.wrapping_add(value);
            continue;
        }
        let name = term.strip_prefix('+').unwrap_or(term);
        if !is_symbol(name) {
            return Err("this operand is not known");
        }
        if symbol.replace(name).is_some() {
            return Err("more than one symbol");
        }
    }
    Ok((symbol, total))
}

/// Could this be the name of a symbol, without a relocation's suffix (`@GOTPCREL`, `@tpoff`)?
fn is_symbol(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.'))
        && name.chars().all(ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_kind() {
        for (text, value) in [
            ("0", 0),
            ("-4", -4),
            ("+4", 4),
            ("0x10", 16),
            ("-0x10", -16),
            ("010", 8),
            ("18446744073709551615", -1),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "+-4",
            "--4",
            "0x",
            "0x+1",
            "08",
            "18446744073709551616",
            "4a",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn arguments_are_split_outside_of_brackets() {
        assert_eq!(
            split(" -4@x0 8@[sp, 16]\t8@(%rax, %rbx ,4) 1@2 "),
            ["-4@x0", "8@[sp, 16]", "8@(%rax, %rbx ,4)", "1@2"]
        );
        assert_eq!(split("8@]] 4@x1"), ["8@]]", "4@x1"]);
        assert!(split("  ").is_empty());
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_place() {
        for (text, index, why) in [
            ("8@%rax 8f@%xmm0", 1, "floating-point"),
            ("3@%rax", 0, "size"),
            ("--4@%rax", 0, "size"),
            ("@%rax", 0, "size"),
            ("8@%rax 8@%fs:16", 1, ""),
            ("8@%zmm1", 0, ""),
            ("8@", 0, ""),
            ("8@foo@tpoff(%rip)", 0, ""),
        ] {
            let error = parse(Machine::X86_64, text).unwrap_err();
            assert_eq!(error.index, index, "{text}: {error}");
            assert!(error.why.contains(why), "{text}: {error}");
        }
        let many = "8@%rax ".repeat(13);
        assert_eq!(parse(Machine::X86_64, &many).unwrap_err().index, 12);
        let long = "8".repeat(MAX_TEXT + 1);
        assert!(parse(Machine::X86_64, &long).is_err());
        assert_eq!(parse(Machine::X86_64, ""), Ok(Vec::new()));
    }

    /// Every string of a few characters out of those that matter, and every way to cut and to change real
    /// descriptions: an answer, never a panic.
    #[test]
    fn no_text_is_too_strange() {
        let real = "-4@%r13d 8@-16(%rbp,%rcx,8) -4@4+CheckpointStats(%rip) 8@$-1 8@[sp, 16] 2@x0";
        for machine in [Machine::X86_64, Machine::Arm64] {
            for from in 0..real.len() {
                for to in from..=real.len() {
                    let _ = parse(machine, &real[from..to]);
                }
            }
            for at in 0..real.len() {
                for other in "@-+%$()[], x0r8\u{e9}\0:".chars() {
                    let mut text: String = real[..at].into();
                    text.push(other);
                    text.push_str(&real[at + 1..]);
                    let _ = parse(machine, &text);
                }
            }
            let letters = [
                "8@", "-", "%", "rax", "(", ")", ",", "$", "[", "]", "x0", "é",
            ];
            for a in letters {
                for b in letters {
                    for c in letters {
                        for d in letters {
                            let _ = parse(machine, &format!("{a}{b}{c}{d}"));
                        }
                    }
                }
            }
        }
    }
}
