//! `observer export`: a recording for other tools.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

use super::{note, output::Output};
use crate::{
    event::Event,
    record::Replay,
    report::export::{Folded, csv, parquet, perfetto::Perfetto, pprof},
};

/// Arguments of `export`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer export run.jsonl.zst --to flamegraph -o waits.svg\n  \
    observer export run.jsonl.zst --to pprof -o waits.pb && go tool pprof -top waits.pb\n  \
    observer export run.jsonl.zst --to perfetto -o run.pftrace    (open it in the Perfetto UI)\n  \
    observer export run.jsonl.zst --to csv | duckdb -c \"from read_csv('/dev/stdin')\"\n  \
    observer export run.jsonl.zst --to parquet -o waits.parquet && duckdb -c \"from 'waits.parquet'\"")]
pub(crate) struct Args {
    /// The recording
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// What to make of it
    #[arg(long, value_enum)]
    to: To,
    /// Idle waits too: poll, sleep, child (csv and parquet have them always)
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// Stacks with the time they waited, a line each
    Folded,
    /// The same as a picture, in SVG
    Flamegraph,
    /// The same as a profile
    Pprof,
    /// Waits, a line each
    Csv,
    /// The same as a table in Parquet
    Parquet,
    /// A timeline: a line for each thread, waits on it, arrows from who woke to who was woken
    Perfetto,
}

/// Reads the recording and writes it in another form.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.output.check()?;
    let mut replay = Replay::open(&args.recording)?;
    match args.to {
        To::Csv => as_csv(args, &mut replay)?,
        To::Parquet => as_table(args, &mut replay)?,
        To::Perfetto => as_trace(args, &mut replay)?,
        To::Folded | To::Flamegraph | To::Pprof => as_stacks(args, &mut replay)?,
    }
    // What could not be read has no place in these forms.
    replay.unread().notes().iter().for_each(|text| note(text));
    Ok(())
}

/// Runs through the recording; `see` writes what it sees.
fn stream(replay: &mut Replay, mut see: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    let mut written = Ok(());
    while written.is_ok() {
        let step = replay.step_to(&mut |event| written = see(event))?;
        if step.is_none() {
            break;
        }
    }
    written
}

fn as_csv(args: &Args, replay: &mut Replay) -> Result<()> {
    args.output.write(|mut out| {
        csv::head(&mut out)?;
        stream(replay, |event| Ok(csv::line(&mut out, event)?))?;
        Ok(csv::finish(&mut out, replay.model())?)
    })
}

fn as_table(args: &Args, replay: &mut Replay) -> Result<()> {
    args.output.write(|out| {
        let mut table = parquet::Table::new(out)?;
        stream(replay, |event| table.see(event))?;
        table.finish(replay.model())
    })
}

fn as_trace(args: &Args, replay: &mut Replay) -> Result<()> {
    args.output.write(|out| {
        let mut trace = Perfetto::new(out, args.all);
        stream(replay, |event| Ok(trace.see(event)?))?;
        let left_out = trace.finish(replay.model())?;
        if left_out > 0 {
            note(&format!(
                "waits and wake-ups left out, as they overlap too many others of their thread or there are too many threads: {left_out}"
            ));
        }
        Ok(())
    })
}

fn as_stacks(args: &Args, replay: &mut Replay) -> Result<()> {
    let mut folded = Folded::new(args.all);
    replay.finish(&mut |event| folded.see(event))?;
    folded.finish(replay.model());
    if folded.stacks().is_empty() {
        bail!(
            "{} has no waits to draw: shorter waits than --min-wait are in totals only, and idle ones need --all",
            args.recording.display()
        );
    }
    args.output.write(|mut out| {
        match args.to {
            To::Flamegraph => folded.flame_graph(&mut out)?,
            To::Pprof => pprof::write(&mut out, &folded, replay.model())?,
            _ => folded.write(&mut out)?,
        }
        Ok(())
    })
}
