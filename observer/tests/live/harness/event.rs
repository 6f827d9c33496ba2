//! Lines of output: are they what the schema says, and what is in them.

use std::sync::LazyLock;

use jsonschema::Validator;
use observer::event::{Event, schema};
use serde_json::Value;

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::to_value(schema()).unwrap();
    jsonschema::validator_for(&schema).expect("the schema is a valid one")
});

/// Reads a line: it has to be JSON, of the schema, and an event that is written as it was read.
pub(super) fn parse(line: &str) -> Result<Value, String> {
    let fault = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}\n{line}");
    let value: Value = serde_json::from_str(line).map_err(|e| fault("not JSON", &e))?;
    if let Err(error) = SCHEMA.validate(&value) {
        return Err(fault("not of the schema", &error));
    }
    let event: Event = serde_json::from_str(line).map_err(|e| fault("not an event", &e))?;
    let again = serde_json::to_value(&event).map_err(|e| fault("not writable", &e))?;
    if again != value {
        return Err(fault("not written as it was read", &again));
    }
    Ok(value)
}

/// The events of one type.
pub(crate) fn of<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["type"] == kind)
}

/// The waits of a thread that ended.
pub(crate) fn waits_of(events: &[Value], tid: u64) -> impl Iterator<Item = &Value> {
    of(events, "wait").filter(move |event| event["task"]["tid"] == tid)
}

/// Those of them that were for the lock at an address.
pub(crate) fn waits_on<'a>(
    events: &'a [Value],
    tid: u64,
    addr: &'a str,
) -> impl Iterator<Item = &'a Value> {
    waits_of(events, tid).filter(move |event| event["lock"]["addr"] == addr)
}

/// The latest totals of the lock at an address.
pub(crate) fn last_lock<'a>(events: &'a [Value], addr: &str) -> Option<&'a Value> {
    of(events, "lock")
        .filter(|event| event["lock"]["addr"] == addr)
        .last()
}

/// A number that has to be there.
#[track_caller]
pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name} in {value}"))
}

/// The sum of a number over events.
pub(crate) fn sum<'a>(events: impl Iterator<Item = &'a Value>, name: &str) -> u64 {
    events.map(|event| number(event, name)).sum()
}

/// As many waits as the workload counts, but for the few that never slept: a thread that is preempted
/// on its way to sleep and woken meanwhile only waited for a CPU.
#[track_caller]
pub(crate) fn assert_count(what: &str, observed: u64, measured: u64) {
    assert!(
        observed.abs_diff(measured) <= 2 + measured / 50,
        "{what}: observed {observed}, measured {measured}"
    );
}
