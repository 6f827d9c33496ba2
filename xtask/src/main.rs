//! The project's tasks: `cargo xtask setup`, `build`, `image`, `run`, `demo`, `test`, `bench`, `vm`, `fuzz`,
//! `captures` and `go-layouts`.
//!
//! Each of them makes first sure that what the build needs is there, so that the first command
//! typed in a fresh clone may be any of them.

mod apt;
mod bench;
mod cmd;
mod demo;
mod deps;
mod fuzz;
mod go;
mod go_layouts;
mod image;
mod linker;
mod project;
mod python;
mod run;
mod rust_src;
mod setup;
mod summary;
mod test;
mod tmux;
mod vm;

use std::process::{ExitCode, ExitStatus};

use anyhow::Result;
use clap::{Parser, Subcommand};

use cmd::say;

/// Set-up, build, demo and tests of observer. Each command does the set-up first.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make sure that everything the build needs is there, and do no more
    Setup,
    /// Build target/release/observer
    Build {
        /// Build target/debug/observer instead
        #[arg(long)]
        debug: bool,
    },
    /// Build a container image, target/image/observer.tar: a static observer and nothing else
    Image,
    /// Build observer and run it, through sudo when not root
    Run {
        /// Arguments for observer
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Observe a small program whose threads are really stuck
    ///
    /// On a terminal it opens the screen; into a pipe it prints 5 seconds of tracing and ends.
    Demo,
    /// Run all tests, and install before what only they need
    ///
    /// The last line is `N passed, N failed, N skipped`. With CI=true a skip is a failure.
    Test {
        /// Install nothing: tests whose needs are not met are skipped
        #[arg(long)]
        no_install: bool,
        /// Arguments for `cargo test`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Measure what observing costs, against other observers and the goals
    ///
    /// Each row is a ratio against the same workload unobserved, runs interleaved. Installs before what
    /// it compares with.
    Bench(bench::Args),
    /// Give each parser of hostile input inputs that lead further and further, and see that it bears them
    ///
    /// What was found is in fuzz/artifacts, and `target/fuzz/…/TARGET FILE` does it again.
    Fuzz {
        /// Which, by the name of its file in fuzz/fuzz_targets; without one, all
        target: Option<String>,
        /// Time for each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Make the table of where the fields of the Go runtime's structs lie, from all known releases of Go
    ///
    /// They are fetched into .tools/go, 250 MB each. A release that came out later is added to the list in
    /// xtask/src/go.rs.
    GoLayouts {
        /// Write nothing: fail if the table is another
        #[arg(long)]
        check: bool,
        /// Fetch nothing
        #[arg(long)]
        no_install: bool,
    },
    /// Make the captures of the screen in docs/tui.md anew, from real runs
    ///
    /// Runs the demo, a program in Go and PostgreSQL under pgbench in a terminal of its own.
    Captures {
        /// Of the debug build
        #[arg(long)]
        debug: bool,
    },
    /// Hold observer's answers against ground truth on other kernels, in emulated machines
    ///
    /// The kernels are the distribution's own, the newest of their line, kept in .tools/kernels:
    /// remove them to fetch newer ones. `all` stands for those and this machine's own, and writes
    /// docs/kernels.md.
    Vm {
        /// The kernels (repeatable, or with commas between)
        #[arg(long = "kernel", value_enum, required = true, value_delimiter = ',')]
        kernels: Vec<vm::Choice>,
        /// Keep what the machines said, in target/vm
        #[arg(long)]
        keep: bool,
        /// Install nothing: without the emulator it is an error
        #[arg(long)]
        no_install: bool,
    },
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            say!("error: {error:#}\n");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    let outcome = setup::ensure()?;
    match task {
        Task::Setup => {
            if outcome == setup::Outcome::WasThere {
                say!("set-up: everything was there\n");
            }
        }
        Task::Build { debug } => run::build(debug)?,
        Task::Image => image::image()?,
        Task::Run { args } => run::run(&args)?,
        Task::Demo => return Ok(code_of(demo::demo()?)),
        Task::Test { no_install, args } => {
            if !test::test(!no_install, &args)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench(args) => bench::bench(&args)?,
        Task::GoLayouts { check, no_install } => {
            if !go_layouts::make(check, !no_install)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Fuzz { target, seconds } => {
            if !fuzz::fuzz(target.as_deref(), seconds)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Captures { debug } => bench::captures::captures(debug)?,
        Task::Vm {
            kernels,
            keep,
            no_install,
        } => {
            if !vm::vm(&kernels, keep, !no_install)? {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of a process, or what a shell makes of the signal that ended it.
fn code_of(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    if status.signal() == Some(libc::SIGPIPE) {
        // Whoever read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
