//! Tasks: fields of `task_struct`, and each task's entries in the tables.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{EbpfContext, helpers::bpf_get_current_pid_tgid, programs::BtfTracePointContext};
use observer_common::{
    ABSENT, Comm, LOCKS_OF_TASK, TID_ENDED, TaskHead, TaskSlot, TaskStat, counter, kind,
};

use crate::{maps, settings};

/// `PF_KTHREAD`: a kernel thread (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
/// A structure of the kernel's, vouched for by it: a `task_struct` that a BTF tracepoint passes, or
/// what is reached from one.
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) *const u8);

impl Task {
    /// Argument `n` of a tracepoint.
    #[inline(always)]
    pub(crate) fn arg(ctx: &BtfTracePointContext, n: usize) -> Self {
        Task(ctx.arg::<*const u8>(n))
    }

    /// A field, by a direct load that the verifier checks against the kernel's BTF.
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier knows the pointer's type and refuses the program unless the load lies
        // within a field of that size. Faults are handled by the kernel (the load reads zero).
        unsafe { read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    /// A pointer to another structure of the kernel's.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Task {
        Task(self.load(offset))
    }

    /// A field of 32 bits.
    #[inline(always)]
    pub(crate) fn word(self, offset: u32) -> u32 {
        self.load(offset)
    }

    /// A field of 64 bits, or a pointer that is read by a helper.
    #[inline(always)]
    pub(crate) fn address(self, offset: u32) -> u64 {
        self.load(offset)
    }

    #[inline(always)]
    pub(crate) fn tid(self) -> u32 {
        self.load(settings::off_pid())
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.load(settings::off_tgid())
    }

    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        self.load(settings::off_state())
    }

    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.load::<u32>(settings::off_flags()) & PF_KTHREAD != 0
    }

    /// Signals noted for the thread or its process and not blocked, a bit each (signal `n` is bit
    /// `n - 1`). From the sets of pending signals: the thread's flag has another bit from one kernel to
    /// the next.
    #[inline(always)]
    pub(crate) fn pending_signals(self) -> u64 {
        if settings::off_pending() == ABSENT {
            return 0;
        }
        let process = self.follow(settings::off_signal());
        let own = self.address(settings::off_pending());
        let shared = process.address(settings::off_shared_pending());
        let blocked = self.address(settings::off_blocked());
        (own | shared) & !blocked
    }

    /// The clock of the run queue that the task belongs to.
    #[inline(always)]
    pub(crate) fn rq_clock(self) -> u64 {
        self.follow(settings::off_cfs_rq())
            .follow(settings::off_cfs_rq_rq())
            .address(settings::off_rq_clock())
    }

    /// When the task last left a CPU, by the scheduler's clock, at the latest that this can have been. The
    /// clock that the time was noted by leaves out interrupts and what the host took; how far it is behind
    /// is known for now, and was less then.
    #[inline(always)]
    pub(crate) fn left_cpu(self) -> u64 {
        let queue = self
            .follow(settings::off_cfs_rq())
            .follow(settings::off_cfs_rq_rq());
        let behind_ns = queue
            .address(settings::off_rq_clock())
            .saturating_sub(queue.address(settings::off_rq_clock_task()));
        self.load::<u64>(settings::off_exec_start()) + behind_ns
    }

    /// Does the scheduler account for this kernel's tasks' time on run queues?
    #[inline(always)]
    pub(crate) fn has_run_delay() -> bool {
        settings::off_run_delay() != ABSENT
    }

    /// Time on run queues so far, but for the present stay.
    #[inline(always)]
    pub(crate) fn run_delay(self) -> u64 {
        self.load(settings::off_run_delay())
    }

    /// When the present stay on a run queue began, by the scheduler's clock; 0: not on one.
    #[inline(always)]
    pub(crate) fn last_queued(self) -> u64 {
        self.load(settings::off_last_queued())
    }

    /// When the task last got a CPU, by the scheduler's clock. `sched_switch` comes before it is set anew.
    #[inline(always)]
    pub(crate) fn last_arrival(self) -> u64 {
        self.load(settings::off_last_arrival())
    }

    /// Address of the kernel stack; only for kernels without `bpf_task_pt_regs`.
    #[inline(always)]
    pub(crate) fn stack(self) -> u64 {
        self.load(settings::off_stack())
    }

    /// Times the task was switched from.
    #[inline(always)]
    pub(crate) fn switches(self) -> u64 {
        self.address(settings::off_nvcsw())
            .wrapping_add(self.address(settings::off_nivcsw()))
    }

    /// The name, as two words: the kernel lets a program load the array in pieces of any size.
    #[inline(always)]
    pub(crate) fn comm(self) -> Comm {
        let at = settings::off_comm();
        [self.load(at), self.load(at + 8)]
    }
}

/// The entries of one task.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) index: u32,
    pub(crate) head: *mut TaskHead,
    pub(crate) slot: *mut TaskSlot,
}

impl Entry {
    /// The entry of a task that has one.
    #[inline(always)]
    pub(crate) fn find(tid: u32) -> Option<Entry> {
        let index = tid & settings::task_mask();
        let head = maps::HEADS.get_ptr_mut(index)?;
        // SAFETY: a pointer to a map entry, checked above.
        if unsafe { (*head).tid } != tid {
            return None;
        }
        let slot = maps::SLOTS.get_ptr_mut(index)?;
        Some(Entry { index, head, slot })
    }

    /// The entry of a task, made its own if nobody who waits has it.
    #[inline(always)]
    pub(crate) fn claim(tid: u32, tgid: u32) -> Result<Entry, u32> {
        let index = tid & settings::task_mask();
        let (Some(head), Some(slot)) = (
            maps::HEADS.get_ptr_mut(index),
            maps::SLOTS.get_ptr_mut(index),
        ) else {
            return Err(counter::TASK_COLLISION);
        };
        // SAFETY: pointers to map entries, checked above; the index is the task's alone from here on.
        unsafe {
            if (*head).tid != tid {
                if (*head).tid & TID_ENDED == 0 && (*head).tid != 0 {
                    if (*head).start_ns != 0 {
                        return Err(counter::TASK_COLLISION);
                    }
                    maps::lose(counter::TASK_TAKEN_OVER);
                }
                write_volatile(&raw mut (*head).start_ns, 0);
                (*head).tid = tid;
                (*slot).flags = 0;
                (*slot).nr = 0;
                let mut i = 0;
                while i < LOCKS_OF_TASK {
                    write_volatile(&raw mut (*slot).locks[i], 0);
                    i += 1;
                }
                (*slot).signals = 0;
                (*slot).user_stack = 0;
                (*slot).kernel_stack = 0;
                (*slot).klock = 0;
                (*slot).wake_ns = 0;
                reset_stats(index, tid, tgid);
            }
        }
        Ok(Entry { index, head, slot })
    }

    /// Start of the wait in progress; 0: none.
    #[inline(always)]
    pub(crate) fn start_ns(&self) -> u64 {
        // SAFETY: `head` points to a map entry for as long as the program runs.
        unsafe { (*self.head).start_ns }
    }

    #[inline(always)]
    pub(crate) fn stats(&self) -> Option<*mut TaskStat> {
        maps::TASK_STATS.get_ptr_mut(self.index)
    }
}

/// Empties the totals of a task that takes an entry over.
#[inline(always)]
fn reset_stats(index: u32, tid: u32, tgid: u32) {
    let Some(stat) = maps::TASK_STATS.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: a pointer to a map entry, checked above. A plain assignment of the whole would become a
    // call to memset, byte by byte.
    unsafe {
        (*stat).tid = tid;
        (*stat).tgid = tgid;
        let mut i = 0;
        while i < kind::COUNT {
            let kind = (&raw mut (*stat).kinds[i]).cast::<u64>();
            write_volatile(kind, 0);
            write_volatile(kind.add(1), 0);
            write_volatile(kind.add(2), 0);
            i += 1;
        }
    }
}

/// The thread and process that run now.
#[inline(always)]
pub(crate) fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    (both as u32, (both >> 32) as u32)
}

/// Keeps the context type in one place for the programs' own log.
#[inline(always)]
pub(crate) fn report<C: EbpfContext>(ctx: &C, result: Result<(), u32>) {
    if let Err(cause) = result {
        maps::lose(cause);
        if settings::log() != 0 {
            let (tid, tgid) = current();
            aya_log_ebpf::debug!(
                ctx,
                "lost something: cause {}, task {}/{}",
                cause,
                tgid,
                tid
            );
        }
    }
}
