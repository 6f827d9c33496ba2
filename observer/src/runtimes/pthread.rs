//! Locks of the C library: glibc 2.26 and later on 64-bit machines, and musl as far as it records owners.
//!
//! Layouts: glibc's `sysdeps/nptl/bits/struct_mutex.h`, `struct_rwlock.h`, `bits/pthreadtypes.h` and
//! `nptl/pthread_cond_common.c`; musl's `src/internal/pthread_impl.h`.

use super::{Described, FutexCall, Owner, Process, Recognised, Runtime, Site};
use crate::{event::LockClass, inspect::memory::Memory};

/// `FUTEX_WAIT`, `FUTEX_LOCK_PI`, `FUTEX_WAIT_BITSET`, `FUTEX_WAIT_REQUEUE_PI`, `FUTEX_LOCK_PI2`
/// (include/uapi/linux/futex.h).
pub(super) const WAIT: u32 = 0;
const LOCK_PI: u32 = 6;
pub(super) const WAIT_BITSET: u32 = 9;
const LOCK_PI2: u32 = 13;

/// Bits of the word of a robust or priority-inheriting lock (`FUTEX_TID_MASK` and above).
const TID_MASK: u32 = 0x3fff_ffff;
const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;
/// What glibc writes into `__owner` of a robust mutex whose owner ended (`PTHREAD_MUTEX_INCONSISTENT`), and
/// of one that nobody can take any more (`PTHREAD_MUTEX_NOTRECOVERABLE`).
const INCONSISTENT: u32 = 0x7fff_ffff;
const NOT_RECOVERABLE: u32 = 0x7fff_fffe;
/// No thread has a number of this size (`PID_MAX_LIMIT`, include/linux/threads.h).
const MAX_THREAD: u32 = 1 << 22;
/// The bit of a robust mutex in its kind.
const ROBUST: u32 = 0x10;

/// The functions that count stand this near to the system call.
const DEPTH: usize = 10;

/// `pthread_mutex_t` of glibc.
struct Mutex {
    word: u32,
    count: u32,
    owner: u32,
    nusers: u32,
    kind: u32,
}

impl Mutex {
    fn read(memory: &dyn Memory, addr: u64) -> Option<Mutex> {
        let mut bytes = [0; 20];
        if !memory.read(addr, &mut bytes) {
            return None;
        }
        let word = |i: usize| {
            u32::from_le_bytes([
                bytes[4 * i],
                bytes[4 * i + 1],
                bytes[4 * i + 2],
                bytes[4 * i + 3],
            ])
        };
        Some(Mutex {
            word: word(0),
            count: word(1),
            owner: word(2),
            nusers: word(3),
            kind: word(4),
        })
    }

    /// Could this be the memory of a mutex that is waited for? Necessary, not sufficient.
    fn is_plausible(&self) -> bool {
        /// Kinds 0 to 3, elision (0x100, 0x200), robust 0x10, priorities 0x20 and 0x40, shared 0x80.
        const KINDS: u32 = 0x3f3;
        let has_died =
            self.kind & ROBUST != 0 && matches!(self.owner, INCONSISTENT | NOT_RECOVERABLE);
        self.kind & !KINDS == 0
            && (self.owner <= TID_MASK || has_died)
            && (self.kind & 3 == 1 || self.count <= 1)
            && self.nusers <= 1 << 22
    }

    fn owner(&self) -> Owner {
        match self.owner {
            0 => Owner::Unrecorded,
            tid => Owner::Thread(tid),
        }
    }
}

/// What a function waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Mutex,
    Cond,
    ReadLock,
    WriteLock,
    Sem,
    Barrier,
    Join,
    Once,
    Guard,
    Atomic,
    Libc,
}

/// Beginnings of names, without underscores before them. The more special ones come first.
const FUNCTIONS: [(&str, Function); 34] = [
    ("pthread_mutex_cond_lock", Function::Cond),
    ("pthread_mutex_lock", Function::Mutex),
    ("pthread_mutex_timedlock", Function::Mutex),
    ("pthread_mutex_clocklock", Function::Mutex),
    ("mtx_lock", Function::Mutex),
    ("mtx_timedlock", Function::Mutex),
    ("pthread_cond_", Function::Cond),
    ("cnd_wait", Function::Cond),
    ("cnd_timedwait", Function::Cond),
    ("pthread_rwlock_rdlock", Function::ReadLock),
    ("pthread_rwlock_timedrdlock", Function::ReadLock),
    ("pthread_rwlock_clockrdlock", Function::ReadLock),
    ("pthread_rwlock_wrlock", Function::WriteLock),
    ("pthread_rwlock_timedwrlock", Function::WriteLock),
    ("pthread_rwlock_clockwrlock", Function::WriteLock),
    ("sem_wait", Function::Sem),
    ("new_sem_wait", Function::Sem),
    ("sem_timedwait", Function::Sem),
    ("sem_clockwait", Function::Sem),
    ("pthread_barrier_wait", Function::Barrier),
    ("pthread_join", Function::Join),
    ("pthread_timedjoin", Function::Join),
    ("pthread_clockjoin", Function::Join),
    ("thrd_join", Function::Join),
    ("pthread_once", Function::Once),
    ("call_once", Function::Once),
    ("cxa_guard_acquire", Function::Guard),
    ("std::__atomic_wait", Function::Atomic),
    ("std::__detail::__platform_wait", Function::Atomic),
    ("std::__atomic_futex_unsigned", Function::Atomic),
    ("malloc", Function::Libc),
    ("flockfile", Function::Libc),
    ("tls_get_addr", Function::Libc),
    ("dl_", Function::Libc),
];

fn function(name: &str) -> Option<Function> {
    let name = if name.starts_with("std::") {
        name
    } else {
        name.trim_start_matches('_')
    };
    FUNCTIONS
        .iter()
        .find(|(beginning, _)| name.starts_with(beginning))
        .map(|(_, function)| *function)
}

/// Does the thread wait for a condition variable?
pub(super) fn is_condition(site: &Site<'_>) -> bool {
    let mut near = site.functions.iter().take(DEPTH);
    near.find_map(|name| function(name)) == Some(Function::Cond)
}

/// The C library's locks, and those of the C++ library that are made of futexes.
pub struct Pthread;

impl Runtime for Pthread {
    fn name(&self) -> &'static str {
        "pthread"
    }

    fn recognise(&self, process: &Process) -> Option<Recognised> {
        let maps = |names: [&str; 2]| {
            let mut files = process.files.iter();
            files.any(|file| names.iter().any(|name| file.starts_with(name)))
        };
        if maps(["libc.so.6", "libpthread"]) {
            let detail =
                "glibc: mutexes with owners, condition variables, semaphores, barriers, joins";
            return Some(Recognised::new("pthread", detail));
        }
        maps(["ld-musl", "libc.musl"]).then(|| {
            Recognised::new(
                "pthread",
                "musl: mutexes, with owners as far as it records them",
            )
        })
    }

    fn describe(&self, site: &Site<'_>) -> Option<Described> {
        let above = site
            .functions
            .iter()
            .take(DEPTH)
            .find_map(|name| function(name));
        by_call(site, above).or_else(|| by_function(site, above?))
    }
}

/// Locks that the call itself gives away.
fn by_call(site: &Site<'_>, above: Option<Function>) -> Option<Described> {
    let FutexCall {
        addr, command, val, ..
    } = site.call;
    match command {
        LOCK_PI | LOCK_PI2 => {
            let class = match above {
                Some(Function::Mutex | Function::Cond) => LockClass::PthreadMutex,
                _ => LockClass::FutexPi,
            };
            Some(Described::of(
                class,
                addr,
                owner_in_word(site.memory.u32(addr)?),
            ))
        }
        // A robust mutex waits for the very word that it saw: its owner, and that somebody waits.
        WAIT | WAIT_BITSET if val & WAITERS != 0 && val & TID_MASK != 0 => {
            let mutex = Mutex::read(site.memory, addr)?;
            let is_robust = mutex.is_plausible() && mutex.kind & ROBUST != 0;
            let named = matches!(above, Some(Function::Mutex | Function::Cond));
            (is_robust && named)
                .then(|| Described::of(LockClass::PthreadMutex, addr, owner_in_word(mutex.word)))
        }
        WAIT | WAIT_BITSET if val == 2 => {
            let named = matches!(above, Some(Function::Mutex | Function::Cond));
            // A condition variable's own wait has the operation WAIT_BITSET; the mutex is taken again with
            // WAIT. Only a mutex with a time limit is waited for with the former.
            let is_mutex = match command {
                WAIT => named,
                _ => above == Some(Function::Mutex),
            };
            let mutex = Mutex::read(site.memory, addr).filter(Mutex::is_plausible)?;
            let owner = mutex.owner();
            // musl's condition variables wait for a word on the waiter's stack, with the same value. There is no
            // owner behind it.
            let is_node = above == Some(Function::Cond) && owner == Owner::Unrecorded;
            (is_mutex && !is_node).then(|| Described::of(LockClass::PthreadMutex, addr, owner))
        }
        _ => None,
    }
}

fn owner_in_word(word: u32) -> Owner {
    match word & TID_MASK {
        0 => Owner::Unrecorded,
        tid if word & OWNER_DIED != 0 => Owner::Died(tid),
        tid => Owner::Thread(tid),
    }
}

/// Locks that only the function's name tells.
fn by_function(site: &Site<'_>, function: Function) -> Option<Described> {
    let addr = site.call.addr;
    let unrecorded = |class, base| Some(Described::of(class, base, Owner::Unrecorded));
    match function {
        Function::Mutex => mutex(site),
        Function::Cond => Some(Described {
            base: None,
            ..Described::of(LockClass::PthreadCond, addr, Owner::Unrecorded)
        }),
        Function::ReadLock => rwlock(site, false),
        Function::WriteLock => rwlock(site, true),
        Function::Sem => unrecorded(LockClass::Sem, addr),
        Function::Barrier => Some(Described {
            base: None,
            ..Described::of(LockClass::PthreadBarrier, addr, Owner::Unrecorded)
        }),
        // The word holds the number of the thread, until the kernel clears it.
        Function::Join => {
            let owner = owner_in_word(site.memory.u32(addr)?);
            Some(Described::of(LockClass::PthreadJoin, addr, owner))
        }
        Function::Once => unrecorded(LockClass::PthreadOnce, addr),
        Function::Guard => unrecorded(LockClass::CxxGuard, addr),
        Function::Atomic => unrecorded(LockClass::CxxAtomic, addr),
        Function::Libc => unrecorded(LockClass::LibcLock, addr),
    }
}

/// A mutex by its function, whose call did not look like glibc's: that of musl, whose word is at 4 behind
/// the type; only types other than 0 have the owner in it.
fn mutex(site: &Site<'_>) -> Option<Described> {
    let base = site.call.addr.checked_sub(4)?;
    let kind = site.memory.u32(base)?;
    let word = site.memory.u32(site.call.addr)?;
    let owner = if kind & !0x8f == 0 && kind & 0xf != 0 && word & WAITERS != 0 {
        owner_in_word(word)
    } else {
        Owner::Unrecorded
    };
    Some(Described::of(LockClass::PthreadMutex, base, owner))
}

/// Who the memory of a lock that was described before says has it now.
pub(super) fn owner(described: &Described, call: &FutexCall, memory: &dyn Memory) -> Option<Owner> {
    let base = described.base?;
    let in_word =
        matches!(call.command, LOCK_PI | LOCK_PI2) || call.val & WAITERS != 0 || base != call.addr;
    match described.class {
        LockClass::PthreadMutex | LockClass::FutexPi if in_word => {
            Some(owner_in_word(memory.u32(call.addr)?))
        }
        LockClass::PthreadMutex => Some(Mutex::read(memory, base)?.owner()),
        // glibc's futexes are further in.
        LockClass::PthreadRwlock if base == call.addr => Some(musl_rwlock_owner(memory.u32(base)?)),
        LockClass::PthreadRwlock => rwlock_owner(memory, base),
        LockClass::PthreadJoin => Some(owner_in_word(memory.u32(base)?)),
        _ => Some(Owner::Unrecorded),
    }
}

/// `pthread_rwlock_t`: readers at 0, the two futexes of writers at 8 and 12 (readers wait on the first),
/// the writer's thread at 24.
fn rwlock_owner(memory: &dyn Memory, base: u64) -> Option<Owner> {
    /// `PTHREAD_RWLOCK_WRLOCKED`: a writer holds it, or is the next; the count of readers is above.
    const WRITE_LOCKED: u32 = 2;
    const READER_SHIFT: u32 = 3;
    let readers = memory.u32(base)?;
    Some(match memory.u32(base + 24)? {
        tid if tid != 0 && tid <= TID_MASK && readers & WRITE_LOCKED != 0 => Owner::Thread(tid),
        _ if readers >> READER_SHIFT != 0 => Owner::Readers(readers >> READER_SHIFT),
        _ => Owner::Unrecorded,
    })
}

/// musl's `pthread_rwlock_t`: its first word counts the readers, or says that a writer has it.
fn musl_rwlock_owner(word: u32) -> Owner {
    /// The word without the bit that somebody waits, when it is a writer's.
    const WRITER: u32 = 0x7fff_ffff;
    match word & !WAITERS {
        0 | WRITER => Owner::Unrecorded,
        readers => Owner::Readers(readers),
    }
}

fn rwlock(site: &Site<'_>, writer: bool) -> Option<Described> {
    let addr = site.call.addr;
    // musl waits for the lock's word with that bit; glibc's futexes have small values.
    if site.call.val & WAITERS != 0 {
        let owner = musl_rwlock_owner(site.memory.u32(addr)?);
        return Some(Described {
            writer: Some(writer),
            ..Described::of(LockClass::PthreadRwlock, addr, owner)
        });
    }
    let base = addr.checked_sub(if addr.is_multiple_of(8) { 8 } else { 12 })?;
    let owner = rwlock_owner(site.memory, base)?;
    Some(Described {
        writer: Some(writer),
        ..Described::of(LockClass::PthreadRwlock, base, owner)
    })
}

/// Is an owner's number one that no living thread has?
pub fn is_no_thread(tid: u32) -> bool {
    tid == 0 || tid >= MAX_THREAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::memory::fixture::Fixture;

    const AT: u64 = 0x1000;

    fn describe(words: &[u32], call: FutexCall, functions: &[&str]) -> Option<Described> {
        let memory = Fixture::words(AT, words);
        let functions: Vec<String> = functions.iter().map(|name| (*name).to_owned()).collect();
        Pthread.describe(&Site {
            call,
            functions: &functions,
            caller: None,
            by_go: false,
            memory: &memory,
            process: &crate::runtimes::Process::default(),
        })
    }

    #[test]
    fn musl_is_told_from_glibc() {
        // A node of a condition variable on the stack: the barrier, and whom to notify.
        let node = describe(&[2, 0, 0, 0, 0], wait(AT, 2), &["pthread_cond_timedwait"]).unwrap();
        assert_eq!((node.class, node.base), (LockClass::PthreadCond, None));
        for (word, owner) in [
            (0xffff_ffff, Owner::Unrecorded),
            (0x8000_0003, Owner::Readers(3)),
        ] {
            let call = wait(AT, word);
            let lock = describe(&[word], call, &["pthread_rwlock_timedwrlock"]).unwrap();
            assert_eq!((lock.base, lock.owner), (Some(AT), owner));
            let memory = Fixture::words(AT, &[word]);
            assert_eq!(super::owner(&lock, &call, &memory), Some(owner));
        }
    }

    fn wait(addr: u64, val: u32) -> FutexCall {
        FutexCall {
            addr,
            command: WAIT,
            private: true,
            val,
            timed: false,
        }
    }

    #[test]
    fn a_mutex_has_its_owner_in_memory() {
        let words = [2, 1, 77, 1, 0];
        let names = ["__lll_lock_wait", "___pthread_mutex_lock", "work"];
        let found = describe(&words, wait(AT, 2), &names).unwrap();
        assert_eq!(found.class, LockClass::PthreadMutex);
        assert_eq!((found.base, found.owner), (Some(AT), Owner::Thread(77)));
        // The same memory without the function is no mutex: look-alikes abound.
        assert_eq!(describe(&words, wait(AT, 2), &["work"]), None);
        // The function without the memory is none of glibc's.
        let other = describe(&[9, 2, 0xffff_ffff, 1, 0], wait(AT + 4, 2), &names).unwrap();
        assert_eq!(other.owner, Owner::Unrecorded);
        let gone = describe(&[], wait(AT, 2), &names);
        assert_eq!(gone, None);
    }

    #[test]
    fn a_mutex_that_is_taken_again_after_a_condition() {
        let words = [2, 0, 77, 1, 0];
        let names = ["__futex_abstimed_wait_common", "pthread_cond_wait"];
        let again = describe(&words, wait(AT, 2), &names).unwrap();
        assert_eq!(again.class, LockClass::PthreadMutex);
        let call = FutexCall {
            command: WAIT_BITSET,
            ..wait(AT, 2)
        };
        let cond = describe(&words, call, &names).unwrap();
        assert_eq!((cond.class, cond.base), (LockClass::PthreadCond, None));
        let timed = describe(&words, call, &["pthread_mutex_clocklock"]).unwrap();
        assert_eq!(timed.class, LockClass::PthreadMutex);
    }

    #[test]
    fn robust_and_priority_inheriting_locks_have_it_in_the_word() {
        let word = WAITERS | 0x2a;
        let robust = [word, 0, 42, 1, 0x10];
        let names = ["pthread_mutex_lock"];
        let found = describe(&robust, wait(AT, word), &names).unwrap();
        assert_eq!(found.owner, Owner::Thread(42));
        // Its owner died, and the next one has not made its data consistent yet.
        let inherited = [word, 0, INCONSISTENT, 1, 0x10];
        let found = describe(&inherited, wait(AT, word), &names).unwrap();
        assert_eq!((found.base, found.owner), (Some(AT), Owner::Thread(42)));
        let died = [word | OWNER_DIED, 0, 42, 1, 0x10];
        let found = describe(&died, wait(AT, word), &names).unwrap();
        assert_eq!(found.owner, Owner::Died(42));
        let call = FutexCall {
            command: LOCK_PI,
            ..wait(AT, 0)
        };
        let found = describe(&[word], call, &[]).unwrap();
        assert_eq!(
            (found.class, found.owner),
            (LockClass::FutexPi, Owner::Thread(42))
        );
        assert_eq!(describe(&[], call, &[]), None);
    }

    #[test]
    fn a_reader_writer_lock_has_its_writer() {
        let words = [2 | 1, 0, 1, 0, 0, 0, 55, 0];
        for (offset, name, writer) in [
            (8, "pthread_rwlock_rdlock", false),
            (12, "__pthread_rwlock_wrlock", true),
        ] {
            let found = describe(&words, wait(AT + offset, 1), &[name]).unwrap();
            assert_eq!((found.base, found.owner), (Some(AT), Owner::Thread(55)));
            assert_eq!(found.writer, Some(writer));
        }
        let read_locked = [3 << 3 | 2, 0, 1, 0, 0, 0, 0, 0];
        let found = describe(&read_locked, wait(AT + 8, 1), &["pthread_rwlock_wrlock"]).unwrap();
        assert_eq!(found.owner, Owner::Readers(3));
    }

    #[test]
    fn what_nobody_owns() {
        for (name, class) in [
            ("__new_sem_wait_slow64", LockClass::Sem),
            ("pthread_barrier_wait", LockClass::PthreadBarrier),
            ("__pthread_once_slow", LockClass::PthreadOnce),
            ("__cxa_guard_acquire", LockClass::CxxGuard),
        ] {
            let found = describe(&[1, 2, 3], wait(AT, 0), &["futex_wait", name]).unwrap();
            assert_eq!((found.class, found.owner), (class, Owner::Unrecorded));
        }
        let found = describe(&[99], wait(AT, 99), &["__pthread_clockjoin_ex"]).unwrap();
        assert_eq!(
            (found.class, found.owner),
            (LockClass::PthreadJoin, Owner::Thread(99))
        );
        assert_eq!(
            describe(&[1], wait(AT, 1), &["futex", "work", "main"]),
            None
        );
    }
}
