//! What a view shows as JSON, and a new file for it.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde_json::{Value, json};

use super::{
    command::View,
    details::{Detail, Subject},
    findings,
    goroutines::{self, GoRow, Resource},
    groups,
    host::Place,
    list::List,
    rollup::{self, Rollup},
    rows::Record,
    runtimes::{self, RuntimeRow},
    state::{State, forest, is_within},
    waiting,
};
use crate::{
    event::{Finding, Wait},
    model::{InProgress, Lock, Model},
};

/// A file to be written: the beginning of its name, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// What it is, for the name of the file.
    pub name: String,
    /// What is written.
    pub text: String,
    /// In which form.
    pub form: Form,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json,
    /// A line for each stack, outermost function first, and a number behind it: what flame graphs are made of.
    Folded,
    /// What is shown, without its columns being cut.
    Text,
}

impl Form {
    /// How names of such files end.
    pub fn extension(self) -> &'static str {
        match self {
            Form::Json => "json",
            Form::Folded => "folded",
            Form::Text => "txt",
        }
    }
}

impl Export {
    /// Writes it to a file of its own in a folder; says which. A file that is there is never overwritten.
    ///
    /// # Errors
    /// Those of creating the file and writing to it.
    pub fn save(&self, folder: &Path) -> io::Result<String> {
        for n in 0u32.. {
            let name = match n {
                0 => format!("{}.{}", self.name, self.form.extension()),
                n => format!("{}-{n}.{}", self.name, self.form.extension()),
            };
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                // It names what was read with the rights of whoever observes, as a recording does.
                .mode(0o600)
                .open(folder.join(&name));
            match file {
                Ok(mut file) => {
                    file.write_all(self.text.as_bytes())?;
                    return Ok(name);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// What is in sight: a detail, or all rows of a view that are listed, in their order.
pub(super) fn json(state: &State, model: &Model) -> Export {
    let model = state.shown(model);
    let time = model.wall_time();
    let (view, rows) = match state.details.last() {
        Some(detail) => ("detail", self::detail(detail)),
        None => (title(state.view), rows(state, model)),
    };
    let mut all = json!({ "view": view, "time": time, "mono_ns": model.now_ns(), "rows": rows });
    let filter = state.query.filter.as_str();
    if !filter.is_empty() {
        all["filter"] = json!(filter);
    }
    Export {
        name: file_name(view, model),
        text: format!("{all:#}\n"),
        form: Form::Json,
    }
}

/// The beginning of a file's name: what it is of, and when.
/// 2026-11-21T13:34:28.… becomes 20261121T133428Z: no colon, which some file systems refuse.
pub(super) fn file_name(view: &str, model: &Model) -> String {
    let stamp: String = model.wall_time().to_string().chars().take(19).collect();
    format!("observer-{view}-{}Z", stamp.replace(['-', ':'], ""))
}

/// What is in sight, for the name of a file.
pub(super) fn subject(state: &State) -> &'static str {
    match state.details.last() {
        Some(_) => "detail",
        None => title(state.view),
    }
}

fn title(view: View) -> &'static str {
    match view {
        View::Overview => "overview",
        View::Blocked => "blocked",
        View::Locks => "locks",
        View::Graph => "graph",
        View::Waits => "waits",
        View::Runtimes => "runtimes",
        View::Processes => "processes",
        View::Containers => "containers",
        View::Health => "health",
    }
}

fn rows(state: &State, model: &Model) -> Value {
    match state.view {
        View::Overview => {
            let all = findings::sorted(model, &state.query.filter);
            all.iter()
                .map(|(found, over)| finding(found, *over))
                .collect()
        }
        View::Blocked if state.is_grouped() => grouped(state, model),
        View::Blocked => {
            let (within, places) = (state.within.as_ref(), &state.places);
            let all = waiting::collect(model, places);
            let rows = all.iter().filter(|wait| is_within(within, wait, places));
            listed(&state.blocked, rows, state, model, |wait| {
                blocked(wait, model.now_ns())
            })
        }
        View::Locks => listed(&state.locks, model.locks(), state, model, lock),
        View::Waits => listed(&state.waits, model.waits(), state, model, wait),
        View::Runtimes => runtime_rows(state, model),
        View::Processes => {
            let all = rollup::collect(model, &state.places, false);
            listed(&state.processes, all.iter(), state, model, |row| {
                rolled_up(row)
            })
        }
        View::Containers => {
            let all = rollup::collect(model, &state.places, state.by_pod);
            listed(&state.containers, all.iter(), state, model, |row| {
                rolled_up(row)
            })
        }
        View::Graph => branches(state, model),
        View::Health => json!([{
            "meta": model.meta(), "loss": model.loss(), "cost": model.cost(),
            "budget": model.budget(),
        }]),
    }
}

fn grouped(state: &State, model: &Model) -> Value {
    let places = &state.places;
    let all = groups::collect(model, state.grouping, &state.query, places);
    let listed = state
        .groups
        .listed(all.iter(), model.now_ns(), &state.query);
    let group = |key| {
        let of_it = model
            .blocked()
            .filter(move |wait| is_within(Some(key), wait, places));
        of_it
            .map(|wait| blocked(wait, model.now_ns()))
            .collect::<Value>()
    };
    listed.into_iter().map(|row| group(&row.key)).collect()
}

fn branches(state: &State, model: &Model) -> Value {
    let branch = |line: crate::model::graph::Branch| {
        json!({
            "tid": line.tid, "depth": line.depth, "behind": line.behind,
            "in_cycle": line.in_cycle, "closes": line.closes,
            "wait": model.blocked_task(line.tid).map(|wait| blocked(wait, model.now_ns())),
        })
    };
    forest(model, &state.query.filter)
        .into_iter()
        .map(branch)
        .collect()
}

fn listed<'a, R: Record>(
    list: &List<R>,
    rows: impl Iterator<Item = &'a R>,
    state: &State,
    model: &Model,
    write: impl Fn(&R) -> Value,
) -> Value {
    let rows = list.listed(rows, model.now_ns(), &state.query);
    rows.into_iter().map(write).collect()
}

fn detail(detail: &Detail) -> Value {
    match &detail.subject {
        Some(Subject::Task(page)) => json!([{
            "tid": page.tid,
            "task": page.name,
            "circle": page.circle,
            "chain": page.chain.iter().map(|one| blocked(one, detail.now_ns)).collect::<Value>(),
            "recent": page.recent,
            "totals": page.totals,
        }]),
        Some(Subject::Lock(page)) => {
            let waiters = page
                .waiters
                .first
                .iter()
                .map(|one| blocked(one, detail.now_ns));
            let mut lock = lock(&page.lock);
            lock["waiters"] = waiters.collect();
            json!([lock])
        }
        Some(Subject::Wait(one)) => json!([wait(one)]),
        Some(Subject::Finding { finding: one, over }) => json!([finding(one, *over)]),
        Some(Subject::GoGroup(row)) => json!([goroutine_group(row)]),
        Some(Subject::Goroutine(one)) => {
            let mut group = goroutine_group(&one.row);
            group["goid"] = json!(one.goid);
            json!([group])
        }
        Some(Subject::GoResource(page)) => match &page.resource {
            Resource::Lock(one) => json!([one]),
            Resource::Channel(one) => json!([one]),
        },
        None => json!([]),
    }
}

fn goroutine_group(row: &GoRow) -> Value {
    let mut value = json!(row.group());
    value["pid"] = json!(row.key.pid);
    value["process"] = json!(row.all.process);
    value["trend"] = json!(row.trend);
    value
}

/// The goroutines of a process, or what is waited for in all runtimes.
fn runtime_rows(state: &State, model: &Model) -> Value {
    if let Some(pid) = state.goroutines_of() {
        let all: Vec<_> = goroutines::collect(model, pid).collect();
        return listed(&state.goroutines, all.iter(), state, model, goroutine_group);
    }
    let all = runtimes::collect(model);
    listed(&state.runtimes, all.iter(), state, model, runtime)
}

fn runtime(row: &RuntimeRow) -> Value {
    let pid = match row.key.scope {
        runtimes::Scope::Process(pid) => Some(pid),
        runtimes::Scope::Server(_) => None,
    };
    json!({
        "runtime": row.key.runtime.name(), "pid": pid, "process": row.name,
        "processes": row.processes, "recognised": row.detail, "waits_for": row.key.part,
        "waiting_now": row.now, "oldest_ns": row.oldest_ns, "waits_per_s": row.waits_per_s,
        "waited_ns": row.waited_ns, "lock": row.lock, "holder": row.holder,
        "finding": row.finding.as_ref().map(|(_, title)| title), "findings": row.findings,
    })
}

fn rolled_up<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Value {
    let (pid, place) = match &row.key {
        rollup::Key::Process(pid) => (Some(pid), None),
        rollup::Key::Group(place) => (None, place.as_ref()),
    };
    let cgroup = match place {
        Some(Place::Group(path)) => Some(path),
        _ => None,
    };
    let container = match place {
        Some(Place::Container(one)) => json!(one),
        Some(Place::Pod(one)) => json!({ "namespace": one.namespace, "pod": one.pod }),
        _ => Value::Null,
    };
    json!({
        "pid": pid, "cgroup": cgroup, "container": container, "name": row.name, "processes": row.processes,
        "blocked": row.blocked, "blocked_by_locks": row.held, "idle": row.idle,
        "oldest": row.oldest.as_ref().map(|wait| &wait.event),
        "waited_ns": row.waited_ns, "runqueue_ns": row.runqueue_ns, "goroutines": row.goroutines,
    })
}

fn blocked(wait: &InProgress, now_ns: u64) -> Value {
    let mut event = wait.event.clone();
    event.age_ns = wait.age_ns(now_ns);
    json!(event)
}

fn lock(lock: &Lock) -> Value {
    let mut totals = lock.totals.clone();
    totals.waiters_now = lock.waiters_now();
    totals.holder = lock.holder().cloned().map(Box::new);
    json!(totals)
}

fn wait(wait: &Wait) -> Value {
    json!(wait)
}

fn finding(found: &Finding, over: bool) -> Value {
    let mut value = json!(found);
    value["over"] = json!(over);
    value
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_never_overwritten() {
        let folder = std::env::temp_dir().join(format!("observer-export-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let export = Export {
            name: "observer-locks".into(),
            text: "{}\n".into(),
            form: Form::Json,
        };
        assert_eq!(export.save(&folder).unwrap(), "observer-locks.json");
        assert_eq!(export.save(&folder).unwrap(), "observer-locks-1.json");
        for name in ["observer-locks.json", "observer-locks-1.json"] {
            let mode = std::fs::metadata(folder.join(name)).unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{name} is for others too: {mode:o}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(export.save(&folder).is_err());
    }
}
