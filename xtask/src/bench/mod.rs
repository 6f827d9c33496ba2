//! `cargo xtask bench`: what observing costs, as ratios against the same workload unobserved, next to
//! other observers and to the goals; and figures of observer itself.
//!
//! | module | is |
//! |---|---|
//! | [`workloads`] | the rows: what is observed |
//! | [`observers`] | the columns: what observes |
//! | [`ratios`] | a row's measurement, in interleaved rounds |
//! | [`figures`] | what is no ratio: rates, losses, memory, times |
//! | [`measured`] | figures that tests of the library measure |
//! | [`soak`] | the agent for half an hour, when it is asked for by name |
//! | [`goals`] | what each should be |
//! | [`page`] | the results as text and as docs/benchmarks.md |

pub(crate) mod captures;
mod child;
mod events;
mod figures;
mod goals;
mod goroutines;
mod machine;
mod measured;
mod observers;
mod page;
pub(crate) mod postgres;
mod ratios;
mod room;
mod screen;
mod soak;
mod stats;
mod table;
mod watched;
mod workloads;

use std::env;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::cmd::{self, Step, say};
use crate::{deps, project};
use figures::Group;
use machine::Machine;
use observers::Observer;
use page::Results;
use ratios::Column;
use room::Room;
use workloads::Workload;

/// The rounds of a quick run, where none are asked for.
const QUICK_ROUNDS: usize = 2;
/// From this load on, the numbers are those of a busy machine.
const BUSY: f64 = 0.5;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure only these rows
    #[arg(long, value_name = "ROW", num_args = 1.., value_enum)]
    only: Vec<Part>,
    /// Compare only with these observers
    #[arg(long, value_name = "OBSERVER", num_args = 1.., value_enum)]
    by: Vec<Observer>,
    /// Rounds of each row: unobserved, and once under each observer [default: 9, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Small sizes: shows that it works, not what it costs
    #[arg(long)]
    quick: bool,
    /// How long `--only soak` takes [default: 1800, with --quick 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..=80_000))]
    soak: Option<u32>,
    /// Write the results to docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Install nothing: columns and rows whose programs are missing are left out
    #[arg(long)]
    no_install: bool,
}

/// A row of the table, or a group of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Row(Workload),
    Figures(Group),
}

impl ValueEnum for Part {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Row(Workload::Pingpong),
            Self::Row(Workload::Condpong),
            Self::Row(Workload::Mutex),
            Self::Row(Workload::Messaging),
            Self::Row(Workload::Pgbench),
            Self::Row(Workload::PgbenchLocks),
            Self::Figures(Group::Saturation),
            Self::Figures(Group::Cost),
            Self::Figures(Group::Threads),
            Self::Figures(Group::Locks),
            Self::Figures(Group::Start),
            Self::Figures(Group::Stacks),
            Self::Figures(Group::Replay),
            Self::Figures(Group::Goroutines),
            Self::Figures(Group::Screen),
            Self::Figures(Group::Soak),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Row(workload) => workload.to_possible_value(),
            Self::Figures(group) => group.to_possible_value(),
        }
    }
}

/// Measures, prints the results and, if asked to, writes them.
pub(crate) fn bench(args: &Args) -> Result<()> {
    if !project::is_root() {
        bail!("bench loads programs into the kernel, again and again: run it as root");
    }
    deps::ensure_for_bench(!args.no_install);
    let mut build = project::cargo();
    build.args(["build", "--release", "--package", "observer"]);
    build.args(["--bin", "observer", "--example", "workload"]);
    cmd::run(&mut build).context("cannot build observer and the workloads")?;

    child::catch_signals()?;
    let results = measure(args)?;
    // When nobody reads any more, the page is still to be written.
    let _ = io::stdout().write_all(results.to_text().as_bytes());
    if args.write {
        let path = project::root().join("docs/benchmarks.md");
        room::write(&path, &results.to_markdown())?;
        say!("bench: wrote {}\n", path.display());
    }
    Ok(())
}

fn measure(args: &Args) -> Result<Results> {
    let machine = Machine::look();
    if machine.load() > BUSY {
        say!(
            "bench: this machine is busy (load {:.2}): ratios will be off\n",
            machine.load()
        );
    }
    let chosen = |all: &'static [Observer]| if args.by.is_empty() { all } else { &args.by };
    let rounds = match args.pairs {
        Some(pairs) => usize::from(pairs),
        None if args.quick => QUICK_ROUNDS,
        None => 9,
    };
    let observers = chosen(Observer::value_variants()).iter();
    let mut results = Results {
        machine,
        command: command(env::args().skip(1)),
        rounds,
        quick: args.quick,
        columns: observers.map(|observer| Column::new(*observer)).collect(),
        rows: Vec::new(),
        figures: Vec::new(),
        left_out: Vec::new(),
    };
    let room = Room::new()?;
    for part in Part::value_variants() {
        let wanted = if args.only.is_empty() {
            !(part.is_long() || args.quick && part.is_slow_to_build())
        } else {
            args.only.contains(part)
        };
        if !wanted {
            continue;
        }
        let done = match part {
            Part::Row(workload) => row(*workload, args.quick, &room, &mut results),
            Part::Figures(group) => figures(*group, args, &room, &mut results),
        };
        if let Err(error) = done {
            if child::interrupted() {
                return Err(error);
            }
            results.left_out.push((part.title(), format!("{error:#}")));
        }
    }
    Ok(results)
}

impl Part {
    /// Is it done only when it is asked for by name?
    fn is_long(self) -> bool {
        self == Self::Figures(Group::Soak)
    }

    /// Does it need the library's tests, built like a release? That takes minutes.
    fn is_slow_to_build(self) -> bool {
        matches!(
            self,
            Self::Figures(Group::Stacks | Group::Replay | Group::Goroutines)
        )
    }

    fn title(self) -> String {
        match self {
            Self::Row(workload) => workload.title().to_owned(),
            Self::Figures(_) => self
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned()),
        }
    }
}

fn row(workload: Workload, quick: bool, room: &Room, results: &mut Results) -> Result<()> {
    if let Some(reason) = workload.missing() {
        bail!(reason);
    }
    let columns = results
        .columns
        .iter()
        .filter(|column| column.left_out.is_none());
    let doing = format!(
        "{}, {} rounds of 1 + {}",
        workload.title(),
        results.rounds,
        columns.count()
    );
    let step = Step::quiet("bench", &doing);
    let mut prepared = workload.prepare(room, quick)?;
    let columns = &mut results.columns;
    let row = ratios::measure(workload, &mut prepared, columns, results.rounds, room)?;
    results.rows.push(row);
    step.done();
    Ok(())
}

fn figures(group: Group, args: &Args, room: &Room, results: &mut Results) -> Result<()> {
    let doing = format!("figures: {}", Part::Figures(group).title());
    let step = match group {
        Group::Soak => Step::noisy("bench", &doing),
        _ => Step::quiet("bench", &doing),
    };
    let soak = args.soak.unwrap_or(if args.quick { 60 } else { 1_800 });
    let soak = Duration::from_secs(soak.into());
    let figures = group.measure(room, args.quick, soak)?;
    results.figures.extend(figures);
    step.done();
    Ok(())
}

/// The command as one types it.
fn command(args: impl Iterator<Item = String>) -> String {
    std::iter::once("cargo xtask".to_owned())
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_can_be_chosen_by_name() {
        let names: Vec<String> = Part::value_variants()
            .iter()
            .map(|part| part.title())
            .collect();
        assert_eq!(
            names.len(),
            Workload::value_variants().len() + Group::value_variants().len()
        );
        let part = <Part as ValueEnum>::from_str("pgbench", false);
        assert_eq!(part, Ok(Part::Row(Workload::Pgbench)));
        let part = <Part as ValueEnum>::from_str("start", false);
        assert_eq!(part, Ok(Part::Figures(Group::Start)));
    }

    #[test]
    fn the_command_is_told_as_typed() {
        let args = ["bench", "--quick"].map(str::to_owned);
        assert_eq!(command(args.into_iter()), "cargo xtask bench --quick");
    }
}
