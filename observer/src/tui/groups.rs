//! Waits in progress that have something in common: their lock, their process or their stack.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{
    host::{Place, Places},
    list::Query,
    rows,
    runtimes::RuntimeKey,
};
use crate::{
    event::{Frame, Holder, Stack},
    model::{InProgress, Model},
};

/// What rows are put together by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Grouping {
    #[default]
    None,
    Lock,
    Process,
    Stack,
    Container,
    Pod,
}

impl Grouping {
    pub(super) const ALL: [Grouping; 6] = [
        Grouping::None,
        Grouping::Lock,
        Grouping::Process,
        Grouping::Stack,
        Grouping::Container,
        Grouping::Pod,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Grouping::None => "none",
            Grouping::Lock => "lock",
            Grouping::Process => "process",
            Grouping::Stack => "stack",
            Grouping::Container => "container",
            Grouping::Pod => "pod",
        }
    }

    /// The next one; by pod only where there are any.
    pub(super) fn next(self, pods: bool) -> Grouping {
        match self {
            Grouping::None => Grouping::Lock,
            Grouping::Lock => Grouping::Process,
            Grouping::Process => Grouping::Stack,
            Grouping::Stack => Grouping::Container,
            Grouping::Container if pods => Grouping::Pod,
            Grouping::Container | Grouping::Pod => Grouping::None,
        }
    }
}

/// What the waits of a group have in common; `None`: they have no lock, no stack or no place that is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum GroupKey {
    Lock(Option<Arc<str>>),
    Process(u32),
    Stack(Option<u64>),
    Container(Option<Place>),
    /// A part of a runtime: only from Runtimes.
    Runtime(RuntimeKey),
}

impl GroupKey {
    /// The group that a wait belongs to.
    pub(super) fn of(wait: &InProgress, grouping: Grouping, places: &Places) -> Option<GroupKey> {
        let event = &wait.event;
        match grouping {
            Grouping::None => None,
            Grouping::Lock => Some(GroupKey::Lock(
                event.lock.as_ref().map(|lock| Arc::clone(&lock.id)),
            )),
            Grouping::Process => Some(GroupKey::Process(event.task.pid)),
            Grouping::Stack => Some(GroupKey::Stack(event.stack.as_ref().and_then(hash))),
            Grouping::Container => Some(GroupKey::Container(places.of(event.task.pid).cloned())),
            Grouping::Pod => Some(GroupKey::Container(
                places.of(event.task.pid).map(Place::pod),
            )),
        }
    }

    /// Does a wait belong to this group?
    pub(super) fn holds(&self, wait: &InProgress, places: &Places) -> bool {
        match self {
            GroupKey::Runtime(key) => key.holds(&wait.event),
            _ => GroupKey::of(wait, self.grouping(), places).as_ref() == Some(self),
        }
    }

    fn grouping(&self) -> Grouping {
        match self {
            GroupKey::Runtime(_) => Grouping::None,
            GroupKey::Lock(_) => Grouping::Lock,
            GroupKey::Process(_) => Grouping::Process,
            GroupKey::Stack(_) => Grouping::Stack,
            GroupKey::Container(Some(Place::Pod(_))) => Grouping::Pod,
            GroupKey::Container(_) => Grouping::Container,
        }
    }
}

/// Threads with the same functions on their stacks wait at the same place, whatever their addresses.
pub(super) fn hash(stack: &Stack) -> Option<u64> {
    if stack.user.is_empty() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for frame in stack.user.iter() {
        match &frame.name {
            Some(name) => name.hash(&mut hasher),
            None => frame.addr.hash(&mut hasher),
        }
    }
    Some(hasher.finish())
}

/// Is the frame one of how a program waits, and not of why?
pub(super) fn is_machinery(frame: &Frame) -> bool {
    const PREFIXES: &[&str] = &[
        "__",
        "pthread_",
        "futex",
        "syscall",
        "std::",
        "core::",
        "alloc::",
        "<std::",
        "<core::",
        "<alloc::",
        "lll_",
        "clone",
        "start_thread",
        "rust_begin",
        "_start",
    ];
    frame
        .name
        .as_deref()
        .is_none_or(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// The program's own functions of a stack, innermost first.
pub(super) fn story(stack: &Stack, most: usize) -> Vec<&Frame> {
    let own = stack.user.iter().filter(|frame| !is_machinery(frame));
    let own: Vec<_> = own.take(most).collect();
    if own.is_empty() {
        stack.user.iter().take(most).collect()
    } else {
        own
    }
}

/// Waits in progress that belong together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) tasks: u64,
    /// All of its tasks are idle and folded away; where only some are, those do not count.
    folded: bool,
    /// The one that waits longest.
    pub(super) oldest: Arc<InProgress>,
    /// The holder, by the latest event that names one.
    pub(super) holder: Option<Holder>,
    /// Its tasks wait for several holders.
    pub(super) several: bool,
    matches: bool,
}

/// A group that is being put together, without copies.
struct Gathered<'a> {
    tasks: u64,
    folded: bool,
    oldest: &'a Arc<InProgress>,
    holder: Option<(&'a Holder, u64)>,
    several: bool,
    matches: bool,
}

/// All groups of a model, in no order.
pub(super) fn collect(
    model: &Model,
    grouping: Grouping,
    query: &Query,
    places: &Places,
) -> Vec<Group> {
    let filter = &query.filter;
    let mut groups: HashMap<GroupKey, Gathered<'_>> = HashMap::new();
    for wait in model.blocked_shared() {
        let Some(key) = GroupKey::of(wait, grouping, places) else {
            continue;
        };
        let group = groups.entry(key).or_insert(Gathered {
            tasks: 0,
            folded: true,
            oldest: wait,
            holder: None,
            several: false,
            matches: false,
        });
        let place = places.of(wait.event.task.pid);
        group.matches = group.matches
            || filter.is_empty()
            || rows::is_found(wait, filter)
            || place.is_some_and(|place| place.is_found(filter));
        if !query.show_idle && rows::is_idle(wait.event.kind) {
            continue;
        }
        group.tasks += 1;
        if group.folded || rows::tie(wait, group.oldest).is_lt() {
            group.oldest = wait;
        }
        group.folded = false;
        let at_ns = wait.event.mono_ns;
        if let Some(holder) = &wait.event.holder {
            let old = group.holder;
            // The holder of one lock may have changed since the older of the two looks.
            let other = old.is_some_and(|(old, _)| old.tid != holder.tid);
            group.several |= other && grouping != Grouping::Lock;
            if old.is_none_or(|(_, old_ns)| at_ns >= old_ns) {
                group.holder = Some((holder, at_ns));
            }
        }
    }
    let group = |(key, group): (GroupKey, Gathered<'_>)| Group {
        key,
        tasks: group.tasks,
        folded: group.folded,
        oldest: Arc::clone(group.oldest),
        holder: group.holder.map(|(holder, _)| holder.clone()),
        several: group.several,
        matches: group.matches,
    };
    groups.into_iter().map(group).collect()
}

impl Group {
    pub(super) fn is_folded(&self) -> bool {
        self.folded
    }

    pub(super) fn is_found(&self) -> bool {
        self.matches
    }
}
