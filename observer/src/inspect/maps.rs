//! Memory mappings of a process, from `/proc/PID/maps`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

/// Bytes read of one process's list at most: 65 530 mappings (the default limit) of 100 bytes.
const MAX_BYTES: u64 = 16 << 20;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Are changes seen by other processes (`MAP_SHARED`)?
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device, as `major:minor` in hexadecimal.
    pub device: String,
    /// Inode; 0: no file.
    pub inode: u64,
}

/// The mapping of `pid` that holds `addr`; `None` if there is none or the process cannot be read.
pub fn find(pid: u32, addr: u64) -> Option<Mapping> {
    let file = File::open(format!("/proc/{pid}/maps")).ok()?;
    let mut lines = BufReader::new(file.take(MAX_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if let Some(mapping) = parse(&String::from_utf8_lossy(&line))
            && (mapping.start..mapping.end).contains(&addr)
        {
            return Some(mapping);
        }
    }
}

/// `7f00-7f10 rw-s 00001000 08:01 1234 /path`
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        shared: permissions.as_bytes().get(3) == Some(&b's'),
        offset: u64::from_str_radix(fields.next()?, 16).ok()?,
        device: fields.next()?.to_owned(),
        inode: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let mapping = parse("7f00-7f10 rw-s 00001000 08:01 1234   /dev/shm/x y\n").unwrap();
        assert!(mapping.shared);
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset, mapping.inode),
            (0x7f00, 0x7f10, 0x1000, 1234)
        );
        for line in ["", "x", "1-2", "1-2 rw-p zz 0:0 1", "7f00 rw-p 0 0:0 1"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn own_memory_is_found() {
        let value = Box::new(1u8);
        let mapping = find(std::process::id(), &raw const *value as u64).unwrap();
        assert!(!mapping.shared);
        assert_eq!(find(std::process::id(), 0), None);
    }
}
