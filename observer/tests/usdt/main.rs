//! Waits that a program tells of by USDT probes, held against what the program measured itself.
//!
//! The program is `shop.c`, compiled here. Needs root, a kernel with BTF, uprobes and Linux 5.15, and gcc;
//! where something is missing a test is skipped and says so.
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

mod counting;
mod distribution;
mod inferior;
mod later;
mod leaving;
mod list;
mod postgres;
mod refusing;
#[path = "../programs/postgres.rs"]
#[allow(dead_code, reason = "shared with other tests, which use all of it")]
mod server;
mod shop;
