//! Goroutines wait at a channel that nobody else can reach.

use std::collections::HashMap;

use super::{Diagnosis, Rule, Thresholds, plural, process_name};
use crate::{
    event::{GoFrame, GoLostChannel, Goroutines, Severity, Subject},
    model::Model,
};

/// Channels named.
const NAMED: usize = 4;

/// A channel without anybody at its other end.
pub(super) struct LostChannel;

impl Rule for LostChannel {
    fn name(&self) -> &'static str {
        "channel_without_other_end"
    }

    fn advice(&self) -> &'static str {
        "These goroutines wait forever: give the channel room for one element, or have them wait for a cancellation \
         as well."
    }

    fn check(&mut self, model: &Model, _: &Thresholds) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        for all in model.goroutines() {
            // One mistake loses a channel each time: it is told once.
            let mut origins: HashMap<Option<&GoFrame>, Vec<&GoLostChannel>> = HashMap::new();
            for lost in &all.lost_channels {
                let origin = lost.created_by.as_deref();
                origins.entry(origin).or_default().push(lost);
            }
            let origins = origins.into_iter();
            found.extend(origins.map(|(origin, lost)| diagnose(all, origin, &lost)));
        }
        found
    }
}

fn diagnose(all: &Goroutines, origin: Option<&GoFrame>, lost: &[&GoLostChannel]) -> Diagnosis {
    let count: u64 = lost
        .iter()
        .fold(0, |sum, one| sum.saturating_add(one.waiters_now));
    let count = plural(usize::try_from(count).unwrap_or(usize::MAX), "goroutine");
    let channels = plural(lost.len(), "channel");
    let place = origin.map_or_else(String::new, |origin| format!(", started by {origin},"));
    let named = lost.iter().take(NAMED);
    let evidence = named.clone().map(|one| {
        let goids: Vec<String> = one.goids.iter().map(ToString::to_string).collect();
        format!(
            "goroutine {} at {} ({}: {})",
            goids.join(", "),
            one.lock,
            one.confidence.name(),
            one.evidence
        )
    });
    Diagnosis {
        key: format!("{}{place}", all.pid),
        severity: Severity::Warning,
        title: format!(
            "{count} of {}{place} at {channels} that nobody else can reach",
            process_name(all)
        ),
        evidence: evidence.collect(),
        subjects: std::iter::once(Subject::Process(all.pid))
            .chain(named.map(|one| Subject::Lock(one.lock.clone().into())))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::{Confidence, Event, LockClass};

    #[test]
    fn what_was_confirmed_is_told() {
        let mut all = goroutines();
        all.lost_channels.push(GoLostChannel {
            lock: lock(3, LockClass::GoChan),
            goids: vec![8],
            waiters_now: 1,
            created_by: None,
            confidence: Confidence::Likely,
            evidence: "nowhere".into(),
        });
        let mut another = all.lost_channels[0].clone();
        another.lock = lock(4, LockClass::GoChan);
        all.lost_channels.push(another);
        let found = LostChannel.check(&model(&[Event::from(all)]), &Thresholds::default());
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].title,
            "2 goroutines of process 1 server at 2 channels that nobody else can reach"
        );
    }
}
