//! The tables of a code object: which line an instruction is of, and how much of the stack is in use there.
//!
//! Formats: Objects/locations.md (before: locations.md in Objects, from 3.11 on) and Objects/exception_handling_notes.txt
//! of CPython.

/// The line of the instruction with this number. `first`: that of the function.
pub(super) fn line(table: &[u8], first: u32, instruction: u64) -> Option<u32> {
    let mut line = i64::from(first);
    let mut at = 0u64;
    let mut bytes = table.iter().copied();
    while let Some(head) = bytes.next() {
        if head & 0x80 == 0 {
            return None;
        }
        let length = u64::from(head & 7) + 1;
        let mut has_line = true;
        match head >> 3 & 15 {
            // The column, in one more byte.
            0..=9 => {
                bytes.next()?;
            }
            // The same line or one of the next, columns in two more bytes.
            code @ 10..=12 => {
                line += i64::from(code) - 10;
                bytes.next()?;
                bytes.next()?;
            }
            13 => line += signed(&mut bytes)?,
            // Line, last line, columns.
            14 => {
                line += signed(&mut bytes)?;
                for _ in 0..3 {
                    number(&mut bytes)?;
                }
            }
            _ => has_line = false,
        }
        if (at..at + length).contains(&instruction) {
            return has_line.then_some(line)?.try_into().ok();
        }
        at += length;
    }
    None
}

/// The same of 3.10: pairs of a length in bytes and of what is added to the line; `instruction` is counted in bytes.
pub(super) fn line_of_3_10(table: &[u8], first: u32, instruction: u64) -> Option<u32> {
    /// Has no line.
    const NONE: i8 = i8::MIN;
    let (mut line, mut at) = (i64::from(first), 0);
    for [length, change] in table.as_chunks::<2>().0 {
        let change = change.cast_signed();
        if change != NONE {
            line += i64::from(change);
        }
        let end = at + u64::from(*length);
        if (at..end).contains(&instruction) {
            return (change != NONE).then_some(line)?.try_into().ok();
        }
        at = end;
    }
    None
}

/// The same of 3.9: pairs of bytes to the next place where something is added to the line.
pub(super) fn line_of_3_9(table: &[u8], first: u32, instruction: u64) -> Option<u32> {
    let (mut line, mut at) = (i64::from(first), 0);
    for [bytes, change] in table.as_chunks::<2>().0 {
        at += u64::from(*bytes);
        if at > instruction {
            break;
        }
        line += i64::from(change.cast_signed());
    }
    line.try_into().ok()
}

/// Six bits a byte, the lowest first; the seventh bit says that there are more.
fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..48).step_by(6) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x3f) << shift;
        if byte & 0x40 == 0 {
            return Some(value);
        }
    }
    None
}

/// The lowest bit is the sign.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = number(bytes)?;
    let size = (value >> 1).cast_signed();
    Some(if value & 1 == 0 { size } else { -size })
}

/// How many values of the stack are surely in use at an instruction: those that the handler of exceptions there
/// finds. None, if there is no handler.
pub(super) fn depth(table: &[u8], instruction: u64) -> usize {
    let mut bytes = table.iter().copied().peekable();
    let mut next = || {
        // Six bits a byte, the highest first.
        let mut value = 0u64;
        for _ in 0..8 {
            let byte = bytes.next()?;
            value = value << 6 | u64::from(byte & 0x3f);
            if byte & 0x40 == 0 {
                return Some(value);
            }
        }
        None
    };
    while let (Some(start), Some(length), Some(_handler), Some(depth)) =
        (next(), next(), next(), next())
    {
        if (start..start.saturating_add(length)).contains(&instruction) {
            return usize::try_from(depth >> 1).unwrap_or(0);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_functions_instructions() {
        // def f(x):          # line 10
        //     y = x + 1      # 11
        //     return g(      # 12
        //         y)         # 13
        let table = [
            0x80, 0x00, // one instruction of line 10
            0xd9, 0x04, 0x08, // two, the next line, columns
            0xf3, 0x02, 0x02, 0x05, 0x05, // four of lines 12 to 13
            0xf8, // one without a line
            0xe8, 0x03, // one, a line up
        ];
        let lines: Vec<_> = (0..10).map(|at| line(&table, 10, at)).collect();
        let wanted = [
            Some(10),
            Some(11),
            Some(11),
            Some(12),
            Some(12),
            Some(12),
            Some(12),
            None,
            Some(11),
            None,
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn lines_of_older_releases() {
        // Two bytes of the first line, four of the next, two without one, two of one before.
        let table = [2, 0, 4, 1, 2, 0x80, 2, 0xff, 9];
        let lines: Vec<_> = (0..11)
            .step_by(2)
            .map(|at| line_of_3_10(&table, 10, at))
            .collect();
        assert_eq!(lines, [Some(10), Some(11), Some(11), None, Some(10), None]);
        // From the second byte on the next line, from the sixth on one before.
        let table = [2, 1, 4, 0xff, 7];
        let lines: Vec<_> = (0..9)
            .step_by(2)
            .map(|at| line_of_3_9(&table, 10, at))
            .collect();
        assert_eq!(lines, [10, 11, 11, 10, 10].map(Some));
        assert_eq!(line_of_3_9(&[], 7, 3), Some(7));
        assert_eq!(line_of_3_9(&[0, 0x80], 7, 3), None);
    }

    #[test]
    fn tables_may_hold_anything() {
        for table in [
            &[0x00][..],
            &[0x80],
            &[0xe8],
            &[0xe8, 0xff, 0xff],
            &[0xff; 64],
        ] {
            let _ = line(table, 1, 3);
            let _ = depth(table, 3);
        }
        assert_eq!(line(&[0xe8, 0x3f, 0xe8, 0x3f], 1, 1), None);
    }

    #[test]
    fn the_stack_below_a_handler_is_in_use() {
        // 26 to 34, its handler at 60 with one value, 40 to 80 with three.
        // Each entry's first byte has the highest bit; a depth is shifted by a flag.
        let table = [0x9a, 8, 60, 3, 0xa8, 40, 61, 6];
        assert_eq!(depth(&table, 25), 0);
        assert_eq!(depth(&table, 26), 1);
        assert_eq!(depth(&table, 34), 0);
        assert_eq!(depth(&table, 79), 3);
        // Two bytes of a number: 1 << 6 | 2 = 66.
        assert_eq!(depth(&[0xc1, 2, 1, 1, 4], 66), 2);
    }
}
