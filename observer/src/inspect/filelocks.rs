//! Locks on files (`flock`, `fcntl`): who waits for which, and who holds it, by the kernel's own list.
//!
//! `/proc/locks` has every lock that is held and, below it with an arrow, every request that waits. It names the
//! *process* that took a lock. That process is the holder if it still has the lock, which its descriptors
//! (`/proc/PID/fdinfo`) tell: a lock of `flock` goes with the open file, so a child or another process may have
//! it by now. Which of several threads took it is recorded nowhere.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    sync::Arc,
};

use observer_common::syscall;

use super::{
    memory::{Memory, ProcessMemory},
    proc,
    registers::SystemCall,
};

/// Bytes of the kernel's list that are read.
const MAX_LIST: u64 = 4 << 20;
/// Bytes of what is told of one descriptor.
const MAX_INFO: u64 = 16 << 10;
/// Descriptors of one process that are looked at, and of all processes together.
const MAX_DESCRIPTORS: usize = 4_096;
const MAX_SEARCHED: usize = 8_192;
/// Holders that the evidence names.
const MAX_NAMED: usize = 4;

/// `F_SETLKW` and `F_OFD_SETLKW` (include/uapi/asm-generic/fcntl.h).
const F_SETLKW: u64 = 7;
const F_OFD_SETLKW: u64 = 38;

/// What sort of lock it is: who owns it, and what it is in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// Of `flock`: the open file's, whole.
    Flock,
    /// Of `fcntl`: the process's, on a range.
    Posix,
    /// Of `fcntl`: the open file's, on a range.
    OpenFile,
}

impl Sort {
    fn of(name: &str) -> Option<Sort> {
        match name {
            "FLOCK" => Some(Sort::Flock),
            "POSIX" => Some(Sort::Posix),
            "OFDLCK" => Some(Sort::OpenFile),
            _ => None,
        }
    }

    fn is_on_range(self) -> bool {
        self != Sort::Flock
    }
}

/// A call that waits for a lock on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileCall {
    fd: u64,
    sort: Sort,
    what: What,
}

/// Where it stands what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The operation of `flock`.
    Operation(u64),
    /// Address of the `struct flock`.
    Range(u64),
}

/// The call among a thread's registers, if it is one of these.
pub(super) fn file_call(call: SystemCall) -> Option<FileCall> {
    let SystemCall { nr, args } = call;
    let (sort, what) = match (nr.cast_signed(), args[1]) {
        (syscall::FLOCK, operation) => (Sort::Flock, What::Operation(operation)),
        (syscall::FCNTL, F_SETLKW) => (Sort::Posix, What::Range(args[2])),
        (syscall::FCNTL, F_OFD_SETLKW) => (Sort::OpenFile, What::Range(args[2])),
        _ => return None,
    };
    Some(FileCall {
        fd: args[0],
        sort,
        what,
    })
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    waits: bool,
    sort: Sort,
    write: bool,
    /// The process that asked; `None`: the open file's, or one that cannot be seen from here.
    pid: Option<u32>,
    /// `MAJOR:MINOR:INODE`.
    inode: Arc<str>,
    start: u64,
    /// `u64::MAX`: to the end, wherever that will be.
    end: u64,
}

impl Entry {
    /// `1: -> POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF`.
    fn parse(line: &str) -> Option<Entry> {
        let mut fields = line.split_ascii_whitespace();
        let number = fields.next()?.strip_suffix(':')?;
        number.parse::<u64>().ok()?;
        let mut field = fields.next()?;
        let waits = field == "->";
        if waits {
            field = fields.next()?;
        }
        let sort = Sort::of(field)?;
        let _how = fields.next()?;
        let write = match fields.next()? {
            "WRITE" => true,
            "READ" => false,
            _ => return None,
        };
        let pid = fields.next()?.parse::<i64>().ok()?;
        let inode: Arc<str> = fields.next()?.into();
        if inode.split(':').count() != 3 {
            return None;
        }
        let start = fields.next()?.parse().ok()?;
        let end = match fields.next()? {
            "EOF" => u64::MAX,
            end => end.parse().ok()?,
        };
        Some(Entry {
            waits,
            sort,
            write,
            pid: u32::try_from(pid).ok().filter(|pid| *pid != 0),
            inode,
            start,
            end,
        })
    }

    /// Is this lock in the way of a request?
    fn hinders(&self, request: &Entry) -> bool {
        let same_world = self.sort.is_on_range() == request.sort.is_on_range();
        let own = self.sort == Sort::Posix
            && request.sort == Sort::Posix
            && self.pid.is_some()
            && self.pid == request.pid;
        !self.waits
            && same_world
            && !own
            && self.inode == request.inode
            && (self.write || request.write)
            && self.start <= request.end
            && request.start <= self.end
    }

    /// Do both lines stand for one lock?
    fn is_same(&self, other: &Entry) -> bool {
        (self.sort, self.write, self.start, self.end)
            == (other.sort, other.write, other.start, other.end)
            && self.inode == other.inode
    }
}

fn parse(list: &str) -> Vec<Entry> {
    list.lines().filter_map(Entry::parse).collect()
}

/// Who holds a lock, as far as the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeldBy {
    /// This process, by this evidence.
    Process(u32, &'static str),
    /// It cannot be said, for this reason.
    Unknown(Arc<str>),
}

/// A lock on a file that a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileWait {
    /// The same for all that wait for the same part of the file in the same way.
    pub(super) id: Arc<str>,
    /// The file's path; where that cannot be read, its inode.
    pub(super) name: Arc<str>,
    /// Alone, or with other readers?
    pub(super) write: bool,
    /// Who has it.
    pub(super) held_by: HeldBy,
}

/// What a thread of process `pid` waits for; `None`: it does not wait any more, or the list cannot be read.
pub(super) fn wait_of(pid: u32, call: FileCall) -> Option<FileWait> {
    let list = parse(&read("/proc/locks", MAX_LIST)?);
    let request = request(pid, call, &list)?;
    let path = proc::file(pid, call.fd);
    let sort = if call.sort == Sort::Flock {
        "flock"
    } else {
        "fcntl"
    };
    let mut id = format!("file:{}:{sort}", request.inode);
    if call.sort.is_on_range() {
        let end = match request.end {
            u64::MAX => "EOF".to_owned(),
            end => end.to_string(),
        };
        id = format!("{id}:{}-{end}", request.start);
    }
    Some(FileWait {
        id: id.into(),
        write: request.write,
        held_by: held_by(request, &list, path.as_deref()),
        name: path.map_or_else(|| format!("inode {}", request.inode).into(), Arc::from),
    })
}

/// The line of a waiting call. Of several that it might be none is taken.
fn request(pid: u32, call: FileCall, list: &[Entry]) -> Option<&Entry> {
    let file = fs::metadata(format!("/proc/{pid}/fd/{}", call.fd)).ok()?;
    let of_process = |entry: &&Entry| {
        entry.waits
            && entry.sort == call.sort
            && (entry.pid == Some(pid) || (call.sort == Sort::OpenFile && entry.pid.is_none()))
    };
    // File systems in layers tell another device to who asks for the file than they have in the list.
    let of_inode = |entry: &&Entry| {
        let number = entry.inode.rsplit(':').next();
        number.and_then(|number| number.parse().ok()) == Some(file.ino())
    };
    let mut found: Vec<&Entry> = list.iter().filter(of_process).filter(of_inode).collect();
    match call.what {
        What::Operation(operation) => {
            let write = operation & libc::LOCK_EX as u64 != 0;
            found.retain(|entry| entry.write == write);
        }
        What::Range(at) => {
            if let Some(asked) = range_at(&ProcessMemory::of(pid), at) {
                found.retain(|entry| (entry.write, entry.start, entry.end) == asked);
            }
        }
    }
    let first = *found.first()?;
    // Threads of one process may wait for the same; those lines are alike.
    found.iter().all(|entry| *entry == first).then_some(first)
}

/// To write or not, and the range, in a `struct flock` that counts from the beginning of the file.
fn range_at(memory: &dyn Memory, at: u64) -> Option<(bool, u64, u64)> {
    // l_type (F_WRLCK is 1) and l_whence are 16 bits each, l_start and l_len 64 bits, at 8 and 16.
    let first = memory.u32(at)?;
    let (write, from_start) = (first & 0xffff == 1, first >> 16 == 0);
    let start = memory.u64(at.checked_add(8)?)?;
    let length = memory.u64(at.checked_add(16)?)?.cast_signed();
    match length {
        0 => from_start.then_some((write, start, u64::MAX)),
        1.. => from_start.then(|| {
            let end = start.saturating_add(length.cast_unsigned() - 1);
            // The greatest offset there is stands for the end of the file.
            let end = if end >= i64::MAX as u64 {
                u64::MAX
            } else {
                end
            };
            (write, start, end)
        }),
        _ => None,
    }
}

fn held_by(request: &Entry, list: &[Entry], path: Option<&str>) -> HeldBy {
    let mut holders: Vec<&Entry> = Vec::new();
    for entry in list.iter().filter(|entry| entry.hinders(request)) {
        // Ranges of one process count once; those of open files are told apart by nothing.
        let known = |old: &&Entry| old.pid.is_some() && old.pid == entry.pid;
        if !holders.iter().any(known) {
            holders.push(entry);
        }
    }
    match holders[..] {
        [] => HeldBy::Unknown("it changes hands".into()),
        [holder] => one_holder(holder, path),
        _ => {
            let mut named: Vec<String> = holders
                .iter()
                .filter_map(|holder| holder.pid)
                .take(MAX_NAMED)
                .map(|pid| pid.to_string())
                .collect();
            if named.len() < holders.len() {
                named.push("…".to_owned());
            }
            let count = holders.len();
            HeldBy::Unknown(format!("{count} processes hold it: {}", named.join(", ")).into())
        }
    }
}

fn one_holder(holder: &Entry, path: Option<&str>) -> HeldBy {
    if let Some(pid) = holder.pid {
        match has_lock(pid, holder) {
            Some(true) => {
                return HeldBy::Process(
                    pid,
                    "the kernel's list of file locks, and it has the lock",
                );
            }
            None if holder.sort == Sort::Posix && proc::stat(pid, pid).is_some() => {
                return HeldBy::Process(pid, "the kernel's list of file locks");
            }
            Some(false) | None => {}
        }
    }
    let Some(path) = path else {
        return HeldBy::Unknown("the kernel names no process that has it".into());
    };
    match others_with(holder, path)[..] {
        [pid] => HeldBy::Process(pid, "the only process with a descriptor that has the lock"),
        [] => HeldBy::Unknown("no process was found that has it".into()),
        _ => HeldBy::Unknown("several processes share the open file that has it".into()),
    }
}

/// Has a process a descriptor with this lock? `None`: it may not be asked.
fn has_lock(pid: u32, lock: &Entry) -> Option<bool> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    for (number, descriptor) in descriptors.flatten().enumerate() {
        if number >= MAX_DESCRIPTORS {
            return None;
        }
        if told_of(&descriptor.path().to_string_lossy(), lock) {
            return Some(true);
        }
    }
    Some(false)
}

/// Does what is told of a descriptor name this lock?
fn told_of(path: &str, lock: &Entry) -> bool {
    let Some(info) = read(path, MAX_INFO) else {
        return false;
    };
    info.lines()
        .filter_map(|line| Entry::parse(line.strip_prefix("lock:")?))
        .any(|entry| entry.is_same(lock))
}

/// Processes with a descriptor of the file that has the lock.
fn others_with(lock: &Entry, path: &str) -> Vec<u32> {
    let mut left = MAX_SEARCHED;
    let mut found = Vec::new();
    for pid in proc::processes() {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if left == 0 {
                // Who was not looked at may have it as well.
                return Vec::new();
            }
            left -= 1;
            let same = fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == path);
            let number = descriptor.file_name();
            let info = format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy());
            if same && told_of(&info, lock) {
                found.push(pid);
                break;
            }
        }
    }
    found
}

fn read(path: &str, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::memory::fixture::Fixture;

    const LIST: &str = "\
1: FLOCK  ADVISORY  WRITE 100 08:01:7 0 EOF
1: -> FLOCK  ADVISORY  WRITE 200 08:01:7 0 EOF
1:  -> FLOCK  ADVISORY  READ 300 08:01:7 0 EOF
2: POSIX  ADVISORY  READ 100 08:01:7 0 99
3: POSIX  ADVISORY  READ 101 08:01:7 50 99
3: -> POSIX  ADVISORY  WRITE 200 08:01:7 60 60
4: POSIX  ADVISORY  WRITE 200 08:01:7 100 EOF
5: OFDLCK ADVISORY  WRITE -1 08:01:8 0 EOF
5: -> POSIX  ADVISORY  READ 0 08:01:8 5 5
6: LEASE  ACTIVE    READ 9 08:01:8 0 EOF
nonsense
7: FLOCK  ADVISORY  WRITE x 08:01:7 0 EOF
8: FLOCK  ADVISORY  WRITE 1 none 0 EOF
";

    #[test]
    fn lines_are_parsed_whatever_they_hold() {
        let list = parse(LIST);
        assert_eq!(list.len(), 9);
        assert!(list[1].waits && list[2].waits && !list[2].write);
        assert_eq!((list[7].sort, list[7].pid), (Sort::OpenFile, None));
        assert_eq!((list[6].start, list[6].end), (100, u64::MAX));
        // From another namespace.
        assert_eq!(list[8].pid, None);
    }

    #[test]
    fn what_is_in_the_way() {
        let list = parse(LIST);
        let in_the_way = |request: usize| -> Vec<usize> {
            (0..list.len())
                .filter(|held| list[*held].hinders(&list[request]))
                .collect()
        };
        // The two calls do not know of each other's locks.
        assert_eq!(in_the_way(1), [0]);
        assert_eq!(in_the_way(2), [0]);
        // Not its own lock, nor another range.
        assert_eq!(in_the_way(5), [3, 4]);
        assert_eq!(in_the_way(8), [7]);
        let HeldBy::Unknown(why) = held_by(&list[5], &list, None) else {
            panic!("two readers");
        };
        assert_eq!(&*why, "2 processes hold it: 100, 101");
    }

    #[test]
    fn calls_and_their_ranges() {
        let call = |nr, args| file_call(SystemCall { nr, args });
        assert_eq!(
            call(73, [3, 2, 0, 0, 0, 0]).map(|call| (call.fd, call.sort)),
            Some((3, Sort::Flock))
        );
        assert_eq!(
            call(72, [3, 7, 0x1000, 0, 0, 0]).map(|call| call.what),
            Some(What::Range(0x1000))
        );
        // F_GETLK does not wait.
        assert_eq!(call(72, [3, 5, 0x1000, 0, 0, 0]), None);
        let range = |words: &[u32]| range_at(&Fixture::words(0x1000, words), 0x1000);
        assert_eq!(range(&[1, 0, 10, 0, 5, 0]), Some((true, 10, 14)));
        assert_eq!(range(&[0, 0, 10, 0, 0, 0]), Some((false, 10, u64::MAX)));
        // From the end of the file; backwards; not there.
        assert_eq!(range(&[2 << 16, 0, 10, 0, 5, 0]), None);
        assert_eq!(range(&[1, 0, 10, 0, u32::MAX, u32::MAX]), None);
        assert_eq!(range(&[1]), None);
    }
}
