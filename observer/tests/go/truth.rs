//! What a scene says of itself.

use std::collections::HashMap;

use observer::{
    event::Addr,
    runtimes::go::{Goroutine, Inventory},
};
use serde_json::Value;

/// What the program printed.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) goroutines: usize,
    goids: HashMap<String, u64>,
    addrs: HashMap<String, Addr>,
    facts: HashMap<String, i64>,
    /// By number, as `runtime.Stack` prints them.
    pub(crate) stacks: HashMap<u64, Printed>,
}

/// A goroutine in the words of `runtime.Stack`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) reason: String,
    /// Function, file and line, the innermost first.
    pub(crate) calls: Vec<(String, String, u32)>,
    pub(crate) created_by: Option<(String, String, u32)>,
    pub(crate) parent: Option<u64>,
    /// Calls were left out.
    pub(crate) cut: bool,
}

impl Truth {
    pub(crate) fn parse(line: &str) -> Truth {
        let said: Value = serde_json::from_str(line).unwrap();
        let map = |name: &str| said[name].as_object().unwrap().clone();
        let addr = |text: &Value| serde_json::from_value(text.clone()).unwrap();
        Truth {
            goroutines: said["goroutines"].as_u64().unwrap() as usize,
            goids: map("goids")
                .into_iter()
                .map(|(k, v)| (k, v.as_u64().unwrap()))
                .collect(),
            addrs: map("addrs")
                .into_iter()
                .map(|(k, v)| (k, addr(&v)))
                .collect(),
            facts: map("facts")
                .into_iter()
                .map(|(k, v)| (k, v.as_i64().unwrap()))
                .collect(),
            stacks: said["stacks"]
                .as_str()
                .unwrap()
                .split("\n\n")
                .filter_map(printed)
                .collect(),
        }
    }

    #[track_caller]
    pub(crate) fn goid(&self, name: &str) -> u64 {
        self.goids[name]
    }

    #[track_caller]
    pub(crate) fn addr(&self, name: &str) -> Addr {
        self.addrs[name]
    }

    #[track_caller]
    pub(crate) fn fact(&self, name: &str) -> i64 {
        self.facts[name]
    }

    /// The goroutine of this name.
    #[track_caller]
    pub(crate) fn of<'a>(&self, inventory: &'a Inventory, name: &str) -> &'a Goroutine {
        inventory.goroutine(self.goid(name)).unwrap()
    }
}

/// One goroutine of the text.
fn printed(text: &str) -> Option<(u64, Printed)> {
    let mut lines = text.lines();
    let (number, reason) = lines.next()?.strip_prefix("goroutine ")?.split_once(" [")?;
    // `[chan receive, 5 minutes, locked to thread]:`
    let reason = reason.trim_end_matches("]:").split(", ").next()?;
    let mut found = Printed {
        reason: reason.to_owned(),
        ..Printed::default()
    };
    while let Some(function) = lines.next() {
        if function.starts_with("...") {
            found.cut = true;
            continue;
        }
        let Some(place) = lines.next() else {
            // The buffer ended.
            found.cut = true;
            break;
        };
        let (file, line) = place.trim().split(" +0x").next()?.rsplit_once(':')?;
        let at = |name: &str| (name.to_owned(), file.to_owned(), line.parse().unwrap());
        if let Some(function) = function.strip_prefix("created by ") {
            let (name, parent) = match function.split_once(" in goroutine ") {
                Some((name, parent)) => (name, parent.parse().ok()),
                None => (function, None),
            };
            found.created_by = Some(at(name));
            found.parent = parent;
        } else {
            // The last parenthesis is that of the arguments: methods have one in their name.
            found.calls.push(at(&function[..function.rfind('(')?]));
        }
    }
    Some((number.parse().ok()?, found))
}
