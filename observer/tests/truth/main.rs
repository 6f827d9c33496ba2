//! The ground truth of locks and holders: real programs in C, C++ and Rust that say who waits for what and who
//! holds it, observer that looks at them from outside, and a table of what it got right.
//!
//! Every lock has to be of the right class and have the right name; a holder has to be the right one, and
//! `exact` wherever the lock's memory tells; where nothing can tell, `unknown` is the right answer, and the
//! lists of scenes say where that is. No idle thread may be accused, and memory that merely looks like a lock
//! must fool nobody.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test an error is a failure, and a panic is how a test fails"
)]

#[path = "../live/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the live tests, which use all of it"
)]
mod harness;

mod deadlocks;
mod judge;
mod locks;
mod programs;
mod scene;
mod table;
mod throttled;
