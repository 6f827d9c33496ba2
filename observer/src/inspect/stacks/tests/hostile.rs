//! Memory and files that lie: cut anywhere, with any bit turned. Nothing may panic or take long.

use std::time::{Duration, Instant};

use super::{
    Folder, Inspector, Running, USUAL, build,
    subject::{Way, has, poll},
};
use crate::inspect::{
    code::Code,
    maps::{self, Mapping},
    memory::{Memory, ProcessMemory},
    registers::Registers,
    unwind::{MAX_FRAMES, RawStack, StackEnd, Unwinder},
};

/// One of these unwinds, however slow the machine is: they take 50 µs.
const LIMIT: Duration = Duration::from_secs(2);

/// What a process had in its memory.
#[derive(Clone)]
struct Copy {
    parts: Vec<(u64, Vec<u8>)>,
    mappings: Vec<Mapping>,
    registers: Registers,
}

impl Memory for &Copy {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        self.parts.iter().any(|(start, bytes)| {
            let Some(from) = addr.checked_sub(*start) else {
                return false;
            };
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let part = bytes.get(from..from.saturating_add(into.len()));
            part.is_some_and(|part| {
                into.copy_from_slice(part);
                true
            })
        })
    }
}

impl Copy {
    /// Of the thread of the subject that a signal has interrupted: tables of all sorts are needed.
    fn take() -> Option<Copy> {
        let folder = Folder::new();
        let program = build(&folder, "subject", &USUAL)?;
        let running = Running::start(&program, &[]);
        let (_, mut way) = Way::all().pop()?;
        let mut inspector = Inspector::default();
        let (stack, _) = poll(
            &mut way,
            &mut inspector,
            running.pid(),
            "signal",
            |stack, found| stack.end == StackEnd::Root && has(found, &["in_handler", "in_signal"]),
        );
        let registers = stack.registers?;
        let memory = ProcessMemory::of(running.pid());
        let mappings = maps::read(running.pid()).ok()?;
        let mut parts = Vec::new();
        for mapping in &mappings {
            // Of the stack, what is in use.
            let start = if mapping.holds(registers.sp) {
                registers.sp
            } else {
                mapping.start
            };
            let length = (mapping.end - start).min(4 << 20);
            let mut bytes = vec![0; length as usize];
            if (mapping.inode != 0 || &*mapping.path == "[vdso]" || start == registers.sp)
                && memory.read(start, &mut bytes)
            {
                parts.push((start, bytes));
            }
        }
        Some(Copy {
            parts,
            mappings,
            registers,
        })
    }

    fn unwind(&self) -> RawStack {
        let begun = Instant::now();
        let stack = Unwinder::new(self, self.mappings.clone()).unwind(&self.registers);
        assert!(stack.frames.len() <= MAX_FRAMES);
        assert!(begun.elapsed() < LIMIT);
        stack
    }

    /// The part that holds the subject's beginning, headers and all.
    fn part_of(&mut self, mapping: usize) -> Option<&mut Vec<u8>> {
        let start = self.mappings[mapping].start;
        self.parts
            .iter_mut()
            .find(|part| part.0 == start)
            .map(|part| &mut part.1)
    }

    /// The subject's and its library's mappings with headers or tables.
    fn of_files(&self) -> Vec<usize> {
        let of =
            |mapping: &Mapping| mapping.path.ends_with("subject") || mapping.path.contains("libc");
        (0..self.mappings.len())
            .filter(|i| of(&self.mappings[*i]))
            .collect()
    }
}

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn memory_with_any_bit_turned() {
    let Some(whole) = Copy::take() else {
        return;
    };
    assert_eq!(whole.unwind().end, StackEnd::Root);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for mapping in whole.of_files() {
        let mut copy = whole.clone();
        let Some(length) = copy.part_of(mapping).map(|part| part.len()) else {
            continue;
        };
        // All of the headers, and samples of the rest.
        let headers = (0..length.min(1_024)).map(|at| (at, numbers.next()));
        let mut cases: Vec<(usize, u64)> = headers.collect();
        cases.extend((0..1_000).map(|_| (numbers.next() as usize % length, numbers.next())));
        for (at, number) in cases {
            let turn = if number & 1 == 0 {
                0xff
            } else {
                1 << (number >> 8 & 7)
            };
            if let Some(part) = copy.part_of(mapping) {
                part[at] ^= turn;
            }
            copy.unwind();
            if let Some(part) = copy.part_of(mapping) {
                part[at] ^= turn;
            }
        }
    }
}

#[test]
fn stacks_with_anything_on_them() {
    let Some(mut copy) = Copy::take() else {
        return;
    };
    let sp = copy.registers.sp;
    let words = 512;
    let mut numbers = Numbers(7);
    for round in 0..2_000u64 {
        // Addresses of code and of the stack itself lead furthest.
        let code: Vec<u64> = copy
            .mappings
            .iter()
            .filter(|m| m.executable)
            .map(|m| m.start)
            .collect();
        let part = copy.parts.iter_mut().find(|part| part.0 == sp).unwrap();
        let bytes = &mut part.1;
        for _ in 0..=round % 64 {
            let at = (numbers.next() as usize % words * 8).min(bytes.len() - 8);
            let value = match numbers.next() % 4 {
                0 => sp + numbers.next() % 8_192,
                1 => code[numbers.next() as usize % code.len()] + numbers.next() % 65_536,
                2 => numbers.next(),
                _ => 0,
            };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        copy.unwind();
        copy.registers.bp = Some(sp + numbers.next() % 8_192);
    }
}

#[test]
fn memory_cut_anywhere() {
    let Some(whole) = Copy::take() else {
        return;
    };
    for mapping in whole.of_files() {
        let mut copy = whole.clone();
        let Some(length) = copy.part_of(mapping).map(|part| part.len()) else {
            continue;
        };
        for cut in (0..256)
            .chain((256..length).step_by(length / 400 + 1))
            .rev()
        {
            if let Some(part) = copy.part_of(mapping) {
                part.truncate(cut);
            }
            copy.unwind();
        }
    }
    let mut copy = whole.clone();
    while let Some(part) = copy
        .parts
        .iter_mut()
        .find(|part| part.0 == whole.registers.sp && !part.1.is_empty())
    {
        let shorter = part.1.len() * 7 / 8;
        part.1.truncate(shorter);
        copy.unwind();
    }
}

#[test]
fn addresses_at_the_ends_of_the_world() {
    let Some(mut copy) = Copy::take() else {
        return;
    };
    for sp in [
        0,
        1,
        8,
        u64::MAX,
        u64::MAX - 7,
        1 << 63,
        copy.registers.sp | 1,
    ] {
        for bp in [None, Some(0), Some(u64::MAX), Some(sp)] {
            copy.registers.sp = sp;
            copy.registers.bp = bp;
            copy.unwind();
        }
    }
    for ip in [0, 1, u64::MAX, 1 << 63] {
        copy.registers.ip = ip;
        assert_eq!(copy.unwind().end, StackEnd::NotCode);
    }
}

#[test]
fn files_with_any_bit_turned_or_cut() {
    let folder = Folder::new();
    let flags = [
        "-O2",
        "-g",
        "-static",
        "-Wl,--no-eh-frame-hdr",
        "-Wl,--gc-sections",
    ];
    let Some(program) =
        build(&folder, "subject", &flags).or_else(|| build(&folder, "subject", &USUAL))
    else {
        return;
    };
    let whole = std::fs::read(&program).unwrap();
    let mut numbers = Numbers(3);
    let length = whole.len();
    let sections =
        usize::try_from(u64::from_le_bytes(whole[0x28..0x30].try_into().unwrap())).unwrap();
    for round in 0..600 {
        let mut bytes = whole.clone();
        let at = match round % 3 {
            0 => numbers.next() as usize % 1_024,
            1 => sections + numbers.next() as usize % (length - sections),
            _ => numbers.next() as usize % length,
        };
        if round % 8 == 7 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= if round & 1 == 0 {
                0xff
            } else {
                1 << (numbers.next() & 7)
            };
        }
        let begun = Instant::now();
        let mut code = Code::default();
        let module = code.of_bytes(&bytes).unwrap();
        for addr in [0x40_1800, 0x40_2000, 0, u64::MAX] {
            assert!(!code.frames(module, addr).is_empty());
        }
        assert!(begun.elapsed() < LIMIT * 5);
    }
}
