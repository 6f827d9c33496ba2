//! Ground truth: small programs that wait in a known way and measure it themselves.
//!
//! `workload NAME [OPTION…]` prints `ready {…}` with its process, threads and locks, works until
//! standard input is closed, the time is over or the rounds are done, and prints `truth {…}`: what
//! it measured with `CLOCK_MONOTONIC` around its own blocking calls. What an observer reports about
//! it can be held against that. Where the kernel lacks a call, it says so and ends with 77.

mod brood;
mod crew;
mod ending;
mod futex;
mod handover;
mod mutex;
mod options;
mod pong;
mod pool;
mod proc;
mod processes;
mod pthread;
mod raw;
mod rwlock;
mod storm;
mod sys;
mod tally;
mod threads;
mod trouble;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use self::options::Options;

/// The exit code by which test harnesses know a skipped test.
const EXIT_UNSUPPORTED: u8 = 77;
const EXIT_USAGE: u8 = 2;

/// A program that can be chosen by name.
struct Workload {
    name: &'static str,
    about: &'static str,
    /// The options it takes beside `--for` and `--wait-go`.
    options: &'static [&'static str],
    run: fn(&Options) -> io::Result<()>,
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "mutex",
        about: "a holder (--hold-ms 5, --free-us 500) and waiters on one pthread mutex",
        options: &["--threads", "--hold-ms", "--free-us", "--rounds"],
        run: mutex::mutex,
    },
    Workload {
        name: "pi",
        about: "the same with priority inheritance (FUTEX_LOCK_PI)",
        options: &["--threads", "--hold-ms", "--free-us", "--rounds"],
        run: mutex::pi,
    },
    Workload {
        name: "timedwait",
        about: "pthread_cond_timedwait that times out each --ms (20)",
        options: &["--ms", "--rounds"],
        run: mutex::timedwait,
    },
    Workload {
        name: "deadlock",
        about: "two threads that each hold what the other wants; ready when it has formed",
        options: &[],
        run: mutex::deadlock,
    },
    Workload {
        name: "interrupted",
        about: "a futex wait interrupted by a signal each --ms (10)",
        options: &["--ms", "--rounds"],
        run: raw::interrupted,
    },
    Workload {
        name: "waitv",
        about: "futex_waitv on three words, the second woken each --ms (10)",
        options: &["--ms", "--rounds"],
        run: raw::waitv,
    },
    Workload {
        name: "futexwait2",
        about: "the futex_wait system call, woken each --ms (10)",
        options: &["--ms", "--rounds"],
        run: raw::futexwait2,
    },
    Workload {
        name: "bitset",
        about: "FUTEX_WAIT_BITSET with a far deadline, woken each --ms (10)",
        options: &["--ms", "--rounds"],
        run: raw::bitset,
    },
    Workload {
        name: "wouldblock",
        about: "futex calls that never wait, as fast as possible",
        options: &["--rounds"],
        run: raw::wouldblock,
    },
    Workload {
        name: "names",
        about: "a waiting thread with control characters in its name, woken each --ms (50)",
        options: &["--ms", "--rounds"],
        run: raw::names,
    },
    Workload {
        name: "shared",
        about: "two processes on a shared futex at different addresses, --ms (50) each turn",
        options: &["--ms", "--rounds"],
        run: processes::shared,
    },
    Workload {
        name: "exit-in-wait",
        about: "children with 8 blocked threads, killed each --ms (100)",
        options: &["--ms", "--rounds"],
        run: processes::exit_in_wait,
    },
    Workload {
        name: "pingpong",
        about: "two threads on one core, exactly two futex waits a round; --ms: a rest each 1000 rounds",
        options: &["--cpu", "--rounds", "--ms"],
        run: pong::pingpong,
    },
    Workload {
        name: "condpong",
        about: "the same by a mutex and condition variables",
        options: &["--cpu", "--rounds"],
        run: pong::condpong,
    },
    Workload {
        name: "storm",
        about: "--threads (4) on --locks (1) futex locks, or mutexes (--pthread), at full speed",
        options: &["--threads", "--locks", "--pthread", "--rounds"],
        run: storm::storm,
    },
    Workload {
        name: "handover",
        about: "--threads (6) in a row at each of --locks (1) mutexes, each holding it for --ms (60)",
        options: &["--locks", "--threads", "--ms"],
        run: handover::handover,
    },
    Workload {
        name: "brood",
        about: "a thousand threads a second (--processes: processes) that live for a moment",
        options: &["--processes", "--rounds"],
        run: brood::brood,
    },
    Workload {
        name: "heir",
        about: "a child killed in a wait, then one with its number in another wait, --ms (300) each",
        options: &["--ms"],
        run: brood::heir,
    },
    Workload {
        name: "threads",
        about: "--threads (1000) threads, each blocked on its own futex",
        options: &["--threads"],
        run: threads::threads,
    },
    Workload {
        name: "pool",
        about: "--threads (8) that wait for work, in each of the ways there are, and never get any",
        options: &["--threads"],
        run: pool::pool,
    },
    Workload {
        name: "faulting",
        about: "--threads (8) in a page fault that never ends",
        options: &["--threads"],
        run: trouble::faulting,
    },
    Workload {
        name: "busy",
        about: "--threads (8) that never wait",
        options: &["--threads"],
        run: trouble::busy,
    },
    Workload {
        name: "leak",
        about: "a thread each --ms (20) that waits for ever, up to --threads (2000)",
        options: &["--ms", "--threads"],
        run: trouble::leak,
    },
    Workload {
        name: "starved",
        about: "a writer that waits while readers come and go, never all at the same time",
        options: &[],
        run: rwlock::starved,
    },
];

/// Runs the workload that the first argument names.
pub fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let name = args.next().unwrap_or_default();
    if name == "--help" || name == "-h" {
        say(&usage());
        return ExitCode::SUCCESS;
    }
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else {
        eprintln!("workload: unknown workload \"{name}\"\n\n{}", usage());
        return ExitCode::from(EXIT_USAGE);
    };
    let options = match Options::parse(args, workload.options) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("workload {name}: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match (workload.run)(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            say(&format!("unsupported {error}\n"));
            ExitCode::from(EXIT_UNSUPPORTED)
        }
        // Whoever read the lines has gone, so nobody is left to be told.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to whoever still reads.
fn say(text: &str) {
    let _written = io::stdout().write_all(text.as_bytes());
}

fn usage() -> String {
    let mut text = String::from(
        "usage: workload NAME [--for SECONDS] [--wait-go] [OPTION…]\n\n\
         Runs until standard input is closed, --for SECONDS are over, or --rounds are done.\n\
         --wait-go starts only after the line `go` on standard input.\n\n",
    );
    for Workload {
        name,
        about,
        options,
        ..
    } in WORKLOADS
    {
        let takes = options.join(" ");
        // Writing into a string does not fail.
        let _written = writeln!(text, "  {name:<13} {about}");
        if !takes.is_empty() {
            let _written = writeln!(text, "  {:<13} {takes}", "");
        }
    }
    text
}
