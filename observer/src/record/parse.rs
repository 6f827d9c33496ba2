//! A line becomes an event, also if a later version of observer wrote it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::quick::{self, Quick};
use crate::event::{Event, Kind, LockClass, Outcome, StackEnd};

/// How observer begins a line.
const HEAD: &[u8] = b"{\"type\":\"";

/// Reads what follows the type as an event of that type.
type Reader = fn(&[u8]) -> Option<Event>;

/// Every type of event, those that are many first.
const TYPES: [(&str, Reader); 14] = [
    ("wait", |body| often(body).map(Event::Wait)),
    ("lock", |body| often(body).map(Event::Lock)),
    ("task", |body| often(body).map(Event::Task)),
    ("blocked", |body| often(body).map(Event::Blocked)),
    ("goroutines", |body| read(body).map(Event::Goroutines)),
    ("finding", |body| read(body).map(Event::Finding)),
    ("deadlock", |body| read(body).map(Event::Deadlock)),
    ("runtime", |body| read(body).map(Event::Runtime)),
    ("attached", |body| read(body).map(Event::Attached)),
    ("loss", |body| read(body).map(Event::Loss)),
    ("cost", |body| read(body).map(Event::Cost)),
    ("budget", |body| read(body).map(Event::Budget)),
    ("meta", |body| read(body).map(Event::Meta)),
    ("end", |body| read(body).map(Event::End)),
];

/// What a line turned out to be.
#[derive(Debug)]
pub(super) enum Line {
    /// An event.
    Event(Event),
    /// An event in which a name was not known, and stands as what is nearest to it.
    Adapted(Event),
    /// An event of a type that is not known.
    Unknown(String),
    /// No event.
    Bad(serde_json::Error),
}

/// Reads a line.
pub(super) fn line(line: &mut [u8]) -> Line {
    if let Some(event) = as_written(line) {
        return Line::Event(event);
    }
    match serde_json::from_slice(line) {
        Ok(event) => Line::Event(event),
        Err(error) => foreign(line, error),
    }
}

/// The short way for lines as observer writes them, with the type first: its value decides how to read the
/// rest, which otherwise would have to be kept until the type is known.
fn as_written(line: &mut [u8]) -> Option<Event> {
    let name_end = HEAD.len() + memchr::memchr(b'"', line.strip_prefix(HEAD)?)?;
    let comma = name_end + 1;
    if *line.get(comma)? != b',' {
        return None;
    }
    // What follows the type is an object by itself, once it begins like one.
    line[comma] = b'{';
    let (head, body) = line.split_at(comma);
    let name = &head[HEAD.len()..name_end];
    let event = reader_of(name).and_then(|read| read(body));
    line[comma] = b',';
    event
}

/// `None`: no type of this version.
fn reader_of(name: &[u8]) -> Option<Reader> {
    let mut types = TYPES.iter();
    types
        .find(|(known, _)| known.as_bytes() == name)
        .map(|(_, read)| *read)
}

/// An event of a type of which there are many.
fn often<T: Quick + DeserializeOwned>(body: &[u8]) -> Option<T> {
    quick::read(body).or_else(|| read(body))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// A line that is no event of this version.
fn foreign(line: &[u8], error: serde_json::Error) -> Line {
    let Ok(mut value) = serde_json::from_slice::<Value>(line) else {
        return Line::Bad(error);
    };
    let Some(name) = value.get("type").and_then(Value::as_str) else {
        return Line::Bad(error);
    };
    if reader_of(name.as_bytes()).is_none() {
        return Line::Unknown(name.chars().take(32).collect());
    }
    adapt(&mut value);
    match serde_json::from_value(value) {
        Ok(event) => Line::Adapted(event),
        Err(_) => Line::Bad(error),
    }
}

/// Can a value be read as this?
fn knows<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Puts the nearest known name in the place of each that is not known; docs/events.md promises that names may
/// be added.
fn adapt(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(adapt),
        Value::Object(fields) => {
            adapt_fields(fields);
            fields.values_mut().for_each(adapt);
        }
        _ => {}
    }
}

fn adapt_fields(fields: &mut Map<String, Value>) {
    if let Some(kind) = fields.get_mut("kind")
        && kind.is_string()
        && !knows::<Kind>(kind)
    {
        *kind = "other".into();
    }
    if let Some(class) = fields.get_mut("class")
        && !knows::<LockClass>(class)
    {
        let kernel = class
            .as_str()
            .is_some_and(|name| name.starts_with("kernel_"));
        *class = if kernel { "kernel_lock" } else { "futex" }.into();
    }
    if fields
        .get("outcome")
        .is_some_and(|name| !knows::<Outcome>(name))
    {
        fields.remove("outcome");
    }
    if fields
        .get("end")
        .is_some_and(|name| !knows::<StackEnd>(name))
    {
        fields.remove("end");
    }
    if let Some(Value::Object(kinds)) = fields.get_mut("kinds") {
        kinds.retain(|name, _| knows::<Kind>(&Value::from(name.as_str())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_schema_is_read() {
        let schema = crate::event::schema().to_value();
        let types = schema["oneOf"].as_array().unwrap();
        assert_eq!(types.len(), TYPES.len());
        for one in types {
            let name = one["properties"]["type"]["const"].as_str().unwrap();
            assert!(reader_of(name.as_bytes()).is_some(), "{name}");
        }
    }
}
