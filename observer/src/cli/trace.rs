//! `observer trace`: events as they happen.

use std::{
    fs::File,
    io::{BufWriter, IsTerminal, Write, stdout},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};

use super::{
    FailOn,
    live::{Pulse, runtime},
    select::Select,
};
use crate::{
    event::{Event, Reason},
    model::Model,
    report::{self, text},
    watch::Watch,
};

/// How often the ring buffer is read: the greatest part of an event's way to the reader.
const PERIOD: Duration = Duration::from_millis(10);
/// The same when there was hardly anything in it: to wake up costs more than what there is to do.
const CALM: Duration = Duration::from_millis(20);
const FEW: usize = 16;
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Arguments of `trace`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer trace -p 1234 -d 10s                   one process for ten seconds\n  \
    observer trace --min-wait 50ms | jq 'select(.type==\"wait\")'\n  \
    observer trace --comm mysqld --format text")]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
    /// Form of the events [default: text on a terminal, jsonl otherwise]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file, which must not exist
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Text: show idle waits too (poll, sleep, child)
    #[arg(long)]
    all: bool,
    /// Exit with code 10 if there was one
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Format {
    /// One JSON object a line
    Jsonl,
    /// For people, with a summary at the end
    Text,
}

impl Args {
    /// Text where a person reads along.
    fn format(&self) -> Format {
        let terminal = self.output.is_none() && stdout().is_terminal();
        self.format.unwrap_or(if terminal {
            Format::Text
        } else {
            Format::Jsonl
        })
    }
}

/// Where events go.
enum Sink {
    Jsonl(BufWriter<Box<dyn Write>>),
    Text {
        out: BufWriter<Box<dyn Write>>,
        all: bool,
    },
}

impl Sink {
    fn new(args: &Args, format: Format) -> Result<Sink> {
        let out: Box<dyn Write> = match &args.output {
            Some(path) => Box::new(
                File::create_new(path)
                    .with_context(|| format!("cannot create {}", path.display()))?,
            ),
            None => Box::new(stdout()),
        };
        let out = BufWriter::with_capacity(1 << 16, out);
        Ok(match format {
            Format::Jsonl => Sink::Jsonl(out),
            Format::Text => Sink::Text { out, all: args.all },
        })
    }

    fn write(&mut self, events: &mut Vec<Event>) -> Result<()> {
        match self {
            Sink::Jsonl(out) => {
                for event in events.drain(..) {
                    report::json::line(out, &event)?;
                }
                out.flush()?;
            }
            Sink::Text { out, all } => {
                for event in events.drain(..) {
                    text::line(out, &event, *all)?;
                }
                out.flush()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, model: &Model) -> Result<()> {
        if let Sink::Text { out, .. } = self {
            text::summary(out, model)?;
            out.flush()?;
        }
        Ok(())
    }
}

/// Runs until stopped.
pub(crate) fn run(args: &Args) -> Result<()> {
    super::start_log(args.select.verbose);
    if let Some(path) = args.output.as_ref().filter(|path| path.exists()) {
        anyhow::bail!(
            "{} exists and is not overwritten: name another file, or remove it",
            path.display()
        );
    }
    let format = args.format();
    runtime()?.block_on(async {
        let mut options = args.select.options(LONG_WAIT)?;
        // The text shows no stacks, and their symbols take memory.
        options.stacks &= format == Format::Jsonl;
        let thresholds = args.select.thresholds()?;
        let mut watch = Watch::start_wide(options, !args.select.no_stacks, thresholds)?;
        let mut pulse = Pulse::new(PERIOD, args.select.duration, false)?;
        // Only now: a run that cannot begin leaves no file behind.
        let mut sink = Sink::new(args, format)?;
        let mut events = vec![watch.meta()];
        sink.write(&mut events)?;
        let reason = loop {
            if let Some(reason) = pulse.beat().await {
                break reason;
            }
            let more = watch.poll(&mut events);
            let calm = !more && events.len() < FEW;
            pulse.set_period(if calm { CALM } else { PERIOD });
            sink.write(&mut events)?;
            if !more && watch.targets_ended() {
                break Reason::TargetEnded;
            }
        };
        watch.finish(reason, &mut events);
        sink.write(&mut events)?;
        sink.finish(watch.model())?;
        let model = watch.model();
        FailOn::check(
            args.fail_on,
            model.deadlocks().len(),
            model.findings().len(),
        )
    })
}
