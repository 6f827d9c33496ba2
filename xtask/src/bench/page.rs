//! What is told of the results: on the terminal, and as docs/benchmarks.md.

use std::fmt::Write as _;

use super::figures::Figure;
use super::goals;
use super::machine::Machine;
use super::observers::Observer;
use super::ratios::{Column, Row};
use super::stats::{Spread, grouped};
use super::table::{Cell, Table};
use super::workloads::Workload;

/// Everything that was measured.
pub(super) struct Results {
    pub(super) machine: Machine,
    /// The command, as typed.
    pub(super) command: String,
    pub(super) rounds: usize,
    pub(super) quick: bool,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    pub(super) figures: Vec<Figure>,
    /// Workloads and groups of figures without a result, and why.
    pub(super) left_out: Vec<(String, String)>,
}

impl Results {
    /// As it is printed.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.machine.line());
        if !self.rows.is_empty() {
            let rounds = self.rounds;
            let _ = write!(
                text,
                "\nagainst the same workload unobserved: median of {rounds} rounds, quartiles\n\n{}",
                self.ratios().to_text()
            );
        }
        if !self.figure_rows().is_empty() {
            let _ = write!(text, "\n{}", self.figures_table().to_text());
        }
        for (what, why) in self.reasons() {
            let _ = write!(text, "\nleft out: {what}: {why}");
        }
        text.trim_end().to_owned() + "\n"
    }

    /// As it is kept.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = format!(
            "# Benchmarks\n\nMade by `{}` on this machine; do not edit it by hand.\n\n{}\n",
            self.command,
            self.machine.list()
        );
        if self.quick {
            text.push_str(
                "\n**A quick run: sizes this small show that it works, not what it costs.**\n",
            );
        }
        if !self.rows.is_empty() {
            let _ = write!(
                text,
                "\n## Cost to the observed program\n\n{}\n{}{}",
                HOW_TO_READ.replace("{rounds}", &self.rounds.to_string()),
                self.ratios().to_markdown(),
                self.keys()
            );
        }
        if !self.figure_rows().is_empty() {
            let _ = write!(
                text,
                "\n## observer itself\n\n{}\n{}",
                FIGURES,
                self.figures_table().to_markdown()
            );
        }
        let reasons = self.reasons();
        if !reasons.is_empty() {
            text.push_str("\n## Left out\n\n");
            for (what, why) in reasons {
                let _ = writeln!(text, "- {what}: {why}");
            }
        }
        text
    }

    /// The columns that have at least one value.
    fn observers(&self) -> Vec<Observer> {
        let all = self.columns.iter().map(|column| column.observer);
        all.filter(|observer| self.rows.iter().any(|row| row.ratio(*observer).is_some()))
            .collect()
    }

    fn ratios(&self) -> Table {
        let observers = self.observers();
        let names = observers.iter().map(|observer| observer.name());
        let heading = ["workload", "alone"]
            .into_iter()
            .chain(names)
            .chain(["goal"]);
        let cells = |row: &Row| {
            let mut cells: Vec<Cell> = vec![title(row.workload), alone(row.alone)];
            cells.extend(observers.iter().map(|observer| ratio(row, *observer)));
            cells.push(goals::cell(row));
            cells
        };
        Table {
            heading: heading.map(str::to_owned).collect(),
            rows: self.rows.iter().map(cells).collect(),
        }
    }

    fn figures_table(&self) -> Table {
        Table {
            heading: ["what", "value", "goal", ""].map(str::to_owned).to_vec(),
            rows: self.figure_rows(),
        }
    }

    /// The figures, and what the table of ratios comes down to.
    fn figure_rows(&self) -> Vec<Vec<Cell>> {
        let mut rows = Vec::new();
        let mut add = |what: String, value: String, goal: Option<(String, &str)>| {
            let (limit, verdict) = goal.unwrap_or_default();
            rows.push(
                [what, value, limit, verdict.to_owned()]
                    .map(|text| vec![text])
                    .to_vec(),
            );
        };
        for row in &self.rows {
            if let Some((times, verdict)) = goals::times_less(row) {
                let what = format!(
                    "{}: time added by bpftrace / by default",
                    row.workload.title()
                );
                let limit = format!("≥ {:.0}", goals::TIMES_LESS);
                let times = if times.is_finite() {
                    format!("{times:.1}")
                } else {
                    "∞".to_owned()
                };
                add(what, times, Some((limit, verdict)));
            }
        }
        for column in &self.columns {
            if let Some(lost) = &column.lost {
                let sum: u64 = lost.values().sum();
                let verdict = goals::Goal::AtMost(0.0).verdict(Some(sum as f64));
                let mut what = format!("{}: records lost in all rows", column.observer.name());
                for (cause, count) in lost {
                    let _ = write!(what, ", {cause} {count}");
                }
                add(what, grouped(sum as f64), Some(("0".to_owned(), verdict)));
            }
        }
        for figure in &self.figures {
            add(
                figure.what.clone(),
                figure.value.clone(),
                figure.goal.clone(),
            );
        }
        rows
    }

    fn reasons(&self) -> Vec<(String, String)> {
        let columns = self.columns.iter().filter_map(|column| {
            let why = column.left_out.clone()?;
            Some((column.observer.name().to_owned(), why))
        });
        columns.chain(self.left_out.iter().cloned()).collect()
    }

    /// What the rows and the columns are.
    fn keys(&self) -> String {
        let mut text = String::from("\n| workload | is |\n| --- | --- |\n");
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {} | {} |",
                row.workload.title(),
                row.workload.about()
            );
        }
        text.push_str("\n| observed by | command | tells |\n| --- | --- | --- |\n");
        for observer in self.observers() {
            let (command, tells) = observer.about();
            let _ = writeln!(text, "| {} | `{command}` | {tells} |", observer.name());
        }
        text
    }
}

const HOW_TO_READ: &str = include_str!("how-to-read.md");

const FIGURES: &str = include_str!("figures.md");

fn title(workload: Workload) -> Cell {
    let direction = goals::direction(workload);
    vec![
        workload.title().to_owned(),
        format!("{}, {direction}", workload.unit()),
    ]
}

fn alone(spread: Option<Spread>) -> Cell {
    spread.map_or_else(Vec::new, |Spread { median, low, high }| {
        vec![
            grouped(median),
            format!("{}–{}", grouped(low), grouped(high)),
        ]
    })
}

fn ratio(row: &Row, observer: Observer) -> Cell {
    let found = row.ratios.iter().find(|(of, _)| *of == observer);
    found.map_or_else(
        || vec!["–".to_owned()],
        |(_, Spread { median, low, high })| {
            vec![format!("{median:.3}"), format!("{low:.2}–{high:.2}")]
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::observers::Losses;

    fn results() -> Results {
        let spread = |values: &[f64]| Spread::of(values).unwrap();
        let column = |observer, left_out: Option<&str>, lost| Column {
            observer,
            left_out: left_out.map(str::to_owned),
            lost,
        };
        Results {
            machine: Machine::example(),
            command: "cargo xtask bench --pairs 3".into(),
            rounds: 3,
            quick: false,
            columns: vec![
                column(Observer::Default, None, Some(Losses::new())),
                column(Observer::Bpftrace, None, None),
                column(
                    Observer::PerfOffCpu,
                    Some("the perf here was built without it"),
                    None,
                ),
            ],
            rows: vec![Row {
                workload: Workload::Pingpong,
                alone: Some(spread(&[5_100.0, 5_000.0, 5_200.0])),
                ratios: vec![
                    (Observer::Default, spread(&[1.1, 1.125, 1.2])),
                    (Observer::Bpftrace, spread(&[2.0, 1.9, 2.1])),
                ],
            }],
            figures: Vec::new(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn the_text_has_all_that_was_measured() {
        let text = results().to_text();
        let (_, table) = text.split_once("quartiles\n\n").unwrap();
        let wanted = "\
workload                          alone    default   bpftrace    goal
exact futex ping-pong             5 100      1.125      2.000  ≤ 1.15
ns a round, less is better  5 050–5 150  1.11–1.16  1.95–2.05     met

what                                                        value  goal
exact futex ping-pong: time added by bpftrace / by default    8.0   ≥ 5  met
default: records lost in all rows                               0     0  met

left out: perf off-cpu: the perf here was built without it
";
        assert_eq!(table, wanted, "{text}");
    }

    #[test]
    fn the_page_names_the_command_and_every_column() {
        let page = results().to_markdown();
        for part in [
            "Made by `cargo xtask bench --pairs 3`",
            "| workload | alone | default | bpftrace | goal |",
            "1.125<br>1.11–1.16",
            "≤ 1.15<br>met",
            "median of 3 rounds",
            "| bpftrace | `bpftrace xtask/src/bench/futex.bt` |",
            "- perf off-cpu: the perf here was built without it",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("| perf off-cpu |"), "{page}");
    }
}
