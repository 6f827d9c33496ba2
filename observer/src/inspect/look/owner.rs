//! Who holds the lock that a blocked thread waits for: by the lock's memory, by the stacks of other threads, by who was
//! last seen to wake its waiters.

use super::{Looker, Waker, futex_call};
use crate::{
    event::{Holder, LockClass},
    inspect::{
        holders::{self, Found},
        memory::ProcessMemory,
        proc, python,
        stacks::BlockedStack,
        unwind::RawFrame,
    },
    runtimes::{self, Described, FutexCall, Owner, Process},
};

/// Frames from the system call to the function with the static variable.
const MAX_GUARD_DEPTH: usize = 6;

impl Looker {
    pub(super) fn holder(
        &mut self,
        blocked: &BlockedStack,
        described: &Described,
        call: FutexCall,
        process: &Process,
        waker: Waker<'_>,
    ) -> Option<Holder> {
        if !described.class.is_held() {
            return None;
        }
        let found = match described.owner {
            Owner::Thread(tid) => {
                let found = self.owner(blocked, tid, described, &call);
                // Whoever had it when it was read may have given it back since.
                let memory = ProcessMemory::of(blocked.pid);
                if runtimes::owner_again(described, &call, &memory) == Some(Owner::Thread(tid)) {
                    found
                } else {
                    Found::unknown("it changes hands")
                }
            }
            Owner::Died(tid) => Found::ended(tid),
            // Of several readers, one that is found is no more to blame than the others.
            Owner::Readers(1) => waker
                .and_then(|_| self.by_stack(blocked, described, &call))
                .unwrap_or_else(|| Found::unknown("held by 1 reader, who is not recorded")),
            Owner::Readers(count) => {
                Found::unknown(format!("held by {count} readers, who are not recorded"))
            }
            Owner::Unrecorded if described.class == LockClass::PythonGil => {
                Found::unknown("it changes hands")
            }
            Owner::Unrecorded if described.class == LockClass::JvmMonitor => {
                Found::unknown("the virtual machine's memory does not tell")
            }
            Owner::Unrecorded if described.class == LockClass::PythonLock => {
                let python = process.python.as_ref()?;
                python::holder(blocked.pid, blocked.tid, python, call.addr)
            }
            Owner::Unrecorded => waker
                .and_then(|waker| self.inferred(blocked, described, &call, waker))
                .unwrap_or_else(|| Found::unknown("this class of lock does not record it")),
        };
        Some(found.holder(&mut self.activity))
    }

    /// The thread that a lock's memory names.
    fn owner(
        &mut self,
        blocked: &BlockedStack,
        tid: u32,
        described: &Described,
        call: &FutexCall,
    ) -> Found {
        let evidence = if described.class == LockClass::PthreadJoin {
            "the thread that is joined"
        } else {
            "owner in the lock's memory"
        };
        let pid = blocked.pid;
        if let Some(host) = holders::in_process(pid, tid) {
            return Found::exact(pid, host, evidence);
        }
        if !call.private
            && let Some(mapping) = self.inspector.mapping(pid, call.addr).cloned()
            && let Some((other, host)) = holders::in_sharing_process(pid, tid, &mapping)
        {
            return Found::exact(other, host, format!("{evidence}, which the process shares"));
        }
        if runtimes::pthread::is_no_thread(tid) {
            return Found::unknown("the owner in the lock's memory is no thread");
        }
        // The number may have been given out again since; or this is the copy of a lock that was held when the
        // process was forked, and whose owner has stayed behind.
        if proc::process_of(tid).is_some() {
            return Found::unknown("the owner in the lock's memory is a thread of another process");
        }
        Found::ended(tid)
    }

    /// A holder that no memory names.
    fn inferred(
        &mut self,
        blocked: &BlockedStack,
        described: &Described,
        call: &FutexCall,
        waker: &dyn Fn(u64) -> Option<u32>,
    ) -> Option<Found> {
        if let Some(found) = self.by_stack(blocked, described, call) {
            return Some(found);
        }
        // A word of the thread's own says nothing of the lock: who woke it last did so for another.
        described.base?;
        let tid = waker(call.addr)?;
        let evidence = "the last to wake its waiters, and not waiting for it since";
        (tid != blocked.tid && !self.waits_for(blocked.pid, tid, call.addr))
            .then(|| Found::likely(blocked.pid, tid, evidence))
    }

    /// The only other thread that has the lock's address on its stack and does not wait for it; or that is in
    /// the function whose static variable is waited for.
    fn by_stack(
        &mut self,
        blocked: &BlockedStack,
        described: &Described,
        call: &FutexCall,
    ) -> Option<Found> {
        let addresses = [described.base?, call.addr];
        let has_address =
            |_: &mut Looker, other: &BlockedStack| holders::has_address(other, &addresses);
        if let Some(tid) = self.only_other(blocked, call, has_address) {
            let evidence = "the only other thread with the lock's address on its stack";
            return Some(Found::likely(blocked.pid, tid, evidence));
        }
        if described.class != LockClass::CxxGuard {
            return None;
        }
        let function = self.initialising(blocked)?;
        let is_inside = |looker: &mut Looker, other: &BlockedStack| {
            let mut frames = other.frames.iter();
            frames.any(|frame| looker.start_of(blocked.pid, frame) == Some(function))
        };
        let tid = self.only_other(blocked, call, is_inside)?;
        let evidence = "the only other thread in the function that initialises it";
        Some(Found::likely(blocked.pid, tid, evidence))
    }

    /// The only other thread that does not wait for the same and of whose stack something is true.
    fn only_other(
        &mut self,
        blocked: &BlockedStack,
        call: &FutexCall,
        holds: impl Fn(&mut Looker, &BlockedStack) -> bool,
    ) -> Option<u32> {
        let mut only = None;
        for tid in proc::threads(blocked.pid)
            .into_iter()
            .take(holders::MAX_STACKS)
        {
            if tid == blocked.tid {
                continue;
            }
            let Ok(other) = self.inspector.stack(blocked.pid, tid, None) else {
                continue;
            };
            let waits = other.registers.as_ref().and_then(futex_call);
            if waits.is_some_and(|waits| waits.addr == call.addr) {
                continue;
            }
            if holds(self, &other) {
                if only.is_some() {
                    return None;
                }
                only = Some(tid);
            }
        }
        only
    }

    /// Start of the function that waits in `__cxa_guard_acquire` for a static variable of its own.
    fn initialising(&mut self, blocked: &BlockedStack) -> Option<u64> {
        let (pid, mut frames) = (blocked.pid, blocked.frames.iter().take(MAX_GUARD_DEPTH));
        frames.find(|frame| {
            let name = self.inspector.function(pid, frame.lookup());
            name.is_some_and(|(name, _)| runtimes::plain(&name) == "__cxa_guard_acquire")
        })?;
        self.start_of(pid, frames.next()?)
    }

    /// Where the function of a frame begins.
    fn start_of(&mut self, pid: u32, frame: &RawFrame) -> Option<u64> {
        let (_, offset) = self.inspector.function(pid, frame.lookup())?;
        frame.lookup().checked_sub(offset)
    }

    fn waits_for(&mut self, pid: u32, tid: u32, futex: u64) -> bool {
        let stack = self.inspector.stack(pid, tid, None);
        let call = stack
            .ok()
            .and_then(|stack| stack.registers)
            .as_ref()
            .and_then(futex_call);
        call.is_some_and(|call| call.addr == futex)
    }
}
