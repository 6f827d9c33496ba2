//! PostgreSQL's lock manager, read from the shared memory that a backend maps: which lock it waits for, and which
//! backends have it.
//!
//! A backend's `PGPROC` points to the `LOCK` it waits for; that has a list of `PROCLOCK`s, one for each backend that
//! holds it or waits for it. Where in a `PGPROC` the pointers are differs between releases, so they are looked for:
//! they are where one points to a lock and the next to a `PROCLOCK` of this very lock and this very backend.
//! `LOCK` and `PROCLOCK` have been the same from 9.6 on (src/include/storage/lock.h), and so has the table of
//! conflicts (`LockConflicts` in src/backend/storage/lmgr/lock.c).
//!
//! No light-weight lock records who has it.

use super::{Process, Recognised, Runtime, packs};
use crate::inspect::{
    exports::Symbol,
    memory::{self, Memory},
};

/// Bytes of a `PGPROC` that are searched: the pointers are behind 150 in PostgreSQL 15.
const PROC_BYTES: usize = 512;
/// Bytes of it that are searched for the process's number.
const PID_BYTES: usize = 256;
/// `offsetof(LOCK, procLocks)`, `offsetof(LOCK, waitProcs)`; both are heads of lists with links to the one before
/// and to the next.
const PROC_LOCKS: u64 = 24;
const WAIT_PROCS: u64 = 40;
/// `offsetof(PROCLOCK, lockLink)`.
const LOCK_LINK: u64 = 32;
/// Backends of a lock that are looked at.
const MAX_BACKENDS: usize = 1_024;
/// Modes of the lock manager: 1 to 8.
const MODES: std::ops::RangeInclusive<u32> = 1..=8;
/// Class of wait events (`PG_WAIT_LWLOCK` in src/include/utils/wait_event.h).
const CLASS_LWLOCK: u32 = 0x01;
/// Others (the same file, 9.6 to 17), by the names of `pg_stat_activity`: those that say more than the title. `Client` and
/// `Activity` are what is idle, `Lock` is in the lock table.
const CLASSES: [(u32, &str); 5] = [
    (0x04, "BufferPin"),
    (0x07, "Extension"),
    (0x08, "IPC"),
    (0x09, "Timeout"),
    (0x0a, "IO"),
];

/// Light-weight locks that stand alone, each a tranche of its own, in PostgreSQL 13 to 16: the server exports their
/// names (`IndividualLWLockNames`). Tranches of many follow.
const INDIVIDUAL: u32 = 48;
/// `BuiltinTrancheNames` in src/backend/storage/lmgr/lwlock.c, which is not exported: the same in 13 to 16, but for
/// what they add at the end. Tranches behind these are an extension's, or a later release's.
const TRANCHES: [&str; 24] = [
    "XactBuffer",
    "CommitTsBuffer",
    "SubtransBuffer",
    "MultiXactOffsetBuffer",
    "MultiXactMemberBuffer",
    "NotifyBuffer",
    "SerialBuffer",
    "WALInsert",
    "BufferContent",
    "ReplicationOriginState",
    "ReplicationSlotIO",
    "LockFastPath",
    "BufferMapping",
    "LockManager",
    "PredicateLockManager",
    "ParallelHashJoin",
    "ParallelQueryDSA",
    "PerSessionDSA",
    "PerSessionRecordType",
    "PerSessionRecordTypmod",
    "SharedTupleStore",
    "SharedTidBitmap",
    "ParallelAppend",
    "PerXactPredicateList",
];
/// What 15 added.
const TRANCHES_15: [&str; 3] = ["PgStatsDSA", "PgStatsHash", "PgStatsData"];

/// `LockConflicts`: for each mode the modes that conflict with it, a bit each.
const CONFLICTS: [u32; 9] = [
    0,
    1 << 8,
    1 << 7 | 1 << 8,
    1 << 5 | 1 << 6 | 1 << 7 | 1 << 8,
    1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8,
    1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8,
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8,
    1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8,
    0x1fe,
];

/// `LOCKTAG`: what a lock of the lock manager is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its fields, and last the type (`enum LockTagType`): as the probes pass them.
    pub values: [u64; 5],
}

/// A backend that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The numbers that its process may have, as its own system knows it: that of a prepared transaction is 0.
    pub pids: Vec<u32>,
    /// It does not hold the lock, but waits for it too, and came first.
    pub queued: bool,
}

/// A wait for a lock of the lock manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWait {
    /// Which lock.
    pub tag: Tag,
    /// How it is wanted.
    pub mode: u32,
    /// Who is in the way: those that hold it in a mode that conflicts; if none does, the first in the queue that
    /// wants it so.
    pub blockers: Vec<Blocker>,
}

/// A backend, or another process of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address of the pointer to its `PGPROC`.
    my_proc: u64,
    /// Address of the pointer to what it waits for.
    wait_event: Option<u64>,
    /// Names of light-weight locks that stand alone; and is the release 15 or later?
    names: Option<Symbol>,
    from_15: bool,
}

/// A wait for a light-weight lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LightWait {
    /// Number of its tranche.
    pub tranche: u32,
    /// The tranche's name, as `pg_stat_activity` shows it.
    pub name: Option<String>,
}

impl Backend {
    /// By what the program exports.
    pub fn of(process: &Process) -> Option<Backend> {
        let addr = |name: &str| process.symbols.get(name).map(|symbol| symbol.addr);
        Some(Backend {
            my_proc: addr("MyProc")?,
            wait_event: addr("my_wait_event_info"),
            names: process.symbols.get("IndividualLWLockNames").copied(),
            from_15: process.symbols.contains_key("pgStatLocal"),
        })
    }

    /// The lock that the backend waits for, if it does. `own`: its process's number as its own system knows it.
    pub fn lock_wait(&self, memory: &dyn Memory, own: u32) -> Option<LockWait> {
        let proc = memory.u64(self.my_proc).filter(|proc| *proc != 0)?;
        let mut bytes = [0; PROC_BYTES];
        if !memory.read(proc, &mut bytes) {
            return None;
        }
        let (at, lock) = (0..PROC_BYTES - 24).step_by(8).find_map(|at| {
            let (lock, proc_lock) = (word(&bytes, at), word(&bytes, at + 8));
            let plausible = lock != 0 && lock % 8 == 0 && proc_lock != 0 && proc_lock % 8 == 0;
            (plausible
                && memory.u64(proc_lock) == Some(lock)
                && memory.u64(proc_lock.wrapping_add(8)) == Some(proc))
            .then_some((at, lock))
        })?;
        let mode = half(&bytes, at + 16);
        let tag = tag(memory, lock).filter(|_| MODES.contains(&mode))?;
        let pids: Vec<usize> = (0..PID_BYTES)
            .step_by(4)
            .filter(|at| half(&bytes, *at) == own)
            .collect();
        let search = Search {
            memory,
            proc,
            lock,
            wait_lock: at as u64,
            conflicts: CONFLICTS[mode as usize],
            pids,
        };
        let mut blockers = search.holders(word(&bytes, at + 8))?;
        if blockers.is_empty() {
            blockers.extend(search.ahead());
        }
        Some(LockWait {
            tag,
            mode,
            blockers,
        })
    }

    /// The type of what a backend waits for that is no lock, as `pg_stat_activity` names it.
    pub fn event_type(&self, memory: &dyn Memory) -> Option<&'static str> {
        let class = self.event(memory)? >> 24;
        let known = CLASSES.iter().find(|(number, _)| *number == class);
        known.map(|(_, name)| *name)
    }

    fn event(&self, memory: &dyn Memory) -> Option<u32> {
        memory.u32(memory.u64(self.wait_event?)?)
    }

    /// The light-weight lock that the backend waits for, if it does.
    pub fn lightweight(&self, memory: &dyn Memory) -> Option<LightWait> {
        let event = self.event(memory)?;
        let tranche = event & 0xffff;
        (event >> 24 == CLASS_LWLOCK).then(|| LightWait {
            tranche,
            name: self.tranche(memory, tranche),
        })
    }

    /// The name of a tranche of the server's own; those of extensions are not found.
    fn tranche(&self, memory: &dyn Memory, tranche: u32) -> Option<String> {
        // Another number of these is another release, whose tranches have other numbers.
        let names = self
            .names
            .filter(|one| one.size == u64::from(INDIVIDUAL) * 8)?;
        let Some(shared) = tranche.checked_sub(INDIVIDUAL) else {
            let at = names.addr.wrapping_add(u64::from(tranche) * 8);
            return memory::text(memory, memory.u64(at)?);
        };
        let more: &[&str] = if self.from_15 { &TRANCHES_15 } else { &[] };
        let mut all = TRANCHES.iter().chain(more);
        all.nth(shared as usize).map(|name| (*name).to_owned())
    }
}

/// The backends of one lock.
struct Search<'a> {
    memory: &'a dyn Memory,
    proc: u64,
    lock: u64,
    /// Where in a `PGPROC` the pointer to the lock is.
    wait_lock: u64,
    conflicts: u32,
    /// Where in a `PGPROC` the process's number may be.
    pids: Vec<usize>,
}

impl Search<'_> {
    /// Those that hold it in a mode that conflicts; `None`: the list changed while it was read.
    fn holders(&self, own: u64) -> Option<Vec<Blocker>> {
        let head = self.lock.wrapping_add(PROC_LOCKS);
        let leader = self.memory.u64(own.wrapping_add(16))?;
        let mut blockers = Vec::new();
        let mut link = self.memory.u64(head.wrapping_add(8))?;
        for _ in 0..MAX_BACKENDS {
            if link == head {
                return Some(blockers);
            }
            let mut bytes = [0; 48];
            let at = link.wrapping_sub(LOCK_LINK);
            if !self.memory.read(at, &mut bytes) || word(&bytes, 0) != self.lock {
                return None;
            }
            // Workers of one parallel query do not stand in each other's way.
            let same = word(&bytes, 8) == self.proc || word(&bytes, 16) == leader;
            if !same && half(&bytes, 24) & self.conflicts != 0 {
                blockers.push(Blocker {
                    pids: self.pids(word(&bytes, 8))?,
                    queued: false,
                });
            }
            link = word(&bytes, LOCK_LINK as usize + 8);
        }
        None
    }

    /// The first in the queue before this backend that wants it in a mode that conflicts. The links are the first
    /// thing in a `PGPROC`.
    fn ahead(&self) -> Option<Blocker> {
        let head = self.lock.wrapping_add(WAIT_PROCS);
        let mut link = self.memory.u64(head.wrapping_add(8))?;
        for _ in 0..MAX_BACKENDS {
            let lock = self.memory.u64(link.wrapping_add(self.wait_lock))?;
            if link == self.proc || link == head || lock != self.lock {
                return None;
            }
            let mode = link.wrapping_add(self.wait_lock + 16);
            let mode = self.memory.u32(mode).filter(|mode| MODES.contains(mode))?;
            if self.conflicts >> mode & 1 != 0 {
                return Some(Blocker {
                    pids: self.pids(link)?,
                    queued: true,
                });
            }
            link = self.memory.u64(link.wrapping_add(8))?;
        }
        None
    }

    fn pids(&self, proc: u64) -> Option<Vec<u32>> {
        let mut bytes = [0; PID_BYTES];
        if !self.memory.read(proc, &mut bytes) {
            return None;
        }
        let mut pids: Vec<u32> = self.pids.iter().map(|at| half(&bytes, *at)).collect();
        pids.sort_unstable();
        pids.dedup();
        Some(pids)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn tag(memory: &dyn Memory, lock: u64) -> Option<Tag> {
    let mut bytes = [0; 16];
    if !memory.read(lock, &mut bytes) {
        return None;
    }
    let field = |at| u64::from(half(&bytes, at));
    Some(Tag {
        values: [
            field(0),
            field(4),
            field(8),
            field(12) & 0xffff,
            u64::from(bytes[14]),
        ],
    })
}

/// What the built-in pack makes of the same wait: name and identity of the lock without its scope, and the mode.
pub fn named(wait: &LockWait) -> Option<(Option<String>, String, Option<String>)> {
    let pair = packs::postgres_lock()?;
    let mut args = [0; 8];
    for (argument, value) in wait.tag.values.iter().enumerate() {
        *args.get_mut(pair.slot(argument as u8)?)? = *value;
    }
    if let Some(slot) = pair.mode.and_then(|mode| pair.slot(mode)) {
        *args.get_mut(slot)? = u64::from(wait.mode);
    }
    let values = packs::Values {
        args: &args,
        text: None,
    };
    Some((
        pair.name_of(&values),
        pair.identity(&args),
        pair.mode_of(&values).map(str::to_owned),
    ))
}

/// PostgreSQL's processes.
pub struct Postgres;

impl Runtime for Postgres {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn recognise(&self, process: &Process) -> Option<Recognised> {
        Backend::of(process).map(|backend| {
            let light = if backend.wait_event.is_some() {
                ", light-weight locks by tranche"
            } else {
                ""
            };
            Recognised::new(
                self.name(),
                format!("locks and holders from its memory{light}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::memory::fixture::Fixture;

    const BASE: u64 = 0x1000;
    const PROC: u64 = BASE + 0x100;
    const OTHER: u64 = BASE + 0x400;
    const THIRD: u64 = BASE + 0x700;
    const LOCK: u64 = BASE + 0xa00;
    /// Where a `PGPROC` of this memory has the pointers, and its number.
    const AT: u64 = 160;
    const PID: u64 = 44;

    struct Made(Vec<u8>);

    impl Made {
        fn set(&mut self, at: u64, value: u64) {
            let at = (at - BASE) as usize;
            self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }

        fn half(&mut self, at: u64, value: u32) {
            let at = (at - BASE) as usize;
            self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }

        /// The `PROCLOCK` of a backend is right behind its `PGPROC`.
        fn backend(&mut self, proc: u64, pid: u32, held: u32, wants: Option<u32>) {
            let proc_lock = proc + 0x280;
            self.half(proc + PID, pid);
            self.set(proc_lock, LOCK);
            self.set(proc_lock + 8, proc);
            self.set(proc_lock + 16, proc);
            self.half(proc_lock + 24, held);
            if let Some(mode) = wants {
                self.set(proc + AT, LOCK);
                self.set(proc + AT + 8, proc_lock);
                self.half(proc + AT + 16, mode);
            }
        }

        fn list(&mut self, head: u64, links: &[u64]) {
            let mut at = head;
            for link in links.iter().chain([&head]) {
                self.set(at + 8, *link);
                at = *link;
            }
        }

        fn wait(self) -> Option<LockWait> {
            let memory = Fixture {
                at: BASE,
                bytes: self.0,
            };
            let backend = Backend {
                my_proc: BASE,
                wait_event: None,
                names: None,
                from_15: false,
            };
            backend.lock_wait(&memory, 500)
        }
    }

    /// A backend that waits for `SHARE` on relation 7 of database 5, one that holds it so and so, and one more
    /// that waits.
    fn made(held: u32, before: u32) -> Made {
        let mut made = Made(vec![0; 0x1000]);
        made.set(BASE, PROC);
        made.half(LOCK, 5);
        made.half(LOCK + 4, 7);
        made.backend(PROC, 500, 0, Some(5));
        made.backend(OTHER, 600, held, None);
        made.backend(THIRD, 700, 0, Some(before));
        let links = [PROC, OTHER, THIRD].map(|proc| proc + 0x280 + LOCK_LINK);
        made.list(LOCK + PROC_LOCKS, &links);
        made.list(LOCK + WAIT_PROCS, &[THIRD, PROC]);
        made
    }

    #[test]
    fn who_holds_it_in_a_mode_that_conflicts() {
        let wait = made(1 << 8, 1).wait().unwrap();
        assert_eq!(wait.tag.values, [5, 7, 0, 0, 0]);
        assert_eq!(wait.mode, 5);
        let holder = Blocker {
            pids: vec![600],
            queued: false,
        };
        assert_eq!(wait.blockers, [holder]);
        let (name, id, mode) = named(&wait).unwrap();
        assert_eq!(name.as_deref(), Some("relation 7 of database 5"));
        assert_eq!(id, "usdt:postgresql:lock__wait__start:0x5/0x7/0x0/0x0/0x0");
        assert_eq!(mode.as_deref(), Some("ShareLock"));
    }

    #[test]
    fn who_came_first_where_nobody_holds_it_so() {
        let first = Blocker {
            pids: vec![700],
            queued: true,
        };
        // Held for reading; the one before wants it alone.
        assert_eq!(made(1 << 1, 8).wait().unwrap().blockers, [first]);
        assert_eq!(made(1 << 1, 1).wait().unwrap().blockers, []);
    }

    #[test]
    fn tranches_have_names() {
        let mut made = Made(vec![0; 0x1000]);
        let names = BASE + 0x100;
        made.set(BASE, BASE + 8);
        made.set(names + 8 * 2, BASE + 0x20);
        made.set(BASE + 0x20, u64::from_le_bytes(*b"OidGen\0\0"));
        let with = |size: u64, from_15| Backend {
            my_proc: 0,
            wait_event: Some(BASE),
            names: Some(Symbol { addr: names, size }),
            from_15,
        };
        for (event, size, from_15, expected) in [
            (0x0100_0002, 384, true, Some("OidGen")),
            (0x0100_0003, 384, true, None),
            (0x0100_0038, 384, true, Some("BufferContent")),
            (0x0100_004a, 384, true, Some("PgStatsData")),
            // Of an older release these are an extension's.
            (0x0100_004a, 384, false, None),
            (0x0100_004b, 384, true, None),
            (0x0100_ffff, 384, true, None),
            // Another release.
            (0x0100_0002, 400, true, None),
        ] {
            made.half(BASE + 8, event);
            let memory = Fixture {
                at: BASE,
                bytes: made.0.clone(),
            };
            let wait = with(size, from_15).lightweight(&memory).unwrap();
            assert_eq!(wait.tranche, event & 0xffff);
            assert_eq!(wait.name.as_deref(), expected, "{event:#x}");
        }
        for (event, expected) in [
            (0x0300_0002, None),
            (0x0600_0000, None),
            (0x0800_0007, Some("IPC")),
            (0x0900_0002, Some("Timeout")),
            (0x0a00_0011, Some("IO")),
            (0, None),
        ] {
            made.half(BASE + 8, event);
            let memory = Fixture {
                at: BASE,
                bytes: made.0.clone(),
            };
            assert_eq!(with(384, true).lightweight(&memory), None);
            assert_eq!(with(384, true).event_type(&memory), expected, "{event:#x}");
        }
    }

    #[test]
    fn lists_that_lead_nowhere_are_not_believed() {
        let mut circle = made(1 << 8, 1);
        let link = OTHER + 0x280 + LOCK_LINK;
        circle.set(link + 8, link);
        assert_eq!(circle.wait(), None);
        let mut elsewhere = made(1 << 8, 1);
        elsewhere.set(LOCK + PROC_LOCKS + 8, 0x77);
        assert_eq!(elsewhere.wait(), None);
        let mut mode = made(1 << 8, 1);
        mode.half(PROC + AT + 16, 9);
        assert_eq!(mode.wait(), None);
        let mut idle = made(1 << 8, 1);
        idle.set(PROC + AT, 0);
        assert_eq!(idle.wait(), None);
    }
}
