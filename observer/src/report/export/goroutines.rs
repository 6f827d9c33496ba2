//! Goroutines as a pprof profile, as `/debug/pprof/goroutine` has it: how many are at each stack.
//!
//! The runtime's own are left out, as there. One that runs has no stack that could be read, and stands in the
//! function that it began with.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    sync::Arc,
};

use prost::Message;

use super::{
    pprof::Strings,
    profile::{Function, Label, Line, Location, Profile, Sample, ValueType},
};
use crate::{
    runtimes::go::{GoFrame, GoStack, Goroutine, Inventory},
    time::WallTime,
};

/// Frame of a goroutine whose stack could not be read, because it runs.
const RUNNING: &str = "[running]";

/// Goroutines that a profile has in one sample: the same stack, labels, state and reason. Stacks are
/// shared, so their addresses are enough.
type Key<'a> = (
    *const GoStack,
    &'a BTreeMap<String, String>,
    &'static str,
    Option<&'a str>,
    Option<&'a str>,
);

/// A profile that is being put together.
struct Writer {
    strings: Strings,
    profile: Profile,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u32, Vec<Call>), u64>,
}

/// What makes a location: its address, and function and line of each call there.
type Call = (u64, u64, i64);

/// Writes the goroutines of these processes. Of more than one, each sample has its process as a label.
///
/// # Errors
/// The writer's.
pub fn write(out: &mut impl Write, all: &[Inventory], time: WallTime) -> io::Result<()> {
    let mut writer = Writer {
        strings: Strings::new(),
        profile: Profile::default(),
        functions: HashMap::new(),
        locations: HashMap::new(),
    };
    let goroutine = writer.strings.of("goroutine");
    let count = writer.strings.of("count");
    let kind = ValueType {
        r#type: goroutine,
        unit: count,
    };
    writer.profile.sample_type.push(kind.clone());
    writer.profile.period_type = Some(kind);
    writer.profile.period = 1;
    writer.profile.default_sample_type = goroutine;
    writer.profile.time_nanos = time.0 as i64;
    for inventory in all {
        writer.process(inventory, all.len() > 1);
    }
    writer.profile.string_table = writer.strings.all;
    out.write_all(&writer.profile.encode_to_vec())
}

impl Writer {
    fn process(&mut self, inventory: &Inventory, named: bool) {
        if inventory.torn + inventory.left_out > 0 {
            let text = format!(
                "process {}: {} goroutines changed while they were read, {} were beyond the limits: not counted",
                inventory.pid, inventory.torn, inventory.left_out
            );
            let text = self.strings.of(&text);
            self.profile.comment.push(text);
        }
        let mut counts: HashMap<Key<'_>, (&Goroutine, i64)> = HashMap::new();
        for goroutine in inventory.goroutines.iter().filter(|one| !one.system) {
            let is_empty = goroutine.stack.frames.is_empty();
            let key = (
                Arc::as_ptr(&goroutine.stack),
                &*goroutine.labels,
                goroutine.state.name(),
                goroutine.wait_reason.as_deref(),
                goroutine.entry.as_deref().filter(|_| is_empty),
            );
            counts.entry(key).or_insert((goroutine, 0)).1 += 1;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_by_key(|(goroutine, count)| (std::cmp::Reverse(*count), goroutine.goid));
        for (goroutine, count) in counts {
            let mut labels = labels(goroutine);
            if named {
                labels.push(("process", inventory.pid.to_string()));
            }
            let label = labels.into_iter().map(|(key, value)| Label {
                key: self.strings.of(key),
                str: self.strings.of(&value),
            });
            let label = label.collect();
            let location_id = self.stack(inventory.pid, goroutine);
            self.profile.sample.push(Sample {
                location_id,
                value: vec![count],
                label,
            });
        }
    }

    /// Places of a goroutine's calls.
    fn stack(&mut self, pid: u32, goroutine: &Goroutine) -> Vec<u64> {
        let frames = &goroutine.stack.frames;
        if frames.is_empty() {
            let entry = goroutine.entry.as_deref();
            let names = [Some(RUNNING), entry].into_iter().flatten();
            let names: Vec<String> = names.map(str::to_owned).collect();
            return names
                .iter()
                .map(|name| {
                    let function = self.function(name, "");
                    self.location(pid, vec![(0, function, 0)])
                })
                .collect();
        }
        let mut ids = Vec::new();
        let mut lines = Vec::new();
        for (i, frame) in frames.iter().enumerate() {
            let function = self.function(&frame.function, frame.file.as_deref().unwrap_or(""));
            let line = frame.line.map_or(0, i64::from);
            lines.push((frame.addr.0, function, line));
            // What was inlined is at the place that it was inlined into.
            let next: Option<&Arc<GoFrame>> = frames.get(i + 1);
            let goes_on = frame.inlined && next.is_some_and(|next| next.addr == frame.addr);
            if !goes_on {
                ids.push(self.location(pid, std::mem::take(&mut lines)));
            }
        }
        ids
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.strings.of(name), self.strings.of(file));
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            self.profile.function.push(Function {
                id,
                name,
                system_name: name,
                filename,
            });
        }
        id
    }

    fn location(&mut self, pid: u32, lines: Vec<Call>) -> u64 {
        let next = self.locations.len() as u64 + 1;
        let address = lines.first().map_or(0, |line| line.0);
        let calls = lines.iter().map(|(_, function_id, line)| Line {
            function_id: *function_id,
            line: *line,
        });
        let line = calls.collect();
        let id = *self.locations.entry((pid, lines)).or_insert(next);
        if id == next {
            let place = Location { id, address, line };
            self.profile.location.push(place);
        }
        id
    }
}

/// The program's own labels, and what is known beside them.
fn labels(goroutine: &Goroutine) -> Vec<(&str, String)> {
    let own = goroutine.labels.iter();
    let mut labels: Vec<(&str, String)> = own
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    let reason = goroutine.wait_reason.as_deref().unwrap_or_default();
    for (key, value) in [("state", goroutine.state.name()), ("wait_reason", reason)] {
        if !value.is_empty() && !goroutine.labels.contains_key(key) {
            labels.push((key, value.to_owned()));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Addr, runtimes::go::State};

    fn frame(function: &str, addr: u64, inlined: bool) -> Arc<GoFrame> {
        Arc::new(GoFrame {
            function: function.into(),
            file: Some("main.go".into()),
            line: Some(7),
            inlined,
            addr: Addr(addr),
        })
    }

    fn goroutine(goid: u64, stack: &Arc<GoStack>, system: bool) -> Goroutine {
        Goroutine {
            goid,
            state: State::Waiting,
            wait_reason: Some("chan receive".into()),
            created_by: None,
            parent_goid: None,
            entry: Some("main.start".into()),
            stack: Arc::clone(stack),
            labels: Arc::default(),
            tid: None,
            locked_to_thread: false,
            system,
            waits_for: Vec::new(),
            first_seen_ns: None,
            waiting_since_ns: None,
        }
    }

    #[test]
    fn goroutines_are_counted_by_stack() {
        let stack = Arc::new(GoStack {
            frames: vec![
                frame("a", 1, true),
                frame("b", 1, false),
                frame("c", 2, false),
            ],
            cut: false,
        });
        let mut running = goroutine(9, &Arc::default(), false);
        running.state = State::Running;
        running.wait_reason = None;
        let inventory = Inventory {
            goroutines: vec![
                goroutine(1, &stack, false),
                goroutine(2, &stack, false),
                goroutine(3, &stack, true),
                running,
            ],
            torn: 1,
            ..Inventory::default()
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &[inventory], WallTime(5)).unwrap();
        let profile = Profile::decode(&*bytes).unwrap();
        assert_eq!(profile.time_nanos, 5);
        assert_eq!(profile.comment.len(), 1);
        let counts: Vec<i64> = profile.sample.iter().map(|one| one.value[0]).collect();
        assert_eq!(counts, [2, 1]);
        // Two calls at one address are one location.
        assert_eq!(profile.sample[0].location_id.len(), 2);
        let inner = &profile.location[profile.sample[0].location_id[0] as usize - 1];
        assert_eq!((inner.address, inner.line.len()), (1, 2));
        let name = |id: u64| {
            let function = &profile.function[id as usize - 1];
            profile.string_table[function.name as usize].as_str()
        };
        assert_eq!(name(inner.line[0].function_id), "a");
        let of_running = &profile.sample[1].location_id;
        let of_running: Vec<&str> = of_running
            .iter()
            .map(|id| name(profile.location[*id as usize - 1].line[0].function_id))
            .collect();
        assert_eq!(of_running, [RUNNING, "main.start"]);
    }
}
