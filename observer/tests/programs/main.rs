//! observer against programs that nobody wrote for it: PostgreSQL, Redis, Python, Java, Go.
//!
//! They are those of the distribution, which `cargo xtask test` installs. Where one is missing, its test is
//! skipped and says so.
#![expect(
    clippy::unwrap_used,
    reason = "in a test an error is a failure, and a panic is how a test fails"
)]

#[path = "../live/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    reason = "the harness of the live tests, of which these use a part"
)]
mod harness;

mod managed;
mod postgres;
mod programs;
mod unwinding;
