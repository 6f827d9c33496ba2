//! All maps, and the counting of losses.
//!
//! Their sizes here are placeholders: user space sets them from the host before the load. The tables
//! that user space scans are arrays it maps into its memory: no system call an entry.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, Stack, StackTrace},
};
use observer_common::{
    Comm, Config, LockKey, LockStat, TaskHead, TaskSlot, TaskStat, WaitVector, counter,
};

/// One entry a task, found by `tid & mask`: is it waiting?
#[map]
pub(crate) static HEADS: Array<TaskHead> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// In the same place: how and for what it waits.
#[map]
pub(crate) static SLOTS: Array<TaskSlot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// In the same place: its totals.
#[map]
pub(crate) static TASK_STATS: Array<TaskStat> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Lock → index of its totals.
#[map]
pub(crate) static LOCKS: HashMap<LockKey, u32> = HashMap::with_max_entries(1, 0);
/// Totals of locks; each index has one entry a stripe of CPUs.
#[map]
pub(crate) static LOCK_STATS: Array<LockStat> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Indices not in use. User space fills it, and gives back those of locks it evicts.
#[map]
pub(crate) static FREE: Stack<u32> = Stack::with_max_entries(1, 0);
/// Long waits.
#[map]
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(4096, 0);
/// Stacks, user and kernel. None is ever replaced: an identifier means the same for good.
#[map]
pub(crate) static STACKS: StackTrace = StackTrace::with_max_entries(1_024, 0);
/// Losses by cause.
#[map]
static COUNTERS: PerCpuArray<[u64; counter::COUNT]> = PerCpuArray::with_max_entries(1, 0);
/// What may change while the programs run.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
/// Processes to observe, for the filter.
#[map]
pub(crate) static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, 0);
/// Names to observe, for the filter.
#[map]
pub(crate) static COMMS: HashMap<Comm, u8> = HashMap::with_max_entries(1, 0);
/// The process whose threads' registers are asked for; 0: all.
#[map]
pub(crate) static REGS_OF: Array<u32> = Array::with_max_entries(1, 0);
/// Vectors of `futex_waitv` calls in progress, by thread.
#[map]
pub(crate) static VECTORS: HashMap<u32, WaitVector> = HashMap::with_max_entries(1, 0);
/// Room to read a vector into: too large for the stack of a program.
#[map]
pub(crate) static VECTOR_SCRATCH: PerCpuArray<WaitVector> = PerCpuArray::with_max_entries(1, 0);

/// Counts the loss that a step ended with, if it did.
#[inline(always)]
pub(crate) fn lose_on(result: Result<(), u32>) {
    if let Err(cause) = result {
        lose(cause);
    }
}

/// Counts a loss; `cause` is one of [`counter`].
#[inline(always)]
pub(crate) fn lose(cause: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's array, and the index is masked to its length, a power of
        // two. No other program on this CPU runs at the same time on the same counter without being
        // nested in this one, where an increment may be lost: it would be one in millions.
        unsafe { (*counters)[cause as usize & (counter::COUNT - 1)] += 1 };
    }
}
