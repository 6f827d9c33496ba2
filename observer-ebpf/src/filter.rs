//! Which tasks are observed: never observer itself, never kernel threads; by process, name and
//! control group when asked.

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_comm};
use observer_common::{Comm, MAX_CGROUPS, filter};

use crate::{maps, settings};

/// May the running task be observed? At `sched_switch` that is the task that leaves the CPU.
#[inline(always)]
pub(crate) fn passes(tgid: u32) -> bool {
    if tgid == settings::self_tgid() {
        return false;
    }
    let filters = settings::filters();
    if filters == 0 {
        return true;
    }
    // SAFETY: a look-up whose value is not read.
    let named = filters & filter::PID == 0 || unsafe { maps::PIDS.get(tgid) }.is_some();
    let either = filters & filter::EITHER != 0;
    if !named && !either {
        return false;
    }
    if filters & filter::COMM != 0 {
        let mut comm: Comm = [0; 2];
        // SAFETY: the helper fills `comm`, whose size it is given.
        unsafe { bpf_get_current_comm((&raw mut comm).cast(), size_of::<Comm>() as u32) };
        // SAFETY: as above.
        if unsafe { maps::COMMS.get(comm) }.is_none() {
            return false;
        }
    }
    filters & filter::CGROUP == 0 || (either && named) || in_cgroup()
}

/// May a task that does not run now be observed? Its control group cannot be asked for: user space does
/// not seed when there is a filter by control group alone.
#[inline(always)]
pub(crate) fn passes_named(tgid: u32, comm: &Comm) -> bool {
    let filters = settings::filters();
    // SAFETY: look-ups whose values are not read.
    unsafe {
        tgid != settings::self_tgid()
            && (filters & filter::PID == 0 || maps::PIDS.get(tgid).is_some())
            && (filters & filter::COMM == 0 || maps::COMMS.get(comm).is_some())
    }
}

#[inline(always)]
fn in_cgroup() -> bool {
    let mut i = 0;
    while i < MAX_CGROUPS {
        let (id, level) = settings::cgroup(i);
        // SAFETY: the helper reads the running task's control groups only.
        if id != 0 && unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) } == id {
            return true;
        }
        i += 1;
    }
    false
}
