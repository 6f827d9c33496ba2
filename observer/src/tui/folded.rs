//! The stacks of what is in sight, folded: outermost function first, `;` between functions, a number behind.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use super::{
    command::View,
    details::Subject,
    goroutines::{self, GoRow},
    runtimes,
    state::{State, is_within},
    waiting,
};
use crate::{
    event::{Stack, TaskRef, Wait},
    model::{InProgress, Lock, Model},
    text::printable,
};

/// Numbers by stack, in the order of the stacks.
#[derive(Default)]
struct Folded(BTreeMap<String, u64>);

impl Folded {
    fn add(&mut self, root: &str, names: impl DoubleEndedIterator<Item = String>, value: u64) {
        let mut line = one(root);
        for name in names.rev() {
            line.push(';');
            line.push_str(&one(&name));
        }
        let sum = self.0.entry(line).or_default();
        *sum = sum.saturating_add(value);
    }

    fn stack(&mut self, task: Option<&TaskRef>, stack: &Stack, value: u64) {
        if stack.user.is_empty() {
            return;
        }
        let process = task.and_then(|task| task.process.as_deref().or(task.comm.as_deref()));
        let names = stack.user.iter().map(|frame| match &frame.name {
            Some(name) => name.to_string(),
            None => frame.addr.to_string(),
        });
        self.add(process.unwrap_or("?"), names, value);
    }

    fn blocked(&mut self, wait: &InProgress, now_ns: u64) {
        if let Some(stack) = &wait.event.stack {
            let ms = wait.age_ns(now_ns) / 1_000_000;
            self.stack(Some(&wait.event.task), stack, ms);
        }
    }

    fn wait(&mut self, wait: &Wait) {
        if let Some(stack) = &wait.stack {
            self.stack(Some(&wait.task), stack, wait.dur_ns / 1_000_000);
        }
    }

    fn goroutines(&mut self, row: &GoRow) {
        let names = row.group().stack.iter().map(|frame| frame.function.clone());
        if !row.group().stack.is_empty() {
            let process = row.all.process.as_deref().unwrap_or("?");
            self.add(process, names, row.group().count);
        }
    }

    fn callers(&mut self, lock: &Lock) {
        let task = TaskRef {
            comm: lock.totals.process.clone(),
            ..TaskRef::new(lock.totals.pid.unwrap_or(0), 0)
        };
        for caller in &lock.totals.callers {
            self.stack(Some(&task), &caller.stack, caller.samples);
        }
    }
}

/// A name as a part of a line: nothing in it ends the part or the line.
fn one(name: &str) -> String {
    printable(name).replace(';', ":")
}

/// The stacks of what is in sight. The number is how many milliseconds were waited there, of goroutines how many
/// there are, of a lock's callers how many samples. Empty: no stack is known.
pub(super) fn stacks(state: &State, model: &Model) -> String {
    let model = state.shown(model);
    let mut all = Folded::default();
    match state.details.last() {
        Some(detail) => of_page(&mut all, detail.subject.as_ref(), model.now_ns()),
        None => of_view(&mut all, state, model),
    }
    let mut text = String::new();
    for (stack, value) in all.0 {
        let _ = writeln!(text, "{stack} {value}");
    }
    text
}

fn of_page(all: &mut Folded, subject: Option<&Subject>, now_ns: u64) {
    match subject {
        Some(Subject::Task(page)) => {
            for wait in &page.chain {
                all.blocked(wait, now_ns);
            }
        }
        Some(Subject::Lock(page)) => {
            all.callers(&page.lock);
            if page.lock.totals.callers.is_empty() {
                for (stack, count) in &page.callers {
                    all.stack(None, stack, *count);
                }
            }
        }
        Some(Subject::Wait(wait)) => all.wait(wait),
        Some(Subject::GoGroup(row)) => all.goroutines(row),
        Some(Subject::Goroutine(one)) => all.goroutines(&one.row),
        Some(Subject::GoResource(page)) => page.waiting.iter().for_each(|row| all.goroutines(row)),
        Some(Subject::Finding { .. }) | None => {}
    }
}

fn of_view(all: &mut Folded, state: &State, model: &Model) {
    let (now_ns, query) = (model.now_ns(), &state.query);
    match state.view {
        View::Runtimes => of_runtimes(all, state, model),
        View::Locks => of_locks(
            all,
            &state.locks.listed(model.locks(), now_ns, query),
            model,
        ),
        View::Waits => {
            for wait in state.waits.listed(model.waits(), now_ns, query) {
                all.wait(wait);
            }
        }
        _ => {
            let (within, places) = (state.within.as_ref(), &state.places);
            let waits = waiting::collect(model, places);
            let waits = waits.iter().filter(|wait| is_within(within, wait, places));
            for wait in state.blocked.listed(waits, now_ns, query) {
                match &wait.goroutines {
                    Some(row) => all.goroutines(row),
                    None => all.blocked(wait, now_ns),
                }
            }
        }
    }
}

/// The goroutines of a process, or else those and the threads of all runtimes.
fn of_runtimes(all: &mut Folded, state: &State, model: &Model) {
    let (now_ns, query) = (model.now_ns(), &state.query);
    if let Some(pid) = state.goroutines_of() {
        let rows: Vec<_> = goroutines::collect(model, pid).collect();
        for row in state.goroutines.listed(rows.iter(), now_ns, query) {
            all.goroutines(row);
        }
        return;
    }
    let rows = runtimes::collect(model);
    for row in state.runtimes.listed(rows.iter(), now_ns, query) {
        if let Some(pid) = row.key.go_process() {
            goroutines::collect(model, pid).for_each(|row| all.goroutines(&row));
        }
        let waits = model.blocked().filter(|wait| row.key.holds(&wait.event));
        waits.for_each(|wait| all.blocked(wait, now_ns));
    }
}

/// Their callers; without samples, where the long waits were that are remembered.
fn of_locks(all: &mut Folded, locks: &[&Lock], model: &Model) {
    for lock in locks {
        all.callers(lock);
    }
    if !all.0.is_empty() {
        return;
    }
    let ids: HashSet<_> = locks.iter().map(|lock| &lock.totals.lock.id).collect();
    let is_of_them = |wait: &&Wait| {
        let lock = wait.lock.as_ref();
        lock.is_some_and(|lock| ids.contains(&lock.id))
    };
    for wait in model.waits().filter(is_of_them) {
        all.wait(wait);
    }
}
