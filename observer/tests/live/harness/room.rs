//! Tests side by side, tests alone, and tests that are skipped.

use std::{
    fs::OpenOptions,
    io::Write,
    sync::{PoisonError, RwLock},
};

use super::host;

/// Why a test cannot be run here.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

/// What the body of a test returns.
pub(crate) type Tested = Result<(), Skip>;

/// Held for reading by tests that run at the same time, for writing by one that runs alone. A test
/// that failed leaves nothing behind that others could trip over: poison means nothing.
static ROOM: RwLock<()> = RwLock::new(());

/// Runs a test beside others.
pub(crate) fn together(test: &str, body: impl FnOnce() -> Tested) {
    let _room = ROOM.read().unwrap_or_else(PoisonError::into_inner);
    run(test, body);
}

/// Runs a test while no other one runs.
pub(crate) fn alone(test: &str, body: impl FnOnce() -> Tested) {
    let _room = ROOM.write().unwrap_or_else(PoisonError::into_inner);
    run(test, body);
}

fn run(test: &str, body: impl FnOnce() -> Tested) {
    if let Err(Skip(reason)) = host::check().and_then(|()| body()) {
        note(test, &reason);
    }
}

fn note(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {reason}\n");
    print!("{line}");
    let Some(path) = std::env::var_os("OBSERVER_SKIPS") else {
        return;
    };
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    // One write: lines of tests that run at the same time do not mix.
    file.write_all(line.as_bytes()).unwrap();
}
