//! `observer schema`: prints the JSON Schemas that docs/events.schema.json and docs/report.schema.json hold.

use std::io::Write;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use crate::{event, report::object};

/// Arguments of `schema`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Of what
    #[arg(value_enum, default_value_t = Of::Events)]
    of: Of,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// One line of the event stream
    Events,
    /// The object that `report` and `triage` write
    Report,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let schema = match args.of {
        Of::Events => event::schema(),
        Of::Report => object::schema(),
    };
    let text = serde_json::to_string_pretty(&schema)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
