//! Waits that began before observer: a task iterator enters every sleeping task into the table.
//!
//! User space reads the iterator once, after the scheduler hooks are attached. Nothing is stopped: a
//! task that wakes meanwhile is found by its state, read again after its entry was made.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use observer_common::{ABSENT, flag};

use crate::{
    call::{self, Call},
    cpu, filter, maps,
    sched::{self, SLEEPING},
    settings,
    task::{Entry, Task},
    wait,
};

/// What the kernel passes (`struct bpf_iter__task`): `meta`, then the task, null at the end.
#[repr(C)]
pub(crate) struct Context {
    /// `struct bpf_iter_meta`, which begins with the file that is read.
    pub(crate) meta: *const *mut u8,
    pub(crate) task: *const u8,
}

#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
extern "C" fn seed(ctx: *const Context) -> i32 {
    // SAFETY: the kernel passes a valid context.
    let task = Task(unsafe { read_volatile(&raw const (*ctx).task) });
    if task.0.is_null() {
        return 0;
    }
    maps::lose_on(enter(task));
    0
}

/// When a task that sleeps began to, at the latest that this can have been.
#[inline(always)]
pub(crate) fn since(task: Task) -> Option<u64> {
    if settings::off_exec_start() == ABSENT || settings::has_pt_regs() == 0 {
        return None;
    }
    let now = cpu::clock_ns();
    // SAFETY: the helper has no precondition and returns the task that runs, which the kernel vouches for.
    let reader = Task(unsafe { bpf_get_current_task_btf() } as *const u8);
    // The clock of a run queue whose task has been running for a while is up to a tick old.
    let age_ns = reader.rq_clock().saturating_sub(task.left_cpu());
    Some(now.saturating_sub(age_ns))
}

#[inline(always)]
fn enter(task: Task) -> Result<(), u32> {
    let state = task.state();
    let tgid = task.tgid();
    if state & SLEEPING == 0 || task.is_kernel_thread() {
        return Ok(());
    }
    let comm = task.comm();
    if !filter::passes_named(tgid, &comm) {
        return Ok(());
    }
    let entry = Entry::claim(task.tid(), tgid)?;
    if entry.start_ns() != 0 {
        return Ok(());
    }
    if let Some(stat) = entry.stats() {
        // SAFETY: a pointer to a map entry, checked above.
        unsafe { (*stat).comm = comm };
    }
    let (call, result) = match call::of(task) {
        Ok(call) => (call, Ok(())),
        Err(cause) => (Call::NONE, Err(cause)),
    };
    let mut purpose = sched::purpose(task, &entry, &call, state, 0, false);
    purpose.flags |= flag::SEEDED;
    let since_ns = since(task).unwrap_or_else(cpu::clock_ns);
    wait::begin(task, &entry, tgid, purpose, state, since_ns);
    if task.state() & SLEEPING == 0 {
        // SAFETY: `head` is a map entry.
        unsafe { write_volatile(&raw mut (*entry.head).start_ns, 0) };
    }
    result
}
