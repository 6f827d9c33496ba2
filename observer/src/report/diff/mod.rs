//! Two moments side by side: what appeared, what is gone, what is still there and older, what grew.

mod moment;
mod page;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

pub use self::moment::{FindingAt, GoGroup, HolderAt, LockAt, LockName, Moment, Source, TaskAt};

/// The beginnings of one wait as two files tell them differ by this at most, and by a hundredth of its age:
/// a dump takes time, and ages from the scheduler's account are told at times.
const SAME_START_NS: u64 = 100_000_000;

/// A wait that was there at both moments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Still {
    /// As it is now.
    #[serde(flatten)]
    pub now: TaskAt,
    /// How old it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_before_ns: Option<u64>,
    /// That age is a lower bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least_before: bool,
    /// The holder is another one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub other_holder: bool,
}

/// Something that is known at both moments, or at one of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair<T> {
    /// At the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<T>,
    /// At the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<T>,
}

/// Goroutines that wait at the same place at both moments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StillWaiting {
    /// Their group as it is now.
    #[serde(flatten)]
    pub now: GoGroup,
    /// Those that are known to have been there before; of a large group none may be.
    pub still: Vec<u64>,
    /// So much older they are.
    pub older_ns: u64,
}

/// What became of tasks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tasks {
    /// Only there at the second moment.
    pub appeared: Vec<TaskAt>,
    /// Only there at the first.
    pub vanished: Vec<TaskAt>,
    /// In the same wait at both: those for a lock first, the oldest first.
    pub still: Vec<Still>,
    /// At both, but not in the same wait: how many.
    pub moved_on: usize,
}

/// What became of findings.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// Only at the second moment.
    pub new: Vec<FindingAt>,
    /// Only at the first.
    pub gone: Vec<FindingAt>,
    /// At both.
    pub still: Vec<FindingAt>,
}

/// Two moments compared.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// The first.
    pub a: Moment,
    /// The second.
    pub b: Moment,
    /// The answer, in a few sentences.
    pub summary: Vec<String>,
    /// Tasks.
    pub tasks: Tasks,
    /// Groups of goroutines that are not the same, those that grew most first.
    pub goroutines: Vec<Pair<GoGroup>>,
    /// Goroutines that still wait where they did, most first. One that came back there looks the same.
    pub goroutines_still: Vec<StillWaiting>,
    /// Locks that are not waited for as much as before, those that grew most first.
    pub locks: Vec<Pair<LockAt>>,
    /// Diagnoses.
    pub findings: Findings,
    /// What makes the two hard to compare.
    pub notes: Vec<String>,
}

impl Diff {
    /// Compares two moments.
    pub fn of(mut a: Moment, mut b: Moment) -> Diff {
        let mut notes = Vec::new();
        notes.extend(order(&mut a, &mut b));
        notes.extend(hosts(&a, &b));
        notes.extend(same_processes(&mut a, &mut b));
        let mut diff = Diff {
            tasks: tasks(&a, &b),
            goroutines: goroutines(&a, &b),
            goroutines_still: goroutines_still(&a, &b),
            locks: locks(&a, &b),
            findings: findings(&a, &b),
            summary: Vec::new(),
            a,
            b,
            notes,
        };
        diff.summary = page::sentences(&diff);
        diff
    }

    /// Time from the first to the second.
    fn between_ns(&self) -> u64 {
        self.b.time.0.saturating_sub(self.a.time.0)
    }
}

/// The earlier one comes first.
fn order(a: &mut Moment, b: &mut Moment) -> Option<String> {
    if a.time <= b.time {
        return None;
    }
    std::mem::swap(a, b);
    Some(format!("{} is the earlier one: it stands first", a.file))
}

fn hosts(a: &Moment, b: &Moment) -> Option<String> {
    (a.host != b.host).then(|| {
        format!(
            "these are two hosts, {} and {}: process and thread numbers mean nothing together",
            a.host, b.host
        )
    })
}

/// If one of them saw only some processes, only these are compared; not so of two runs of a program.
fn same_processes(a: &mut Moment, b: &mut Moment) -> Vec<String> {
    let (of_a, of_b) = (a.pids().to_vec(), b.pids().to_vec());
    let apart = !of_a.is_empty() && !of_b.is_empty() && !of_a.iter().any(|pid| of_b.contains(pid));
    if apart {
        return vec![
            "these are different processes: locks are known again by their names".to_owned(),
        ];
    }
    let mut notes = Vec::new();
    for (pids, other) in [(of_a, &mut *b), (of_b, &mut *a)] {
        let more = other.pids().iter().any(|pid| !pids.contains(pid));
        if pids.is_empty() || !(more || other.pids().is_empty()) {
            continue;
        }
        let names: Vec<String> = pids.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "of {} only what is of process {} is compared: the other file has nothing else",
            other.file,
            names.join(", ")
        ));
        other.tasks.retain(|task| pids.contains(&task.task.pid));
        other.goroutines.retain(|group| pids.contains(&group.pid));
        other
            .locks
            .retain(|lock| lock.pid.is_none_or(|pid| pids.contains(&pid)));
    }
    notes
}

/// A thread is the same one if its process has not another name meanwhile: numbers are used again.
fn is_same_task(a: &TaskAt, b: &TaskAt) -> bool {
    let (a, b) = (&a.task, &b.task);
    a.process.is_none() || b.process.is_none() || a.process == b.process
}

fn tasks(a: &Moment, b: &Moment) -> Tasks {
    let between_ns = b.time.0.saturating_sub(a.time.0);
    let mut before: HashMap<(u32, u32), &TaskAt> = a
        .tasks
        .iter()
        .map(|task| ((task.task.pid, task.task.tid), task))
        .collect();
    let mut all = Tasks::default();
    for task in &b.tasks {
        let key = (task.task.pid, task.task.tid);
        let old = before.remove(&key);
        match old.filter(|old| is_same_task(old, task)) {
            Some(old) if is_same_wait(old, task, between_ns) => all.still.push(Still {
                now: task.clone(),
                age_before_ns: old.age_ns,
                at_least_before: old.at_least,
                other_holder: tid(old).zip(tid(task)).is_some_and(|(a, b)| a != b),
            }),
            Some(_) => all.moved_on += 1,
            None => {
                all.appeared.push(task.clone());
                all.vanished.extend(old.cloned());
            }
        }
    }
    all.vanished.extend(before.into_values().cloned());
    for list in [&mut all.appeared, &mut all.vanished] {
        list.sort_by_key(|task| (task.task.pid, task.task.tid));
    }
    all.still.sort_by_key(|one| {
        let now = &one.now;
        (
            now.lock.is_none(),
            std::cmp::Reverse(now.age_ns),
            now.task.tid,
        )
    });
    all
}

fn tid(task: &TaskAt) -> Option<u32> {
    task.holder.as_ref().and_then(|holder| holder.tid)
}

/// The same wait is one in the same place that began at the same time.
fn is_same_wait(old: &TaskAt, now: &TaskAt, between_ns: u64) -> bool {
    let id = |task: &TaskAt| task.lock.as_ref().map(|lock| Arc::clone(&lock.id));
    if old.kind.is_none() || old.kind != now.kind || id(old) != id(now) {
        return false;
    }
    match (old.age_ns, now.age_ns) {
        (Some(old_ns), Some(now_ns)) => {
            let expected_ns = old_ns.saturating_add(between_ns);
            let slack_ns = SAME_START_NS + expected_ns / 100;
            // A lower bound that grew is no contradiction.
            let is_bound = old.at_least || now.at_least;
            now_ns.abs_diff(expected_ns) <= slack_ns || (is_bound && now_ns >= between_ns)
        }
        // Without ages it cannot be told from the next wait at the same place.
        _ => false,
    }
}

/// Groups of both moments, by process, origin, place and state.
fn groups(a: &Moment, b: &Moment) -> Vec<Pair<GoGroup>> {
    pair(&a.goroutines, &b.goroutines, |group| {
        (
            group.pid,
            group.created_by.clone(),
            group.at.clone(),
            group.state.clone(),
        )
    })
}

/// Numbers of goroutines are never used again in a process.
fn goroutines_still(a: &Moment, b: &Moment) -> Vec<StillWaiting> {
    let older_ns = b.time.0.saturating_sub(a.time.0);
    let both = groups(a, b).into_iter();
    let both = both.filter_map(|pair| Some((pair.a?, pair.b?)));
    let still = both.filter_map(|(before, now)| {
        // Of many only some are named, and those may be others each time.
        let is_cut = |group: &GoGroup| group.count > group.goids.len() as u64;
        let is_unknown = is_cut(&before) || is_cut(&now);
        let were_there: HashSet<u64> = before.goids.iter().copied().collect();
        let mut still = now.goids.clone();
        still.retain(|goid| were_there.contains(goid));
        (now.waits && (is_unknown || !still.is_empty())).then_some(StillWaiting {
            now,
            still,
            older_ns,
        })
    });
    let mut still: Vec<StillWaiting> = still.collect();
    still.sort_by_key(|one| std::cmp::Reverse(one.now.count));
    still
}

fn goroutines(a: &Moment, b: &Moment) -> Vec<Pair<GoGroup>> {
    let mut pairs = groups(a, b);
    let count = |side: &Option<GoGroup>| side.as_ref().map_or(0, |group| i128::from(group.count));
    let growth = |pair: &Pair<GoGroup>| count(&pair.b) - count(&pair.a);
    pairs.retain(|pair| growth(pair) != 0);
    pairs.sort_by_key(|pair| std::cmp::Reverse(growth(pair)));
    pairs
}

/// A lock of a process that is not there at the other moment is known again by its name: programs are started
/// anew.
fn locks(a: &Moment, b: &Moment) -> Vec<Pair<LockAt>> {
    let ids = |moment: &Moment| -> HashSet<Arc<str>> {
        let ids = moment.locks.iter().map(|lock| Arc::clone(&lock.lock.id));
        ids.collect()
    };
    let (of_a, of_b) = (ids(a), ids(b));
    let key = |lock: &LockAt| {
        let id = &lock.lock.id;
        match (&lock.lock.name, &lock.process) {
            (Some(name), Some(process)) if !(of_a.contains(id) && of_b.contains(id)) => {
                format!("{process} {} {name}", lock.lock.class)
            }
            _ => id.to_string(),
        }
    };
    let mut pairs = pair(&a.locks, &b.locks, key);
    pairs.retain(|pair| growth(pair) != (0, 0));
    pairs.sort_by_key(|pair| std::cmp::Reverse(growth(pair)));
    pairs
}

/// By how much more a lock is waited for: tasks on average in thousandths, if both have counted; tasks now.
fn growth(pair: &Pair<LockAt>) -> (i64, i64) {
    let waiters =
        |side: &Option<LockAt>| side.as_ref().map_or(0, |lock| i64::from(lock.waiters_now));
    let now = waiters(&pair.b) - waiters(&pair.a);
    let waiting = |side: &Option<LockAt>| match side {
        None => Some(0.0),
        Some(lock) => lock.waiting,
    };
    match (waiting(&pair.a), waiting(&pair.b)) {
        (Some(a), Some(b)) => (((b - a) * 1e3) as i64, now),
        _ => (now * 1_000, now),
    }
}

/// Puts together what has the same key.
fn pair<T: Clone, K: Ord>(a: &[T], b: &[T], key: impl Fn(&T) -> K) -> Vec<Pair<T>> {
    let mut pairs: BTreeMap<K, Pair<T>> = BTreeMap::new();
    for one in a {
        let pair = Pair {
            a: Some(one.clone()),
            b: None,
        };
        pairs.insert(key(one), pair);
    }
    for one in b {
        let pair = pairs.entry(key(one)).or_insert(Pair { a: None, b: None });
        pair.b = Some(one.clone());
    }
    pairs.into_values().collect()
}

fn findings(a: &Moment, b: &Moment) -> Findings {
    let keys = |moment: &Moment| -> HashSet<String> {
        moment.findings.iter().map(|one| one.key.clone()).collect()
    };
    let (of_a, of_b) = (keys(a), keys(b));
    // The same may have been found more than once in a recording: the last is told.
    let last = |all: &[FindingAt], keep: &dyn Fn(&str) -> bool| -> Vec<FindingAt> {
        let mut latest: BTreeMap<&str, &FindingAt> = BTreeMap::new();
        for one in all.iter().filter(|one| keep(&one.key)) {
            latest.insert(&one.key, one);
        }
        let mut found: Vec<FindingAt> = latest.into_values().cloned().collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.severity));
        found
    };
    Findings {
        new: last(&b.findings, &|key| !of_a.contains(key)),
        gone: last(&a.findings, &|key| !of_b.contains(key)),
        still: last(&b.findings, &|key| of_a.contains(key)),
    }
}
