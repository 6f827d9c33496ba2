//! What each CPU remembers between two runs of the programs: how the scheduler's clock relates to
//! `CLOCK_MONOTONIC`.
//!
//! It saves the call of a helper in the hottest path: a call costs more than all the loads and stores
//! around it, above all where returns are guarded against speculation. (The task that runs is asked for
//! by a call all the same: a few context switches reach no program, and a waker must not be a guess.)

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};
use observer_common::ABSENT;

use crate::{maps, settings, task::Task};

/// The relation of the clocks is taken anew after this long. Within it they drift apart by less than
/// 5 µs even while the time daemon steers at its limit of 500 parts per million.
const FRESH_NS: u64 = 10_000_000;
/// More than this, and 500 parts per million of the time since, the clocks do not drift apart.
const DRIFT_NS: u64 = 1_000;
const DRIFT_SHIFT: u64 = 11;
/// A difference that stays larger for so many readings is true: the clock was stepped.
const DOUBTS: u64 = 16;
/// The budget of stacks is renewed this often.
const STACK_PERIOD_NS: u64 = 100_000_000;

#[repr(C)]
struct Cpu {
    /// `CLOCK_MONOTONIC` minus the scheduler's clock.
    offset_ns: u64,
    /// Scheduler's clock up to which `offset_ns` is used.
    fresh_until_ns: u64,
    /// How many times in a row a new offset was not believed.
    doubts: u64,
    /// The latest result of [`switch_ns`] on this CPU.
    last_switch_ns: u64,
    /// Stacks that may still be taken, and when that number is renewed.
    stacks: u64,
    stacks_until_ns: u64,
    /// Short waits that ended here, for sampling.
    waits: u64,
    /// 1: the programs are inside an operation of a map that takes locks of its own.
    busy: u64,
}

#[map]
static CPU: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// `CLOCK_MONOTONIC` nanoseconds.
#[inline(always)]
pub(crate) fn clock_ns() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// `CLOCK_MONOTONIC` nanoseconds of a context switch that `task` takes part in, on its CPU: the
/// scheduler has just read its own clock, which is used instead of reading another.
#[inline(always)]
pub(crate) fn switch_ns(task: Task) -> u64 {
    if settings::off_rq_clock() == ABSENT {
        return clock_ns();
    }
    let sched_ns = task.rq_clock();
    let Some(cpu) = CPU.get_ptr_mut(0) else {
        return clock_ns();
    };
    // SAFETY: a pointer to this CPU's entry; nothing else runs on this CPU meanwhile.
    unsafe {
        let until_ns = (*cpu).fresh_until_ns;
        let now = if sched_ns < until_ns && sched_ns.wrapping_add(FRESH_NS) >= until_ns {
            sched_ns.wrapping_add((*cpu).offset_ns)
        } else {
            let now = clock_ns();
            let offset_ns = now.wrapping_sub(sched_ns);
            // A run queue's clock that stood still for a while, and a host that took the CPU away between
            // the two readings, make the difference too large, never too small.
            let elapsed_ns = sched_ns.wrapping_add(FRESH_NS).wrapping_sub(until_ns);
            let drift_ns = DRIFT_NS + (elapsed_ns >> DRIFT_SHIFT);
            let grown_ns = offset_ns.wrapping_sub((*cpu).offset_ns) as i64;
            if until_ns == 0 || grown_ns <= drift_ns as i64 || (*cpu).doubts >= DOUBTS {
                (*cpu).offset_ns = offset_ns;
                (*cpu).fresh_until_ns = sched_ns.wrapping_add(FRESH_NS);
                (*cpu).doubts = 0;
            } else {
                (*cpu).doubts += 1;
            }
            now
        };
        (*cpu).last_switch_ns = now;
        now
    }
}

/// When a task last went to sleep or woke on this CPU: never later than now.
#[inline(always)]
pub(crate) fn last_switch_ns() -> u64 {
    match CPU.get_ptr_mut(0) {
        // SAFETY: a pointer to this CPU's entry.
        Some(cpu) => unsafe { (*cpu).last_switch_ns },
        None => 0,
    }
}

/// Spends one of this CPU's stacks, if the budget has one: for a wait that is worth it (`urgent`) the
/// last one, for any other only from the first half, so that the urgent ones find some.
#[inline(always)]
pub(crate) fn take_stack(now: u64, urgent: bool) -> bool {
    let (Some(cpu), Some(config)) = (CPU.get_ptr_mut(0), maps::CONFIG.get(0)) else {
        return false;
    };
    // SAFETY: pointers to map entries; user space may change the configuration at any time.
    unsafe {
        let tokens = core::ptr::read_volatile(&raw const config.stack_tokens);
        if now >= (*cpu).stacks_until_ns {
            (*cpu).stacks = tokens;
            (*cpu).stacks_until_ns = now + STACK_PERIOD_NS;
        }
        let reserve = if urgent { 0 } else { tokens / 2 };
        if (*cpu).stacks <= reserve {
            return false;
        }
        (*cpu).stacks -= 1;
    }
    true
}

/// How many times a short wait counts: once, unless the budget asks for sampling; then most count not
/// at all, and one in so many counts for all of them.
#[inline(always)]
pub(crate) fn weight() -> u64 {
    let (Some(cpu), Some(config)) = (CPU.get_ptr_mut(0), maps::CONFIG.get(0)) else {
        return 1;
    };
    // SAFETY: pointers to map entries; user space may change the configuration at any time.
    unsafe {
        let shift = core::ptr::read_volatile(&raw const config.sample_shift) & 15;
        if shift == 0 {
            return 1;
        }
        (*cpu).waits += 1;
        if (*cpu).waits & ((1 << shift) - 1) == 0 {
            1 << shift
        } else {
            0
        }
    }
}

/// Brackets an operation of a map that takes a lock inside the kernel: if that lock is contended, the
/// kernel tells the programs of [`crate::klock`] so, and they must not touch the map again.
#[inline(always)]
pub(crate) fn set_busy(busy: bool) {
    if let Some(cpu) = CPU.get_ptr_mut(0) {
        // SAFETY: a pointer to this CPU's entry.
        unsafe { core::ptr::write_volatile(&raw mut (*cpu).busy, u64::from(busy)) };
    }
}

/// See [`set_busy`].
#[inline(always)]
pub(crate) fn is_busy() -> bool {
    CPU.get_ptr_mut(0)
        // SAFETY: a pointer to this CPU's entry.
        .is_some_and(|cpu| unsafe { core::ptr::read_volatile(&raw const (*cpu).busy) } != 0)
}
