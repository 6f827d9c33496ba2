//! Metrics that are above or below a value for a time: a reason for an incident. Pure: metrics in, reasons out.

use std::collections::VecDeque;

use super::{
    config::Threshold,
    incidents::Trigger,
    metrics::samples::{Family, Sort},
    nanos,
};

/// Values of one counter that are remembered.
const MAX_VALUES: usize = 4_096;

/// What is remembered of each threshold, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Thresholds {
    states: Vec<State>,
}

#[derive(Debug, Default)]
struct State {
    since_ns: Option<u64>,
    fired: bool,
    /// Values of a counter, to tell by how much it grew.
    values: VecDeque<(u64, f64)>,
}

impl Thresholds {
    /// Holds metrics against the thresholds.
    pub fn check(
        &mut self,
        families: &[Family<'_>],
        thresholds: &[Threshold],
        now_ns: u64,
    ) -> Vec<Trigger> {
        self.states.resize_with(thresholds.len(), State::default);
        let states = self.states.iter_mut().zip(thresholds);
        states
            .filter_map(|(state, threshold)| {
                let why = state.check(families, threshold, now_ns)?;
                Some(Trigger::new("metric", why))
            })
            .collect()
    }

    /// Forgets: the thresholds are others now.
    pub fn clear(&mut self) {
        self.states.clear();
    }
}

impl State {
    fn check(
        &mut self,
        families: &[Family<'_>],
        threshold: &Threshold,
        now_ns: u64,
    ) -> Option<String> {
        let family = families
            .iter()
            .find(|family| family.name == threshold.family());
        let value = family.map_or(0.0, |family| value(family, threshold));
        // One that has no series yet is nought.
        if threshold.metric.ends_with("_total") {
            return self.grown(value, threshold, now_ns);
        }
        let beyond = threshold.above.is_some_and(|above| value > above)
            || threshold.below.is_some_and(|below| value < below);
        if !beyond {
            (self.since_ns, self.fired) = (None, false);
            return None;
        }
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        let lasts = now_ns.saturating_sub(since_ns) >= nanos(threshold.for_time);
        // Once for each time that it goes there.
        (lasts && !std::mem::replace(&mut self.fired, true))
            .then(|| format!("{threshold}: {value} for {:?}", threshold.for_time))
    }

    /// A counter only grows: by how much within the time is what counts.
    fn grown(&mut self, value: f64, threshold: &Threshold, now_ns: u64) -> Option<String> {
        let from_ns = now_ns.saturating_sub(nanos(threshold.for_time));
        self.values.push_back((now_ns, value));
        // The latest one that is as old as the time, and all after it.
        while self.values.len() > MAX_VALUES
            || self.values.get(1).is_some_and(|(at, _)| *at <= from_ns)
        {
            self.values.pop_front();
        }
        let (first_ns, first) = *self.values.front()?;
        let grown = value - first;
        let beyond = threshold.above.is_some_and(|above| grown > above)
            || (first_ns <= from_ns && threshold.below.is_some_and(|below| grown < below));
        let before = std::mem::replace(&mut self.fired, beyond);
        (beyond && !before).then(|| {
            format!(
                "{threshold}: it grew by {grown} within {:?}",
                threshold.for_time
            )
        })
    }
}

/// The sum over the series that have the labels; of a histogram, its count.
fn value(family: &Family<'_>, threshold: &Threshold) -> f64 {
    let counts = |suffix: &str| match family.sort {
        Sort::Histogram => suffix == "_count",
        _ => true,
    };
    family
        .samples
        .iter()
        .filter(|sample| counts(sample.suffix))
        .filter(|sample| {
            threshold.labels.iter().all(|(name, wanted)| {
                let mut labels = sample.labels.iter();
                labels.any(|(label, value)| label == name && value == wanted)
            })
        })
        .map(|sample| sample.value)
        .sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::metrics::samples::parse;

    const SECOND: u64 = 1_000_000_000;

    fn threshold(metric: &str, above: Option<f64>, below: Option<f64>) -> Threshold {
        Threshold {
            metric: metric.into(),
            labels: [("kind".to_owned(), "lock".to_owned())].into(),
            above,
            below,
            for_time: Duration::from_secs(10),
        }
    }

    fn fired(thresholds: &[Threshold], sort: &str, values: &[(u64, f64)]) -> Vec<u64> {
        let mut state = Thresholds::default();
        let suffix = if sort == "counter" { "_total" } else { "" };
        let at = values.iter().filter(|(at, value)| {
            let text = format!(
                "# TYPE m {sort}\nm{suffix}{{kind=\"lock\",x=\"1\"}} {value}\nm{suffix}{{kind=\"io\"}} 1000\n"
            );
            !state.check(&parse(&text), thresholds, at * SECOND).is_empty()
        });
        at.map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_gauge_for_a_time() {
        let above = [threshold("m", Some(5.0), None)];
        let values = [
            (1, 6.0),
            (9, 7.0),
            (10, 5.0),
            (11, 6.0),
            (21, 6.0),
            (40, 9.0),
            (41, 1.0),
            (42, 9.0),
            (52, 9.0),
        ];
        assert_eq!(fired(&above, "gauge", &values), [21, 52]);
        let below = [threshold("m", None, Some(1.0))];
        assert_eq!(fired(&below, "gauge", &[(1, 0.0), (11, 0.5)]), [11]);
        assert_eq!(fired(&[], "gauge", &values), [0; 0]);
    }

    #[test]
    fn a_counter_within_a_time() {
        let above = [threshold("m_total", Some(5.0), None)];
        // It was there before: only what it grows by counts.
        let values = [
            (1, 100.0),
            (5, 103.0),
            (11, 105.0),
            (13, 107.0),
            (14, 109.0),
            (30, 109.0),
            (35, 115.0),
        ];
        assert_eq!(fired(&above, "counter", &values), [13, 35]);
        let below = [threshold("m_total", None, Some(1.0))];
        assert_eq!(
            fired(
                &below,
                "counter",
                &[(1, 7.0), (5, 7.0), (11, 7.0), (12, 7.0)]
            ),
            [11]
        );
    }
}
