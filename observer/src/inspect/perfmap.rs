//! Names of code that a run-time compiler made, from the file that it leaves behind: `/tmp/perf-PID.map`, with
//! the process's number as it sees it itself, in its own `/tmp`.
//!
//! Lines are `START SIZE NAME`, in hexadecimal. Some writers put `0x` in front. The file is the process's claim
//! about itself: it is taken only if it belongs to the process's user or to root, and read up to a limit.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

use super::files;

/// Bytes and lines that are read.
const MAX_BYTES: u64 = 64 << 20;
const MAX_LINES: usize = 500_000;
/// Characters of a name that are kept.
const MAX_NAME: usize = 512;
/// Bytes of `/proc/PID/status` that are read.
const MAX_STATUS: u64 = 16 << 10;

/// Names by address.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// Start, end, name; by start, of which each is there once.
    all: Vec<(u64, u64, Arc<str>)>,
}

impl PerfMap {
    /// That of process `pid`; empty if it has none that may be trusted.
    pub fn of(pid: u32) -> PerfMap {
        open(pid).map(PerfMap::read).unwrap_or_default()
    }

    /// Reads lines; those that make no sense are passed over.
    pub fn read(source: impl Read) -> PerfMap {
        let mut all = Vec::new();
        let mut lines = BufReader::new(source.take(MAX_BYTES));
        let mut line = Vec::new();
        while all.len() < MAX_LINES
            && lines
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
        {
            all.extend(parse(&String::from_utf8_lossy(&line)));
            line.clear();
        }
        // Code that takes the place of other code is written later: the last one of a start counts.
        all.reverse();
        all.sort_by_key(|entry: &(u64, u64, Arc<str>)| entry.0);
        all.dedup_by_key(|entry| entry.0);
        PerfMap { all }
    }

    /// The function at an address, and the distance from its start.
    pub fn find(&self, addr: u64) -> Option<(&Arc<str>, u64)> {
        let behind = self.all.partition_point(|entry| entry.0 <= addr);
        let (start, end, name) = self.all.get(behind.checked_sub(1)?)?;
        (addr < *end).then_some((name, addr - start))
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

fn parse(line: &str) -> Option<(u64, u64, Arc<str>)> {
    let mut fields = line.trim_end().splitn(3, ' ');
    let mut number = || {
        let text = fields.next()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, size) = (number()?, number()?);
    let name: String = fields.next()?.chars().take(MAX_NAME).collect();
    (size > 0 && !name.is_empty()).then_some((start, start.checked_add(size)?, name.into()))
}

fn open(pid: u32) -> Option<File> {
    let path = PathBuf::from(format!("/tmp/perf-{}.map", own_number(pid)?));
    let file = files::open_in_root(pid, &path).ok()?;
    let (owner, user) = (
        file.metadata().ok()?.uid(),
        fs::metadata(format!("/proc/{pid}")).ok()?.uid(),
    );
    (owner == user || owner == 0).then_some(file)
}

/// The process's number in its own namespace, the last in `NSpid`.
fn own_number(pid: u32) -> Option<u32> {
    let mut text = String::new();
    let file = File::open(format!("/proc/{pid}/status")).ok()?;
    file.take(MAX_STATUS).read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.map_or(Some(pid), |line| {
        line.split_ascii_whitespace().last()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nonsense_is_passed_over() {
        let text = "1000 10 first\n0x2000 0x20 with 0x and spaces\nzz 1 x\n3000 0 empty\n4000\n\
                    1000 8 replaced\nffffffffffffffff 2 over\n";
        let map = PerfMap::read(text.as_bytes());
        assert_eq!(
            map.find(0x1004).map(|(name, at)| (&**name, at)),
            Some(("replaced", 4))
        );
        assert_eq!(map.find(0x1008), None);
        assert_eq!(
            map.find(0x201f).map(|(name, _)| &**name),
            Some("with 0x and spaces")
        );
        assert_eq!(
            (map.find(0x2020), map.find(0), map.find(u64::MAX)),
            (None, None, None)
        );
        assert!(PerfMap::read(&b"\xff\xfe\0"[..]).is_empty());
    }

    #[test]
    fn own_map_is_found_in_tmp() {
        let own = std::process::id();
        assert_eq!(own_number(own), Some(own));
        let path = format!("/tmp/perf-{own}.map");
        std::fs::write(&path, "0x10 0x10 jitted\n").unwrap();
        let map = PerfMap::of(own);
        std::fs::remove_file(&path).unwrap();
        assert!(map.find(0x18).is_some());
        assert!(PerfMap::of(own).is_empty());
    }
}
