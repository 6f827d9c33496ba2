//! When an incident is written by itself. Pure: events and the model in, a reason out.

use std::collections::HashMap;

use super::{config, incidents::Trigger, nanos};
use crate::{event::Event, model::Model};

/// Processes whose goroutines are remembered.
const MAX_PROCESSES: usize = 1_024;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Triggers {
    blocked_since: Option<u64>,
    goroutines_since: HashMap<u32, u64>,
}

impl Triggers {
    /// Is an event a reason?
    pub fn see(&mut self, event: &Event, config: &config::Triggers) -> Option<Trigger> {
        match event {
            Event::Finding(finding) if config.finding.includes(finding.severity) => Some(
                Trigger::new("finding", format!("{}: {}", finding.rule, finding.title)),
            ),
            Event::Goroutines(goroutines) if config.goroutines > 0 => {
                let (pid, now_ns) = (goroutines.pid, goroutines.mono_ns);
                if goroutines.total <= config.goroutines {
                    self.goroutines_since.remove(&pid);
                    return None;
                }
                if self.goroutines_since.len() >= MAX_PROCESSES {
                    self.goroutines_since.clear();
                }
                let since_ns = self.goroutines_since.entry(pid).or_insert(now_ns);
                if now_ns.saturating_sub(*since_ns) < nanos(config.goroutines_for) {
                    return None;
                }
                // Once for each time that it goes above.
                *since_ns = u64::MAX;
                let name = goroutines.process.as_deref().unwrap_or("?");
                Some(Trigger::new(
                    "goroutines",
                    format!(
                        "{name} ({pid}) has {} goroutines, more than {} for {:?}",
                        goroutines.total, config.goroutines, config.goroutines_for
                    ),
                ))
            }
            _ => None,
        }
    }

    /// Is what the model knows of now a reason?
    pub fn check(&mut self, model: &Model, config: &config::Triggers) -> Option<Trigger> {
        let held_up = |wait: &&crate::model::InProgress| !wait.event.kind.is_mostly_idle();
        let blocked = model.blocked().filter(held_up).count() as u64;
        if config.blocked == 0 || blocked <= config.blocked {
            self.blocked_since = None;
            return None;
        }
        let now_ns = model.now_ns();
        let since_ns = *self.blocked_since.get_or_insert(now_ns);
        if now_ns.saturating_sub(since_ns) < nanos(config.blocked_for) {
            return None;
        }
        self.blocked_since = Some(u64::MAX);
        Some(Trigger::new(
            "blocked",
            format!(
                "{blocked} tasks are blocked, more than {} for {:?}",
                config.blocked, config.blocked_for
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        agent::config::FindingLevel,
        event::{Finding, Severity},
        rules::testing::{goroutines, waiter},
        time::WallTime,
    };

    fn finding(severity: Severity) -> Event {
        Event::from(Finding {
            time: WallTime(0),
            mono_ns: 1,
            rule: "r".into(),
            severity,
            title: "t".into(),
            evidence: Vec::new(),
            advice: String::new(),
            subjects: Vec::new(),
        })
    }

    #[test]
    fn findings_by_severity() {
        let mut config = config::Triggers::default();
        let mut triggers = Triggers::default();
        for (level, expected) in [
            (FindingLevel::Off, [false, false, false]),
            (FindingLevel::Info, [true, true, true]),
            (FindingLevel::Warning, [false, true, true]),
            (FindingLevel::Critical, [false, false, true]),
        ] {
            config.finding = level;
            let found = [Severity::Info, Severity::Warning, Severity::Critical]
                .map(|severity| triggers.see(&finding(severity), &config).is_some());
            assert_eq!(found, expected, "{level:?}");
        }
    }

    #[test]
    fn goroutines_for_a_time() {
        let config = config::Triggers {
            goroutines: 10,
            goroutines_for: Duration::from_nanos(100),
            ..config::Triggers::default()
        };
        let mut triggers = Triggers::default();
        let fired: Vec<bool> = [(1, 11), (50, 11), (99, 9), (120, 11), (221, 12), (400, 12)]
            .into_iter()
            .map(|(mono_ns, total)| {
                let mut event = goroutines();
                (event.mono_ns, event.total) = (mono_ns, total);
                triggers.see(&Event::from(event), &config).is_some()
            })
            .collect();
        assert_eq!(fired, [false, false, false, false, true, false]);
    }

    #[test]
    fn blocked_for_a_time() {
        let config = config::Triggers {
            blocked: 1,
            blocked_for: Duration::from_nanos(100),
            ..config::Triggers::default()
        };
        let mut model = Model::default();
        let mut triggers = Triggers::default();
        let start = waiter(1).0.mono_ns;
        // The wall clock is set between the two, which is nothing to them.
        let mut first = waiter(1).0;
        first.time = WallTime(u64::MAX / 2);
        model.apply(Event::from(first));
        assert_eq!(triggers.check(&model, &config), None);
        model.apply(Event::from(waiter(2).0));
        assert_eq!(triggers.check(&model, &config), None);
        model.advance(start + 200);
        assert_eq!(triggers.check(&model, &config).unwrap().kind, "blocked");
        model.advance(start + 500);
        assert_eq!(triggers.check(&model, &config), None);
    }
}
