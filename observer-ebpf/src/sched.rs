//! Scheduler hooks: a task sleeps, is made runnable, runs again, ends.
//!
//! BTF tracepoints `sched_switch` (preempt, prev, next and, from 5.18 on, prev_state) and `sched_waking`
//! (task).

use aya_ebpf::{
    macros::btf_tracepoint,
    programs::{BtfTracePointContext, tracing::StackIdContext as _},
};
use observer_common::{NR_NONE, TID_ENDED, WOKEN, counter, flag, kind, syscall, syscall::futex_op};

use crate::{
    call::{self, Call},
    cpu, file, filter, futex, maps, settings,
    task::{Entry, Task, current, report},
    wait::{self, Purpose},
};

/// `TASK_DEAD`: the last switch of a task that has ended.
const TASK_DEAD: u32 = 0x80;
/// `BPF_F_USER_STACK`, and `BPF_F_FAST_STACK_CMP`: equal hashes are taken for equal stacks.
const USER_STACK: u64 = 256;
const FAST_STACK_CMP: u64 = 512;
/// `TASK_INTERRUPTIBLE` and `TASK_UNINTERRUPTIBLE` (include/linux/sched.h).
const INTERRUPTIBLE: u32 = 1;
pub(crate) const SLEEPING: u32 = 3;

#[btf_tracepoint(function = "sched_switch")]
#[inline(always)]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let (prev, next) = (Task::arg(&ctx, 1), Task::arg(&ctx, 2));
    let state = if settings::has_state_arg() != 0 {
        ctx.arg::<u64>(3) as u32
    } else {
        prev.state()
    };
    let mut now = 0;
    if let Some(entry) = Entry::find(prev.tid())
        && wait::is_unsettled(&entry)
    {
        wait::settle(prev, &entry);
    }
    // A task that was preempted on its way to sleep is still runnable, whatever its state says.
    if state & TASK_DEAD != 0 {
        ends(prev);
    } else if state & SLEEPING != 0 && ctx.arg::<u64>(0) & 1 == 0 {
        report(&ctx, sleeps(&ctx, prev, state, &mut now));
    } else {
        report(&ctx, queues(prev));
    }
    runs(next, now);
    0
}

/// `task` leaves the CPU to sleep.
#[inline(always)]
fn sleeps(ctx: &BtfTracePointContext, task: Task, state: u32, now: &mut u64) -> Result<(), u32> {
    let tgid = task.tgid();
    if task.is_kernel_thread() || !filter::passes(tgid) {
        return Ok(());
    }
    let entry = Entry::claim(task.tid(), tgid)?;
    if let Some(stat) = entry.stats() {
        // SAFETY: a pointer to a map entry, checked above.
        unsafe { (*stat).comm = task.comm() };
    }
    let call = call::of(task);
    // The registers are one feature of several: without them the wait is still timed.
    let (call, result) = match call {
        Ok(call) => (call, Ok(())),
        Err(cause) => (Call::NONE, Err(cause)),
    };
    // SAFETY: `slot` is a map entry.
    let (last_nr, flags) = unsafe { ((*entry.slot).nr, (*entry.slot).flags) };
    let mut by_syscall = flags & flag::BY_SYSCALL != 0;
    if by_syscall && call.ip != 0 && call.nr != last_nr && call.nr != syscall::RESTART {
        // The task sleeps in another call: the return of the futex call was not seen.
        if entry.start_ns() != 0 {
            wait::returned(&entry);
        }
        // SAFETY: `slot` is a map entry of the task that leaves the CPU.
        unsafe { (*entry.slot).flags &= flag::AFTER_LONG };
        by_syscall = false;
    }
    if by_syscall && state & INTERRUPTIBLE == 0 {
        // Inside the futex call but not on the futex: a page of the word is read, a kernel lock taken.
        return result;
    }
    *now = cpu::switch_ns(task);
    let purpose = if by_syscall {
        futex::armed(&entry)
    } else {
        purpose(task, &entry, &call, state, last_nr, true)
    };
    wait::begin(task, &entry, tgid, purpose, state, *now);
    result.and(take_stacks(ctx, &entry, *now))
}

/// Notes where the task sleeps, within the budget. The task still is the one that runs.
#[inline(always)]
fn take_stacks(ctx: &BtfTracePointContext, entry: &Entry, now: u64) -> Result<(), u32> {
    let slot = entry.slot;
    // SAFETY: `slot` is a map entry.
    unsafe {
        (*slot).user_stack = 0;
        (*slot).kernel_stack = 0;
        if !cpu::take_stack(now, (*slot).flags & flag::AFTER_LONG != 0) {
            return Ok(());
        }
        cpu::set_busy(true);
        let user = ctx.get_stackid(&maps::STACKS, USER_STACK | FAST_STACK_CMP);
        let kernel = ctx.get_stackid(&maps::STACKS, FAST_STACK_CMP);
        cpu::set_busy(false);
        (*slot).user_stack = user.map_or(0, |id| id as u32 + 1);
        (*slot).kernel_stack = kernel.map_or(0, |id| id as u32 + 1);
        if user.is_err() || kernel.is_err() {
            return Err(counter::STACKS_SKIPPED);
        }
    }
    Ok(())
}

/// `task` leaves the CPU but could go on: from now on it is followed, if it was not yet.
#[inline(always)]
fn queues(task: Task) -> Result<(), u32> {
    let tid = task.tid();
    if let Some(entry) = Entry::find(tid) {
        if Task::has_run_delay() && entry.start_ns() == 0 {
            // SAFETY: `slot` is a map entry of the task that leaves the CPU.
            unsafe { (*entry.slot).run_delay_ns = task.run_delay() };
        }
        return Ok(());
    }
    if tid == 0 {
        return Ok(());
    }
    let tgid = task.tgid();
    if task.is_kernel_thread() || !filter::passes(tgid) {
        return Ok(());
    }
    let entry = Entry::claim(tid, tgid)?;
    if Task::has_run_delay() {
        // SAFETY: as above.
        unsafe { (*entry.slot).run_delay_ns = task.run_delay() };
    }
    Ok(())
}

/// What a task that sleeps in `call` waits for. `running`: the task's memory can be read, because it
/// still is the one that runs.
#[inline(always)]
pub(crate) fn purpose(
    task: Task,
    entry: &Entry,
    call: &Call,
    state: u32,
    last_nr: i32,
    running: bool,
) -> Purpose {
    // A call that goes on after a stop has the arguments of the call it restarts.
    let nr = if call.nr == syscall::RESTART && last_nr != 0 {
        last_nr
    } else {
        call.nr
    };
    let mut purpose = Purpose {
        nr,
        kind: kind::OTHER,
        flags: 0,
        addr: call.args[0],
        op: call.args[1] as u32,
    };
    if call.ip == 0 && call.nr >= 0 {
        // A thread that the kernel made for the program: its registers are a copy of its creator's.
        purpose.nr = NR_NONE;
        return purpose;
    }
    if call.compat {
        purpose.flags = flag::COMPAT;
        return purpose;
    }
    if nr < 0 {
        // Only an exception leaves no number; without registers nothing is known.
        if call.ip != 0 {
            purpose.kind = kind::PAGE_FAULT;
        }
        return purpose;
    }
    let futex = wait::is_futex_call(nr) && state & INTERRUPTIBLE != 0;
    // SAFETY: `slot` is a map entry.
    let (klock, klock_flags) = unsafe { ((*entry.slot).klock, (*entry.slot).klock_flags) };
    if klock != 0 && !futex {
        purpose.kind = kind::KERNEL_LOCK;
        purpose.addr = klock;
        purpose.op = klock_flags;
        return purpose;
    }
    if wait::is_futex_call(nr) {
        if futex {
            futex::from_registers(entry, call, &mut purpose, running);
        }
        return purpose;
    }
    if (nr as usize) < syscall::MAX {
        purpose.kind = KINDS[nr as usize & (syscall::MAX - 1)];
    }
    if purpose.kind == kind::FILE {
        purpose.kind = file::kind(task, purpose.addr);
    }
    purpose
}

/// In read-only data: a `const` would be copied to the stack.
static KINDS: [u8; syscall::MAX] = syscall::KINDS;

/// `task` is about to run.
#[inline(always)]
fn runs(task: Task, now: u64) {
    let tid = task.tid();
    if tid == 0 {
        return;
    }
    let Some(entry) = Entry::find(tid) else {
        return;
    };
    if entry.start_ns() == 0 {
        wait::queued(task, &entry, now);
        return;
    }
    // SAFETY: `slot` is a map entry.
    unsafe {
        if (*entry.slot).flags & flag::RAN != 0 {
            return;
        }
    }
    let now = if now == 0 { cpu::switch_ns(task) } else { now };
    wait::resume(task, entry.slot, now);
    // SAFETY: as above.
    unsafe {
        if (*entry.slot).flags & flag::BY_SYSCALL != 0 {
            (*entry.slot).flags |= flag::RAN;
            return;
        }
    }
    let how = wait::outcome_of(entry.slot);
    wait::end(&entry, how, -1, now);
}

#[btf_tracepoint(function = "sched_waking")]
#[inline(always)]
pub(crate) fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let task = Task::arg(&ctx, 0);
    let Some(entry) = Entry::find(task.tid()) else {
        return 0;
    };
    let (tid, tgid) = current();
    let slot = entry.slot;
    // SAFETY: `slot` is a map entry. These fields are the waker's to write: the last one of a sleep
    // wins, and `begin` drops what is left of an earlier one.
    unsafe {
        (*slot).wake_ns = if note_time(&entry) {
            cpu::clock_ns()
        } else {
            WOKEN
        };
        (*slot).waker_tid = tid;
        (*slot).waker_tgid = tgid;
        // A signal is noted before it wakes its receiver, and nobody sleeps interruptibly with one noted:
        // at this moment, and only now, it tells whether the signal is the reason.
        (*slot).signals = task.pending_signals();
        // Only a wait with a time limit leaves open how it ended.
        (*slot).waker_nr = if (*slot).flags & flag::TIMED != 0 {
            call::current_wake(slot, tgid)
        } else {
            NR_NONE
        };
    }
    0
}

/// A wait of this age is long enough for the time of its wake-up to be worth a reading of the clock.
const WORTH_NS: u64 = 1_000_000;

/// Is the time of a wake-up to be noted? Where the scheduler accounts for the time on run queues it is
/// needed only to tell a wake-up that comes just before the sleep begins from one of an earlier sleep,
/// and to show since when a task that has been waiting for long is runnable.
#[inline(always)]
fn note_time(entry: &Entry) -> bool {
    if !Task::has_run_delay() {
        return true;
    }
    // SAFETY: `slot` is a map entry.
    let ran = unsafe { (*entry.slot).flags } & flag::RAN != 0;
    let start_ns = entry.start_ns();
    start_ns == 0 || ran || cpu::last_switch_ns().saturating_sub(start_ns) >= WORTH_NS
}

/// A task leaves the CPU for good: its totals are final.
#[inline(always)]
fn ends(task: Task) {
    let tid = task.tid();
    if let Some(entry) = Entry::find(tid) {
        // SAFETY: `head` is a map entry of the task that runs here.
        unsafe {
            (*entry.head).start_ns = 0;
            (*entry.head).tid = tid | TID_ENDED;
        }
        let _ = maps::VECTORS.remove(tid);
    }
}

/// Is this a futex operation that waits, of this call?
#[inline(always)]
pub(crate) fn waits(nr: i32, op: u32) -> bool {
    nr != syscall::FUTEX || futex_op::waits(op)
}
