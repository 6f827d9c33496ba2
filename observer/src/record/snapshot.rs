//! What is known, as events: a recording that goes on in another file begins with it.

use crate::{event::Event, model::Model};

/// Events that make a model of the same state, but for waits that have ended.
pub fn snapshot(model: &Model) -> Vec<Event> {
    let mut events = Vec::new();
    events.extend(model.meta().cloned().map(Event::from));
    events.extend(model.tasks().cloned().map(Event::from));
    events.extend(model.locks().map(|lock| Event::from(lock.totals.clone())));
    events.extend(model.blocked().map(|wait| Event::from(wait.event.clone())));
    events.extend(model.deadlocks().cloned().map(Event::from));
    events.extend(model.findings().cloned().map(Event::from));
    events.extend(model.runtimes().cloned().map(Event::from));
    events.extend(model.budget().cloned().map(Event::from));
    events.extend(model.loss().cloned().map(Event::from));
    // `meta` stays first; the others come in the order of time.
    events.sort_by_key(|event| (!matches!(event, Event::Meta(_)), event.mono_ns()));
    events
}
