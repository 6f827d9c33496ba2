//! What observing may cost, and whether it does.

use super::observers::Observer;
use super::ratios::Row;
use super::workloads::{Better, Workload};

/// At least this many times less added time than a script that gives the same answer.
pub(super) const TIMES_LESS: f64 = 5.0;

/// A number that must not be passed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// What became of it, in words.
    pub(super) fn verdict(self, value: Option<f64>) -> &'static str {
        match (value, self) {
            (None, _) => "not measured",
            (Some(value), Self::AtMost(limit)) if value <= limit => "met",
            (Some(value), Self::AtLeast(limit)) if value >= limit => "met",
            _ => "not met",
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit:.2}"),
            Self::AtLeast(limit) => format!("≥ {limit:.2}"),
        }
    }
}

/// The verdict on a row, unless the machine was too busy for one.
fn verdict(row: &Row, goal: Goal, value: Option<f64>) -> &'static str {
    if value.is_some() && !row.is_steady() {
        return "unclear";
    }
    goal.verdict(value)
}

/// The goal for observer's default mode: worst cases 15 % and 10 %, ordinary load 1 %.
fn goal(workload: Workload) -> Option<Goal> {
    Some(match workload {
        Workload::Pingpong => Goal::AtMost(1.15),
        Workload::Condpong => Goal::AtMost(1.10),
        Workload::Messaging => Goal::AtMost(1.01),
        Workload::Pgbench => Goal::AtLeast(0.98),
        Workload::Mutex | Workload::PgbenchLocks => return None,
    })
}

/// The cell with the goal of a row: the limit, and the verdict.
pub(super) fn cell(row: &Row) -> Vec<String> {
    goal(row.workload).map_or_else(
        || vec!["none".to_owned()],
        |goal| {
            let value = row.ratio(Observer::Default);
            vec![goal.in_words(), verdict(row, goal, value).to_owned()]
        },
    )
}

/// How many times as much time bpftrace adds as observer does, on the rows where both wait for nothing
/// but futexes: there alone they give the same answer.
pub(super) fn times_less(row: &Row) -> Option<(f64, &'static str)> {
    if !matches!(row.workload, Workload::Pingpong | Workload::Condpong) {
        return None;
    }
    let own = row.added(Observer::Default)?;
    let peer = row.added(Observer::Bpftrace)?;
    // Nothing measurable added: as many times less as one likes.
    let times = if own > 0.0 { peer / own } else { f64::INFINITY };
    let goal = Goal::AtLeast(TIMES_LESS);
    Some((times, verdict(row, goal, Some(times))))
}

/// How to read the ratio of a row.
pub(super) fn direction(workload: Workload) -> &'static str {
    match workload.better() {
        Better::Less => "less is better",
        Better::More => "more is better",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Spread;

    fn row(workload: Workload, ratios: &[(Observer, f64)]) -> Row {
        let ratios = ratios
            .iter()
            .map(|(observer, ratio)| (*observer, Spread::of(&[*ratio]).unwrap()));
        Row {
            workload,
            alone: Spread::of(&[5_000.0]),
            ratios: ratios.collect(),
        }
    }

    #[test]
    fn goals_are_met_up_to_the_limit() {
        let cell_of = |workload, ratio| cell(&row(workload, &[(Observer::Default, ratio)]));
        assert_eq!(cell_of(Workload::Pingpong, 1.15), ["≤ 1.15", "met"]);
        assert_eq!(cell_of(Workload::Pingpong, 1.151), ["≤ 1.15", "not met"]);
        assert_eq!(cell_of(Workload::Pgbench, 1.0), ["≥ 0.98", "met"]);
        assert_eq!(cell_of(Workload::Pgbench, 0.97), ["≥ 0.98", "not met"]);
        assert_eq!(cell_of(Workload::Mutex, 0.5), ["none"]);
        let unmeasured = row(Workload::Condpong, &[(Observer::Empty, 1.0)]);
        assert_eq!(cell(&unmeasured), ["≤ 1.10", "not measured"]);
        let restless = Row {
            alone: Spread::of(&[5_000.0, 5_000.0, 9_000.0, 9_000.0]),
            ..row(Workload::Pingpong, &[(Observer::Default, 0.7)])
        };
        assert_eq!(cell(&restless), ["≤ 1.15", "unclear"]);
    }

    #[test]
    fn peers_are_compared_by_what_they_add() {
        let both = |own, peer| [(Observer::Default, own), (Observer::Bpftrace, peer)];
        let (times, verdict) = times_less(&row(Workload::Pingpong, &both(1.125, 1.75))).unwrap();
        assert_eq!((times, verdict), (6.0, "met"));
        assert_eq!(
            times_less(&row(Workload::Condpong, &both(1.5, 2.0)))
                .unwrap()
                .1,
            "not met"
        );
        assert_eq!(
            times_less(&row(Workload::Condpong, &both(0.99, 2.0)))
                .unwrap()
                .1,
            "met"
        );
        assert_eq!(times_less(&row(Workload::Pgbench, &both(0.9, 0.5))), None);
        assert_eq!(
            times_less(&row(Workload::Pingpong, &both(1.1, 2.0)[..1])),
            None
        );
    }
}
