//! observer shows why anything on a Linux host is not running: which tasks are blocked, on which
//! lock or resource, who holds it and for how long this has been so.
//!
//! One direction, one event type, one model: [`event`]s come from the live kernel or from a recording,
//! feed the [`model`], and every view asks the model.

pub mod agent;
pub mod budget;
pub mod capture;
pub mod cli;
pub mod client;
mod de;
pub mod digest;
mod digits;
pub mod dump;
pub mod event;
pub mod histogram;
pub mod inspect;
pub mod model;
pub mod record;
pub mod report;
pub mod rules;
pub mod runtimes;
pub mod text;
pub mod time;
pub mod triage;
pub mod tui;
pub mod verify;
pub mod watch;
pub mod workload;
