//! Blocked time as a pprof profile: `contentions` and `delay`, as Go's block profile has them.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use prost::Message;

use super::{
    Folded,
    profile::{Function, Label, Line, Location, Profile, Sample, ValueType},
};
use crate::model::Model;

/// Strings by their place in the table.
pub(super) struct Strings {
    pub(super) all: Vec<String>,
    known: HashMap<String, i64>,
}

impl Strings {
    /// The format demands that the first string is empty.
    pub(super) fn new() -> Strings {
        Strings {
            all: vec![String::new()],
            known: HashMap::from([(String::new(), 0)]),
        }
    }

    /// The place of a string, which is put there if need be.
    pub(super) fn of(&mut self, text: &str) -> i64 {
        if let Some(&at) = self.known.get(text) {
            return at;
        }
        let at = self.all.len() as i64;
        self.all.push(text.to_owned());
        self.known.insert(text.to_owned(), at);
        at
    }
}

/// Writes the profile. It is not compressed: pprof reads both.
///
/// # Errors
/// The writer's.
pub fn write(out: &mut impl Write, folded: &Folded, model: &Model) -> io::Result<()> {
    out.write_all(&profile(folded, model).encode_to_vec())
}

fn profile(folded: &Folded, model: &Model) -> Profile {
    let mut strings = Strings::new();
    let mut types = Vec::new();
    for (name, unit) in [("contentions", "count"), ("delay", "nanoseconds")] {
        types.push(ValueType {
            r#type: strings.of(name),
            unit: strings.of(unit),
        });
    }
    let mut profile = Profile {
        default_sample_type: types.last().map_or(0, |last| last.r#type),
        sample_type: types,
        time_nanos: model.meta().map_or(0, |meta| meta.time.0 as i64),
        duration_nanos: model.elapsed_ns() as i64,
        ..Profile::default()
    };
    let mut places: HashMap<&str, u64> = HashMap::new();
    for (names, weight) in folded.stacks() {
        // Process and thread are labels and not frames: pprof has its own way to group by them.
        let split = names.len().min(2);
        let (who, frames) = names.split_at(split);
        let frames = if frames.is_empty() { who } else { frames };
        let mut ids = Vec::with_capacity(frames.len());
        for name in frames.iter().rev() {
            let next = places.len() as u64 + 1;
            let id = *places.entry(name).or_insert(next);
            if id == next {
                let name = strings.of(name);
                profile.function.push(Function {
                    id,
                    name,
                    system_name: name,
                    filename: 0,
                });
                profile.location.push(Location {
                    id,
                    address: 0,
                    line: vec![Line {
                        function_id: id,
                        line: 0,
                    }],
                });
            }
            ids.push(id);
        }
        let labels = ["process", "thread"].into_iter().zip(who);
        profile.sample.push(Sample {
            location_id: ids,
            value: vec![weight.waits as i64, weight.total_ns as i64],
            label: labels
                .map(|(key, value)| Label {
                    key: strings.of(key),
                    str: strings.of(value),
                })
                .collect(),
        });
    }
    profile.string_table = strings.all;
    profile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{model, waiter};

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let model = model(&[
            waiter(10).at(1).long(5).blocked(),
            waiter(11).at(1).long(9).blocked(),
        ]);
        let mut folded = Folded::new(false);
        folded.finish(&model);
        let mut bytes = Vec::new();
        write(&mut bytes, &folded, &model).unwrap();
        let profile = Profile::decode(&*bytes).unwrap();
        assert_eq!(profile.string_table[0], "");
        assert_eq!(profile.sample.len(), 2);
        let total: i64 = profile.sample.iter().map(|sample| sample.value[1]).sum();
        assert_eq!(total, 14_000_000_000);
        let used = profile.sample.iter().flat_map(|sample| &sample.location_id);
        for id in used {
            assert!(profile.location.iter().any(|place| place.id == *id));
        }
    }
}
