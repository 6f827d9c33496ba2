//! The agent as it is run: its HTTP asked by curl, its metrics scraped by Prometheus, its chart rendered by Helm,
//! its image run by containerd. What is missing here is named by the tests that are skipped.
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

mod agent;
mod chart;
mod clock;
mod container;
mod containerd;
mod cri;
mod faults;
mod http;
mod incidents;
mod kubernetes;
mod otlp;
mod prometheus;
mod remote;
mod serving;
