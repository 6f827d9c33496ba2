//! The notes that describe probes: section `.note.stapsdt`.
//!
//! A note is three words (length of the owner's name, length of the description, type), the name and
//! the description, both padded to four bytes. The description is three addresses (the probe, the
//! section `.stapsdt.base` as the linker saw it, the semaphore or zero) and three strings (provider,
//! name, arguments).

/// `NT_STAPSDT`: the third version of the format, the only one in use since 2010.
const TYPE: u32 = 3;
const OWNER: &[u8] = b"stapsdt\0";
/// Longest provider or name that is taken.
const MAX_NAME: usize = 255;
/// Longest description of arguments that is taken.
const MAX_ARGUMENTS: usize = 4096;

/// One probe as its note has it; addresses are the linker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) provider: String,
    pub(super) name: String,
    pub(super) location: u64,
    pub(super) base: u64,
    /// 0: none.
    pub(super) semaphore: u64,
    pub(super) arguments: String,
}

/// The notes of a section, at most `limit`, and how many of type stapsdt were malformed. What follows a
/// note whose lengths lead out of the section is not looked at.
pub(super) fn parse(mut bytes: &[u8], limit: usize) -> (Vec<Note>, usize) {
    let (mut notes, mut malformed) = (Vec::new(), 0);
    while !bytes.is_empty() {
        let Some((owner, description, kind, rest)) = note(bytes) else {
            malformed += 1;
            break;
        };
        bytes = rest;
        if owner != OWNER || kind != TYPE {
            continue;
        }
        match probe(description) {
            Some(_) if notes.len() >= limit => malformed += 1,
            Some(probe) => notes.push(probe),
            None => malformed += 1,
        }
    }
    (notes, malformed)
}

/// Owner, description and type of a note, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], u32, &'a [u8]);

fn note(bytes: &[u8]) -> Option<Split<'_>> {
    let (name_len, rest) = word(bytes)?;
    let (description_len, rest) = word(rest)?;
    let (kind, rest) = word(rest)?;
    let (owner, rest) = padded(rest, name_len)?;
    let (description, rest) = padded(rest, description_len)?;
    Some((owner, description, kind, rest))
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

/// The next `len` bytes, and what follows their padding; the last padding may be cut off.
fn padded(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    let len = len as usize;
    let (field, rest) = bytes.split_at_checked(len)?;
    let padding = len.next_multiple_of(4) - len;
    Some((field, rest.get(padding..).unwrap_or_default()))
}

fn probe(description: &[u8]) -> Option<Note> {
    let (location, rest) = description.split_first_chunk()?;
    let (base, rest) = rest.split_first_chunk()?;
    let (semaphore, rest) = rest.split_first_chunk()?;
    let (provider, rest) = string(rest, MAX_NAME)?;
    let (name, rest) = string(rest, MAX_NAME)?;
    let (arguments, _) = string(rest, MAX_ARGUMENTS)?;
    if provider.is_empty() || name.is_empty() {
        return None;
    }
    Some(Note {
        provider,
        name,
        location: u64::from_le_bytes(*location),
        base: u64::from_le_bytes(*base),
        semaphore: u64::from_le_bytes(*semaphore),
        arguments,
    })
}

/// A string of UTF-8 up to its NUL.
fn string(bytes: &[u8], max: usize) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    if end > max {
        return None;
    }
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((text.to_owned(), &bytes[end + 1..]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A note as the assembler writes it.
    pub(in crate::inspect::usdt) fn written(note: &Note) -> Vec<u8> {
        let mut description = Vec::new();
        for address in [note.location, note.base, note.semaphore] {
            description.extend(address.to_le_bytes());
        }
        for text in [&note.provider, &note.name, &note.arguments] {
            description.extend(text.as_bytes());
            description.push(0);
        }
        let mut bytes = Vec::new();
        bytes.extend(8u32.to_le_bytes());
        bytes.extend((description.len() as u32).to_le_bytes());
        bytes.extend(TYPE.to_le_bytes());
        bytes.extend(OWNER);
        bytes.extend(&description);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    pub(in crate::inspect::usdt) fn sample(name: &str) -> Note {
        Note {
            provider: "shop".into(),
            name: name.into(),
            location: 0x1010,
            base: 0x2000,
            semaphore: 0x3002,
            arguments: "8@%rdi -4@$7".into(),
        }
    }

    #[test]
    fn notes_are_read_and_others_passed_over() {
        let mut bytes = written(&sample("wait__start"));
        // Another owner's, in the same section.
        let mut other = written(&sample("other"));
        other[12..16].copy_from_slice(b"GNU\0");
        bytes.extend(other);
        bytes.extend(written(&sample("wait__done")));
        let (notes, malformed) = parse(&bytes, 10);
        assert_eq!(notes, [sample("wait__start"), sample("wait__done")]);
        assert_eq!(malformed, 0);
        assert_eq!(parse(&bytes, 1).1, 1);
    }

    #[test]
    fn a_malformed_note_does_not_spoil_the_others() {
        for (what, spoilt) in [
            ("no name", sample("")),
            ("a long one", sample(&"x".repeat(MAX_NAME + 1))),
        ] {
            let mut bytes = written(&spoilt);
            bytes.extend(written(&sample("good")));
            let (notes, malformed) = parse(&bytes, 10);
            assert_eq!((notes.len(), malformed), (1, 1), "{what}");
        }
        // No NUL behind the arguments, and bytes that are no text.
        let mut bytes = written(&sample("cut"));
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for byte in &mut bytes[last..] {
            *byte = 0xff;
        }
        assert_eq!(parse(&bytes, 10), (Vec::new(), 1));
    }

    /// Cut anywhere, and with any one bit another: some probes, never a panic, never more than there are.
    #[test]
    fn any_bytes_are_survived() {
        let mut bytes = written(&sample("wait__start"));
        bytes.extend(written(&sample("wait__done")));
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end], 10).0.len() <= 2);
        }
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&other, 10).0.len() <= 2, "bit {bit}");
        }
        assert_eq!(parse(&[0xff; 64], 10).0, []);
    }
}
