//! `observer report`: what a recording says, the answer first.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use super::{output::Output, select::thresholds};
use crate::{
    record::Replay,
    report::{document, gather::Gathered, html, incident::Incident, scene::Scene},
};

/// Arguments of `report`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer report run.jsonl.zst\n  \
    observer report run.jsonl.zst --format html -o report.html\n  \
    observer report run.jsonl.zst --format md -o report.md\n  \
    observer report run.jsonl.zst --format json | jq -r '.summary[]'")]
pub(crate) struct Args {
    /// The recording
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Ask the rules again with other thresholds, in TOML: see docs/rules.md
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// Markdown
    Md,
    /// One JSON object
    Json,
    /// One page with pictures, for a browser; it needs no network
    Html,
}

impl Format {
    /// Writes the report in this form.
    pub(super) fn write(self, mut out: &mut dyn Write, incident: &Incident<'_>) -> Result<()> {
        match self {
            Format::Text => document::text(&mut out, &incident.document())?,
            Format::Md => document::markdown(&mut out, &incident.document())?,
            Format::Html => html::write(&mut out, incident)?,
            Format::Json => {
                incident.json(&mut out)?;
                writeln!(out)?;
            }
        }
        Ok(())
    }
}

/// Reads the recording to its end and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.output.check()?;
    let mut replay = Replay::open(&args.recording)?;
    if args.rules.is_some() {
        replay.set_thresholds(thresholds(args.rules.as_deref())?);
    }
    let mut gathered = Gathered::default();
    replay.finish(&mut |event| gathered.see(event))?;
    let mut unread = replay.unread().notes();
    if unread.is_empty() {
        unread.extend(new_findings(&mut replay));
    }
    let incident = Incident::new(replay.model(), gathered, unread, Scene::default());
    args.output.write(|out| args.format.write(out, &incident))
}

/// The rules are asked again: those of this version may say more than those that recorded. Not of a recording
/// with holes, which would have them say what was not so.
fn new_findings(replay: &mut Replay) -> Option<String> {
    match replay.add_new_findings() {
        0 => None,
        count => Some(format!(
            "findings that the recording does not have, and the rules of this version make of it: {count}"
        )),
    }
}
