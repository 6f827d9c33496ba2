//! System calls that sleep: number → name and kind, for x86-64.
//!
//! Numbers are those of `arch/x86/entry/syscalls/syscall_64.tbl` in the kernel's sources. Only calls
//! that can sleep for long, or that wake others, are listed: a call without a row is
//! [`kind::OTHER`] and is shown by its number.

use crate::kind;

/// `futex`.
pub const FUTEX: i32 = 202;
/// `futex_waitv`.
pub const FUTEX_WAITV: i32 = 449;
/// `futex_wake`.
pub const FUTEX_WAKE: i32 = 454;
/// `futex_wait`.
pub const FUTEX_WAIT: i32 = 455;
/// `futex_requeue`.
pub const FUTEX_REQUEUE: i32 = 456;
/// `restart_syscall`: goes on with a call that a signal interrupted, with the call's own arguments.
pub const RESTART: i32 = 219;
/// `semop`: the one System V semaphore call without a time limit.
pub const SEMOP: i32 = 65;
/// `fcntl`, which waits for locks on ranges of files.
pub const FCNTL: i32 = 72;
/// `flock`.
pub const FLOCK: i32 = 73;
/// `exit`.
pub const EXIT: i32 = 60;
/// `exit_group`.
pub const EXIT_GROUP: i32 = 231;

/// One more than the greatest number in [`TABLE`], rounded up to a power of two.
pub const MAX: usize = 512;

/// Number, name, kind.
pub const TABLE: &[(i32, &str, u8)] = &[
    (0, "read", kind::FILE),
    (1, "write", kind::FILE),
    (2, "open", kind::IO),
    (3, "close", kind::IO),
    (4, "stat", kind::IO),
    (5, "fstat", kind::IO),
    (6, "lstat", kind::IO),
    (7, "poll", kind::POLL),
    (9, "mmap", kind::OTHER),
    (10, "mprotect", kind::OTHER),
    (11, "munmap", kind::OTHER),
    (12, "brk", kind::OTHER),
    (16, "ioctl", kind::OTHER),
    (17, "pread64", kind::FILE),
    (18, "pwrite64", kind::FILE),
    (19, "readv", kind::FILE),
    (20, "writev", kind::FILE),
    (23, "select", kind::POLL),
    (24, "sched_yield", kind::OTHER),
    (26, "msync", kind::IO),
    (34, "pause", kind::SLEEP),
    (35, "nanosleep", kind::SLEEP),
    (40, "sendfile", kind::FILE),
    (42, "connect", kind::SOCKET),
    (43, "accept", kind::SOCKET),
    (44, "sendto", kind::SOCKET),
    (45, "recvfrom", kind::SOCKET),
    (46, "sendmsg", kind::SOCKET),
    (47, "recvmsg", kind::SOCKET),
    (56, "clone", kind::OTHER),
    (57, "fork", kind::OTHER),
    (58, "vfork", kind::CHILD),
    (59, "execve", kind::IO),
    (60, "exit", kind::OTHER),
    (61, "wait4", kind::CHILD),
    (62, "kill", kind::OTHER),
    (65, "semop", kind::SEMAPHORE),
    (69, "msgsnd", kind::PIPE),
    (70, "msgrcv", kind::PIPE),
    (72, "fcntl", kind::LOCK),
    (73, "flock", kind::LOCK),
    (74, "fsync", kind::IO),
    (75, "fdatasync", kind::IO),
    (76, "truncate", kind::IO),
    (77, "ftruncate", kind::IO),
    (78, "getdents", kind::IO),
    (82, "rename", kind::IO),
    (83, "mkdir", kind::IO),
    (84, "rmdir", kind::IO),
    (87, "unlink", kind::IO),
    (128, "rt_sigtimedwait", kind::SLEEP),
    (130, "rt_sigsuspend", kind::SLEEP),
    (162, "sync", kind::IO),
    (187, "readahead", kind::IO),
    (202, "futex", kind::FUTEX),
    (208, "io_getevents", kind::POLL),
    (217, "getdents64", kind::IO),
    (219, "restart_syscall", kind::OTHER),
    (220, "semtimedop", kind::SEMAPHORE),
    (230, "clock_nanosleep", kind::SLEEP),
    (231, "exit_group", kind::OTHER),
    (232, "epoll_wait", kind::POLL),
    (242, "mq_timedsend", kind::PIPE),
    (243, "mq_timedreceive", kind::PIPE),
    (247, "waitid", kind::CHILD),
    (257, "openat", kind::IO),
    (262, "newfstatat", kind::IO),
    (270, "pselect6", kind::POLL),
    (271, "ppoll", kind::POLL),
    (275, "splice", kind::FILE),
    (277, "sync_file_range", kind::IO),
    (281, "epoll_pwait", kind::POLL),
    (285, "fallocate", kind::IO),
    (288, "accept4", kind::SOCKET),
    (295, "preadv", kind::FILE),
    (296, "pwritev", kind::FILE),
    (299, "recvmmsg", kind::SOCKET),
    (306, "syncfs", kind::IO),
    (307, "sendmmsg", kind::SOCKET),
    (326, "copy_file_range", kind::IO),
    (327, "preadv2", kind::FILE),
    (328, "pwritev2", kind::FILE),
    (332, "statx", kind::IO),
    (333, "io_pgetevents", kind::POLL),
    (426, "io_uring_enter", kind::POLL),
    (435, "clone3", kind::OTHER),
    (441, "epoll_pwait2", kind::POLL),
    (449, "futex_waitv", kind::FUTEX),
    (454, "futex_wake", kind::OTHER),
    (455, "futex_wait", kind::FUTEX),
    (456, "futex_requeue", kind::OTHER),
];

/// Kind by number, for the kernel programs.
pub const KINDS: [u8; MAX] = {
    let mut kinds = [kind::OTHER; MAX];
    let mut i = 0;
    while i < TABLE.len() {
        kinds[TABLE[i].0 as usize] = TABLE[i].2;
        i += 1;
    }
    kinds
};

/// Name of a system call, if it is in the table.
pub fn name(nr: i32) -> Option<&'static str> {
    let row = TABLE.binary_search_by_key(&nr, |row| row.0).ok()?;
    Some(TABLE[row].1)
}

/// Futex operations (`FUTEX_CMD_MASK` applied).
pub mod futex_op {
    /// Wait while the word has the value.
    pub const WAIT: u32 = 0;
    /// Acquire with priority inheritance.
    pub const LOCK_PI: u32 = 6;
    /// Wait, woken by any bit of a mask.
    pub const WAIT_BITSET: u32 = 9;
    /// Wait on a condition variable, to be requeued to a PI futex.
    pub const WAIT_REQUEUE_PI: u32 = 11;
    /// As [`LOCK_PI`], the clock of the time limit selectable.
    pub const LOCK_PI2: u32 = 13;
    /// The futex is private to the process.
    pub const PRIVATE: u32 = 128;
    /// Keeps the command of an operation (all but the two flag bits).
    pub const CMD_MASK: u32 = 0x7f;

    /// Does this operation wake waiters? `WAKE`, `REQUEUE`, `CMP_REQUEUE`, `WAKE_OP`, `UNLOCK_PI`,
    /// `WAKE_BITSET`, `CMP_REQUEUE_PI`.
    #[inline]
    pub const fn wakes(op: u32) -> bool {
        matches!(op & CMD_MASK, 1 | 3 | 4 | 5 | 7 | 10 | 12)
    }

    /// Does this operation wait?
    #[inline]
    pub const fn waits(op: u32) -> bool {
        matches!(
            op & CMD_MASK,
            WAIT | LOCK_PI | WAIT_BITSET | WAIT_REQUEUE_PI | LOCK_PI2
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_found() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(name(202), Some("futex"));
        assert_eq!(name(456), Some("futex_requeue"));
        assert_eq!(name(-1), None);
        assert_eq!(KINDS[7], kind::POLL);
    }
}
