//! The command line: arguments in, exit code out. One module a subcommand, each thin.

mod doctor;
mod live;
mod schema;
mod select;
mod top;
mod trace;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::capture::Unsupported;

/// Exit codes, as documented in the README.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const UNSUPPORTED: u8 = 3;
}

/// Shows why anything on a Linux host is not running: which tasks are blocked, on which lock or
/// resource, and for how long this has been so.
#[derive(Debug, Parser)]
#[command(name = "observer", version, propagate_version = true)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Without a command: the screen on the live host, as `observer top`.\n\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 insufficient privileges or kernel support."
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
    Top(top::Args),
    /// Events as they happen, as JSON Lines or text
    Trace(trace::Args),
    /// What this kernel and these privileges allow, what is missing, how to get it
    Doctor(doctor::Args),
    /// The JSON Schema of the event stream
    #[command(hide = true)]
    Schema,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => top::run(&cli.top),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Trace(args)) => trace::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Schema) => schema::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The one place that turns an error into an exit code.
fn fail(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
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
