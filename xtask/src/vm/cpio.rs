//! An archive that the kernel unpacks as its first file system: cpio in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source).

use std::fmt::Write as _;

/// File types in a mode (`S_IFDIR`, `S_IFCHR`, `S_IFREG`).
const FOLDER: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const FILE: u32 = 0o100_000;

/// Ends every archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// A folder; those above it must come before.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A character device, readable and writable by root.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// A file that can be started.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE | 0o755, (0, 0), content);
    }

    /// The archive as a whole.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time of change
            content.len() as u32,
            0, // device that holds it, major and minor
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // check sum, of another format
        ];
        let mut header = String::from("070701");
        for field in fields {
            // Writing into a string does not fail.
            let _ = write!(header, "{field:08X}");
        }
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    /// Headers and contents begin at multiples of four.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device and content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive as the kernel does.
    fn entries(bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(at % 4, 0, "aligned");
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let from = at + 6 + n * 8;
                let digits = std::str::from_utf8(&bytes[from..from + 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let name_at = at + 110;
            let name_len = field(11) as usize;
            let name = std::str::from_utf8(&bytes[name_at..name_at + name_len - 1]).unwrap();
            assert_eq!(bytes[name_at + name_len - 1], 0, "the name ends with a NUL");
            let content_at = (name_at + name_len).next_multiple_of(4);
            let content_end = content_at + field(6) as usize;
            let content = bytes[content_at..content_end].to_vec();
            entries.push((name.to_owned(), field(1), (field(9), field(10)), content));
            at = content_end.next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.device("dev/console", 5, 1);
        archive.program("init", b"\x7fELF!");
        assert_eq!(
            entries(&archive.finish()),
            [
                ("dev".to_owned(), 0o040_755, (0, 0), vec![]),
                ("dev/console".to_owned(), 0o020_600, (5, 1), vec![]),
                ("init".to_owned(), 0o100_755, (0, 0), b"\x7fELF!".to_vec()),
                (TRAILER.to_owned(), 0, (0, 0), vec![]),
            ]
        );
    }
}
