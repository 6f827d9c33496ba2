//! The screen as a user meets it: keys in, text out.

mod choosing;
mod details;
mod doing;
mod drawing;
mod large;
mod moving;
mod options;
mod rolled;
mod runtimes;
mod scenes;
mod snapshots;
mod time;
mod trouble;
mod views;
