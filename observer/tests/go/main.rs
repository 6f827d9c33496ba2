//! Goroutines read from outside, against real Go programs that say what is true of them.
//!
//! The scenes in `programs/` are compiled by each release of Go that is found: Debian's, and those in
//! `.tools/go`. Each parks its goroutines, says what it knows of itself, and what is read of its memory is held
//! against that. Where no toolchain is found the tests are skipped, and say so in the file that the variable
//! `OBSERVER_SKIPS` names. A process may read the memory of its own children, so root is not needed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test an error is a failure, and a panic is how a test fails"
)]

#[path = "../live/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the harness of the live tests, of which these use a part"
)]
mod harness;
mod program;
mod trace;
mod truth;

mod commands;
mod corrupt;
mod deadlocks;
mod details;
mod events;
mod hostile;
mod inventory;
mod layouts;
mod scheduler;
mod screen;
mod stacks;
#[cfg(feature = "measure")]
mod time;
mod waits;
