//! What the tests share: programs that wait, observer that watches them, and when a test is skipped.

pub(crate) mod event;
mod group;
mod host;
mod observer;
mod room;
mod temp;
mod terminal;
mod workload;

use std::time::{Duration, Instant};

pub(crate) use self::{
    group::Group,
    host::{OBSERVER, kernel_at_least},
    observer::{Mode, Observer, Run, command, in_both_modes, output},
    room::{Skip, Tested, alone, together},
    temp::TempDir,
    terminal::Terminal,
    workload::Workload,
};

/// Nothing here takes this long, on the slowest machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at something that cannot be waited for.
const LOOK: Duration = Duration::from_millis(20);

/// The name of the test that this stands in, as the test runner prints it.
macro_rules! name {
    () => {{
        let here = std::any::type_name_of_val(&|| ());
        let here = here.trim_end_matches("::{{closure}}");
        here.split_once("::").map_or(here, |(_, name)| name)
    }};
}
pub(crate) use name;

/// Looks again and again until `found` gives something.
#[track_caller]
pub(crate) fn poll<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Asserts that the sum of some waits is within 5 % of what the workload measured around its calls, which
/// hold more than the wait: each may be preempted on its way in or out.
#[track_caller]
pub(crate) fn assert_close_around(what: &str, observed: u64, truth: u64, waits: usize) {
    assert!(
        observed.abs_diff(truth) <= truth / 20 + waits as u64 * 1_000_000,
        "{what}: observed {observed}, measured {truth}"
    );
}

/// Asserts that a sum is within 5 % of what the workload measured.
#[track_caller]
pub(crate) fn assert_close(what: &str, observed: u64, truth: u64) {
    assert!(
        observed.abs_diff(truth) * 20 <= truth,
        "{what}: observed {observed}, measured {truth}"
    );
}

/// Asserts that a count is that of the workload, but for 1 % whose length the threshold may cut.
#[track_caller]
pub(crate) fn assert_same_but_for_the_edge(what: &str, observed: u64, truth: u64) {
    assert!(
        observed.abs_diff(truth) <= 1 + truth / 100,
        "{what}: observed {observed}, measured {truth}"
    );
}

/// Sends a signal to a process that this test started and has not waited for.
pub(crate) fn signal(pid: u32, number: libc::c_int) {
    // SAFETY: the call takes two integers. The process is a child not yet reaped, so its number still
    // is its own.
    let rc = unsafe { libc::kill(pid as libc::pid_t, number) };
    assert_eq!(rc, 0, "kill {pid}: {}", std::io::Error::last_os_error());
}
