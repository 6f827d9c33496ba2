//! observer against the real kernel and real programs.
//!
//! Each test starts a workload of `src/workload` that waits in a known way, lets `observer
//! trace` watch it, and holds what observer says against what the workload measured itself. All of
//! it needs root and a kernel with BTF. Where something is missing a test is skipped, and says so in
//! the file that the variable `OBSERVER_SKIPS` names.
//!
//! The tests run at the same time, each on processes of its own; those that take up the whole host
//! run alone ([`harness::alone`]).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test an error is a failure, and a panic is how a test fails"
)]

mod harness;

mod agreement;
mod brief;
mod contention;
mod deadlock;
mod diff;
mod documents;
mod dump;
mod ending;
mod faults;
mod filters;
mod foreign;
mod futexes;
mod limits;
mod names;
mod output;
mod owners;
mod recording;
mod refusal;
mod rules;
mod schema;
mod screen;
mod shared;
mod verify;
