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
/// A task was not seen to run again after a sleep: that wait is lost. The kernel may leave out events
/// while another tool attaches to the same tracepoint.
pub const SWITCH_MISSED: u32 = 10;
/// A futex call was not seen to return: its wait is lost. The kernel leaves out system call tracepoints
/// on a CPU whose present task was interrupted inside an operation on a BPF map.
pub const SYSCALL_MISSED: u32 = 11;
/// Number of counters.
pub const COUNT: usize = 16;

/// Name of each counter, as in `loss` events.
pub const NAMES: [&str; 12] = [
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
    "syscall_missed",
];
