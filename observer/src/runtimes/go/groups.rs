//! Goroutines that are alike, counted: the first look at a process with thousands of them.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;

use super::inventory::{GoFrame, GoStack, Inventory, State};

/// Goroutines named of one group.
const MAX_NAMED: usize = 8;

/// Goroutines with the same state, reason, origin and calls.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// How many.
    pub count: usize,
    /// What they do.
    pub state: State,
    /// Why they wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_reason: Option<Arc<str>>,
    /// Where they were started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Arc<GoFrame>>,
    /// Their calls, the innermost first.
    #[serde(flatten)]
    pub stack: Arc<GoStack>,
    /// They belong to the runtime.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// The age of the oldest, at least, in nanoseconds. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ns: Option<u64>,
    /// Some of them, those with the lowest numbers.
    pub goids: Vec<u64>,
    /// All of them, as places in [`Inventory::goroutines`].
    #[serde(skip)]
    pub members: Vec<usize>,
}

/// Values that are shared by address, and equal by content.
struct Shared<'a, T> {
    by_address: HashMap<*const T, usize>,
    by_content: HashMap<&'a T, usize>,
}

impl<'a, T: Eq + std::hash::Hash> Shared<'a, T> {
    fn new() -> Self {
        Shared {
            by_address: HashMap::new(),
            by_content: HashMap::new(),
        }
    }

    /// The number of a value. What is at one address is looked at once.
    fn number(&mut self, value: &'a Arc<T>) -> usize {
        let by_content = &mut self.by_content;
        *self
            .by_address
            .entry(Arc::as_ptr(value))
            .or_insert_with(|| {
                let next = by_content.len();
                *by_content.entry(value).or_insert(next)
            })
    }
}

impl Inventory {
    /// The goroutines in groups, the largest first.
    pub fn groups(&self) -> Vec<Group> {
        let mut stacks = Shared::new();
        let mut origins = Shared::new();
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for (i, goroutine) in self.goroutines.iter().enumerate() {
            let key = (
                goroutine.state,
                goroutine.system,
                goroutine.wait_reason.as_deref(),
                goroutine
                    .created_by
                    .as_ref()
                    .map(|frame| origins.number(frame)),
                stacks.number(&goroutine.stack),
            );
            let place = *places.entry(key).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Group {
                    count: 0,
                    state: goroutine.state,
                    wait_reason: goroutine.wait_reason.clone(),
                    created_by: goroutine.created_by.clone(),
                    stack: Arc::clone(&goroutine.stack),
                    system: goroutine.system,
                    oldest_ns: None,
                    goids: Vec::new(),
                    members: Vec::new(),
                });
            }
            let group = &mut groups[place];
            group.count += 1;
            group.members.push(i);
            if group.goids.len() < MAX_NAMED {
                group.goids.push(goroutine.goid);
            }
            let age = goroutine
                .first_seen_ns
                .map(|first| self.mono_ns.saturating_sub(first));
            group.oldest_ns = group.oldest_ns.max(age);
        }
        groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.goids.first().copied()));
        groups
    }
}
