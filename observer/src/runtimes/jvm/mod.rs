//! Java virtual machines (HotSpot): what their threads wait for, and who has it, from memory ([`Machine`]) and without
//! any cooperation; or, where it is asked for, from the machine's own thread dump ([`dump`]).
//!
//! HotSpot publishes the layout of its structures for debuggers that attach. Read from outside, the same tells for
//! each thread which monitor it is about to enter, and for each monitor which thread owns it. Where the layout is not
//! known the functions above the call tell what sort of wait it is.

pub mod contended;
pub mod dump;
mod layout;
mod machine;
mod objects;
mod structs;

pub use self::{
    dump::{JavaFrame, JavaThread, Wanted, Way, holders, parse},
    machine::{Machine, OwnedBy, Wait},
    structs::EXPORTS,
};
use super::{Described, Owner, Process, Recognised, Runtime, Site, pthread};
use crate::event::LockClass;

/// Beginnings of names, and what is waited for there: what enters a monitor, waits for one, and parks threads.
const FUNCTIONS: [(&str, LockClass); 6] = [
    ("ObjectMonitor::enter", LockClass::JvmMonitor),
    ("ObjectMonitor::ReenterI", LockClass::JvmMonitor),
    ("ObjectMonitor::wait", LockClass::JvmPark),
    ("Parker::park", LockClass::JvmPark),
    ("Unsafe_Park", LockClass::JvmPark),
    ("PlatformEvent::park", LockClass::JvmPark),
];

/// The end of the path of HotSpot's library.
const HOTSPOT: &str = "/libjvm.so";

/// The functions that count stand this near to the system call.
const DEPTH: usize = 12;

/// HotSpot.
pub struct Jvm;

impl Runtime for Jvm {
    fn name(&self) -> &'static str {
        "jvm"
    }

    fn recognise(&self, process: &Process) -> Option<Recognised> {
        let detail = match process.java.as_ref()? {
            Ok(machine) if machine.is_whole() => format!(
                "{}: names of threads, monitors and locks of java.util.concurrent with owners, from its memory",
                machine.release()
            ),
            Ok(machine) => format!(
                "{}: monitors with owners, from its memory; more of this release is not known (16 to 18 are)",
                machine.release()
            ),
            Err(why) => format!(
                "park and monitors of HotSpot, without names and owners: {why}; with them by `dump --jvm-attach`, and \
                 names by `--usdt hotspot`"
            ),
        };
        Some(Recognised::new(self.name(), detail))
    }

    fn describe(&self, site: &Site<'_>) -> Option<Described> {
        let near = &site.functions[..site.functions.len().min(DEPTH)];
        let class = FUNCTIONS
            .iter()
            .find(|(beginning, _)| near.iter().any(|name| name.starts_with(beginning)))
            .map(|(_, class)| *class)
            .or_else(|| unnamed(site))?;
        Some(Described {
            class,
            base: None,
            owner: Owner::Unrecorded,
            writer: None,
        })
    }
}

/// Without names of functions: the machine waits for a condition. A mutex of the machine is like any other, and is
/// left to the C library.
fn unnamed(site: &Site<'_>) -> Option<LockClass> {
    let in_hotspot = site.caller.is_some_and(|file| file.ends_with(HOTSPOT));
    (in_hotspot && pthread::is_condition(site)).then_some(LockClass::JvmRuntime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inspect::memory::fixture::Fixture, runtimes::FutexCall};

    fn describe(names: &[&str], caller: Option<&str>) -> Option<LockClass> {
        let memory = Fixture::words(0x1000, &[0]);
        let functions: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let site = Site {
            call: FutexCall::default(),
            functions: &functions,
            caller,
            by_go: false,
            memory: &memory,
            process: &Process::default(),
        };
        Jvm.describe(&site).map(|described| described.class)
    }

    #[test]
    fn by_the_functions_above() {
        for (names, expected) in [
            (
                &["pthread_cond_wait", "Parker::park", "Unsafe_Park"][..],
                Some(LockClass::JvmPark),
            ),
            // A monitor is entered by way of the same event.
            (
                &["PlatformEvent::park", "ObjectMonitor::enter"],
                Some(LockClass::JvmMonitor),
            ),
            // Who was notified enters again.
            (
                &[
                    "PlatformEvent::park",
                    "ObjectMonitor::ReenterI",
                    "ObjectMonitor::wait",
                ],
                Some(LockClass::JvmMonitor),
            ),
            (&[], None),
        ] {
            assert_eq!(describe(names, None), expected, "{names:?}");
        }
    }

    #[test]
    fn without_names() {
        let hotspot = Some("/usr/lib/jvm/lib/server/libjvm.so");
        let condition = &["pthread_cond_wait"];
        assert_eq!(describe(condition, hotspot), Some(LockClass::JvmRuntime));
        assert_eq!(describe(&["pthread_mutex_lock"], hotspot), None);
        assert_eq!(describe(condition, Some("/libjvm.so.txt")), None);
    }
}
