//! Goroutines of one origin become more and more, and wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{Diagnosis, Rule, Thresholds, process_name};
use crate::{
    event::{GoFrame, Goroutines, Severity, Subject},
    model::Model,
    time::human,
};

/// Samples that have to grow one after the other.
const SAMPLES: usize = 3;
/// Samples kept: a slow leak shows in more of them.
const MAX_SAMPLES: usize = 24;
/// Places that are followed.
const MAX_SITES: usize = 4_096;

/// Goroutines that were started and never end.
#[derive(Default)]
pub(super) struct GoroutineLeak {
    counts: HashMap<(u32, Arc<GoFrame>), VecDeque<u64>>,
    /// By process: when the last sample was.
    sampled_ns: HashMap<u32, u64>,
}

impl Rule for GoroutineLeak {
    fn name(&self) -> &'static str {
        "goroutine_leak"
    }

    fn advice(&self) -> &'static str {
        "Goroutines are started there and never end: see in the dump what they wait for, and who should have sent, \
         received, closed or cancelled."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        self.sampled_ns
            .retain(|pid, _| model.goroutines().any(|all| all.pid == *pid));
        self.counts
            .retain(|(pid, _), _| self.sampled_ns.contains_key(pid));
        for all in model.goroutines() {
            let last_ns = self.sampled_ns.get(&all.pid);
            if last_ns
                .is_none_or(|ns| all.mono_ns >= ns.saturating_add(thresholds.goroutine_sample_ns))
            {
                self.sampled_ns.insert(all.pid, all.mono_ns);
                self.sample(all);
            }
            let growing = all.sites.iter().filter_map(|site| {
                let counts = self.counts.get(&(all.pid, Arc::clone(&site.created_by)))?;
                let run = growth(counts);
                let more = run.last()?.saturating_sub(*run.first()?);
                let is_leak = run.len() >= SAMPLES && more >= thresholds.leak_goroutines;
                is_leak.then(|| {
                    let mut evidence = vec![format!("blocked goroutines at each sample: {run:?}")];
                    if let Some(growth) = site.growth {
                        evidence.push(format!("{growth:+.0} goroutines a minute"));
                    }
                    if let Some(oldest_ns) = site.oldest_ns {
                        evidence.push(format!("the oldest is ≥{} old", human(oldest_ns)));
                    }
                    Diagnosis {
                        key: format!("{} {}", all.pid, site.created_by),
                        severity: Severity::Warning,
                        title: format!(
                            "{} has {} blocked goroutines started by {}, {more} more than {} samples ago",
                            process_name(all),
                            site.blocked,
                            site.created_by,
                            run.len() - 1
                        ),
                        evidence,
                        subjects: vec![Subject::Process(all.pid)],
                    }
                })
            });
            found.extend(growing);
        }
        found
    }
}

/// The samples from which on each is larger than the one before.
fn growth(counts: &VecDeque<u64>) -> Vec<u64> {
    let mut run: Vec<u64> = Vec::new();
    for count in counts.iter().rev() {
        if run.last().is_some_and(|later| count >= later) {
            break;
        }
        run.push(*count);
    }
    run.reverse();
    run
}

impl GoroutineLeak {
    fn sample(&mut self, all: &Goroutines) {
        for site in &all.sites {
            let key = (all.pid, Arc::clone(&site.created_by));
            if self.counts.len() >= MAX_SITES && !self.counts.contains_key(&key) {
                continue;
            }
            let counts = self.counts.entry(key).or_default();
            counts.push_back(site.blocked);
            if counts.len() > MAX_SAMPLES {
                counts.pop_front();
            }
        }
        let sites = &all.sites;
        self.counts.retain(|(pid, place), _| {
            *pid != all.pid || sites.iter().any(|site| site.created_by == *place)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::Event;

    fn run(counts: &[u64]) -> Vec<Diagnosis> {
        let mut rule = GoroutineLeak::default();
        let mut model = Model::default();
        let mut found = Vec::new();
        for (i, count) in counts.iter().enumerate() {
            let mut all = goroutines();
            all.mono_ns = NOW + i as u64 * 5 * SECOND;
            all.sites.push(site("main.handle", *count));
            model.apply(Event::from(all));
            found = rule.check(&model, &Thresholds::default());
            // Asked again about the same look, it counts once.
            assert_eq!(rule.check(&model, &Thresholds::default()), found);
        }
        found
    }

    #[test]
    fn growth_at_each_sample() {
        let found = run(&[10, 20, 30]);
        assert_eq!(
            found[0].title,
            "process 1 server has 30 blocked goroutines started by main.handle (server.go:7), 20 more than 2 \
             samples ago"
        );
        // A slow one takes longer.
        assert_eq!(run(&[3, 10, 15, 18, 24, 30]).len(), 1);
    }

    #[test]
    fn pools_and_little_growth_are_innocent() {
        assert_eq!(run(&[10, 30]), []);
        assert_eq!(run(&[500, 500, 500, 500]), []);
        assert_eq!(run(&[0, 50, 100, 100, 100]), []);
        assert_eq!(run(&[10, 11, 12, 13]), []);
        assert_eq!(run(&[10, 60, 20, 70]), []);
    }
}
