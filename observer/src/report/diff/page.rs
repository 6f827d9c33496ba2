//! The comparison for people: the answer, then the two moments side by side, then what changed.

use std::collections::BTreeMap;

use super::{Diff, FindingAt, GoGroup, LockAt, LockName, Moment, Source, Still, TaskAt};
use crate::{
    event::Kind,
    report::document::{Block, Document, Section},
    text::cut,
    time::human,
};

/// Rows of a table.
const ROWS: usize = 20;
/// Of the name of a lock.
const COLUMNS: usize = 60;

impl Diff {
    /// As headings, sentences and tables.
    pub fn document(&self) -> Document {
        let mut sections = vec![
            section("Side by side", side_by_side(self)),
            section("New findings", findings(&self.findings.new)),
            section("Findings that are gone", findings(&self.findings.gone)),
            section(
                "Findings that are still there",
                findings(&self.findings.still),
            ),
            section("Still in the same wait, and older", still(self)),
            section("Tasks that appeared", groups(&self.tasks.appeared)),
            section("Tasks that are gone", groups(&self.tasks.vanished)),
            section("Locks", locks(self)),
        ];
        if !(self.a.goroutines.is_empty() && self.b.goroutines.is_empty()) {
            sections.push(section("Goroutines", goroutines(self)));
            let still = goroutines_still(self);
            sections.push(section(
                "Goroutines that still wait at the same place",
                still,
            ));
        }
        let mut facts = Vec::new();
        for (side, moment) in [("A", &self.a), ("B", &self.b)] {
            let notes = moment.notes.iter();
            facts.extend(notes.map(|note| format!("{side} ({}): {note}", moment.file)));
        }
        facts.extend(self.notes.iter().cloned());
        Document {
            title: "What changed".to_owned(),
            facts,
            summary: self.summary.clone(),
            sections,
        }
    }
}

/// The answer, in up to four sentences.
pub(super) fn sentences(diff: &Diff) -> Vec<String> {
    let mut all = vec![about_findings(diff)];
    all.extend(about_waits(diff));
    all.extend(about_locks(diff));
    all.extend(about_goroutines(diff));
    all
}

fn about_findings(diff: &Diff) -> String {
    let after = human(diff.between_ns());
    let found = &diff.findings;
    let count = |count: usize, what: &str| match count {
        1 => format!("one finding is {what}"),
        count => format!("{count} findings are {what}"),
    };
    let mut parts = Vec::new();
    if let Some(first) = found.new.first() {
        parts.push(format!(
            "{} ({}: {})",
            count(found.new.len(), "new"),
            first.severity.name(),
            first.title
        ));
    }
    if !found.gone.is_empty() {
        parts.push(count(found.gone.len(), "gone"));
    }
    if !found.still.is_empty() {
        parts.push(count(found.still.len(), "still there"));
    }
    if parts.is_empty() {
        return format!("After {after} there are no findings, as before.");
    }
    format!("After {after} {}.", parts.join(", "))
}

/// A wait for work is no news.
fn is_held_up(task: &TaskAt) -> bool {
    let idle = [Kind::Poll, Kind::Sleep, Kind::Child, Kind::Condvar];
    task.kind
        .as_deref()
        .is_some_and(|kind| !idle.iter().any(|idle| idle.name() == kind))
}

fn about_waits(diff: &Diff) -> Option<String> {
    let held: Vec<&Still> = diff
        .tasks
        .still
        .iter()
        .filter(|one| is_held_up(&one.now))
        .collect();
    let first = held.first()?;
    let age = first.now.age_ns.map_or_else(|| "?".to_owned(), human);
    let least = if first.now.at_least { "at least " } else { "" };
    let who = if held.len() == 1 {
        "One task is".to_owned()
    } else {
        format!("{} tasks are", held.len())
    };
    let of_locks = held.iter().filter(|one| one.now.lock.is_some()).count();
    let which = match of_locks {
        0 => "the longest",
        count if count == held.len() => "the longest",
        1 => "one of them for a lock:",
        _ => &format!("{of_locks} of them for a lock, of these the longest"),
    };
    Some(format!(
        "{who} still in the same wait, {which} {}, {}, for {least}{age}.",
        first.now.task,
        waits_in(&first.now)
    ))
}

fn about_locks(diff: &Diff) -> Option<String> {
    let grown = diff.locks.iter().find(|pair| super::growth(pair).0 > 0)?;
    let name = grown.b.as_ref()?;
    Some(format!(
        "The lock that grew most is {}: {}.",
        lock_name(&name.lock),
        match (grown.a.as_ref(), name.waiting) {
            (
                Some(LockAt {
                    waiting: Some(a), ..
                }),
                Some(b),
            ) => format!("{b:.2} tasks waited for it on average, {a:.2} before"),
            (None, Some(b)) => format!("{b:.2} tasks waited for it on average, none before"),
            (a, _) => format!(
                "{} tasks wait for it, {} before",
                name.waiters_now,
                a.map_or(0, |a| a.waiters_now)
            ),
        }
    ))
}

fn about_goroutines(diff: &Diff) -> Option<String> {
    let count = |side: &Option<GoGroup>| side.as_ref().map_or(0, |group| group.count);
    let first = diff.goroutines.first()?;
    let (a, b) = (count(&first.a), count(&first.b));
    let group = first.b.as_ref().filter(|_| b > a)?;
    Some(format!(
        "Goroutines in {} grew most: {b}, {a} before, started by {}.",
        group.at, group.created_by
    ))
}

fn section(title: &str, blocks: Vec<Block>) -> Section {
    let blocks = if blocks.is_empty() {
        vec![Block::Text("None.".to_owned())]
    } else {
        blocks
    };
    Section {
        title: title.to_owned(),
        blocks,
    }
}

fn side_by_side(diff: &Diff) -> Vec<Block> {
    let row = |what: &str, of: &dyn Fn(&Moment) -> String| {
        vec![what.to_owned(), of(&diff.a), of(&diff.b)]
    };
    let blocked = |moment: &Moment| moment.tasks.iter().filter(|task| is_held_up(task)).count();
    let rows = vec![
        row("file", &|one| one.file.clone()),
        row("is", &|one| match (one.source, one.observed_ns) {
            (Source::Dump, _) => "a dump".to_owned(),
            (Source::Report, ns) => {
                format!("a report of {}", ns.map_or_else(|| "?".to_owned(), human))
            }
            (Source::Recording, ns) => {
                format!(
                    "a recording of {}",
                    ns.map_or_else(|| "?".to_owned(), human)
                )
            }
        }),
        row("host", &|one| format!("{}, Linux {}", one.host, one.kernel)),
        row("time", &|one| one.time.to_string()),
        row("tasks known", &|one| one.tasks.len().to_string()),
        row("held up", &|one| blocked(one).to_string()),
        row("longest", &|one| {
            let held = one.tasks.iter().filter(|task| is_held_up(task));
            let longest = held.filter_map(|task| task.age_ns).max();
            longest.map_or_else(|| "-".to_owned(), human)
        }),
        row("locks waited for now", &|one| {
            let waited = one.locks.iter().filter(|lock| lock.waiters_now > 0);
            waited.count().to_string()
        }),
        row("goroutines", &|one| {
            let groups = one.goroutines.iter();
            let count = groups.fold(0, |sum: u64, group| sum.saturating_add(group.count));
            count.to_string()
        }),
        row("findings", &|one| one.findings.len().to_string()),
        row("lost", &|one| {
            one.lost
                .map_or_else(|| "?".to_owned(), |lost| lost.to_string())
        }),
    ];
    vec![Block::Table(vec!["", "A", "B"], rows)]
}

fn findings(all: &[FindingAt]) -> Vec<Block> {
    let lines = all
        .iter()
        .take(ROWS)
        .map(|one| format!("{} ({}): {}", one.severity.name(), one.rule, one.title));
    let mut blocks = Vec::new();
    if !all.is_empty() {
        blocks.push(Block::List(lines.collect()));
    }
    more(&mut blocks, all.len());
    blocks
}

fn process(task: &TaskAt) -> String {
    match &task.task.process {
        Some(name) => format!("{name} {}", task.task.pid),
        None => task.task.pid.to_string(),
    }
}

fn age(ns: Option<u64>, at_least: bool) -> String {
    let least = if at_least { "≥" } else { "" };
    ns.map_or_else(|| "?".to_owned(), |ns| format!("{least}{}", human(ns)))
}

/// Its name, which may be that of a function of any length.
fn lock_name(lock: &LockName) -> String {
    cut(&lock.to_string(), COLUMNS, "…").into_owned()
}

/// What a task waits in, in words.
fn waits_in(task: &TaskAt) -> String {
    match (&task.lock, &task.syscall, &task.kind) {
        (Some(lock), _, _) => format!("waiting for {}", lock_name(lock)),
        (None, Some(call), _) => format!("in {call}"),
        (None, None, Some(kind)) => format!("in {kind}"),
        (None, None, None) => "no long wait".to_owned(),
    }
}

fn still(diff: &Diff) -> Vec<Block> {
    let held: Vec<&Still> = diff
        .tasks
        .still
        .iter()
        .filter(|one| is_held_up(&one.now))
        .collect();
    let idle = diff.tasks.still.len() - held.len();
    let mut blocks = Vec::new();
    if !held.is_empty() {
        let rows = held.iter().take(ROWS).map(|one| {
            let task = &one.now;
            let holder = task.holder.as_ref().and_then(|holder| {
                let name = holder.comm.as_deref().unwrap_or("?");
                Some(format!(
                    "{name}/{} ({})",
                    holder.tid?,
                    holder.confidence.name()
                ))
            });
            let other = if one.other_holder {
                ", another one"
            } else {
                ""
            };
            vec![
                task.task.to_string(),
                process(task),
                age(one.age_before_ns, one.at_least_before),
                age(task.age_ns, task.at_least),
                waits_in(task),
                holder.map_or_else(|| "-".to_owned(), |holder| format!("{holder}{other}")),
            ]
        });
        let head = vec!["task", "process", ">age A", ">age B", "waits", "holder"];
        blocks.push(Block::Table(head, rows.collect()));
    }
    more(&mut blocks, held.len());
    blocks.push(Block::Text(format!(
        "Idle in the same wait: {idle}. In both, and not in the same wait: {}.",
        diff.tasks.moved_on
    )));
    blocks
}

/// Tasks of one process that wait for the same.
fn groups(tasks: &[TaskAt]) -> Vec<Block> {
    let mut groups: BTreeMap<(String, String), (usize, Vec<String>)> = BTreeMap::new();
    for task in tasks {
        let (count, names) = groups.entry((process(task), waits_in(task))).or_default();
        *count += 1;
        if names.len() < 3 {
            names.push(task.task.to_string());
        }
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<_> = groups.into_iter().collect();
    rows.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let count = rows.len();
    let rows = rows
        .into_iter()
        .take(ROWS)
        .map(|((process, waits), (count, names))| {
            let more = if count > names.len() { ", …" } else { "" };
            let names = format!("{}{more}", names.join(", "));
            vec![count.to_string(), process, waits, names]
        });
    let head = vec![">tasks", "process", "doing", "for example"];
    let mut blocks = vec![Block::Table(head, rows.collect())];
    more(&mut blocks, count);
    blocks
}

/// What a column says of a lock.
type Cell<'a> = &'a dyn Fn(&LockAt) -> Option<String>;

fn locks(diff: &Diff) -> Vec<Block> {
    if diff.locks.is_empty() {
        return Vec::new();
    }
    let rows = diff.locks.iter().take(ROWS).map(|pair| {
        let either = pair.b.as_ref().or(pair.a.as_ref());
        let cell = |side: &Option<LockAt>, of: Cell<'_>| {
            let known = side.as_ref().map(of);
            known.map_or_else(
                || "-".to_owned(),
                |known| known.unwrap_or_else(|| "?".to_owned()),
            )
        };
        let mut row = vec![
            either.map_or_else(String::new, |lock| lock_name(&lock.lock)),
            either
                .and_then(|lock| lock.process.as_deref())
                .unwrap_or("-")
                .to_owned(),
        ];
        let columns: [Cell<'_>; 3] = [
            &|lock| Some(lock.waiters_now.to_string()),
            &|lock| lock.waiting.map(|waiting| format!("{waiting:.2}")),
            &|lock| lock.waits.map(|waits| waits.to_string()),
        ];
        for of in columns {
            row.extend([cell(&pair.a, of), cell(&pair.b, of)]);
        }
        row
    });
    let head = vec![
        "lock",
        "process",
        ">now A",
        ">now B",
        ">average A",
        ">average B",
        ">waits A",
        ">waits B",
    ];
    let mut blocks = vec![Block::Table(head, rows.collect())];
    more(&mut blocks, diff.locks.len());
    blocks.push(Block::Text(
        "Now: tasks that wait for it. Average: tasks that waited for it, over the time observed."
            .to_owned(),
    ));
    blocks
}

/// Goroutines named of a group.
const NAMED: usize = 4;

fn goroutines_still(diff: &Diff) -> Vec<Block> {
    let rows = diff.goroutines_still.iter().take(ROWS).map(|one| {
        let group = &one.now;
        let named: Vec<String> = one
            .still
            .iter()
            .take(NAMED)
            .map(ToString::to_string)
            .collect();
        vec![
            group.count.to_string(),
            if named.is_empty() {
                "which is not known".to_owned()
            } else {
                named.join(" ")
            },
            human(one.older_ns),
            group.pid.to_string(),
            group.state.clone(),
            group.at.clone(),
            group.created_by.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let head = vec![
        ">B",
        "still there",
        ">older by",
        "process",
        "state",
        "at",
        "started by",
    ];
    let mut blocks = vec![Block::Table(head, rows)];
    more(&mut blocks, diff.goroutines_still.len());
    blocks
}

fn goroutines(diff: &Diff) -> Vec<Block> {
    if diff.goroutines.is_empty() {
        return Vec::new();
    }
    let count = |side: &Option<GoGroup>| side.as_ref().map_or(0, |group| group.count).to_string();
    let rows = diff.goroutines.iter().take(ROWS).filter_map(|pair| {
        let group = pair.b.as_ref().or(pair.a.as_ref())?;
        let oldest = group.oldest_ns.map_or_else(|| "-".to_owned(), human);
        Some(vec![
            count(&pair.a),
            count(&pair.b),
            oldest,
            group.pid.to_string(),
            group.state.clone(),
            group.at.clone(),
            group.created_by.clone(),
        ])
    });
    let head = vec![
        ">A",
        ">B",
        ">oldest",
        "process",
        "state",
        "at",
        "started by",
    ];
    let mut blocks = vec![Block::Table(head, rows.collect())];
    more(&mut blocks, diff.goroutines.len());
    blocks
}

fn more(blocks: &mut Vec<Block>, count: usize) {
    if count > ROWS {
        blocks.push(Block::Text(format!("… and {} more.", count - ROWS)));
    }
}
