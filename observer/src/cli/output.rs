//! Where a report or an export goes: standard output, or a file that is never overwritten unasked.

use std::{
    io::{BufWriter, Write, stdout},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::record;

/// Flags for the output.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Output {
    /// May it be written? To be asked before the work is done.
    pub(super) fn check(&self) -> Result<()> {
        self.output
            .as_deref()
            .map_or(Ok(()), |path| record::check(path, self.force))
    }

    /// Has `write` write it.
    pub(super) fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let Some(path) = &self.output else {
            let mut out = BufWriter::new(stdout().lock());
            write(&mut out)?;
            return Ok(out.flush()?);
        };
        if self.force && path.exists() {
            std::fs::remove_file(path)
                .with_context(|| format!("cannot replace {}", path.display()))?;
        }
        let mut out = BufWriter::new(record::make(path)?);
        write(&mut out)
            .and_then(|()| Ok(out.flush()?))
            .with_context(|| format!("cannot write to {}", path.display()))
    }
}
