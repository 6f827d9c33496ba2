//! What was known at one moment, from whatever file holds it: a dump, a report in JSON, a recording.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    event::{Confidence, Filters, GoFrame, Holder, Severity, Subject, TaskRef},
    model::Model,
    record::Replay,
    time::WallTime,
};

/// The longest dump that is read. One of 100 000 threads with their stacks is far below.
const MAX_DUMP: u64 = 512 << 20;
/// The longest first line that is looked at to tell a dump from a recording.
const MAX_HEAD: u64 = 8 << 20;
/// `report --format json` lists no more tasks.
const REPORT_TASKS: usize = 1_000;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Of `observer dump --format json`.
    Dump,
    /// Of `report` or `triage` with `--format json`.
    Report,
    /// Of `observer record`.
    Recording,
}

/// A lock, as far as two moments can tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockName {
    /// Identity.
    pub id: Arc<str>,
    /// Class, by its name: that of a later version too.
    pub class: Arc<str>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Arc<str>>,
}

impl std::fmt::Display for LockName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{} {}", self.class, self.id),
        }
    }
}

/// A task, and what it waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskAt {
    /// Which.
    pub task: Arc<TaskRef>,
    /// In what it waits; absent: it does not, or that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Arc<str>>,
    /// For how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ns: Option<u64>,
    /// The age is a lower bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// For which lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockName>,
    /// In which system call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<Arc<str>>,
    /// Who must act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<HolderAt>,
}

/// The holder, in few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderAt {
    /// Thread.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comm: Option<Arc<str>>,
    /// How sure that is.
    pub confidence: Confidence,
}

/// A lock, and how it is waited for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockAt {
    /// Which.
    pub lock: LockName,
    /// The process that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<str>>,
    /// Tasks that wait for it now.
    pub waiters_now: u32,
    /// Waits, and their sum with those in progress; only a recording has counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<u64>,
    /// See `waits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ns: Option<u64>,
    /// Tasks that waited for it on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
}

/// Goroutines that are alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GoGroup {
    /// Process.
    pub pid: u32,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<str>>,
    /// State, and why they wait.
    pub state: String,
    /// Where they were started.
    pub created_by: String,
    /// Where they are: the innermost function of the program's own.
    pub at: String,
    /// How many.
    pub count: u64,
    /// Age of the oldest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ns: Option<u64>,
    /// Some of them, those that were started first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub goids: Vec<u64>,
    /// They wait.
    #[serde(skip)]
    pub waits: bool,
}

/// A diagnosis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FindingAt {
    /// The rule.
    pub rule: Arc<str>,
    /// How bad.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// The same finding at another moment has the same key.
    #[serde(skip)]
    pub key: String,
}

/// All that is known of a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    /// The file.
    pub file: String,
    /// What it is.
    pub source: Source,
    /// Host and kernel.
    pub host: String,
    /// Release of the kernel.
    pub kernel: String,
    /// When; of a recording its end.
    pub time: WallTime,
    /// How long was observed, if longer than a moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_ns: Option<u64>,
    /// Of what.
    #[serde(skip)]
    pub filters: Filters,
    /// Tasks.
    #[serde(skip)]
    pub tasks: Vec<TaskAt>,
    /// Goroutines.
    #[serde(skip)]
    pub goroutines: Vec<GoGroup>,
    /// Locks.
    #[serde(skip)]
    pub locks: Vec<LockAt>,
    /// Diagnoses.
    #[serde(skip)]
    pub findings: Vec<FindingAt>,
    /// Records that were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// What could not be read, and what is not in such a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Moment {
    /// Reads a file, whichever it is.
    ///
    /// # Errors
    /// When it cannot be read, or is none of the three.
    pub fn read(path: &Path) -> Result<Moment> {
        let name = path.display();
        let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        if !is_object(&mut file).with_context(|| format!("cannot read {name}"))? {
            return Moment::of_recording(path);
        }
        let length = file.metadata().map_or(0, |meta| meta.len());
        if length > MAX_DUMP {
            bail!("{name} has {length} bytes: a dump of more than {MAX_DUMP} is not read");
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.take(MAX_DUMP).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {name}"))?;
        let value: Value = serde_json::from_slice(&bytes).with_context(|| {
            format!("{name} is no dump: `observer dump --format json` makes one")
        })?;
        Moment::of_object(&name.to_string(), &value)
    }

    fn of_recording(path: &Path) -> Result<Moment> {
        let mut replay = Replay::open(path)?;
        replay.finish(&mut |_| {})?;
        let notes = replay.unread().notes();
        let moment = Moment::of_model(path.display().to_string(), replay.model(), notes);
        Ok(moment)
    }

    /// What a model knows at its end.
    pub fn of_model(file: String, model: &Model, notes: Vec<String>) -> Moment {
        let meta = model.meta();
        Moment {
            file,
            source: Source::Recording,
            host: meta.map_or_else(|| "?".to_owned(), |meta| meta.host.clone()),
            kernel: meta.map_or_else(|| "?".to_owned(), |meta| meta.kernel.clone()),
            time: model.wall_time(),
            observed_ns: Some(model.elapsed_ns()),
            filters: meta.map_or_else(Filters::default, |meta| meta.filters.clone()),
            tasks: tasks_of(model),
            goroutines: model.goroutines().flat_map(groups_of).collect(),
            locks: locks_of(model),
            findings: model
                .findings()
                .map(|one| finding(&one.rule, one.severity, &one.title, &one.subjects))
                .collect(),
            lost: model.loss().map(|loss| loss.total),
            notes,
        }
    }

    /// A dump, or a report, as one object.
    fn of_object(file: &str, value: &Value) -> Result<Moment> {
        let meta = value.get("meta").filter(|meta| meta.is_object());
        let Some(meta) = meta else {
            bail!(
                "{file} is neither a dump, nor a report, nor a recording: it has no `meta`. `observer dump --format json` and `observer record` make what can be compared"
            );
        };
        let mut left_out = 0;
        let is_report = value.get("summary").is_some();
        let text = |key| meta.get(key).and_then(Value::as_str).unwrap_or("?");
        let end = read::<Ended>(value.get("end"));
        let rows = elements::<Row>(value, "tasks", &mut left_out);
        let is_cut = is_report && rows.len() >= REPORT_TASKS;
        let blocked = elements::<Row>(value, "blocked", &mut left_out);
        let mut tasks: BTreeMap<(u32, u32), TaskAt> = BTreeMap::new();
        // What is blocked is known better than what has waited once.
        for row in rows.into_iter().chain(blocked) {
            tasks.insert((row.task.pid, row.task.tid), row.task_at());
        }
        let locks = elements::<LockRow>(value, "locks", &mut left_out);
        let goroutines = elements(value, "goroutines", &mut left_out);
        let findings = elements::<FindingRow>(value, "findings", &mut left_out);
        let mut notes = Vec::new();
        if left_out > 0 {
            notes.push(format!(
                "elements that this version cannot read, left out: {left_out}"
            ));
        }
        if is_cut {
            notes.push(format!("a report lists at most {REPORT_TASKS} tasks"));
        }
        let observed_ns = end.as_ref().map(|end| end.dur_ns);
        Ok(Moment {
            file: file.to_owned(),
            source: if is_report {
                Source::Report
            } else {
                Source::Dump
            },
            host: text("host").to_owned(),
            kernel: text("kernel").to_owned(),
            time: end
                .map(|end| end.time)
                .or_else(|| read(meta.get("time")))
                .unwrap_or_default(),
            observed_ns,
            filters: read(meta.get("filters")).unwrap_or_default(),
            tasks: tasks.into_values().collect(),
            goroutines: goroutines.iter().flat_map(groups_of).collect(),
            locks: locks
                .into_iter()
                .map(|row| row.lock_at(observed_ns))
                .collect(),
            findings: findings
                .iter()
                .map(|row| finding(&row.rule, row.severity, &row.title, &row.subjects))
                .collect(),
            lost: value.pointer("/loss/total").and_then(Value::as_u64),
            notes,
        })
    }

    /// The processes that were asked for; none: all.
    pub(super) fn pids(&self) -> &[u32] {
        &self.filters.pids
    }
}

/// What tells an event from a dump.
#[derive(Deserialize)]
struct Line {
    r#type: Option<String>,
}

/// Does the file hold one object, and not a line each?
fn is_object(file: &mut File) -> std::io::Result<bool> {
    let mut head = Vec::new();
    let mut first = [0; 1];
    // Compressed, or no JSON at all: the reader of recordings says what is wrong.
    if file.read(&mut first)? == 0 || first[0] != b'{' {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut chunk = [0; 4_096];
    while head.len() < MAX_HEAD as usize {
        let read = file.read(&mut chunk)?;
        let end = memchr::memchr(b'\n', &chunk[..read]);
        head.extend_from_slice(&chunk[..end.unwrap_or(read)]);
        if read == 0 || end.is_some() {
            break;
        }
    }
    // A dump for people has its first field on the next line.
    Ok(match serde_json::from_slice::<Line>(&head) {
        Ok(line) => line.r#type.is_none(),
        Err(error) => error.is_eof(),
    })
}

fn read<T: for<'a> Deserialize<'a>>(value: Option<&Value>) -> Option<T> {
    T::deserialize(value?).ok()
}

/// The elements of a list, those that can be read.
fn elements<T: for<'a> Deserialize<'a>>(value: &Value, key: &str, left_out: &mut u64) -> Vec<T> {
    let all = value.get(key).and_then(Value::as_array);
    let mut elements = Vec::new();
    for one in all.into_iter().flatten() {
        match T::deserialize(one) {
            Ok(element) => elements.push(element),
            Err(_) => *left_out += 1,
        }
    }
    elements
}

/// When observing ended.
#[derive(Deserialize)]
struct Ended {
    time: WallTime,
    dur_ns: u64,
}

/// A thread of a dump, or a wait in progress of a report.
#[derive(Deserialize)]
struct Row {
    task: Arc<TaskRef>,
    kind: Option<Arc<str>>,
    age_ns: Option<u64>,
    #[serde(default)]
    at_least: bool,
    lock: Option<LockName>,
    syscall: Option<Arc<str>>,
    holder: Option<HolderAt>,
}

impl Row {
    fn task_at(self) -> TaskAt {
        TaskAt {
            task: self.task,
            kind: self.kind,
            age_ns: self.age_ns,
            at_least: self.at_least,
            lock: self.lock,
            syscall: self.syscall,
            holder: self.holder,
        }
    }
}

#[derive(Deserialize)]
struct LockRow {
    lock: LockName,
    pid: Option<u32>,
    process: Option<Arc<str>>,
    #[serde(default)]
    waiters_now: u32,
    waits: Option<u64>,
    total_ns: Option<u64>,
}

impl LockRow {
    fn lock_at(self, observed_ns: Option<u64>) -> LockAt {
        LockAt {
            lock: self.lock,
            pid: self.pid,
            process: self.process,
            waiters_now: self.waiters_now,
            waits: self.waits,
            total_ns: self.total_ns,
            waiting: share(self.total_ns, observed_ns),
        }
    }
}

#[derive(Deserialize)]
struct FindingRow {
    rule: Arc<str>,
    severity: Severity,
    title: String,
    #[serde(default)]
    subjects: Vec<Subject>,
}

/// Tasks that waited on average.
fn share(total_ns: Option<u64>, observed_ns: Option<u64>) -> Option<f64> {
    let observed_ns = observed_ns.filter(|ns| *ns > 0)?;
    Some(total_ns? as f64 / observed_ns as f64)
}

fn holder_at(holder: &Holder) -> HolderAt {
    HolderAt {
        tid: holder.tid,
        comm: holder.comm.clone(),
        confidence: holder.confidence,
    }
}

fn lock_name(lock: &crate::event::LockRef) -> LockName {
    LockName {
        id: Arc::clone(&lock.id),
        class: lock.class.name().into(),
        name: lock.name.clone(),
    }
}

fn tasks_of(model: &Model) -> Vec<TaskAt> {
    let mut tasks: BTreeMap<(u32, u32), TaskAt> = BTreeMap::new();
    for totals in model.tasks() {
        let task = TaskAt {
            task: totals.task.clone(),
            kind: None,
            age_ns: None,
            at_least: false,
            lock: None,
            syscall: None,
            holder: None,
        };
        tasks.insert((task.task.pid, task.task.tid), task);
    }
    // What the system sees of a task, and not what a probe of its program tells.
    for wait in model.blocked().filter(|wait| wait.event.probe.is_none()) {
        let event = &wait.event;
        let task = TaskAt {
            task: event.task.clone(),
            kind: Some(event.kind.name().into()),
            age_ns: Some(wait.age_ns(model.now_ns())),
            at_least: event.at_least,
            lock: event.lock.as_deref().map(lock_name),
            syscall: event.syscall.as_deref().map(Arc::from),
            holder: event.holder.as_deref().map(holder_at),
        };
        tasks.insert((task.task.pid, task.task.tid), task);
    }
    tasks.into_values().collect()
}

fn locks_of(model: &Model) -> Vec<LockAt> {
    let observed_ns = model.elapsed_ns();
    // Of waits in progress only what was within the time observed: a lock is not waited for more because it is
    // for longer.
    let mut pending: BTreeMap<&str, u64> = BTreeMap::new();
    for wait in model.blocked() {
        if let Some(lock) = &wait.event.lock {
            let sum = pending.entry(&lock.id).or_default();
            *sum = sum.saturating_add(wait.age_ns(model.now_ns()).min(observed_ns));
        }
    }
    model
        .locks()
        .map(|lock| {
            let pending_ns = pending.get(&*lock.totals.lock.id).copied().unwrap_or(0);
            let total_ns = Some(lock.totals.total_ns.saturating_add(pending_ns));
            LockAt {
                lock: lock_name(&lock.totals.lock),
                pid: lock.totals.pid,
                process: lock.totals.process.clone(),
                waiters_now: lock.waiters_now(),
                waits: Some(lock.totals.waits),
                total_ns,
                waiting: share(total_ns, Some(observed_ns)),
            }
        })
        .collect()
}

fn groups_of(all: &crate::event::Goroutines) -> Vec<GoGroup> {
    let name =
        |frame: Option<&Arc<GoFrame>>| frame.map_or_else(|| "?".to_owned(), ToString::to_string);
    let mut groups: BTreeMap<(String, String, String), GoGroup> = BTreeMap::new();
    for group in all.groups.iter().filter(|group| !group.system) {
        let state = match &group.wait_reason {
            Some(reason) => reason.to_string(),
            None => group.state.name().to_owned(),
        };
        let own = group.stack.iter().find(|frame| frame.is_program());
        let at = name(own.or(group.stack.first()));
        let created_by = name(group.created_by.as_ref());
        let key = (created_by.clone(), at.clone(), state.clone());
        let entry = groups.entry(key).or_insert(GoGroup {
            pid: all.pid,
            process: all.process.clone(),
            state,
            created_by,
            at,
            count: 0,
            oldest_ns: None,
            goids: Vec::new(),
            waits: group.wait_reason.is_some(),
        });
        entry.count = entry.count.saturating_add(group.count);
        entry.oldest_ns = entry.oldest_ns.max(group.oldest_ns);
        entry.goids.extend(&group.goids);
    }
    groups.into_values().collect()
}

/// The same finding is one of the same rule about the same subjects: its title has numbers that change.
fn finding(rule: &Arc<str>, severity: Severity, title: &str, subjects: &[Subject]) -> FindingAt {
    let mut about: Vec<String> = subjects
        .iter()
        .map(|subject| match subject {
            Subject::Task(task) => format!("task {}", task.tid),
            Subject::Lock(lock) => format!("lock {}", lock.id),
            Subject::Process(pid) => format!("process {pid}"),
        })
        .collect();
    about.sort();
    let key = if about.is_empty() {
        format!("{rule} {title}")
    } else {
        format!("{rule} {}", about.join(" "))
    };
    FindingAt {
        rule: Arc::clone(rule),
        severity,
        title: title.to_owned(),
        key,
    }
}
