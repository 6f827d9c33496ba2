//! Symbols of the running kernel, from `/proc/kallsyms`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

/// Bytes read at most: ten times what a large kernel with many modules has.
const MAX_BYTES: u64 = 256 << 20;
/// A static lock lies at most this far behind the symbol it belongs to.
const MAX_OFFSET: u64 = 4096;
/// Parts of the names of functions that lock, trace, or schedule: not the ones that ask for a lock.
const PLUMBING: [&str; 19] = [
    "bpf_",
    "__bpf_",
    "___bpf",
    "contention",
    "traceiter",
    "probestub",
    "mutex_lock",
    "mutex_trylock",
    "rwsem_",
    "down_read",
    "down_write",
    "_raw_",
    "queued_",
    "percpu_down",
    "rt_mutex",
    "rtlock",
    "__mutex",
    "schedule",
    "lock_slowpath",
];

/// Symbols by address.
#[derive(Debug, Default)]
pub struct Kallsyms {
    /// Address, start and length of the name in `names`, is it code?
    symbols: Vec<(u64, u32, u16, bool)>,
    names: String,
}

impl Kallsyms {
    /// Reads the running kernel's; empty if it may not be read.
    pub fn load() -> Kallsyms {
        match File::open("/proc/kallsyms") {
            Ok(file) => Kallsyms::read(file),
            Err(_) => Kallsyms::default(),
        }
    }

    /// Reads lines like `ffffffff81000000 T _text`.
    pub fn read(source: impl Read) -> Kallsyms {
        let mut all = Kallsyms::default();
        let mut lines = BufReader::new(source.take(MAX_BYTES));
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let mut fields = line.split_ascii_whitespace();
            if let (Some(addr), Some(kind), Some(name)) =
                (fields.next(), fields.next(), fields.next())
                && let Ok(addr) = u64::from_str_radix(addr, 16)
                && addr != 0
                && let (Ok(start), Ok(length)) =
                    (u32::try_from(all.names.len()), u16::try_from(name.len()))
            {
                let code = matches!(kind, "t" | "T" | "w" | "W");
                all.symbols.push((addr, start, length, code));
                all.names.push_str(name);
            }
            line.clear();
        }
        all.symbols.sort_unstable();
        all.symbols.shrink_to_fit();
        all.names.shrink_to_fit();
        all
    }

    /// The symbol at or before an address, and the distance.
    fn before(&self, addr: u64) -> Option<(&str, u64, bool)> {
        let behind = self.symbols.partition_point(|symbol| symbol.0 <= addr);
        let &(at, start, length, code) = self.symbols.get(behind.checked_sub(1)?)?;
        let name = self
            .names
            .get(start as usize..start as usize + usize::from(length))?;
        Some((name, addr - at, code))
    }

    /// `symbol` or `symbol+0x10` of a static variable.
    pub fn data(&self, addr: u64) -> Option<String> {
        let (name, offset, code) = self.before(addr)?;
        match offset {
            _ if code || offset > MAX_OFFSET => None,
            0 => Some(name.to_owned()),
            _ => Some(format!("{name}+{offset:#x}")),
        }
    }

    /// The function at an address, and the distance from its start.
    pub fn function(&self, ip: u64) -> Option<(&str, u64)> {
        let (name, offset, code) = self.before(ip)?;
        code.then_some((name, offset))
    }

    /// The function at an address, unless it is one that locks, traces or schedules.
    pub fn caller(&self, ip: u64) -> Option<&str> {
        let (name, _) = self.function(ip)?;
        (!PLUMBING.iter().any(|part| name.contains(part))).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_address() {
        let text = "0000000000001000 T do_work\n0000000000001100 t mutex_lock\n\
                    0000000000002000 d the_lock\nzz\n0000000000000000 A zero\n";
        let symbols = Kallsyms::read(text.as_bytes());
        assert_eq!(symbols.caller(0x1010), Some("do_work"));
        assert_eq!(symbols.caller(0x1110), None);
        assert_eq!(symbols.data(0x2000).as_deref(), Some("the_lock"));
        assert_eq!(symbols.data(0x2010).as_deref(), Some("the_lock+0x10"));
        assert_eq!(symbols.data(0x1010), None);
        assert_eq!(symbols.data(0x2000 + 2 * MAX_OFFSET), None);
        assert_eq!(symbols.data(0x10), None);
        assert_eq!(Kallsyms::default().caller(1), None);
    }
}
