//! What runtimes say of their waits: real interpreters and runtimes, in situations that are known.
//!
//! Needs root and a kernel with BTF; each test names what else it needs, and is skipped without it.
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

mod jvm;
mod program;
mod python;
mod tokio;
