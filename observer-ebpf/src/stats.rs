//! Totals per lock and per task: complete, whatever the threshold for single waits is.

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    programs::{BtfTracePointContext, tracing::StackIdContext as _},
};
use observer_common::{
    LOCKS_OF_TASK, LockKey, LockStat, TaskSlot, bucket, counter, flag, kind, outcome,
};

use crate::{cpu, maps, settings, task::Entry};

/// Adds to a counter; atomically only where CPUs share it. The compiler knows no atomic addition for
/// this target, so it is written out: the one such instruction that kernels from 5.10 on know.
macro_rules! adder {
    ($name:ident, $type:ty, $instruction:literal) => {
        #[inline(always)]
        unsafe fn $name(to: *mut $type, value: $type) {
            // SAFETY: the caller passes an aligned field of a map entry.
            unsafe {
                if settings::shared_stripes() == 0 {
                    *to += value;
                    return;
                }
                #[cfg(target_arch = "bpf")]
                core::arch::asm!($instruction, to = in(reg) to, value = in(reg) u64::from(value));
            }
        }
    };
}

adder!(add64, u64, "lock *(u64 *)({to} + 0) += {value}");
adder!(add32, u32, "lock *(u32 *)({to} + 0) += {value}");

/// Totals of lock `index` on this CPU's stripe.
#[inline(always)]
fn stripe(index: u32) -> Option<*mut LockStat> {
    let shift = settings::stripe_shift() & 7;
    // SAFETY: the helper has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() } & ((1 << shift) - 1);
    maps::LOCK_STATS.get_ptr_mut((index << shift) | cpu)
}

/// Index of a lock's totals, a new one if it has none yet.
#[inline(always)]
fn index_of(key: &LockKey) -> Result<u32, u32> {
    // SAFETY: the value is copied at once; entries are never freed while a program runs.
    let known = |key| unsafe { maps::LOCKS.get(key) }.copied();
    if let Some(index) = known(key) {
        return Ok(index);
    }
    cpu::set_busy(true);
    let index = match maps::FREE.pop() {
        // BPF_NOEXIST: of two CPUs that see a new lock at the same time one wins.
        Ok(Some(index)) if maps::LOCKS.insert(key, index, 1).is_ok() => Ok(index),
        Ok(Some(index)) => {
            let _ = maps::FREE.push(index, 0);
            known(key).ok_or(counter::LOCK_INSERT)
        }
        _ => Err(counter::LOCKS_FULL),
    };
    cpu::set_busy(false);
    index
}

/// The place of a lock among those of a task, by Fibonacci hashing: words of one lock lie next to each other.
#[inline(always)]
fn place_of(addr: u64) -> usize {
    const BITS: u32 = LOCKS_OF_TASK.trailing_zeros();
    (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as usize & (LOCKS_OF_TASK - 1)
}

/// A lock's totals: by the index that the task remembers (`cached`, plus one), else by key.
#[inline(always)]
unsafe fn find(cached: &mut u32, key: &LockKey) -> Result<*mut LockStat, u32> {
    // SAFETY: the statistics are map entries.
    unsafe {
        if *cached != 0
            && let Some(stat) = stripe(*cached - 1)
            && (*stat).key.addr == key.addr
            && (*stat).key.tgid == key.tgid
        {
            return Ok(stat);
        }
        let index = index_of(key)?;
        *cached = index + 1;
        let Some(stat) = stripe(index) else {
            return Err(counter::LOCK_INSERT);
        };
        if (*stat).key.addr == 0 {
            (*stat).key = *key;
        }
        // User space is about to recycle the entry: what is counted now would go to another lock.
        if (*stat).key.addr != key.addr || (*stat).key.tgid != key.tgid {
            return Err(counter::LOCK_INSERT);
        }
        Ok(stat)
    }
}

/// What is counted of one wait for a lock.
pub(crate) struct Counted {
    pub(crate) dur_ns: u64,
    pub(crate) now: u64,
    pub(crate) op: u32,
    pub(crate) outcome: u8,
    pub(crate) waker_tid: u32,
}

#[inline(always)]
unsafe fn count(stat: *mut LockStat, wait: &Counted, times: u64) {
    // SAFETY: `stat` is a map entry.
    unsafe {
        add64(&raw mut (*stat).count, times);
        add64(&raw mut (*stat).total_ns, wait.dur_ns * times);
        if wait.dur_ns > (*stat).max_ns {
            (*stat).max_ns = wait.dur_ns;
        }
        match wait.outcome {
            outcome::TIMEOUT => add32(&raw mut (*stat).timeouts, times as u32),
            outcome::INTERRUPTED => add32(&raw mut (*stat).interrupted, times as u32),
            _ => {}
        }
        (*stat).op = wait.op;
        (*stat).waker_tid = wait.waker_tid;
        (*stat).last_ns = wait.now;
        let bucket = bucket(wait.dur_ns) as usize & (observer_common::BUCKETS - 1);
        add32(&raw mut (*stat).histogram[bucket], times as u32);
    }
}

/// Counts a wait for the lock in `slot`.
#[inline(always)]
pub(crate) unsafe fn add_lock_wait(slot: *mut TaskSlot, dur_ns: u64, now: u64, times: u64) {
    // SAFETY: `slot` and the statistics are map entries.
    unsafe {
        let key = LockKey {
            addr: (*slot).addr,
            tgid: (*slot).tgid,
            pad: 0,
        };
        let place = place_of(key.addr);
        let stat = match find(&mut (*slot).locks[place], &key) {
            Ok(stat) => stat,
            Err(cause) => {
                maps::lose(cause);
                return;
            }
        };
        let wait = Counted {
            dur_ns,
            now,
            op: (*slot).op,
            outcome: (*slot).outcome,
            waker_tid: (*slot).waker_tid,
        };
        count(stat, &wait, times);
    }
}

/// Counts a wait for a lock inside the kernel. Of a lock's first wait the stack is kept: it names a lock
/// that has no symbol.
#[inline(always)]
pub(crate) fn add_kernel_lock_wait(
    ctx: &BtfTracePointContext,
    key: &LockKey,
    wait: &Counted,
) -> Result<(), u32> {
    let mut cached = 0;
    // SAFETY: the statistics are map entries.
    unsafe {
        let stat = find(&mut cached, key)?;
        if (*stat).count == 0 {
            cpu::set_busy(true);
            (*stat).stack = ctx
                .get_stackid(&maps::STACKS, 0)
                .map_or(0, |id| id as u32 + 1);
            cpu::set_busy(false);
        }
        count(stat, wait, 1);
    }
    Ok(())
}

/// Counts a wait of a task. A task ends one wait at a time, so nothing here is shared.
#[inline(always)]
pub(crate) fn add_task_wait(entry: &Entry, kind: u8, dur_ns: u64, times: u64) {
    let Some(stat) = entry.stats() else { return };
    // SAFETY: a pointer to a map entry, checked above; the index is masked to the array's length.
    unsafe {
        let runqueue_ns = (*entry.slot).runqueue_ns;
        add_kind(stat, kind, dur_ns, times);
        if (*entry.slot).flags & flag::SPLIT != 0 {
            add_kind(stat, kind::RUNQUEUE, runqueue_ns, times);
        }
    }
}

/// Counts a wait for a CPU of a task that had not slept.
#[inline(always)]
pub(crate) fn add_queued(entry: &Entry, dur_ns: u64) {
    let Some(stat) = entry.stats() else { return };
    // SAFETY: a pointer to a map entry, checked above; `head` is one of the same task.
    unsafe {
        add_kind(stat, kind::RUNQUEUE, dur_ns, 1);
        (*entry.head).waits = (*entry.head).waits.wrapping_add(1);
    }
}

#[inline(always)]
unsafe fn add_kind(stat: *mut observer_common::TaskStat, kind: u8, dur_ns: u64, times: u64) {
    // SAFETY: `stat` is a map entry; the index is masked to the array's length, a power of two.
    unsafe {
        let kind = &raw mut (*stat).kinds[kind as usize & (kind::COUNT - 1)];
        (*kind).count += times;
        (*kind).total_ns += dur_ns * times;
        if dur_ns > (*kind).max_ns {
            (*kind).max_ns = dur_ns;
        }
    }
}
