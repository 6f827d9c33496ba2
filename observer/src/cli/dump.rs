//! `observer dump`: one look at every thread.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

use super::{FailOn, output::Output, select::thresholds};
use crate::{
    dump, report,
    runtimes::go::{Limits, Target},
    time::{Clock, parse_duration},
};

/// Arguments of `dump`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer dump 1234                    every thread and goroutine of a process, deadlocks first\n  \
    observer dump                         what is blocked on this host\n  \
    observer dump 1234 --format json | jq '.deadlocks'\n  \
    observer dump 1234 --format pprof -o goroutines.pb && go tool pprof -top goroutines.pb\n  \
    observer dump 1234 --fail-on deadlock && echo fine")]
pub(crate) struct Args {
    /// Processes; without one, all threads of the host that are blocked for --long-wait
    #[arg(value_name = "PID")]
    pids: Vec<u32>,
    /// Form of the dump
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Without processes: threads blocked for at least this long
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    long_wait: Duration,
    /// Exit with code 10 if there is one
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
    /// Ask the Java virtual machines among the processes named for their thread dumps, as jstack does: names,
    /// functions, monitors and their owners. Each stops its threads for a moment
    #[arg(long, requires = "pids")]
    jvm_attach: bool,
    /// Read /proc only, even where the kernel allows its task iterator
    #[arg(long)]
    no_bpf: bool,
    /// Thresholds of the rules, in TOML: see docs/rules.md
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// The goroutines of Go processes, as a profile for `go tool pprof`
    Pprof,
}

/// Takes and prints the dump.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.output.check()?;
    if args.format == Format::Pprof {
        return profile(args);
    }
    let dump = dump::take(&dump::Options {
        pids: args.pids.clone(),
        long_wait: args.long_wait,
        jvm_attach: args.jvm_attach,
        no_bpf: args.no_bpf,
        thresholds: thresholds(args.rules.as_deref())?,
    })?;
    args.output.write(|mut out| {
        match args.format {
            Format::Text | Format::Pprof => report::dump::text(&mut out, &dump)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &dump)?;
                writeln!(out)?;
            }
        }
        Ok(())
    })?;
    let of_goroutines = dump.goroutines.iter().map(|one| one.deadlocks.len());
    let deadlocks = dump.deadlocks.len() + of_goroutines.sum::<usize>();
    FailOn::check(args.fail_on, deadlocks, dump.findings.len())
}

/// Writes the goroutines as a profile.
fn profile(args: &Args) -> Result<()> {
    if args.pids.is_empty() {
        bail!("a profile is of goroutines: name the Go processes that they are of");
    }
    if args.fail_on.is_some() {
        bail!("--fail-on needs a dump in text or JSON: a profile has no findings");
    }
    let mut all = Vec::new();
    for &pid in &args.pids {
        let inventory = Target::open(pid).and_then(|mut go| go.snapshot(&Limits::default()));
        all.push(inventory.with_context(|| format!("goroutines of process {pid}"))?);
    }
    let clock = Clock::now();
    let time = clock.wall(all.iter().map(|one| one.mono_ns).min().unwrap_or_default());
    args.output
        .write(|mut out| Ok(report::export::goroutines::write(&mut out, &all, time)?))
}
