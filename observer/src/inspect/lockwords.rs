//! A lock's memory in words: read when somebody looks at a task that waits for it.
//!
//! Layouts as in [`crate::runtimes::pthread`]; of Rust `library/std/src/sys/sync/{mutex,rwlock}/futex.rs`. What does not
//! look like one is shown as the numbers that it is.

use super::memory::{Memory, ProcessMemory};
use crate::event::LockClass;

/// What a lock of process `pid` has in its memory now; `None`: it is of no sort that is known, or cannot be read.
pub fn words(pid: u32, class: LockClass, addr: u64) -> Option<String> {
    decode(&ProcessMemory::of(pid), class, addr)
}

fn decode(memory: &dyn Memory, class: LockClass, addr: u64) -> Option<String> {
    match class {
        LockClass::PthreadMutex => mutex(memory, addr),
        LockClass::PthreadRwlock => rwlock(memory, addr),
        LockClass::Sem => semaphore(memory, addr),
        LockClass::RustMutex => Some(match memory.u32(addr)? {
            0 => "word 0: free".to_owned(),
            1 => "word 1: locked, nobody waits".to_owned(),
            2 => "word 2: locked, others wait".to_owned(),
            word => format!("word {word:#x}"),
        }),
        LockClass::RustRwlock => rust_rwlock(memory, addr),
        LockClass::PthreadJoin => match memory.u32(addr)? {
            0 => Some("thread 0: it has ended".to_owned()),
            tid => Some(format!("thread {tid}: it has not ended")),
        },
        LockClass::FutexPi => {
            let word = memory.u32(addr)?;
            let waits = if word >> 31 == 1 { ", others wait" } else { "" };
            Some(format!("owner {}{waits}", word & 0x3fff_ffff))
        }
        LockClass::Futex | LockClass::ParkingLot | LockClass::LibcLock => {
            Some(format!("word {:#x}", memory.u32(addr)?))
        }
        _ => None,
    }
}

/// `lock word 2: locked, others wait; owner 77, in use by 1; normal`.
fn mutex(memory: &dyn Memory, addr: u64) -> Option<String> {
    /// Bits of the kind: the type, robust, priorities, shared, elision.
    const KINDS: u32 = 0x3f3;
    let mut bytes = [0; 20];
    if !memory.read(addr, &mut bytes) {
        return None;
    }
    let words = bytes.as_chunks::<4>().0;
    let [word, count, owner, users, kind] = std::array::from_fn(|n| u32::from_le_bytes(words[n]));
    let is_recursive = kind & 3 == 1;
    if kind & !KINDS != 0 || (count > 1 && !is_recursive) || users > 1 << 22 {
        return Some(format!(
            "words {word:#x} {count:#x} {owner:#x} {users:#x} {kind:#x}"
        ));
    }
    let state = match word {
        0 => "free",
        1 => "locked, nobody waits",
        2 => "locked, others wait",
        _ => "owner and flags",
    };
    let mut text = format!("lock word {word:#x}: {state}; owner {owner}");
    if is_recursive {
        text = format!("{text}, taken {count} times");
    }
    let sort = ["normal", "recursive", "error checking", "adaptive"][(kind & 3) as usize];
    text = format!("{text}, in use by {users}; {sort}");
    for (bit, what) in [
        (0x10, "robust"),
        (0x20, "priority inheritance"),
        (0x40, "priority ceiling"),
        (0x80, "shared"),
    ] {
        if kind & bit != 0 {
            text = format!("{text}, {what}");
        }
    }
    Some(text)
}

fn rwlock(memory: &dyn Memory, addr: u64) -> Option<String> {
    let (word, writers) = (memory.u32(addr)?, memory.u32(addr.checked_add(4)?)?);
    let writer = memory.u32(addr.checked_add(24)?)?;
    let readers = word >> 3;
    let mut text = match (word & 2 != 0, writer) {
        (true, 0) => "a writer is next".to_owned(),
        (true, tid) => format!("written by {tid}"),
        (false, _) if readers > 0 => "read".to_owned(),
        (false, _) => "free".to_owned(),
    };
    text = format!("{text}; {readers} readers, {writers} writers wait");
    if word & 4 != 0 {
        text.push_str("; readers wait");
    }
    Some(text)
}

/// The value, and the threads that wait in the upper half.
fn semaphore(memory: &dyn Memory, addr: u64) -> Option<String> {
    let word = memory.u64(addr)?;
    Some(format!("value {}, {} wait", word as u32, word >> 32))
}

fn rust_rwlock(memory: &dyn Memory, addr: u64) -> Option<String> {
    /// All of the lower 30 bits: a writer.
    const MASK: u32 = (1 << 30) - 1;
    let word = memory.u32(addr)?;
    let who = match word & MASK {
        0 => "free".to_owned(),
        MASK => "written".to_owned(),
        readers => format!("{readers} readers"),
    };
    let readers = if word & 1 << 30 != 0 {
        ", readers wait"
    } else {
        ""
    };
    let writers = if word & 1 << 31 != 0 {
        ", writers wait"
    } else {
        ""
    };
    Some(format!("word {word:#x}: {who}{readers}{writers}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::memory::fixture::Fixture;

    const AT: u64 = 0x1000;

    #[test]
    fn memory_of_locks_is_told_in_words() {
        for (class, words, text) in [
            (
                LockClass::PthreadMutex,
                &[2, 1, 77, 1, 0][..],
                "lock word 0x2: locked, others wait; owner 77, in use by 1; normal",
            ),
            (
                LockClass::PthreadMutex,
                &[1, 3, 77, 1, 0x81],
                "lock word 0x1: locked, nobody waits; owner 77, taken 3 times, in use by 1; recursive, shared",
            ),
            (
                LockClass::PthreadMutex,
                &[0, 0x8000_004d, 1, 0, 0],
                "words 0x0 0x8000004d 0x1 0x0 0x0",
            ),
            (
                LockClass::PthreadRwlock,
                &[0x1c, 1, 0, 0, 0, 0, 0],
                "read; 3 readers, 1 writers wait; readers wait",
            ),
            (
                LockClass::PthreadRwlock,
                &[2, 1, 0, 0, 0, 0, 9],
                "written by 9; 0 readers, 1 writers wait",
            ),
            (LockClass::Sem, &[0, 3], "value 0, 3 wait"),
            (LockClass::RustMutex, &[2], "word 2: locked, others wait"),
            (
                LockClass::RustRwlock,
                &[0xbfff_ffff],
                "word 0xbfffffff: written, writers wait",
            ),
            (LockClass::FutexPi, &[0x8000_0007], "owner 7, others wait"),
            (LockClass::PthreadJoin, &[7], "thread 7: it has not ended"),
        ] {
            let memory = Fixture::words(AT, words);
            assert_eq!(decode(&memory, class, AT).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_told() {
        let memory = Fixture::words(AT, &[2]);
        for class in LockClass::ALL {
            for addr in [0, AT + 4, u64::MAX, u64::MAX - 3] {
                assert_eq!(decode(&memory, *class, addr), None, "{class:?} {addr:#x}");
            }
        }
        assert_eq!(decode(&memory, LockClass::GoMutex, AT), None);
    }
}
