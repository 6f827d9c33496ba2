//! `observer schema`: prints the JSON Schema that docs/events.schema.json holds.

use std::io::Write;

use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    let text = serde_json::to_string_pretty(&crate::event::schema())?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
