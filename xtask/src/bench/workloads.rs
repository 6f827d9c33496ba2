//! The rows of the table: what is observed, and how fast it was.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::child;
use super::events;
use super::postgres::{self, Cluster, Load};
use super::room::Room;
use crate::cmd;
use crate::run;

/// Something that is observed and can be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    Pingpong,
    Condpong,
    Mutex,
    Messaging,
    Pgbench,
    PgbenchLocks,
}

/// Which of two speeds is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// A workload that is set up, and can be run again and again.
pub(super) enum Prepared {
    Program {
        program: String,
        args: Vec<String>,
        read: fn(&str) -> Option<f64>,
    },
    Postgres {
        cluster: Cluster,
        load: Load,
        seconds: u32,
    },
}

impl Workload {
    /// What the row is called.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Pingpong => "exact futex ping-pong",
            Self::Condpong => "condvar ping-pong",
            Self::Mutex => "8 threads, one mutex",
            Self::Messaging => "perf bench messaging",
            Self::Pgbench => "PostgreSQL, pgbench -S",
            Self::PgbenchLocks => "PostgreSQL, pgbench on one row",
        }
    }

    /// What is measured.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Pingpong | Self::Condpong => "ns a round",
            Self::Mutex => "acquisitions/s",
            Self::Messaging => "ms",
            Self::Pgbench | Self::PgbenchLocks => "transactions/s",
        }
    }

    pub(super) fn better(self) -> Better {
        match self {
            Self::Pingpong | Self::Condpong | Self::Messaging => Better::Less,
            Self::Mutex | Self::Pgbench | Self::PgbenchLocks => Better::More,
        }
    }

    /// What the page says of it.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Pingpong => {
                "two threads on one core, each round two futex waits, two wake-ups, two switches and \
                 nothing else (`workload pingpong`): the worst case"
            }
            Self::Condpong => {
                "the same with one pthread mutex and one condition variable, signalled while the mutex \
                 is held: two to four switches a round (`workload condpong`)"
            }
            Self::Mutex => {
                "eight threads that take one pthread mutex as fast as they can and give their CPU away \
                 while they hold it (`workload storm --threads 8 --pthread`)"
            }
            Self::Messaging => {
                "400 processes that send each other messages through sockets (`perf bench sched \
                 messaging`)"
            }
            Self::Pgbench => {
                "a private PostgreSQL, four clients through a Unix socket, select-only, scale 10"
            }
            Self::PgbenchLocks => {
                "the same with eight clients that write, scale 1: each transaction updates one row that all \
                 of them update, so nearly each waits for others in the lock manager, and for light-weight \
                 locks"
            }
        }
    }

    /// Is it a PostgreSQL?
    pub(super) fn is_postgres(self) -> bool {
        matches!(self, Self::Pgbench | Self::PgbenchLocks)
    }

    /// Why it cannot be had here, if it cannot.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Messaging if !cmd::exists("perf") => Some("perf is not installed".to_owned()),
            Self::Pgbench | Self::PgbenchLocks if postgres::bin_dir().is_none() => {
                Some("PostgreSQL and pgbench are not installed".to_owned())
            }
            _ => None,
        }
    }

    /// Sets it up; `quick` for the smallest size that still shows something.
    pub(super) fn prepare(self, room: &Room, quick: bool) -> Result<Prepared> {
        let size = |full, small| if quick { small } else { full };
        Ok(match self {
            Self::Pingpong => own(&["pingpong", "--for", size("1.5", "0.3")], ns_per_round),
            Self::Condpong => own(&["condpong", "--for", size("1.5", "0.3")], ns_per_round),
            Self::Mutex => {
                let storm = ["storm", "--threads", "8", "--pthread", "--for"];
                own(
                    &[&storm[..], &[size("1.5", "0.3")]].concat(),
                    acquisitions_per_second,
                )
            }
            Self::Messaging => {
                let bench = [
                    "bench",
                    "--format",
                    "simple",
                    "sched",
                    "messaging",
                    "--nr_loops",
                ];
                let args = [&bench[..], &[size("200", "60")]].concat();
                Prepared::program("perf".into(), &args, |output| {
                    Some(output.trim().parse::<f64>().ok()? * 1e3)
                })
            }
            Self::Pgbench => Prepared::Postgres {
                cluster: Cluster::start(room, "pg", if quick { 1 } else { 10 })?,
                load: Load::Read,
                seconds: if quick { 1 } else { 4 },
            },
            Self::PgbenchLocks => Prepared::Postgres {
                cluster: Cluster::start(room, "pg-locks", 1)?,
                load: Load::OneRow,
                seconds: if quick { 1 } else { 4 },
            },
        })
    }
}

/// One of the project's own workloads.
fn own(args: &[&str], read: fn(&str) -> Option<f64>) -> Prepared {
    let program = run::released("examples/workload").display().to_string();
    Prepared::program(program, args, read)
}

impl Prepared {
    pub(super) fn program(program: String, args: &[&str], read: fn(&str) -> Option<f64>) -> Self {
        let args = args.iter().map(ToString::to_string).collect();
        Self::Program {
            program,
            args,
            read,
        }
    }

    /// Runs it once.
    pub(super) fn measure(&mut self) -> Result<f64> {
        match self {
            Self::Program {
                program,
                args,
                read,
            } => {
                let mut command = Command::new(program);
                let output = child::measured(command.args(args))?;
                read(&output).with_context(|| {
                    format!("`{}` printed no result:\n{output}", cmd::line(&command))
                })
            }
            Self::Postgres {
                cluster,
                load,
                seconds,
            } => cluster.pgbench(*load, *seconds),
        }
    }
}

fn ns_per_round(output: &str) -> Option<f64> {
    events::number(events::line_of(output, "truth")?, "ns_per_round")
}

/// All threads' acquisitions over the time that the storm took.
fn acquisitions_per_second(output: &str) -> Option<f64> {
    let truth = events::line_of(output, "truth")?;
    let ns = events::number(truth, "end_ns")? - events::number(truth, "start_ns")?;
    let sum: f64 = events::numbers(truth, "acquisitions").sum();
    (ns > 0.0).then(|| sum * 1e9 / ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_of_a_storm_is_that_of_all_its_threads() {
        let output = "ready {}\ntruth {\"end_ns\":3000000000,\"start_ns\":1000000000,\
                      \"threads\":{\"a\":{\"acquisitions\":500},\"b\":{\"acquisitions\":300}}}\n";
        assert_eq!(acquisitions_per_second(output), Some(400.0));
        assert_eq!(acquisitions_per_second("unsupported x\n"), None);
    }

    #[test]
    fn a_result_that_is_not_there_is_an_error_with_the_output() {
        let read = |output: &str| output.trim().parse().ok();
        let mut prepared = Prepared::program("echo".into(), &["no result"], read);
        let error = prepared.measure().unwrap_err().to_string();
        assert!(
            error.contains("`echo no result` printed no result"),
            "{error}"
        );
    }
}
