//! From the kernel's records to events: names, kinds, lock identities.

use std::{borrow::Cow, sync::Arc, time::Duration};

use ahash::HashMap;

use observer_common::{
    Comm, LockKey, NR_NONE, TaskSlot, WOKEN, WaitRecord, WaitVector, comm_bytes, flag, kind, klock,
    outcome, syscall, syscall::futex_op,
};

use crate::{
    event::{Addr, Blocked, Kind, LockClass, LockRef, Outcome, TaskRef, Wait, Waker},
    inspect::{container::Containers, maps, names::Names, symbols::Symbols},
    time::Clock,
};

/// Lock identities kept; beyond it the cache starts anew.
const MAX_LOCKS: usize = 200_000;
/// Threads kept as they were named last; beyond it the cache starts anew.
const MAX_NAMED: usize = 16_384;
/// For so long a thread to which the kernel gives the same name is taken for the same in all: what else is told of it
/// is kept for longer.
const SAME_NS: u64 = 100_000_000;

/// A thread as it was named when a wait of it ended.
#[derive(Debug)]
struct Named {
    tgid: u32,
    comm: Comm,
    at_ns: u64,
    task: Arc<TaskRef>,
    /// The same as one that wakes others, once it did.
    waker: Option<Arc<Waker>>,
}

impl Named {
    fn is(&self, tgid: u32, now_ns: u64) -> bool {
        self.tgid == tgid && now_ns.saturating_sub(self.at_ns) < SAME_NS
    }
}

/// What conversion needs to remember.
#[derive(Debug)]
pub(super) struct Converter {
    pub(super) names: Names,
    pub(super) containers: Containers,
    pub(super) clock: Clock,
    locks: HashMap<LockKey, Arc<LockRef>>,
    recent: HashMap<u32, Named>,
    pub(super) symbols: Symbols,
}

impl Converter {
    pub(super) fn new() -> Self {
        Converter {
            names: Names::default(),
            containers: Containers::default(),
            clock: Clock::now(),
            locks: HashMap::default(),
            recent: HashMap::default(),
            symbols: Symbols::default(),
        }
    }

    /// A task as events name it.
    pub(super) fn task(&mut self, tgid: u32, tid: u32, comm: Option<&Comm>) -> Arc<TaskRef> {
        let name = match comm {
            Some(comm) => self.names.learn(tid, &comm_bytes(comm)),
            None => self.names.of(tid),
        };
        self.named(tgid, tid, name)
    }

    /// The task of a wait that ended. There may be many of one task in a moment: they share it.
    fn waiter(&mut self, record: &WaitRecord) -> Arc<TaskRef> {
        let (slot, now_ns) = (&record.slot, record.end_ns);
        let same = |known: &&Named| known.is(slot.tgid, now_ns) && known.comm == record.comm;
        if let Some(known) = self.recent.get(&slot.tid).filter(same) {
            return Arc::clone(&known.task);
        }
        let task = self.task(slot.tgid, slot.tid, Some(&record.comm));
        if self.recent.len() >= MAX_NAMED {
            self.recent.clear();
        }
        let named = Named {
            tgid: slot.tgid,
            comm: record.comm,
            at_ns: now_ns,
            task: Arc::clone(&task),
            waker: None,
        };
        self.recent.insert(slot.tid, named);
        task
    }

    fn waker(&mut self, slot: &TaskSlot, now_ns: u64) -> Arc<Waker> {
        let called = |comm: Option<Arc<str>>| {
            Arc::new(Waker {
                pid: slot.waker_tgid,
                tid: slot.waker_tid,
                comm,
                goid: None,
            })
        };
        let known = self.recent.get_mut(&slot.waker_tid);
        match known.filter(|known| known.is(slot.waker_tgid, now_ns)) {
            Some(Named { task, waker, .. }) => {
                Arc::clone(waker.get_or_insert_with(|| called(task.comm.clone())))
            }
            None => called(self.names.of(slot.waker_tid)),
        }
    }

    fn named(&mut self, tgid: u32, tid: u32, name: Option<Arc<str>>) -> Arc<TaskRef> {
        // A process is called as its first thread: of that there are not two names in one event.
        let process = if tid == tgid {
            name.clone()
        } else {
            self.names.of(tgid)
        };
        let mut task = TaskRef {
            comm: name,
            process,
            ..TaskRef::new(tgid, tid)
        };
        self.containers.complete(&mut task);
        Arc::new(task)
    }

    /// The lock at an address: private to the process unless the operation and the mapping say that
    /// others can share it. The same shared futex has one identity in all its processes.
    pub(super) fn lock(&mut self, key: LockKey, op: u32) -> Arc<LockRef> {
        if key.tgid == 0 {
            return self.kernel_lock(key.addr, op, &[]);
        }
        if let Some(lock) = self.locks.get(&key) {
            return Arc::clone(lock);
        }
        let mapping = if op & futex_op::PRIVATE == 0 {
            maps::find(key.tgid, key.addr).filter(|mapping| mapping.shared)
        } else {
            None
        };
        let id = maps::lock_id(key.tgid, key.addr, mapping.as_ref()).into();
        let class = match op & futex_op::CMD_MASK {
            futex_op::LOCK_PI | futex_op::LOCK_PI2 => LockClass::FutexPi,
            _ => LockClass::Futex,
        };
        let lock = Arc::new(LockRef {
            id,
            class,
            name: None,
            addr: Addr(key.addr),
            shared: mapping.is_some(),
        });
        self.remember(key, Arc::clone(&lock));
        lock
    }

    /// Takes what a look at a waiting thread told of a lock: from now on every event names it so.
    pub(super) fn learn(&mut self, key: LockKey, class: LockClass, name: Option<&Arc<str>>) {
        if let Some(lock) = self.locks.get_mut(&key) {
            LockRef::learn(lock, class, name);
        }
    }

    /// A lock inside the kernel, named by its symbol or by the function that asked for it: the first one
    /// on `stack` that is not about locking or tracing itself.
    pub(super) fn kernel_lock(&mut self, addr: u64, flags: u32, stack: &[u64]) -> Arc<LockRef> {
        let key = LockKey {
            addr,
            ..LockKey::default()
        };
        if let Some(lock) = self.locks.get(&key)
            && (lock.name.is_some() || stack.is_empty())
        {
            return Arc::clone(lock);
        }
        let symbols = self.symbols.kernel();
        let name = symbols.data(addr).map(Arc::from).or_else(|| {
            let caller = stack.iter().find_map(|ip| symbols.caller(*ip))?;
            Some(Arc::from(format!("in {caller}")))
        });
        let lock = Arc::new(LockRef {
            id: format!("kernel:{addr:#x}").into(),
            class: kernel_class(flags),
            name,
            addr: Addr(addr),
            shared: false,
        });
        self.remember(key, Arc::clone(&lock));
        lock
    }

    fn remember(&mut self, key: LockKey, lock: Arc<LockRef>) {
        if self.locks.len() >= MAX_LOCKS {
            self.locks.clear();
        }
        self.locks.insert(key, lock);
    }

    /// The lock that a wait is for, if it is for one that has an address.
    fn lock_of(&mut self, slot: &TaskSlot) -> Option<Arc<LockRef>> {
        key_of(slot).map(|key| self.lock(key, slot.op))
    }

    pub(super) fn locks_of(&mut self, tgid: u32, vector: &WaitVector) -> Vec<Arc<LockRef>> {
        let length = (vector.len as usize).min(vector.futexes.len());
        vector.futexes[..length]
            .iter()
            .map(|futex| {
                let key = LockKey {
                    addr: futex.uaddr,
                    tgid,
                    pad: 0,
                };
                self.lock(key, futex.flags & futex_op::PRIVATE)
            })
            .collect()
    }

    /// A wait that ended.
    pub(super) fn wait(&mut self, record: &WaitRecord) -> Wait {
        let slot = &record.slot;
        let split = slot.flags & flag::SPLIT != 0;
        let woken = slot.waker_tid != 0 && has_waker(slot);
        let waker = woken.then(|| self.waker(slot, record.end_ns));
        let lock = self.lock_of(slot);
        Wait {
            time: self.clock.wall(record.end_ns),
            mono_ns: record.end_ns,
            task: self.waiter(record),
            kind: kind_of(slot, lock.as_deref()),
            dur_ns: slot.blocked_ns + slot.runqueue_ns,
            blocked_ns: split.then_some(slot.blocked_ns),
            runqueue_ns: split.then_some(slot.runqueue_ns),
            outcome: outcome_of(slot.outcome),
            lock,
            locks: Vec::new(),
            holder: None,
            causes: std::collections::BTreeMap::new(),
            waker,
            syscall: syscall_name(slot),
            probe: None,
            mode: None,
            ended_by: None,
            stack: None,
            at_least: slot.flags & flag::SEEDED != 0,
            end_unseen: false,
        }
    }

    /// A wait of `futex_waitv` that ended: which lock ended it is known by the return code only.
    pub(super) fn waitv(&mut self, record: &WaitRecord, vector: &WaitVector) -> Wait {
        let mut wait = self.wait(record);
        wait.locks = self.locks_of(record.slot.tgid, vector);
        if record.ret < 0 && wait.locks.len() > 1 {
            wait.lock = None;
        }
        wait
    }

    /// A wait in progress.
    pub(super) fn blocked(&mut self, slot: &TaskSlot, now_ns: u64) -> Blocked {
        let runnable = slot.wake_ns > WOKEN && slot.wake_ns >= slot.sleep_ns;
        let age_ns = now_ns.saturating_sub(slot.start_ns);
        let name = self
            .names
            .of_waiting(slot.tid, Duration::from_nanos(age_ns));
        let lock = self.lock_of(slot);
        Blocked {
            time: self.clock.wall(now_ns),
            mono_ns: now_ns,
            task: self.named(slot.tgid, slot.tid, name),
            kind: kind_of(slot, lock.as_deref()),
            age_ns,
            blocked_ns: runnable.then(|| slot.wake_ns.saturating_sub(slot.start_ns)),
            runqueue_ns: runnable.then(|| now_ns.saturating_sub(slot.wake_ns)),
            lock,
            locks: Vec::new(),
            access: None,
            holder: None,
            syscall: syscall_name(slot),
            probe: None,
            mode: None,
            stack: None,
            at_least: slot.flags & flag::SEEDED != 0,
        }
    }

    /// A wait whose end was lost: all that is known is that it was over at `now_ns`.
    pub(super) fn unseen_end(&mut self, slot: &TaskSlot, now_ns: u64) -> Wait {
        let lock = self.lock_of(slot);
        Wait {
            time: self.clock.wall(now_ns),
            mono_ns: now_ns,
            task: self.task(slot.tgid, slot.tid, None),
            kind: kind_of(slot, lock.as_deref()),
            dur_ns: now_ns.saturating_sub(slot.start_ns),
            blocked_ns: None,
            runqueue_ns: None,
            outcome: None,
            // Which futex of several ended it would have been in the record.
            lock: lock.filter(|_| slot.nr != syscall::FUTEX_WAITV),
            locks: Vec::new(),
            holder: None,
            causes: std::collections::BTreeMap::new(),
            waker: None,
            syscall: syscall_name(slot),
            probe: None,
            mode: None,
            ended_by: None,
            stack: None,
            at_least: slot.flags & flag::SEEDED != 0,
            end_unseen: true,
        }
    }
}

/// Is the task that ran when this one was made runnable the one that did it? Only tasks wake futexes
/// and end children; files, sockets and time may do it by an interrupt, during any task.
fn has_waker(slot: &TaskSlot) -> bool {
    slot.outcome == outcome::WOKEN && (key_of(slot).is_some() || slot.kind == kind::CHILD)
}

/// Is it a wait for a lock on a file?
pub(super) fn is_file_lock(slot: &TaskSlot) -> bool {
    slot.kind == kind::LOCK && matches!(slot.nr, syscall::FLOCK | syscall::FCNTL)
}

/// The key under which the kernel programs count the lock of a wait.
pub(super) fn key_of(slot: &TaskSlot) -> Option<LockKey> {
    if slot.kind == kind::KERNEL_LOCK {
        return Some(LockKey {
            addr: slot.addr,
            ..LockKey::default()
        });
    }
    let futex = matches!(slot.kind, kind::FUTEX | kind::LOCK | kind::CONDVAR)
        && matches!(
            slot.nr,
            syscall::FUTEX | syscall::FUTEX_WAIT | syscall::FUTEX_WAITV
        );
    (futex && slot.addr != 0).then_some(LockKey {
        addr: slot.addr,
        tgid: slot.tgid,
        pad: 0,
    })
}

/// What the task waits in: of a futex, what it is known to be a part of.
fn kind_of(slot: &TaskSlot, lock: Option<&LockRef>) -> Kind {
    match lock {
        Some(lock) if lock.class != LockClass::Futex => lock.class.kind(),
        _ => Kind::of(slot.kind),
    }
}

/// Class of a contended kernel lock, by the flags of its tracepoint.
fn kernel_class(flags: u32) -> LockClass {
    let has = |bit| flags & bit != 0;
    match () {
        () if has(klock::MUTEX) => LockClass::KernelMutex,
        () if has(klock::PERCPU) => LockClass::KernelPercpuRwsem,
        () if has(klock::RT) => LockClass::KernelRtmutex,
        () if has(klock::SPIN) && has(klock::READ | klock::WRITE) => LockClass::KernelRwlock,
        () if has(klock::SPIN) => LockClass::KernelSpinlock,
        () if has(klock::READ | klock::WRITE) => LockClass::KernelRwsem,
        () => LockClass::KernelLock,
    }
}

fn outcome_of(outcome: u8) -> Option<Outcome> {
    match outcome {
        outcome::WOKEN => Some(Outcome::Woken),
        outcome::TIMEOUT => Some(Outcome::Timeout),
        outcome::INTERRUPTED => Some(Outcome::Interrupted),
        _ => None,
    }
}

fn syscall_name(slot: &TaskSlot) -> Option<Cow<'static, str>> {
    if slot.nr == NR_NONE || slot.flags & flag::COMPAT != 0 {
        return None;
    }
    Some(match syscall::name(slot.nr) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("syscall_{}", slot.nr)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> TaskSlot {
        TaskSlot {
            start_ns: 1_000,
            sleep_ns: 1_000,
            addr: 0x1000,
            tid: u32::MAX - 1,
            tgid: u32::MAX - 2,
            nr: syscall::FUTEX,
            op: futex_op::PRIVATE,
            kind: kind::FUTEX,
            ..TaskSlot::default()
        }
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let mut converter = Converter::new();
        let wait = converter.wait(&WaitRecord {
            slot: slot(),
            end_ns: 5_000,
            comm: [u64::from_ne_bytes(*b"worker\0\0"), 0],
            ret: -1,
        });
        assert_eq!(wait.task.comm.as_deref(), Some("worker"));
        assert_eq!(wait.task.process, None);
        assert_eq!(
            (wait.outcome, wait.waker, wait.blocked_ns, wait.runqueue_ns),
            (None, None, None, None)
        );
        assert_eq!(
            wait.lock.map(|lock| lock.id.to_string()),
            Some("4294967293:0x1000".into())
        );
    }

    #[test]
    fn waits_of_a_moment_share_their_tasks() {
        let mut converter = Converter::new();
        let mut end = |tid: u32, tgid: u32, comm: u64, end_ns: u64| {
            converter.wait(&WaitRecord {
                slot: TaskSlot {
                    tid,
                    tgid,
                    waker_tid: 11,
                    waker_tgid: 10,
                    outcome: outcome::WOKEN,
                    ..slot()
                },
                end_ns,
                comm: [comm, 0],
                ret: 0,
            })
        };
        let [a, b] = [u64::from(b'a'), u64::from(b'b')];
        let waker = end(11, 10, a, 1_000).task;
        let (first, second) = (end(12, 10, b, 1_000), end(12, 10, b, 2_000));
        assert!(Arc::ptr_eq(&first.task, &second.task));
        let (by, same) = (first.waker.unwrap(), second.waker.unwrap());
        assert!(Arc::ptr_eq(&by, &same));
        assert_eq!((by.tid, &by.comm), (waker.tid, &waker.comm));
        // Another name, another process, and a while later.
        for (tgid, comm, end_ns) in [(10, a, 2_000), (13, a, 2_000), (13, a, 2_000 + SAME_NS)] {
            let other = end(12, tgid, comm, end_ns);
            assert!(!Arc::ptr_eq(&first.task, &other.task));
            assert_eq!(other.task.pid, tgid);
            assert_eq!(Arc::ptr_eq(&by, &other.waker.unwrap()), end_ns < SAME_NS);
        }
    }

    #[test]
    fn a_runnable_task_says_for_how_long() {
        let mut converter = Converter::new();
        let mut slot = slot();
        slot.wake_ns = 3_000;
        let blocked = converter.blocked(&slot, 10_000);
        assert_eq!(blocked.age_ns, 9_000);
        assert_eq!(
            (blocked.blocked_ns, blocked.runqueue_ns),
            (Some(2_000), Some(7_000))
        );
        slot.wake_ns = 0;
        assert_eq!(converter.blocked(&slot, 10_000).runqueue_ns, None);
    }

    #[test]
    fn a_vector_names_all_locks_and_the_one_that_ended_it_if_known() {
        let mut converter = Converter::new();
        let mut vector = WaitVector {
            len: 2,
            futexes: [observer_common::FutexWaitv::default(); observer_common::WAITV_MAX],
        };
        vector.futexes[0].uaddr = 0x10;
        vector.futexes[1].uaddr = 0x20;
        let wait = WaitRecord {
            slot: TaskSlot {
                nr: syscall::FUTEX_WAITV,
                addr: 0x20,
                ..slot()
            },
            end_ns: 5_000,
            comm: [0; 2],
            ret: 1,
        };
        let event = converter.waitv(&wait, &vector);
        assert_eq!(event.locks.len(), 2);
        assert_eq!(event.lock.map(|lock| lock.addr), Some(Addr(0x20)));
        // A length that lies must not be believed.
        let lying = WaitVector {
            len: u64::MAX,
            ..vector
        };
        let event = converter.waitv(&WaitRecord { ret: -1, ..wait }, &lying);
        assert_eq!(event.locks.len(), observer_common::WAITV_MAX);
        assert_eq!(event.lock, None);
    }
}
