//! What a look told, put into events.

use std::{collections::HashMap, sync::Arc};

use crate::{
    capture::{Capture, registers::ThreadRegisters},
    event::{Blocked, LockClass, LockRef, Stack, TaskRef},
    inspect::{
        look::Look,
        registers::{Registers, Snapshot},
    },
};

/// Threads of a process that are read one by one. If more are asked for, all of the process are read at once.
const ONE_BY_ONE: u32 = 32;

/// Registers of threads that are looked at together, each read when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// By process: how many were asked for one by one, and all of them once they are read.
    processes: HashMap<u32, (u32, Option<HashMap<u32, Registers>>)>,
}

impl Given {
    /// Those of a thread, if it is blocked and the kernel gives them.
    pub(super) fn of(&mut self, capture: &mut Capture, pid: u32, tid: u32) -> Option<Registers> {
        let (asked, all) = self.processes.entry(pid).or_default();
        if all.is_none() && *asked < ONE_BY_ONE {
            *asked += 1;
            if let Some(thread) = capture.registers_of_thread(tid) {
                return blocked(thread);
            }
        }
        let is_first = all.is_none();
        let all = all.get_or_insert_with(|| {
            let threads = capture.registers(pid).unwrap_or_default();
            let each = threads.into_iter();
            each.filter_map(|thread| Some((thread.tid, blocked(thread)?)))
                .collect()
        });
        let found = all.get(&tid).copied();
        if is_first && *asked < ONE_BY_ONE && found.is_some() {
            capture.leave_single_threads();
        }
        found
    }
}

fn blocked(thread: ThreadRegisters) -> Option<Registers> {
    match thread.snapshot {
        Snapshot::Blocked(registers) => Some(registers),
        Snapshot::Running => None,
    }
}

/// Gives a task a name. One that has it already stays shared.
pub(super) fn call(task: &mut Arc<TaskRef>, name: Option<&Arc<str>>) {
    if task.comm.as_ref() != name {
        Arc::make_mut(task).comm = name.cloned();
    }
}

/// Puts what a look told into the event of the wait.
pub(crate) fn take(blocked: &mut Blocked, look: &Look) {
    blocked.stack = Some(with_kernel(&look.stack, blocked.stack.as_ref()));
    if let Some(name) = &look.name {
        call(&mut blocked.task, Some(name));
    }
    if let Some(told) = &look.told {
        blocked.kind = told.kind;
        blocked.lock = Some(told.lock.clone().into());
        blocked.mode.clone_from(&told.mode);
        blocked.holder = told.holder.clone().map(Box::new);
        return;
    }
    if let Some(file) = &look.file {
        blocked.lock = Some(file.lock.clone().into());
        blocked.kind = file.lock.class.kind();
        blocked.access = Some(file.access);
        blocked.holder = Some(Box::new(file.holder.clone()));
        return;
    }
    let Some(lock) = &look.lock else { return };
    if let Some(known) = &mut blocked.lock
        && known.addr.0 == lock.futex
    {
        LockRef::learn(known, lock.class, lock.name.as_ref());
        if lock.class != LockClass::Futex {
            blocked.kind = lock.class.kind();
        }
        blocked.access = lock.access;
        blocked.holder = lock.holder.clone().map(Box::new);
    }
}

/// The stack that was unwound, with the kernel's part of the one that the kernel took.
pub(super) fn with_kernel(unwound: &Stack, taken: Option<&Stack>) -> Stack {
    let mut stack = unwound.clone();
    if let Some(taken) = taken {
        stack.kernel.clone_from(&taken.kernel);
        if stack.user.is_empty() {
            stack.user.clone_from(&taken.user);
        }
    }
    stack
}
