//! The registers of every thread in one read: a task iterator that user space reads when it wants stacks.
//!
//! Loaded only where `bpf_task_pt_regs` is (5.15 on). What it says of a thread that runs meanwhile is old:
//! user space compares the count of switches before and after.

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_task_pt_regs};
use observer_common::TaskRegs;

use crate::{
    call::{BP, BX, CS, DI, DX, IP, ORIG_AX, R8, R9, R10, R12, R13, R14, R15, SI, SP, USER32_CS},
    maps,
    seed::{self, Context},
    task::Task,
};

#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
extern "C" fn regs(ctx: *const Context) -> i32 {
    // SAFETY: the kernel passes a valid context, and `meta` begins with the pointer to the file.
    let (task, seq) = unsafe {
        let meta = read_volatile(&raw const (*ctx).meta);
        (
            Task(read_volatile(&raw const (*ctx).task)),
            read_volatile(meta),
        )
    };
    if task.0.is_null() || task.is_kernel_thread() {
        return 0;
    }
    let tgid = task.tgid();
    // SAFETY: a look-up whose value is copied.
    let wanted = maps::REGS_OF.get(0).copied().unwrap_or(0);
    if wanted != 0 && wanted != tgid {
        return 0;
    }
    // SAFETY: the helper takes a task that the kernel vouches for and returns its registers.
    let at = unsafe { bpf_task_pt_regs(task.0.cast_mut().cast()) } as *const u64;
    // SAFETY: all words lie in `struct pt_regs`, which the verifier checks.
    let word = |i: usize| unsafe { read_volatile(at.add(i)) };
    let record = TaskRegs {
        tid: task.tid(),
        tgid,
        state: task.state(),
        compat: u32::from(word(CS) == USER32_CS),
        switches: task.switches(),
        ip: word(IP),
        sp: word(SP),
        bp: word(BP),
        saved: [word(BX), word(R12), word(R13), word(R14), word(R15)],
        nr: word(ORIG_AX) as i64,
        args: [word(DI), word(SI), word(DX), word(R10), word(R8), word(R9)],
        since_ns: seed::since(task).unwrap_or(0),
    };
    // SAFETY: the file is the kernel's; the record is initialised and of that size. When there is no room
    // the kernel calls again with more.
    unsafe {
        bpf_seq_write(
            seq.cast(),
            (&raw const record).cast(),
            size_of::<TaskRegs>() as u32,
        )
    };
    0
}
