//! Futex calls: by system call tracepoints, with the call's own return code, or from the registers
//! of the sleeping task.
//!
//! Tracepoints `syscalls:sys_enter_*` have the system call number at byte 8 and the arguments from
//! byte 16 on, eight bytes each; `sys_exit_*` has the return value at byte 16.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user, macros::tracepoint, programs::TracePointContext,
};
use observer_common::{
    FutexWaitv, WAITV_MAX, WaitVector, counter, flag, kind, outcome, syscall, syscall::futex_op,
};

use crate::{
    call::Call,
    cpu, filter, maps, sched,
    task::{Entry, current, report},
    wait::{self, Purpose},
};

const ARGS: usize = 16;
const EINTR: i64 = -4;
const EAGAIN: i64 = -11;
const ETIMEDOUT: i64 = -110;
/// `ERESTARTSYS` … `ERESTART_RESTARTBLOCK` (include/linux/errno.h): a signal; the call may go on.
const ERESTARTSYS: i64 = -512;
const ERESTART_RESTARTBLOCK: i64 = -516;

#[tracepoint]
#[inline(always)]
pub(crate) fn sys_enter_futex(ctx: TracePointContext) -> u32 {
    enter(&ctx, syscall::FUTEX)
}

#[tracepoint]
#[inline(always)]
pub(crate) fn sys_enter_futex_wait(ctx: TracePointContext) -> u32 {
    enter(&ctx, syscall::FUTEX_WAIT)
}

#[tracepoint]
#[inline(always)]
pub(crate) fn sys_enter_futex_waitv(ctx: TracePointContext) -> u32 {
    enter(&ctx, syscall::FUTEX_WAITV)
}

#[tracepoint]
#[inline(always)]
pub(crate) fn sys_exit_futex(ctx: TracePointContext) -> u32 {
    exit(&ctx)
}

#[tracepoint]
#[inline(always)]
pub(crate) fn sys_exit_futex_wait(ctx: TracePointContext) -> u32 {
    exit(&ctx)
}

#[tracepoint]
#[inline(always)]
pub(crate) fn sys_exit_futex_waitv(ctx: TracePointContext) -> u32 {
    exit(&ctx)
}

#[inline(always)]
fn enter(ctx: &TracePointContext, nr: i32) -> u32 {
    let mut call = Call { nr, ..Call::NONE };
    let mut i = 0;
    while i < call.args.len() {
        // SAFETY: the record of the tracepoint has six arguments; the helper checks the bounds.
        call.args[i] = unsafe { ctx.read_at::<u64>(ARGS + i * 8) }.unwrap_or(0);
        i += 1;
    }
    if sched::waits(nr, call.args[1] as u32) {
        report(ctx, arm(&call));
    }
    0
}

/// Notes the call in the task's entry: the wait begins when, and only if, the task sleeps.
#[inline(always)]
fn arm(call: &Call) -> Result<(), u32> {
    let (tid, tgid) = current();
    if !filter::passes(tgid) {
        return Ok(());
    }
    let entry = Entry::claim(tid, tgid)?;
    if entry.start_ns() != 0 {
        // The return of the call before was not seen.
        wait::returned(&entry);
    }
    let mut purpose = Purpose {
        nr: call.nr,
        kind: kind::FUTEX,
        flags: 0,
        addr: call.args[0],
        op: call.args[1] as u32,
    };
    let result = read_arguments(&entry, call, &mut purpose);
    // SAFETY: `slot` and `head` are map entries of the task that runs here.
    unsafe {
        (*entry.head).start_ns = 0;
        (*entry.slot).nr = purpose.nr;
        (*entry.slot).kind = purpose.kind;
        (*entry.slot).addr = purpose.addr;
        (*entry.slot).op = purpose.op;
        (*entry.slot).flags =
            purpose.flags | flag::BY_SYSCALL | ((*entry.slot).flags & flag::AFTER_LONG);
        (*entry.slot).wake_ns = 0;
    }
    result
}

/// The purpose that [`arm`] noted.
#[inline(always)]
pub(crate) fn armed(entry: &Entry) -> Purpose {
    let slot = entry.slot;
    // SAFETY: `slot` is a map entry.
    unsafe {
        Purpose {
            nr: (*slot).nr,
            kind: (*slot).kind,
            flags: (*slot).flags & !flag::RAN,
            addr: (*slot).addr,
            op: (*slot).op,
        }
    }
}

/// Completes `purpose` for a task that sleeps in a futex call, from its registers. `running`: the
/// task's memory can be read.
#[inline(always)]
pub(crate) fn from_registers(entry: &Entry, call: &Call, purpose: &mut Purpose, running: bool) {
    let call = Call {
        nr: purpose.nr,
        ..*call
    };
    if call.nr == syscall::FUTEX_WAITV && !running {
        purpose.kind = kind::FUTEX;
        purpose.addr = 0;
        return;
    }
    if sched::waits(call.nr, call.args[1] as u32)
        && let Err(cause) = read_arguments(entry, &call, purpose)
    {
        maps::lose(cause);
    }
}

/// Address, operation and time limit of a futex call.
#[inline(always)]
fn read_arguments(entry: &Entry, call: &Call, purpose: &mut Purpose) -> Result<(), u32> {
    let timed = match call.nr {
        // futex(uaddr, op, val, timeout, uaddr2, val3)
        syscall::FUTEX => {
            purpose.kind = wait::futex_kind(purpose.op);
            call.args[3] != 0
        }
        // futex_wait(uaddr, val, mask, flags, timeout, clockid)
        syscall::FUTEX_WAIT => {
            purpose.kind = kind::FUTEX;
            purpose.op = call.args[3] as u32 & futex_op::PRIVATE;
            call.args[4] != 0
        }
        // futex_waitv(waiters, nr_futexes, flags, timeout, clockid)
        _ => {
            purpose.kind = kind::FUTEX;
            let vector = read_vector(entry, call)?;
            // SAFETY: a pointer to this CPU's scratch entry.
            unsafe {
                purpose.addr = (*vector).futexes[0].uaddr;
                purpose.op = (*vector).futexes[0].flags & futex_op::PRIVATE;
            }
            call.args[3] != 0
        }
    };
    if timed {
        purpose.flags |= flag::TIMED;
    }
    Ok(())
}

/// An index, masked to less than [`WAITV_MAX`] by an instruction that the compiler cannot see to be needless: up
/// to 6.1 the verifier forgets the limits of a number that spends time on the stack.
#[inline(always)]
pub(crate) fn bounded(index: u64) -> u64 {
    const { assert!(WAITV_MAX == 128) };
    #[cfg_attr(
        not(target_arch = "bpf"),
        expect(unused_mut, reason = "the instruction is the kernel's")
    )]
    let mut index = index;
    #[cfg(target_arch = "bpf")]
    // SAFETY: the instruction changes one register, which it is given.
    unsafe {
        core::arch::asm!("{index} &= 127", index = inout(reg) index);
    }
    index
}

/// Keeps the whole vector of a `futex_waitv` for as long as the call lasts.
#[inline(always)]
fn read_vector(entry: &Entry, call: &Call) -> Result<*const WaitVector, u32> {
    let scratch = maps::VECTOR_SCRATCH
        .get_ptr_mut(0)
        .ok_or(counter::WAITV_READ)?;
    let len = call.args[1];
    if len == 0 || len > WAITV_MAX as u64 {
        return Err(counter::WAITV_READ);
    }
    let bytes = (bounded(len - 1) as u32 + 1) * size_of::<FutexWaitv>() as u32;
    // SAFETY: the scratch entry has room for `WAITV_MAX` entries and `len` is no more; the helper reads
    // user memory without faulting and says if it could not.
    let read = unsafe {
        (*scratch).len = len;
        bpf_probe_read_user(
            (&raw mut (*scratch).futexes).cast(),
            bytes,
            call.args[0] as *const _,
        )
    };
    if read != 0 {
        return Err(counter::WAITV_READ);
    }
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be copied to the program's stack, where it has no room"
    )]
    // SAFETY: `head` is a map entry; the scratch entry is initialised as a whole by the map.
    let kept = unsafe {
        cpu::set_busy(true);
        let kept = maps::VECTORS.insert((*entry.head).tid, &*scratch, 0);
        cpu::set_busy(false);
        kept
    };
    match kept {
        Ok(()) => Ok(scratch),
        Err(_) => Err(counter::WAITV_READ),
    }
}

#[inline(always)]
fn exit(ctx: &TracePointContext) -> u32 {
    // SAFETY: the record of the tracepoint has the return value there; the helper checks the bounds.
    let ret = unsafe { ctx.read_at::<i64>(ARGS) }.unwrap_or(0);
    leave(ret);
    0
}

/// The call returns: if the task slept in it, that was a wait.
#[inline(always)]
fn leave(ret: i64) {
    let (tid, _) = current();
    let Some(entry) = Entry::find(tid) else {
        return;
    };
    // SAFETY: `slot` and `head` are map entries of the task that runs here.
    let (armed, requeue_pi) = unsafe {
        (
            (*entry.slot).flags & flag::BY_SYSCALL != 0,
            (*entry.slot).kind != kind::FUTEX,
        )
    };
    if !armed {
        return;
    }
    let now = cpu::clock_ns();
    if entry.start_ns() == 0 || (ret == EAGAIN && !requeue_pi) {
        // It never slept on the futex, or the value had changed before it could: no wait.
        let _ = maps::VECTORS.remove(tid);
        // SAFETY: as above.
        unsafe { (*entry.head).start_ns = 0 };
    } else {
        wait::end(&entry, outcome_of(ret), ret, now);
    }
    // SAFETY: as above.
    unsafe { (*entry.slot).flags &= flag::AFTER_LONG };
}

#[inline(always)]
fn outcome_of(ret: i64) -> u8 {
    match ret {
        ETIMEDOUT => outcome::TIMEOUT,
        EINTR | ERESTART_RESTARTBLOCK..=ERESTARTSYS => outcome::INTERRUPTED,
        0.. => outcome::WOKEN,
        _ => outcome::UNKNOWN,
    }
}
