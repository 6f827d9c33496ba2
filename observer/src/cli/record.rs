//! `observer record`: the event stream into a file, for later.

use std::{
    ffi::OsString,
    io::{IsTerminal, Write, stderr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{
    command::Command,
    live::{Pulse, runtime},
    select::Select,
};
use crate::{
    event::{Event, Reason},
    model::Model,
    record::{self, Limits, Writer},
    time::{human, parse_duration},
    watch::Watch,
};

/// How often the ring buffer is read.
const PERIOD: Duration = Duration::from_millis(20);
/// How often the line of progress is written.
const PROGRESS: Duration = Duration::from_millis(500);
const LONG_WAIT: Duration = Duration::from_secs(1);
/// Less than this would be a new file all the time.
const LEAST_SIZE: u64 = 1 << 20;

/// Arguments of `record`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer record -o run.jsonl.zst -p 1234 -d 30s     one process for half a minute\n  \
    observer record -o run.jsonl.zst -- make -j8        a command, from its start to its end\n  \
    observer record -o last.jsonl.zst --max-size 100MB  until Ctrl-C, the newest 50 to 100 MB\n  \
    observer report run.jsonl.zst                       what it says")]
pub(crate) struct Args {
    /// The recording; compressed if its name ends with .zst
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    select: Select,
    /// Keep at most this much, in two files: the older half is dropped
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Keep at most this long a time, in two files: the older half is dropped
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Start this command, observe it, and end with it
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    command: Vec<OsString>,
}

/// Runs until stopped, or until the command has ended.
pub(crate) fn run(args: &Args) -> Result<()> {
    super::start_log(args.select.verbose);
    record::check(&args.output, args.force)?;
    runtime()?.block_on(record(args))
}

async fn record(args: &Args) -> Result<()> {
    let mut options = args.select.options(LONG_WAIT)?;
    let mut command = match args.command.split_first() {
        Some((program, rest)) => Some(Command::prepare(program, rest)?),
        None => None,
    };
    options.pids.extend(command.as_ref().map(Command::pid));
    let thresholds = args.select.thresholds()?;
    let mut watch = Watch::start_wide(options, !args.select.no_stacks, thresholds)?;
    let mut pulse = Pulse::new(PERIOD, args.select.duration, false)?;
    let limits = Limits {
        size: args.max_size,
        age: args.max_age,
    };
    let mut file = Sink {
        writer: Writer::create(&args.output, args.force, limits)?,
        progress: Progress::new(args),
    };
    let mut events = vec![watch.meta()];
    file.take(&mut events, watch.model())?;
    // Whatever becomes of the rest, what was observed is on the disk.
    file.writer.flush()?;
    if let Some(command) = &mut command {
        command.go()?;
    }
    let reason = loop {
        if let Some(reason) = pulse.beat().await {
            break reason;
        }
        let more = watch.poll(&mut events);
        file.take(&mut events, watch.model())?;
        // A command that has ended is there until its parent has asked how.
        let command_ended = match &mut command {
            Some(command) => command.has_ended()?,
            None => false,
        };
        if !more && (command_ended || watch.targets_ended()) {
            break Reason::TargetEnded;
        }
    };
    watch.finish(reason, &mut events);
    file.take(&mut events, watch.model())?;
    file.writer.flush()?;
    file.progress.end(&file.writer, watch.model());
    match command {
        Some(command) => command.finish(reason == Reason::Stopped),
        None => Ok(()),
    }
}

/// The file, and the line that tells of it.
struct Sink {
    writer: Writer,
    progress: Progress,
}

impl Sink {
    fn take(&mut self, events: &mut Vec<Event>, model: &Model) -> Result<()> {
        let taken = self.write(events, model);
        if taken.is_err() {
            self.progress.clear();
        }
        taken
    }

    fn write(&mut self, events: &mut Vec<Event>, model: &Model) -> Result<()> {
        for event in events.drain(..) {
            self.writer.write(&event)?;
        }
        self.writer.tick()?;
        if self.writer.is_full() {
            self.writer.rotate(&record::snapshot(model))?;
        }
        self.writer.mark(model)?;
        self.progress.show(&self.writer, model);
        Ok(())
    }
}

/// A line on the terminal, written over and over.
struct Progress {
    terminal: bool,
    began: Instant,
    next: Instant,
    name: String,
}

impl Progress {
    fn new(args: &Args) -> Progress {
        Progress {
            terminal: stderr().is_terminal(),
            began: Instant::now(),
            next: Instant::now(),
            name: args.output.display().to_string(),
        }
    }

    fn text(&self, writer: &Writer, model: &Model) -> String {
        let lost = model.loss().map_or(0, |loss| loss.total);
        format!(
            "{}: {} events, {}, lost {lost}, findings {}",
            human(self.began.elapsed().as_nanos() as u64),
            writer.events(),
            bytes(writer.bytes()),
            model.findings().len()
        )
    }

    fn show(&mut self, writer: &Writer, model: &Model) {
        if self.terminal && Instant::now() >= self.next {
            self.next = Instant::now() + PROGRESS;
            // A terminal that went away is no reason to end.
            let _ = write!(stderr(), "\r\x1b[Krecording {}", self.text(writer, model));
        }
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }

    fn end(&self, writer: &Writer, model: &Model) {
        self.clear();
        let text = self.text(writer, model);
        let _ = writeln!(stderr(), "recorded {text}, in {}", self.name);
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Reads a size as users write it.
fn size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => 0.0,
    };
    let bytes = number.parse::<f64>().unwrap_or(0.0) * factor;
    if bytes < LEAST_SIZE as f64 {
        return Err(format!(
            "`{text}` is no size of 1 MiB or more; write it like 100MB or 2GiB"
        ));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("100MB"), Ok(100_000_000));
        assert_eq!(size("1.5 GiB"), Ok(1_610_612_736));
        for text in ["", "5", "MB", "1kB", "-1MB", "1.2.3MB", "100 parsecs"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
