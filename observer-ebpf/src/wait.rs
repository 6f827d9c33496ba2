//! A wait begins, a wait ends: the one meaning behind both ways of knowing a futex wait.

use core::ptr::write_volatile;

use observer_common::{
    NR_NONE, TaskSlot, WaitRecord, WaitvRecord, counter, flag, kind, outcome, syscall,
    syscall::futex_op,
};

use crate::{call::Call, maps, stats, task::Entry};

/// `BPF_RB_NO_WAKEUP`: the reader polls; waking it for each record costs more than all the rest.
const NO_WAKEUP: u64 = 1;
/// A waker may be seen this long before the sleep it ends, when it runs on another CPU while the
/// sleeper is on its way off its own. Older wake-ups belong to an earlier sleep.
const EARLY_WAKE_NS: u64 = 20_000;

/// What a system call waits for, in the terms of a task's entry.
#[derive(Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) nr: i32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) addr: u64,
    pub(crate) op: u32,
    pub(crate) val: u32,
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
pub(crate) fn begin(entry: &Entry, tgid: u32, purpose: Purpose, call: &Call, state: u32, now: u64) {
    let slot = entry.slot;
    // SAFETY: `slot` and `head` point to map entries that only the CPU of this task writes, but for the
    // fields of the waker.
    unsafe {
        (*slot).sleep_ns = now;
        (*slot).state = state as u8;
        if (*slot).wake_ns != 0 && (*slot).wake_ns + EARLY_WAKE_NS < now {
            (*slot).wake_ns = 0;
        }
        (*slot).ip = call.ip;
        (*slot).sp = call.sp;
        (*slot).bp = call.bp;
        (*slot).flags = purpose.flags;
        if (*entry.head).start_ns != 0 {
            return;
        }
        (*slot).tid = (*entry.head).tid;
        (*slot).tgid = tgid;
        (*slot).nr = purpose.nr;
        (*slot).kind = purpose.kind;
        (*slot).addr = purpose.addr;
        (*slot).op = purpose.op;
        (*slot).val = purpose.val;
        (*slot).blocked_ns = 0;
        (*slot).runqueue_ns = 0;
        write_volatile(&raw mut (*slot).start_ns, now);
        write_volatile(&raw mut (*entry.head).start_ns, now);
    }
}

/// A task is on a CPU again: adds the sleep that is over to the wait.
#[inline(always)]
pub(crate) fn resume(slot: *mut TaskSlot, now: u64) -> Result<(), u32> {
    // SAFETY: `slot` points to a map entry that only the CPU of this task writes, but for the fields of
    // the waker.
    unsafe {
        let slept_ns = (*slot).sleep_ns;
        let wake_ns = (*slot).wake_ns;
        if now < slept_ns {
            return Err(counter::CLOCK_BACKWARDS);
        }
        // Without a wake-up seen, all of it counts as blocked; user space then gives no split.
        let woken_ns = if wake_ns == 0 { now } else { wake_ns };
        let woken_ns = if woken_ns < slept_ns {
            slept_ns
        } else if woken_ns > now {
            now
        } else {
            woken_ns
        };
        (*slot).blocked_ns += woken_ns - slept_ns;
        (*slot).runqueue_ns += now - woken_ns;
    }
    Ok(())
}

/// A wait ended: adds it to the totals, and sends it if it was long.
#[inline(always)]
pub(crate) fn end(entry: &Entry, how: u8, ret: i64, now: u64) -> Result<(), u32> {
    let slot = entry.slot;
    let mut result = Ok(());
    // SAFETY: `slot` and `head` point to map entries that only the CPU of this task writes, but for the
    // fields of the waker.
    unsafe {
        write_volatile(&raw mut (*entry.head).start_ns, 0);
        (*slot).outcome = how;
        let dur_ns = (*slot).blocked_ns + (*slot).runqueue_ns;
        if (*slot).nr == syscall::FUTEX_WAITV && ret >= 0 {
            woken_futex(slot, ret as u64);
        }
        if matches!((*slot).kind, kind::FUTEX | kind::LOCK | kind::CONDVAR)
            && is_futex_call((*slot).nr)
        {
            result = stats::add_lock_wait(slot, dur_ns, now);
        }
        stats::add_task_wait(entry, (*slot).kind, dur_ns);
        (*entry.head).waits = (*entry.head).waits.wrapping_add(1);
        let threshold = match maps::CONFIG.get(0) {
            Some(config) => core::ptr::read_volatile(&raw const config.min_wait_ns),
            None => 0,
        };
        if dur_ns >= threshold {
            let sent = send(entry, ret, now);
            result = result.and(sent);
        }
        if (*slot).nr == syscall::FUTEX_WAITV {
            let _ = maps::VECTORS.remove((*slot).tid);
        }
        (*slot).wake_ns = 0;
        (*slot).waker_tid = 0;
        (*slot).waker_nr = NR_NONE;
    }
    result
}

/// Puts the address of the futex that ended a `futex_waitv` in the place of the first one.
#[inline(always)]
unsafe fn woken_futex(slot: *mut TaskSlot, index: u64) {
    // SAFETY: `slot` points to a map entry; the vector's index is compared with its length.
    unsafe {
        if let Some(vector) = maps::VECTORS.get((*slot).tid)
            && index < vector.len
            && let Some(futex) = vector.futexes.get(index as usize)
        {
            (*slot).addr = futex.uaddr;
            (*slot).op = futex.flags & futex_op::PRIVATE;
            (*slot).stat = 0;
        }
    }
}

/// Sends a wait through the ring buffer.
#[inline(always)]
unsafe fn send(entry: &Entry, ret: i64, now: u64) -> Result<(), u32> {
    let slot = entry.slot;
    // SAFETY: `slot` points to a map entry.
    let record = unsafe {
        WaitRecord {
            slot: *slot,
            end_ns: now,
            comm: match entry.stats() {
                Some(stat) => (*stat).comm,
                None => [0; 2],
            },
            ret,
        }
    };
    if record.slot.nr == syscall::FUTEX_WAITV
        && let Some(vector) = maps::VECTORS.get_ptr(record.slot.tid)
    {
        let Some(mut space) = maps::RING.reserve::<WaitvRecord>(0) else {
            return Err(counter::RING_FULL);
        };
        let to = space.as_mut_ptr();
        // SAFETY: the reservation has room for the whole record; `vector` is a map value.
        unsafe {
            (&raw mut (*to).wait).write(record);
            copy_vector(vector, &raw mut (*to).vector);
        }
        space.submit(NO_WAKEUP);
        return Ok(());
    }
    let Some(mut space) = maps::RING.reserve::<WaitRecord>(0) else {
        return Err(counter::RING_FULL);
    };
    space.write(record);
    space.submit(NO_WAKEUP);
    Ok(())
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
pub(crate) fn outcome_of(slot: *const TaskSlot, signal: bool) -> u8 {
    // SAFETY: `slot` points to a map entry.
    let (nr, kind, waker_nr, flags) =
        unsafe { ((*slot).nr, (*slot).kind, (*slot).waker_nr, (*slot).flags) };
    if is_futex_call(nr) && wakes_futexes(waker_nr) {
        return outcome::WOKEN;
    }
    if signal {
        return outcome::INTERRUPTED;
    }
    match kind {
        kind::SLEEP => outcome::TIMEOUT,
        kind::FUTEX | kind::LOCK | kind::CONDVAR if flags & flag::TIMED != 0 => outcome::TIMEOUT,
        kind::POLL | kind::OTHER | kind::FUTEX | kind::LOCK | kind::CONDVAR => outcome::UNKNOWN,
        _ => outcome::WOKEN,
    }
}

/// May a task in this system call wake a futex? By the call itself, or by ending (`exit` wakes those
/// who join the thread, and the waiters of its robust locks).
#[inline(always)]
fn wakes_futexes(nr: i32) -> bool {
    nr == syscall::FUTEX
        || nr == syscall::EXIT
        || nr == syscall::EXIT_GROUP
        || nr == syscall::FUTEX_WAKE
        || nr == syscall::FUTEX_REQUEUE
}
