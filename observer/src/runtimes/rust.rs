//! Locks of Rust's standard library (1.62 and later, on futexes) and of `parking_lot`. None of them
//! records its owner.

use std::borrow::Cow;

use super::{
    Described, Owner, Process, Recognised, Runtime, Site,
    pthread::{WAIT, WAIT_BITSET},
};
use crate::event::LockClass;

/// Parts of names, and what is waited for there: the paths of several releases. Whether the thread wants
/// to write, where that is a question.
const FUNCTIONS: [(&str, LockClass, Option<bool>); 18] = [
    (
        "futex_mutex::Mutex::lock_contended",
        LockClass::RustMutex,
        None,
    ),
    (
        "mutex::futex::Mutex::lock_contended",
        LockClass::RustMutex,
        None,
    ),
    (
        "futex_rwlock::RwLock::read_contended",
        LockClass::RustRwlock,
        Some(false),
    ),
    (
        "futex_rwlock::RwLock::write_contended",
        LockClass::RustRwlock,
        Some(true),
    ),
    (
        "rwlock::futex::RwLock::read_contended",
        LockClass::RustRwlock,
        Some(false),
    ),
    (
        "rwlock::futex::RwLock::write_contended",
        LockClass::RustRwlock,
        Some(true),
    ),
    ("futex_condvar::Condvar::wait", LockClass::RustCondvar, None),
    (
        "condvar::futex::Condvar::wait",
        LockClass::RustCondvar,
        None,
    ),
    (
        "std::sync::poison::condvar::Condvar::wait",
        LockClass::RustCondvar,
        None,
    ),
    (
        "std::sync::condvar::Condvar::wait",
        LockClass::RustCondvar,
        None,
    ),
    ("once::futex::Once::", LockClass::RustOnce, None),
    ("futex_once::Once::", LockClass::RustOnce, None),
    (
        "thread_parking::futex::Parker::park",
        LockClass::RustPark,
        None,
    ),
    (
        "thread_parker::futex::Parker::park",
        LockClass::RustPark,
        None,
    ),
    ("std::thread::park", LockClass::RustPark, None),
    (
        "parking_lot::condvar::Condvar::wait",
        LockClass::ParkingLotCondvar,
        None,
    ),
    (
        "parking_lot::raw_mutex::RawMutex::lock_slow",
        LockClass::ParkingLot,
        None,
    ),
    (
        "parking_lot::raw_rwlock::RawRwLock::lock_",
        LockClass::ParkingLot,
        None,
    ),
];

/// The functions that count stand this near to the system call.
const DEPTH: usize = 12;

/// Beginnings of the names of what stands between a lock and the system call. `Once` runs code of the
/// program's own, which may wait for anything.
const BETWEEN: [&str; 8] = [
    "syscall",
    "__",
    "futex",
    "std::",
    "core::",
    "alloc::",
    "parking_lot",
    "lock_api::",
];

/// `<std::sys::sync::mutex::futex::Mutex>::lock`, as the newer mangling has it, without the brackets.
fn path(name: &str) -> Cow<'_, str> {
    if name.starts_with('<') {
        name.replace(['<', '>'], "").into()
    } else {
        name.into()
    }
}

/// Rust's standard library and `parking_lot`.
pub struct Rust;

impl Runtime for Rust {
    fn name(&self) -> &'static str {
        "rust"
    }

    /// Programs in Rust export nothing that they could be told by: their locks are, one by one.
    fn recognise(&self, _process: &Process) -> Option<Recognised> {
        None
    }

    fn describe(&self, site: &Site<'_>) -> Option<Described> {
        if !matches!(site.call.command, WAIT | WAIT_BITSET) {
            return None;
        }
        let (_, class, writer) = site
            .functions
            .iter()
            .take(DEPTH)
            .map(|name| path(name))
            .take_while(|name| BETWEEN.iter().any(|part| name.starts_with(part)))
            .find_map(|name| FUNCTIONS.iter().find(|(part, _, _)| name.contains(part)))?;
        // The word is the lock itself, but for `parking_lot`, whose threads sleep on a word of their own.
        let base = match class {
            LockClass::ParkingLot | LockClass::ParkingLotCondvar => None,
            // The futex of a reader-writer lock is its first word; writers are told on the second one.
            LockClass::RustRwlock if *writer == Some(true) => site.call.addr.checked_sub(4),
            _ => Some(site.call.addr),
        };
        Some(Described {
            class: *class,
            base,
            owner: Owner::Unrecorded,
            writer: *writer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inspect::memory::fixture::Fixture, runtimes::FutexCall};

    #[test]
    fn by_the_functions_above() {
        let memory = Fixture::words(0x1000, &[2]);
        let call = FutexCall {
            addr: 0x1000,
            command: WAIT_BITSET,
            private: true,
            val: 2,
            timed: false,
        };
        for (name, class, base) in [
            (
                "std::sys::sync::mutex::futex::Mutex::lock_contended",
                LockClass::RustMutex,
                Some(0x1000),
            ),
            (
                "<std::sys::sync::mutex::futex::Mutex>::lock_contended",
                LockClass::RustMutex,
                Some(0x1000),
            ),
            (
                "std::sys::sync::rwlock::futex::RwLock::write_contended",
                LockClass::RustRwlock,
                Some(0xffc),
            ),
            (
                "parking_lot::raw_mutex::RawMutex::lock_slow",
                LockClass::ParkingLot,
                None,
            ),
            (
                "std::thread::park_timeout",
                LockClass::RustPark,
                Some(0x1000),
            ),
        ] {
            let functions = ["syscall".to_owned(), name.to_owned()];
            let site = Site {
                call,
                functions: &functions,
                caller: None,
                by_go: false,
                memory: &memory,
                process: &crate::runtimes::Process::default(),
            };
            let found = Rust.describe(&site).unwrap();
            assert_eq!(
                (found.class, found.base, found.owner),
                (class, base, Owner::Unrecorded)
            );
        }
    }

    #[test]
    fn what_once_runs_may_wait_for_something_of_its_own() {
        let memory = Fixture::words(0x1000, &[2]);
        let call = FutexCall {
            addr: 0x1000,
            private: true,
            val: 2,
            ..FutexCall::default()
        };
        for functions in [
            vec!["main"],
            vec![
                "syscall",
                "app::wait",
                "<std::sys::sync::once::futex::Once>::call",
            ],
        ] {
            let functions: Vec<String> = functions.into_iter().map(str::to_owned).collect();
            let site = Site {
                call,
                functions: &functions,
                caller: None,
                by_go: false,
                memory: &memory,
                process: &crate::runtimes::Process::default(),
            };
            assert_eq!(Rust.describe(&site), None);
        }
    }
}
