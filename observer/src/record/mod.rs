//! Recordings: a run's event stream in a file, and what can be made of it later, elsewhere, without root.
//!
//! A recording is JSON Lines, `meta` first. Compressed it is a row of independent zstd frames of about 1 MB or
//! one second, each with a checksum, so that a file that was cut is good to its last frame, and one that was
//! damaged is good but for the frames that were hit. docs/recording.md tells users.

mod ahead;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod known;
mod lines;
mod marks;
mod parse;
mod quick;
mod read;
mod replay;
mod snapshot;
mod write;

use std::path::Path;

pub(crate) use self::write::{FRAME, LEVEL, check, make};
pub use self::{
    read::{Reader, Unread},
    replay::Replay,
    snapshot::snapshot,
    write::{Limits, Writer},
};

/// Is a file of this name compressed?
fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

#[cfg(test)]
mod seeking;
#[cfg(all(test, feature = "measure"))]
mod speed;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tests;
