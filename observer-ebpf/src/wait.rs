//! A wait begins, a wait ends: the one meaning behind both ways of knowing a futex wait.

use core::ptr::write_volatile;

use observer_common::{
    FutexWaitv, NR_NONE, NR_UNSURE, TaskSlot, WaitRecord, WaitvRecord, counter, flag, kind,
    outcome, syscall, syscall::futex_op,
};

use crate::{
    cpu, futex, maps, stats,
    task::{Entry, Task},
};

/// `BPF_RB_NO_WAKEUP`: the reader polls; waking it for each record costs more than all the rest.
const NO_WAKEUP: u64 = 1;
/// A waker may be seen this long before the sleep it ends, when it runs on another CPU while the
/// sleeper is on its way off its own. Older wake-ups belong to an earlier sleep.
const EARLY_WAKE_NS: u64 = 20_000;

/// `SIGCHLD` (17) in a set of signals.
const SIGCHLD: u64 = 1 << 16;
/// Readings of the clock on two CPUs may be this far apart.
const CLOCK_TOLERANCE_NS: u64 = 1_000_000;

/// What a system call waits for, in the terms of a task's entry.
#[derive(Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) nr: i32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) addr: u64,
    pub(crate) op: u32,
}

/// Kind of a waiting futex operation.
#[inline(always)]
pub(crate) fn futex_kind(op: u32) -> u8 {
    match op & futex_op::CMD_MASK {
        futex_op::LOCK_PI | futex_op::LOCK_PI2 => kind::LOCK,
        futex_op::WAIT_REQUEUE_PI => kind::CONDVAR,
        _ => kind::FUTEX,
    }
}

/// Is it a futex that is waited for?
#[inline(always)]
pub(crate) fn is_futex_call(nr: i32) -> bool {
    nr == syscall::FUTEX || nr == syscall::FUTEX_WAIT || nr == syscall::FUTEX_WAITV
}

/// A wait begins, or a task sleeps again in the same system call.
#[inline(always)]
pub(crate) fn begin(task: Task, entry: &Entry, tgid: u32, purpose: Purpose, state: u32, now: u64) {
    let slot = entry.slot;
    // SAFETY: `slot` and `head` point to map entries that only the CPU of this task writes, but for the
    // fields of the waker.
    unsafe {
        (*slot).sleep_ns = now;
        (*slot).state = state as u8;
        if (*slot).wake_ns + EARLY_WAKE_NS < now {
            (*slot).wake_ns = 0;
            (*slot).waker_tid = 0;
            (*slot).waker_nr = NR_UNSURE;
            (*slot).signals = 0;
        }
        if Task::has_run_delay() {
            (*slot).run_delay_ns = task.run_delay();
        }
        (*slot).flags = purpose.flags | ((*slot).flags & flag::AFTER_LONG);
        // The task has not left the system call: the same wait goes on.
        if (*entry.head).start_ns != 0 {
            return;
        }
        (*slot).tid = (*entry.head).tid;
        (*slot).tgid = tgid;
        (*slot).nr = purpose.nr;
        (*slot).kind = purpose.kind;
        (*slot).addr = purpose.addr;
        (*slot).op = purpose.op;
        (*slot).blocked_ns = 0;
        (*slot).runqueue_ns = 0;
        write_volatile(&raw mut (*slot).start_ns, now);
        write_volatile(&raw mut (*entry.head).start_ns, now);
    }
}

/// Is there a wait whose end was not seen, though the task runs?
#[inline(always)]
pub(crate) fn is_unsettled(entry: &Entry) -> bool {
    // SAFETY: `slot` points to a map entry.
    entry.start_ns() != 0 && unsafe { (*entry.slot).flags } & flag::RAN == 0
}

/// Ends the wait of a task that leaves its CPU and was not seen to get it, as of when the scheduler says
/// that it got it.
#[inline(always)]
pub(crate) fn settle(task: Task, entry: &Entry) {
    let slot = entry.slot;
    let now = cpu::switch_ns(task);
    // SAFETY: `slot` and `head` point to map entries of the task that leaves this CPU.
    unsafe {
        let got_ns = if Task::has_run_delay() {
            now.saturating_sub(task.rq_clock().saturating_sub(task.last_arrival()))
        } else {
            0
        };
        if got_ns < (*slot).sleep_ns {
            write_volatile(&raw mut (*entry.head).start_ns, 0);
            // A wait that was entered while it was just ending has been no wait that began meanwhile.
            if (*slot).flags & flag::SEEDED == 0 {
                maps::lose(counter::SWITCH_MISSED);
            }
            return;
        }
        let queued_ns = task.run_delay().saturating_sub((*slot).run_delay_ns);
        add_sleep(slot, got_ns - (*slot).sleep_ns, queued_ns);
        (*slot).flags |= flag::SPLIT;
        maps::lose(counter::END_INFERRED);
        if (*slot).flags & flag::BY_SYSCALL != 0 {
            (*slot).flags |= flag::RAN;
            return;
        }
        end(entry, outcome_of(slot), -1, got_ns);
    }
}

/// Ends a wait whose system call was not seen to return, as of its last sleep.
#[inline(always)]
pub(crate) fn returned(entry: &Entry) {
    let slot = entry.slot;
    // SAFETY: `slot` points to a map entry.
    let last_ns = unsafe { (*slot).start_ns + (*slot).blocked_ns + (*slot).runqueue_ns };
    maps::lose(counter::END_INFERRED);
    end(entry, outcome_of(slot), -1, last_ns);
}

/// Adds a sleep that is over to the wait.
#[inline(always)]
unsafe fn add_sleep(slot: *mut TaskSlot, all_ns: u64, queued_ns: u64) {
    let runqueue_ns = if queued_ns < all_ns {
        queued_ns
    } else {
        all_ns
    };
    // SAFETY: the caller passes a map entry that only this CPU writes.
    unsafe {
        (*slot).blocked_ns += all_ns - runqueue_ns;
        (*slot).runqueue_ns += runqueue_ns;
    }
}

/// A task is on a CPU again: adds the sleep that is over to the wait.
#[inline(always)]
pub(crate) fn resume(task: Task, slot: *mut TaskSlot, now: u64) {
    // SAFETY: `slot` points to a map entry that only the CPU of this task writes, but for the fields of
    // the waker.
    unsafe {
        let slept_ns = (*slot).sleep_ns;
        // Two CPUs' readings may differ by a little, and a run queue's clock may stand still for a while.
        // By more, the duration would be a lie.
        let now = if now < slept_ns { cpu::clock_ns() } else { now };
        if now < slept_ns {
            if slept_ns - now > CLOCK_TOLERANCE_NS {
                maps::lose(counter::CLOCK_BACKWARDS);
            }
            return;
        }
        let all_ns = now - slept_ns;
        let runqueue_ns = if Task::has_run_delay() {
            (*slot).flags |= flag::SPLIT;
            queued_ns(task, (*slot).run_delay_ns)
        } else if (*slot).wake_ns != 0 {
            (*slot).flags |= flag::SPLIT;
            now.saturating_sub((*slot).wake_ns)
        } else {
            0
        };
        add_sleep(slot, all_ns, runqueue_ns);
    }
}

/// Time on run queues since the task slept, by the scheduler's own account, which adds up its stays on
/// several CPUs' queues. `sched_switch` comes before the present stay is closed.
#[inline(always)]
fn queued_ns(task: Task, before_ns: u64) -> u64 {
    let earlier_ns = task.run_delay().saturating_sub(before_ns);
    match task.last_queued() {
        0 => earlier_ns,
        since => earlier_ns + task.rq_clock().saturating_sub(since),
    }
}

/// A wait ended: adds it to the totals, and sends it if it was long.
///
/// What is lost is counted at once. Handed back it would be kept on the stack, where nothing is written when
/// nothing was lost; and before 6.2 the verifier lets no program read what it has not written.
#[inline(always)]
pub(crate) fn end(entry: &Entry, how: u8, ret: i64, now: u64) {
    let slot = entry.slot;
    // SAFETY: `slot` and `head` point to map entries that only the CPU of this task writes, but for the
    // fields of the waker.
    unsafe {
        write_volatile(&raw mut (*entry.head).start_ns, 0);
        (*slot).outcome = how;
        let dur_ns = (*slot).blocked_ns + (*slot).runqueue_ns;
        if (*slot).nr == syscall::FUTEX_WAITV && ret >= 0 {
            woken_futex(slot, ret as u64);
        }
        let long = dur_ns >= threshold();
        let times = if long { 1 } else { cpu::weight() };
        if times > 0 {
            if matches!((*slot).kind, kind::FUTEX | kind::LOCK | kind::CONDVAR)
                && is_futex_call((*slot).nr)
            {
                stats::add_lock_wait(slot, dur_ns, now, times);
            }
            stats::add_task_wait(entry, (*slot).kind, dur_ns, times);
        }
        (*entry.head).waits = (*entry.head).waits.wrapping_add(1);
        if long {
            (*slot).flags |= flag::AFTER_LONG;
            send(entry, ret, now);
        } else {
            (*slot).flags &= !flag::AFTER_LONG;
            if (*slot).user_stack != 0 {
                (*slot).flags |= flag::SAMPLE;
                send(entry, ret, now);
                (*slot).flags &= !flag::SAMPLE;
            }
        }
        if (*slot).nr == syscall::FUTEX_WAITV {
            let _ = maps::VECTORS.remove((*slot).tid);
        }
        (*slot).wake_ns = 0;
        (*slot).waker_tid = 0;
    }
}

/// Puts the address of the futex that ended a `futex_waitv` in the place of the first one.
#[inline(always)]
unsafe fn woken_futex(slot: *mut TaskSlot, index: u64) {
    // SAFETY: `slot` points to a map entry; the vector's index is less than its room.
    unsafe {
        if let Some(vector) = maps::VECTORS.get((*slot).tid)
            && index < vector.len
        {
            let futex = (&raw const vector.futexes)
                .cast::<FutexWaitv>()
                .add(futex::bounded(index) as usize);
            (*slot).addr = (*futex).uaddr;
            (*slot).op = (*futex).flags & futex_op::PRIVATE;
        }
    }
}

/// Sends a wait through the ring buffer.
#[inline(always)]
unsafe fn send(entry: &Entry, ret: i64, now: u64) {
    // SAFETY: `slot` points to a map entry.
    let (nr, tid) = unsafe { ((*entry.slot).nr, (*entry.slot).tid) };
    if nr == syscall::FUTEX_WAITV
        && let Some(vector) = maps::VECTORS.get_ptr(tid)
    {
        let Some(mut space) = maps::RING.reserve::<WaitvRecord>(0) else {
            maps::lose(counter::RING_FULL);
            return;
        };
        let to = space.as_mut_ptr();
        // SAFETY: the reservation has room for the whole record; `vector` is a map value.
        unsafe {
            fill(&raw mut (*to).wait, entry, ret, now);
            copy_vector(vector, &raw mut (*to).vector);
        }
        space.submit(NO_WAKEUP);
        return;
    }
    let Some(mut space) = maps::RING.reserve::<WaitRecord>(0) else {
        maps::lose(counter::RING_FULL);
        return;
    };
    // SAFETY: the reservation has room for the whole record.
    unsafe { fill(space.as_mut_ptr(), entry, ret, now) };
    space.submit(NO_WAKEUP);
}

/// Writes a record in its place.
#[inline(always)]
unsafe fn fill(to: *mut WaitRecord, entry: &Entry, ret: i64, now: u64) {
    // SAFETY: the caller passes room for a record; `slot` and the statistics are map entries.
    unsafe {
        (*to).slot = *entry.slot;
        (*to).end_ns = now;
        (*to).ret = ret;
        (*to).comm = match entry.stats() {
            Some(stat) => (*stat).comm,
            None => [0; 2],
        };
    }
}

/// A task that did not sleep is about to run: it was waiting for a CPU, after it was preempted, gave
/// way, or slept in a way that is no wait.
#[inline(always)]
pub(crate) fn queued(task: Task, entry: &Entry, now: u64) {
    if !Task::has_run_delay() {
        return;
    }
    // SAFETY: `slot` is a map entry.
    let dur_ns = queued_ns(task, unsafe { (*entry.slot).run_delay_ns });
    // SAFETY: as above; the next stay begins here, should the switch away not be seen.
    unsafe { (*entry.slot).run_delay_ns += dur_ns };
    if dur_ns == 0 {
        return;
    }
    stats::add_queued(entry, dur_ns);
    if dur_ns < threshold() {
        return;
    }
    let Some(mut space) = maps::RING.reserve::<WaitRecord>(0) else {
        maps::lose(counter::RING_FULL);
        return;
    };
    let now = if now == 0 { cpu::switch_ns(task) } else { now };
    let to = space.as_mut_ptr();
    // SAFETY: the reservation has room for the whole record; all of it is written.
    unsafe {
        fill(to, entry, -1, now);
        (*to).slot.start_ns = now.saturating_sub(dur_ns);
        (*to).slot.blocked_ns = 0;
        (*to).slot.runqueue_ns = dur_ns;
        (*to).slot.addr = 0;
        (*to).slot.tid = task.tid();
        (*to).slot.tgid = task.tgid();
        (*to).slot.nr = NR_NONE;
        (*to).slot.waker_tid = 0;
        (*to).slot.kind = kind::RUNQUEUE;
        (*to).slot.flags = flag::SPLIT;
        (*to).slot.user_stack = 0;
        (*to).slot.kernel_stack = 0;
        (*to).slot.outcome = outcome::UNKNOWN;
        (*to).comm = task.comm();
    }
    space.submit(NO_WAKEUP);
}

/// Waits at least this long are sent.
#[inline(always)]
pub(crate) fn threshold() -> u64 {
    match maps::CONFIG.get(0) {
        // SAFETY: a field of a map entry, which user space may change at any time.
        Some(config) => unsafe { core::ptr::read_volatile(&raw const config.min_wait_ns) },
        None => 0,
    }
}

/// Copies a vector by the kernel's own copy, not by a loop of bytes.
#[inline(always)]
unsafe fn copy_vector(
    from: *const observer_common::WaitVector,
    to: *mut observer_common::WaitVector,
) {
    // SAFETY: both are as large as the type; the helper reads kernel memory, which a map value is.
    unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            to.cast(),
            size_of::<observer_common::WaitVector>() as u32,
            from.cast(),
        );
    }
}

/// How a wait ended, where no return code tells: from who woke the task, and how.
#[inline(always)]
pub(crate) fn outcome_of(slot: *const TaskSlot) -> u8 {
    // SAFETY: `slot` points to a map entry.
    let (nr, kind, waker_nr, flags) =
        unsafe { ((*slot).nr, (*slot).kind, (*slot).waker_nr, (*slot).flags) };
    // SAFETY: as above.
    let (state, signals) = unsafe { ((*slot).state, (*slot).signals) };
    let uninterruptible = state & 1 == 0;
    // The end of a child is told by a signal as well, which is not what ends the wait for it.
    let others = if kind == kind::CHILD {
        !SIGCHLD
    } else {
        u64::MAX
    };
    let signal = signals & others != 0 && !uninterruptible;
    let futex = is_futex_call(nr) && matches!(kind, kind::FUTEX | kind::LOCK | kind::CONDVAR);
    let timed = flags & flag::TIMED != 0;
    // By a call that wakes this futex: that is how, even when a signal came as well.
    if futex && timed && waker_nr >= 0 {
        return outcome::WOKEN;
    }
    if signal {
        return outcome::INTERRUPTED;
    }
    if futex {
        // Without a limit there is no other way. With one, it was the clock's interrupt.
        return match (timed, waker_nr) {
            (false, _) => outcome::WOKEN,
            (true, NR_NONE) => outcome::TIMEOUT,
            (true, _) => outcome::UNKNOWN,
        };
    }
    match kind {
        kind::SLEEP => outcome::TIMEOUT,
        kind::CHILD | kind::PAGE_FAULT | kind::LOCK => outcome::WOKEN,
        // Nothing but its completion ends an uninterruptible sleep in a call without a time limit; the
        // others may have a limit of their own that is not known here.
        kind::IO | kind::FILE if uninterruptible => outcome::WOKEN,
        kind::SEMAPHORE if nr == syscall::SEMOP => outcome::WOKEN,
        _ => outcome::UNKNOWN,
    }
}
