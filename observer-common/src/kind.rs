//! Kinds of waits as the kernel programs tell them apart; user space refines them.

/// None of the others.
pub const OTHER: u8 = 0;
/// A futex of unknown type.
pub const FUTEX: u8 = 1;
/// A futex with priority inheritance, or a file lock: certainly a lock.
pub const LOCK: u8 = 2;
/// A condition variable (`FUTEX_WAIT_REQUEUE_PI` has no other use).
pub const CONDVAR: u8 = 3;
/// A System V semaphore.
pub const SEMAPHORE: u8 = 4;
/// Files and block devices.
pub const IO: u8 = 5;
/// Sockets.
pub const SOCKET: u8 = 6;
/// Pipes and queues.
pub const PIPE: u8 = 7;
/// Waiting for one of several events: `poll`, `select`, `epoll_wait`.
pub const POLL: u8 = 8;
/// Waiting for time to pass, or for a signal.
pub const SLEEP: u8 = 9;
/// Waiting for a child process.
pub const CHILD: u8 = 10;
/// A page fault or another exception in user mode.
pub const PAGE_FAULT: u8 = 11;
/// `read`, `write` and their like: which of [`IO`], [`SOCKET`], [`PIPE`] depends on the file.
pub const FILE: u8 = 12;
/// Runnable, and waiting for a CPU.
pub const RUNQUEUE: u8 = 13;
/// A lock inside the kernel.
pub const KERNEL_LOCK: u8 = 14;
/// Number of kinds, a power of two so that an index is masked and not compared.
pub const COUNT: usize = 16;
