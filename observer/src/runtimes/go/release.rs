//! Which release of Go built a program: the section `.go.buildinfo`, which stripping leaves in place.

use std::fmt;

/// The section begins with this, then the size of a pointer and the flags.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Flag: the texts follow in the section itself. So it is from 1.18 on; before there are pointers.
const INLINE: u8 = 2;
/// Where the first text, the release, has its length.
const TEXT: usize = 32;
/// Longest release believed: `devel` ones carry a commit and a date.
const MAX_TEXT: usize = 128;

/// A release of Go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// As the toolchain says it: `go1.24.11`.
    pub text: String,
    /// The minor number: 24.
    pub minor: u32,
}

impl Release {
    /// Reads the section's bytes. The error says what is wrong with them.
    ///
    /// # Errors
    /// If they are not a build information, or of a Go before 1.18.
    pub fn parse(section: &[u8]) -> Result<Release, String> {
        if !section.starts_with(MAGIC) {
            return Err(".go.buildinfo does not begin with its magic".to_owned());
        }
        match section.get(MAGIC.len() + 1) {
            Some(flags) if flags & INLINE != 0 => {}
            _ => return Err("built by a Go before 1.18".to_owned()),
        }
        let (length, at) =
            uvarint(section, TEXT).ok_or(".go.buildinfo ends within the release's length")?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let text = at
            .checked_add(length)
            .filter(|_| length <= MAX_TEXT)
            .and_then(|end| section.get(at..end))
            .ok_or(".go.buildinfo ends within the release")?;
        let text = String::from_utf8_lossy(text).into_owned();
        let minor = minor(&text).ok_or_else(|| format!("release {text:?} is not understood"))?;
        Ok(Release { text, minor })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `go1.27.3`, `go1.28rc1`, `devel go1.28-0123abc Mon Jan …`, `go1.24.1 X:boringcrypto`.
fn minor(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("go1.")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    // More digits are no release of any time.
    rest[..digits]
        .parse()
        .ok()
        .filter(|minor: &u32| *minor < 1_000)
}

/// A number in base 128, least significant digits first; and where it ends.
fn uvarint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([8, INLINE]);
        bytes.resize(TEXT, 0);
        bytes.push(text.len() as u8);
        bytes.extend(text.bytes());
        bytes
    }

    #[test]
    fn releases_are_parsed() {
        for (text, minor) in [
            ("go1.18", 18),
            ("go1.27.3", 27),
            ("go1.28rc1", 28),
            ("devel go1.29-0a1b Mon Jan 5 2026", 29),
            ("go1.24.1 X:boringcrypto", 24),
        ] {
            let release = Release::parse(&section(text)).unwrap();
            assert_eq!((release.text.as_str(), release.minor), (text, minor));
        }
        for text in ["", "go", "go1.", "go1.99999999999", "go2.1", "rust"] {
            assert!(Release::parse(&section(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn old_forms_are_refused_by_name() {
        let mut bytes = section("go1.17");
        bytes[15] = 0;
        assert!(Release::parse(&bytes).unwrap_err().contains("1.18"));
    }

    #[test]
    fn no_truncation_or_flip_panics() {
        let whole = section("go1.27.3");
        for end in 0..whole.len() {
            assert!(Release::parse(&whole[..end]).is_err());
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = Release::parse(&bytes);
            }
        }
    }
}
