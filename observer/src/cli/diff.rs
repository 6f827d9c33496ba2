//! `observer diff`: two dumps, reports or recordings, and what changed between them.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use super::output::Output;
use crate::report::{
    diff::{Diff, Moment},
    document,
};

/// Arguments of `diff`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer dump 1234 --format json > a.json; sleep 30; observer dump 1234 --format json > b.json\n  \
    observer diff a.json b.json           what is still in the same wait, what is new, what is gone\n  \
    observer diff good.jsonl.zst bad.jsonl.zst --format md -o diff.md\n  \
    observer diff a.json b.json --format json | jq '.tasks.still[] | select(.lock)'")]
pub(crate) struct Args {
    /// The first: of `dump --format json`, `report --format json` or `record`
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second, likewise
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Form of the comparison
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// Markdown
    Md,
    /// One JSON object
    Json,
}

/// Reads both and compares them.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.output.check()?;
    let diff = Diff::of(Moment::read(&args.a)?, Moment::read(&args.b)?);
    args.output.write(|mut out| {
        match args.format {
            Format::Text => document::text(&mut out, &diff.document())?,
            Format::Md => document::markdown(&mut out, &diff.document())?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &diff)?;
                writeln!(out)?;
            }
        }
        Ok(())
    })
}
