//! Ways of losing something: indices of the kernel programs' counters.
//!
//! Every failed insert, reservation, lookup and read has a counter of its own; user space reports
//! each by its [`NAMES`] entry.

/// The ring buffer was full: a long wait was counted in the totals but not reported one by one.
pub const RING_FULL: u32 = 0;
/// Another waiting task has this task's entry in the table: the wait was not seen.
pub const TASK_COLLISION: u32 = 1;
/// No free statistics entry for a new lock: the wait was counted for its task only.
pub const LOCKS_FULL: u32 = 2;
/// The new lock could not be inserted.
pub const LOCK_INSERT: u32 = 3;
/// The registers of a sleeping task could not be read: the kind of its wait is not known.
pub const REGS_READ: u32 = 4;
/// The vector of `futex_waitv` could not be read or kept.
pub const WAITV_READ: u32 = 5;
/// The clock went backwards between two readings: the duration was taken as zero.
pub const CLOCK_BACKWARDS: u32 = 6;
/// A kernel lock was waited for inside the wait for another: it was not counted.
pub const KLOCK_NESTED: u32 = 7;
/// A stack could not be taken or kept: no loss, only a wait without its stack.
pub const STACKS_SKIPPED: u32 = 8;
/// The totals of a task were given up, because another one took its entry in the table.
pub const TASK_TAKEN_OVER: u32 = 9;
/// A task was not seen to run again after a sleep, and the scheduler's account does not tell when it
/// did: that wait is lost.
pub const SWITCH_MISSED: u32 = 10;
/// The end of a wait was not seen, and was taken from the scheduler's account: no loss, but the waker
/// may be missing.
pub const END_INFERRED: u32 = 11;
/// Those that are no loss: everything is there but for a detail.
pub const NO_LOSS: [u32; 2] = [STACKS_SKIPPED, END_INFERRED];
/// An argument of a USDT probe could not be read: the wait was not seen.
pub const USDT_READ: u32 = 12;
/// The text that an argument of a USDT probe points to could not be read: the wait has no name.
pub const USDT_TEXT: u32 = 13;
/// No room for another wait between two USDT probes: it was not seen.
pub const USDT_WAITS_FULL: u32 = 14;
/// No room for another resource of USDT probes: its waits are in no totals.
pub const USDT_RESOURCES_FULL: u32 = 15;
/// A wait between two USDT probes was not seen to end before the next one of the same task began.
pub const USDT_UNENDED: u32 = 16;
/// A goroutine could not be read where it parks or is made ready: the wait was not seen.
pub const GO_READ: u32 = 17;
/// No room for another parked goroutine: its wait was not seen.
pub const GO_PARKED_FULL: u32 = 18;
/// Number of counters.
pub const COUNT: usize = 32;

/// Name of each counter, as in `loss` events.
pub const NAMES: [&str; 19] = [
    "ring_full",
    "task_collision",
    "locks_full",
    "lock_insert",
    "regs_read",
    "waitv_read",
    "clock_backwards",
    "kernel_lock_nested",
    "stacks_skipped",
    "task_taken_over",
    "switch_missed",
    "end_inferred",
    "usdt_read",
    "usdt_text",
    "usdt_waits_full",
    "usdt_resources_full",
    "usdt_unended",
    "go_read",
    "go_parked_full",
];
