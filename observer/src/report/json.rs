//! Events as JSON Lines.

use std::io::{self, Write};

use crate::event::Event;

/// Writes one event and the end of its line.
///
/// # Errors
/// The writer's.
pub fn line(out: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *out, event)?;
    out.write_all(b"\n")
}
