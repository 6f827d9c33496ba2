//! Decimal numbers and other short texts, read eight bytes at a time.

/// A byte in each place of a word.
pub(crate) const fn everywhere(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

const HIGH: u64 = everywhere(0x80);

/// The bytes from a place on, the first one lowest; zeros where there are no more.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(all) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*all);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_le_bytes(last)
}

/// How many of the lowest bytes have no mark in their highest bit.
#[inline]
pub(crate) fn unmarked(marks: u64) -> u32 {
    (marks & HIGH).trailing_zeros() / 8
}

/// Marks the bytes that are this one. Of bytes above the lowest mark nothing is said.
#[inline]
pub(crate) fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ everywhere(byte), 1)
}

/// Marks the bytes that are less than a limit, which is 128 at most. Of bytes above the lowest mark nothing is said.
#[inline]
pub(crate) fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(everywhere(limit)) & !word & HIGH
}

/// The lowest bytes of a word; at most seven.
#[inline]
pub(crate) fn lowest(word: u64, count: u32) -> u64 {
    word & !(u64::MAX << (count * 8))
}

/// How many decimal digits a word begins with, and the number that they are.
#[inline]
pub(crate) fn number(word: u64) -> (u32, u64) {
    // Digits become their value, everything else more than nine.
    let values = word ^ everywhere(b'0');
    // What is above a byte that is no digit may be wrong, and does not count.
    let count = unmarked(values.wrapping_add(everywhere(0x76)) | values);
    match count {
        0 => (0, 0),
        // Zeros come to stand before the digits.
        _ => (count, eight(values << (64 - count * 8))),
    }
}

/// The number of eight digits, the first one lowest: of neighbours one is made, of these, and again.
#[inline]
fn eight(values: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    const FIRST: u64 = 100 + (1_000_000 << 32);
    const SECOND: u64 = 1 + (10_000 << 32);
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let first = (pairs & PAIRS).wrapping_mul(FIRST);
    let second = (pairs >> 16 & PAIRS).wrapping_mul(SECOND);
    first.wrapping_add(second) >> 32
}

/// Is it all ASCII? For lines of some hundred bytes, of which nearly all are: it does not stop at the first one that is
/// not, and has no slow way for the last bytes.
#[inline]
pub(crate) fn is_ascii(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().copied().map(u64::from_le_bytes);
    let all = words.fold(0, |all, word| all | word);
    (all | word(rest, 0)) & HIGH == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length() {
        for text in [
            "",
            "0",
            "7",
            "42",
            "007",
            "12345678",
            "87654321x",
            "99999999",
            "1234567/",
            "1234567:",
            "12\u{b2}3",
            "\u{ff}",
            "3\"",
            "30,\"tid\":2",
            "5\0\0",
            "-1",
        ] {
            let digits: String = text
                .chars()
                .take_while(char::is_ascii_digit)
                .take(8)
                .collect();
            let expected = (digits.len() as u32, digits.parse().unwrap_or(0));
            assert_eq!(number(word(text.as_bytes(), 0)), expected, "{text}");
        }
    }

    #[test]
    fn each_byte_is_found() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                let mut bytes = [b'a'; 8];
                bytes[at] = byte;
                let found = |marks: u64| unmarked(marks);
                let word = word(&bytes, 0);
                let place = |is_it: bool| if is_it { at as u32 } else { 8 };
                assert_eq!(found(equal(word, b'"')), place(byte == b'"'), "{byte}");
                assert_eq!(found(below(word, b' ')), place(byte < b' '), "{byte}");
                let digits = number(word).0;
                assert_eq!(
                    digits,
                    u32::from(at == 0 && byte.is_ascii_digit()),
                    "{byte}"
                );
            }
        }
    }

    #[test]
    fn ascii_and_nothing_else() {
        for length in 0..70 {
            let mut bytes = vec![b'a'; length];
            assert!(is_ascii(&bytes));
            for at in 0..length {
                bytes[at] = 0x80;
                assert!(!is_ascii(&bytes), "{at} of {length}");
                bytes[at] = 0x7f;
            }
            assert!(is_ascii(&bytes));
        }
    }

    #[test]
    fn the_end_is_filled_up() {
        assert_eq!(word(b"ab", 1), u64::from(b'b'));
        assert_eq!(word(b"ab", 2), 0);
        assert_eq!(word(b"ab", 9), 0);
        assert_eq!(lowest(u64::MAX, 0), 0);
        assert_eq!(lowest(u64::MAX, 3), 0xff_ffff);
    }
}
