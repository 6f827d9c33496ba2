//! The records that cross the boundary between observer's kernel programs and its user space.
//!
//! Every type is plain integers with a fixed layout: no enums (a byte that the other side never
//! defined would be undefined behaviour), no `bool`, and no implicit padding, because the verifier
//! refuses to copy uninitialised bytes and because two compilers must agree on each offset. Sizes are
//! asserted at compile time.
#![no_std]

pub mod counter;
pub mod goroutine;
pub mod kind;
pub mod syscall;
pub mod usdt;

/// Length of a task's name in the kernel (`TASK_COMM_LEN`), its final NUL included.
pub const COMM_LEN: usize = 16;
/// The same as words: kernel programs copy it as such, in two instructions.
pub type Comm = [u64; COMM_LEN / 8];
/// Buckets of a [`LockStat`] histogram: see [`bucket`].
pub const BUCKETS: usize = 32;
/// Most futexes that one `futex_waitv` call waits for (`FUTEX_WAITV_MAX` in the kernel).
pub const WAITV_MAX: usize = 128;

/// A reason not to sleep in a system call at all: the value of [`TaskSlot::nr`] for a page fault or
/// another exception taken in user mode (the kernel keeps -1 in the place of the call's number).
pub const NR_NONE: i32 = -1;
/// Value of [`TaskSlot::waker_nr`]: the waker was in a call of which it cannot be said whether it woke
/// this task.
pub const NR_UNSURE: i32 = -2;

/// Value of [`TaskSlot::wake_ns`]: woken at a time that was not noted.
pub const WOKEN: u64 = 1;

/// What the kernel programs keep of each task for a fast look: one entry a task, found by
/// `tid & mask`. User space maps this table and reads it without a system call.
///
/// `start_ns` is written last when a wait begins and first when it ends, so that a reader who finds
/// the same non-zero value before and after copying the task's [`TaskSlot`] has a consistent copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskHead {
    /// Start of the wait in progress, `CLOCK_MONOTONIC` nanoseconds; 0: not waiting.
    pub start_ns: u64,
    /// The task that owns the entry; 0: nobody yet.
    pub tid: u32,
    /// Waits that ended, modulo 2^32: tells user space whether the task's statistics changed.
    pub waits: u32,
}

/// Locks whose statistics a task finds without looking them up: a power of two.
pub const LOCKS_OF_TASK: usize = 4;

/// A wait in progress, in the entry of its task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskSlot {
    /// Start of the wait, as in [`TaskHead`].
    pub start_ns: u64,
    /// Start of the latest sleep of this wait: one system call may sleep several times.
    pub sleep_ns: u64,
    /// When somebody made the task runnable; 0: nobody has; [`WOKEN`]: somebody has, at a time that was
    /// not noted because the scheduler accounts for it.
    pub wake_ns: u64,
    /// The scheduler's sum of the task's time on run queues when the latest sleep began.
    pub run_delay_ns: u64,
    /// Time blocked in earlier sleeps of the same wait.
    pub blocked_ns: u64,
    /// Time on the run queue after earlier sleeps of the same wait.
    pub runqueue_ns: u64,
    /// First argument of the system call: the futex address, or a file descriptor.
    pub addr: u64,
    /// Thread.
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// System call number, or [`NR_NONE`].
    pub nr: i32,
    /// Second argument of the system call: the futex operation with its flags.
    pub op: u32,
    /// The task that made this one runnable; 0: none seen, or an interrupt on an idle CPU.
    pub waker_tid: u32,
    /// Process of the waker.
    pub waker_tgid: u32,
    /// System call by which the waker woke a futex waiter with a time limit, [`NR_NONE`] or [`NR_UNSURE`].
    pub waker_nr: i32,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Kernel sleep state, low bits: 1 interruptible, 2 uninterruptible.
    pub state: u8,
    /// One of [`outcome`]; meaningful in a [`WaitRecord`] only.
    pub outcome: u8,
    /// Indices of the statistics of locks that this task used, each in the place that its address gives, plus one; 0:
    /// none. A task that waits for a condition variable waits for its lock as well, again and again.
    pub locks: [u32; LOCKS_OF_TASK],
    /// Signals that were noted for the task when it was made runnable, a bit each.
    pub signals: u64,
    /// The kernel's lock that the task waits for; 0: none.
    pub klock: u64,
    /// Since when.
    pub klock_ns: u64,
    /// Bits of [`klock`].
    pub klock_flags: u32,
    /// Zero.
    pub pad: u32,
    /// Identifier of the user stack this wait began with, plus one; 0: not taken.
    pub user_stack: u32,
    /// The same of the kernel stack.
    pub kernel_stack: u32,
}

/// Bits of [`TaskSlot::flags`].
pub mod flag {
    /// The system call was given a time limit.
    pub const TIMED: u8 = 1;
    /// The wait was found in progress when observer started: its start is a lower bound of its age.
    pub const SEEDED: u8 = 2;
    /// The call's arguments came from a system call tracepoint, whose exit ends the wait.
    pub const BY_SYSCALL: u8 = 4;
    /// A 32-bit program: the system call number is of another table, so nothing is said of it.
    pub const COMPAT: u8 = 8;
    /// The task has run since its latest sleep but has not left the system call.
    pub const RAN: u8 = 16;
    /// `blocked_ns` and `runqueue_ns` are known apart.
    pub const SPLIT: u8 = 32;
    /// The task's previous wait was long: the stack of the next one is worth more than others.
    pub const AFTER_LONG: u8 = 64;
    /// In a record: below the threshold, and sent only because its stack was taken.
    pub const SAMPLE: u8 = 128;
}

/// Bits that tell a contended kernel lock's type (`LCB_F_*`, include/trace/events/lock.h).
pub mod klock {
    /// The waiter spins.
    pub const SPIN: u32 = 1;
    /// A reader.
    pub const READ: u32 = 2;
    /// A writer.
    pub const WRITE: u32 = 4;
    /// With priority inheritance.
    pub const RT: u32 = 8;
    /// With a counter on each CPU.
    pub const PERCPU: u32 = 16;
    /// A mutex.
    pub const MUTEX: u32 = 32;
}

/// How a wait ended: values of [`TaskSlot::outcome`].
pub mod outcome {
    /// Not known, or none of the others (a system call that failed after a sleep).
    pub const UNKNOWN: u8 = 0;
    /// Somebody woke the task because what it waited for came about.
    pub const WOKEN: u8 = 1;
    /// The time limit passed.
    pub const TIMEOUT: u8 = 2;
    /// A signal ended the wait.
    pub const INTERRUPTED: u8 = 3;
}

/// A wait that ended and lasted at least as long as the threshold, through the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitRecord {
    /// The wait as it was in the task's entry; `blocked_ns` and `runqueue_ns` are totals here.
    pub slot: TaskSlot,
    /// When the wait ended.
    pub end_ns: u64,
    /// The task's name at that time.
    pub comm: Comm,
    /// What the system call returned, where that is known ([`flag::BY_SYSCALL`]).
    pub ret: i64,
}

/// One entry of the vector that `futex_waitv` takes (`struct futex_waitv` of the kernel's ABI).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FutexWaitv {
    /// Value expected.
    pub val: u64,
    /// Address of the futex.
    pub uaddr: u64,
    /// `FUTEX2_*` flags; bit 7 says private.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// The vector of a `futex_waitv` in progress, by thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaitVector {
    /// Entries in use, at most [`WAITV_MAX`].
    pub len: u64,
    /// The entries.
    pub futexes: [FutexWaitv; WAITV_MAX],
}

/// A wait of `futex_waitv` that ended, through the ring buffer: told from a [`WaitRecord`] by its size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WaitvRecord {
    /// The wait.
    pub wait: WaitRecord,
    /// What it waited for.
    pub vector: WaitVector,
}

/// A thread and the registers it left user mode with, from the task iterator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRegs {
    /// Thread.
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// Kernel sleep state: 0 runs or is runnable, and what follows is older than what it does now.
    pub state: u32,
    /// 1: a 32-bit program.
    pub compat: u32,
    /// Times the thread was switched from, of its own accord and not.
    pub switches: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer, `rbp`.
    pub bp: u64,
    /// `rbx`, `r12`, `r13`, `r14`, `r15`: what a called function has to preserve.
    pub saved: [u64; 5],
    /// System call number, or [`NR_NONE`].
    pub nr: i64,
    /// Its arguments.
    pub args: [u64; 6],
    /// When the thread left its CPU at the latest, `CLOCK_MONOTONIC` nanoseconds; 0: not known.
    pub since_ns: u64,
}

/// Identity of a lock as the kernel programs know it: a futex by process and address (user space joins
/// the keys of one shared futex), a lock inside the kernel by its address and process 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockKey {
    /// User-space address.
    pub addr: u64,
    /// Process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// Totals of the waits for one lock on one stripe of CPUs; all fields only grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockStat {
    /// Waits that ended.
    pub count: u64,
    /// Their durations' sum.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Waits that ended by their time limit.
    pub timeouts: u32,
    /// Waits that a signal ended.
    pub interrupted: u32,
    /// Futex operation of the latest wait.
    pub op: u32,
    /// Zero.
    pub pad0: u32,
    /// When that was.
    pub last_ns: u64,
    /// The identity, so that an entry is told from a recycled one.
    pub key: LockKey,
    /// Identifier of the kernel stack that waited first, plus one; 0: none. Kernel locks only.
    pub stack: u32,
    /// The thread that ended the latest wait; 0: none seen.
    pub waker_tid: u32,
    /// Durations by [`bucket`].
    pub histogram: [u32; BUCKETS],
}

/// Count, sum and maximum of one kind of wait of one task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStat {
    /// Waits that ended.
    pub count: u64,
    /// Their durations' sum.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// Totals of one task, by [`kind`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskStat {
    /// Thread the totals belong to.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// The task's name when its latest wait ended.
    pub comm: Comm,
    /// By kind.
    pub kinds: [KindStat; kind::COUNT],
}

/// What user space sets while the programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Waits at least this long go through the ring buffer.
    pub min_wait_ns: u64,
    /// Stacks that each CPU may take in a tenth of a second.
    pub stack_tokens: u64,
    /// Totals count one in `1 << sample_shift` of the waits below `min_wait_ns`, that many times.
    pub sample_shift: u64,
}

/// Fixed for the life of the programs: offsets of the running kernel, modes, table sizes, filters.
///
/// It lies in read-only data that is frozen before the programs are loaded, so the verifier sees
/// constants: an offset can be used for a direct load, and a branch that this kernel or this run
/// cannot take costs nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `task_struct.pid`, byte offset.
    pub off_pid: u32,
    /// `task_struct.tgid`.
    pub off_tgid: u32,
    /// `task_struct.__state` (`state` before 5.14).
    pub off_state: u32,
    /// `task_struct.flags`.
    pub off_flags: u32,
    /// `task_struct.comm`.
    pub off_comm: u32,
    /// `task_struct.stack`.
    pub off_stack: u32,
    /// `task_struct.pending.signal`; [`ABSENT`] if any of these four is: no signal is ever seen then.
    pub off_pending: u32,
    /// `task_struct.blocked`.
    pub off_blocked: u32,
    /// `task_struct.signal`.
    pub off_signal: u32,
    /// `signal_struct.shared_pending.signal`.
    pub off_shared_pending: u32,
    /// `task_struct.se.cfs_rq`; unused if `off_rq_clock` is [`ABSENT`].
    pub off_cfs_rq: u32,
    /// `cfs_rq.rq`.
    pub off_cfs_rq_rq: u32,
    /// `rq.clock`; [`ABSENT`]: the clock is read by a helper instead.
    pub off_rq_clock: u32,
    /// `task_struct.sched_info.run_delay`; [`ABSENT`], like the next one and always where `off_rq_clock`
    /// is: the time of each wake-up is noted instead.
    pub off_run_delay: u32,
    /// `task_struct.sched_info.last_queued`.
    pub off_last_queued: u32,
    /// `task_struct.sched_info.last_arrival`; present where `off_run_delay` is.
    pub off_last_arrival: u32,
    /// `task_struct.se.exec_start`; [`ABSENT`], like the next one: a wait older than observer has no age
    /// from before.
    pub off_exec_start: u32,
    /// `rq.clock_task`.
    pub off_rq_clock_task: u32,
    /// `task_struct.files`; [`ABSENT`] if any of these six is: files are not told apart then.
    pub off_files: u32,
    /// `files_struct.fdt`.
    pub off_fdt: u32,
    /// `fdtable.max_fds`.
    pub off_max_fds: u32,
    /// `fdtable.fd`.
    pub off_fd: u32,
    /// `file.f_inode`.
    pub off_inode: u32,
    /// `inode.i_mode`.
    pub off_mode: u32,
    /// `task_struct.nvcsw`; [`ABSENT`] if either of the two is.
    pub off_nvcsw: u32,
    /// `task_struct.nivcsw`.
    pub off_nivcsw: u32,
    /// 1: `sched_switch` passes the state of the task that leaves (5.18 on).
    pub has_state_arg: u32,
    /// 1: the helpers `bpf_task_pt_regs` and `bpf_get_current_task_btf` are there (5.15 on).
    pub has_pt_regs: u32,
    /// 1: the registers may be read from the top of the kernel stack (kernels without the helper).
    pub regs_on_stack: u32,
    /// Size of a kernel stack, for `regs_on_stack`.
    pub stack_size: u32,
    /// Number of task entries minus one; a power of two minus one.
    pub task_mask: u32,
    /// log2 of the stripes of lock statistics.
    pub stripe_shift: u32,
    /// 1: several CPUs share a stripe, so its counters are added to atomically.
    pub shared_stripes: u32,
    /// Bits of [`filter`].
    pub filters: u32,
    /// Process that is never observed: observer itself.
    pub self_tgid: u32,
    /// 1: the programs log what they do, for their own debugging.
    pub log: u32,
    /// Control groups of [`filter::CGROUP`]: identifier (0: none).
    pub cgroup_id: [u64; MAX_CGROUPS],
    /// Depth of each in the tree, for the ancestor test.
    pub cgroup_level: [u32; MAX_CGROUPS],
}

/// An offset of something that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;
/// Control groups that can be asked for at the same time.
pub const MAX_CGROUPS: usize = 4;
/// Set in [`TaskHead::tid`] when the task has ended: its statistics are final.
pub const TID_ENDED: u32 = 1 << 31;

/// Bits of [`Settings::filters`]; a task passes when each set filter lets it pass.
pub mod filter {
    /// Only processes in the map of processes.
    pub const PID: u32 = 1;
    /// Only tasks whose name is in the map of names.
    pub const COMM: u32 = 2;
    /// Only tasks in one of the control groups or below it.
    pub const CGROUP: u32 = 4;
    /// Of the processes and the control groups, one is enough.
    pub const EITHER: u32 = 8;
}

/// The characters of a name; it ends at the first NUL.
pub fn comm_bytes(comm: &Comm) -> [u8; COMM_LEN] {
    let mut bytes = [0; COMM_LEN];
    for (to, word) in bytes.chunks_exact_mut(8).zip(comm) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Bucket of a duration: 0 for less than 1 024 ns, then one for each power of two, the last open-ended.
#[inline]
pub const fn bucket(ns: u64) -> u32 {
    let log = (ns | 1).ilog2();
    if log < 10 {
        0
    } else if log > 40 {
        BUCKETS as u32 - 1
    } else {
        log - 9
    }
}

/// First nanosecond that no longer belongs to the bucket; `None` for the open-ended last one.
pub const fn bucket_end(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS {
        Some(1 << (bucket + 10))
    } else {
        None
    }
}

const _: () = {
    assert!(size_of::<TaskHead>() == 16);
    assert!(size_of::<TaskSlot>() == 144);
    assert!(size_of::<WaitRecord>() == 176);
    assert!(size_of::<FutexWaitv>() == 24);
    assert!(size_of::<WaitVector>() == 8 + 24 * WAITV_MAX);
    assert!(size_of::<LockStat>() == 72 + 4 * BUCKETS);
    assert!(size_of::<KindStat>() == 24);
    assert!(size_of::<TaskRegs>() == 152);
    assert!(size_of::<Settings>() == 36 * 4 + MAX_CGROUPS * 12);
    assert!(size_of::<TaskStat>() == 24 + 24 * kind::COUNT);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(1023), 0);
        assert_eq!(bucket(1024), 1);
        assert_eq!(bucket(2047), 1);
        assert_eq!(bucket(2048), 2);
        assert_eq!(bucket(u64::MAX), 31);
        for b in 0..BUCKETS - 1 {
            let end = bucket_end(b).unwrap_or(0);
            assert_eq!(bucket(end - 1), b as u32);
            assert_eq!(bucket(end), b as u32 + 1);
        }
        assert_eq!(bucket_end(BUCKETS - 1), None);
    }
}
