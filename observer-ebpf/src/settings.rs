//! What user space fixed before the programs were loaded.

use core::ptr::{addr_of, read_volatile};

use observer_common::{MAX_CGROUPS, Settings};

/// User space replaces it as a whole before the load. `read_volatile` keeps the compiler from using
/// the zeros that stand here; the verifier then sees the frozen values as constants.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    off_pid: 0,
    off_tgid: 0,
    off_state: 0,
    off_flags: 0,
    off_comm: 0,
    off_stack: 0,
    off_pending: 0,
    off_blocked: 0,
    off_signal: 0,
    off_shared_pending: 0,
    off_cfs_rq: 0,
    off_cfs_rq_rq: 0,
    off_rq_clock: 0,
    off_run_delay: 0,
    off_last_queued: 0,
    off_last_arrival: 0,
    off_exec_start: 0,
    off_rq_clock_task: 0,
    off_files: 0,
    off_fdt: 0,
    off_max_fds: 0,
    off_fd: 0,
    off_inode: 0,
    off_mode: 0,
    off_nvcsw: 0,
    off_nivcsw: 0,
    has_state_arg: 0,
    has_pt_regs: 0,
    regs_on_stack: 0,
    stack_size: 0,
    task_mask: 0,
    stripe_shift: 0,
    shared_stripes: 0,
    filters: 0,
    self_tgid: 0,
    log: 0,
    cgroup_id: [0; MAX_CGROUPS],
    cgroup_level: [0; MAX_CGROUPS],
};

macro_rules! setting {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        #[inline(always)]
        pub(crate) fn $name() -> $type {
            // SAFETY: the address is that of a field of a static.
            unsafe { read_volatile(addr_of!(SETTINGS.$name)) }
        }
    )*};
}

setting!(
    off_pid: u32,
    off_tgid: u32,
    off_state: u32,
    off_flags: u32,
    off_comm: u32,
    off_stack: u32,
    off_pending: u32,
    off_blocked: u32,
    off_signal: u32,
    off_shared_pending: u32,
    off_cfs_rq: u32,
    off_cfs_rq_rq: u32,
    off_rq_clock: u32,
    off_run_delay: u32,
    off_last_queued: u32,
    off_last_arrival: u32,
    off_exec_start: u32,
    off_rq_clock_task: u32,
    off_files: u32,
    off_fdt: u32,
    off_max_fds: u32,
    off_fd: u32,
    off_inode: u32,
    off_mode: u32,
    off_nvcsw: u32,
    off_nivcsw: u32,
    has_state_arg: u32,
    has_pt_regs: u32,
    regs_on_stack: u32,
    stack_size: u32,
    task_mask: u32,
    stripe_shift: u32,
    shared_stripes: u32,
    filters: u32,
    self_tgid: u32,
    log: u32,
);

/// Control group `i` to observe: identifier (0: none) and depth.
#[inline(always)]
pub(crate) fn cgroup(i: usize) -> (u64, u32) {
    // SAFETY: callers pass constants below `MAX_CGROUPS`; the fields are arrays of that length.
    unsafe {
        (
            read_volatile(addr_of!(SETTINGS.cgroup_id).cast::<u64>().add(i)),
            read_volatile(addr_of!(SETTINGS.cgroup_level).cast::<u32>().add(i)),
        )
    }
}
