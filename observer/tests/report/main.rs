//! Triage and the report as a page: real programs in trouble, and a real browser.
//!
//! Needs root and a kernel with BTF for the live part, Chromium for the page, and a JDK; where something is
//! missing a test is skipped and says so. With `OBSERVER_PHOTOS` set to a folder, the browser leaves pictures there.
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

mod browser;
mod page;
mod triage;
