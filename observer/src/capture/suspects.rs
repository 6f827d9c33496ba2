//! Waits for futexes that are worth a look at the waiting thread, and what the look tells the capture.

use std::sync::Arc;

use anyhow::{Result, ensure};
use observer_common::{LockKey, TaskSlot, flag};

use super::{
    Capture,
    registers::{self, ThreadRegisters},
};
use crate::event::{Blocked, LockClass};

/// A wait for a futex that has gone on for a while.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// The wait.
    pub blocked: Blocked,
    /// Is there a time limit?
    pub timed: bool,
    /// When it began, `CLOCK_MONOTONIC` nanoseconds: with the thread it identifies the wait.
    pub start_ns: u64,
}

impl Capture {
    /// Waits for futexes that have become old enough for a look since the last call.
    pub fn suspects(&mut self) -> Vec<Suspect> {
        let now = crate::time::mono_ns();
        let slots = self.inflight.suspects();
        slots.iter().map(|slot| self.suspect(slot, now)).collect()
    }

    fn suspect(&mut self, slot: &TaskSlot, now: u64) -> Suspect {
        Suspect {
            blocked: self.converter.blocked(slot, now),
            timed: slot.flags & flag::TIMED != 0,
            start_ns: slot.start_ns,
        }
    }

    /// Registers of all threads of a process, in one read of the kernel.
    ///
    /// # Errors
    /// This kernel does not give them (`meta` says so): [`crate::inspect::registers::from_proc`] does.
    pub fn registers(&mut self, pid: u32) -> Result<Vec<ThreadRegisters>> {
        ensure!(
            self.loaded.registers,
            "the registers of threads are not to be had"
        );
        registers::read(&mut self.loaded.ebpf, Some(pid))
    }

    /// Registers of one thread, likewise: much cheaper where there are many. `None`: the thread is not there, or those
    /// of its process are to be asked for ([`Self::leave_single_threads`]).
    pub fn registers_of_thread(&mut self, tid: u32) -> Option<ThreadRegisters> {
        if !self.loaded.registers || !self.loaded.single_threads {
            return None;
        }
        let read = registers::read_thread(&mut self.loaded.ebpf, tid);
        self.loaded.single_threads = read.is_ok();
        read.ok().flatten()
    }

    /// A thread that was not found by itself is one of its process's: no other is to be asked for by itself.
    pub fn leave_single_threads(&mut self) {
        self.loaded.single_threads = false;
    }

    /// Was this wait still in progress when the tasks were last looked at?
    pub fn is_waiting(&self, tid: u32, start_ns: u64) -> bool {
        self.inflight.is_old(tid, start_ns) || self.inflight.is_reported(tid, start_ns)
    }

    /// Tasks of which [`Self::is_waiting`] may have become false since the last call; `None`: of any.
    pub fn no_longer_waiting(&mut self) -> Option<Vec<u32>> {
        self.inflight.over()
    }

    /// Is a wait that was told to be in progress still so, as far as is known?
    pub fn is_reported(&self, tid: u32, start_ns: u64) -> bool {
        self.inflight.is_reported(tid, start_ns)
    }

    /// Reads files of this size at most at the same time for names.
    pub fn set_budget(&mut self, bytes: u64) {
        self.converter.symbols.set_budget(bytes);
    }

    /// Sizes of the files that were read for names.
    pub fn symbol_bytes(&self) -> u64 {
        self.converter.symbols.bytes()
    }

    /// Gives back what was read for names, if it is time to. True: there was something.
    pub fn rest(&mut self) -> bool {
        self.converter.symbols.rest()
    }

    /// Takes back events that are told later, or not at all.
    pub fn take_back_events(&mut self, events: u64) {
        self.events = self.events.saturating_sub(events);
    }

    /// A thread that waits for the futex of a process, if one did when the tasks were last looked at.
    pub fn a_waiter(&self, pid: u32, futex: u64) -> Option<u32> {
        self.inflight.a_waiter(&LockKey {
            addr: futex,
            tgid: pid,
            pad: 0,
        })
    }

    /// Takes what a look told of the lock at `futex` of process `pid`: events name it so from now on.
    pub fn learn(&mut self, pid: u32, futex: u64, class: LockClass, name: Option<&Arc<str>>) {
        let key = LockKey {
            addr: futex,
            tgid: pid,
            pad: 0,
        };
        self.converter.learn(key, class, name);
    }

    /// The thread that was last seen to wake a waiter of a futex.
    pub fn waker(&self, pid: u32, futex: u64) -> Option<u32> {
        let index = self.loaded.locks.get(&[futex, u64::from(pid)], 0).ok()?;
        let stripes = self.loaded.stripes;
        (0..stripes)
            .filter_map(|stripe| {
                self.loaded
                    .lock_stats
                    .get(index as usize * stripes + stripe)
            })
            .filter(|stat| (stat.key.addr, stat.key.tgid) == (futex, pid))
            .max_by_key(|stat| stat.last_ns)
            .map(|stat| stat.waker_tid)
            .filter(|tid| *tid != 0)
    }
}
