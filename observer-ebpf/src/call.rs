//! The system call that a task is in, from the registers it left user mode with.
//!
//! The layout of `struct pt_regs` is that of x86-64 (arch/x86/include/asm/ptrace.h), unchanged since
//! 64-bit Linux began, FRED included when it is asked for through the helper.

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
};
use observer_common::{NR_NONE, NR_UNSURE, TaskSlot, counter, syscall, syscall::futex_op};

use crate::{settings, task::Task};

/// Words of `struct pt_regs`.
const PT_REGS: usize = 21;
pub(crate) const R15: usize = 0;
pub(crate) const R14: usize = 1;
pub(crate) const R13: usize = 2;
pub(crate) const R12: usize = 3;
pub(crate) const BP: usize = 4;
pub(crate) const BX: usize = 5;
pub(crate) const R8: usize = 9;
pub(crate) const R9: usize = 8;
pub(crate) const R10: usize = 7;
pub(crate) const DX: usize = 12;
pub(crate) const SI: usize = 13;
pub(crate) const DI: usize = 14;
pub(crate) const ORIG_AX: usize = 15;
pub(crate) const IP: usize = 16;
pub(crate) const CS: usize = 17;
pub(crate) const SP: usize = 19;
/// Code segment of 32-bit programs, `__USER32_CS`.
pub(crate) const USER32_CS: u64 = 0x23;
/// Bit that x32 programs set in system call numbers.
const X32_BIT: i32 = 0x4000_0000;

/// A system call and where it was made.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// Number, or [`NR_NONE`].
    pub(crate) nr: i32,
    /// Made by a 32-bit program: the number is of another table.
    pub(crate) compat: bool,
    /// Arguments.
    pub(crate) args: [u64; 5],
    /// User-mode instruction pointer; 0: the registers are not known.
    pub(crate) ip: u64,
}

impl Call {
    /// Nothing known.
    pub(crate) const NONE: Call = Call {
        nr: NR_NONE,
        compat: false,
        args: [0; 5],
        ip: 0,
    };
}

/// Builds a [`Call`] with `$word(i)` reading word `i` of the registers. A macro and not a closure:
/// the verifier loses the pointer's type when a compiler chooses not to inline one.
macro_rules! call_from {
    ($word:expr) => {
        Call {
            nr: $word(ORIG_AX) as i32 & !X32_BIT | (($word(ORIG_AX) as i32) >> 31),
            compat: $word(CS) == USER32_CS,
            args: [$word(DI), $word(SI), $word(DX), $word(R10), $word(R8)],
            ip: $word(IP),
        }
    };
}

/// The call that `task` sleeps in.
#[inline(always)]
pub(crate) fn of(task: Task) -> Result<Call, u32> {
    if settings::has_pt_regs() != 0 {
        // SAFETY: the helper takes a task that the kernel vouches for and returns its registers.
        let regs = unsafe { bpf_task_pt_regs(task.0.cast_mut().cast()) } as *const u64;
        // SAFETY: all words lie in `struct pt_regs`, which the verifier checks.
        let word = |i: usize| unsafe { core::ptr::read_volatile(regs.add(i)) };
        return Ok(call_from!(word));
    }
    if settings::regs_on_stack() != 0 {
        let top = task.stack() + u64::from(settings::stack_size());
        let regs = (top - (PT_REGS as u64) * 8) as *const [u64; PT_REGS];
        // SAFETY: the helper checks the address and reads zeros where nothing is mapped.
        return match unsafe { bpf_probe_read_kernel(regs) } {
            Ok(regs) => {
                let word = |i: usize| regs[i];
                Ok(call_from!(word))
            }
            Err(_) => Err(counter::REGS_READ),
        };
    }
    Ok(Call::NONE)
}

/// What the running task is in, as far as it concerns a futex waiter that it makes runnable: the
/// number of a call that wakes the waiter's futex; [`NR_UNSURE`] if it wakes another one (a waiter may
/// have been requeued there, or an interrupt came meanwhile); [`NR_NONE`] if it wakes none, so that it
/// was an interrupt that made the waiter runnable. `tgid`: the running task's process.
#[inline(always)]
pub(crate) fn current_wake(slot: *const TaskSlot, tgid: u32) -> i32 {
    if settings::has_pt_regs() != 0 {
        // SAFETY: the helpers take nothing and a task that the kernel vouches for, and return its
        // registers.
        let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u64;
        // SAFETY: all words lie in `struct pt_regs`, which the verifier checks.
        let word = |i: usize| unsafe { core::ptr::read_volatile(regs.add(i)) };
        let args = [word(DI), word(SI), word(R8)];
        return wake(slot, tgid, word(ORIG_AX) as i32, args);
    }
    match current_on_stack() {
        Some(regs) => wake(
            slot,
            tgid,
            regs[ORIG_AX] as i32,
            [regs[DI], regs[SI], regs[R8]],
        ),
        None => NR_UNSURE,
    }
}

/// Registers of the running task where they are at the top of its stack. A kernel thread has zeros
/// there.
#[inline(always)]
fn current_on_stack() -> Option<[u64; PT_REGS]> {
    if settings::regs_on_stack() == 0 {
        return None;
    }
    // SAFETY: the first helper takes nothing (the one whose result the verifier knows is there from
    // 5.11 on only); the other one checks the addresses.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let stack: *const u64 = task.add(settings::off_stack() as usize).cast();
        let top = bpf_probe_read_kernel(stack).ok()? + u64::from(settings::stack_size());
        bpf_probe_read_kernel((top - (PT_REGS as u64) * 8) as *const [u64; PT_REGS]).ok()
    }
}

/// What [`current_wake`] gives for a task in system call `nr`, with its first, second and fifth
/// argument.
#[inline(always)]
fn wake(slot: *const TaskSlot, tgid: u32, nr: i32, [first, op, fifth]: [u64; 3]) -> i32 {
    // SAFETY: `slot` is a map entry.
    let (waiting_for, waits_by) = unsafe { ((*slot).addr, (*slot).op) };
    let op = op as u32;
    match nr {
        syscall::FUTEX_REQUEUE => nr,
        // The end of a thread wakes those of its process, and waiters of the robust locks it shares.
        // SAFETY: `slot` is a map entry.
        syscall::EXIT | syscall::EXIT_GROUP if unsafe { (*slot).tgid } == tgid => nr,
        syscall::EXIT | syscall::EXIT_GROUP if waits_by & futex_op::PRIVATE == 0 => NR_UNSURE,
        syscall::FUTEX_WAKE if first == waiting_for => nr,
        syscall::FUTEX if !futex_op::wakes(op) => NR_NONE,
        // A shared futex has other addresses in other processes.
        syscall::FUTEX
            if first == waiting_for
                || fifth == waiting_for
                || op & waits_by & futex_op::PRIVATE == 0 =>
        {
            nr
        }
        syscall::FUTEX | syscall::FUTEX_WAKE => NR_UNSURE,
        _ => NR_NONE,
    }
}
