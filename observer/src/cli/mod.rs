//! The command line: arguments in, exit code out. One module a subcommand, each thin.

mod agent;
mod attach_empty;
mod command;
mod diff;
mod doctor;
mod dump;
mod export;
mod live;
mod output;
mod record;
mod remote;
mod replay;
mod report;
mod schema;
mod select;
mod settings;
mod shell;
mod terminal;
mod top;
mod trace;
mod triage;
mod usdt;
mod verify;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    agent::{SERVE, serve},
    capture::Unsupported,
};

/// Exit codes, as documented in the README.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const UNSUPPORTED: u8 = 3;
    pub(super) const FOUND: u8 = 10;
}

/// Shows why anything on a Linux host is not running: which tasks are blocked, on which lock or
/// resource, and for how long this has been so.
#[derive(Debug, Parser)]
#[command(name = "observer", version, propagate_version = true)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Without a command: the screen on the live host, as `observer top`.\n\n\
    Examples:\n  \
    sudo observer                       the screen: findings first, what is blocked, on which lock\n  \
    sudo observer triage -p 1234        what is wrong with a process, in one report\n  \
    sudo observer trace | jq .          events, as JSON Lines\n  \
    observer doctor                     what works here, and what does not\n\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 insufficient privileges or kernel support, \
    10 found what --fail-on asked about."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    top: top::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The screen: blocked tasks, locks, long waits, live
    #[command(after_help = "Examples:\n  \
        sudo observer top                   the whole host\n  \
        sudo observer top -p 1234 -p 1235   two processes\n  \
        sudo observer top --comm postgres   threads of this name\n  \
        sudo observer top --plain           lines, for a screen reader")]
    Top(top::Args),
    /// Events as they happen, as JSON Lines or text
    Trace(trace::Args),
    /// What is wrong here, in one report: a watch of ten seconds and a look at every thread
    Triage(triage::Args),
    /// The events of a run into a file; with a command, from its start to its end
    Record(record::Args),
    /// The screen on a recording
    Replay(replay::Args),
    /// What a recording says, the answer first
    Report(report::Args),
    /// A recording for other tools: flame graph, pprof, Perfetto, Parquet, CSV
    Export(export::Args),
    /// One look at every thread: its wait, lock, holder and stack; deadlocks first
    Dump(dump::Args),
    /// Two dumps or recordings: what appeared, is gone, is still there and older, grew
    Diff(diff::Args),
    /// The service of a node: metrics, an API, a flight recorder
    Agent(agent::Args),
    /// What this kernel and these privileges allow, what is missing, how to get it
    #[command(after_help = "Examples:\n  \
        observer doctor                     what works for this user, on this kernel\n  \
        sudo observer doctor -p 1234        what is known of the runtimes of a process too\n  \
        observer doctor --format json       for scripts")]
    Doctor(doctor::Args),
    /// Whether observer is right on this kernel: observes programs that measure themselves, in half a minute
    Verify(verify::Args),
    /// The USDT probes that programs carry
    Usdt(usdt::Args),
    /// Completions for a shell
    Completions(shell::Completions),
    /// Manual pages
    Man(shell::Man),
    /// Be a program that waits in a known way
    #[command(hide = true)]
    Workload(verify::Workload),
    /// The JSON Schema of the event stream, or of a report
    #[command(hide = true)]
    Schema(schema::Args),
    /// Serve HTTP for the agent, which starts this
    #[command(hide = true, name = SERVE)]
    Serve,
    /// Programs that do nothing, on the scheduler's hooks: the floor of the benchmark
    #[command(hide = true)]
    AttachEmpty(attach_empty::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => top::run(&cli.top),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Trace(args)) => trace::run(&args),
        Some(Command::Triage(args)) => triage::run(&args),
        Some(Command::Record(args)) => record::run(&args),
        Some(Command::Replay(args)) => replay::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Export(args)) => export::run(&args),
        Some(Command::Completions(args)) => shell::completions(&args),
        Some(Command::Man(args)) => shell::man(&args),
        Some(Command::Dump(args)) => dump::run(&args),
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Agent(args)) => agent::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Verify(args)) => verify::run(&args),
        Some(Command::Workload(args)) => return verify::workload(args),
        Some(Command::Usdt(args)) => usdt::run(&args),
        Some(Command::Schema(args)) => schema::run(&args),
        Some(Command::Serve) => serve(),
        Some(Command::AttachEmpty(args)) => attach_empty::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// What makes a command end with exit code 10.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    /// A deadlock
    Deadlock,
    /// Any finding
    Finding,
}

impl FailOn {
    /// An error if there is what was asked about.
    fn check(asked: Option<FailOn>, deadlocks: usize, findings: usize) -> anyhow::Result<()> {
        let count = match asked {
            Some(FailOn::Deadlock) => deadlocks,
            Some(FailOn::Finding) => findings,
            None => 0,
        };
        if count > 0 { Err(Found.into()) } else { Ok(()) }
    }
}

/// There is what `--fail-on` asked about. Nothing more is to be said.
#[derive(Debug)]
struct Found;

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("found what --fail-on asked about")
    }
}

impl std::error::Error for Found {}

/// The one place that turns an error into an exit code.
fn fail(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    if error.downcast_ref::<Found>().is_some() {
        return ExitCode::from(exit::FOUND);
    }
    // Nobody may be left to read it: that must not end in a panic.
    let _ = writeln!(io::stderr(), "observer: {error:#}");
    if error.downcast_ref::<Unsupported>().is_some() {
        ExitCode::from(exit::UNSUPPORTED)
    } else {
        ExitCode::from(exit::FAILED)
    }
}

/// Shows what the kernel programs and the library log, on standard error, if asked to.
fn start_log(verbose: bool) {
    if verbose {
        // A second start, in a test, changes nothing.
        let _ = env_logger::Builder::new()
            .filter_level(log::LevelFilter::Debug)
            .try_init();
    }
}

/// Tells something beside the result, on standard error.
fn note(text: &str) {
    // Nobody may be left to read it.
    let _ = writeln!(io::stderr(), "observer: {text}");
}

/// A reader that went away is a normal end.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn broken_pipes_are_found_in_the_chain() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::new(pipe).context("writing")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
