//! From events to findings: the model is fed, and the rules are asked at moments that the stream itself names.
//!
//! A live run and a replay both come through here, so that they have the same findings.

use crate::{
    event::{Event, Finding},
    model::Model,
    rules::Rules,
};

/// Feeds the model. The rules are asked after each report of the cost, which comes at each interval, after
/// each deadlock and after each look at goroutines; returns what they say.
pub fn ask(model: &mut Model, rules: &mut Rules, event: Event) -> Vec<Finding> {
    let ask = matches!(
        event,
        Event::Cost(_) | Event::Deadlock(_) | Event::Goroutines(_)
    );
    model.apply(event);
    if ask { rules.check(model) } else { Vec::new() }
}

/// Feeds the model, appends the event to `out` and, after it, what the rules find, which the model takes too.
/// Returns how many findings there are.
pub fn feed(model: &mut Model, rules: &mut Rules, event: Event, out: &mut Vec<Event>) -> u64 {
    out.push(event.clone());
    let findings = ask(model, rules, event);
    let count = findings.len() as u64;
    for finding in findings {
        let finding = Event::from(finding);
        model.apply(finding.clone());
        out.push(finding);
    }
    count
}

/// The same for who wants the model, and not the events.
pub fn absorb(model: &mut Model, rules: &mut Rules, event: Event) -> u64 {
    let findings = ask(model, rules, event);
    let count = findings.len() as u64;
    for finding in findings {
        model.apply(Event::from(finding));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Cost, CostReport},
        record::snapshot,
        rules::testing::{NOW, SECOND, waiter},
        time::WallTime,
    };

    #[test]
    fn who_wants_no_events_has_the_same_model() {
        let (mut all, mut silent) = (Model::default(), Model::default());
        let (mut rules, mut silent_rules) = (Rules::default(), Rules::default());
        let mut events = vec![waiter(3).at(1).long(40).held_by(7, "in fsync").blocked()];
        for tid in 10..20 {
            events.push(waiter(tid).at(2).long(60).held_by(9, "running").blocked());
        }
        for second in 0..12 {
            events.push(Event::from(CostReport {
                time: WallTime(0),
                mono_ns: NOW + second * SECOND,
                cost: Cost::default(),
            }));
        }
        let mut out = Vec::new();
        let mut found = (0, 0);
        let count = events.len();
        for event in events {
            found.0 += feed(&mut all, &mut rules, event.clone(), &mut out);
            found.1 += absorb(&mut silent, &mut silent_rules, event);
        }
        assert!(found.0 > 0 && found.0 == found.1, "{found:?}");
        assert_eq!(out.len(), count + found.0 as usize);
        let lines = |model: &Model| -> Vec<String> {
            let mut lines: Vec<_> = snapshot(model)
                .iter()
                .map(|event| format!("{event:?}"))
                .collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(lines(&all), lines(&silent));
        let titles = |model: &Model| format!("{:?}", model.findings().collect::<Vec<_>>());
        assert_eq!(titles(&all), titles(&silent));
    }
}
