//! One look at a blocked thread: its stack, which lock it waits for, who holds that, and what the holder does.
//!
//! Nothing is guessed. The class is named by the runtime whose functions are above the futex call
//! ([`crate::runtimes`]). An owner that the lock's memory names is `exact` once it is found to be a thread of
//! that process (or of one that shares the memory) and memory says the same again. Without one, the only other
//! thread that has the lock's address on its stack, or else the last thread seen to wake the lock's waiters, is
//! `likely`, and the evidence says which. Everything else is `unknown`.

mod name;
mod owner;

use std::{collections::HashMap, io, sync::Arc};

use observer_common::syscall::{self, futex_op};

use super::{
    backend::{self, Told},
    callers::{called, caller},
    data::Data,
    filelocks::{self, FileCall, HeldBy},
    holders::{self, Activity, Found},
    java::{self, JavaLook, Machines},
    memory::{Memory, ProcessMemory},
    process::Processes,
    python,
    registers::{Registers, SystemCall},
    stacks::{BlockedStack, Inspector},
};
use crate::{
    event::{Access, Addr, Holder, LockClass, LockRef, RuntimeOf, Stack},
    runtimes::{self, Described, FutexCall, Owner, Process, Site, go, jvm},
};

/// Looks that are kept, by thread; beyond it all are forgotten.
const MAX_LOOKS: usize = 16_384;
/// Processes of which it is kept whether they are Go's.
const MAX_GO: usize = 4_096;
/// How far a futex is from the start of the condition variable or the like that it is a part of.
const MAX_INSIDE: u64 = 64;

/// What a look at a thread told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The lock it waits for.
    pub lock: Option<Lock>,
    /// The thread's name, where its runtime knows it better than the system.
    pub name: Option<Arc<str>>,
    /// The lock on a file that it waits for.
    pub file: Option<FileLock>,
    /// Where it waits.
    pub stack: Stack,
    /// What the process's runtime told of the wait, if it is another than the system sees.
    pub told: Option<Told>,
    /// The thread moved each time it was looked at.
    pub torn: bool,
}

/// A lock that a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The futex.
    pub futex: u64,
    /// Its class.
    pub class: LockClass,
    /// The lock that the futex is a part of.
    pub base: Option<u64>,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// What the thread wants with it.
    pub access: Option<Access>,
    /// Who holds it; absent where nobody can.
    pub holder: Option<Holder>,
}

/// A lock on a file that a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// Which.
    pub lock: LockRef,
    /// What the thread wants with it.
    pub access: Access,
    /// Who holds it.
    pub holder: Holder,
}

/// Where an owner was read, and what was.
#[derive(Clone, Debug)]
enum Read {
    Memory(u32, Described, FutexCall),
    Files(u32, FileCall, HeldBy),
    Java(u32, Arc<Process>, u64, jvm::Wait),
}

/// Looks at threads; holds what it learned of processes and files.
#[derive(Debug, Default)]
pub struct Looker {
    inspector: Inspector,
    processes: Processes,
    data: Data,
    /// The name of each lock that has none but where it was first waited for.
    by_caller: HashMap<(u32, u64), Arc<str>>,
    /// Boxed: the free places of a table this large would be megabytes.
    looks: HashMap<u32, Box<(Arc<BlockedStack>, Look)>>,
    /// What the latest look at a thread read of the owner.
    owners: HashMap<u32, Read>,
    /// Is a process one of Go's?
    go: HashMap<u32, bool>,
    machines: Machines,
    /// Which threads were seen to run.
    pub activity: Activity,
}

/// The futex call among a thread's registers.
pub fn futex_call(registers: &Registers) -> Option<FutexCall> {
    let SystemCall { nr, args } = registers.call?;
    let call = match nr.cast_signed() {
        // futex(uaddr, op, val, timeout, uaddr2, val3)
        syscall::FUTEX if futex_op::waits(args[1] as u32) => FutexCall {
            addr: args[0],
            command: args[1] as u32 & futex_op::CMD_MASK,
            private: args[1] as u32 & futex_op::PRIVATE != 0,
            val: args[2] as u32,
            timed: args[3] != 0,
        },
        // futex_wait(uaddr, val, mask, flags, timeout, clockid)
        syscall::FUTEX_WAIT => FutexCall {
            addr: args[0],
            command: futex_op::WAIT_BITSET,
            private: args[3] as u32 & futex_op::PRIVATE != 0,
            val: args[1] as u32,
            timed: args[4] != 0,
        },
        _ => return None,
    };
    Some(call)
}

/// The thread that was last seen to wake waiters of a futex. `None`: a holder is told only where memory names it, and is
/// not inferred, for which the stacks of all other threads are read.
pub type Waker<'a> = Option<&'a dyn Fn(u64) -> Option<u32>>;

impl Looker {
    /// Looks at thread `tid` of process `pid`. `given`: its registers, where they are known.
    ///
    /// # Errors
    /// The kernel's: the thread is gone, or no permission to read its process.
    pub fn look(
        &mut self,
        pid: u32,
        tid: u32,
        given: Option<Registers>,
        waker: Waker<'_>,
    ) -> io::Result<Look> {
        let blocked = self.inspector.stack(pid, tid, given)?;
        let process = self.processes.of(pid);
        let mut look = self.look_at_call(&blocked, &process, waker);
        let java = self.java(&blocked, &process);
        if let Some((thread, wait)) = java.read {
            self.note(tid, Read::Java(pid, Arc::clone(&process), thread, wait));
        }
        look.name = java.name;
        look.told = java.told.or_else(|| self.told(pid, &blocked, &process));
        Ok(look)
    }

    /// What the system call tells, and the functions above it.
    fn look_at_call(
        &mut self,
        blocked: &Arc<BlockedStack>,
        process: &Process,
        waker: Waker<'_>,
    ) -> Look {
        let (pid, tid) = (blocked.pid, blocked.tid);
        // The same wait as before: only the holder may have changed.
        if let Some((known, look)) = self.looks.get(&tid).map(Box::as_ref)
            && Arc::ptr_eq(known, blocked)
        {
            let mut look = look.clone();
            if let Some(lock) = &mut look.lock
                && let Some((mut described, call)) = self.describe(blocked, &look.stack, process)
            {
                // What it is has been told already; only the owner is new.
                described.class = lock.class;
                self.note(tid, Read::Memory(pid, described, call));
                lock.holder = self.holder(blocked, &described, call, process, waker);
            }
            look.file = self.file_lock(blocked);
            return look;
        }
        let mut stack = self.inspector.symbolize(blocked);
        let functions = match &process.python {
            Some(python) if !blocked.torn => python::functions(pid, tid, python),
            _ => Vec::new(),
        };
        let mut described = self.describe(blocked, &stack, process);
        if let Some((described, call)) = &mut described {
            python::refine(described, &functions);
            self.note(tid, Read::Memory(pid, *described, *call));
        }
        let lock = described.map(|(described, call)| Lock {
            futex: call.addr,
            class: described.class,
            base: described.base,
            name: self.lock_name(pid, &described, call.addr, &stack, &functions),
            access: described.writer.map(
                |writer| {
                    if writer { Access::Write } else { Access::Read }
                },
            ),
            holder: self.holder(blocked, &described, call, process, waker),
        });
        stack = python::merged(&stack, &functions);
        let look = Look {
            lock,
            name: None,
            file: self.file_lock(blocked),
            stack,
            told: None,
            torn: blocked.torn,
        };
        if self.looks.len() >= MAX_LOOKS {
            self.looks.clear();
        }
        if !blocked.torn && blocked.registers.is_some() {
            let known = Box::new((Arc::clone(blocked), look.clone()));
            self.looks.insert(tid, known);
        }
        look
    }

    /// The runtimes that were recognised since the last call, with the name of the process.
    pub fn new_runtimes(&mut self) -> Vec<(Arc<str>, RuntimeOf)> {
        self.processes.news()
    }

    /// Is it a backend of PostgreSQL, whose waits the system sees as others? Only a process that is called so is looked
    /// at.
    pub fn is_backend(&mut self, pid: u32, name: Option<&str>) -> bool {
        let named = name.is_some_and(|name| name.contains("postgres") || name == "postmaster");
        named && self.processes.of(pid).postgres.is_some()
    }

    /// Does a thread wait to enter a Java monitor? Such waits are broken into pieces, so that none is old.
    pub fn is_entering(&mut self, pid: u32, tid: u32, registers: Option<&Registers>) -> bool {
        let call = registers.and_then(futex_call);
        if call.is_none_or(|call| !call.timed) {
            return false;
        }
        let process = self.processes.of(pid);
        let Some(Ok(machine)) = &process.java else {
            return false;
        };
        let look = self.machines.look(pid, tid, machine, &mut self.activity);
        let told = look.and_then(|look| look.told);
        told.is_some_and(|told| told.lock.class == LockClass::JvmMonitor)
    }

    /// Who holds the lock `id` of PostgreSQL's lock manager that a probe told the backend `pid` to wait for.
    pub fn backend_holder(&mut self, pid: u32, id: &str) -> Option<Holder> {
        let backend = self.processes.of(pid).postgres?;
        backend::holder_of(pid, backend, id, &mut self.activity)
    }

    /// What the runtime tells of a wait that the system sees as one for something else.
    fn told(&mut self, pid: u32, blocked: &BlockedStack, process: &Process) -> Option<Told> {
        let registers = blocked.registers.as_ref()?;
        let backend = process.postgres?;
        if futex_call(registers).is_some() {
            return backend::lightweight(pid, backend);
        }
        backend::lock(pid, backend, &mut self.activity)
    }

    /// What a Java virtual machine's memory tells of a thread of its own that sleeps.
    fn java(&mut self, blocked: &BlockedStack, process: &Process) -> JavaLook {
        let (pid, tid) = (blocked.pid, blocked.tid);
        let call = blocked.registers.as_ref().and_then(futex_call);
        let machine = process.java.as_ref().and_then(|java| java.as_ref().ok());
        let Some(machine) = machine.filter(|_| !blocked.torn) else {
            return JavaLook::default();
        };
        let look = self
            .machines
            .look(pid, tid, machine, &mut self.activity)
            .unwrap_or_default();
        // Whatever it waits for, it does so in a futex call.
        if call.is_none() {
            return JavaLook {
                name: look.name,
                ..JavaLook::default()
            };
        }
        look
    }

    fn note(&mut self, tid: u32, read: Read) {
        if self.owners.len() >= MAX_LOOKS {
            self.owners.clear();
        }
        self.owners.insert(tid, read);
    }

    /// Is the owner that the latest look at a waiting thread read still the one? Much cheaper than another look.
    pub fn is_still_owner(&self, tid: u32) -> bool {
        match self.owners.get(&tid) {
            Some(Read::Memory(pid, described, call)) => {
                let memory = ProcessMemory::of(*pid);
                runtimes::owner_again(described, call, &memory) == Some(described.owner)
            }
            Some(Read::Files(pid, call, held_by)) => {
                filelocks::wait_of(*pid, *call).is_some_and(|wait| wait.held_by == *held_by)
            }
            Some(Read::Java(pid, process, thread, wait)) => {
                let machine = process.java.as_ref().and_then(|java| java.as_ref().ok());
                machine.is_some_and(|machine| java::is_still(*pid, machine, *thread, wait))
            }
            None => false,
        }
    }

    /// Reads files of this size at most at the same time for names.
    pub fn set_budget(&mut self, bytes: u64) {
        self.inspector.set_budget(bytes);
    }

    /// Sizes of the files that were read for names.
    pub fn bytes(&self) -> u64 {
        self.inspector.bytes()
    }

    /// Gives back what was read for names, if none were asked for lately. True: there was something.
    pub fn rest(&mut self) -> bool {
        self.inspector.rest()
    }

    /// Forgets a process.
    pub fn forget(&mut self, pid: u32) {
        self.inspector.forget(pid);
        self.go.remove(&pid);
        self.machines.forget(pid);
    }

    /// The lock on a file that a thread waits for, if it does.
    fn file_lock(&mut self, blocked: &BlockedStack) -> Option<FileLock> {
        if blocked.torn {
            return None;
        }
        let call = filelocks::file_call(blocked.registers.as_ref()?.call?)?;
        let wait = filelocks::wait_of(blocked.pid, call)?;
        let read = Read::Files(blocked.pid, call, wait.held_by.clone());
        self.note(blocked.tid, read);
        let found = match wait.held_by {
            HeldBy::Process(pid, evidence) => holders::of_process(pid, evidence),
            HeldBy::Unknown(why) => Found::unknown(why),
        };
        Some(FileLock {
            lock: LockRef {
                id: wait.id,
                class: LockClass::FileLock,
                name: Some(wait.name),
                addr: Addr::default(),
                shared: true,
            },
            access: if wait.write {
                Access::Write
            } else {
                Access::Read
            },
            holder: found.holder(&mut self.activity),
        })
    }

    /// What a runtime says of the wait.
    fn describe(
        &mut self,
        blocked: &BlockedStack,
        stack: &Stack,
        process: &Process,
    ) -> Option<(Described, FutexCall)> {
        if blocked.torn {
            return None;
        }
        let call = futex_call(blocked.registers.as_ref()?)?;
        let functions = self.functions(blocked, stack);
        let site = Site {
            call,
            functions: &functions,
            caller: caller(stack),
            by_go: self.is_by_go(blocked),
            memory: &ProcessMemory::of(blocked.pid),
            process,
        };
        let described = runtimes::describe(&site).unwrap_or(Described {
            class: LockClass::Futex,
            base: None,
            owner: Owner::Unrecorded,
            writer: None,
        });
        Some((described, call))
    }

    /// Does Go's runtime make the call itself? Its way to go on behind the system call is its own.
    fn is_by_go(&mut self, blocked: &BlockedStack) -> bool {
        let Some(registers) = &blocked.registers else {
            return false;
        };
        let mut code = [0; go::BEHIND_FUTEX.len()];
        if !ProcessMemory::of(blocked.pid).read(registers.ip, &mut code) || code != go::BEHIND_FUTEX
        {
            return false;
        }
        if self.go.len() >= MAX_GO {
            self.go.clear();
        }
        let pid = blocked.pid;
        *self
            .go
            .entry(pid)
            .or_insert_with(|| go::recognise(pid).is_ok())
    }

    /// Names of the functions on a stack, innermost first, as far as they are of those that wait. A function
    /// without a symbol is named by the call that led to it, where that goes through a name of the dynamic
    /// linker's.
    ///
    /// A library of locks calls the C library at most: what lies behind one more change of the file only runs
    /// the program's code, as `pthread_once` does, and does not wait itself.
    fn functions(&mut self, blocked: &BlockedStack, stack: &Stack) -> Vec<String> {
        let mut names = Vec::new();
        let mut frames = stack.user.iter().peekable();
        let mut module = frames.peek().and_then(|frame| frame.module.as_ref());
        let mut changes = 0;
        for (i, raw) in blocked.frames.iter().enumerate().take(32) {
            let mut named = false;
            if let Some(frame) = frames.peek()
                && frame.addr.0 == raw.ip
                && frame.module.as_ref() != module
            {
                module = frame.module.as_ref();
                changes += 1;
                if changes > 1 {
                    break;
                }
            }
            while let Some(frame) = frames.next_if(|frame| frame.addr.0 == raw.ip) {
                if let Some(name) = &frame.name {
                    names.push(runtimes::plain(name).to_owned());
                    named = true;
                }
            }
            // Also where there is a symbol: one that is exported may stand for a local function behind it.
            if let Some(caller) = blocked.frames.get(i + 1)
                && let Some(target) = called(&ProcessMemory::of(blocked.pid), caller.ip)
                && let Some((name, 0)) = self.inspector.function(blocked.pid, target)
            {
                let name = runtimes::plain(&name).to_owned();
                if !named || names.last() != Some(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_wait_are_futex_calls() {
        let registers = |nr, args| Registers {
            call: Some(SystemCall { nr, args }),
            ..Registers::default()
        };
        let call = futex_call(&registers(202, [16, 0x80, 2, 0, 0, 0])).unwrap();
        assert_eq!((call.addr, call.command, call.val), (16, 0, 2));
        assert!(call.private && !call.timed);
        assert_eq!(futex_call(&registers(202, [16, 0x81, 1, 0, 0, 0])), None);
        assert_eq!(futex_call(&registers(0, [16, 0x80, 2, 0, 0, 0])), None);
        assert!(
            futex_call(&registers(455, [16, 2, 0, 0x80, 9, 0]))
                .unwrap()
                .timed
        );
    }
}
