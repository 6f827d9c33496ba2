//! Locks inside the kernel: tracepoints `lock:contention_begin` (lock, flags) and `contention_end`
//! (lock, result), from 5.19 on. They fire only when a lock is contended.
//!
//! A task waits for one sleeping lock at a time; spinning is done with preemption off, so its state
//! belongs to the CPU, where an interrupt may spin for another lock meanwhile.

use aya_ebpf::{
    helpers::generated::bpf_get_current_task_btf, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_ebpf::{macros::map, maps::PerCpuArray};
use observer_common::{LockKey, counter, klock};

use crate::{
    cpu, filter, maps,
    stats::{self, Counted},
    task::{Entry, Task},
};

/// Contexts that can spin on one CPU at the same time: task, soft interrupt, interrupt, NMI.
const NESTED: usize = 4;

/// Nobody spins for this long.
const STALE_NS: u64 = 1_000_000_000;

#[repr(C)]
struct Spin {
    /// Address of the lock; 0: unused.
    lock: u64,
    since_ns: u64,
    flags: u64,
}

#[map]
static SPINS: PerCpuArray<[Spin; NESTED]> = PerCpuArray::with_max_entries(1, 0);

/// Does the waiter only spin? A mutex is spun for by a task that can be preempted.
#[inline(always)]
fn only_spins(flags: u32) -> bool {
    flags & (klock::SPIN | klock::MUTEX) == klock::SPIN
}

/// The entry of the running task, if it is one to observe.
#[inline(always)]
fn observed() -> Result<Option<Entry>, u32> {
    // SAFETY: the helper has no precondition; kernels with these tracepoints have it.
    let task = Task(unsafe { bpf_get_current_task_btf() }.cast_const().cast());
    let tgid = task.tgid();
    if task.tid() == 0 || task.is_kernel_thread() || !filter::passes(tgid) {
        return Ok(None);
    }
    Entry::claim(task.tid(), tgid).map(Some)
}

#[btf_tracepoint(function = "contention_begin")]
#[inline(always)]
pub(crate) fn contention_begin(ctx: BtfTracePointContext) -> i32 {
    if cpu::is_busy() {
        return 0;
    }
    let lock = ctx.arg::<u64>(0);
    let flags = ctx.arg::<u64>(1) as u32;
    maps::lose_on(begin(lock, flags));
    0
}

#[inline(always)]
fn begin(lock: u64, flags: u32) -> Result<(), u32> {
    let Some(entry) = observed()? else {
        return Ok(());
    };
    if only_spins(flags) {
        let spins = SPINS.get_ptr_mut(0).ok_or(counter::KLOCK_NESTED)?;
        let now = cpu::clock_ns();
        let mut i = 0;
        while i < NESTED {
            // SAFETY: a pointer to this CPU's array, and an index within it.
            unsafe {
                let spin = &raw mut (*spins)[i];
                // An end may be missed, when it comes inside these programs: what is left of it is
                // overwritten.
                let stale = (*spin).lock == lock || now.saturating_sub((*spin).since_ns) > STALE_NS;
                if (*spin).lock == 0 || stale {
                    (*spin).since_ns = now;
                    (*spin).flags = u64::from(flags);
                    (*spin).lock = lock;
                    return Ok(());
                }
            }
            i += 1;
        }
        return Err(counter::KLOCK_NESTED);
    }
    // SAFETY: `slot` is a map entry of the running task.
    unsafe {
        let slot = entry.slot;
        // A task cannot wait for two: of another lock the end was missed. The same lock again: after
        // spinning in vain the task is about to sleep.
        if (*slot).klock != lock {
            (*slot).klock_ns = cpu::clock_ns();
        }
        (*slot).klock = lock;
        (*slot).klock_flags = flags;
    }
    Ok(())
}

#[btf_tracepoint(function = "contention_end")]
#[inline(always)]
pub(crate) fn contention_end(ctx: BtfTracePointContext) -> i32 {
    if cpu::is_busy() {
        return 0;
    }
    let lock = ctx.arg::<u64>(0);
    let Some((since_ns, flags)) = waited(lock) else {
        return 0;
    };
    let now = cpu::clock_ns();
    let key = LockKey {
        addr: lock,
        tgid: 0,
        pad: 0,
    };
    let counted = Counted {
        dur_ns: now.saturating_sub(since_ns),
        now,
        op: flags,
        outcome: 0,
        waker_tid: 0,
    };
    maps::lose_on(stats::add_kernel_lock_wait(&ctx, &key, &counted));
    0
}

/// Since when the lock was waited for, and its flags; `None` if the beginning was not seen.
#[inline(always)]
fn waited(lock: u64) -> Option<(u64, u32)> {
    let spins = SPINS.get_ptr_mut(0)?;
    let mut i = 0;
    while i < NESTED {
        // SAFETY: a pointer to this CPU's array, and an index within it.
        unsafe {
            let spin = &raw mut (*spins)[i];
            if (*spin).lock == lock {
                (*spin).lock = 0;
                return Some(((*spin).since_ns, (*spin).flags as u32));
            }
        }
        i += 1;
    }
    let (tid, _) = crate::task::current();
    let entry = Entry::find(tid)?;
    // SAFETY: `slot` is a map entry of the running task.
    unsafe {
        if (*entry.slot).klock != lock {
            return None;
        }
        (*entry.slot).klock = 0;
        Some(((*entry.slot).klock_ns, (*entry.slot).klock_flags))
    }
}
