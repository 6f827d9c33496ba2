//! Memory mappings of a process, from `/proc/PID/maps`.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

/// Bytes read of one process's list at most: 65 530 mappings (the default limit) of 100 bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A device's major and minor number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device(u32, u32);

impl Device {
    fn parse(text: &str) -> Option<Device> {
        let (major, minor) = text.split_once(':')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        Some(Device(number(major)?, number(minor)?))
    }
}

/// As the kernel writes it: `major:minor` in hexadecimal.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}", self.0, self.1)
    }
}

/// One mapping. A process with ten thousand threads has twenty thousand: they are kept small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// May its bytes be run?
    pub executable: bool,
    /// Are changes seen by other processes (`MAP_SHARED`)?
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device.
    pub device: Device,
    /// Inode; 0: no file.
    pub inode: u64,
    /// The file's path as its own process sees it, ` (deleted)` behind it if it is; or a name in brackets;
    /// or nothing.
    pub path: Box<str>,
}

impl Mapping {
    /// Does it hold the address?
    pub fn holds(&self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }

    /// Is it of the same file as another one?
    pub fn same_file(&self, other: &Mapping) -> bool {
        self.inode != 0 && self.inode == other.inode && self.device == other.device
    }

    /// The path without what the kernel writes behind it when the file is deleted.
    pub fn name(&self) -> &str {
        self.path.strip_suffix(" (deleted)").unwrap_or(&self.path)
    }
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

/// Identity of the futex at `addr` of process `pid`; `shared`: the mapping that it is in, if others may see it.
pub fn lock_id(pid: u32, addr: u64, shared: Option<&Mapping>) -> String {
    match shared {
        Some(mapping) => format!(
            "{}:{}+{:#x}",
            mapping.device,
            mapping.inode,
            mapping.offset + (addr - mapping.start)
        ),
        None => format!("{pid}:{addr:#x}"),
    }
}

/// All mappings of `pid`, by address.
///
/// # Errors
/// The kernel's: no such process, or no permission.
pub fn read(pid: u32) -> io::Result<Vec<Mapping>> {
    let file = File::open(format!("/proc/{pid}/maps"))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(parse_all(&bytes))
}

/// The lines that are well-formed and in order, as the kernel writes them.
pub(super) fn parse_all(bytes: &[u8]) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(mapping) = parse(&String::from_utf8_lossy(line))
            && mapping.start < mapping.end
            && all.last().is_none_or(|last| last.end <= mapping.start)
        {
            all.push(mapping);
        }
    }
    all.shrink_to_fit();
    all
}

/// The one of `mappings`, which are in order, that holds the address.
pub fn holding(mappings: &[Mapping], addr: u64) -> Option<usize> {
    let index = mappings.partition_point(|mapping| mapping.end <= addr);
    mappings
        .get(index)
        .is_some_and(|mapping| mapping.holds(addr))
        .then_some(index)
}

/// `7f00-7f10 rw-s 00001000 08:01 1234 /path`
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.trim_end_matches('\n').splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        executable: permissions.as_bytes().get(2) == Some(&b'x'),
        shared: permissions.as_bytes().get(3) == Some(&b's'),
        offset: u64::from_str_radix(fields.next()?, 16).ok()?,
        device: Device::parse(fields.next()?)?,
        inode: fields.next()?.parse().ok()?,
        path: fields.next().unwrap_or("").trim_start().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let mapping = parse("7f00-7f10 rw-s 00001000 08:01 1234   /dev/shm/x y\n").unwrap();
        assert!(mapping.shared && !mapping.executable);
        assert_eq!(&*mapping.path, "/dev/shm/x y");
        assert_eq!(lock_id(7, 0x7f08, Some(&mapping)), "08:01:1234+0x1008");
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset, mapping.inode),
            (0x7f00, 0x7f10, 0x1000, 1234)
        );
        let code = parse("1-2 r-xp 0 0:0 7 /a b (deleted)").unwrap();
        assert!(code.executable && !code.shared);
        assert_eq!(code.name(), "/a b");
        for line in [
            "",
            "x",
            "1-2",
            "1-2 rw-p zz 0:0 1",
            "1-2 rw-p 0 00 1",
            "1-2 rw-p 0 0:x 1",
            "7f00 rw-p 0 0:0 1",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn all_are_in_order_and_found_by_address() {
        let text = b"1000-2000 r--p 0 0:0 0\n3000-5000 r-xp 0 0:0 0\n4000-6000 r-xp 0 0:0 0\n9-8 r--p 0 0:0 0\n";
        let all = parse_all(text);
        assert_eq!(all.len(), 2);
        assert_eq!(holding(&all, 0x1000), Some(0));
        assert_eq!(holding(&all, 0x2000), None);
        assert_eq!(holding(&all, 0x4fff), Some(1));
        assert_eq!(holding(&all, 0x5000), None);
        assert!(
            read(std::process::id())
                .unwrap()
                .iter()
                .any(|m| &*m.path == "[vdso]")
        );
        assert!(read(u32::MAX / 2).is_err());
    }

    #[test]
    fn own_memory_is_found() {
        let value = Box::new(1u8);
        let mapping = find(std::process::id(), &raw const *value as u64).unwrap();
        assert!(!mapping.shared);
        assert_eq!(find(std::process::id(), 0), None);
    }
}
