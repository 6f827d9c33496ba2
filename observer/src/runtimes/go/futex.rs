//! Threads of Go's runtime that wait in a futex: what waits there is the runtime, by the names of its functions, or,
//! stripped, by its own way to make the call. Goroutines are looked at in another way.

use crate::{
    event::LockClass,
    runtimes::{Described, Owner, Process, Recognised, Runtime, Site},
};

/// Beginnings of names: `runtime.futex` and its callers.
const FUNCTIONS: [&str; 4] = [
    "runtime.futex",
    "runtime.notesleep",
    "runtime.notetsleep",
    "runtime.lock2",
];

/// What `runtime.futex` goes on with behind the system call, in all releases so far:
/// `mov %eax,0x30(%rsp); ret` (`src/runtime/sys_linux_amd64.s`).
#[cfg(not(target_arch = "aarch64"))]
pub const BEHIND_FUTEX: [u8; 5] = [0x89, 0x44, 0x24, 0x30, 0xc3];
/// The same for arm64: `str w0, [sp, #48]; ret` (`src/runtime/sys_linux_arm64.s`).
#[cfg(target_arch = "aarch64")]
pub const BEHIND_FUTEX: [u8; 8] = [0xe0, 0x33, 0x00, 0xb9, 0xc0, 0x03, 0x5f, 0xd6];

/// The functions that count stand this near to the system call.
const DEPTH: usize = 12;

/// Go.
pub struct Go;

impl Runtime for Go {
    fn name(&self) -> &'static str {
        "go"
    }

    fn recognise(&self, process: &Process) -> Option<Recognised> {
        let program = super::recognise(process.pid).ok()?;
        let detail = format!("{program}: goroutines, their channels, locks and likely holders");
        Some(Recognised::new(self.name(), detail))
    }

    fn describe(&self, site: &Site<'_>) -> Option<Described> {
        let mut near = site.functions.iter().take(DEPTH);
        let is_runtime = |name: &String| FUNCTIONS.iter().any(|one| name.starts_with(one));
        (site.by_go || near.any(is_runtime)).then_some(Described {
            class: LockClass::GoRuntime,
            base: None,
            owner: Owner::Unrecorded,
            writer: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inspect::memory::fixture::Fixture, runtimes::FutexCall};

    #[test]
    fn by_the_functions_above_or_the_way_of_the_call() {
        let memory = Fixture::words(0x1000, &[0]);
        for (names, by_go, expected) in [
            (
                &[
                    "runtime.futex.abi0",
                    "runtime.futexsleep",
                    "runtime.notesleep",
                ][..],
                false,
                Some(LockClass::GoRuntime),
            ),
            (&["futex_wait", "main.runtime.futex"], false, None),
            (&[], false, None),
            (&[""], true, Some(LockClass::GoRuntime)),
        ] {
            let functions: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let site = Site {
                call: FutexCall::default(),
                functions: &functions,
                caller: None,
                by_go,
                memory: &memory,
                process: &Process::default(),
            };
            let class = Go.describe(&site).map(|described| described.class);
            assert_eq!(class, expected, "{names:?}");
        }
    }
}
