//! Kernel programs of observer.
//!
//! | module | hooks | what it learns |
//! |---|---|---|
//! | [`sched`] | `sched_switch`, `sched_waking` | when a task sleeps, who wakes it, when it runs again |
//! | [`futex`] | `sys_enter/exit_futex`, `…_futex_wait`, `…_futex_waitv` | which futex, with the call's own return code |
//! | [`klock`] | `contention_begin`, `contention_end` | contended locks inside the kernel |
//! | [`seed`] | `iter/task` | which tasks sleep already |
//! | [`empty`] | `sched_switch`, `sched_waking` | nothing: the floor that the benchmark compares with |
//! | [`regs`] | `iter/task` | the registers of every thread, on demand |
//! | [`usdt`] | probes of programs, in pairs | waits that a program knows of; only when asked for |
//! | [`goroutine`] | functions of Go's runtime | parks of goroutines; only when asked for |
//!
//! All but the last two feed the same two functions, [`wait::begin`] and [`wait::end`], which keep one entry a waiting
//! task ([`task`]), totals per lock and per task ([`stats`]), and send waits above the threshold
//! through the ring buffer. Whatever cannot be kept or sent is counted by cause ([`maps::lose`]).
// On any other target this is an ordinary program that does nothing, so that the usual tools can check
// it along with the rest of the workspace.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows a kernel pointer's type through inlined code only"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the attribute of a program calls it with a context by value"
)]

mod call;
mod cpu;
mod empty;
mod file;
mod filter;
mod futex;
mod goroutine;
mod klock;
mod maps;
mod regs;
mod sched;
mod seed;
mod settings;
mod stats;
mod task;
mod usdt;
mod wait;

/// The helpers that read the kernel's memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
