//! Java threads: their names, what each waits for and which other one has it, from the machine's memory.

use std::{collections::HashMap, sync::Arc};

use super::{
    backend::Told,
    holders::{self, Activity, Found},
    memory::ProcessMemory,
    proc,
};
use crate::{
    event::{Addr, Holder, LockClass, LockRef},
    runtimes::jvm::{Machine, OwnedBy, Wait, Way},
};

/// Machines whose threads are kept; beyond it all are forgotten.
const MAX_MACHINES: usize = 256;
/// Locks of `java.util.concurrent` that one thread at a time holds, for writing at least.
const LOCKS: &str = "java.util.concurrent.locks.Reentrant";

/// The threads of machines, by process.
#[derive(Debug, Default)]
pub(super) struct Machines(HashMap<u32, Threads>);

#[derive(Debug, Default)]
struct Threads {
    /// Addresses of what the machine knows them by.
    all: Vec<u64>,
    /// Which of them a thread is, by its number as its own process knows it.
    by_native: HashMap<u32, u64>,
}

/// What a look at a Java thread told.
#[derive(Clone, Debug, Default)]
pub(super) struct JavaLook {
    /// Its name.
    pub(super) name: Option<Arc<str>>,
    /// What it waits for.
    pub(super) told: Option<Told>,
    /// The thread's address, and what was read of its wait.
    pub(super) read: Option<(u64, Wait)>,
}

impl Machines {
    /// Looks at a thread that sleeps; `None`: it is none of Java's.
    pub(super) fn look(
        &mut self,
        pid: u32,
        tid: u32,
        machine: &Machine,
        activity: &mut Activity,
    ) -> Option<JavaLook> {
        let memory = ProcessMemory::of(pid);
        let own = proc::own_number(pid, tid)?;
        if self.0.len() >= MAX_MACHINES && !self.0.contains_key(&pid) {
            self.0.clear();
        }
        let known = self.0.entry(pid).or_default();
        known.read(machine, memory);
        let thread = *known.by_native.get(&own)?;
        // Memory of a thread that ended may have become another's.
        if machine.natives(&memory, &[thread]) != [Some(own)] {
            self.0.remove(&pid);
            return None;
        }
        let wait = machine.wait(&memory, thread, &known.all);
        let stable = machine.wait(&memory, thread, &known.all) == wait;
        let told = wait.as_ref().map(|wait| {
            let holder = holder(pid, thread, machine, wait, stable);
            let holder = holder.map(|(found, owner)| named(found, owner, pid, machine, activity));
            told(pid, wait, holder)
        });
        Some(JavaLook {
            name: machine.name(&memory, thread).map(Arc::from),
            told,
            read: wait.map(|wait| (thread, wait)),
        })
    }

    /// Forgets a process.
    pub(super) fn forget(&mut self, pid: u32) {
        self.0.remove(&pid);
    }
}

impl Threads {
    /// The machine makes a new list whenever a thread begins or ends.
    fn read(&mut self, machine: &Machine, memory: ProcessMemory) {
        let all = machine.threads(&memory);
        if all == self.all && !all.is_empty() {
            return;
        }
        let natives = machine.natives(&memory, &all);
        let pairs = natives.into_iter().zip(&all);
        self.by_native = pairs
            .filter_map(|(native, thread)| Some((native?, *thread)))
            .collect();
        self.all = all;
    }
}

/// Is what was read of a wait still so?
pub(super) fn is_still(pid: u32, machine: &Machine, thread: u64, wait: &Wait) -> bool {
    let memory = ProcessMemory::of(pid);
    let threads = machine.threads(&memory);
    threads.contains(&thread) && machine.wait(&memory, thread, &threads).as_ref() == Some(wait)
}

/// Who has to act, with the owner's address; `None`: nobody in particular.
fn holder(
    pid: u32,
    waiter: u64,
    machine: &Machine,
    wait: &Wait,
    stable: bool,
) -> Option<(Found, Option<u64>)> {
    if class(wait) == LockClass::JvmPark {
        return None;
    }
    let evidence = match wait.way {
        Way::Enter => "owner in the monitor's memory",
        Way::Parked | Way::Notified => "owner in the lock's memory",
    };
    let owner = match wait.owner {
        OwnedBy::Thread(owner) if stable && owner != waiter => owner,
        OwnedBy::Nobody if wait.way == Way::Parked => {
            return Some((Found::unknown("no thread holds it for writing"), None));
        }
        OwnedBy::Other => {
            return Some((
                Found::unknown("its memory names no thread of the machine"),
                None,
            ));
        }
        OwnedBy::Thread(_) | OwnedBy::Nobody => {
            return Some((Found::unknown("it changes hands"), None));
        }
    };
    let native = machine.natives(&ProcessMemory::of(pid), &[owner]);
    let host = native[0].and_then(|native| holders::in_process(pid, native));
    Some(match host {
        Some(host) => (Found::exact(pid, host, evidence), Some(owner)),
        None => (Found::unknown("the thread that it names has ended"), None),
    })
}

fn named(
    found: Found,
    owner: Option<u64>,
    pid: u32,
    machine: &Machine,
    activity: &mut Activity,
) -> Holder {
    let mut holder = found.holder(activity);
    if let Some(name) = owner.and_then(|owner| machine.name(&ProcessMemory::of(pid), owner)) {
        holder.comm = Some(name.into());
    }
    holder
}

fn told(pid: u32, wait: &Wait, holder: Option<Holder>) -> Told {
    let class = class(wait);
    Told {
        kind: class.kind(),
        lock: LockRef {
            id: format!("{pid}:java:{:#x}", wait.lock).into(),
            class,
            name: wait.class.as_deref().map(Arc::from),
            addr: Addr(wait.lock),
            shared: false,
        },
        mode: None,
        holder,
    }
}

fn class(wait: &Wait) -> LockClass {
    match wait.way {
        Way::Enter => LockClass::JvmMonitor,
        Way::Parked if wait.owner != OwnedBy::Nobody || is_lock(wait) => LockClass::JvmLock,
        Way::Parked | Way::Notified => LockClass::JvmPark,
    }
}

/// Is it a lock whoever has it now?
fn is_lock(wait: &Wait) -> bool {
    let class = wait.class.as_deref();
    class.is_some_and(|class| class.starts_with(LOCKS))
}
