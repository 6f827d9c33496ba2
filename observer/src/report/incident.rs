//! The report of a recording: the answer first, then what it rests on, what was lost and what was not seen.

use std::io::Write;

use super::{
    answer::{blocked as blocked_goroutines, by_cost, by_gravity, held_up, sentences},
    document::{Block, Document, Section},
    gather::Gathered,
    object::{self, Object, Tasks},
    scene::Scene,
    staged,
};
use crate::{
    dump::{self, Dump},
    event::{Deadlock, Event, Finding, Holder, Stack, TaskRef, TaskTotals, Wait},
    model::{Lock, Model},
    time::human,
};

/// Rows of a table, and frames of a stack.
pub(super) const ROWS: usize = 20;
const FRAMES: usize = 12;
/// Elements of a list in JSON.
const MOST: usize = 1_000;
/// Everything that a report is made of.
#[derive(Debug)]
pub struct Incident<'a> {
    /// The model at the end of the recording.
    pub model: &'a Model,
    /// What was gathered from its events.
    pub gathered: Gathered,
    /// What could not be read of the recording.
    pub unread: Vec<String>,
    /// What a triage looked at beside the stream.
    pub scene: Scene,
}

impl<'a> Incident<'a> {
    /// `gathered` has seen all events that made the model.
    pub fn new(
        model: &'a Model,
        mut gathered: Gathered,
        unread: Vec<String>,
        scene: Scene,
    ) -> Self {
        gathered.finish(model);
        Incident {
            model,
            gathered,
            unread,
            scene,
        }
    }

    /// The answer, in up to three sentences.
    pub fn summary(&self) -> Vec<String> {
        let circumstances = self.scene.circumstances(self.model);
        let goroutines = blocked_goroutines(self.scene.goroutines(self.model));
        let mut sentences = sentences(
            self.model,
            &self.scene.deadlocks(self.model),
            &self.findings(),
            &circumstances,
            goroutines,
        );
        if let Some((why, dump)) = self.scene.unwatched.as_ref().zip(self.scene.dump.as_ref()) {
            // What is known of one moment must not be taken for more.
            let threads = dump.tasks.len();
            sentences.insert(
                1,
                format!("This is one look at {threads} threads and not a watch: {why}."),
            );
        }
        sentences
    }

    /// Diagnoses, the gravest first.
    pub fn findings(&self) -> Vec<&Finding> {
        by_gravity(self.scene.findings(self.model))
    }

    /// Deadlocks of tasks, and circles of goroutines: how many.
    pub fn deadlock_count(&self) -> usize {
        let goroutines = self.scene.goroutines(self.model);
        let circles = goroutines.iter().map(|one| one.deadlocks.len());
        self.scene.deadlocks(self.model).len() + circles.sum::<usize>()
    }

    /// As one JSON object; its elements are shaped as the events. That of a triage is the object of a dump with
    /// more in it: `tasks` are its threads, and their totals are `task_totals`.
    ///
    /// # Errors
    /// The writer's.
    pub fn json(&self, out: &mut dyn Write) -> serde_json::Result<()> {
        let model = self.model;
        let locks = by_cost(model).into_iter().take(MOST);
        let locks =
            locks.map(|lock| object::Lock::Totals(Box::new(Event::from(lock.totals.clone()))));
        let blocked = held_up(model).into_iter().take(MOST);
        let tasks = by_runqueue(model).into_iter().take(MOST);
        let totals: Vec<Event> = tasks.map(|task| Event::from(task.clone())).collect();
        let dump = self.scene.dump.as_ref();
        let looked = dump.into_iter().flat_map(|dump| self.only_in_dump(dump));
        let (tasks, scene) = match dump {
            None => (Tasks::Totals(totals), None),
            Some(dump) => {
                let scene = object::Scene {
                    task_totals: totals,
                    sessions: &self.scene.sessions,
                    dump_meta: &dump.meta,
                    dump_loss: &dump.loss,
                    not_seen: self.points_not_seen(),
                };
                (Tasks::Looked(&dump.tasks), Some(scene))
            }
        };
        let object = Object {
            summary: self.summary(),
            meta: model.meta(),
            findings: self.findings(),
            deadlocks: self.scene.deadlocks(model),
            locks: locks.chain(looked.map(object::Lock::Looked)).collect(),
            blocked: blocked
                .map(|wait| Event::from(wait.event.clone()))
                .collect(),
            waits: self.gathered.longest(),
            tasks,
            goroutines: self.scene.goroutines(model),
            loss: model.loss(),
            end: model.end(),
            forgotten: model.forgotten(),
            unread: self.unread.clone(),
            scene,
        };
        serde_json::to_writer_pretty(out, &object)
    }

    /// Locks that the dump found somebody waiting for, and of which the stream has no totals.
    fn only_in_dump<'d>(&'d self, dump: &'d Dump) -> impl Iterator<Item = &'d dump::Lock> {
        let unknown = |lock: &&dump::Lock| self.model.lock(&lock.lock.id).is_none();
        dump.locks.iter().filter(unknown).take(MOST)
    }

    /// As headings, sentences and tables.
    pub fn document(&self) -> Document {
        Document {
            title: "What was not running, and why".to_owned(),
            facts: facts(self.model),
            summary: self.summary(),
            sections: self.sections(),
        }
    }

    pub(super) fn sections(&self) -> Vec<Section> {
        let model = self.model;
        let kernel = |lock: &&Lock| lock.totals.lock.class.is_kernel();
        let all = by_cost(model);
        let locks: Vec<&Lock> = all.iter().copied().filter(|lock| !kernel(lock)).collect();
        let kernel_locks: Vec<&Lock> = all.iter().copied().filter(kernel).collect();
        let goroutines = self.scene.goroutines(model);
        let mut sections = vec![
            section("Findings", findings(&self.findings())),
            section("Deadlocks", deadlocks(&self.scene.deadlocks(model))),
            section("Locks by total wait", lock_table(&locks, model)),
            section("Blocked at the end", blocked(model)),
            section("Longest waits", waits(self.gathered.longest())),
            section("Run queue", run_queue(model)),
            section("Locks inside the kernel", lock_table(&kernel_locks, model)),
            section("Lost", lost(model)),
            section("Not seen", self.not_seen()),
        ];
        if !goroutines.is_empty() {
            sections.insert(4, section("Goroutines", staged::blocks(&goroutines)));
        }
        if self.scene.sessions.iter().any(|one| one.waiting) {
            sections.insert(4, section("Sessions of PostgreSQL", self.sessions()));
        }
        sections
    }

    fn sessions(&self) -> Vec<Block> {
        let mut all: Vec<_> = self.scene.sessions.iter().collect();
        all.sort_by_key(|one| (!one.waiting, !one.idle_in_transaction, one.pid));
        let rows = all.iter().take(ROWS).map(|one| {
            let waits = if one.waiting { "waits for a lock" } else { "-" };
            vec![one.pid.to_string(), waits.to_owned(), one.title.clone()]
        });
        let mut blocks = vec![Block::Table(
            vec![">pid", "waits", "user, database, client, command"],
            rows.collect(),
        )];
        more(&mut blocks, all.len());
        blocks
    }

    fn not_seen(&self) -> Vec<Block> {
        let points = self.points_not_seen();
        if points.is_empty() {
            return vec![Block::Text("Everything asked for was there.".to_owned())];
        }
        vec![Block::List(points)]
    }

    fn points_not_seen(&self) -> Vec<String> {
        let metas = [
            self.model.meta(),
            self.scene.dump.as_ref().map(|dump| &dump.meta),
        ];
        let missing = metas
            .into_iter()
            .flatten()
            .flat_map(|meta| &meta.capture.missing);
        let mut points: Vec<String> = Vec::new();
        for missing in missing {
            let point = format!("{}: {}", missing.feature, missing.why);
            if !points.contains(&point) {
                points.push(point);
            }
        }
        points.extend(self.unread.iter().cloned());
        points.extend(self.scene.missing.iter().cloned());
        if let Some(dump) = &self.scene.dump {
            let causes = dump.loss.counters.iter().filter(|(_, count)| **count > 0);
            points.extend(causes.map(|(cause, count)| {
                format!("threads that the dump could not look at: {count} ({cause})")
            }));
        }
        if self.scene.unwatched.is_some() {
            points.push(
                "what happens over time: waits that end, totals of locks and tasks, who wakes whom, run queues"
                    .to_owned(),
            );
        } else if self.model.end().is_none() {
            points.push(
                "the recording has no end: observer was stopped at once, or the file is cut"
                    .to_owned(),
            );
        }
        let forgotten = self.model.forgotten();
        if forgotten.locks + forgotten.tasks > 0 {
            points.push(format!(
                "too many at the same time: {} locks and {} tasks are not in this report",
                forgotten.locks, forgotten.tasks
            ));
        }
        points
    }
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

pub(super) fn facts(model: &Model) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(meta) = model.meta() {
        facts.push(format!(
            "{}, Linux {}, {} CPUs, from {}; observer {}",
            meta.host, meta.kernel, meta.cpus, meta.time, meta.observer
        ));
        let filters = &meta.filters;
        let pids: Vec<String> = filters.pids.iter().map(ToString::to_string).collect();
        let only: Vec<String> = [
            ("process", pids),
            ("task", filters.comms.clone()),
            ("control group", filters.cgroups.clone()),
            ("container", filters.containers.clone()),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {}", names.join(", ")))
        .collect();
        // A look has no waits that ended.
        let single = match filters.min_wait_ns {
            0 => String::new(),
            ns => format!("single waits from {}, ", human(ns)),
        };
        facts.push(format!(
            "observed: {}; {single}in progress from {}",
            if only.is_empty() {
                "all tasks".to_owned()
            } else {
                only.join("; ")
            },
            human(filters.long_wait_ns)
        ));
    }
    if let Some(end) = model.end() {
        facts.push(format!(
            "{}: {} waits of {} in all; observing used {} of CPU",
            human(end.dur_ns),
            end.waits,
            human(end.total_ns),
            human(end.cost.cpu_ns)
        ));
    }
    facts
}

fn findings(all: &[&Finding]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for found in all.iter().take(ROWS) {
        blocks.push(Block::Text(format!(
            "{} ({}): {}",
            found.severity.name(),
            found.rule,
            found.title
        )));
        let mut points = found.evidence.clone();
        points.push(format!("what to do: {}", found.advice));
        blocks.push(Block::List(points));
    }
    more(&mut blocks, all.len());
    blocks
}

fn deadlocks(all: &[&Deadlock]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for deadlock in all.iter().take(ROWS) {
        let age = deadlock.age_ns.map_or_else(|| "?".to_owned(), human);
        blocks.push(Block::Text(format!(
            "{} tasks, for at least {age} ({})",
            deadlock.tasks.len(),
            deadlock.confidence.name()
        )));
        for (one, holder) in deadlock.with_holders().take(ROWS) {
            blocks.push(Block::List(vec![format!(
                "{} waits for {} ({}), held by {} ({}: {})",
                task(&one.task),
                one.lock,
                one.lock.class.name(),
                holder,
                one.confidence.name(),
                one.evidence
            )]));
            blocks.extend(stack(one.stack.as_ref()));
        }
    }
    more(&mut blocks, all.len());
    blocks
}

fn lock_table(locks: &[&Lock], model: &Model) -> Vec<Block> {
    if locks.is_empty() {
        return Vec::new();
    }
    let rows = locks.iter().take(ROWS).map(|lock| {
        let totals = &lock.totals;
        let or_dash = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), human);
        let whose = match (&totals.process, totals.pid) {
            (Some(name), Some(pid)) => format!("{name} {pid}"),
            (None, Some(pid)) => pid.to_string(),
            _ => "-".to_owned(),
        };
        vec![
            totals.waits.to_string(),
            human(lock.waited_ns(model.now_ns())),
            or_dash(totals.p50_ns),
            or_dash(totals.p99_ns),
            or_dash((totals.waits > 0).then_some(totals.max_ns)),
            lock.waiters_now().to_string(),
            totals.lock.to_string(),
            totals.lock.class.name().to_owned(),
            whose,
            holder(lock.known_holder()),
        ]
    });
    let head = vec![
        ">waits",
        ">total",
        ">p50",
        ">p99",
        ">max",
        ">now",
        "lock",
        "class",
        "process",
        "last holder",
    ];
    let mut blocks = vec![Block::Table(head, rows.collect())];
    if locks.iter().any(|lock| lock.waiters_now() > 0) {
        blocks.push(Block::Text(
            "The total has the waits in progress too; the other numbers are of waits that ended."
                .to_owned(),
        ));
    }
    if locks.iter().any(|lock| lock.totals.estimated) {
        blocks.push(Block::Text(
            "Estimates: short waits were sampled to keep to the budget.".to_owned(),
        ));
    }
    more(&mut blocks, locks.len());
    blocks
}

fn blocked(model: &Model) -> Vec<Block> {
    let all = held_up(model);
    let idle = model.blocked().count() - all.len();
    let mut blocks = Vec::new();
    if !all.is_empty() {
        let rows = all.iter().take(ROWS).map(|wait| {
            let event = &wait.event;
            let least = if event.at_least { "≥" } else { "" };
            let age = match wait.age_ns(model.now_ns()) {
                0 => "?".to_owned(),
                age_ns => format!("{least}{}", human(age_ns)),
            };
            vec![
                age,
                task(&event.task),
                event.kind.name().to_owned(),
                event
                    .lock
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
                event.syscall.as_deref().unwrap_or("-").to_owned(),
                holder(event.holder.as_deref()),
            ]
        });
        blocks.push(Block::Table(
            vec![">age", "task", "kind", "lock", "call", "holder"],
            rows.collect(),
        ));
        more(&mut blocks, all.len());
    }
    if idle > 0 {
        blocks.push(Block::Text(format!(
            "And {idle} idle, in poll, sleep or child."
        )));
    }
    blocks
}

fn waits(longest: &[Wait]) -> Vec<Block> {
    if longest.is_empty() {
        return Vec::new();
    }
    let rows = longest.iter().take(ROWS).map(|wait| {
        let waker = wait.waker.as_ref().map_or_else(
            || "-".to_owned(),
            |waker| format!("{}/{}", waker.comm.as_deref().unwrap_or("?"), waker.tid),
        );
        vec![
            format!(
                "{}{}",
                if wait.at_least { "≥" } else { "" },
                human(wait.dur_ns)
            ),
            wait.runqueue_ns.map_or_else(|| "-".to_owned(), human),
            task(&wait.task),
            wait.kind.name().to_owned(),
            wait.lock
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            wait.syscall.as_deref().unwrap_or("-").to_owned(),
            waker,
        ]
    });
    let head = vec![
        ">length",
        ">runnable",
        "task",
        "kind",
        "lock",
        "call",
        "woken by",
    ];
    vec![Block::Table(head, rows.collect())]
}

/// Tasks that waited for a CPU, the longest in all first.
fn by_runqueue(model: &Model) -> Vec<&TaskTotals> {
    let total = |task: &TaskTotals| task.runqueue.map_or(0, |all| all.total_ns);
    let mut tasks: Vec<_> = model.tasks().collect();
    tasks.sort_by_key(|task| (std::cmp::Reverse(total(task)), task.task.tid));
    tasks
}

fn run_queue(model: &Model) -> Vec<Block> {
    let rows: Vec<_> = by_runqueue(model)
        .into_iter()
        .filter_map(|task| Some((task, task.runqueue.filter(|all| all.total_ns > 0)?)))
        .take(ROWS)
        .map(|(totals, all)| {
            vec![
                human(all.total_ns),
                all.waits.to_string(),
                human(all.max_ns),
                task(&totals.task),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    vec![Block::Table(
        vec![">waited", ">times", ">max", "task"],
        rows,
    )]
}

fn lost(model: &Model) -> Vec<Block> {
    let Some(loss) = model.loss() else {
        return vec![Block::Text(
            "Not known: the recording does not say.".to_owned(),
        )];
    };
    if loss.total == 0 {
        return vec![Block::Text("Nothing.".to_owned())];
    }
    let causes = loss.counters.iter().filter(|(_, count)| **count > 0);
    vec![Block::List(
        causes
            .map(|(cause, count)| format!("{cause}: {count}"))
            .collect(),
    )]
}

pub(super) fn more(blocks: &mut Vec<Block>, count: usize) {
    if count > ROWS {
        blocks.push(Block::Text(format!("… and {} more.", count - ROWS)));
    }
}

pub(super) fn task(task: &TaskRef) -> String {
    match &task.process {
        Some(process) if task.comm.as_ref() != Some(process) => {
            format!("{task} ({process} {})", task.pid)
        }
        _ if task.pid == task.tid => task.to_string(),
        _ => format!("{task} ({})", task.pid),
    }
}

pub(super) fn holder(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else {
        return "-".to_owned();
    };
    let Some(tid) = holder.tid else {
        return format!("unknown: {}", holder.evidence);
    };
    let name = holder.comm.as_deref().unwrap_or("?");
    let doing = holder
        .doing
        .as_ref()
        .map_or_else(String::new, |doing| format!(", {doing}"));
    format!("{name}/{tid} ({}{doing})", holder.confidence.name())
}

fn stack(stack: Option<&Stack>) -> Option<Block> {
    let lines = stack_lines(stack);
    (!lines.is_empty()).then_some(Block::Lines(lines))
}

/// The innermost calls of a stack.
pub(super) fn stack_lines(stack: Option<&Stack>) -> Vec<String> {
    let frames = stack.into_iter().flat_map(|stack| stack.user.iter());
    frames
        .take(FRAMES)
        .map(|frame| {
            let name = frame
                .name
                .as_deref()
                .map_or_else(|| frame.addr.to_string(), str::to_owned);
            match (&frame.file, frame.line) {
                (Some(file), Some(line)) => format!("{name}  {file}:{line}"),
                _ => name,
            }
        })
        .collect()
}
