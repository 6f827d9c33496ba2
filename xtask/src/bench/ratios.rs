//! One row: a workload, unobserved and under each observer, in rounds.

use anyhow::Result;

use super::child;
use super::observers::{Losses, Observer};
use super::room::Room;
use super::stats::{Spread, rotation};
use super::workloads::{Better, Prepared, Workload};

/// An observer and why it is not measured any more, if it is not.
pub(super) struct Column {
    pub(super) observer: Observer,
    pub(super) left_out: Option<String>,
    /// What it lost in all runs so far, if it is one that tells.
    pub(super) lost: Option<Losses>,
}

impl Column {
    pub(super) fn new(observer: Observer) -> Self {
        Self {
            observer,
            left_out: observer.missing(),
            lost: None,
        }
    }
}

/// Where the workload alone varies more than this between its quartiles, a median of ratios means little.
const STEADY: f64 = 1.2;

/// What came out of a row.
pub(super) struct Row {
    pub(super) workload: Workload,
    /// The workload alone, in its own unit.
    pub(super) alone: Option<Spread>,
    /// Against it, each observer.
    pub(super) ratios: Vec<(Observer, Spread)>,
}

impl Row {
    /// The median ratio under an observer.
    pub(super) fn ratio(&self, observer: Observer) -> Option<f64> {
        let found = self.ratios.iter().find(|(of, _)| *of == observer);
        found.map(|(_, spread)| spread.median)
    }

    /// Whether the workload alone was as fast again and again: if not, the machine did other work.
    pub(super) fn is_steady(&self) -> bool {
        self.alone
            .is_some_and(|alone| alone.high <= alone.low * STEADY)
    }

    /// How much longer the work takes, as a share: 0.1 for a tenth.
    pub(super) fn added(&self, observer: Observer) -> Option<f64> {
        let ratio = self.ratio(observer)?;
        Some(match self.workload.better() {
            Better::Less => ratio - 1.0,
            Better::More => 1.0 / ratio - 1.0,
        })
    }
}

/// Measures a row: each round runs the workload unobserved and once under each observer, and each
/// value is set against the unobserved one of its own round, so that what changes slowly on the machine
/// cancels out.
pub(super) fn measure(
    workload: Workload,
    prepared: &mut Prepared,
    columns: &mut [Column],
    rounds: usize,
    room: &Room,
) -> Result<Row> {
    // The first run of a program pays for its pages.
    prepared.measure()?;
    let mut alone = Vec::new();
    let mut ratios = vec![Vec::new(); columns.len()];
    for round in 0..rounds {
        let mut base = f64::NAN;
        let mut values = vec![f64::NAN; columns.len()];
        for place in rotation(columns.len() + 1, round) {
            child::go_on()?;
            let Some(index) = place.checked_sub(1) else {
                base = prepared.measure()?;
                continue;
            };
            let column = &mut columns[index];
            if column.left_out.is_none() && column.observer.is_for(workload) {
                match observed(column, prepared, room) {
                    Ok(value) => values[index] = value,
                    Err(error) if child::interrupted() => return Err(error),
                    Err(error) => column.left_out = Some(format!("{error:#}")),
                }
            }
        }
        alone.push(base);
        for (ratios, value) in ratios.iter_mut().zip(values) {
            ratios.push(value / base);
        }
    }
    let ratios = columns
        .iter()
        .zip(&ratios)
        .filter_map(|(column, ratios)| Some((column.observer, Spread::of(ratios)?)))
        .collect();
    Ok(Row {
        workload,
        alone: Spread::of(&alone),
        ratios,
    })
}

fn observed(column: &mut Column, prepared: &mut Prepared, room: &Room) -> Result<f64> {
    let running = column.observer.start(room)?;
    let value = prepared.measure()?;
    if let Some(lost) = running.stop()? {
        let sums = column.lost.get_or_insert_default();
        for (cause, count) in lost {
            *sums.entry(cause).or_default() += count;
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_added_time_is_the_same_for_speeds_and_durations() {
        let row = |workload, median| Row {
            workload,
            alone: None,
            ratios: vec![(Observer::Default, Spread::of(&[median]).unwrap())],
        };
        assert_eq!(
            row(Workload::Pingpong, 1.25).added(Observer::Default),
            Some(0.25)
        );
        assert_eq!(
            row(Workload::Pgbench, 0.8).added(Observer::Default),
            Some(0.25)
        );
        assert_eq!(row(Workload::Pgbench, 0.8).ratio(Observer::Empty), None);
    }

    #[test]
    fn each_value_is_set_against_its_own_round() {
        let room = Room::new().unwrap();
        let mut prepared =
            Prepared::program("echo".into(), &["40"], |output| output.trim().parse().ok());
        let mut columns = [Column {
            observer: Observer::Default,
            left_out: Some("not here".into()),
            lost: None,
        }];
        let row = measure(Workload::Mutex, &mut prepared, &mut columns, 3, &room).unwrap();
        assert_eq!(row.alone, Spread::of(&[40.0]));
        assert!(row.ratios.is_empty() && row.is_steady());
        let alone = Spread::of(&[40.0, 40.0, 90.0, 90.0]);
        assert!(!Row { alone, ..row }.is_steady());
    }
}
