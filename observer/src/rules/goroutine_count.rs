//! A process has very many goroutines, and for a while.

use std::collections::HashMap;

use super::{Diagnosis, Rule, Thresholds, process_name};
use crate::{
    event::{Severity, Subject},
    model::Model,
    time::human,
};

/// Places named as evidence.
const SITES: usize = 3;

/// More goroutines than a limit.
#[derive(Default)]
pub(super) struct GoroutineCount {
    /// By process: since when there are more.
    since_ns: HashMap<u32, u64>,
}

impl Rule for GoroutineCount {
    fn name(&self) -> &'static str {
        "goroutine_count"
    }

    fn advice(&self) -> &'static str {
        "Bound what is started at the same time (a semaphore, a pool), or find out who does not end."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        self.since_ns.retain(|pid, _| {
            let mut processes = model.goroutines();
            processes.any(|all| all.pid == *pid && all.total > thresholds.goroutines)
        });
        for all in model.goroutines() {
            if all.total <= thresholds.goroutines {
                continue;
            }
            let since_ns = *self.since_ns.entry(all.pid).or_insert(all.mono_ns);
            let age_ns = all.mono_ns.saturating_sub(since_ns);
            if age_ns < thresholds.goroutines_ns {
                continue;
            }
            let sites = all.sites.iter().take(SITES);
            found.push(Diagnosis {
                key: all.pid.to_string(),
                severity: Severity::Warning,
                title: format!(
                    "{} has {} goroutines, and more than {} for {}",
                    process_name(all),
                    all.total,
                    thresholds.goroutines,
                    human(age_ns)
                ),
                evidence: sites
                    .map(|site| format!("{} started by {}", site.count, site.created_by))
                    .collect(),
                subjects: vec![Subject::Process(all.pid)],
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::Event;

    #[test]
    fn many_for_long() {
        let mut rule = GoroutineCount::default();
        let mut found = Vec::new();
        let mut see = |second: u64, total| {
            let mut all = goroutines();
            all.mono_ns = NOW + second * SECOND;
            all.total = total;
            all.sites.push(site("main.handle", total));
            found = rule.check(&model(&[Event::from(all)]), &Thresholds::default());
            found.len()
        };
        assert_eq!(see(0, 6_000), 0);
        assert_eq!(see(29, 6_000), 0);
        // They became fewer meanwhile: it begins anew.
        assert_eq!(see(30, 100), 0);
        assert_eq!(see(31, 6_000), 0);
        assert_eq!(see(61, 7_000), 1);
        assert_eq!(
            found[0].title,
            "process 1 server has 7000 goroutines, and more than 5000 for 30.0s"
        );
    }
}
