//! What the API answers: the model as JSON, elements shaped as their events.

use serde_json::{Value, json};

use crate::{
    event::{Blocked, Event},
    model::Model,
    record,
};

/// Waits in progress, the oldest first, with their age of now.
pub(super) fn blocked(model: &Model, limit: usize) -> String {
    let now_ns = model.now_ns();
    let mut all: Vec<_> = model.blocked().collect();
    all.sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
    let left_out = all.len().saturating_sub(limit);
    let all: Vec<Blocked> = all
        .into_iter()
        .take(limit)
        .map(|wait| Blocked {
            time: model.wall_time(),
            mono_ns: now_ns,
            age_ns: wait.age_ns(now_ns),
            ..wait.event.clone()
        })
        .collect();
    told(model, "blocked", json!(all), left_out)
}

/// Locks, those that were waited for longest first.
pub(super) fn locks(model: &Model, limit: usize) -> String {
    let now_ns = model.now_ns();
    let mut all: Vec<_> = model.locks().collect();
    all.sort_by_key(|lock| std::cmp::Reverse(lock.waited_ns(now_ns)));
    let left_out = all.len().saturating_sub(limit);
    let all: Vec<_> = all
        .into_iter()
        .take(limit)
        .map(|lock| &lock.totals)
        .collect();
    told(model, "locks", json!(all), left_out)
}

/// Findings and deadlocks, the latest first.
pub(super) fn findings(model: &Model, limit: usize) -> String {
    let all: Vec<_> = model.findings().rev().take(limit).collect();
    let left_out = model.findings().len().saturating_sub(limit);
    let mut value = object(model, left_out);
    value["findings"] = json!(all);
    value["deadlocks"] = json!(model.deadlocks().rev().take(limit).collect::<Vec<_>>());
    value.to_string()
}

/// The latest look at the goroutines of each Go process.
pub(super) fn goroutines(model: &Model) -> String {
    told(
        model,
        "goroutines",
        json!(model.goroutines().collect::<Vec<_>>()),
        0,
    )
}

/// All that is known, as the lines of a stream, `meta` first.
pub(super) fn snapshot(model: &Model) -> String {
    let goroutines = model.goroutines().cloned().map(Event::from);
    let lines = record::snapshot(model).into_iter().chain(goroutines);
    let lines: Vec<_> = lines
        .filter_map(|event| serde_json::to_string(&event).ok())
        .collect();
    lines.join("\n")
}

/// The `meta` event.
pub(super) fn meta(model: &Model) -> String {
    let meta = model.meta().cloned().map(crate::event::Event::from);
    serde_json::to_string(&meta).unwrap_or_default()
}

fn told(model: &Model, name: &str, all: Value, left_out: usize) -> String {
    let mut value = object(model, left_out);
    value[name] = all;
    value.to_string()
}

fn object(model: &Model, left_out: usize) -> Value {
    let mut value = json!({ "time": model.wall_time(), "mono_ns": model.now_ns() });
    if let Some(meta) = model.meta() {
        value["host"] = json!(meta.host);
    }
    if left_out > 0 {
        value["left_out"] = json!(left_out);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, rules::testing::waiter};

    #[test]
    fn lists_are_cut_and_say_so() {
        let mut model = Model::default();
        for tid in 1..=5 {
            model.apply(Event::from(waiter(tid).0));
        }
        model.advance(waiter(1).0.mono_ns + 7);
        let value: Value = serde_json::from_str(&blocked(&model, 2)).unwrap();
        assert_eq!(value["blocked"].as_array().unwrap().len(), 2);
        assert_eq!(value["left_out"], 3);
        assert_eq!(value["blocked"][0]["age_ns"], waiter(1).0.age_ns + 7);
        for text in [locks(&model, 10), findings(&model, 10), goroutines(&model)] {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value.get("left_out"), None);
        }
    }
}
